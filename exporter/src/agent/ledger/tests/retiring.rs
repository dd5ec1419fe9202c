//! Targets that end, restart and share a container, and pods of one name.

use super::*;

#[test]
fn a_target_that_is_retired_during_a_reading_counts_once_and_its_entries_stay_until_that_is_over() {
    let mut node = node();
    let id = node.start(10, "a", "u1");
    node.count(id, 3);
    node.end(id);
    let before = node.begin();
    let retirement = node.retire(id).unwrap();
    assert!(!node.ledger.is_quiet(retirement), "a reading looks at its entries");
    let after = node.begin();
    let read = node.read(&before);
    let known = node.know(&before, read);
    assert_eq!(Node::shown(&before, &known), shows(&[("a", 3)]));
    node.ledger.end(before.number);
    assert!(node.ledger.is_quiet(retirement), "the other began after it");
    // Its entries are there still, and do not count.
    let read = node.read(&after);
    let known = node.know(&after, read);
    assert_eq!(Node::shown(&after, &known), shows(&[]));
    node.ledger.end(after.number);
    node.remove(id, retirement);
    node.start(11, "a", "u1");
    assert_eq!(node.scrape(), shows(&[("a", 3)]));
}

#[test]
fn a_container_that_restarts_goes_on_with_its_totals_at_every_moment() {
    let mut node = node();
    let first = node.start(10, "a", "u1");
    node.count(first, 3);
    node.end(first);
    let second = node.start(11, "a", "u1");
    node.count(second, 4);
    assert_eq!(node.scrape(), shows(&[("a", 7)]), "both have entries");
    let retirement = node.retire(first).unwrap();
    assert_eq!(node.scrape(), shows(&[("a", 7)]), "one is retired, and its entries are there");
    node.remove(first, retirement);
    assert_eq!(node.scrape(), shows(&[("a", 7)]), "they are gone");
    node.end(second);
    node.bury(second);
    node.start(12, "a", "u1");
    assert_eq!(node.scrape(), shows(&[("a", 7)]));
}

#[test]
fn processes_of_one_container_are_shown_as_one() {
    let mut node = node();
    let first = node.start(10, "a", "u1");
    let second = node.start(11, "a", "u1");
    let other = node.start(12, "b", "u2");
    node.count(first, 1);
    node.count(second, 2);
    node.count(other, 4);
    assert_eq!(node.scrape(), shows(&[("a", 3), ("b", 4)]));
}

#[test]
fn the_next_pod_of_a_name_counts_anew() {
    let mut node = node();
    let first = node.start(10, "a", "u1");
    node.count(first, 3);
    node.end(first);
    let second = node.start(11, "a", "u2");
    node.count(second, 4);
    assert_eq!(node.scrape(), shows(&[("a", 4)]), "the one before has entries");
    let view = node.begin();
    assert!(!view.targets.contains_key(&first));
    let retirement = node.ledger.retire(&view, vec![Leaver { id: first, totals: None }]).unwrap();
    node.ledger.end(view.number);
    node.remove(first, retirement);
    assert_eq!(node.scrape(), shows(&[("a", 4)]));
}

#[test]
fn the_totals_of_a_pod_are_not_those_of_the_next_of_its_name() {
    let mut node = node();
    let first = node.start(10, "a", "u1");
    node.count(first, 3);
    node.end(first);
    node.bury(first);
    let second = node.start(11, "a", "u2");
    node.count(second, 4);
    assert_eq!(node.scrape(), shows(&[("a", 4)]));
    // Its own stay, whatever becomes of the other's.
    node.end(second);
    node.bury(second);
    node.ledger.forget_pods(&["u1".into()].into(), &HashSet::new());
    node.start(12, "a", "u2");
    assert_eq!(node.scrape(), shows(&[("a", 4)]));
}

#[test]
fn a_pod_that_is_retired_after_the_next_of_its_name_leaves_that_its_totals() {
    let mut node = node();
    let old = node.start(10, "a", "u1");
    node.count(old, 3);
    let view = node.begin();
    let leaver = node.leaver(&view, old);
    node.ledger.end(view.number);
    node.end(old);
    let new = node.start(11, "a", "u2");
    node.count(new, 4);
    node.end(new);
    node.bury(new);
    node.ledger.retire(&view, vec![leaver]).unwrap();
    node.start(12, "a", "u2");
    assert_eq!(node.scrape(), shows(&[("a", 4)]));
}

#[test]
fn a_pod_that_is_gone_is_forgotten_once_nothing_of_it_lingers() {
    let mut node = node();
    let first = node.start(10, "a", "u1");
    node.count(first, 3);
    node.end(first);
    node.bury(first);
    let second = node.start(11, "a", "u1");
    node.end(second);
    let lingering = node.begin().pods();
    node.ledger.forget_pods(&["u1".into()].into(), &lingering);
    assert_eq!(node.scrape(), shows(&[("a", 3)]));
    node.ledger.forget_pods(&["u1".into()].into(), &HashSet::new());
    assert_eq!(node.scrape(), shows(&[]));
}

#[test]
fn nobody_is_retired_twice() {
    let mut node = node();
    let id = node.start(10, "a", "u1");
    node.count(id, 3);
    node.end(id);
    let view = node.begin();
    let (one, other) = (node.leaver(&view, id), node.leaver(&view, id));
    node.ledger.retire(&view, vec![one]).unwrap();
    assert_eq!(node.ledger.retire(&view, vec![other]), Err(Overtaken));
    node.start(11, "a", "u1");
    assert_eq!(node.scrape(), shows(&[("a", 3)]));
}
