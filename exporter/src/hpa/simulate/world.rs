//! The workload that the simulated controller scales: its pods, and what the metrics API says of them.

use super::{
    calculator::{Phase, Pod, PodMetric, PodMetrics, Time},
    controller::Reading,
    load::{Load, moments},
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
    /// Over how long the metrics API says that a value was measured.
    pub(crate) window: i64,
    /// What a pod requests of the resource that the HPA asks for, thousandths.
    pub(crate) request: Option<i64>,
}

/// A metric's load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Track {
    /// What it is called in the load.
    pub(crate) name: String,
    /// Over how long the metrics API measures it, milliseconds, which the load does not show yet: 0 of a recorded load.
    pub(crate) window: i64,
    /// Whether its values are a pod's own and do not fall when there are more of them, as a latency.
    pub(crate) own: bool,
}

/// The workload.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pace: Pace,
    /// Name and time of creation.
    pods: Vec<(u32, Time)>,
    /// Times of creation and of end of those that are no more.
    gone: Vec<(Time, Time)>,
    next: u32,
}

impl World {
    /// A workload whose replicas have been ready for long.
    pub(crate) fn new(pace: Pace, replicas: i32) -> Self {
        let long_ago = -3_600_000;
        let count = replicas.max(0) as u32;
        Self { pace, pods: (0..count).map(|name| (name, long_ago)).collect(), gone: Vec::new(), next: count }
    }

    /// How many replicas it has.
    pub(crate) fn replicas(&self) -> i32 {
        self.pods.len() as i32
    }

    /// How many of them are ready, or were.
    pub(crate) fn ready(&self, at: Time) -> usize {
        let here = self.pods.iter().filter(|(_, created)| created + self.pace.ready <= at).count();
        here + self.gone.iter().filter(|(created, end)| created + self.pace.ready <= at && at < *end).count()
    }

    /// Makes pods, or takes the youngest away.
    pub(crate) fn scale(&mut self, replicas: i32, now: Time) {
        let wanted = replicas.max(0) as usize;
        // No window looks further back.
        self.gone.retain(|(_, end)| *end > now - 86_400_000);
        self.gone.extend(self.pods.drain(wanted.min(self.pods.len())..).map(|(_, created)| (created, now)));
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
    pub(crate) fn reading(&self, metric: &Metric<'_>, track: &Track, load: &Load, now: Time) -> Reading {
        let Track { name, window, own } = track;
        let Some(value) = load.mean(name, now, *window) else { return Reading::Failed };
        if matches!(metric.source, SourceType::Object | SourceType::External) {
            return Reading::Figure(Milli::of(value).0);
        }
        let shares = self.shares(name, load, now, *window);
        let of_pod = |created: Time| {
            if *own {
                return Milli::of(value).0;
            }
            // Runs, but is given nothing yet: idle is 0, not missing.
            let served = shares.iter().filter(|(at, _)| created + self.pace.ready <= *at).map(|(_, share)| share);
            Milli::of(served.sum::<f64>() / shares.len().max(1) as f64).0
        };
        let known = self.pods.iter().filter(|(_, created)| created + self.pace.start + self.pace.metrics <= now);
        let metrics: PodMetrics = known
            .map(|(name, created)| (*name, PodMetric { value: of_pod(*created), at: now, window: self.pace.window }))
            .collect();
        Reading::Pods(metrics)
    }

    /// What each pod that was ready was given at the moments of a window, or now.
    fn shares(&self, name: &str, load: &Load, now: Time, window: Time) -> Vec<(Time, f64)> {
        let share = |at: Time| Some((at, load.at(name, at)? / self.ready(at).max(1) as f64));
        if window == 0 { share(now).into_iter().collect() } else { moments(now, window).filter_map(share).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hpa::spec::Goal;

    fn world() -> World {
        World::new(Pace { start: 2_000, ready: 10_000, metrics: 1_000, window: 15_000, request: None }, 2)
    }

    fn values(world: &World, load: &Load, now: Time) -> Vec<i64> {
        let metric = Metric {
            source: SourceType::Pods,
            name: "rps",
            goal: Goal::AverageValue(Milli(50_000)),
            object: None,
            selector: None,
        };
        let track = Track { name: "rps".into(), window: 15_000, own: false };
        let Reading::Pods(values) = world.reading(&metric, &track, load, now) else { panic!("{now}") };
        values.values().map(|it| it.value / 1000).collect()
    }

    /// Of a new pod, too, growth is over the whole window, so that the sum is the load's mean (`F18`).
    #[test]
    fn a_window_spans_the_pods_that_came_and_went() {
        let mut load = Load::default();
        load.shape("rps=steps:0=300").unwrap();
        let mut world = world();
        world.scale(4, 100_000);
        // Ready from 110 s: of 15 s, 5 s at 150 each and 10 s at 75, or nothing and 10 s at 75.
        assert_eq!(values(&world, &load, 120_000), [100, 100, 50, 50]);
        assert_eq!(values(&world, &load, 125_000), [75, 75, 75, 75]);
        // Two go at 200 s: before that each had 75.
        world.scale(2, 200_000);
        assert_eq!(values(&world, &load, 205_000), [100, 100]);
    }
}
