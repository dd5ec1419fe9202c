//! Every metric: its name, type, help, labels, stability and where its figure comes from. The exposition, the reference page
//! and the tests are made from this table or held against it.

pub(crate) use instruments::{Desc, Kind, Stability};

use crate::runtime;
use Kind::{Counter, Gauge, Summary};
use Stability::{Development, Stable};

macro_rules! contract {
    ($($id:ident: $name:literal, $kind:ident, $of_target:literal, [$($label:literal),*], $stability:ident, $help:literal, $source:literal;)*) => {
        $(
            #[doc = $help]
            pub(crate) static $id: Desc = Desc {
                name: $name,
                kind: $kind,
                help: $help,
                of_target: $of_target,
                labels: &[$($label),*],
                stability: $stability,
                source: $source,
            };
        )*
        /// What is exposed beside the instruments' series and the figures of the Go runtime, in order.
        static OWN: &[&Desc] = &[$(&$id),*];
    };
}

/// The entries of this table, in the order of exposition.
pub(crate) fn own() -> impl Iterator<Item = &'static Desc> {
    instruments::contract().chain(OWN.iter().copied())
}

/// The whole contract, in the order of exposition: the agent's own entries, then the numbers and the histograms of the Go
/// runtime and its process.
pub(crate) fn all() -> impl Iterator<Item = &'static Desc> {
    own().chain(runtime::FIGURES).chain(runtime::DISTRIBUTIONS)
}

