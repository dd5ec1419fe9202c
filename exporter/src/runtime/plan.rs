//! What is read of a Go program and where it lies, by its own layouts: made once an executable. Knows no process.

use std::sync::Arc;

use gobinary::{Global, GoBinary};

use super::memory::Range;

macro_rules! items {
    ($($id:ident = $global:ident $type:literal $field:literal, $len:expr;)*) => {
        /// Something in the runtime's global variables.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Item { $($id,)* }

        /// Where each is: the variable, its type and field (none: the variable itself), bytes.
        const ITEMS: &[(Item, Global, &str, &str, Len)] = &[$((Item::$id, Global::$global, $type, $field, $len),)*];
    };
}

/// How long an item is.
#[derive(Clone, Copy)]
enum Len {
    /// Bytes.
    Is(usize),
    /// As long as a struct, so many times.
    Of(&'static str, usize),
}

const WORD: Len = Len::Is(8);
const HALF: Len = Len::Is(4);
const HISTOGRAM: Len = Len::Of("runtime.timeHistogram", 1);
/// `runtime.cpuStats` has the same eleven words in the same order since it came with Go 1.20 (runtime/mstats.go).
const CPU_STATS: Len = Len::Is(11 * 8);
/// Pauses that `runtime.mstats.pause_ns` keeps (runtime/mstats.go).
pub(super) const PAUSES: usize = 256;

items! {
    HeapStats = Memstats "runtime.mstats" "heapStats", Len::Of("runtime.heapStatsDelta", 3);
    HeapGen = Memstats "runtime.mstats" "heapStats.gen", HALF;
    StacksSys = Memstats "runtime.mstats" "stacks_sys", WORD;
    MspanSys = Memstats "runtime.mstats" "mspan_sys", WORD;
    McacheSys = Memstats "runtime.mstats" "mcache_sys", WORD;
    BuckhashSys = Memstats "runtime.mstats" "buckhash_sys", WORD;
    GcMiscSys = Memstats "runtime.mstats" "gcMiscSys", WORD;
    OtherSys = Memstats "runtime.mstats" "other_sys", WORD;
    LastGcUnix = Memstats "runtime.mstats" "last_gc_unix", WORD;
    PauseTotalNs = Memstats "runtime.mstats" "pause_total_ns", WORD;
    PauseNs = Memstats "runtime.mstats" "pause_ns", Len::Is(PAUSES * 8);
    Numgc = Memstats "runtime.mstats" "numgc", HALF;
    Numforcedgc = Memstats "runtime.mstats" "numforcedgc", HALF;
    GcPauseDist = Memstats "runtime.mstats" "gcPauseDist", HISTOGRAM;
    Mnext = Sched "runtime.schedt" "mnext", WORD;
    Nmfreed = Sched "runtime.schedt" "nmfreed", WORD;
    Ngsys = Sched "runtime.schedt" "ngsys", HALF;
    GFree = Sched "runtime.schedt" "gFree.n", HALF;
    GFreeStack = Sched "runtime.schedt" "gFree.stack.size", HALF;
    GFreeNoStack = Sched "runtime.schedt" "gFree.noStack.size", HALF;
    Runqsize = Sched "runtime.schedt" "runqsize", HALF;
    RunqSize = Sched "runtime.schedt" "runq.size", HALF;
    GsyscallNoP = Sched "runtime.schedt" "nGsyscallNoP", HALF;
    SchedCreated = Sched "runtime.schedt" "goroutinesCreated", WORD;
    TimeToRun = Sched "runtime.schedt" "timeToRun", HISTOGRAM;
    MutexWait = Sched "runtime.schedt" "totalMutexWaitTime", WORD;
    RuntimeLockWait = Sched "runtime.schedt" "totalRuntimeLockWaitTime", WORD;
    StoppingGc = Sched "runtime.schedt" "stwStoppingTimeGC", HISTOGRAM;
    StoppingOther = Sched "runtime.schedt" "stwStoppingTimeOther", HISTOGRAM;
    PausesGc = Sched "runtime.schedt" "stwTotalTimeGC", HISTOGRAM;
    PausesOther = Sched "runtime.schedt" "stwTotalTimeOther", HISTOGRAM;
    GcPercent = GcController "runtime.gcControllerState" "gcPercent", HALF;
    MemoryLimit = GcController "runtime.gcControllerState" "memoryLimit", WORD;
    GcPercentHeapGoal = GcController "runtime.gcControllerState" "gcPercentHeapGoal", WORD;
    SweepDistMinTrigger = GcController "runtime.gcControllerState" "sweepDistMinTrigger", WORD;
    Triggered = GcController "runtime.gcControllerState" "triggered", WORD;
    HeapMarked = GcController "runtime.gcControllerState" "heapMarked", WORD;
    HeapScan = GcController "runtime.gcControllerState" "heapScan", WORD;
    StackScan = GcController "runtime.gcControllerState" "lastStackScan", WORD;
    GlobalsScan = GcController "runtime.gcControllerState" "globalsScan", WORD;
    HeapFree = GcController "runtime.gcControllerState" "heapFree", WORD;
    TotalAlloc = GcController "runtime.gcControllerState" "totalAlloc", WORD;
    TotalFree = GcController "runtime.gcControllerState" "totalFree", WORD;
    MappedReady = GcController "runtime.gcControllerState" "mappedReady", WORD;
    HeapGoal = GcController "runtime.gcControllerState" "heapGoal", WORD;
    CpuStats = Work "runtime.workType" "cpuStats", CPU_STATS;
    SpanInuse = Mheap "runtime.mheap" "spanalloc.inuse", WORD;
    CacheInuse = Mheap "runtime.mheap" "cachealloc.inuse", WORD;
    LimiterCycle = GcCpuLimiter "runtime.gcCPULimiterState" "lastEnabledCycle", HALF;
    CleanupsQueued = GcCleanups "runtime.cleanupQueue" "queued", WORD;
    CleanupsExecuted = GcCleanups "runtime.cleanupQueue" "executed", WORD;
    Ncgocall = Ncgocall "" "", WORD;
    StartingStackSize = StartingStackSize "" "", HALF;
    Gomaxprocs = Gomaxprocs "" "", HALF;
    Allp = Allp "" "", Len::Is(16);
    Allglen = Allglen "" "", WORD;
    Allgptr = Allgptr "" "", WORD;
    Allm = Allm "" "", WORD;
    Finqueued = Finqueued "" "", WORD;
    Finexecuted = Finexecuted "" "", WORD;
    ExtraMInUse = ExtraMInUse "" "", HALF;
    ExtraMLength = ExtraMLength "" "", HALF;
}

/// Offsets in `runtime.p`, `m` and `g`, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Offsets {
    pub(super) p_status: Option<u32>,
    pub(super) p_m: Option<u32>,
    pub(super) p_runqhead: Option<u32>,
    pub(super) p_runqtail: Option<u32>,
    pub(super) p_runnext: Option<u32>,
    /// Free goroutines of a processor: `gFree.n`, from Go 1.25 on `gFree.size`.
    pub(super) p_gfree: Option<u32>,
    pub(super) p_created: Option<u32>,
    pub(super) p_cleanups: Option<u32>,
    pub(super) m_curg: Option<u32>,
    pub(super) m_p: Option<u32>,
    pub(super) m_alllink: Option<u32>,
    pub(super) m_lock_wait: Option<u32>,
    pub(super) m_ncgocall: Option<u32>,
    pub(super) g_status: Option<u32>,
    pub(super) g_waitsince: Option<u32>,
    pub(super) g_waitreason: Option<u32>,
}

