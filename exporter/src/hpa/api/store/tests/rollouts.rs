//! Pods that come and go under one load: sums and means over them, and pods without figures.

use super::*;

/// Two pods under 80 requests a second; it becomes 300, and 7 s later two more pods serve, each a quarter.
#[test]
fn rates_of_new_pods_do_not_make_a_sum_too_large() {
    let mut it = Fixture::new();
    let (mut old, mut new) = (1000, 0);
    let mut load = |each: u64, of_new: Option<u64>| {
        old += each;
        let mut samples = vec![counts(10, &[(1, old)]), counts(11, &[(1, old)])];
        if let Some(each) = of_new {
            new += each;
            samples.extend([counts(17, &[(1, new)]), counts(18, &[(1, new)])]);
        }
        samples
    };
    it.begin(&[("a", 1000), ("b", 1000)]);
    for _ in 0..20 {
        let samples = load(40, None);
        it.tick(samples);
    }
    for _ in 0..7 {
        let samples = load(150, None);
        it.tick(samples);
    }
    let since = it.seconds;
    let containers = vec![it.told(7, "c", since, true), it.told(8, "d", since, true)];
    let samples = load(75, Some(75));
    it.seconds += 1;
    let series = vec![series(17, 7, 1, &[]), series(18, 8, 1, &[])];
    it.frame(Frame { containers, series, samples, ..Frame::default() });
    for _ in 0..7 {
        let samples = load(75, Some(75));
        it.tick(samples);
    }
    let sum = it.ask("rate(http_server_request_duration_seconds)", 15.0, &["a", "b", "c", "d"], "");
    assert_eq!(sum, Some(300.0));
    assert_eq!((it.rate("a"), it.rate("c")), (Some(110.0), Some(40.0)));
}

/// All pods of a workload are replaced by others, which take their load: neither the sum nor what the new ones show may fall.
#[test]
fn a_rollout_changes_no_sum_and_no_mean() {
    let mut it = Fixture::new();
    it.begin(&[("a", 0), ("b", 0)]);
    for second in 1..=20 {
        it.tick(vec![counts(10, &[(1, 30 * second)]), counts(11, &[(1, 30 * second)])]);
    }
    let since = it.seconds;
    let containers = vec![it.told(7, "c", since, true), it.told(8, "d", since, true)];
    it.seconds += 1;
    it.frame(Frame {
        containers,
        series: vec![series(17, 7, 1, &[]), series(18, 8, 1, &[])],
        samples: vec![counts(17, &[(1, 30)]), counts(18, &[(1, 30)])],
        gone: vec![0, 1],
        ..Frame::default()
    });
    let entry = table::Entry {
        expression: "rate(http_server_request_duration_seconds)".into(),
        window_seconds: 15.0,
        smoothing: table::Smoothing::None,
        help: String::new(),
    };
    let table = table::Table::new(&[("m".to_owned(), entry)].into()).unwrap();
    let (metric, all) = (table.get("m").unwrap(), Selector::default());
    for second in 2..30 {
        let view = |pod: &str| it.store.pod("shop", pod, it.now()).unwrap();
        let past = [it.store.past("shop", "a", it.now()), it.store.past("shop", "b", it.now())];
        let whole = evaluate_whole(metric, &[view("c"), view("d")], &past, &all).unwrap().value;
        assert!((whole - 60.0).abs() < 1e-9, "{whole} after {second} s");
        let lift = lift(metric, &[view("c"), view("d")], &past, &all);
        let each = evaluate_lifted(metric, view("c"), lift.share, &all).unwrap().value;
        assert!((each - 30.0).abs() < 1e-9, "{each} after {second} s");
        it.tick(vec![counts(17, &[(1, 30 * second)]), counts(18, &[(1, 30 * second)])]);
    }
    // The dead are forgotten once they are in no window, if nobody knows of them.
    for _ in 0..40 {
        it.tick(vec![]);
    }
    let now = it.now();
    it.store.clean(now, |_, pod| pod == "a");
    let known = |pod: &str| it.store.past("shop", pod, now).containers.len();
    assert_eq!((known("a"), known("b")), (1, 0));
}

#[test]
fn agents_say_why_a_pod_has_no_figures() {
    let mut it = Fixture::new();
    assert_eq!(it.store.account("shop", "x", it.now()), Account::Unheard);
    let pod = |pod: &str, expected| UnmeasuredPod {
        namespace: "shop".into(),
        pod: pod.into(),
        expected,
        reason: "so".into(),
    };
    it.seconds += 1;
    it.frame(Frame { unmeasured: Some(Unmeasured { pods: vec![pod("x", true)] }), ..Frame::default() });
    let told =
        |it: &Fixture, pod: &str| matches!(it.store.account("shop", pod, it.now()), Account::Told(it) if it.expected);
    assert!(told(&it, "x") && !told(&it, "y"));
    it.seconds += 1;
    it.frame(Frame { unmeasured: Some(Unmeasured { pods: vec![pod("y", true)] }), ..Frame::default() });
    assert!(!told(&it, "x") && told(&it, "y"));
    it.seconds += 16;
    assert_eq!(it.store.account("shop", "y", it.now()), Account::Unheard, "it is silent");
    // An agent that cannot tell.
    (it.run, it.agent) = (0, "node-2".into());
    it.begin(&[("z", 1)]);
    assert_eq!(it.store.account("shop", "y", it.now()), Account::Unknowable);
}