contract! {
    BLOCKED_FUNCTIONS: "go_goroutine_blocked_function_seconds_total", Counter, true, ["function"], Development,
        "Time that goroutines were blocked at a function, seen while profiles were taken at /debug/blocked; the functions with most, the others as _other.",
        "stacks taken at runtime.gopark, and the executable's function table";
    INVOLUNTARY: "go_involuntary_switches_total", Counter, true, [], Development,
        "How often a thread lost its CPU while it could run.",
        "the kernel's tracepoint sched_switch (Linux 5.18 on)";
    CPU_PERIODS: "go_cpu_periods_total", Counter, true, [], Development,
        "Periods of the CPU quota of the process's cgroup in which it had something to run.",
        "cpu.stat of the cgroup";
    CPU_THROTTLED_PERIODS: "go_cpu_throttled_periods_total", Counter, true, [], Development,
        "Periods in which the process's cgroup had used up its CPU quota.",
        "cpu.stat of the cgroup";
    CPU_THROTTLED: "go_cpu_throttled_seconds_total", Counter, true, [], Development,
        "Time for which the process's cgroup was kept from CPUs because it had used up its quota, added up over CPUs.",
        "cpu.stat of the cgroup";
    CPU_LIMIT: "go_cpu_limit_cores", Gauge, true, [], Development,
        "CPUs that the quota of the process's cgroup, or of one above it, lets it use; absent without a quota. All processes of a cgroup share it.",
        "cpu.max of the cgroups (cgroup v1: cpu.cfs_quota_us and cpu.cfs_period_us)";
    GO_TARGET_INFO: "go_target_info", Gauge, true,
        ["go_version", "main_module", "main_version", "executable_path", "functions_from", "layouts_from", "node",
         "workload", "workload_kind", "image"], Development,
        "A measured process; always 1. Join it to other series by the target's labels. In Kubernetes also with chosen labels of the pod.",
        "the executable";
    GO_INFO: "go_info", Gauge, true, ["version"], Stable,
        "The Go version of the program; always 1.",
        "the executable (client_golang: runtime.Version)";
    GO_GC_DURATION: "go_gc_duration_seconds", Summary, true, ["quantile"], Stable,
        "Pauses of the program by the garbage collector: quantiles of the last 256.",
        "the runtime's memory (client_golang: debug.ReadGCStats)";
    GO_GOROUTINES_WAITING: "go_goroutines_waiting", Gauge, true, ["reason"], Development,
        "Goroutines that wait, by what for, in the runtime's words; the runtime's own included.",
        "a walk over all goroutines in the runtime's memory";
    GO_GOROUTINES_WAITING_OLDEST: "go_goroutines_waiting_oldest_seconds", Gauge, true, ["reason"], Development,
        "Time since the first collection that found the longest waiting goroutine waiting: it waits that long or longer. The runtime notes it at collections alone.",
        "a walk over all goroutines in the runtime's memory";
    WALK_AGE: "exporter_target_goroutine_walk_age_seconds", Gauge, true, [], Development,
        "How old the last walk over a target's goroutines is, which go_goroutines_waiting shows.",
        "the agent";
    WALK_RATIO: "exporter_target_goroutine_walk_ratio", Gauge, true, [], Development,
        "Share of a target's goroutines that the last walk looked at; counts are scaled by it.",
        "the agent";
    RUNTIME_READS: "exporter_runtime_reads_total", Counter, false, ["outcome"], Development,
        "Reads of targets' runtimes by outcome; see the page on the Go runtime for the outcomes.",
        "the agent";
    RUNTIME_READ_SECONDS: "exporter_runtime_read_seconds_total", Counter, false, [], Development,
        "Time that reading targets' runtimes took.",
        "the agent";
    WALK_SECONDS: "exporter_goroutine_walk_seconds_total", Counter, false, [], Development,
        "Time that walks over targets' goroutines took.",
        "the agent";
    TARGET_PROBES: "exporter_target_probes_attached", Gauge, true, [], Development,
        "Probe sites attached for a target.",
        "the agent";
    PROBE_HITS: "exporter_probe_hits_total", Counter, true, ["probes"], Development,
        "Hits of probes in a target's code, by what they measure.",
        "the kernel side's own account";
    PROBE_CPU: "exporter_probe_cpu_seconds_total", Counter, true, ["probes"], Development,
        "CPU time that probes have cost a target, by what they measure: hits times what a hit cost when it was measured on this machine.",
        "the kernel side's own account, and a measurement when the first such probe is attached";
    PROBE_SAMPLED: "exporter_probe_sampled_ratio", Gauge, true, ["probes"], Development,
        "Share of the time, since the window before the last, in which the probes were attached: 1 where all is seen; where less, counts are scaled up. Falls while they are detached.",
        "the overhead budget";
    LOST: "exporter_lost_total", Counter, true, ["reason"], Development,
        "What could not be counted as it should have been, by reason; see the reference of reasons.",
        "the kernel side's own account";
    BUILD_INFO: "exporter_build_info", Gauge, false, ["version", "attach_method"], Development,
        "This agent; always 1.",
        "the agent";
    TARGETS: "exporter_targets", Gauge, false, ["state"], Development,
        "Processes that were selected, by state.",
        "the agent";
    PROBES: "exporter_probes_attached", Gauge, false, [], Development,
        "Probe sites attached over all executables.",
        "the agent";
    EVENTS: "exporter_process_events_total", Counter, false, ["event"], Development,
        "Process events that the kernel side sent.",
        "tracepoints";
    MAP_ENTRIES: "exporter_map_entries", Gauge, false, ["map"], Development,
        "Entries in a kernel map.",
        "the kernel";
    MAP_MAX_ENTRIES: "exporter_map_max_entries", Gauge, false, ["map"], Development,
        "Entries that a kernel map can hold.",
        "the kernel";
    MAP_MEMORY: "exporter_map_memory_bytes", Gauge, false, ["map"], Development,
        "Kernel memory reserved for a map, by formula.",
        "size of key, value and the kernel's element header, times the capacity";
    MAP_READ_ERRORS: "exporter_map_read_errors_total", Counter, false, ["map"], Development,
        "Reads of a kernel map that failed: what is made of it is shown as the last good read had it.",
        "the kernel";
    MAP_STALE: "exporter_map_stale_seconds", Gauge, false, ["map"], Development,
        "Time for which reads of a kernel map have failed, of the maps that figures are made of: these are as they were before. 0 where the last read succeeded.",
        "the agent";
    KUBERNETES_PODS: "exporter_kubernetes_pods", Gauge, false, [], Development,
        "Pods of this node that the agent knows.",
        "the API server";
    KUBERNETES_WATCH_UP: "exporter_kubernetes_watch_up", Gauge, false, ["resource"], Development,
        "1 while pods of this node, and namespaces, are watched; 0 while the API server cannot be reached, and what is known stands.",
        "the agent";
    KUBERNETES_WATCH_ERRORS: "exporter_kubernetes_watch_errors_total", Counter, false, ["resource"], Development,
        "Failed attempts to list or watch.",
        "the agent";
    KUBERNETES_EVENTS: "exporter_kubernetes_events_total", Counter, false, ["result"], Development,
        "Kubernetes Events about annotations that could not be used, written or failed.",
        "the agent";
    SCRAPES: "exporter_scrapes_total", Counter, false, [], Development,
        "Scrapes of /metrics begun, this one included.",
        "the agent";
    COLLECT_DURATION: "exporter_collect_duration_seconds", Gauge, false, [], Development,
        "Time that reading the kernel's maps took for this scrape.",
        "the agent";
    LOG_DROPPED: "exporter_log_lines_dropped_total", Counter, false, [], Development,
        "Lines of the agent's log that were dropped because nobody took them from standard error in time.",
        "the agent";
    CPU: "exporter_cpu_seconds_total", Counter, false, [], Development,
        "CPU time the agent has used, user and system.",
        "/proc/self/stat";
    RESIDENT: "exporter_resident_memory_bytes", Gauge, false, [], Development,
        "Resident memory of the agent.",
        "/proc/self/statm";
}
