//! A snapshot as metric families: one function a family. No format yet, nothing copied but small labels.

use std::borrow::Cow;

use instruments::Described;

use super::{
    contract::{self, Desc},
    runtime,
    snapshot::Snapshot,
};
use crate::{
    kubernetes::WatchFigures,
    runtime::{Buckets, GcSummary},
    target::Labels,
    visible,
};

/// A sample's value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    /// A counter or a gauge.
    Number(f64),
    /// Any histogram.
    Buckets(&'a Buckets),
    /// A summary.
    Summary(&'a GcSummary),
    /// Counts by bucket, not cumulative: one for each bound, in ascending order, and one for `+Inf`.
    Histogram {
        /// Upper bounds, inclusive, without `+Inf`.
        bounds: &'a [f64],
        /// One more than bounds.
        counts: &'a [u64],
        /// Sum of what was observed, in the metric's unit.
        sum: f64,
    },
}

/// The family of durations that this is the metric of.
fn of_metric(name: &str) -> Option<&'static Described> {
    instruments::families().find(|it| it.desc.name == name)
}

/// Upper bounds of a histogram whose buckets are the agent's own; those of the Go runtime's are each program's.
pub(crate) fn bounds(name: &str) -> Option<&'static [f64]> {
    of_metric(name).map(|family| family.bounds)
}

/// One label set with its value.
#[derive(Clone, Debug)]
pub(super) struct Sample<'a> {
    target: Option<&'a Labels>,
    own: Vec<(&'static str, Cow<'a, str>)>,
    /// The value.
    pub(super) value: Value<'a>,
}

impl<'a> Sample<'a> {
    pub(super) fn of(target: &'a Labels, own: Vec<(&'static str, Cow<'a, str>)>, value: Value<'a>) -> Self {
        Self { target: Some(target), own, value }
    }

    fn own(own: Vec<(&'static str, Cow<'a, str>)>, value: f64) -> Self {
        Self { target: None, own, value: Value::Number(value) }
    }

    /// All labels, the target's first, fit to be shown.
    pub(super) fn labels(&self) -> impl Iterator<Item = (&'static str, Cow<'_, str>)> {
        self.target
            .into_iter()
            .flat_map(Labels::iter)
            .chain(self.own.iter().map(|(name, value)| (*name, value.as_ref())))
            .map(|(name, value)| (name, visible::lines(value)))
    }
}

/// A family with its samples.
#[derive(Debug)]
pub(super) struct Family<'a> {
    /// What it is.
    pub(super) desc: &'static Desc,
    /// Its samples; a family without any is not written.
    pub(super) samples: Vec<Sample<'a>>,
}

/// All families, one at a time, in the contract's order.
pub(super) fn families(snapshot: &Snapshot) -> impl Iterator<Item = Family<'_>> {
    chosen(snapshot, |_| true)
}

/// Those whose names are wanted; no others are built.
pub(super) fn chosen(snapshot: &Snapshot, wanted: impl Fn(&str) -> bool + Copy) -> impl Iterator<Item = Family<'_>> {
    contract::own()
        .filter(move |desc| wanted(desc.name))
        .map(|desc| Family { desc, samples: samples(desc, snapshot) })
        .chain(runtime::families(snapshot, wanted))
        .filter(|family| !family.samples.is_empty())
}

