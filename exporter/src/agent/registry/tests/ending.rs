use super::{super::ending::past_the_most, *};

#[test]
fn a_target_that_ends_leaves_the_kernels_maps_and_its_links() {
    let mut life = life();
    let id = life.measured(candidate(&Process::sample(10, 1, 1)), "ab");
    let effects = life.seen(10, None);
    assert_eq!(kinds(&effects), ["unconfigure", "detach", "scheduler"]);
    assert!(matches!(effects[1], Effect::Unconfigure { pid: 10, id: it } if it == id));
    assert_eq!(detached(&effects), "ab");
    assert!(matches!(logs(&effects)[..], [Log::Ended(10, _)]));
    assert!(life.registry.of_pid(10).is_none());
    assert_eq!(kinds(&life.end(id, false)), [""; 0], "it ends once");
}

#[test]
fn its_last_figures_stay_until_a_snapshot_has_shown_them() {
    let mut life = life();
    let id = life.measured(candidate(&Process::sample(10, 1, 1)), "a");
    life.snapshots = 7;
    life.end(id, false);
    life.second = 60;
    assert_eq!(life.bury(7), 0, "the seventh may have read them before");
    assert_eq!(life.bury(8), 1);
}

#[test]
fn another_server_may_scrape_too() {
    let mut life = life();
    let id = life.measured(candidate(&Process::sample(10, 1, 1)), "a");
    life.end(id, false);
    life.second = 4;
    assert_eq!(life.bury(1), 0);
    life.second = 5;
    assert_eq!(life.bury(1), 1);
}

#[test]
fn where_nobody_scrapes_figures_do_not_stay_for_ever() {
    let mut life = life();
    let id = life.measured(candidate(&Process::sample(10, 1, 1)), "a");
    life.end(id, false);
    life.second = 299;
    assert_eq!(life.bury(0), 0);
    life.second = 300;
    assert_eq!(life.bury(0), 1);
}

#[test]
fn an_id_is_free_once_its_target_is_forgotten_and_not_before() {
    let mut life = life();
    let id = life.measured(candidate(&Process::sample(10, 1, 1)), "a");
    life.end(id, false);
    for pid in 100..5000 {
        let owner = format!("/pod{pid}").into();
        let effects = life.adopt(Candidate { owner, ..candidate(&Process::sample(pid, 2, 1)) });
        assert!(kinds(&effects).is_empty() || inspect(&effects).0 != id);
    }
    life.second = 300;
    assert_eq!(life.bury(0), 1);
    let effects = life.adopt(Candidate { owner: "/new".into(), ..candidate(&Process::sample(99, 2, 1)) });
    assert_eq!(inspect(&effects).0, id, "it was the only one that is free");
}

#[test]
fn a_container_that_restarts_is_led_by_its_new_process() {
    let mut life = life();
    let in_pod = |pid| Candidate { placement: Some(placement("u1")), ..candidate(&Process::sample(pid, 1, 1)) };
    let before = life.measured(in_pod(10), "a");
    life.second = 1;
    life.end(before, false);
    let after = life.measured(in_pod(11), "b");
    assert_eq!(life.registry.targets[&before].labels, life.registry.targets[&after].labels);
    let leaders = life.registry.targets.leaders();
    assert_eq!((leaders[&before], leaders[&after]), (after, after));
    // What runs in the container for a moment speaks for nobody.
    life.second = 2;
    let beside = life.adopt(in_pod(12));
    assert_eq!(life.registry.targets.leaders()[&inspect(&beside).0], after);
    // The figures of the process before go with it once they were shown, and not at once: its pod is the same.
    assert_eq!(life.bury(0), 0);
    life.second = 60;
    assert_eq!(life.bury(1), 1);
    assert!(!life.registry.targets.contains_key(&before));
}

#[test]
fn the_next_pod_of_a_stateful_set_ends_the_figures_of_the_one_before() {
    let mut life = life();
    let in_pod = |pid, uid| Candidate { placement: Some(placement(uid)), ..candidate(&Process::sample(pid, 1, 1)) };
    let before = life.measured(in_pod(10, "u1"), "a");
    life.end(before, false);
    assert_eq!(life.bury(0), 0);
    life.measured(in_pod(11, "u2"), "b");
    assert_eq!(life.bury(0), 1);
}

#[test]
fn labels_are_stale_when_nobody_who_lives_has_them() {
    let mut life = life();
    let in_pod = |pid| Candidate { placement: Some(placement("u1")), ..candidate(&Process::sample(pid, 1, 1)) };
    let before = life.measured(in_pod(10), "a");
    let labels = life.registry.targets[&before].labels.clone();
    life.end(before, false);
    life.second = 4;
    assert!(life.registry.targets.stale(life.now().at).is_empty(), "it may be restarting");
    life.second = 5;
    assert!(life.registry.targets.stale(life.now().at).contains(&labels));
    life.adopt(in_pod(11));
    assert!(life.registry.targets.stale(life.now().at).is_empty());
}

#[test]
fn who_has_many_ended_processes_costs_others_nothing() {
    let start = Instant::now();
    let at = |second| start + Duration::from_secs(second);
    let few = [(at(1), "few", 1), (at(2), "few", 2)];
    let many = (0..10).map(|i| (at(i), "many", 100 + i as u32));
    let all: Vec<_> = few.into_iter().chain(many).collect();
    assert_eq!(past_the_most(all.clone(), 12), Vec::<u32>::new());
    assert_eq!(past_the_most(all.clone(), 5), [100, 101, 102, 103, 104, 105, 106], "the first of those who have most");
    assert_eq!(past_the_most(all.clone(), 4).len(), 8);
    assert_eq!(past_the_most(all, 0).len(), 12);
}
