use std::{sync::Arc, time::Duration};

use kube::runtime::watcher::Event;

use super::*;
use crate::hpa::{
    api::{
        directory::tests::{directory, pod_that_says},
        store::Kept,
        table::{self, Table},
    },
    wire::{Container, Family, Frame, Kind, Sample, Series, Unmeasured, UnmeasuredPod},
};

pub(crate) const RATE: &str = "rate(http_server_request_duration_seconds)";

/// Agents by name, and what they have told.
pub(crate) struct Stage {
    pub(crate) store: Store,
    begun: Instant,
    pub(crate) seconds: u64,
    /// How many Services choose the pods.
    services: usize,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let store = Store::new(Kept { others: Duration::from_secs(30), ..Kept::default() });
        Self { store, begun: Instant::now(), seconds: 0, services: 1 }
    }

    pub(crate) fn now(&self) -> Instant {
        self.begun + Duration::from_secs(self.seconds)
    }

    /// The first frame of an agent of this run: pods that have counted so much.
    pub(crate) fn begin(&mut self, agent: &str, run: u64, pods: &[(&str, f64)]) {
        let number = |index: usize| index as u32 + 1;
        let name = RATE.trim_start_matches("rate(").trim_end_matches(')').to_owned();
        let frame = Frame {
            unix_ms: 1_000_000 + self.seconds * 1000,
            first: true,
            run,
            families: vec![Family { id: 1, name, kind: Kind::Counter.into(), bounds: Vec::new() }],
            containers: (pods.iter().enumerate())
                .map(|(index, (pod, _))| Container {
                    id: number(index),
                    namespace: "shop".into(),
                    pod: (*pod).into(),
                    container: "app".into(),
                    families: vec![1],
                    ..Container::default()
                })
                .collect(),
            series: (0..pods.len())
                .map(|it| Series { id: number(it), container: number(it), family: 1, labels: Vec::new() })
                .collect(),
            samples: (pods.iter().enumerate())
                .map(|(it, (_, value))| Sample { series: number(it), value: *value, ..Sample::default() })
                .collect(),
            ..Frame::default()
        };
        self.store.apply(&Arc::from(agent), &frame, self.now()).unwrap();
    }

    /// Every pod of these agents has counted so much more, by number.
    pub(crate) fn tick(&mut self, agents: &[(&str, &[f64])]) {
        self.seconds += 1;
        for (agent, values) in agents {
            let samples = values.iter().enumerate();
            let samples =
                samples.map(|(it, value)| Sample { series: it as u32 + 1, value: *value, ..Sample::default() });
            self.frame(agent, Frame { samples: samples.collect(), ..Frame::default() });
        }
    }

    /// Three seconds more, in which every pod of these agents counts so much: what is known then says something.
    fn begun(&mut self, agents: &[(&str, &[f64])]) {
        for second in 1..=3_u32 {
            let values: Vec<(&str, Vec<f64>)> = agents
                .iter()
                .map(|(agent, each)| (*agent, each.iter().map(|it| it * f64::from(second)).collect()))
                .collect();
            let values: Vec<(&str, &[f64])> = values.iter().map(|(agent, values)| (*agent, &values[..])).collect();
            self.tick(&values);
        }
    }

    pub(crate) fn frame(&mut self, agent: &str, frame: Frame) {
        let frame = Frame { unix_ms: 1_000_000 + self.seconds * 1000, ..frame };
        self.store.apply(&Arc::from(agent), &frame, self.now()).unwrap();
    }

    fn says(&mut self, agent: &str, pod: &str, expected: bool, reason: &str) {
        let pod = UnmeasuredPod { namespace: "shop".into(), pod: pod.into(), expected, reason: reason.into() };
        self.frame(agent, Frame { unmeasured: Some(Unmeasured { pods: vec![pod] }), ..Frame::default() });
    }

    fn ask(&self, directory: &Directory, expression: &str, none: NoPods) -> Result<f64, NoValue> {
        let entry = table::Entry {
            expression: expression.into(),
            window_seconds: 15.0,
            smoothing: table::Smoothing::None,
            help: String::new(),
        };
        let table = Table::new(&[("m".to_owned(), entry)].into()).unwrap();
        let part = Part { selector: Selector::parse("app=shop").unwrap(), paths: None };
        let parts = vec![part; self.services];
        let asked =
            Total { namespace: "shop", parts: &parts, figures: &Selector::default(), what: "Deployment shop", none };
        whole(&self.store, directory, table.get("m").unwrap(), &asked, self.now()).map(|it| it.value)
    }

    /// In whole requests: a frame of the same second is a millisecond later.
    fn total(&self, directory: &Directory) -> Result<f64, String> {
        self.ask(directory, RATE, NoPods::Unknown).map(f64::round).map_err(|error| error.to_string())
    }
}