fn samples<'a>(desc: &'static Desc, snapshot: &'a Snapshot) -> Vec<Sample<'a>> {
    if let Some(family) = of_metric(desc.name) {
        return of_durations(family, snapshot);
    }
    if instruments::is_open(desc) {
        return open(desc, snapshot);
    }
    match desc.name {
        name if name == contract::INVOLUNTARY.name => {
            run_queue(snapshot, |it| it.involuntary_switches.map(|n| n as f64))
        }
        name if name == contract::CPU_PERIODS.name => run_queue(snapshot, |it| it.periods.map(|n| n as f64)),
        name if name == contract::CPU_THROTTLED_PERIODS.name => {
            run_queue(snapshot, |it| it.throttled_periods.map(|n| n as f64))
        }
        name if name == contract::CPU_THROTTLED.name => run_queue(snapshot, |it| it.throttled_seconds),
        name if name == contract::CPU_LIMIT.name => run_queue(snapshot, |it| it.cpu_limit),
        name if name == contract::BLOCKED_FUNCTIONS.name => {
            let all = snapshot.targets.iter().flat_map(|it| it.blocked_functions.iter().map(move |top| (it, top)));
            let sample = |(it, (function, seconds)): (&'a super::TargetFigures, &'a (String, f64))| {
                Sample::of(&it.target, vec![("function", Cow::from(function))], Value::Number(*seconds))
            };
            all.map(sample).collect()
        }
        name if name == contract::PROBE_HITS.name => probes(snapshot, |it| it.hits as f64),
        name if name == contract::PROBE_CPU.name => probes(snapshot, |it| it.cpu_seconds),
        name if name == contract::PROBE_SAMPLED.name => probes(snapshot, |it| it.sampled_ratio),
        name if name == contract::GO_TARGET_INFO.name => snapshot
            .targets
            .iter()
            .map(|it| {
                let info = it.info.iter().map(|(name, value)| (*name, Cow::from(value))).collect();
                Sample::of(&it.target, info, Value::Number(1.0))
            })
            .collect(),
        name if name == contract::TARGET_PROBES.name => snapshot
            .targets
            .iter()
            .map(|it| Sample::of(&it.target, Vec::new(), Value::Number(it.probes as f64)))
            .collect(),
        name if name == contract::LOST.name => snapshot
            .lost
            .iter()
            .map(|it| Sample {
                target: it.target.as_ref(),
                own: vec![("reason", it.reason.into())],
                value: Value::Number(it.count as f64),
            })
            .collect(),
        _ => of_agent(desc, snapshot).or_else(|| runtime::samples(desc, snapshot)).unwrap_or_default(),
    }
}

