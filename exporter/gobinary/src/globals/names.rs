//! The runtime's variables by name, and what is known of where one is. Knows nothing of how they are found.

use serde::Serialize;

macro_rules! globals {
    ($($(#[$doc:meta])+ $variant:ident = $($name:literal)|+;)+) => {
        /// A variable of the Go runtime that others read from outside. Which release has which: Go's source, package
        /// runtime, 1.17 to 1.27; their fields by [`GoBinary::layouts`](crate::GoBinary::layouts).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Global {
            $($(#[$doc])+ $variant,)+
        }

        impl Global {
            /// Every variant, in order.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its symbol's names, the newest first: some moved between releases.
            pub fn names(self) -> &'static [&'static str] {
                match self {
                    $(Self::$variant => &[$($name),+],)+
                }
            }
        }
    };
}

globals! {
    /// `schedt`: run queues, idle threads, stop-the-world and scheduling-latency histograms, mutex wait.
    Sched = "runtime.sched";
    /// `[]*g`: every goroutine ever made. Read [`Self::Allglen`] and [`Self::Allgptr`] rather: those are written
    /// atomically.
    Allgs = "runtime.allgs";
    /// `uintptr`: how many of [`Self::Allgptr`] are there.
    Allglen = "runtime.allglen";
    /// `**g`: the array of all goroutines.
    Allgptr = "runtime.allgptr";
    /// `*m`: the list of threads, linked by `m.alllink`.
    Allm = "runtime.allm";
    /// `[]*p`: the processors; `len` is GOMAXPROCS.
    Allp = "runtime.allp";
    /// `int32`.
    Gomaxprocs = "runtime.gomaxprocs";
    /// `int32`: processors when the program started.
    Ncpu = "runtime.numCPUStartup" | "runtime.ncpu";
    /// `mstats`: GC pauses and cycles, system memory, `heapStats`.
    Memstats = "runtime.memstats";
    /// `gcControllerState`: heap goal, live heap, allocation totals, `gcPercent`, `memoryLimit`.
    GcController = "runtime.gcController";
    /// `workType`: GC cycles and, from Go 1.20 on, `cpuStats`.
    Work = "runtime.work";
    /// `mheap`: `spanalloc.inuse`, `cachealloc.inuse`, pages in use.
    Mheap = "runtime.mheap_";
    /// `gcCPULimiterState` (Go 1.19 on): `lastEnabledCycle`.
    GcCpuLimiter = "runtime.gcCPULimiter";
    /// `uint64`: cgo calls of threads that ended; those of the living are in `m.ncgocall`.
    Ncgocall = "runtime.ncgocall";
    /// `uint32` (Go 1.19 on).
    StartingStackSize = "runtime.startingStackSize";
    /// `string`: the Go version as the program knows it.
    BuildVersion = "runtime.buildVersion";
    /// `[68]uint16`: object sizes by size class, in which `heapStats` counts.
    ClassToSize = "internal/runtime/gc.SizeClassToSize" | "runtime.class_to_size";
    /// `[n]string`: the texts of wait reasons, whose numbers change between releases.
    WaitReasonStrings = "runtime.waitReasonStrings";
    /// `uint32`: 0 off, 1 marking, 2 mark termination.
    Gcphase = "runtime.gcphase";
    /// `uint32`: 1 while marking.
    GcBlackenEnabled = "runtime.gcBlackenEnabled";
    /// `forcegcstate`: the goroutine that starts a collection every two minutes.
    Forcegc = "runtime.forcegc";
    /// `uint32` (Go 1.21 on): threads of C that run Go now.
    ExtraMInUse = "runtime.extraMInUse";
    /// `uint32` (Go 1.21 on): spare threads for C.
    ExtraMLength = "runtime.extraMLength";
    /// `uint64` (Go 1.26 on): finalizers ever queued.
    Finqueued = "runtime.finqueued";
    /// `uint64` (Go 1.26 on): finalizers ever run.
    Finexecuted = "runtime.finexecuted";
    /// `cleanupQueue` (Go 1.25 on): `queued`, `executed`.
    GcCleanups = "runtime.gcCleanups";
    /// `uint32`: goroutines that are panicking, or 0.
    Panicking = "runtime.panicking";
    /// `int64`: nanotime of the runtime's start.
    RuntimeInitTime = "runtime.runtimeInitTime";
    /// `moduledata` of the program itself.
    FirstModuledata = "runtime.firstmoduledata";
}

impl Global {
    /// Its symbol's name in the newest Go.
    pub fn name(self) -> &'static str {
        self.names()[0]
    }
}

impl std::fmt::Display for Global {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How a variable's address was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GlobalSource {
    /// `.symtab`.
    Symtab,
    /// The code of at least two functions of the runtime.
    Code,
    /// The pointers back to the function table, by which the runtime finds it.
    FunctionTable,
}

impl GlobalSource {
    /// As reports write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Symtab => "symtab",
            Self::Code => "code",
            Self::FunctionTable => "function table",
        }
    }
}

/// A variable's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FoundGlobal {
    /// Link-time virtual address; in a process the load bias is added.
    pub address: u64,
    /// How it was found.
    pub from: GlobalSource,
}