pub(crate) fn shop(name: &str) -> kube::core::PartialObjectMeta<k8s_openapi::api::core::v1::Pod> {
    pod_that_says(name, "shop", Some("true"))
}

#[test]
fn a_total_is_refused_while_a_pod_that_opted_in_has_no_figures() {
    let pods = directory(&[shop("a"), shop("b")]);
    let mut it = Stage::new();
    it.begin("n1", 1, &[("a", 0.0)]);
    it.begin("n2", 1, &[("b", 0.0)]);
    it.tick(&[("n1", &[40.0]), ("n2", &[40.0])]);
    assert!(it.total(&pods).unwrap_err().contains("its figures begin just now"), "a rate over a second is chance");
    it.tick(&[("n1", &[80.0]), ("n2", &[80.0])]);
    it.tick(&[("n1", &[120.0]), ("n2", &[120.0])]);
    assert_eq!(it.total(&pods), Ok(80.0));
    // The agent of one is dead, for as long as it may be.
    for second in 4..700_u32 {
        it.tick(&[("n1", &[40.0 * f64::from(second)])]);
        it.store.clean(it.now(), |_, _| true);
        if second > 19 {
            let refused = it.total(&pods).unwrap_err();
            assert!(refused.contains("1 of 2 pods of Deployment shop have no figures: b ("), "{second} s: {refused}");
            assert!(refused.contains("at least 40,"), "{refused}");
        }
    }
    // A metrics-api that was started while it was.
    let mut it = Stage::new();
    it.begin("n1", 1, &[("a", 0.0)]);
    it.begun(&[("n1", &[40.0])]);
    assert!(it.total(&pods).unwrap_err().contains("b (no agent tells of it"));
    // Whatever constants are in it; and what may get less with the other pod's share is no lower bound.
    let refused = |expression: &str| match it.ask(&pods, expression, NoPods::Unknown) {
        Err(NoValue::Incomplete(incomplete)) => incomplete.at_least.map(|it| it.value.round()),
        other => panic!("{expression}: {other:?}"),
    };
    assert_eq!(refused(&format!("{RATE} / (1 + 1)")), Some(20.0));
    assert_eq!(refused(&format!("{RATE} + 2")), Some(42.0));
    assert_eq!(refused(&format!("{RATE} - {RATE} / 4")), None);
    // It is heard, and has told nothing that a rate can be made of.
    it.begin("n2", 1, &[("b", 10.0)]);
    assert!(it.total(&pods).unwrap_err().contains("b (its figures begin just now)"));
    for second in 1..=3_u32 {
        it.tick(&[("n1", &[120.0 + 40.0 * f64::from(second)]), ("n2", &[10.0 + 40.0 * f64::from(second)])]);
    }
    assert_eq!(it.total(&pods), Ok(80.0));
    // It is started anew, and has not looked at its node yet; then it has, and the pod's process is being attached to.
    it.begin("n2", 2, &[]);
    assert!(it.total(&pods).is_err());
    it.says("n2", "b", false, "its process is being looked at");
    assert!(it.total(&pods).unwrap_err().contains("b (its agent says: its process is being looked at)"));
    // Shares and quantiles do not grow with the number of pods.
    assert!(it.ask(&pods, &format!("{RATE} / {RATE}"), NoPods::Unknown).is_ok());
}