/// What the agent says of itself; none where that is another metric.
fn of_agent<'a>(desc: &'static Desc, snapshot: &'a Snapshot) -> Option<Vec<Sample<'a>>> {
    let agent = &snapshot.agent;
    let number = |value| vec![Sample::own(Vec::new(), value)];
    let by = |label: &'static str, counts: &'a [(&'static str, u64)]| {
        counts.iter().map(|(name, count)| Sample::own(vec![(label, Cow::Borrowed(*name))], *count as f64)).collect()
    };
    let maps = |figure: fn(&super::MapFigures) -> Option<u64>| {
        let known = agent.maps.iter().filter_map(|map| Some((map, figure(map)?)));
        known.map(|(map, figure)| Sample::own(vec![("map", Cow::from(&map.name))], figure as f64)).collect()
    };
    let samples = match desc.name {
        name if name == contract::BUILD_INFO.name => vec![Sample::own(
            vec![("version", env!("CARGO_PKG_VERSION").into()), ("attach_method", agent.attach_method.into())],
            1.0,
        )],
        name if name == contract::TARGETS.name => by("state", &agent.targets),
        name if name == contract::PROBES.name => number(agent.probes as f64),
        name if name == contract::EVENTS.name => by("event", &agent.events),
        name if name == contract::MAP_ENTRIES.name => maps(|map| map.entries),
        name if name == contract::MAP_MAX_ENTRIES.name => maps(|map| Some(map.capacity)),
        name if name == contract::MAP_MEMORY.name => maps(|map| Some(map.bytes)),
        name if name == contract::MAP_READ_ERRORS.name => maps(|map| Some(map.failed_reads)),
        name if name == contract::MAP_STALE.name => {
            let sample =
                |(map, seconds): &(&'static str, f64)| Sample::own(vec![("map", Cow::Borrowed(*map))], *seconds);
            agent.stale_maps.iter().map(sample).collect()
        }
        name if name.starts_with("exporter_kubernetes_") => kubernetes(desc, agent.kubernetes.as_ref()),
        name if name == contract::RUNTIME_READS.name => by("outcome", &agent.runtime_reads),
        name if name == contract::RUNTIME_READ_SECONDS.name => number(agent.runtime_read_seconds),
        name if name == contract::WALK_SECONDS.name => number(agent.walk_seconds),
        name if name == contract::SCRAPES.name => number(agent.scrapes as f64),
        name if name == contract::COLLECT_DURATION.name => number(agent.collect_seconds),
        name if name == contract::LOG_DROPPED.name => number(agent.log_lines_dropped as f64),
        name if name == contract::CPU.name => agent.cpu_seconds.map(number).unwrap_or_default(),
        name if name == contract::RESIDENT.name => {
            agent.resident_bytes.map(|bytes| number(bytes as f64)).unwrap_or_default()
        }
        _ => return None,
    };
    Some(samples)
}

fn kubernetes<'a>(desc: &'static Desc, figures: Option<&'a WatchFigures>) -> Vec<Sample<'a>> {
    let Some(figures) = figures else { return Vec::new() };
    let by_resource = |figure: fn(bool, u64) -> f64| {
        let of = |(name, up, errors): &(&'static str, bool, u64)| {
            Sample::own(vec![("resource", Cow::Borrowed(*name))], figure(*up, *errors))
        };
        figures.watches.iter().map(of).collect()
    };
    match desc.name {
        name if name == contract::KUBERNETES_PODS.name => vec![Sample::own(Vec::new(), figures.pods as f64)],
        name if name == contract::KUBERNETES_WATCH_UP.name => by_resource(|up, _| f64::from(u8::from(up))),
        name if name == contract::KUBERNETES_WATCH_ERRORS.name => by_resource(|_, errors| errors as f64),
        _ => figures
            .events
            .iter()
            .map(|(result, count)| Sample::own(vec![("result", Cow::Borrowed(*result))], *count as f64))
            .collect(),
    }
}

/// A gauge of what is under way.
fn open<'a>(desc: &'static Desc, snapshot: &'a Snapshot) -> Vec<Sample<'a>> {
    let of = |it: &'a super::TargetFigures| {
        let (_, count) = it.open.iter().find(|(name, _)| *name == desc.name)?;
        Some(Sample::of(&it.target, Vec::new(), Value::Number(*count as f64)))
    };
    snapshot.targets.iter().filter_map(of).collect()
}

fn of_durations<'a>(family: &'static Described, snapshot: &'a Snapshot) -> Vec<Sample<'a>> {
    let label = |(name, value): &'a (&'static str, instruments::Value)| {
        let value = match value {
            instruments::Value::Word(word) => Cow::Borrowed(*word),
            instruments::Value::Number(number) => Cow::Owned(number.to_string()),
            instruments::Value::Text(text) => Cow::Borrowed(&**text),
        };
        (*name, value)
    };
    let series = snapshot.series.iter().filter(|it| it.family == family.family);
    series
        .map(|it| {
            let sum = it.value.sum_ns as f64 / 1e9;
            let counts = &it.value.buckets[..=family.bounds.len()];
            let value = Value::Histogram { bounds: family.bounds, counts, sum };
            Sample::of(&it.target, it.labels.iter().map(label).collect(), value)
        })
        .collect()
}

fn probes(snapshot: &Snapshot, figure: fn(&super::ProbeFigures) -> f64) -> Vec<Sample<'_>> {
    let all = snapshot.targets.iter().flat_map(|target| target.probe_figures.iter().map(move |it| (target, it)));
    all.map(|(target, it)| Sample::of(&target.target, vec![("probes", it.probes.into())], Value::Number(figure(it))))
        .collect()
}

fn run_queue(snapshot: &Snapshot, figure: fn(&super::RunQueueFigures) -> Option<f64>) -> Vec<Sample<'_>> {
    let all = snapshot.targets.iter().filter_map(|it| Some((it, figure(it.run_queue.as_ref()?)?)));
    all.map(|(it, number)| Sample::of(&it.target, Vec::new(), Value::Number(number))).collect()
}
