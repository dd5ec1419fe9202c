//! What is read of the Go runtime and of its process: the part of the metric contract with client_golang's names, types and
//! units, and the values. Knows nothing of how they are read.

use crate::metrics::contract::{Desc, Kind, Stability};

macro_rules! figures {
    ($($id:ident: $name:literal, $kind:ident, $help:literal, $source:literal;)*) => {
        /// One number of the Go runtime or of the process.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Figure {
            $(#[doc = $help] $id,)*
        }

        impl Figure {
            /// All of them, in order.
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$id,)*];
        }

        /// What each [`Figure`] is exposed as, in its order.
        pub(crate) static FIGURES: &[Desc] = &[$(Desc {
            name: $name,
            kind: Kind::$kind,
            help: $help,
            of_target: true,
            labels: &[],
            stability: Stability::Stable,
            source: $source,
        },)*];
    };
}

macro_rules! distributions {
    ($($id:ident: $name:literal, $help:literal, $source:literal;)*) => {
        /// One histogram that the Go runtime keeps.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Distribution {
            $(#[doc = $help] $id,)*
        }

        /// What each [`Distribution`] is exposed as, in its order.
        pub(crate) static DISTRIBUTIONS: &[Desc] = &[$(Desc {
            name: $name,
            kind: Kind::Histogram,
            help: $help,
            of_target: true,
            labels: &[],
            stability: Stability::Stable,
            source: $source,
        },)*];

        const DISTRIBUTION_COUNT: usize = [$($name,)*].len();
    };
}

