use super::*;
use crate::hpa::{
    api::{
        evaluate::{evaluate, evaluate_lifted, evaluate_whole, lift},
        selector::Selector,
        table,
    },
    wire::{Container as WireContainer, Family, Sample, Series as WireSeries, Unmeasured, UnmeasuredPod},
};

mod bounds;
mod history;
mod rollouts;

const START: u64 = 1_000_000_000;
const HOUR: u64 = 3_600_000;

/// An agent that tells of pods `a` and `b`, each a container with requests and requests in flight.
struct Fixture {
    store: Store,
    agent: Arc<str>,
    begun: Instant,
    seconds: u64,
    /// What the agent's clock says at `begun`, milliseconds.
    clock: u64,
    /// Which run of the agent tells; 0 as agents that do not say.
    run: u64,
}

fn histogram(id: u32) -> Family {
    Family {
        id,
        name: "http_server_request_duration_seconds".into(),
        kind: Kind::Histogram.into(),
        bounds: vec![0.01, 0.1, 1.0],
    }
}

fn gauge(id: u32) -> Family {
    Family { id, name: "http_server_active_requests".into(), kind: Kind::Gauge.into(), bounds: Vec::new() }
}

fn container(id: u32, pod: &str) -> WireContainer {
    WireContainer {
        id,
        namespace: "shop".into(),
        pod: pod.into(),
        container: "app".into(),
        families: vec![1, 2],
        ..WireContainer::default()
    }
}

fn series(id: u32, container: u32, family: u32, labels: &[&str]) -> WireSeries {
    WireSeries { id, container, family, labels: labels.iter().map(|it| (*it).to_owned()).collect() }
}

fn counts(series: u32, counts: &[(u32, u64)]) -> Sample {
    let (buckets, counts) = counts.iter().copied().unzip();
    Sample { series, buckets, counts, ..Sample::default() }
}

fn value(series: u32, value: f64) -> Sample {
    Sample { series, value, ..Sample::default() }
}

impl Fixture {
    fn new() -> Self {
        let begun = Instant::now();
        let mut fixture = Self {
            store: Store::new(Kept { others: Duration::from_secs(31), ..Kept::default() }),
            agent: "node-1".into(),
            begun,
            seconds: 0,
            clock: START,
            run: 1,
        };
        fixture.begin(&[("a", 1000), ("b", 500)]);
        fixture
    }

    fn now(&self) -> Instant {
        self.begun + Duration::from_secs(self.seconds)
    }

    /// A new stream: pods with their counts so far in the second bucket.
    fn begin(&mut self, pods: &[(&str, u64)]) {
        let frame = Frame {
            first: true,
            run: self.run,
            families: vec![histogram(1), gauge(2)],
            containers: pods.iter().enumerate().map(|(id, (pod, _))| container(id as u32, pod)).collect(),
            series: pods
                .iter()
                .enumerate()
                .flat_map(|(id, _)| {
                    let id = id as u32;
                    [series(10 + id, id, 1, &["http_route", "/"]), series(20 + id, id, 2, &[])]
                })
                .collect(),
            samples: pods
                .iter()
                .enumerate()
                .flat_map(|(id, (_, count))| [counts(10 + id as u32, &[(1, *count)]), value(20 + id as u32, 0.0)])
                .collect(),
            ..Frame::default()
        };
        self.frame(frame);
    }

    /// Of a container, what the agent says of it: since when it is counted, and whether it began then.
    fn told(&self, id: u32, pod: &str, counted_since: u64, from_start: bool) -> WireContainer {
        WireContainer { counted_since_ms: self.clock + counted_since * 1000, from_start, ..container(id, pod) }
    }

    /// A second later, this container with these counts.
    fn comes(&mut self, told: WireContainer, samples: Vec<Sample>) {
        self.seconds += 1;
        let series = vec![series(told.id + 10, told.id, 1, &["http_route", "/"])];
        self.frame(Frame { containers: vec![told], series, samples, ..Frame::default() });
    }

    /// A second later, this container is gone.
    fn goes(&mut self, id: u32) {
        self.seconds += 1;
        self.frame(Frame { gone: vec![id], ..Frame::default() });
    }