/// Offsets in `runtime.heapStatsDelta` and the like, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeapOffsets {
    pub(super) size: usize,
    pub(super) committed: usize,
    pub(super) released: usize,
    pub(super) in_spans: usize,
    pub(super) in_stacks: usize,
    pub(super) in_work_bufs: usize,
    /// Until Go 1.24.
    pub(super) in_ptr_scalar_bits: Option<usize>,
    pub(super) tiny_alloc_count: usize,
    pub(super) large_alloc: usize,
    pub(super) large_alloc_count: usize,
    pub(super) small_alloc_count: usize,
    pub(super) large_free: usize,
    pub(super) large_free_count: usize,
    pub(super) small_free_count: usize,
}

/// What is read of every process of one executable.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// 22 of Go 1.22.
    pub(super) minor: u16,
    /// Go's own version text, as `go_info` shows it.
    pub(crate) version: Arc<str>,
    /// Link-time ranges, in the order they are read.
    pub(super) ranges: Vec<Range>,
    /// Where an item is among what was read, and its length; by [`Item`].
    places: Vec<Option<(u32, u32)>>,
    pub(super) offsets: Offsets,
    pub(super) heap: Option<HeapOffsets>,
    /// For position-independent programs: the link-time address of an instruction and its offset in the file.
    pub(super) anchor: Option<(u64, u64)>,
    /// Where the Go version's text is kept, to check that the addresses are right.
    pub(super) build_version: Option<u64>,
    /// Until Go 1.21: where `memstats.last_gc_nanotime` is, with which the runtime ends a collection's second pause.
    pub(super) last_gc: Option<u64>,
}

/// Nothing in the runtime's variables is farther from their start, or longer: more is a lie of the program's.
const MAX_OFFSET: u32 = 1 << 20;
const MAX_LEN: usize = 64 * 1024;
/// Ranges closer than this are read as one.
const GAP: u64 = 256;

