//! The runtime's histograms with the boundaries that client_golang gives them: its buckets of durations merged by powers of
//! ten up to a second, those of sizes by powers of two.

use std::sync::OnceLock;

use super::{figures::Buckets, heap::SIZE_CLASSES, memory::u64_at};

/// The runtime's boundaries of one kind of histogram, and how they are merged.
pub(super) struct Scale {
    /// Lower bounds of the merged buckets, inclusive as the runtime's are, and the end.
    edges: Vec<f64>,
    /// Upper bounds as Prometheus has them: inclusive, so the next number below.
    bounds: Vec<f64>,
    /// The merged bucket of each of the runtime's.
    merged: Vec<usize>,
}

impl Scale {
    /// As client_golang does it (prometheus/internal/go_runtime_metrics.go, go_collector_latest.go; 1.25): `raw` are the
    /// runtime's boundaries, one more than buckets.
    fn of(raw: &[f64], base: f64, most: f64) -> Self {
        let mut kept = Vec::new();
        let mut rest = raw;
        if rest.first() == Some(&f64::NEG_INFINITY) {
            rest = &rest[1..];
        }
        let mut bucket = rest[0];
        for &next in &rest[1..] {
            if bucket >= 0.0 && next < bucket * base {
                continue;
            }
            kept.push(bucket);
            bucket = next;
        }
        kept.push(bucket);
        if let Some(at) = kept.iter().position(|edge| *edge > most) {
            kept.truncate(at + 1);
            kept[at] = f64::INFINITY;
        }
        let mut merged = Vec::with_capacity(raw.len() - 1);
        let mut at = 0;
        for next in &raw[1..] {
            merged.push(at);
            if kept.get(at + 1) == Some(next) && at + 2 < kept.len() {
                at += 1;
            }
        }
        let bounds = kept[1..kept.len() - 1].iter().map(|edge| edge.next_down()).collect();
        Self { edges: kept, bounds, merged }
    }

    /// Merges the runtime's counts; without a sum, client_golang's estimate is used: each observation at its merged bucket's
    /// lower bound.
    pub(super) fn merge(&'static self, counts: impl Iterator<Item = u64>, sum: Option<f64>) -> Buckets {
        let mut merged = vec![0u64; self.bounds.len() + 1];
        for (at, count) in self.merged.iter().zip(counts) {
            merged[*at] = merged[*at].saturating_add(count);
        }
        let estimate = || self.edges.iter().zip(&merged).map(|(edge, count)| edge * *count as f64).sum();
        let sum = sum.unwrap_or_else(estimate);
        Buckets { bounds: &self.bounds, counts: merged.into(), sum }
    }
}

/// Sizes of heap objects (runtime/metrics.go, `initMetrics`).
pub(super) fn sizes() -> &'static Scale {
    static SCALE: OnceLock<Scale> = OnceLock::new();
    SCALE.get_or_init(|| {
        let classes = SIZE_CLASSES[1..].iter().map(|size| f64::from(*size) + 1.0);
        let raw: Vec<f64> = [1.0].into_iter().chain(classes).chain([f64::INFINITY]).collect();
        Scale::of(&raw, 2.0, f64::INFINITY)
    })
}

/// Buckets of `runtime.timeHistogram` until Go 1.19 (runtime/histogram.go).
const OLD_BUCKETS: usize = 45 * 16;
/// From Go 1.20 on; past them are underflow and overflow.
const BUCKETS: usize = 40 * 4;

/// A `runtime.timeHistogram` as it lies in memory; none for a size that no release has.
pub(super) fn durations(bytes: &[u8]) -> Option<Buckets> {
    static OLD: OnceLock<Scale> = OnceLock::new();
    static SCALE: OnceLock<Scale> = OnceLock::new();
    let count = |at: usize| u64_at(bytes, at * 8);
    match bytes.len() / 8 {
        words if words == OLD_BUCKETS + 1 => {
            let scale = OLD.get_or_init(|| Scale::of(&old_edges(), 10.0, 1.0));
            Some(scale.merge([count(OLD_BUCKETS)].into_iter().chain((0..OLD_BUCKETS).map(count)), None))
        }
        words if words == BUCKETS + 2 => {
            let scale = SCALE.get_or_init(|| Scale::of(&edges(), 10.0, 1.0));
            let counts = [count(BUCKETS)].into_iter().chain((0..BUCKETS).map(count)).chain([count(BUCKETS + 1)]);
            Some(scale.merge(counts, None))
        }
        _ => None,
    }
}

/// `timeHistogramMetricsBuckets` of Go 1.17 to 1.19, seconds.
fn old_edges() -> Vec<f64> {
    let first = (0..16).map(f64::from);
    let rest = (0..44).flat_map(|i| (0..16u64).map(move |j| ((1u64 << (i + 4)) | (j << i)) as f64));
    let nanoseconds = first.chain(rest).map(|ns| ns / 1e9);
    [f64::NEG_INFINITY].into_iter().chain(nanoseconds).chain([f64::INFINITY]).collect()
}

/// `timeHistogramMetricsBuckets` from Go 1.20 on, seconds.
fn edges() -> Vec<f64> {
    let first = (0..4u64).map(|j| (j << 6) as f64);
    let rest = (9..48u32).flat_map(|i| (0..4u64).map(move |j| ((1u64 << (i - 1)) | (j << (i - 3))) as f64));
    let last = (1u64 << 47) as f64;
    let nanoseconds = first.chain(rest).chain([last]).map(|ns| ns / 1e9);
    [f64::NEG_INFINITY].into_iter().chain(nanoseconds).chain([f64::INFINITY]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What client_golang 1.22 to 1.25 show.
    #[test]
    fn bounds_are_client_golangs() {
        let bytes = vec![0; (BUCKETS + 2) * 8];
        let bounds = durations(&bytes).unwrap().bounds;
        let wanted = [
            6.399_999_999_999_999e-8,
            6.399_999_999_999_999e-7,
            7.167_999_999_999_999e-6,
            8.191_999_999_999_999e-5,
            0.000_917_503_999_999_999_9,
            0.010_485_759_999_999_998,
            0.117_440_511_999_999_98,
        ];
        assert_eq!(bounds, wanted);
        let sizes = sizes().merge(std::iter::repeat_n(1, 68), Some(1.0));
        assert_eq!(sizes.bounds[..3], [8.999_999_999_999_998, 24.999_999_999_999_996, 64.999_999_999_999_99]);
        assert_eq!(sizes.counts.iter().sum::<u64>(), 68);
        assert!(durations(&bytes[8..]).is_none());
    }

    #[test]
    fn every_bucket_is_counted_where_it_belongs() {
        for words in [OLD_BUCKETS + 1, BUCKETS + 2] {
            let bytes: Vec<u8> = std::iter::repeat_n(1u64.to_ne_bytes(), words).flatten().collect();
            let merged = durations(&bytes).unwrap();
            assert_eq!(merged.counts.iter().sum::<u64>(), words as u64);
            assert!(merged.counts.iter().all(|count| *count > 0), "{:?}", merged.counts);
        }
        // 1 ms lies in the bucket of 0.917 ms to 10.5 ms.
        let mut bytes = vec![0; (BUCKETS + 2) * 8];
        let at = edges().iter().rposition(|edge| *edge <= 0.001).unwrap() - 1;
        bytes[at * 8] = 7;
        let merged = durations(&bytes).unwrap();
        assert_eq!(merged.counts[5], 7);
        assert!((merged.sum - 7.0 * 0.000_917_504).abs() < 1e-12, "{}", merged.sum);
    }
}
