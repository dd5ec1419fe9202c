//! How long things took: one kind of histogram for all of them, and the scales of its bounds. Knows nothing of what took so long.

/// Upper bounds of a histogram's buckets in nanoseconds, inclusive (Prometheus `le`), ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// The bounds, without `+Inf`.
    pub bounds_ns: &'static [u64],
}

/// The semantic conventions' boundaries for HTTP and RPC durations (0.005 to 10 s; OpenTelemetry semantic conventions 1.44,
/// `http.server.request.duration`), with six below 5 ms added, since Go handlers are fast.
pub const REQUESTS: Scale = Scale {
    bounds_ns: &[
        50_000,
        100_000,
        250_000,
        500_000,
        1_000_000,
        2_500_000,
        5_000_000,
        10_000_000,
        25_000_000,
        50_000_000,
        75_000_000,
        100_000_000,
        250_000_000,
        500_000_000,
        750_000_000,
        1_000_000_000,
        2_500_000_000,
        5_000_000_000,
        7_500_000_000,
        10_000_000_000,
    ],
};

/// From the microseconds of a channel hand-over to the minute of an idle connection.
pub const WAITS: Scale = Scale {
    bounds_ns: &[
        1_000,
        5_000,
        10_000,
        50_000,
        100_000,
        500_000,
        1_000_000,
        5_000_000,
        10_000_000,
        50_000_000,
        100_000_000,
        500_000_000,
        1_000_000_000,
        5_000_000_000,
        10_000_000_000,
        60_000_000_000,
    ],
};

/// Buckets that a histogram has room for: one per bound of the longest scale, and `+Inf`.
pub const BUCKETS: usize = 21;

const _: () = assert!(REQUESTS.buckets() <= BUCKETS && WAITS.buckets() <= BUCKETS);

/// Past all bounds, and far enough from the sign bit.
const LONGEST: u64 = 1 << 40;

impl Scale {
    /// Buckets that it uses: one per bound, and `+Inf`.
    #[inline(always)]
    pub const fn buckets(&self) -> usize {
        self.bounds_ns.len() + 1
    }

    /// The index of the bucket that a duration falls into: the first whose bound is not below it. A sum of the signs of the
    /// differences, without branches: the verifier follows both ways of each, from every state in which a program comes here.
    #[inline(always)]
    pub fn bucket(&self, duration_ns: u64) -> usize {
        let duration = if duration_ns > LONGEST { LONGEST } else { duration_ns };
        let mut index = 0;
        let mut i = 0;
        while i < self.bounds_ns.len() {
            index += opaque(self.bounds_ns[i].wrapping_sub(duration)) >> 63;
            i += 1;
        }
        index as usize
    }
}

/// Whether a sum of durations still grows. Past 2^63 ns, which are 292 years, it stays as it is: a sum that wraps looks like a
/// program that started anew. No duration is long enough to wrap it from there: all are shorter than the machine's uptime.
#[inline(always)]
pub const fn grows(sum_ns: u64) -> bool {
    sum_ns < 1 << 63
}

/// Hides a difference from the compiler, which would turn the arithmetic on its sign back into a comparison.
#[inline(always)]
fn opaque(value: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    // SAFETY: a move of a register onto itself.
    unsafe {
        let mut value = value;
        core::arch::asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack));
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    value
}

/// A histogram of durations. Each field is only ever added to, atomically: programs of uprobes can be preempted, so that a plain
/// increment loses counts even in a per-CPU map (kernel/events/uprobes.c, 6.18: migration is disabled, preemption is not).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durations {
    /// Counts by bucket of a [`Scale`], not cumulative; those behind the scale's last stay 0.
    pub buckets: [u64; BUCKETS],
    /// Their sum in nanoseconds; see [`grows`].
    pub sum_ns: u64,
}

impl Durations {
    /// Nothing counted yet.
    pub const ZERO: Self = Self { buckets: [0; BUCKETS], sum_ns: 0 };

    /// Counts one.
    pub fn record(&mut self, scale: &Scale, duration_ns: u64) {
        self.buckets[scale.bucket(duration_ns)] += 1;
        self.sum_ns = self.sum_ns.saturating_add(duration_ns);
    }

    /// Adds what another of the same scale has counted. Saturates; the kernel side's own sums stop earlier, see [`grows`].
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine = mine.saturating_add(theirs);
        }
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }

    /// What has been counted since it was `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut value = Self { sum_ns: self.sum_ns.saturating_sub(before.sum_ns), ..*self };
        for (count, before) in value.buckets.iter_mut().zip(before.buckets) {
            *count = count.saturating_sub(before);
        }
        value
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALES: [Scale; 2] = [REQUESTS, WAITS];

    fn by_definition(scale: &Scale, duration_ns: u64) -> usize {
        scale.bounds_ns.iter().position(|&bound| duration_ns <= bound).unwrap_or(scale.bounds_ns.len())
    }

    #[test]
    fn a_bound_belongs_to_its_own_bucket_and_one_more_to_the_next() {
        for scale in SCALES {
            for (i, &bound) in scale.bounds_ns.iter().enumerate() {
                assert_eq!(scale.bucket(bound), i);
                assert_eq!(scale.bucket(bound - 1), by_definition(&scale, bound - 1));
                assert_eq!(scale.bucket(bound + 1), i + 1);
            }
            assert_eq!(scale.bucket(0), 0);
            assert_eq!(scale.bucket(u64::MAX), scale.buckets() - 1);
        }
    }

    #[test]
    fn a_sum_never_wraps() {
        const LONGEST_UPTIME: u64 = 100 * 365 * 24 * 3600 * 1_000_000_000;
        let mut sum = u64::MAX / 2 - LONGEST_UPTIME;
        for _ in 0..10 {
            let before = sum;
            if grows(sum) {
                sum = sum.checked_add(LONGEST_UPTIME).expect("it does not wrap");
            }
            assert!(sum >= before);
        }
        assert!(!grows(sum) && !grows(u64::MAX) && grows(0));
    }

    #[test]
    fn bounds_ascend_and_are_short_enough_for_the_signs_of_differences() {
        for scale in SCALES {
            assert!(scale.bounds_ns.windows(2).all(|pair| pair[0] < pair[1]));
            assert!(scale.bounds_ns.iter().all(|bound| *bound < LONGEST));
        }
    }

    #[test]
    fn what_is_added_up_and_taken_apart_is_the_same() {
        let (mut one, mut other) = (Durations::ZERO, Durations::ZERO);
        one.record(&WAITS, 1_000);
        one.record(&WAITS, 90_000_000_000);
        other.record(&WAITS, 7_000);
        let mut both = one;
        both.add(&other);
        assert_eq!((both.count(), both.sum_ns), (3, 90_000_008_000));
        assert_eq!(both.since(&one), other);
        assert_eq!(one.since(&both), Durations { buckets: [0; BUCKETS], sum_ns: 0 });
    }
}