impl Plan {
    /// What can be read of a program; why nothing can.
    pub(crate) fn of(binary: &GoBinary) -> Result<Self, String> {
        let version = &binary.build_info.go_version;
        let layouts = binary.layouts();
        if let Some(why) = layouts.withheld() {
            return Err(format!("the runtime's own figures cannot be read: {why}"));
        }
        let offset = |ty: &str, field: &str| layouts.offset(ty, field).filter(|at| *at < MAX_OFFSET);
        let mut wanted = Vec::new();
        for (item, global, ty, field, len) in ITEMS {
            let Some(base) = binary.global(*global) else { continue };
            let Some(at) = (if ty.is_empty() { Some(0) } else { offset(ty, field) }) else { continue };
            let len = match len {
                Len::Is(len) => Some(*len),
                Len::Of(ty, times) => layouts.size(ty).map(|size| size as usize * times),
            };
            if let Some(len) = len.filter(|len| *len <= MAX_LEN) {
                wanted.push((*item, base.address.wrapping_add(u64::from(at)), len));
            }
        }
        let (ranges, places) = arrange(wanted);
        let either = |ty, one, other| offset(ty, one).or_else(|| offset(ty, other));
        let offsets = Offsets {
            p_status: offset("runtime.p", "status"),
            p_m: offset("runtime.p", "m"),
            p_runqhead: offset("runtime.p", "runqhead"),
            p_runqtail: offset("runtime.p", "runqtail"),
            p_runnext: offset("runtime.p", "runnext"),
            p_gfree: either("runtime.p", "gFree.n", "gFree.size"),
            p_created: offset("runtime.p", "goroutinesCreated"),
            p_cleanups: offset("runtime.p", "cleanupsQueued"),
            m_curg: offset("runtime.m", "curg"),
            m_p: offset("runtime.m", "p"),
            m_alllink: offset("runtime.m", "alllink"),
            m_lock_wait: offset("runtime.m", "mLockProfile.waitTime"),
            m_ncgocall: offset("runtime.m", "ncgocall"),
            g_status: offset("runtime.g", "atomicstatus"),
            g_waitsince: offset("runtime.g", "waitsince"),
            g_waitreason: offset("runtime.g", "waitreason"),
        };
        let plan = Self {
            minor: version.minor,
            version: version.to_string().into(),
            ranges,
            places,
            offsets,
            heap: heap_offsets(&offset, layouts.size("runtime.heapStatsDelta")),
            anchor: binary
                .functions()
                .first()
                .filter(|_| binary.pie)
                .and_then(|function| Some((function.addr, binary.file_offset(function.addr)?))),
            build_version: binary
                .global(Global::BuildVersion)
                .filter(|_| version.is_known())
                .map(|found| found.address),
            last_gc: binary
                .global(Global::Memstats)
                .filter(|_| version.minor < 22)
                .zip(offset("runtime.mstats", "last_gc_nanotime"))
                .map(|(found, at)| found.address.wrapping_add(u64::from(at))),
        };
        if plan.place(Item::Numgc).is_none() && plan.place(Item::Allglen).is_none() {
            let why = layouts.reason().unwrap_or("the runtime's variables were not found");
            return Err(format!("the runtime's own figures cannot be read: {why}"));
        }
        if binary.pie && plan.anchor.is_none() {
            return Err("the runtime's own figures cannot be read: where the program's code begins is not known".into());
        }
        Ok(plan)
    }

    /// Where an item is among what was read.
    pub(super) fn place(&self, item: Item) -> Option<(usize, usize)> {
        let (at, len) = self.places.get(item as usize).copied().flatten()?;
        Some((at as usize, len as usize))
    }
}

type Places = Vec<Option<(u32, u32)>>;

/// Few ranges for many items.
fn arrange(mut wanted: Vec<(Item, u64, usize)>) -> (Vec<Range>, Places) {
    wanted.sort_unstable_by_key(|(_, address, _)| *address);
    let mut ranges: Vec<Range> = Vec::new();
    let mut places = vec![None; ITEMS.len()];
    let mut before = 0;
    for (item, address, len) in wanted {
        let end = address.saturating_add(len as u64);
        match ranges.last_mut() {
            Some(last) if address <= last.address.saturating_add(last.len as u64 + GAP) => {
                last.len = last.len.max((end - last.address) as usize);
            }
            _ => {
                before += ranges.last().map_or(0, |last| last.len);
                ranges.push(Range { address, len });
            }
        }
        let last = ranges[ranges.len() - 1];
        places[item as usize] = Some(((before as u64 + address - last.address) as u32, len as u32));
    }
    (ranges, places)
}

fn heap_offsets(offset: &impl Fn(&str, &str) -> Option<u32>, size: Option<u32>) -> Option<HeapOffsets> {
    let at = |field| offset("runtime.heapStatsDelta", field).map(|at| at as usize);
    Some(HeapOffsets {
        size: size? as usize,
        committed: at("committed")?,
        released: at("released")?,
        in_spans: at("inHeap")?,
        in_stacks: at("inStacks")?,
        in_work_bufs: at("inWorkBufs")?,
        in_ptr_scalar_bits: at("inPtrScalarBits"),
        tiny_alloc_count: at("tinyAllocCount")?,
        large_alloc: at("largeAlloc")?,
        large_alloc_count: at("largeAllocCount")?,
        small_alloc_count: at("smallAllocCount")?,
        large_free: at("largeFree")?,
        large_free_count: at("largeFreeCount")?,
        small_free_count: at("smallFreeCount")?,
    })
}