    fn frame(&mut self, frame: Frame) {
        self.try_frame(frame).unwrap();
    }

    fn try_frame(&mut self, frame: Frame) -> Result<(), FrameError> {
        let frame = Frame { unix_ms: self.clock + self.seconds * 1000, ..frame };
        self.store.apply(&self.agent.clone(), &frame, self.now())
    }

    /// A second later, these samples.
    fn tick(&mut self, samples: Vec<Sample>) {
        self.seconds += 1;
        self.frame(Frame { samples, ..Frame::default() });
    }

    fn ask(&self, expression: &str, window: f64, pods: &[&str], selector: &str) -> Option<f64> {
        let entry = table::Entry {
            expression: expression.into(),
            window_seconds: window,
            smoothing: table::Smoothing::None,
            help: String::new(),
        };
        let table = table::Table::new(&[("m".to_owned(), entry)].into()).unwrap();
        let views: Vec<_> = pods.iter().filter_map(|pod| self.store.pod("shop", pod, self.now())).collect();
        evaluate(table.get("m").unwrap(), &views, &Selector::parse(selector).unwrap()).map(|it| it.value)
    }

    fn rate(&self, pod: &str) -> Option<f64> {
        self.ask("rate(http_server_request_duration_seconds)", 15.0, &[pod], "")
    }
}

#[test]
fn a_rate_is_the_growth_over_the_true_time() {
    let mut it = Fixture::new();
    assert_eq!(it.rate("a"), None, "one frame is no growth");
    it.tick(vec![counts(10, &[(1, 1030)])]);
    assert_eq!(it.rate("a"), Some(30.0));
    it.tick(vec![]);
    assert_eq!(it.rate("a"), Some(15.0));
    assert_eq!(it.rate("b"), Some(0.0), "idle is 0, not missing");
    for _ in 0..20 {
        it.tick(vec![]);
    }
    assert_eq!(it.rate("a"), Some(0.0), "out of the window");
    // Late frames: the window begins at a frame, and the rate is over the time between.
    it.seconds += 9;
    it.tick(vec![counts(10, &[(1, 1130)])]);
    assert_eq!(it.rate("a"), Some(100.0 / 15.0));
}

#[test]
fn a_new_pods_first_counts_are_growth_and_an_old_ones_are_not() {
    let mut it = Fixture::new();
    it.tick(vec![]);
    let new = it.told(7, "c", 2, true);
    it.comes(new, vec![counts(17, &[(0, 40)])]);
    assert_eq!(it.rate("c"), Some(20.0), "40 of the two seconds that anything is known of");
    assert_eq!(it.rate("a"), Some(0.0));
    // A pod that opts in, of which the agent may know a history, and one of an agent that does not say since when it counts.
    let old = it.told(8, "d", 2, false);
    for (told, pod) in [(old, "d"), (container(9, "e"), "e")] {
        let id = told.id;
        it.comes(told, vec![counts(id + 10, &[(0, 10_000)])]);
        assert_eq!(it.rate(pod), None, "its history is no growth");
        it.tick(vec![counts(id + 10, &[(0, 10_007)])]);
        assert_eq!(it.rate(pod), Some(7.0));
    }
}

#[test]
fn a_young_container_of_an_agent_that_is_heard_late_has_its_rate_since_then() {
    let mut it = Fixture::new();
    for _ in 0..10 {
        it.tick(vec![]);
    }
    // It began 8 s ago, and what it did until now is not known.
    it.agent = "node-2".into();
    let containers = vec![it.told(7, "c", 2, true)];
    let series = vec![series(17, 7, 1, &["http_route", "/"])];
    let samples = vec![counts(17, &[(1, 160)])];
    let families = vec![histogram(1), gauge(2)];
    it.frame(Frame { first: true, run: 1, families, containers, series, samples, ..Frame::default() });
    for second in 1..20 {
        it.tick(vec![counts(17, &[(1, 160 + 20 * second)])]);
        assert_eq!(it.rate("c"), Some(20.0));
    }
}

