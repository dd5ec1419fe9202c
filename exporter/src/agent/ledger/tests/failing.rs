//! Maps that cannot be read.

use super::*;

#[test]
fn an_id_that_is_used_again_has_nothing_of_the_one_before_even_if_no_map_can_be_read() {
    let mut node = node();
    let id = node.start(10, "a", "u1");
    node.count(id, 3);
    node.in_flight.insert(goroutine(id), 100);
    assert_eq!(node.scrape(), shows(&[("a", 3)]));
    node.end(id);
    let retirement = node.retire(id).unwrap();
    // Read after it is retired, and kept as the last that is known while its entries are removed.
    let view = node.begin();
    let read = node.read(&view);
    node.remove(id, retirement);
    node.use_again(id, 11, "b", "u2");
    let known = node.know(&view, read);
    assert_eq!(Node::shown(&view, &known), shows(&[]));
    node.ledger.end(view.number);
    assert_eq!(node.scrape_in_vain(), shows(&[]));
    node.count(id, 1);
    assert_eq!(node.scrape(), shows(&[("b", 1)]));
}

#[test]
fn what_was_known_of_a_target_goes_with_it_and_not_to_the_next_with_its_id() {
    let mut node = node();
    let id = node.start(10, "a", "u1");
    node.count(id, 3);
    node.in_flight.insert(goroutine(id), 100);
    assert_eq!(node.scrape(), shows(&[("a", 3)]));
    node.end(id);
    node.bury(id);
    node.use_again(id, 11, "b", "u2");
    assert_eq!(node.scrape_in_vain(), shows(&[]));
    let view = node.begin();
    let read = node.read_half(&view);
    let known = node.know(&view, read);
    let leaders = view.leaders();
    assert_eq!(known.in_flight().unwrap().active(&leaders, &[Lane::HttpServer]), HashMap::new(), "not 1, and not 0");
    assert_eq!(view.kept(known.kept().unwrap(), &leaders), HashMap::new());
}

#[test]
fn a_read_that_fails_half_way_leaves_what_was_known_and_is_told() {
    let mut node = node();
    let (a, b) = (node.start(10, "a", "u1"), node.start(11, "b", "u2"));
    node.count(a, 3);
    node.count(b, 4);
    node.lost.insert(LostKey { target: a, reason: Reason::EndNotSeen as u32 }, 2);
    node.in_flight.insert(goroutine(a), 100);
    assert_eq!(node.scrape(), shows(&[("a", 3), ("b", 4)]));
    assert_eq!(node.ledger.unreadable(), []);
    node.count(a, 10);
    node.second += 1;
    let since = node.now().at;
    assert_eq!(node.scrape_in_vain(), shows(&[("a", 3), ("b", 4)]));
    node.second += 1;
    // What user space settles counts meanwhile.
    assert!(node.settle(b, None));
    let view = node.begin();
    let read = node.read_half(&view);
    let known = node.know(&view, read);
    assert_eq!(Node::shown(&view, &known), shows(&[("a", 3), ("b", 5)]));
    let leaders = view.leaders();
    let active = known.in_flight().unwrap().active(&leaders, &[Lane::HttpServer]);
    assert_eq!(active, [(a, 1), (b, 0)].into());
    assert_eq!(view.losses(known.lost().unwrap(), &leaders), [((a, Reason::EndNotSeen as u32), 2)].into());
    assert_eq!(view.kept(known.kept().unwrap(), &leaders)[&a].parks, 1);
    let told = node.ledger.unreadable();
    let maps: Vec<_> = told.iter().map(|(map, _)| *map).collect();
    assert_eq!(maps, ["series", "inflight", "lost", "wait_states"]);
    assert!(told.iter().all(|(_, at)| *at == since), "since the first that failed");
    assert_eq!(node.scrape(), shows(&[("a", 13), ("b", 5)]));
    assert_eq!(node.ledger.unreadable(), []);
}

#[test]
fn what_was_never_read_is_not_known() {
    let mut node = node();
    let id = node.start(10, "a", "u1");
    node.count(id, 3);
    let view = node.begin();
    let read = node.read_half(&view);
    let known = node.know(&view, read);
    assert!(known.series().is_none() && known.in_flight().is_none() && known.lost().is_none());
    assert_eq!(view.unsettled(known.series()).len(), 1, "no series is not nothing counted");
}

#[test]
fn a_target_that_came_after_the_last_good_read_is_not_taken_for_one_that_counted_nothing() {
    let mut node = node();
    let a = node.start(10, "a", "u1");
    node.count(a, 3);
    assert_eq!(node.scrape(), shows(&[("a", 3)]));
    let b = node.start(11, "b", "u2");
    node.count(b, 4);
    let view = node.begin();
    let read = node.read_half(&view);
    let known = node.know(&view, read);
    let unsettled: Vec<_> = view.unsettled(known.series()).into_iter().collect();
    assert_eq!(unsettled, [Labels::of_placement(&placement("b", "u2"))]);
    let active = known.in_flight().unwrap().active(&view.leaders(), &[Lane::HttpServer]);
    assert_eq!(active.get(&b), None);
    assert_eq!(active.get(&a), Some(&0));
}

#[test]
fn a_reading_that_is_overtaken_replaces_nothing() {
    let mut node = node();
    let id = node.start(10, "a", "u1");
    node.count(id, 3);
    let slow = node.begin();
    let read = node.read(&slow);
    node.count(id, 4);
    assert_eq!(node.scrape(), shows(&[("a", 7)]));
    node.know(&slow, read);
    node.ledger.end(slow.number);
    assert_eq!(node.scrape_in_vain(), shows(&[("a", 7)]));
    // Nor does it tell of a failure that is over.
    let slow = node.begin();
    assert_eq!(node.scrape(), shows(&[("a", 7)]));
    let read = node.read_half(&slow);
    node.know(&slow, read);
    assert_eq!(node.ledger.unreadable(), []);
}