#[test]
fn pods_that_have_nothing_to_measure_or_have_just_begun_or_opted_out_are_not_waited_for() {
    let said = |name, says| pod_that_says(name, "shop", says);
    let pods = directory(&[shop("a"), shop("crashing"), said("out", Some("false"))]);
    let mut it = Stage::new();
    it.begin("n1", 1, &[("a", 0.0)]);
    it.begun(&[("n1", &[40.0])]);
    assert!(it.total(&pods).unwrap_err().contains("1 of 3"));
    it.says("n1", "crashing", true, "no Go process runs in it");
    assert_eq!(it.total(&pods), Ok(40.0));
    // A rollout: it begins, and is found in a second or two.
    let new = shop("new");
    pods.take(Event::Apply(new.clone()));
    pods.take_running(Event::Apply(new));
    assert_eq!(it.total(&pods), Ok(40.0));
    // One that is not running yet.
    pods.take(Event::Apply(shop("pending")));
    assert_eq!(it.total(&pods), Ok(40.0));
}

#[test]
fn a_pod_that_says_nothing_is_waited_for_where_others_that_say_nothing_are_measured() {
    let said = |name, says| pod_that_says(name, "shop", says);
    let by_word = directory(&[shop("a"), said("b", None)]);
    let by_default = directory(&[said("a", None), said("b", None)]);
    let mut it = Stage::new();
    it.begin("n1", 1, &[("a", 0.0)]);
    it.begun(&[("n1", &[40.0])]);
    assert_eq!(it.total(&by_word), Ok(40.0));
    assert!(it.total(&by_default).is_err(), "its namespace, or the configuration, has them measured");
    // Beside an agent that cannot say why a pod has no figures, nobody can tell.
    it.begin("old", 0, &[]);
    assert_eq!(it.total(&by_default), Ok(40.0));
}

#[test]
fn without_any_pod_a_total_is_zero_where_it_is_known_that_there_are_none() {
    let it = Stage::new();
    let none = directory(&[pod_that_says("a", "other", Some("true"))]);
    let ask = |directory: &Directory, none| it.ask(directory, RATE, none);
    assert_eq!(ask(&none, NoPods::Zero).unwrap().to_bits(), 0.0_f64.to_bits());
    assert!(matches!(ask(&none, NoPods::Unknown), Err(NoValue::Unknown { .. })));
    assert!(ask(&Directory::default(), NoPods::Zero).is_err(), "the pods are not known yet");
    assert!(ask(&directory(&[shop("a")]), NoPods::Zero).is_err(), "there is one, and nothing is known of it");
}

#[test]
fn what_pods_that_are_gone_counted_is_part_of_a_total_for_a_window() {
    let pods = directory(&[shop("a"), shop("b")]);
    let mut it = Stage::new();
    it.begin("n1", 1, &[("a", 0.0), ("b", 0.0)]);
    for second in 1..=15_u32 {
        it.tick(&[("n1", &[10.0 * f64::from(second), 20.0 * f64::from(second)])]);
    }
    assert_eq!(it.total(&pods), Ok(30.0));
    pods.take(Event::Delete(shop("b")));
    it.seconds += 1;
    let sample = Sample { series: 1, value: 160.0, ..Sample::default() };
    it.frame("n1", Frame { samples: vec![sample], gone: vec![2], ..Frame::default() });
    assert_eq!(it.total(&pods), Ok((10.0_f64 + 20.0 * 14.0 / 15.0).round()));
    // Several Services of an Ingress have these pods: each is counted once, also what is gone.
    it.services = 2;
    assert_eq!(it.total(&pods), Ok((10.0_f64 + 20.0 * 14.0 / 15.0).round()));
    it.services = 1;
    // So are pods that are there and whose containers are gone, and pods that figures are missing of.
    let crashed = directory(&[shop("a"), shop("b")]);
    let once = it.total(&crashed);
    it.services = 2;
    assert_eq!(it.total(&crashed), once);
}

