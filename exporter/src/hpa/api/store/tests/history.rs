//! What was counted before is no growth: containers, families and series that come back, streams that are reconnected.

use super::*;

#[test]
fn a_container_that_comes_back_does_not_bring_its_history() {
    let mut it = Fixture::new();
    let long_ago = it.told(7, "c", 0, true);
    it.comes(long_ago.clone(), vec![counts(17, &[(0, 100)])]);
    for second in 1..=20 {
        it.tick(vec![counts(17, &[(0, 100 + 10 * second)])]);
    }
    assert_eq!(it.rate("c"), Some(10.0));
    // The kubelet's back-off: it does not run, and then goes on counting where it was.
    it.goes(7);
    assert!(it.store.pod("shop", "c", it.now()).is_none());
    for _ in 0..9 {
        it.tick(vec![]);
    }
    let back = WireContainer { id: 8, ..long_ago };
    it.comes(back, vec![counts(18, &[(0, 308)])]);
    let p50 = it.ask("quantile(0.5, http_server_request_duration_seconds)", 15.0, &["c"], "");
    assert_eq!(it.rate("c"), Some(48.0 / 15.0), "40 before, none in between, 8 since");
    assert_eq!(p50, Some(0.005));
    // Nor to a metrics-api that was started in between.
    let mut it = Fixture::new();
    it.tick(vec![]);
    let back = it.told(8, "c", 0, true);
    it.clock += HOUR;
    it.seconds += 5;
    it.comes(back, vec![counts(18, &[(0, 3008)])]);
    assert_eq!(it.rate("c"), None);
    it.tick(vec![counts(18, &[(0, 3010)])]);
    assert_eq!(it.rate("c"), Some(2.0));
}

#[test]
fn an_opt_out_and_an_opt_in_are_no_time_without_requests() {
    let mut it = Fixture::new();
    let old = it.told(7, "c", 0, true);
    it.comes(old, vec![counts(17, &[(0, 10)])]);
    it.tick(vec![counts(17, &[(0, 20)])]);
    it.goes(7);
    it.tick(vec![]);
    // It ran on, and was not counted.
    let again = it.told(8, "c", 5, false);
    it.comes(again, vec![counts(18, &[(0, 21)])]);
    assert_eq!(it.rate("c"), None);
    it.tick(vec![counts(18, &[(0, 31)])]);
    assert_eq!(it.rate("c"), Some(10.0));
}

#[test]
fn the_next_pod_of_a_stateful_set_counts_anew() {
    let mut it = Fixture::new();
    let first = it.told(7, "c-0", 1, true);
    it.comes(first, vec![counts(17, &[(0, 10)])]);
    it.goes(7);
    it.tick(vec![]);
    let next = it.told(8, "c-0", 4, true);
    it.comes(next, vec![counts(18, &[(0, 30)])]);
    assert_eq!(it.rate("c-0"), Some(30.0 / 4.0), "more than the one before counted, and all of it its own");
    it.tick(vec![]);
    assert_eq!(it.rate("c-0"), Some(30.0 / 5.0));
}

#[test]
fn a_family_that_is_measured_from_now_on_brings_no_history() {
    let mut it = Fixture::new();
    let without = WireContainer { families: vec![2], ..it.told(7, "c", 0, true) };
    it.comes(without.clone(), vec![]);
    for _ in 0..5 {
        it.tick(vec![]);
    }
    assert_eq!(it.rate("c"), None);
    // The pod asks for requests once more, of which its agent has a total.
    let with = WireContainer { families: vec![1, 2], ..without };
    it.comes(with, vec![counts(17, &[(0, 9000)])]);
    assert_eq!(it.rate("c"), None);
    it.tick(vec![counts(17, &[(0, 9004)])]);
    assert_eq!(it.rate("c"), Some(4.0));
    // A route that is seen for the first time.
    it.seconds += 1;
    it.frame(Frame {
        series: vec![series(31, 7, 1, &["http_route", "/new"])],
        samples: vec![counts(31, &[(2, 6)])],
        ..Frame::default()
    });
    assert_eq!(it.rate("c"), Some(5.0));
}

