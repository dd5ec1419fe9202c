//! One consistent look at the runtime's global variables, and the figures in it, computed as `runtime/metrics` and
//! client_golang compute them.

mod work;

use std::io;

use super::{
    figures::{Buckets, Distribution, Figure, Reading},
    heap::Heap,
    histogram,
    memory::{Memory, Range, u32_at, u64_at},
    plan::{Item, Plan},
    threads::{Processors, Threads},
};

/// Looks at most until two agree.
const LOOKS: usize = 10;
/// Heap bytes by which the runtime's two accounts may differ for each processor: each may be between the two.
const IN_BETWEEN: u64 = 64 * 1024;

/// What was read, item by item.
pub(super) struct Look<'p> {
    plan: &'p Plan,
    bytes: Vec<u8>,
    heap: Option<Heap>,
}

impl<'p> Look<'p> {
    /// Reads until two looks in a row agree: no collection between them, and nothing that only grows has shrunk. None where
    /// they do not, because the program reads its own figures all the time.
    pub(super) fn take(memory: Memory, plan: &'p Plan, bias: u64) -> io::Result<Option<Self>> {
        let ranges: Vec<Range> =
            plan.ranges.iter().map(|it| Range { address: it.address.wrapping_add(bias), ..*it }).collect();
        let mut before = Self::once(memory, plan, &ranges)?;
        for look in 1..LOOKS {
            let now = Self::once(memory, plan, &ranges)?;
            // The accounts are asked to agree while that may be a matter of time.
            if now.follows(&before) && (now.accounts_agree() || look > LOOKS / 2) {
                return Ok(Some(now));
            }
            before = now;
        }
        Ok(None)
    }

    fn once(memory: Memory, plan: &'p Plan, ranges: &[Range]) -> io::Result<Self> {
        let mut bytes = Vec::new();
        memory.read(ranges, &mut bytes)?;
        let mut look = Self { plan, bytes, heap: None };
        look.heap = plan.heap.as_ref().and_then(|at| Some(Heap::of(look.slice(Item::HeapStats)?, at)));
        Ok(look)
    }

    fn follows(&self, before: &Self) -> bool {
        // The figures of a collection change together, with the world stopped; those of the heap move to another delta.
        let same = [Item::Numgc, Item::PauseTotalNs, Item::CpuStats, Item::HeapGen];
        let grew = match (&self.heap, &before.heap) {
            (Some(now), Some(before)) => now.follows(before, self.plan.minor),
            _ => true,
        };
        grew && same.into_iter().all(|item| self.slice(item) == before.slice(item))
    }

    /// The deltas against `gcController.totalAlloc` (Go 1.19 on): while the runtime moves one delta into another, their sum
    /// counts it twice.
    fn accounts_agree(&self) -> bool {
        let Some((heap, total)) = self.heap.as_ref().zip(self.word(Item::TotalAlloc)) else { return true };
        let processors = self.half(Item::Gomaxprocs).unwrap_or(1);
        heap.allocated().abs_diff(total) <= IN_BETWEEN * (u64::from(processors) + 1)
    }

    fn slice(&self, item: Item) -> Option<&[u8]> {
        let (at, len) = self.plan.place(item)?;
        self.bytes.get(at..at + len)
    }

    /// An 8-byte word.
    pub(super) fn word(&self, item: Item) -> Option<u64> {
        self.slice(item).map(|bytes| u64_at(bytes, 0))
    }

    /// A 4-byte word.
    pub(super) fn half(&self, item: Item) -> Option<u32> {
        self.slice(item).map(|bytes| u32_at(bytes, 0))
    }

    /// `runtime.allp`: where the array is, and how many it has.
    pub(super) fn allp(&self) -> Option<(u64, u64)> {
        self.slice(Item::Allp).map(|bytes| (u64_at(bytes, 0), u64_at(bytes, 8)))
    }

    /// Whether the runtime has set itself up.
    pub(super) fn has_begun(&self) -> bool {
        self.word(Item::Allglen).is_none_or(|len| len > 0) && self.allp().is_none_or(|(_, len)| len > 0)
    }

    /// All figures.
    pub(super) fn figures(&self, processors: Option<Processors>, threads: Option<Threads>, out: &mut Reading) {
        self.heap_figures(out);
        self.memory_figures(out);
        self.gc_figures(out);
        self.cpu_figures(out);
        self.scheduler_figures(processors, threads, out);
        let mut distribution = |which: Distribution, item: Item| {
            out.distributions[which as usize] = self.slice(item).and_then(histogram::durations);
        };
        distribution(Distribution::Latencies, Item::TimeToRun);
        distribution(Distribution::StoppingGc, Item::StoppingGc);
        distribution(Distribution::StoppingOther, Item::StoppingOther);
        distribution(Distribution::PausesGc, Item::PausesGc);
        distribution(Distribution::PausesOther, Item::PausesOther);
        // The same from Go 1.22 on (runtime/metrics.go).
        let pauses = if self.slice(Item::PausesGc).is_some() { Item::PausesGc } else { Item::GcPauseDist };
        distribution(Distribution::GcPauses, pauses);
    }

