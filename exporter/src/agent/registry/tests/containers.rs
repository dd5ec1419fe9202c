use super::*;
use crate::{kubernetes::Found, process::ContainerId};

fn container() -> ContainerId {
    ContainerId::parse(&"ab".repeat(32)).unwrap()
}

fn changed(life: &mut Life, pid: u32, found: Found) -> Effects<char> {
    let now = life.now();
    life.registry.pod_changed(pid, found, true, now)
}

/// A measured process of a pod.
fn in_pod(life: &mut Life) -> u32 {
    life.registry.in_container(10, &[container()]);
    life.measured(Candidate { placement: Some(placement("u1")), ..candidate(&Process::sample(10, 1, 1)) }, "a")
}

#[test]
fn a_process_of_a_pod_that_is_not_known_yet_is_found_when_it_is() {
    let mut life = life();
    let process = Process::sample(10, 1, 1);
    life.registry.in_container(10, &[container()]);
    assert_eq!(life.registry.placed(&process, Found::Unknown), Placed::Unwanted { is_new: true });
    assert_eq!(life.registry.placed(&process, Found::Unknown), Placed::Unwanted { is_new: false });
    assert_eq!(kinds(&life.seen(10, Some(&process))), [""; 0]);
    assert_eq!(life.registry.in_containers(&[container()]).into_iter().collect::<Vec<_>>(), [10]);
    assert_eq!(kinds(&changed(&mut life, 10, Found::Wanted(placement("u1")))), ["look"]);
    assert_eq!(kinds(&life.seen(10, Some(&process))), ["consider"]);
    let wanted = Found::Wanted(placement("u1"));
    assert_eq!(life.registry.placed(&process, wanted), Placed::Wanted(placement("u1")));
}

#[test]
fn a_process_in_no_container_is_looked_at_again_until_it_is_placed() {
    let mut life = life();
    let process = Process::sample(10, 1, 1);
    life.registry.placed(&process, Found::Unknown);
    assert_eq!(kinds(&life.registry.place_again(10)), ["look"]);
    assert_eq!(kinds(&life.seen(10, Some(&process))), ["consider"]);
    life.registry.placed(&process, Found::Refused("it did not opt in"));
    assert_eq!(kinds(&life.registry.place_again(10)), [""; 0]);
}

#[test]
fn a_full_scan_asks_again_for_what_was_not_placed() {
    let mut life = life();
    let (unplaced, refused) = (Process::sample(10, 1, 1), Process::sample(11, 1, 1));
    life.registry.placed(&unplaced, Found::Unknown);
    life.registry.placed(&refused, Found::Refused("it did not opt in"));
    life.registry.scanned(&[10, 11], true);
    assert_eq!(kinds(&life.seen(10, Some(&unplaced))), ["consider"]);
    assert_eq!(kinds(&life.seen(11, Some(&refused))), [""; 0]);
}

#[test]
fn a_pod_that_opts_out_is_measured_no_more_and_its_figures_stay_for_a_scrape() {
    let mut life = life();
    let id = in_pod(&mut life);
    let effects = changed(&mut life, 10, Found::Refused("it opted out"));
    assert_eq!(kinds(&effects), ["unconfigure", "detach", "scheduler"]);
    assert_eq!(life.stage(id), "gone");
    assert_eq!(life.bury(0), 0);
    assert_eq!(kinds(&life.seen(10, Some(&Process::sample(10, 1, 1)))), [""; 0]);
    // It opts in again.
    assert_eq!(kinds(&changed(&mut life, 10, Found::Wanted(placement("u1")))), ["look"]);
    assert_eq!(kinds(&life.seen(10, Some(&Process::sample(10, 1, 1)))), ["consider"]);
}

#[test]
fn what_else_is_said_of_a_pod_does_not_end_its_measurement() {
    let mut life = life();
    let id = in_pod(&mut life);
    let now = Arc::new(Placement { image: "app:2".into(), ..Placement::clone(&placement("u1")) });
    assert_eq!(kinds(&changed(&mut life, 10, Found::Wanted(now))), [""; 0]);
    assert_eq!(life.stage(id), "measured");
    assert_eq!(&*life.registry.targets[&id].placement.as_ref().unwrap().image, "app:2");
}

#[test]
fn other_features_of_a_pod_are_another_measurement() {
    let mut life = life();
    let id = in_pod(&mut life);
    let now = Arc::new(Placement { features: Some("gc".into()), ..Placement::clone(&placement("u1")) });
    assert_eq!(kinds(&changed(&mut life, 10, Found::Wanted(now))).last(), Some(&"look"));
    assert_eq!(life.stage(id), "gone");
}

#[test]
fn a_pod_that_is_gone_with_its_process_waits_for_the_processs_own_end() {
    let mut life = life();
    let id = in_pod(&mut life);
    let now = life.now();
    let effects = life.registry.pod_changed(10, Found::Unknown, false, now);
    assert_eq!((kinds(&effects), life.stage(id)), (vec!["look"], "measured"));
}

#[test]
fn processes_that_are_gone_are_in_no_container() {
    let mut life = life();
    life.registry.in_container(10, &[container()]);
    life.registry.scanned(&[11], false);
    assert!(life.registry.in_containers(&[container()]).is_empty());
}

#[test]
fn templates_for_routes_make_room_for_what_they_fold() {
    let mut life = life();
    let routes = Arc::new(["/users/{id}".to_owned()]);
    let folded = Arc::new(Placement { routes, ..Placement::clone(&placement("u1")) });
    let process = Process::sample(10, 1, 1);
    let asked = inspect(&life.adopt(Candidate { placement: Some(folded), ..candidate(&process) }));
    let configure = configure(life.registry.inspected(inspected(asked, &process), 100));
    assert_eq!(configure.config.max_routes, 1000);
}