figures! {
    Goroutines: "go_goroutines", Gauge, "Goroutines.", "the runtime's memory (client_golang: runtime.NumGoroutine)";
    Threads: "go_threads", Gauge, "Threads of the Go runtime.", "the runtime's memory (client_golang: runtime.ThreadCreateProfile)";
    MemstatsAllocBytes: "go_memstats_alloc_bytes", Gauge, "Bytes of heap objects in use or not yet swept.", "the runtime's memory (client_golang: runtime.MemStats)";
    MemstatsAllocBytesTotal: "go_memstats_alloc_bytes_total", Counter, "Bytes allocated on the heap.", "the runtime's memory (client_golang: runtime.MemStats)";
    MemstatsSysBytes: "go_memstats_sys_bytes", Gauge, "Memory that the runtime has mapped.", "the runtime's memory (client_golang: runtime.MemStats)";
    MemstatsMallocsTotal: "go_memstats_mallocs_total", Counter, "Objects allocated on the heap, tiny ones included.", "the runtime's memory (client_golang: runtime.MemStats)";
    MemstatsFreesTotal: "go_memstats_frees_total", Counter, "Heap objects freed, tiny ones included.", "the runtime's memory (client_golang: runtime.MemStats)";
    MemstatsHeapAllocBytes: "go_memstats_heap_alloc_bytes", Gauge, "Bytes of heap objects in use or not yet swept.", "the runtime's memory (client_golang: runtime.MemStats)";
    MemstatsHeapSysBytes: "go_memstats_heap_sys_bytes", Gauge, "Heap memory from the system.", "the runtime's memory (client_golang: runtime.MemStats)";
    MemstatsHeapIdleBytes: "go_memstats_heap_idle_bytes", Gauge, "Heap memory that waits to be used.", "the runtime's memory (client_golang: runtime.MemStats)";
    MemstatsHeapInuseBytes: "go_memstats_heap_inuse_bytes", Gauge, "Heap memory in use.", "the runtime's memory (client_golang: runtime.MemStats)";
    MemstatsHeapReleasedBytes: "go_memstats_heap_released_bytes", Gauge, "Heap memory given back to the system.", "the runtime's memory (client_golang: runtime.MemStats)";
    MemstatsHeapObjects: "go_memstats_heap_objects", Gauge, "Objects on the heap.", "the runtime's memory (client_golang: runtime.MemStats)";
    MemstatsStackInuseBytes: "go_memstats_stack_inuse_bytes", Gauge, "Memory of goroutine stacks.", "the runtime's memory (client_golang: runtime.MemStats)";
    MemstatsStackSysBytes: "go_memstats_stack_sys_bytes", Gauge, "Memory of stacks from the system.", "the runtime's memory (client_golang: runtime.MemStats)";
    MemstatsMspanInuseBytes: "go_memstats_mspan_inuse_bytes", Gauge, "Memory of mspan structures.", "the runtime's memory (client_golang: runtime.MemStats)";
    MemstatsMspanSysBytes: "go_memstats_mspan_sys_bytes", Gauge, "Memory for mspan structures from the system.", "the runtime's memory (client_golang: runtime.MemStats)";
    MemstatsMcacheInuseBytes: "go_memstats_mcache_inuse_bytes", Gauge, "Memory of mcache structures.", "the runtime's memory (client_golang: runtime.MemStats)";
    MemstatsMcacheSysBytes: "go_memstats_mcache_sys_bytes", Gauge, "Memory for mcache structures from the system.", "the runtime's memory (client_golang: runtime.MemStats)";
    MemstatsBuckHashSysBytes: "go_memstats_buck_hash_sys_bytes", Gauge, "Memory of the profiling table.", "the runtime's memory (client_golang: runtime.MemStats)";
    MemstatsGcSysBytes: "go_memstats_gc_sys_bytes", Gauge, "Memory of the garbage collector's metadata.", "the runtime's memory (client_golang: runtime.MemStats)";
    MemstatsOtherSysBytes: "go_memstats_other_sys_bytes", Gauge, "Other memory from the system.", "the runtime's memory (client_golang: runtime.MemStats)";
    MemstatsNextGcBytes: "go_memstats_next_gc_bytes", Gauge, "Heap size at which the next collection is to end.", "the runtime's memory (client_golang: runtime.MemStats)";
    MemstatsLastGcTimeSeconds: "go_memstats_last_gc_time_seconds", Gauge, "End of the last collection, seconds since 1970.", "the runtime's memory (client_golang: runtime.MemStats)";
    CgoGoToCCalls: "go_cgo_go_to_c_calls_calls_total", Counter, "Calls made from Go to C.", "the runtime's memory (runtime/metrics: /cgo/go-to-c-calls:calls)";
    CpuClassesGcMarkAssist: "go_cpu_classes_gc_mark_assist_cpu_seconds_total", Counter, "Estimated CPU time that goroutines spent helping the garbage collector, as of the last collection.", "the runtime's memory (runtime/metrics: /cpu/classes/gc/mark/assist:cpu-seconds)";
    CpuClassesGcMarkDedicated: "go_cpu_classes_gc_mark_dedicated_cpu_seconds_total", Counter, "Estimated CPU time of processors dedicated to garbage collection, as of the last collection.", "the runtime's memory (runtime/metrics: /cpu/classes/gc/mark/dedicated:cpu-seconds)";
    CpuClassesGcMarkIdle: "go_cpu_classes_gc_mark_idle_cpu_seconds_total", Counter, "Estimated CPU time of idle processors spent on garbage collection, as of the last collection.", "the runtime's memory (runtime/metrics: /cpu/classes/gc/mark/idle:cpu-seconds)";
    CpuClassesGcPause: "go_cpu_classes_gc_pause_cpu_seconds_total", Counter, "Estimated CPU time during which garbage collection stopped the program, as of the last collection.", "the runtime's memory (runtime/metrics: /cpu/classes/gc/pause:cpu-seconds)";
    CpuClassesGcTotal: "go_cpu_classes_gc_total_cpu_seconds_total", Counter, "Estimated CPU time spent on garbage collection, as of the last collection.", "the runtime's memory (runtime/metrics: /cpu/classes/gc/total:cpu-seconds)";
    CpuClassesIdle: "go_cpu_classes_idle_cpu_seconds_total", Counter, "Estimated CPU time available but not used, as of the last collection.", "the runtime's memory (runtime/metrics: /cpu/classes/idle:cpu-seconds)";
    CpuClassesScavengeAssist: "go_cpu_classes_scavenge_assist_cpu_seconds_total", Counter, "Estimated CPU time spent giving memory back at once, as of the last collection.", "the runtime's memory (runtime/metrics: /cpu/classes/scavenge/assist:cpu-seconds)";
    CpuClassesScavengeBackground: "go_cpu_classes_scavenge_background_cpu_seconds_total", Counter, "Estimated CPU time spent giving memory back in the background, as of the last collection.", "the runtime's memory (runtime/metrics: /cpu/classes/scavenge/background:cpu-seconds)";
    CpuClassesScavengeTotal: "go_cpu_classes_scavenge_total_cpu_seconds_total", Counter, "Estimated CPU time spent giving memory back, as of the last collection.", "the runtime's memory (runtime/metrics: /cpu/classes/scavenge/total:cpu-seconds)";
    CpuClassesTotal: "go_cpu_classes_total_cpu_seconds_total", Counter, "Estimated CPU time available, GOMAXPROCS times the time passed, as of the last collection.", "the runtime's memory (runtime/metrics: /cpu/classes/total:cpu-seconds)";
    CpuClassesUser: "go_cpu_classes_user_cpu_seconds_total", Counter, "Estimated CPU time of Go code, as of the last collection.", "the runtime's memory (runtime/metrics: /cpu/classes/user:cpu-seconds)";
    GcCleanupsExecuted: "go_gc_cleanups_executed_cleanups_total", Counter, "Cleanup functions run, about.", "the runtime's memory (runtime/metrics: /gc/cleanups/executed:cleanups)";
    GcCleanupsQueued: "go_gc_cleanups_queued_cleanups_total", Counter, "Cleanup functions queued to be run, about.", "the runtime's memory (runtime/metrics: /gc/cleanups/queued:cleanups)";
    GcCyclesAutomatic: "go_gc_cycles_automatic_gc_cycles_total", Counter, "Collections completed that the runtime began.", "the runtime's memory (runtime/metrics: /gc/cycles/automatic:gc-cycles)";
    GcCyclesForced: "go_gc_cycles_forced_gc_cycles_total", Counter, "Collections completed that the program asked for.", "the runtime's memory (runtime/metrics: /gc/cycles/forced:gc-cycles)";
    GcCyclesTotal: "go_gc_cycles_total_gc_cycles_total", Counter, "Collections completed.", "the runtime's memory (runtime/metrics: /gc/cycles/total:gc-cycles)";
    GcFinalizersExecuted: "go_gc_finalizers_executed_finalizers_total", Counter, "Finalizers run.", "the runtime's memory (runtime/metrics: /gc/finalizers/executed:finalizers)";
    GcFinalizersQueued: "go_gc_finalizers_queued_finalizers_total", Counter, "Finalizers queued to be run.", "the runtime's memory (runtime/metrics: /gc/finalizers/queued:finalizers)";
    GcGogc: "go_gc_gogc_percent", Gauge, "GOGC: heap growth before a collection, percent; 2^64-1 where it is off.", "the runtime's memory (runtime/metrics: /gc/gogc:percent)";
    GcGomemlimit: "go_gc_gomemlimit_bytes", Gauge, "GOMEMLIMIT; the largest integer where there is none.", "the runtime's memory (runtime/metrics: /gc/gomemlimit:bytes)";
    GcHeapAllocsBytes: "go_gc_heap_allocs_bytes_total", Counter, "Bytes allocated on the heap.", "the runtime's memory (runtime/metrics: /gc/heap/allocs:bytes)";
    GcHeapAllocsObjects: "go_gc_heap_allocs_objects_total", Counter, "Objects allocated on the heap, without tiny ones.", "the runtime's memory (runtime/metrics: /gc/heap/allocs:objects)";
    GcHeapFreesBytes: "go_gc_heap_frees_bytes_total", Counter, "Heap bytes freed.", "the runtime's memory (runtime/metrics: /gc/heap/frees:bytes)";
    GcHeapFreesObjects: "go_gc_heap_frees_objects_total", Counter, "Heap objects freed, without tiny ones.", "the runtime's memory (runtime/metrics: /gc/heap/frees:objects)";
    GcHeapGoal: "go_gc_heap_goal_bytes", Gauge, "Heap size at which the collection is to end.", "the runtime's memory (runtime/metrics: /gc/heap/goal:bytes)";
    GcHeapLive: "go_gc_heap_live_bytes", Gauge, "Heap bytes that the last collection found in use.", "the runtime's memory (runtime/metrics: /gc/heap/live:bytes)";
    GcHeapObjects: "go_gc_heap_objects_objects", Gauge, "Objects on the heap, in use or not yet swept.", "the runtime's memory (runtime/metrics: /gc/heap/objects:objects)";
    GcHeapTinyAllocs: "go_gc_heap_tiny_allocs_objects_total", Counter, "Tiny objects allocated, several in a block.", "the runtime's memory (runtime/metrics: /gc/heap/tiny/allocs:objects)";
    GcLimiterLastEnabled: "go_gc_limiter_last_enabled_gc_cycle", Gauge, "Collection in which the limiter of the collector's CPU was last on; 0: never.", "the runtime's memory (runtime/metrics: /gc/limiter/last-enabled:gc-cycle)";
    GcScanGlobals: "go_gc_scan_globals_bytes", Gauge, "Bytes of global variables that a collection scans.", "the runtime's memory (runtime/metrics: /gc/scan/globals:bytes)";
    GcScanHeap: "go_gc_scan_heap_bytes", Gauge, "Bytes of heap that a collection scans.", "the runtime's memory (runtime/metrics: /gc/scan/heap:bytes)";
    GcScanStack: "go_gc_scan_stack_bytes", Gauge, "Bytes of stacks scanned by the last collection.", "the runtime's memory (runtime/metrics: /gc/scan/stack:bytes)";
    GcScanTotal: "go_gc_scan_total_bytes", Gauge, "Bytes that a collection scans.", "the runtime's memory (runtime/metrics: /gc/scan/total:bytes)";
    GcStackStartingSize: "go_gc_stack_starting_size_bytes", Gauge, "Stack size of a new goroutine.", "the runtime's memory (runtime/metrics: /gc/stack/starting-size:bytes)";
    MemoryClassesHeapFree: "go_memory_classes_heap_free_bytes", Gauge, "Heap memory that is free and could be given back.", "the runtime's memory (runtime/metrics: /memory/classes/heap/free:bytes)";
    MemoryClassesHeapObjects: "go_memory_classes_heap_objects_bytes", Gauge, "Memory of objects in use or not yet swept.", "the runtime's memory (runtime/metrics: /memory/classes/heap/objects:bytes)";
    MemoryClassesHeapReleased: "go_memory_classes_heap_released_bytes", Gauge, "Heap memory that is free and has been given back.", "the runtime's memory (runtime/metrics: /memory/classes/heap/released:bytes)";
    MemoryClassesHeapStacks: "go_memory_classes_heap_stacks_bytes", Gauge, "Heap memory of stacks.", "the runtime's memory (runtime/metrics: /memory/classes/heap/stacks:bytes)";
    MemoryClassesHeapUnused: "go_memory_classes_heap_unused_bytes", Gauge, "Memory reserved for objects that holds none.", "the runtime's memory (runtime/metrics: /memory/classes/heap/unused:bytes)";
    MemoryClassesMetadataMcacheFree: "go_memory_classes_metadata_mcache_free_bytes", Gauge, "Memory reserved for mcache structures, not in use.", "the runtime's memory (runtime/metrics: /memory/classes/metadata/mcache/free:bytes)";
    MemoryClassesMetadataMcacheInuse: "go_memory_classes_metadata_mcache_inuse_bytes", Gauge, "Memory of mcache structures.", "the runtime's memory (runtime/metrics: /memory/classes/metadata/mcache/inuse:bytes)";
    MemoryClassesMetadataMspanFree: "go_memory_classes_metadata_mspan_free_bytes", Gauge, "Memory reserved for mspan structures, not in use.", "the runtime's memory (runtime/metrics: /memory/classes/metadata/mspan/free:bytes)";
    MemoryClassesMetadataMspanInuse: "go_memory_classes_metadata_mspan_inuse_bytes", Gauge, "Memory of mspan structures.", "the runtime's memory (runtime/metrics: /memory/classes/metadata/mspan/inuse:bytes)";
    MemoryClassesMetadataOther: "go_memory_classes_metadata_other_bytes", Gauge, "Memory of other metadata of the runtime.", "the runtime's memory (runtime/metrics: /memory/classes/metadata/other:bytes)";
    MemoryClassesOsStacks: "go_memory_classes_os_stacks_bytes", Gauge, "Stack memory from the operating system.", "the runtime's memory (runtime/metrics: /memory/classes/os-stacks:bytes)";
    MemoryClassesOther: "go_memory_classes_other_bytes", Gauge, "Memory of trace buffers, debugging structures, finalizers and the like.", "the runtime's memory (runtime/metrics: /memory/classes/other:bytes)";
    MemoryClassesProfilingBuckets: "go_memory_classes_profiling_buckets_bytes", Gauge, "Memory of the profiling table.", "the runtime's memory (runtime/metrics: /memory/classes/profiling/buckets:bytes)";
    MemoryClassesTotal: "go_memory_classes_total_bytes", Gauge, "Memory that the runtime has mapped for reading and writing.", "the runtime's memory (runtime/metrics: /memory/classes/total:bytes)";
    SchedGomaxprocs: "go_sched_gomaxprocs_threads", Gauge, "GOMAXPROCS: threads that can run Go code at one time.", "the runtime's memory (runtime/metrics: /sched/gomaxprocs:threads)";
    SchedGoroutinesCreated: "go_sched_goroutines_created_goroutines_total", Counter, "Goroutines created.", "the runtime's memory (runtime/metrics: /sched/goroutines-created:goroutines)";
    SchedGoroutinesNotInGo: "go_sched_goroutines_not_in_go_goroutines", Gauge, "Goroutines in a system call or in C, about; given for every version.", "the runtime's memory (runtime/metrics: /sched/goroutines/not-in-go:goroutines)";
    SchedGoroutinesRunnable: "go_sched_goroutines_runnable_goroutines", Gauge, "Goroutines that could run and do not, about; given for every version.", "the runtime's memory (runtime/metrics: /sched/goroutines/runnable:goroutines)";
    SchedGoroutinesRunning: "go_sched_goroutines_running_goroutines", Gauge, "Goroutines that run, about; given for every version.", "the runtime's memory (runtime/metrics: /sched/goroutines/running:goroutines)";
    SchedGoroutinesWaiting: "go_sched_goroutines_waiting_goroutines", Gauge, "Goroutines that wait for something, about, the runtime's own included; given for every version.", "the runtime's memory (runtime/metrics: /sched/goroutines/waiting:goroutines)";
    SchedGoroutines: "go_sched_goroutines_goroutines", Gauge, "Goroutines.", "the runtime's memory (runtime/metrics: /sched/goroutines:goroutines)";
    SchedThreadsTotal: "go_sched_threads_total_threads", Gauge, "Threads of the Go runtime.", "the runtime's memory (runtime/metrics: /sched/threads/total:threads)";
    SyncMutexWaitTotal: "go_sync_mutex_wait_total_seconds_total", Counter, "Time that goroutines waited for mutexes, about.", "the runtime's memory (runtime/metrics: /sync/mutex/wait/total:seconds)";
    ProcessCpuSecondsTotal: "process_cpu_seconds_total", Counter, "CPU time of the process, user and system.", "/proc";
    ProcessOpenFds: "process_open_fds", Gauge, "Open file descriptors.", "/proc";
    ProcessMaxFds: "process_max_fds", Gauge, "Most file descriptors that may be open.", "/proc";
    ProcessVirtualMemoryBytes: "process_virtual_memory_bytes", Gauge, "Virtual memory.", "/proc";
    ProcessVirtualMemoryMaxBytes: "process_virtual_memory_max_bytes", Gauge, "Most virtual memory; 2^64-1 where there is no limit.", "/proc";
    ProcessResidentMemoryBytes: "process_resident_memory_bytes", Gauge, "Resident memory.", "/proc";
    ProcessStartTimeSeconds: "process_start_time_seconds", Gauge, "Start of the process, seconds since 1970.", "/proc";
    ProcessNetworkReceiveBytesTotal: "process_network_receive_bytes_total", Counter, "Bytes received in the network namespace of the process.", "/proc";
    ProcessNetworkTransmitBytesTotal: "process_network_transmit_bytes_total", Counter, "Bytes sent in the network namespace of the process.", "/proc";
}