    fn heap_figures(&self, out: &mut Reading) {
        let Some(heap) = &self.heap else { return };
        let (allocated, freed, allocs, frees) = (heap.allocated(), heap.freed(), heap.allocs(), heap.frees());
        let in_use = allocated.wrapping_sub(freed);
        let mut set = |figure: Figure, value: u64| out.figures.set(figure, value as f64);
        set(Figure::GcHeapAllocsBytes, allocated);
        set(Figure::GcHeapFreesBytes, freed);
        set(Figure::GcHeapAllocsObjects, allocs);
        set(Figure::GcHeapFreesObjects, frees);
        set(Figure::GcHeapObjects, allocs.wrapping_sub(frees));
        set(Figure::GcHeapTinyAllocs, heap.tiny_allocs);
        let free =
            heap.committed.wrapping_sub(heap.in_spans).wrapping_sub(heap.in_stacks).wrapping_sub(heap.in_work_bufs);
        let unused = heap.in_spans.wrapping_sub(in_use);
        set(Figure::MemoryClassesHeapFree, free);
        set(Figure::MemoryClassesHeapObjects, in_use);
        set(Figure::MemoryClassesHeapReleased, heap.released);
        set(Figure::MemoryClassesHeapStacks, heap.in_stacks);
        set(Figure::MemoryClassesHeapUnused, unused);
        // client_golang's own account of them (prometheus/go_collector_latest.go, memStatsFromRM).
        set(Figure::MemstatsAllocBytes, in_use);
        set(Figure::MemstatsAllocBytesTotal, allocated);
        set(Figure::MemstatsMallocsTotal, allocs.wrapping_add(heap.tiny_allocs));
        set(Figure::MemstatsFreesTotal, frees.wrapping_add(heap.tiny_allocs));
        set(Figure::MemstatsHeapAllocBytes, in_use);
        set(Figure::MemstatsHeapInuseBytes, in_use.wrapping_add(unused));
        set(Figure::MemstatsHeapReleasedBytes, heap.released);
        set(Figure::MemstatsHeapIdleBytes, heap.released.wrapping_add(free));
        set(Figure::MemstatsHeapSysBytes, in_use.wrapping_add(unused).wrapping_add(heap.released).wrapping_add(free));
        set(Figure::MemstatsHeapObjects, allocs.wrapping_sub(frees));
        set(Figure::MemstatsStackInuseBytes, heap.in_stacks);
        let sizes = |small: &[u64; 68], large: u64, sum: u64| -> Buckets {
            histogram::sizes().merge(small[1..].iter().copied().chain([large]), Some(sum as f64))
        };
        let both = [
            (Distribution::AllocsBySize, sizes(&heap.small_allocs, heap.large_allocs, allocated)),
            (Distribution::FreesBySize, sizes(&heap.small_frees, heap.large_frees, freed)),
        ];
        for (which, buckets) in both {
            out.distributions[which as usize] = Some(buckets);
        }
    }

    fn memory_figures(&self, out: &mut Reading) {
        let word = |item| self.word(item);
        let mut set =
            |figure: Figure, value: Option<u64>| out.figures.set_some(figure, value.map(|value| value as f64));
        let (stacks, spans, caches) = (word(Item::StacksSys), word(Item::MspanSys), word(Item::McacheSys));
        let (spans_used, caches_used) = (word(Item::SpanInuse), word(Item::CacheInuse));
        let minus = |all: Option<u64>, part: Option<u64>| Some(all?.wrapping_sub(part?));
        let plus = |one: Option<u64>, other: Option<u64>| Some(one?.wrapping_add(other?));
        let heap = self.heap.as_ref();
        let other_metadata = plus(word(Item::GcMiscSys), heap.map(|heap| heap.in_work_bufs));
        set(Figure::MemoryClassesMetadataMspanInuse, spans_used);
        set(Figure::MemoryClassesMetadataMspanFree, minus(spans, spans_used));
        set(Figure::MemoryClassesMetadataMcacheInuse, caches_used);
        set(Figure::MemoryClassesMetadataMcacheFree, minus(caches, caches_used));
        set(Figure::MemoryClassesMetadataOther, other_metadata);
        set(Figure::MemoryClassesOsStacks, stacks);
        set(Figure::MemoryClassesOther, word(Item::OtherSys));
        set(Figure::MemoryClassesProfilingBuckets, word(Item::BuckhashSys));
        let committed = heap.map(|heap| heap.committed.wrapping_add(heap.released));
        let total = [stacks, spans, caches, word(Item::BuckhashSys), word(Item::GcMiscSys), word(Item::OtherSys)]
            .into_iter()
            .fold(committed, plus);
        set(Figure::MemoryClassesTotal, total);
        set(Figure::MemstatsSysBytes, total);
        set(Figure::MemstatsStackSysBytes, plus(stacks, heap.map(|heap| heap.in_stacks)));
        set(Figure::MemstatsMspanInuseBytes, spans_used);
        set(Figure::MemstatsMspanSysBytes, spans);
        set(Figure::MemstatsMcacheInuseBytes, caches_used);
        set(Figure::MemstatsMcacheSysBytes, caches);
        set(Figure::MemstatsBuckHashSysBytes, word(Item::BuckhashSys));
        set(Figure::MemstatsGcSysBytes, other_metadata);
        set(Figure::MemstatsOtherSysBytes, word(Item::OtherSys));
    }
}