#[test]
fn a_clock_that_is_set_back_or_forth_changes_no_rate() {
    let mut it = Fixture::new();
    let minute = |it: &mut Fixture, mut count: u64| {
        for _ in 0..60 {
            count += 30;
            it.tick(vec![counts(10, &[(1, count)])]);
            assert_eq!(it.rate("a"), Some(30.0));
        }
        count
    };
    let count = minute(&mut it, 1000);
    // An agent that tells the clock of its machine.
    it.clock -= HOUR;
    minute(&mut it, count);
    // Agents that are started again behind it, and so begin a stream by another clock, with counts of their own.
    for (run, clock) in [START + HOUR, START - HOUR, u64::MAX - HOUR, 0].into_iter().enumerate() {
        (it.clock, it.run) = (clock, 2 + run as u64);
        it.seconds += 1;
        it.begin(&[("a", 30)]);
        assert_eq!(it.rate("a"), None, "nobody counted in between");
        minute(&mut it, 30);
    }
    // And those that do not tell their run: smaller counts tell it.
    it.run = 0;
    it.seconds += 1;
    it.begin(&[("a", 30)]);
    for clock in [START + HOUR, START - HOUR] {
        minute(&mut it, 30);
        it.clock = clock;
        it.seconds += 1;
        it.begin(&[("a", 30)]);
        assert_eq!(it.rate("a"), Some(30.0));
    }
}

#[test]
fn a_stream_of_the_same_run_that_begins_with_old_figures_moves_no_clock() {
    let mut it = Fixture::new();
    let mut count = 1000;
    for _ in 0..30 {
        count += 30;
        it.tick(vec![counts(10, &[(1, count)])]);
    }
    // The agent stood still for 7 s, and tells first what it had read before.
    it.seconds += 7;
    it.clock -= 7_000;
    it.begin(&[("a", count)]);
    it.clock += 7_000;
    count += 7 * 30;
    it.frame(Frame { samples: vec![counts(10, &[(1, count)])], ..Frame::default() });
    for _ in 0..20 {
        assert_eq!(it.rate("a").map(f64::round), Some(30.0));
        count += 30;
        it.tick(vec![counts(10, &[(1, count)])]);
    }
}

#[test]
fn quantiles_are_of_all_requests_together() {
    let mut it = Fixture::new();
    // 99 fast ones at one pod, 1 slow one at the other.
    it.tick(vec![counts(10, &[(0, 99)]), counts(11, &[(2, 1)])]);
    let p = |quantile: &str, pods: &[&str]| {
        it.ask(&format!("quantile({quantile}, http_server_request_duration_seconds)"), 15.0, pods, "").unwrap()
    };
    assert!((p("0.5", &["a", "b"]) - 0.01 * 50.0 / 99.0).abs() < 1e-12);
    assert!((p("0.995", &["a", "b"]) - 0.55).abs() < 1e-9);
    assert!((p("0.995", &["b"]) - 0.1 - 0.9 * 0.995).abs() < 1e-9);
    assert!(it.ask("quantile(0.5, nothing)", 15.0, &["a"], "").is_none(), "not measured is not 0");
}

#[test]
fn gauges_over_a_window() {
    let mut it = Fixture::new();
    it.tick(vec![value(20, 10.0)]);
    it.tick(vec![]);
    it.tick(vec![value(20, 2.0)]);
    let ask = |function: &str| it.ask(&format!("{function}(http_server_active_requests)"), 3.0, &["a", "b"], "");
    assert_eq!(ask("last"), Some(2.0));
    assert_eq!(ask("max"), Some(10.0));
    assert_eq!(ask("avg"), Some(20.0 / 3.0));
}

