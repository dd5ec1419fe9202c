//! Heap figures out of the runtime's three `heapStatsDelta`s, and the heap goal, computed as the runtime itself computes them
//! (runtime/metrics.go, mstats.go, mgcpacer.go).

use super::{memory::u64_at, plan::HeapOffsets};

/// Object sizes by size class: the same from Go 1.17 to 1.27 (runtime/sizeclasses.go, internal/runtime/gc/sizeclasses.go).
pub(super) const SIZE_CLASSES: [u16; 68] = [
    0, 8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 288, 320, 352, 384, 416, 448,
    480, 512, 576, 640, 704, 768, 896, 1024, 1152, 1280, 1408, 1536, 1792, 2048, 2304, 2688, 3072, 3200, 3456, 4096,
    4864, 5376, 6144, 6528, 6784, 6912, 8192, 9472, 9728, 10240, 10880, 12288, 13568, 14336, 16384, 18432, 19072,
    20480, 21760, 24576, 27264, 28672, 32768,
];

/// Sums over the deltas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heap {
    pub(super) committed: u64,
    pub(super) released: u64,
    pub(super) in_spans: u64,
    pub(super) in_stacks: u64,
    /// With `inPtrScalarBits`, where there are any.
    pub(super) in_work_bufs: u64,
    pub(super) tiny_allocs: u64,
    pub(super) large_alloc: u64,
    pub(super) large_allocs: u64,
    pub(super) small_allocs: [u64; 68],
    pub(super) large_free: u64,
    pub(super) large_frees: u64,
    pub(super) small_frees: [u64; 68],
}

impl Heap {
    /// The sum of the three deltas: what `consistentHeapStats.read` gives, whichever of them is being written.
    pub(super) fn of(bytes: &[u8], at: &HeapOffsets) -> Self {
        let word = |offset: usize| (0..3).fold(0u64, |sum, i| sum.wrapping_add(u64_at(bytes, i * at.size + offset)));
        let classes = |offset: usize| std::array::from_fn(|class| word(offset + class * 8));
        Self {
            committed: word(at.committed),
            released: word(at.released),
            in_spans: word(at.in_spans),
            in_stacks: word(at.in_stacks),
            in_work_bufs: word(at.in_work_bufs).wrapping_add(at.in_ptr_scalar_bits.map_or(0, word)),
            tiny_allocs: word(at.tiny_alloc_count),
            large_alloc: word(at.large_alloc),
            large_allocs: word(at.large_alloc_count),
            small_allocs: classes(at.small_alloc_count),
            large_free: word(at.large_free),
            large_frees: word(at.large_free_count),
            small_frees: classes(at.small_free_count),
        }
    }

    /// Whether this can have come after `before`: what only grows has not shrunk. Until Go 1.18 a span's objects were counted
    /// as allocated when the span was taken, and those that were not as not allocated after all when it was given back
    /// (runtime/mcache.go, `refill` and `releaseAll`).
    pub(super) fn follows(&self, before: &Self, minor: u16) -> bool {
        let grew = |now: &[u64], then: &[u64]| now.iter().zip(then).all(|(now, then)| now >= then);
        grew(&self.counters(), &before.counters())
            && (minor < 19 || grew(&self.small_allocs, &before.small_allocs))
            && grew(&self.small_frees, &before.small_frees)
    }

    fn counters(&self) -> [u64; 5] {
        [self.tiny_allocs, self.large_alloc, self.large_allocs, self.large_free, self.large_frees]
    }

    /// Bytes ever allocated.
    pub(super) fn allocated(&self) -> u64 {
        bytes_of(&self.small_allocs).wrapping_add(self.large_alloc)
    }

    /// Bytes ever freed.
    pub(super) fn freed(&self) -> u64 {
        bytes_of(&self.small_frees).wrapping_add(self.large_free)
    }

    /// Objects ever allocated, without tiny ones.
    pub(super) fn allocs(&self) -> u64 {
        self.small_allocs.iter().fold(self.large_allocs, |sum, count| sum.wrapping_add(*count))
    }

    /// Objects ever freed, without tiny ones.
    pub(super) fn frees(&self) -> u64 {
        self.small_frees.iter().fold(self.large_frees, |sum, count| sum.wrapping_add(*count))
    }
}

