//! Processes that share the links on their file.

use super::*;

fn key() -> GroupKey {
    GroupKey::shared(&Process::sample(10, 1, 1))
}

#[test]
fn a_second_process_of_a_file_is_measured_by_what_is_attached() {
    let mut life = life();
    let first = life.measured(candidate(&Process::sample(10, 1, 1)), "a");
    let (second, effects) = life.configured(candidate(&Process::sample(11, 1, 1)));
    assert_eq!(kinds(&effects), ["joined", "blocking", "scheduler"]);
    assert_eq!(life.stage(second), "measured");
    assert_eq!(life.registry.groups.users(&key()), [first, second]);
    assert_eq!(detached(&life.end(first, false)), "", "the other needs them");
    assert_eq!(detached(&life.end(second, false)), "a");
}

#[test]
fn a_process_that_comes_while_links_are_attached_is_measured_with_the_first() {
    let mut life = life();
    let (first, effects) = life.configured(candidate(&Process::sample(10, 1, 1)));
    let (second, waits) = life.configured(candidate(&Process::sample(11, 1, 1)));
    assert_eq!(kinds(&waits), [""; 0]);
    life.attached(&attach(effects), Ok(links("a")));
    assert_eq!((life.stage(first), life.stage(second)), ("measured", "measured"));
}

#[test]
fn a_process_that_asks_for_more_has_the_rest_attached_first() {
    let mut life = life();
    let first = life.measured(candidate(&Process::sample(10, 1, 1)), "a");
    let more = HTTP.with(Feature::Stw);
    let (second, effects) = life.configured(Candidate { features: more, ..candidate(&Process::sample(11, 1, 1)) });
    let attach = attach(effects);
    assert_eq!((attach.id, attach.missing.had, attach.missing.features), (second, HTTP, more));
    assert_eq!((life.stage(first), life.stage(second)), ("measured", "preparing"));
    life.attached(&attach, Ok(links("b")));
    assert_eq!(life.stage(second), "measured");
    assert_eq!(life.registry.groups.get(&key()).unwrap().sites(), 2);
}

#[test]
fn one_that_asks_for_more_while_links_are_attached_comes_after_them() {
    let mut life = life();
    let (first, effects) = life.configured(candidate(&Process::sample(10, 1, 1)));
    let more = HTTP.with(Feature::Stw);
    let (second, _) = life.configured(Candidate { features: more, ..candidate(&Process::sample(11, 1, 1)) });
    let effects = life.attached(&attach(effects), Ok(links("a")));
    assert_eq!((life.stage(first), life.stage(second)), ("measured", "preparing"));
    let rest = attach(effects);
    assert_eq!((rest.id, rest.missing.had, rest.missing.features), (second, HTTP, more));
    life.attached(&rest, Ok(links("b")));
    assert_eq!(life.stage(second), "measured");
}

#[test]
fn processes_that_were_picked_one_by_one_share_nothing() {
    let mut life = life();
    life.measured(candidate(&Process::sample(10, 1, 1)), "a");
    let process = Process::sample(11, 1, 1);
    let asked = inspect(&life.adopt(Candidate { others: false, ..candidate(&process) }));
    // What reads executables asks the target whether others are wanted.
    assert!(!life.registry.targets[&asked.0].others);
    let outcome = Inspected { may_share: false, ..inspected(asked, &process) };
    let configure = configure(life.registry.inspected(outcome, 1));
    let attach = attach(life.registry.configured(configure, Ok(())));
    assert_eq!(attach.key, GroupKey::alone(&process));
}

#[test]
fn on_overlayfs_it_is_verified_that_shared_probes_are_in_each() {
    let on_overlay = |pid| {
        let mut process = Process::sample(pid, 1, 1);
        (process.id.inode.device, process.file.inode.device) = (0, 0);
        process
    };
    let mut life = life();
    life.measured(candidate(&on_overlay(10)), "a");
    let (second, effects) = life.configured(candidate(&on_overlay(11)));
    assert_eq!(kinds(&effects), ["verify", "joined", "blocking", "scheduler"]);
    let at = |it: &Effect<char>| matches!(it, Effect::Verify { id, file_offset: 0x1000, .. } if *id == second);
    assert!(effects.iter().any(at));
    // They are not: it gets its own.
    let effects = life.registry.regroup(second);
    assert_eq!(kinds(&effects), ["inspect"], "the first still uses the links");
    assert!(!life.registry.targets[&second].others);
    assert_eq!(life.registry.targets[&second].group, GroupKey::alone(&on_overlay(11)));
}

#[test]
fn probes_that_would_get_into_changed_code_are_split_up() {
    let mut life = life();
    let (first, effects) = life.configured(candidate(&Process::sample(10, 1, 1)));
    let (second, _) = life.configured(candidate(&Process::sample(11, 1, 1)));
    let attach = attach(effects);
    let effects = life.attached(&attach, Err(AttachError::Patched("process 12 has changed its code".into())));
    assert_eq!(kinds(&effects), ["inspect", "inspect"]);
    assert!(life.registry.groups.get(&key()).is_none());
    for (id, pid) in [(first, 10), (second, 11)] {
        assert_eq!(life.registry.targets[&id].group, GroupKey::alone(&Process::sample(pid, 1, 1)));
    }
    // One process alone that has changed its code is not attached to.
    let asked = effects
        .iter()
        .find_map(|it| if let Effect::Inspect { id, attempt, .. } = it { Some((*id, *attempt)) } else { None });
    let process = Process::sample(10, 1, 1);
    let outcome = Inspected { may_share: false, ..inspected(asked.unwrap(), &process) };
    let configure = configure(life.registry.inspected(outcome, 1));
    let alone = super::attach(life.registry.configured(configure, Ok(())));
    let effects = life.attached(&alone, Err(AttachError::Patched("it has changed its code".into())));
    assert_eq!((kinds(&effects), life.stage(first)), (vec!["unconfigure"], "failed"));
}

#[test]
fn a_regrouped_target_leaves_its_links_to_nobody() {
    let mut life = life();
    let id = life.measured(candidate(&Process::sample(10, 1, 1)), "a");
    let effects = life.registry.regroup(id);
    // In this order: what reads the executable waits until nothing of the process is being detached.
    assert_eq!((kinds(&effects), detached(&effects)), (vec!["detach", "inspect"], "a".to_owned()));
    assert_eq!(life.stage(id), "preparing");
    life.end(id, false);
    assert_eq!(kinds(&life.registry.regroup(id)), [""; 0], "it has no probes any more");
}

#[test]
fn a_missing_part_of_the_links_is_asked_for_by_generation() {
    let mut life = life();
    let (first, effects) = life.configured(candidate(&Process::sample(10, 1, 1)));
    let old = attach(effects);
    life.end(first, false);
    let (_, effects) = life.configured(candidate(&Process::sample(11, 1, 1)));
    let new = attach(effects);
    assert_eq!(old.key, new.key);
    assert_eq!(detached(&life.attached(&old, Ok(links("a")))), "a", "they were for a group that is no more");
    let Missing { generation, .. } = new.missing;
    assert!(life.registry.groups.is_pending(&new.key, generation));
}