distributions! {
    AllocsBySize: "go_gc_heap_allocs_by_size_bytes", "Heap allocations by size; tiny ones by the block that they share.", "the runtime's memory (runtime/metrics: /gc/heap/allocs-by-size:bytes)";
    FreesBySize: "go_gc_heap_frees_by_size_bytes", "Heap objects freed by size; tiny ones by the block that they shared.", "the runtime's memory (runtime/metrics: /gc/heap/frees-by-size:bytes)";
    GcPauses: "go_gc_pauses_seconds", "Pauses of the program by the garbage collector; the same as go_sched_pauses_total_gc_seconds from Go 1.22 on.", "the runtime's memory (runtime/metrics: /gc/pauses:seconds)";
    Latencies: "go_sched_latencies_seconds", "Time that goroutines were ready and did not run yet; the runtime samples about one in eight.", "the runtime's memory (runtime/metrics: /sched/latencies:seconds)";
    StoppingGc: "go_sched_pauses_stopping_gc_seconds", "Time that stopping the program for the garbage collector took.", "the runtime's memory (runtime/metrics: /sched/pauses/stopping/gc:seconds)";
    StoppingOther: "go_sched_pauses_stopping_other_seconds", "Time that stopping the program for another reason took.", "the runtime's memory (runtime/metrics: /sched/pauses/stopping/other:seconds)";
    PausesGc: "go_sched_pauses_total_gc_seconds", "Pauses of the program by the garbage collector.", "the runtime's memory (runtime/metrics: /sched/pauses/total/gc:seconds)";
    PausesOther: "go_sched_pauses_total_other_seconds", "Pauses of the program for another reason.", "the runtime's memory (runtime/metrics: /sched/pauses/total/other:seconds)";
}

