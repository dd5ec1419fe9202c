//! Links are letters here.

use std::time::{Duration, Instant};

use super::{super::lease::Leases, *};
use crate::target::Feature;

const HTTP: Features = Features::NONE.with(Feature::Http);
const GC: Features = Features::NONE.with(Feature::Stw);
const BOTH: Features = HTTP.union(GC);

type Letters = Groups<char>;

fn code() -> Code {
    Code::sample(1)
}

fn key() -> GroupKey {
    GroupKey::shared(&Process::sample(1, 1, 1))
}

fn site(link: char) -> Site<char> {
    (Probe::HttpStart, link as u64, link)
}

fn letters(links: Option<Links<char>>) -> String {
    links.into_iter().flatten().map(|(.., link)| link).collect()
}

/// What has to be attached before the target's links are complete.
fn join(groups: &mut Letters, id: u32, features: Features) -> Joined {
    groups.join(key(), id, features, &code())
}

fn missing(joined: Joined) -> Missing {
    let Joined::Missing(missing) = joined else { panic!("{joined:?}") };
    missing
}

/// A group that has one link for its first user, target 1.
fn of_one() -> Letters {
    let mut groups = Letters::default();
    let missing = missing(join(&mut groups, 1, HTTP));
    assert!(groups.attached(&key(), missing.generation, HTTP, vec![site('a')]).is_ok());
    groups
}

#[test]
fn the_first_user_has_all_links_to_attach() {
    let missing = missing(join(&mut Letters::default(), 1, HTTP));
    assert_eq!((missing.had, missing.features), (Features::NONE, HTTP));
}

#[test]
fn a_second_user_shares_what_is_attached() {
    let mut groups = of_one();
    assert_eq!(join(&mut groups, 2, HTTP), Joined::Complete);
    assert_eq!(groups.users(&key()), [1, 2]);
    assert_eq!(groups.get(&key()).unwrap().sites(), 1);
}

#[test]
fn a_user_that_comes_while_links_are_being_attached_waits_for_them() {
    let mut groups = Letters::default();
    let missing = missing(join(&mut groups, 1, HTTP));
    assert_eq!(join(&mut groups, 2, HTTP), Joined::Pending);
    assert!(groups.is_pending(&key(), missing.generation));
    assert!(groups.attached(&key(), missing.generation, HTTP, vec![site('a')]).is_ok());
    assert!(!groups.is_pending(&key(), missing.generation));
}

#[test]
fn a_user_that_asks_for_more_has_the_rest_attached() {
    let mut groups = of_one();
    let missing = missing(join(&mut groups, 2, GC));
    assert_eq!((missing.had, missing.features), (HTTP, BOTH));
    assert!(!groups.get(&key()).unwrap().is_attached(), "until then nobody may take it for complete");
    assert!(groups.attached(&key(), missing.generation, BOTH, vec![site('b')]).is_ok());
    assert_eq!(join(&mut groups, 3, BOTH), Joined::Complete);
    assert_eq!(groups.get(&key()).unwrap().sites(), 2);
}

#[test]
fn only_the_last_user_takes_the_links_along() {
    let mut groups = of_one();
    join(&mut groups, 2, HTTP);
    assert_eq!(groups.leave(&key(), 1), None);
    assert_eq!(groups.leave(&key(), 3), None, "it is no user");
    assert_eq!(letters(groups.leave(&key(), 2)), "a");
    assert!(groups.get(&key()).is_none());
    assert_eq!(groups.leave(&key(), 2), None);
}

#[test]
fn links_that_come_too_late_are_handed_back() {
    let mut groups = Letters::default();
    let first = missing(join(&mut groups, 1, HTTP));
    groups.leave(&key(), 1);
    assert_eq!(letters(groups.attached(&key(), first.generation, HTTP, vec![site('a')]).err()), "a", "it is gone");
    // Another of the same file, to which links are being attached too.
    let second = missing(join(&mut groups, 2, HTTP));
    assert_ne!(first.generation, second.generation);
    assert_eq!(letters(groups.attached(&key(), first.generation, HTTP, vec![site('b')]).err()), "b");
    assert!(groups.is_pending(&key(), second.generation));
}

#[test]
fn nothing_is_attached_twice_to_a_complete_group() {
    let mut groups = of_one();
    let generation = groups.get(&key()).unwrap().generation;
    assert_eq!(letters(groups.attached(&key(), generation, HTTP, vec![site('b')]).err()), "b");
}

#[test]
fn a_group_that_fails_gives_back_its_links_and_names_its_users() {
    let mut groups = of_one();
    join(&mut groups, 3, HTTP);
    join(&mut groups, 2, GC);
    let (users, links) = groups.dissolve(&key());
    assert_eq!((users, letters(Some(links))), (vec![1, 2, 3], "a".to_owned()));
    assert!(groups.dissolve(&key()).0.is_empty());
}

#[test]
fn processes_of_one_identity_share_only_what_is_in_the_same_code() {
    let mut groups = of_one();
    let (one, other) = (Process::sample(1, 1, 1), Process::sample(2, 1, 1));
    assert_eq!(groups.key_of(&other, true, &code()), GroupKey::shared(&one));
    assert_eq!(groups.key_of(&other, true, &Code::sample(2)), GroupKey::alone(&other));
    assert_eq!(groups.key_of(&other, false, &code()), GroupKey::alone(&other), "its file may change");
    // Nobody uses the file's group any more: the next code may found it anew.
    groups.leave(&key(), 1);
    assert_eq!(groups.key_of(&other, true, &Code::sample(2)), GroupKey::shared(&other));
}

#[test]
fn a_process_of_its_own_scope_shares_nothing() {
    let mut groups = of_one();
    let alone = GroupKey::alone(&Process::sample(2, 1, 1));
    assert!(matches!(groups.join(alone, 2, HTTP, &code()), Joined::Missing(_)));
    assert_eq!(groups.users(&key()), [1]);
}

#[test]
fn leased_links_are_sites_of_the_group_and_go_with_it() {
    let (mut groups, leases) = (of_one(), Leases::new());
    let lease = leases.grant(Instant::now() + Duration::from_hours(1), drop);
    assert!(lease.add(site('p')).is_ok());
    let group = groups.get_mut(&key()).unwrap();
    group.blocking = Some(lease.clone());
    assert_eq!(group.sites(), 2);
    let mut sites: Vec<u64> = group.all_sites().map(|(_, offset)| offset).collect();
    sites.sort_unstable();
    assert_eq!(sites, ['a' as u64, 'p' as u64]);
    assert_eq!(letters(groups.leave(&key(), 1)), "ap");
    assert!(lease.take().is_none_or(|left| left.is_empty()));
}

#[test]
fn leased_links_that_came_off_by_themselves_are_no_sites() {
    let (mut groups, leases) = (of_one(), Leases::new());
    let lease = leases.grant(Instant::now() + Duration::from_hours(1), drop);
    assert!(lease.add(site('p')).is_ok());
    groups.get_mut(&key()).unwrap().blocking = Some(lease.clone());
    drop(lease.take());
    assert_eq!(groups.get(&key()).unwrap().sites(), 1);
    assert_eq!(letters(groups.leave(&key(), 1)), "a");
}

#[test]
fn at_the_end_every_group_is_taken() {
    let mut groups = of_one();
    groups.join(GroupKey::alone(&Process::sample(7, 2, 1)), 7, HTTP, &code());
    assert_eq!(groups.take_all().len(), 2);
    assert_eq!(groups.iter().count(), 0);
}
