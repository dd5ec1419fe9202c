//! The figures of one moment, in no format.

use std::{collections::HashSet, sync::Arc, time::Instant};

use exporter_ebpf::{durations::Durations, key::Family};

use crate::{
    kubernetes::WatchFigures,
    runtime::{Goroutines, Reading},
    target::Labels,
};
use instruments::LabelSet;

/// One label set of a family of durations.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// Whose.
    pub(crate) target: Labels,
    /// Of which family.
    pub(crate) family: Family,
    /// The other labels.
    pub(crate) labels: LabelSet,
    /// Counts and sum.
    pub(crate) value: Durations,
}

/// What the kernel's scheduler did to a target; a part that is not known is not there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RunQueueFigures {
    /// Threads that lost their CPU while they could run.
    pub(crate) involuntary_switches: Option<u64>,
    /// Periods of its cgroup's CPU quota.
    pub(crate) periods: Option<u64>,
    /// Of these, those in which it was throttled.
    pub(crate) throttled_periods: Option<u64>,
    /// For how long.
    pub(crate) throttled_seconds: Option<f64>,
    /// CPUs that its cgroups' quotas let it use.
    pub(crate) cpu_limit: Option<f64>,
}

/// What some of a target's probes cost it.
#[derive(Clone, Debug)]
pub(crate) struct ProbeFigures {
    /// Label value.
    pub(crate) probes: &'static str,
    /// Hits, all of them.
    pub(crate) hits: u64,
    /// What they cost, by what was measured at start.
    pub(crate) cpu_seconds: f64,
    /// Share of the time in which they are attached.
    pub(crate) sampled_ratio: f64,
}

/// Figures of one target.
#[derive(Clone, Debug)]
pub(crate) struct TargetFigures {
    /// Whose.
    pub(crate) target: Labels,
    /// What is under way, by its metric's name: of each instrument that measures something of it. Nothing where the kernel's map
    /// could not be read.
    pub(crate) open: Vec<(&'static str, u64)>,
    /// Sites attached.
    pub(crate) probes: usize,
    /// Labels of the info series.
    pub(crate) info: Vec<(&'static str, String)>,
    /// What its probes cost, where that is accounted for.
    pub(crate) probe_figures: Vec<ProbeFigures>,
    /// Functions at which profiles have seen goroutines blocked, with seconds.
    pub(crate) blocked_functions: Vec<(String, f64)>,
    /// What the scheduler did to it, where that is asked for.
    pub(crate) run_queue: Option<RunQueueFigures>,
}

/// What was read of one target's runtime.
#[derive(Clone, Debug)]
pub(crate) struct RuntimeFigures {
    /// Whose.
    pub(crate) target: Labels,
    /// Its Go version, where its runtime is read.
    pub(crate) go_version: Option<Arc<str>>,
    /// Numbers and histograms.
    pub(crate) reading: Arc<Reading>,
    /// What its goroutines wait for.
    pub(crate) goroutines: Option<Arc<Goroutines>>,
    /// How old that is, seconds.
    pub(crate) walk_age_seconds: f64,
}

/// Something lost.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    /// Whose; none where no target is known.
    pub(crate) target: Option<Labels>,
    /// Label value.
    pub(crate) reason: &'static str,
    /// How often.
    pub(crate) count: u64,
}

/// A kernel map.
#[derive(Clone, Debug)]
pub(crate) struct MapFigures {
    /// Its name in lower case.
    pub(crate) name: String,
    /// Entries; none where it could not be read.
    pub(crate) entries: Option<u64>,
    /// Capacity.
    pub(crate) capacity: u64,
    /// Reserved bytes.
    pub(crate) bytes: u64,
    /// Reads that failed.
    pub(crate) failed_reads: u64,
}

/// The agent's own figures.
#[derive(Clone, Debug, Default)]
pub(crate) struct AgentFigures {
    /// How probes are attached.
    pub(crate) attach_method: &'static str,
    /// Targets by state.
    pub(crate) targets: Vec<(&'static str, u64)>,
    /// Sites.
    pub(crate) probes: u64,
    /// Events by kind.
    pub(crate) events: Vec<(&'static str, u64)>,
    /// Reads of runtimes by outcome.
    pub(crate) runtime_reads: Vec<(&'static str, u64)>,
    /// Seconds they took.
    pub(crate) runtime_read_seconds: f64,
    /// Seconds that walks over goroutines took.
    pub(crate) walk_seconds: f64,
    /// Scrapes begun.
    pub(crate) scrapes: u64,
    /// Seconds this collection took.
    pub(crate) collect_seconds: f64,
    /// Maps.
    pub(crate) maps: Vec<MapFigures>,
    /// For how many seconds maps cannot be read whose figures are shown as they were; 0 for those that can.
    pub(crate) stale_maps: Vec<(&'static str, f64)>,
    /// Lines of the log that were dropped.
    pub(crate) log_lines_dropped: u64,
    /// CPU seconds, where it could be read.
    pub(crate) cpu_seconds: Option<f64>,
    /// Resident bytes, where it could be read.
    pub(crate) resident_bytes: Option<u64>,
    /// How the watches of the API server do, in Kubernetes mode.
    pub(crate) kubernetes: Option<WatchFigures>,
}

/// Everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// When the kernel's counts were read: reading what else there is may take seconds on a busy node.
    pub(crate) read_at: Option<Instant>,
    /// Targets that were not measured yet when they were read, or cannot be: that nothing was counted of them says nothing.
    pub(crate) unsettled: HashSet<Labels>,
    /// Series of durations, each label set of a family once.
    pub(crate) series: Vec<Series>,
    /// Targets.
    pub(crate) targets: Vec<TargetFigures>,
    /// Runtimes.
    pub(crate) runtimes: Vec<RuntimeFigures>,
    /// Losses.
    pub(crate) lost: Vec<Lost>,
    /// The agent.
    pub(crate) agent: AgentFigures,
}

impl Snapshot {
    /// Leaves out what is told of these targets.
    pub(crate) fn leave_out(&mut self, targets: &HashSet<Labels>) {
        if !targets.is_empty() {
            self.series.retain(|it| !targets.contains(&it.target));
            self.targets.retain(|it| !targets.contains(&it.target));
            self.runtimes.retain(|it| !targets.contains(&it.target));
        }
    }
}