/// Numbers by [`Figure`]; what a Go version does not keep is not there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures(Vec<f64>);

impl Figures {
    /// Sets one.
    pub(crate) fn set(&mut self, figure: Figure, value: f64) {
        if self.0.is_empty() {
            self.0 = vec![f64::NAN; FIGURES.len()];
        }
        self.0[figure as usize] = value;
    }

    /// Sets one, if there is a value.
    pub(crate) fn set_some(&mut self, figure: Figure, value: Option<f64>) {
        if let Some(value) = value {
            self.set(figure, value);
        }
    }

    /// Lets no counter be less than it was, as client_golang does: some of the runtime's go back a little, and Prometheus would
    /// take that for a restart.
    pub(super) fn at_least(&mut self, before: &Self) {
        for ((desc, now), before) in FIGURES.iter().zip(&mut self.0).zip(&before.0) {
            if desc.kind == Kind::Counter && *now < *before {
                *now = *before;
            }
        }
    }

    /// The value at an index of [`FIGURES`].
    pub(crate) fn at(&self, index: usize) -> Option<f64> {
        self.0.get(index).copied().filter(|value| !value.is_nan())
    }
}

/// A histogram of the runtime's, with the boundaries that client_golang gives it.
#[derive(Clone, Debug)]
pub(crate) struct Buckets {
    /// Upper bounds, without `+Inf`.
    pub(crate) bounds: &'static [f64],
    /// Observations by bucket, the last beyond all bounds.
    pub(crate) counts: Box<[u64]>,
    /// Their sum; where the runtime keeps none, client_golang's estimate from below.
    pub(crate) sum: f64,
}

