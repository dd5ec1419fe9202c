//! The duration histogram: bounds, and which bucket a duration belongs to.

/// Upper bounds in nanoseconds, inclusive (Prometheus `le`). The semantic conventions' boundaries for HTTP and RPC durations
/// (0.005 to 10 s; OpenTelemetry semantic conventions 1.44, `http.server.request.duration`), with six below 5 ms added,
/// since Go handlers are fast.
pub const BOUNDS_NS: [u64; 20] = [
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
];

/// Buckets of a histogram: one per bound, and `+Inf`.
pub const BUCKETS: usize = BOUNDS_NS.len() + 1;

/// The index of the bucket that `duration_ns` falls into: the first whose bound is not below it. Counts are per bucket, not
/// cumulative. A sum of the signs of the differences, without branches: the verifier follows both ways of each, from every
/// state in which a program comes here.
#[inline(always)]
pub fn bucket(duration_ns: u64) -> usize {
    // Past all bounds, and far enough from the sign bit.
    let duration = if duration_ns > LONGEST { LONGEST } else { duration_ns };
    let mut index = 0;
    let mut i = 0;
    while i < BOUNDS_NS.len() {
        index += opaque(BOUNDS_NS[i].wrapping_sub(duration)) >> 63;
        i += 1;
    }
    index as usize
}

const LONGEST: u64 = 1 << 40;

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

#[cfg(test)]
mod tests {
    use super::*;

    fn by_definition(duration_ns: u64) -> usize {
        BOUNDS_NS.iter().position(|&bound| duration_ns <= bound).unwrap_or(BOUNDS_NS.len())
    }

    #[test]
    fn a_bound_belongs_to_its_own_bucket_and_one_more_to_the_next() {
        for (i, &bound) in BOUNDS_NS.iter().enumerate() {
            assert_eq!(bucket(bound), i);
            assert_eq!(bucket(bound - 1), by_definition(bound - 1));
            assert_eq!(bucket(bound + 1), i + 1);
        }
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
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
    fn bounds_ascend() {
        assert!(BOUNDS_NS.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