#[test]
fn a_pod_that_is_being_deleted_is_part_of_a_total_for_as_long_as_it_serves_and_a_window_more() {
    let pods = directory(&[shop("a"), shop("b")]);
    let mut it = Stage::new();
    it.begin("n1", 1, &[("a", 0.0), ("b", 0.0)]);
    let mut counted = [0.0, 0.0];
    let mut tick = |it: &mut Stage, more: [f64; 2]| {
        counted = [counted[0] + more[0], counted[1] + more[1]];
        it.tick(&[("n1", &counted)]);
    };
    for _ in 0..15 {
        tick(&mut it, [10.0, 20.0]);
    }
    pods.take(Event::Delete(shop("b")));
    // It is sent nothing new, serves what it has, and waits.
    for left in [20.0, 10.0, 0.0, 0.0, 0.0] {
        tick(&mut it, [30.0 - left, left]);
        assert_eq!(it.total(&pods), Ok(30.0));
    }
    it.seconds += 1;
    let sample = Sample { series: 1, value: counted[0] + 30.0, ..Sample::default() };
    it.frame("n1", Frame { samples: vec![sample], gone: vec![2], ..Frame::default() });
    assert_eq!(it.total(&pods), Ok(30.0));
}

#[test]
fn an_agent_that_is_started_anew_takes_no_young_pod_for_one_that_served_all_along() {
    let pods = directory(&[shop("a"), shop("b")]);
    let mut it = Stage::new();
    it.begin("n1", 1, &[("a", 0.0)]);
    it.begin("n2", 1, &[("b", 0.0)]);
    for second in 1..=15_u32 {
        it.tick(&[("n1", &[10.0 * f64::from(second)]), ("n2", &[20.0 * f64::from(second)])]);
    }
    // b is replaced by a pod at the other node, and before the agent there has told of it that is started anew.
    pods.take(Event::Delete(shop("b")));
    pods.take(Event::Apply(shop("c")));
    pods.take_running(Event::Apply(shop("c")));
    it.frame("n2", Frame { gone: vec![1], ..Frame::default() });
    it.begin("n1", 2, &[("a", 0.0), ("c", 0.0)]);
    for second in 1..=10_u32 {
        it.tick(&[("n1", &[10.0 * f64::from(second), 20.0 * f64::from(second)]), ("n2", &[])]);
        // Before that little is known of a.
        if second < 4 {
            continue;
        }
        let total = it.total(&pods).unwrap();
        assert!((28.0..=31.0).contains(&total), "{total} {second} s after, where 30 is true");
    }
}

#[test]
fn a_pod_that_goes_while_its_agent_is_silent_is_missed_for_a_window() {
    let pods = directory(&[shop("a"), shop("b")]);
    let mut it = Stage::new();
    it.begin("n1", 1, &[("a", 0.0)]);
    it.begin("n2", 1, &[("b", 0.0)]);
    it.begun(&[("n1", &[40.0]), ("n2", &[40.0])]);
    for second in 4..20_u32 {
        it.tick(&[("n1", &[40.0 * f64::from(second)])]);
    }
    assert!(it.total(&pods).is_err());
    pods.take(Event::Delete(shop("b")));
    assert!(it.total(&pods).unwrap_err().contains("b (it is gone, and its agent was silent before)"));
}

#[test]
fn pods_that_go_soon_after_their_agent_was_started_anew_are_missed_for_a_window() {
    let pods = directory(&[shop("a"), shop("b")]);
    let mut it = Stage::new();
    it.begin("n1", 1, &[("a", 0.0), ("b", 0.0)]);
    for second in 1..=15_u32 {
        it.tick(&[("n1", &[10.0 * f64::from(second), 20.0 * f64::from(second)])]);
    }
    let refused = |it: &Stage| it.total(&pods).unwrap_err().contains("b (it is gone, and was counted for a part");
    // b was told of by the agent's last run alone: until when it served nobody knows.
    pods.take(Event::Delete(shop("b")));
    it.seconds += 2;
    it.begin("n1", 2, &[("a", 0.0)]);
    it.begun(&[("n1", &[10.0])]);
    it.tick(&[("n1", &[40.0])]);
    assert!(refused(&it));
    // It is told of by the new one as well, which has not seen what it did before.
    it.begin("n1", 3, &[("a", 0.0), ("b", 0.0)]);
    it.begun(&[("n1", &[10.0, 20.0])]);
    it.tick(&[("n1", &[40.0, 80.0])]);
    assert!(refused(&it));
    // Whatever it did before the window is none of it.
    for second in 5..25_u32 {
        it.tick(&[("n1", &[10.0 * f64::from(second), 80.0])]);
    }
    assert_eq!(it.total(&pods), Ok(10.0));
}