/// `go_gc_duration_seconds`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GcSummary {
    /// Minimum, quartiles and maximum of the last 256 pauses, seconds.
    pub(crate) quantiles: [f64; 5],
    /// Seconds of all pauses.
    pub(crate) sum: f64,
    /// Collections.
    pub(crate) count: u64,
}

/// The quantiles of a [`GcSummary`].
pub(crate) const QUANTILES: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];

/// Everything that one look at a process gave.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    /// Numbers.
    pub(crate) figures: Figures,
    /// Histograms by [`Distribution`].
    pub(crate) distributions: [Option<Buckets>; DISTRIBUTION_COUNT],
    /// GC pauses; none where the runtime's memory was not read.
    pub(crate) gc: Option<GcSummary>,
}

/// Goroutines that wait for one reason.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Waiting {
    /// The reason in the runtime's words.
    pub(crate) reason: &'static str,
    /// How many.
    pub(crate) count: u64,
    /// Seconds since the first collection that found the longest waiting of them waiting; none where none did.
    pub(crate) oldest_seconds: Option<f64>,
}

/// What a walk over all goroutines found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Goroutines {
    /// By reason.
    pub(crate) waiting: Vec<Waiting>,
    /// Share of the goroutines that was looked at, 0 to 1; the counts are scaled by it.
    pub(crate) looked_at: f64,
}
