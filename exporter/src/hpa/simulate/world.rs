//! The workload that the simulated controller scales: its pods, and what the metrics API says of them.

use super::{
    calculator::{Phase, Pod, PodMetric, PodMetrics, Time},
    controller::Reading,
    load::Load,
};
use crate::hpa::{
    quantity::Milli,
    spec::{Metric, SourceType},
};

/// How pods come up.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    /// From a pod's creation until it runs, milliseconds.
    pub(crate) start: i64,
    /// From a pod's creation until it is ready.
    pub(crate) ready: i64,
    /// From a pod's start until the metrics API knows it.
    pub(crate) metrics: i64,
    /// Over how long a value is measured.
    pub(crate) window: i64,
    /// What a pod requests of the resource that the HPA asks for, thousandths.
    pub(crate) request: Option<i64>,
    /// Metrics whose values are a pod's own and do not fall when there are more of them, as a latency.
    pub(crate) per_pod: Vec<String>,
}

/// The workload.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pace: Pace,
    pods: Vec<(u32, Time)>,
    next: u32,
}

impl World {
    /// A workload whose replicas have been ready for long.
    pub(crate) fn new(pace: Pace, replicas: i32) -> Self {
        let long_ago = -3_600_000;
        let count = replicas.max(0) as u32;
        Self { pace, pods: (0..count).map(|name| (name, long_ago)).collect(), next: count }
    }

    /// How many replicas it has.
    pub(crate) fn replicas(&self) -> i32 {
        self.pods.len() as i32
    }

    /// How many of them are ready.
    pub(crate) fn ready(&self, now: Time) -> usize {
        self.pods.iter().filter(|(_, created)| created + self.pace.ready <= now).count()
    }

    /// Makes pods, or takes the youngest away.
    pub(crate) fn scale(&mut self, replicas: i32, now: Time) {
        let wanted = replicas.max(0) as usize;
        self.pods.truncate(wanted);
        while self.pods.len() < wanted {
            self.pods.push((self.next, now));
            self.next += 1;
        }
    }

    /// Its pods as the API server shows them.
    pub(crate) fn pods(&self, now: Time) -> Vec<Pod> {
        let pod = |(name, created): &(u32, Time)| {
            let (started, ready_at) = (created + self.pace.start, created + self.pace.ready);
            let running = started <= now;
            let ready = if ready_at <= now { (true, ready_at) } else { (false, started) };
            Pod {
                name: *name,
                phase: if running { Phase::Running } else { Phase::Pending },
                deleting: false,
                started: running.then_some(started),
                ready: running.then_some(ready),
                request: self.pace.request,
            }
        };
        self.pods.iter().map(pod).collect()
    }

    /// What the metrics API says.
    pub(crate) fn reading(&self, metric: &Metric<'_>, load: &Load, now: Time) -> Reading {
        let Some(value) = load.at(metric.name, now) else { return Reading::Failed };
        if matches!(metric.source, SourceType::Object | SourceType::External) {
            return Reading::Figure(Milli::of(value).0);
        }
        let own = self.pace.per_pod.iter().any(|name| name == metric.name);
        let ready = self.ready(now).max(1) as f64;
        let of_pod = |created: Time| match (own, created + self.pace.ready <= now) {
            (true, _) => Milli::of(value).0,
            (false, true) => Milli::of(value / ready).0,
            // Runs, but is given nothing yet: idle is 0, not missing.
            (false, false) => 0,
        };
        let known = self.pods.iter().filter(|(_, created)| created + self.pace.start + self.pace.metrics <= now);
        let metrics: PodMetrics = known
            .map(|(name, created)| (*name, PodMetric { value: of_pod(*created), at: now, window: self.pace.window }))
            .collect();
        Reading::Pods(metrics)
    }
}
