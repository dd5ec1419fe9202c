//! Very many rehearsed agents in one process, for benchmarks of what listens to them. Agents of a group differ by their pods' names
//! alone, so that a frame is made once for all of them: what is measured beside them has the machine for itself.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    sync::{broadcast, mpsc},
    time::{MissedTickBehavior, timeout},
};

use super::super::{Amount, Counted, FED, Figures, Measured, PERIOD, STALL, Stream, Told};
use crate::{
    hpa::wire::{Container, Frame, Sample},
    metrics::bounds,
};

/// Groups, whose frames are spread over a second.
const GROUPS: usize = 20;
/// Frames that a listener may be behind.
const BEHIND: usize = 8;
/// Upper bounds of `go_sched_latencies_seconds` in a program of Go 1.26 are about so many, growing by an eighth.
const SCHEDULER_BOUNDS: usize = 160;

/// What the pods of a fleet are.
#[derive(Clone, Debug)]
pub(super) struct Pods {
    /// Of each agent.
    pub(super) count: usize,
    /// Namespaces that they are spread over.
    pub(super) namespaces: usize,
    /// Requests a second of each.
    pub(super) rate: f64,
    /// Routes of each.
    pub(super) routes: usize,
    /// Whether figures of the runtime, the scheduler and the process are told, as an agent does, beside requests.
    pub(super) runtime: bool,
}

/// One of its agents.
#[derive(Clone)]
pub(super) struct Agent {
    number: usize,
    group: Arc<Group>,
}

/// Agents that tell the same of pods of other names.
struct Group {
    pods: Pods,
    state: Mutex<State>,
    frames: broadcast::Sender<Bytes>,
}

struct State {
    load: Load,
    told: Told,
    /// Everything told so far, as one frame, but for values.
    names: Frame,
    values: BTreeMap<u32, Value>,
}

#[derive(Default)]
struct Value {
    number: f64,
    buckets: BTreeMap<u32, u64>,
}

/// So many agents, which begin now.
pub(super) fn agents(count: usize, pods: &Pods) -> Vec<Agent> {
    let groups: Vec<Arc<Group>> = (0..GROUPS.min(count)).map(|_| Group::new(pods)).collect();
    for (number, group) in groups.iter().enumerate() {
        let late = PERIOD * number as u32 / groups.len() as u32;
        tokio::spawn(group.clone().run(late));
    }
    (0..count).map(|number| Agent { number, group: groups[number % groups.len()].clone() }).collect()
}

impl Agent {
    /// A new listener's stream.
    pub(super) fn listen(&self) -> Stream {
        let (sender, stream) = mpsc::channel(2);
        let (first, mut frames) = {
            // No frame comes in between.
            let state = self.group.state.lock().unwrap_or_else(PoisonError::into_inner);
            (state.first(&self.group.pods, self.number).to_bytes(), self.group.frames.subscribe())
        };
        tokio::spawn(async move {
            let mut next = first;
            while let Ok(Ok(())) = timeout(STALL, sender.send(next)).await {
                // One that is too far behind begins anew.
                let Ok(frame) = frames.recv().await else { return };
                next = frame;
            }
        });
        Stream { frames: stream }
    }
}

impl Group {
    fn new(pods: &Pods) -> Arc<Self> {
        let mut state = State {
            load: Load::new(pods.clone()),
            told: Told::default(),
            names: Frame::default(),
            values: BTreeMap::new(),
        };
        state.step();
        let (frames, _) = broadcast::channel(BEHIND);
        Arc::new(Self { pods: pods.clone(), state: Mutex::new(state), frames })
    }

    async fn run(self: Arc<Self>, late: Duration) {
        tokio::time::sleep(late).await;
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let frame = state.step().to_bytes();
            // Nobody may be listening.
            let _ = self.frames.send(frame);
        }
    }
}

impl State {
    /// A second later.
    fn step(&mut self) -> Frame {
        let mut frame = self.told.frame(&self.load.figures());
        for sample in &frame.samples {
            let value = self.values.entry(sample.series).or_default();
            value.number = sample.value;
            value.buckets.extend(sample.buckets.iter().copied().zip(sample.counts.iter().copied()));
        }
        self.names.unix_ms = frame.unix_ms;
        self.names.run = self.names.run.max(frame.run);
        self.names.families.extend(frame.families.iter().cloned());
        self.names.containers.extend(frame.containers.iter().cloned());
        self.names.series.extend(frame.series.iter().cloned());
        frame.first = false;
        frame
    }

    /// All that there is, of an agent's own pods.
    fn first(&self, pods: &Pods, agent: usize) -> Frame {
        let named = |container: &Container| {
            let number: usize = container.pod.parse().unwrap_or(0);
            Container {
                namespace: format!("ns-{}", (agent * pods.count + number) % pods.namespaces),
                pod: format!("pod-{agent}-{number}"),
                ..container.clone()
            }
        };
        let sample = |(series, value): (&u32, &Value)| Sample {
            series: *series,
            value: value.number,
            buckets: value.buckets.keys().copied().collect(),
            counts: value.buckets.values().copied().collect(),
        };
        Frame {
            first: true,
            containers: self.names.containers.iter().map(named).collect(),
            samples: self.values.iter().map(sample).collect(),
            ..self.names.clone()
        }
    }
}

/// What pods count, a second at a time.
struct Load {
    pods: Pods,
    begun: Instant,
    seconds: u64,
    /// Buckets by pod and series.
    buckets: HashMap<(usize, usize), Vec<u64>>,
    bounds: HashMap<&'static str, Arc<[f64]>>,
}