#[test]
fn a_series_that_comes_back_goes_on_and_a_gauge_that_is_gone_is_zero() {
    let mut it = Fixture::new();
    it.tick(vec![counts(10, &[(1, 1030)]), value(20, 500.0)]);
    let gone = |it: &mut Fixture| {
        it.seconds += 1;
        it.frame(Frame { gone_series: vec![10, 20], ..Frame::default() });
    };
    gone(&mut it);
    let active = |it: &Fixture| it.ask("last(http_server_active_requests)", 5.0, &["a"], "");
    assert_eq!((it.rate("a"), active(&it)), (Some(15.0), Some(0.0)));
    it.seconds += 1;
    it.frame(Frame {
        series: vec![series(40, 0, 1, &["http_route", "/"])],
        samples: vec![counts(40, &[(1, 1090)])],
        ..Frame::default()
    });
    assert_eq!(it.rate("a"), Some(30.0));
    // Not named by a new stream: an agent before this one, which could not tell.
    it.tick(vec![]);
    let stream = Frame {
        first: true,
        run: it.run,
        families: vec![histogram(1), gauge(2)],
        containers: vec![container(0, "a"), container(1, "b")],
        ..Frame::default()
    };
    let mut it = Fixture::new();
    it.tick(vec![value(20, 500.0)]);
    it.seconds += 1;
    it.frame(stream);
    assert_eq!(active(&it), Some(0.0));
}

#[test]
fn what_shrinks_is_no_growth() {
    let mut it = Fixture::new();
    it.tick(vec![]);
    let cpu =
        Family { id: 3, name: "process_cpu_seconds_total".into(), kind: Kind::Counter.into(), bounds: Vec::new() };
    it.seconds += 1;
    it.frame(Frame {
        families: vec![cpu],
        containers: vec![WireContainer { families: vec![1, 2, 3], ..container(0, "a") }],
        series: vec![series(50, 0, 3, &[])],
        samples: vec![value(50, 3600.0)],
        ..Frame::default()
    });
    let cores = |it: &Fixture| it.ask("rate(process_cpu_seconds_total)", 15.0, &["a"], "");
    assert_eq!(cores(&it), None, "what it used before it was measured");
    it.tick(vec![value(50, 3601.0)]);
    assert_eq!(cores(&it), Some(1.0));
    // A second process of the container ends, or the container is restarted.
    it.tick(vec![value(50, 3000.0), counts(10, &[(1, 900)])]);
    assert_eq!((cores(&it), it.rate("a")), (Some(0.5), Some(0.0)));
    it.tick(vec![value(50, 3002.0), counts(10, &[(1, 910)])]);
    assert_eq!((cores(&it), it.rate("a")), (Some(1.0), Some(2.0)));
}

#[test]
fn a_reconnected_stream_goes_on_where_it_was() {
    let mut it = Fixture::new();
    it.tick(vec![counts(10, &[(1, 1030)])]);
    it.seconds += 4;
    it.begin(&[("a", 1100), ("d", 5)]);
    assert_eq!(it.rate("a"), Some(100.0 / 5.0), "30 before, 70 while away");
    assert!(it.store.pod("shop", "b", it.now()).is_none(), "gone while away");
    // The agent was started anew: its counts are those of a second, or of more, and nobody counted in between.
    for (run, count) in [(2, 12), (3, 5000), (0, 3)] {
        it.run = run;
        it.seconds += 5;
        it.begin(&[("a", count), ("d", 0)]);
        assert_eq!(it.rate("a"), None, "run {run}");
        it.tick(vec![counts(10, &[(1, count + 20)])]);
        assert_eq!(it.rate("a"), Some(20.0), "run {run}");
    }
    // An agent that does not tell its run, and whose counts are smaller.
    it.seconds += 1;
    it.begin(&[("a", 4), ("d", 0)]);
    assert_eq!(it.rate("a"), Some(12.0));
}
