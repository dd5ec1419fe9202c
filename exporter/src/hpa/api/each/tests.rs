use kube::runtime::watcher::Event;

use super::*;
use crate::hpa::{
    api::{
        directory::tests::directory,
        table::{Entry, Smoothing, Table},
        total::tests::{RATE, Stage, shop},
    },
    wire::{Container, Frame, Sample, Series},
};

/// What each pod is for, requests a second.
const TARGET: f64 = 25.0;

/// How many pods the HPA controller wants, told these values of so many pods: pods without one count as what they are for where it
/// would scale down, and as idle where it would scale up (pkg/controller/podautoscaler/replica_calculator.go).
fn wanted(values: &[f64], pods: usize) -> usize {
    let sum: f64 = values.iter().sum();
    let usage = sum / values.len() as f64 / TARGET;
    let missing = pods - values.len();
    let within = |usage: f64| (usage - 1.0).abs() <= 0.1;
    let with_missing =
        if usage < 1.0 { (sum / TARGET + missing as f64) / pods as f64 } else { sum / TARGET / pods as f64 };
    if values.is_empty() || within(with_missing) || (usage < 1.0) != (with_missing < 1.0) {
        return pods;
    }
    (with_missing * pods as f64).ceil() as usize
}

/// Four pods have 95 requests a second. Some are replaced by others, which begin at once and serve after some seconds: meanwhile the
/// rest serve all. Nothing is to be scaled.
fn replaced(count: usize, serves_after: u64) {
    let names = ["a", "b", "c", "d"];
    let pods = directory(&names.map(shop));
    let mut it = Stage::new();
    let mut counted = [0.0; 8];
    let of = |counted: &[f64; 8]| counted[..4].to_vec();
    it.begin("n1", 1, &names.map(|name| (name, 0.0)));
    for _ in 0..20 {
        counted[..4].iter_mut().for_each(|it| *it += 95.0 / 4.0);
        it.tick(&[("n1", &of(&counted))]);
    }
    let stay = 4 - count;
    let mut begun = Frame::default();
    for number in 0..count as u32 {
        let (name, id) = (format!("new-{number}"), 5 + number);
        pods.take(Event::Delete(shop(names[stay + number as usize])));
        pods.take(Event::Apply(shop(&name)));
        pods.take_running(Event::Apply(shop(&name)));
        begun.containers.push(Container {
            id,
            namespace: "shop".into(),
            pod: name,
            container: "app".into(),
            families: vec![1],
            counted_since_ms: 1_000_000 + it.seconds * 1000,
            from_start: true,
        });
        begun.series.push(Series { id, container: id, family: 1, labels: Vec::new() });
        begun.samples.push(Sample { series: id, ..Sample::default() });
        begun.gone.push(stay as u32 + number + 1);
    }
    it.seconds += 1;
    it.frame("n1", begun);
    let entry =
        Entry { expression: RATE.into(), window_seconds: 15.0, smoothing: Smoothing::None, help: String::new() };
    let table = Table::new(&[("m".to_owned(), entry)].into()).unwrap();
    let selector = Selector::parse("app=shop").unwrap();
    for second in 0..40 {
        let asked = ("shop", &selector, &Selector::default());
        let told = each(&it.store, &pods, table.get("m").unwrap(), asked, it.now());
        let values: Vec<f64> = told.iter().map(|(_, value)| value.value).collect();
        assert_eq!(wanted(&values, 4), 4, "{count} of 4, {second} s after: {values:?}");
        let serving = if second < serves_after { stay } else { 4 };
        counted[..stay].iter_mut().for_each(|it| *it += 95.0 / serving as f64);
        if serving == 4 {
            counted[4..4 + count].iter_mut().for_each(|it| *it += 95.0 / 4.0);
        }
        it.seconds += 1;
        let sample = |number: usize| Sample { series: number as u32 + 1, value: counted[number], ..Sample::default() };
        let samples = (0..stay).chain(4..4 + count).map(sample).collect();
        it.frame("n1", Frame { samples, ..Frame::default() });
    }
}

#[test]
fn pods_that_take_the_place_of_others_pull_no_mean_down_before_they_serve() {
    for (count, serves_after) in [(1, 3), (1, 8), (2, 3), (3, 2), (1, 1)] {
        replaced(count, serves_after);
    }
}

#[test]
fn a_pod_that_was_asked_nothing_yet_has_no_value_and_one_that_runs_for_long_has() {
    let pods = directory(&[shop("a"), shop("b")]);
    let mut it = Stage::new();
    it.begin("n1", 1, &[("a", 0.0), ("b", 0.0), ("c", 0.0)]);
    for second in 1..=15_u32 {
        it.tick(&[("n1", &[10.0 * f64::from(second), 0.0, 0.0])]);
    }
    pods.take(Event::Apply(shop("c")));
    pods.take_running(Event::Apply(shop("c")));
    let entry =
        Entry { expression: RATE.into(), window_seconds: 15.0, smoothing: Smoothing::None, help: String::new() };
    let table = Table::new(&[("m".to_owned(), entry)].into()).unwrap();
    let all = Selector::default();
    let told = each(&it.store, &pods, table.get("m").unwrap(), ("shop", &all, &all), it.now());
    let told: Vec<(&str, f64)> = told.iter().map(|(name, value)| (&**name, value.value)).collect();
    assert_eq!(told, [("a", 10.0), ("b", 0.0)]);
}