const REQUESTS: &str = "http_server_request_duration_seconds";
const SCHEDULER: &str = "go_sched_latencies_seconds";
const RUN_QUEUE: &str = "go_runqueue_latency_seconds";

impl Load {
    fn new(pods: Pods) -> Self {
        let scheduler: Arc<[f64]> = (0..SCHEDULER_BOUNDS).map(|it| 64e-9 * 1.125_f64.powi(it as i32)).collect();
        let known = |family| (family, bounds(family).unwrap_or_default().into());
        let bounds = [known(REQUESTS), known(RUN_QUEUE), (SCHEDULER, scheduler)].into();
        Self { pods, begun: Instant::now(), seconds: 0, buckets: HashMap::new(), bounds }
    }

    fn figures(&mut self) -> Figures {
        self.seconds += 1;
        let mut figures = Figures { unix_ms: super::super::unix_ms(), ..Figures::default() };
        for pod in 0..self.pods.count {
            let measured = self.pod(pod);
            figures.containers.insert(("group".to_owned(), pod.to_string(), "app".to_owned()), measured);
        }
        figures
    }

    fn pod(&mut self, pod: usize) -> Measured {
        let mut measured =
            Measured { counted: Some(Counted { since: self.begun, from_start: false }), ..Measured::default() };
        let seconds = self.seconds as f64;
        // Differs from pod to pod and from second to second, by a fifth.
        let wave = 1.0 + 0.2 * (pod as f64 + seconds * 0.7).sin();
        let labels = |pairs: &[(&str, &str)]| -> Vec<String> {
            pairs.iter().flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]).collect()
        };
        let gauge = |measured: &mut Measured, family, pairs: &[(&str, &str)], value: f64| {
            measured.add(family, labels(pairs), Amount::Gauge(value));
        };
        let counter = |measured: &mut Measured, family, pairs: &[(&str, &str)], value: f64| {
            measured.add(family, labels(pairs), Amount::Counter(value));
        };
        gauge(&mut measured, "http_server_active_requests", &[], (10.0 * wave).round());
        for route in 0..self.pods.routes {
            let requests = (self.pods.rate * wave / self.pods.routes as f64).round() as u64;
            let name = format!("/route-{route}/{{id}}");
            let pairs = [("http_request_method", "GET"), ("http_response_status_code", "200"), ("http_route", &*name)];
            let buckets = self.buckets(pod, REQUESTS, route, 6, requests);
            let sum = buckets.iter().sum::<u64>() as f64 * 0.012_3;
            let amount = Amount::Buckets { bounds: self.bounds[REQUESTS].clone(), counts: buckets.into() };
            measured.add(REQUESTS, labels(&pairs), amount);
            counter(&mut measured, "http_server_request_duration_seconds_sum", &pairs, sum);
        }
        if self.pods.runtime {
            gauge(&mut measured, "go_goroutines", &[], (60.0 * wave).round());
            for (reason, share) in [("chan receive", 20.0), ("select", 25.0), ("IO wait", 12.0)] {
                let pairs = [("reason", reason)];
                gauge(&mut measured, "go_goroutines_waiting", &pairs, (share * wave).round());
                let seconds = share * seconds * 0.987_6;
                counter(&mut measured, "go_goroutine_blocked_seconds_sum", &pairs, seconds);
            }
            gauge(&mut measured, "go_sched_goroutines_runnable_goroutines", &[], (3.0 * wave).round());
            for (family, at) in [(SCHEDULER, 60), (RUN_QUEUE, 4)] {
                let counts = self.buckets(pod, family, usize::MAX, at, (300.0 * wave) as u64).into();
                measured.add(family, Vec::new(), Amount::Buckets { bounds: self.bounds[family].clone(), counts });
            }
            counter(&mut measured, "process_cpu_seconds_total", &[], (seconds * 0.4 * 100.0).round() / 100.0);
            counter(&mut measured, "go_cpu_classes_gc_total_cpu_seconds_total", &[], (seconds / 8.0).floor() * 0.031_7);
            counter(&mut measured, "go_cpu_periods_total", &[], seconds * 10.0);
            counter(&mut measured, "go_cpu_throttled_periods_total", &[], (seconds / 4.0).floor());
            gauge(&mut measured, "process_resident_memory_bytes", &[], ((2e8 * wave) / 4096.0).floor() * 4096.0);
            gauge(&mut measured, "go_memory_classes_total_bytes", &[], (1.5e8 * wave).floor());
            gauge(&mut measured, "go_memory_classes_heap_released_bytes", &[], (2e7 * wave).floor());
            gauge(&mut measured, "go_gc_gomemlimit_bytes", &[], 1e9);
            gauge(&mut measured, "go_sched_gomaxprocs_threads", &[], 4.0);
        }
        let witnessed = FED.iter().filter(|(_, _, sign)| sign.is_some()).map(|(family, ..)| *family);
        measured.families = measured.series.iter().map(|(family, ..)| *family).chain(witnessed).collect();
        measured
    }

    /// So many more in a family's buckets, about one of them.
    fn buckets(&mut self, pod: usize, family: &'static str, series: usize, at: usize, more: u64) -> Vec<u64> {
        let length = self.bounds[family].len() + 1;
        let key = (pod, series.wrapping_sub(usize::from(family == RUN_QUEUE)));
        // A program that has run for long has counted something about there, too.
        let before = |bucket: usize| u64::from(bucket.abs_diff(at) < 25) * 1000;
        let counts = self.buckets.entry(key).or_insert_with(|| (0..length).map(before).collect());
        for (place, share) in [(0, 62), (1, 25), (2, 10), (3, 3)] {
            counts[(at + place) % length] += more * share / 100;
        }
        counts.clone()
    }
}

#[cfg(test)]
mod tests;
