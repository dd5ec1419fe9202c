//! Targets whose waits are measured: goroutines that block, stops of the world, threads in the run queue. Tells the kernel side whom to
//! watch, and reads what that costs them. Knows nothing of the waits themselves: they are series.

use std::{sync::atomic::Ordering, time::Instant};

use exporter_ebpf::wait::{Watch, WatchState};

use super::{Agent, Inner, registry::Target, turns::Who};
use crate::{
    metrics::{ProbeFigures, RunQueueFigures},
    process::Throttling,
    target::{Feature, Features},
};

/// What the kernel side is told of a target: parking goroutines are measured only once the budget says so.
fn watch(id: u32, features: Features, last_gc: u64) -> Watch {
    let on = features.watched().bits();
    Watch { target: id, on, park_from_ns: u64::MAX, park_until_ns: u64::MAX, stacks_from_ns: u64::MAX, last_gc }
}

impl Agent {
    /// Lets the kernel side watch a target's process, if anything that waits is to be measured of it.
    pub(super) fn watch(&self, target: &Target, last_gc: u64) -> Result<(), String> {
        let watch = watch(target.id, target.features, last_gc);
        if watch.on == 0 {
            return Ok(());
        }
        let maps = self.inner.kernel.maps();
        maps.watch_states
            .set(target.id, &WatchState::default())
            .and_then(|()| maps.watched.insert(&target.process.id.pid, &watch))
            .map_err(|error| format!("the map of watched processes: {error}"))
    }

    /// Takes a process from the kernel side, if it is still this target's.
    pub(super) fn unwatch(&self, pid: u32, id: u32) {
        let watched = &self.inner.kernel.maps().watched;
        if watched.get(&pid).is_some_and(|watch| watch.target == id) {
            watched.remove(&pid);
        }
    }
}

impl Agent {
    /// When the map of blocked goroutines is half full, removes entries of goroutines that run or are gone. On another thread:
    /// programs decide how many there are, and reading them keeps the one that follows processes from what starts.
    pub(super) fn forget_running(&self) {
        self.elsewhere(Who::gopulse(), None, Self::remove_running);
    }

    fn remove_running(&self) {
        let parked = &self.inner.kernel.maps().parked;
        let seen = parked.read(|(entries, running): &mut (u64, Vec<u64>), key, entry| {
            *entries += 1;
            if entry.start_ns == 0 {
                running.push(*key);
            }
        });
        let Ok((mut entries, running)) = seen else { return };
        if entries * 2 >= parked.capacity() {
            entries -= running.len() as u64;
            parked.remove_all(&running);
        }
        self.inner.parked_entries.store(entries, Ordering::Relaxed);
    }
}

/// What the probes of a target cost it.
pub(super) fn probe_figures(agent: &Inner, target: &Target, kept: &WatchState) -> Vec<ProbeFigures> {
    let costs = agent.costs.get().copied().unwrap_or_default();
    let mut figures = Vec::new();
    // What is off by what the program is has no probes that could be sampled.
    let has = |feature| {
        let inspection = target.inspection.as_deref();
        target.features.has(feature) && inspection.is_some_and(|it| it.measures_something(Features::NONE.with(feature)))
    };
    if has(Feature::Blocking) {
        figures.push(ProbeFigures {
            probes: Feature::Blocking.name(),
            hits: kept.parks + kept.runs,
            cpu_seconds: costs.of_blocking(kept),
            sampled_ratio: target.blocked.ratio(Instant::now()),
        });
    }
    if has(Feature::Stw) {
        let cpu_seconds = kept.stops as f64 * (costs.run + costs.stepped / 2.0);
        figures.push(ProbeFigures { probes: Feature::Stw.name(), hits: kept.stops, cpu_seconds, sampled_ratio: 1.0 });
    }
    if target.features.has(Feature::RunQueue) {
        // A tracepoint is no trap: two look-ups and the clock, much less than a probe.
        let cpu_seconds = kept.switches as f64 * TRACEPOINT;
        let probes = Feature::RunQueue.name();
        figures.push(ProbeFigures { probes, hits: kept.switches, cpu_seconds, sampled_ratio: 1.0 });
    }
    figures
}

/// Seconds that the scheduler's tracepoints cost a context switch, about.
const TRACEPOINT: f64 = 0.2e-6;

/// What the scheduler did to a target.
pub(super) fn run_queue_figures(target: &Target, kept: &WatchState, involuntary: bool) -> Option<RunQueueFigures> {
    if !target.features.has(Feature::RunQueue) {
        return None;
    }
    let throttling = Throttling::of(target.process.id.pid);
    Some(RunQueueFigures {
        involuntary_switches: involuntary.then_some(kept.involuntary),
        periods: throttling.map(|it| it.periods),
        throttled_periods: throttling.map(|it| it.throttled_periods),
        throttled_seconds: throttling.map(|it| it.throttled_seconds),
        cpu_limit: throttling.and_then(|it| it.limit),
    })
}
