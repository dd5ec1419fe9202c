//! Targets whose waits are measured: goroutines that block, stops of the world, threads in the run queue. Reads what that costs them. Knows nothing of the waits themselves: they are series.

use std::{sync::atomic::Ordering, time::Instant};

use exporter_ebpf::wait::WaitState;

use super::{Agent, Inner, registry::Target, turns::Who};
use crate::{
    metrics::{ProbeFigures, RunQueueFigures},
    process::Throttling,
    target::{Feature, Features},
};

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
pub(super) fn probe_figures(agent: &Inner, target: &Target, kept: &WaitState) -> Vec<ProbeFigures> {
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
pub(super) fn run_queue_figures(target: &Target, kept: &WaitState, involuntary: bool) -> Option<RunQueueFigures> {
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
