//! Requests that user space settles.

use super::*;

#[test]
fn a_settled_request_is_counted_once_and_with_its_duration() {
    let mut node = node();
    let id = node.start(10, "a", "u1");
    node.count(id, 3);
    let before = node.begin();
    assert!(node.settle(id, None));
    // It began before, and shows what was then, whatever its read sees.
    let read = node.read(&before);
    let known = node.know(&before, read);
    assert_eq!(Node::shown(&before, &known), shows(&[("a", 3)]));
    node.ledger.end(before.number);
    assert_eq!(node.scrape(), shows(&[("a", 4)]));
    let view = node.begin();
    assert_eq!(view.settled[&id].series[&key(id, 500)].sum_ns, 5);
}

#[test]
fn a_request_that_was_settled_is_not_in_flight_and_is_forgotten_with_its_entry() {
    let mut node = node();
    let id = node.start(10, "a", "u1");
    node.in_flight.insert(goroutine(id), 100);
    let before = node.begin();
    assert!(node.settle(id, Some((goroutine(id), 100))));
    let view = node.begin();
    let seen = node.read(&view).in_flight.unwrap();
    assert_eq!((seen.open.get(&(id, 0)), seen.entries), (None, 1));
    assert_eq!(seen.over(&view.settled), [], "its entry is there");
    // Its goroutine begins another request.
    node.in_flight.insert(goroutine(id), 200);
    let seen = node.read(&view).in_flight.unwrap();
    assert_eq!(seen.open.get(&(id, 0)), Some(&1));
    let over = seen.over(&view.settled);
    assert_eq!(over, [(goroutine(id), 100)]);
    // A reading that began before knows nothing of it.
    assert_eq!(node.read(&before).in_flight.unwrap().over(&before.settled), []);
    assert!(node.ledger.is_settled(goroutine(id), 100));
    node.ledger.forget_requests(&over);
    assert!(!node.ledger.is_settled(goroutine(id), 100));
    assert_eq!(node.scrape(), shows(&[("a", 1)]), "what it counted stays");
}

#[test]
fn a_request_that_is_settled_again_meanwhile_is_not_forgotten() {
    let mut node = node();
    let id = node.start(10, "a", "u1");
    assert!(node.settle(id, Some((goroutine(id), 100))));
    assert!(node.settle(id, Some((goroutine(id), 200))));
    node.ledger.forget_requests(&[(goroutine(id), 100)]);
    assert!(node.ledger.is_settled(goroutine(id), 200));
}

#[test]
fn what_is_settled_while_a_target_is_added_up_is_not_left_behind() {
    let mut node = node();
    let id = node.start(10, "a", "u1");
    node.count(id, 3);
    node.end(id);
    let view = node.begin();
    let leaver = node.leaver(&view, id);
    assert!(node.settle(id, None));
    assert_eq!(node.ledger.retire(&view, vec![leaver]), Err(Overtaken));
    node.ledger.end(view.number);
    assert_eq!(node.scrape(), shows(&[("a", 4)]), "nothing has changed");
    node.bury(id);
    node.start(11, "a", "u1");
    assert_eq!(node.scrape(), shows(&[("a", 4)]));
}

#[test]
fn nothing_is_settled_of_a_target_that_is_retired_or_forgotten_or_of_the_next_with_its_id() {
    let mut node = node();
    let id = node.start(10, "a", "u1");
    node.end(id);
    let before = node.begin();
    let retirement = node.retire(id).unwrap();
    assert!(!node.settle(id, None));
    assert!(!node.ledger.settle(&before, &key(id, 500), 5, None), "its totals are retired");
    node.ledger.end(before.number);
    let between = node.begin();
    node.remove(id, retirement);
    assert!(!node.settle(id, None));
    node.use_again(id, 11, "b", "u2");
    assert!(!node.ledger.settle(&between, &key(id, 500), 5, None), "whoever it is now, it was nobody then");
    assert!(node.settle(id, None));
}

#[test]
fn what_user_space_counted_past_the_limit_is_lost_as_well() {
    let mut node = node();
    let id = node.start(10, "a", "u1");
    node.lost.insert(LostKey { target: 0, reason: Reason::EndNotSeen as u32 }, 1);
    let view = node.begin();
    assert!(node.ledger.settle(&view, &SeriesKey::overflow(Family::HttpServer, id), 5, None));
    node.ledger.end(view.number);
    let view = node.begin();
    let read = node.read(&view);
    let known = node.know(&view, read);
    let losses = view.losses(known.lost().unwrap(), &view.leaders());
    let expected = [((0, Reason::EndNotSeen as u32), 1), ((id, Reason::SeriesOverflow as u32), 1)];
    assert_eq!(losses, expected.into());
}