fn bytes_of(counts: &[u64; 68]) -> u64 {
    counts
        .iter()
        .zip(SIZE_CLASSES)
        .fold(0u64, |sum, (count, size)| sum.wrapping_add(count.wrapping_mul(u64::from(size))))
}

/// What the heap goal is computed from, Go 1.19 on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pacer {
    pub(super) gc_percent_goal: u64,
    pub(super) sweep_dist_min_trigger: u64,
    pub(super) triggered: u64,
    pub(super) heap_marked: u64,
    pub(super) heap_free: u64,
    pub(super) total_alloc: u64,
    pub(super) total_free: u64,
    pub(super) mapped_ready: u64,
    pub(super) memory_limit: u64,
}

impl Pacer {
    /// `gcControllerState.heapGoalInternal`.
    pub(super) fn goal(&self, minor: u16) -> u64 {
        const MIN_RUNWAY: u64 = 64 << 10;
        let limited = self.limit_goal(minor);
        if limited < self.gc_percent_goal {
            return limited;
        }
        let goal = self.gc_percent_goal.max(self.sweep_dist_min_trigger);
        if self.triggered == u64::MAX { goal } else { goal.max(self.triggered.saturating_add(MIN_RUNWAY)) }
    }

    /// `gcControllerState.memoryLimitHeapGoal`.
    fn limit_goal(&self, minor: u16) -> u64 {
        const MIN_HEADROOM: u64 = 1 << 20;
        let live = self.total_alloc.saturating_sub(self.total_free);
        let other = self.mapped_ready.saturating_sub(self.heap_free).saturating_sub(live);
        let over = self.mapped_ready.saturating_sub(self.memory_limit);
        let Some(goal) = self.memory_limit.checked_sub(other.saturating_add(over)).filter(|goal| *goal > 0) else {
            return self.heap_marked;
        };
        // Three percent from Go 1.21 on.
        let headroom = if minor >= 21 { (goal / 100 * 3).max(MIN_HEADROOM) } else { MIN_HEADROOM };
        let goal = if goal < headroom || goal - headroom < headroom { headroom } else { goal - headroom };
        goal.max(self.heap_marked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACER: Pacer = Pacer {
        gc_percent_goal: 4 << 20,
        sweep_dist_min_trigger: 0,
        triggered: u64::MAX,
        heap_marked: 1 << 20,
        heap_free: 0,
        total_alloc: 2 << 20,
        total_free: 0,
        mapped_ready: 10 << 20,
        memory_limit: i64::MAX as u64,
    };

    #[test]
    fn the_goal_is_the_lower_of_percent_and_limit() {
        assert_eq!(PACER.goal(27), 4 << 20);
        // 8 MiB are not heap: of 11 MiB 3 are left, 1 is headroom.
        let limited = Pacer { memory_limit: 11 << 20, ..PACER };
        assert_eq!(limited.goal(27), 2 << 20);
        assert_eq!(Pacer { memory_limit: 1 << 20, ..PACER }.goal(27), 1 << 20, "no room: what is live");
        assert_eq!(Pacer { triggered: 8 << 20, ..PACER }.goal(27), (8 << 20) + (64 << 10));
    }

    #[test]
    fn deltas_are_summed_with_wrapping() {
        let at = HeapOffsets {
            size: 600 * 8,
            committed: 0,
            small_alloc_count: 80,
            small_free_count: 80 + 68 * 8,
            ..HeapOffsets::default()
        };
        let mut bytes = vec![0u8; at.size * 3];
        let mut put = |offset: usize, value: u64| bytes[offset..offset + 8].copy_from_slice(&value.to_ne_bytes());
        put(at.size + 80 + 8, 5);
        put(2 * at.size + 80 + 8, 6);
        put(0, 3);
        put(at.size, (-1i64) as u64);
        let heap = Heap::of(&bytes, &at);
        assert_eq!((heap.committed, heap.small_allocs[1], heap.allocated()), (2, 11, 88 + heap.large_alloc));
        assert!(heap.follows(&heap, 27));
        let mut later = heap.clone();
        later.small_allocs[1] -= 1;
        assert!(!later.follows(&heap, 19) && later.follows(&heap, 18));
    }
}
