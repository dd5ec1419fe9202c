use std::time::{Instant, SystemTime};

use super::*;
use crate::{
    agent::registry::{Candidate, Moment, Registry},
    kubernetes::Placement,
    process::Process,
    target::Features,
};

/// The targets where a process of this pod is the only one.
fn targets_of(uid: &str) -> Targets {
    let placement = Arc::new(Placement {
        namespace: "shop".into(),
        pod: "cart-0".into(),
        uid: uid.into(),
        container: "app".into(),
        image: "app:1".into(),
        workload: None,
        labels: Arc::new([]),
        features: None,
        budget: None,
        routes: Arc::new([]),
    });
    let new = Candidate {
        process: Process::sample(10, 1, 1),
        owner: "/pod".into(),
        placement: Some(placement),
        features: Features::default(),
        budget: 0.01,
        others: true,
        late: false,
    };
    let mut registry: Registry<()> = Registry::new(false);
    registry.adopt(new, Moment { at: Instant::now(), wall: SystemTime::now(), snapshots_begun: 0 });
    registry.targets
}

fn labels(targets: &Targets) -> Labels {
    targets.values().next().unwrap().labels.clone()
}

/// What a pod counted before.
fn of(uid: &str) -> Retired {
    Retired { uid: uid.into(), ..Retired::default() }
}

#[test]
fn the_totals_of_a_restarted_container_stay() {
    let (mut state, targets) = (State::default(), targets_of("u1"));
    state.retired.insert(labels(&targets), of("u1"));
    state.see(targets, HashMap::new());
    assert_eq!(state.retired.len(), 1);
}

#[test]
fn the_totals_of_another_pod_of_that_name_go() {
    let (mut state, targets) = (State::default(), targets_of("u2"));
    state.retired.insert(labels(&targets), of("u1"));
    state.see(targets, HashMap::new());
    assert!(state.retired.is_empty());
}

#[test]
fn a_settled_request_is_counted_with_its_duration() {
    let mut state = State::default();
    let series = SeriesKey::overflow(Family::HttpServer, 3);
    state.count(&series, 5);
    state.count(&series, 7);
    assert_eq!((state.settled[&series].count(), state.settled[&series].sum_ns), (2, 12));
}
