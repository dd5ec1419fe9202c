//! A snapshot as metric families: one function a family. No format yet, nothing copied but small labels.

use std::borrow::Cow;

use exporter_ebpf::{histogram::BUCKETS, http::SeriesValue};

use super::{
    contract::{self, Desc},
    runtime,
    snapshot::Snapshot,
};
use crate::{
    kubernetes::WatchFigures,
    runtime::{Buckets, GcSummary},
    target::Labels,
};

/// Upper bounds of the duration histograms in seconds, without `+Inf`.
pub(super) const BOUNDS: [f64; BUCKETS - 1] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0,
    2.5, 5.0, 7.5, 10.0,
];

/// A sample's value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    /// A counter or a gauge.
    Number(f64),
    /// Durations by bucket of [`BOUNDS`].
    Durations(&'a SeriesValue),
    /// Any histogram.
    Buckets(&'a Buckets),
    /// A summary.
    Summary(&'a GcSummary),
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

    /// All labels, the target's first.
    pub(super) fn labels(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.target
            .into_iter()
            .flat_map(Labels::iter)
            .chain(self.own.iter().map(|(name, value)| (*name, value.as_ref())))
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
    contract::own()
        .map(|desc| Family { desc, samples: samples(desc, snapshot) })
        .chain(runtime::families(snapshot))
        .filter(|family| !family.samples.is_empty())
}

fn samples<'a>(desc: &'static Desc, snapshot: &'a Snapshot) -> Vec<Sample<'a>> {
    let agent = &snapshot.agent;
    let number = |value| vec![Sample::own(Vec::new(), value)];
    let by = |label: &'static str, counts: &'a [(&'static str, u64)]| {
        counts.iter().map(|(name, count)| Sample::own(vec![(label, Cow::Borrowed(*name))], *count as f64)).collect()
    };
    let maps = |figure: fn(&super::MapFigures) -> u64| {
        agent.maps.iter().map(|map| Sample::own(vec![("map", Cow::from(&map.name))], figure(map) as f64)).collect()
    };
    match desc.name {
        name if name == contract::HTTP_SERVER_REQUEST_DURATION.name => http_server_request_duration(snapshot),
        name if name == contract::HTTP_SERVER_ACTIVE_REQUESTS.name => snapshot
            .targets
            .iter()
            .map(|it| Sample::of(&it.target, Vec::new(), Value::Number(it.active_requests as f64)))
            .collect(),
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
        name if name == contract::BUILD_INFO.name => vec![Sample::own(
            vec![("version", env!("CARGO_PKG_VERSION").into()), ("attach_method", agent.attach_method.into())],
            1.0,
        )],
        name if name == contract::TARGETS.name => by("state", &agent.targets),
        name if name == contract::PROBES.name => number(agent.probes as f64),
        name if name == contract::EVENTS.name => by("event", &agent.events),
        name if name == contract::MAP_ENTRIES.name => maps(|map| map.entries),
        name if name == contract::MAP_MAX_ENTRIES.name => maps(|map| map.capacity),
        name if name == contract::MAP_MEMORY.name => maps(|map| map.bytes),
        name if name.starts_with("exporter_kubernetes_") => kubernetes(desc, agent.kubernetes.as_ref()),
        name if name == contract::RUNTIME_READS.name => by("outcome", &agent.runtime_reads),
        name if name == contract::RUNTIME_READ_SECONDS.name => number(agent.runtime_read_seconds),
        name if name == contract::WALK_SECONDS.name => number(agent.walk_seconds),
        name if name == contract::SCRAPES.name => number(agent.scrapes as f64),
        name if name == contract::COLLECT_DURATION.name => number(agent.collect_seconds),
        name if name == contract::CPU.name => agent.cpu_seconds.map(number).unwrap_or_default(),
        name if name == contract::RESIDENT.name => {
            agent.resident_bytes.map(|bytes| number(bytes as f64)).unwrap_or_default()
        }
        _ => runtime::samples(desc, snapshot).unwrap_or_default(),
    }
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

fn http_server_request_duration(snapshot: &Snapshot) -> Vec<Sample<'_>> {
    let sample = |it: &'_ super::HttpSeries| -> Vec<(&'static str, Cow<'_, str>)> {
        let mut own: Vec<(&'static str, Cow<'_, str>)> = Vec::with_capacity(3);
        own.push(("http_request_method", it.method.into()));
        if it.status != 0 {
            own.push(("http_response_status_code", it.status.to_string().into()));
        }
        if let Some(route) = &it.route {
            own.push(("http_route", Cow::Owned(route.to_string())));
        }
        own
    };
    snapshot.http.iter().map(|it| Sample::of(&it.target, sample(it), Value::Durations(&it.value))).collect()
}