#[test]
fn series_are_chosen_by_their_labels_and_by_container() {
    let mut it = Fixture::new();
    it.seconds += 1;
    it.frame(Frame {
        series: vec![series(30, 0, 1, &["http_route", "/slow"])],
        samples: vec![counts(30, &[(2, 5)]), counts(10, &[(1, 1020)])],
        ..Frame::default()
    });
    let rate = |selector: &str| it.ask("rate(http_server_request_duration_seconds)", 15.0, &["a"], selector);
    assert_eq!(rate(""), Some(25.0), "a series that was not there before began after");
    it.tick(vec![counts(30, &[(2, 9)])]);
    let rate = |selector: &str| it.ask("rate(http_server_request_duration_seconds)", 15.0, &["a"], selector);
    assert_eq!(rate("http_route=/slow"), Some(4.5));
    assert_eq!(rate("http_route!=/slow"), Some(10.0));
    assert_eq!(rate("container=app"), Some(14.5));
    assert_eq!(rate("container=other"), None);
    let by = |expression: &str| it.ask(expression, 15.0, &["a"], "");
    assert_eq!(by("rate(http_server_request_duration_seconds{http_route=\"/slow\"})"), Some(4.5));
}

#[test]
fn a_silent_agent_is_said_to_be_silent_and_forgotten_later() {
    let mut it = Fixture::new();
    it.tick(vec![counts(10, &[(1, 1030)])]);
    it.seconds += 15;
    assert!(!it.store.pod("shop", "a", it.now()).unwrap().silent);
    assert_eq!(it.rate("a"), Some(30.0), "the last value stands");
    it.seconds += 1;
    assert!(it.store.pod("shop", "a", it.now()).unwrap().silent);
    it.seconds += 300;
    let now = it.now();
    it.store.clean(now, |_, _| true);
    assert!(it.store.pod("shop", "a", now).is_none());
    assert_eq!(it.store.size(), (0, 0));
}

#[test]
fn what_is_forgotten_takes_no_room_and_what_is_there_stays() {
    let mut it = Fixture::new();
    it.goes(0);
    for _ in 0..60 {
        it.tick(vec![]);
    }
    let (now, agent) = (it.now(), it.agent.clone());
    let holders = |it: &Fixture| {
        let mut pods: Vec<String> =
            it.store.pods.get("shop").into_iter().flatten().map(|(pod, _)| pod.to_string()).collect();
        pods.sort();
        pods.join(" ")
    };
    it.store.clean(now, |_, _| true);
    assert_eq!(holders(&it), "a b", "its pod is there, and it may come back with its counts");
    it.store.clean(now, |_, pod| pod == "b");
    assert_eq!((holders(&it), it.store.size().0), ("b".to_owned(), 1));
    it.seconds += 600;
    let now = it.now();
    it.store.clean(now, |_, _| true);
    assert!(it.store.pods.is_empty() && it.store.names.is_empty() && it.store.heard(&agent).is_none());
}

#[test]
fn a_pod_that_moves_is_where_it_was_last_heard_of() {
    let mut it = Fixture::new();
    it.tick(vec![counts(10, &[(1, 1030)])]);
    it.agent = "node-2".into();
    it.begin(&[("a", 0)]);
    it.tick(vec![counts(10, &[(1, 7)])]);
    assert_eq!(it.rate("a"), Some(7.0));
    let gone = Frame { gone: vec![0], ..Frame::default() };
    it.frame(gone);
    assert_eq!(it.rate("a"), Some(30.0 + 7.0 / 2.0), "and what it did where it was");
}

#[test]
fn many_series_of_a_container_are_found_again_by_a_new_stream() {
    let mut it = Fixture::new();
    it.tick(vec![]);
    let routes: Vec<String> = (0..5000).map(|route| format!("/{route}")).collect();
    let stream = |first: bool, count: u64| Frame {
        first,
        run: 1,
        families: if first { vec![histogram(1), gauge(2)] } else { Vec::new() },
        containers: if first { vec![container(0, "a")] } else { Vec::new() },
        series: routes.iter().zip(100..).map(|(route, id)| series(id, 0, 1, &["http_route", route])).collect(),
        samples: (100..).take(routes.len()).map(|id| counts(id, &[(0, count)])).collect(),
        ..Frame::default()
    };
    it.seconds += 1;
    it.frame(stream(false, 1));
    it.seconds += 1;
    it.frame(stream(true, 3));
    assert_eq!(it.rate("a"), Some(3.0 * 5000.0 / 3.0));
    assert_eq!(it.ask("rate(http_server_request_duration_seconds)", 15.0, &["a"], "http_route=/4711"), Some(1.0));
}
