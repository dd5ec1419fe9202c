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
/// cumulative. Written as a sum of comparisons over a constant table so that the verifier sees a bounded index.
#[inline(always)]
pub fn bucket(duration_ns: u64) -> usize {
    // Two levels: most requests end below 5 ms, and the sum over the lower part alone decides them.
    let mut index = 0;
    if duration_ns <= BOUNDS_NS[6] {
        let mut i = 0;
        while i < 6 {
            index += usize::from(duration_ns > BOUNDS_NS[i]);
            i += 1;
        }
    } else {
        index = 7;
        let mut i = 7;
        while i < BOUNDS_NS.len() {
            index += usize::from(duration_ns > BOUNDS_NS[i]);
            i += 1;
        }
    }
    index
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
    fn bounds_ascend() {
        assert!(BOUNDS_NS.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
