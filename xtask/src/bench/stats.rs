//! Medians with their spread.

use serde::{Deserialize, Serialize};

/// What many measurements of one thing gave.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Spread {
    /// The median.
    pub(super) median: f64,
    /// The lower quartile.
    pub(super) low: f64,
    /// The upper quartile.
    pub(super) high: f64,
    /// How many measurements.
    pub(super) n: usize,
}

impl Spread {
    /// Of at least one value.
    pub(super) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self {
            median: quantile(&sorted, 0.5),
            low: quantile(&sorted, 0.25),
            high: quantile(&sorted, 0.75),
            n: sorted.len(),
        }
    }

    /// A single measurement.
    pub(super) fn one(value: f64) -> Self {
        Self { median: value, low: value, high: value, n: 1 }
    }
}

/// The value that a share of all values does not exceed; NaN of none.
pub(super) fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, share)
}

/// Between the two nearest values; NaN of none.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = q * last as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    below + (above - below) * at.fract()
}

/// Each pair's difference.
pub(super) fn differences(with: &[f64], without: &[f64]) -> Vec<f64> {
    with.iter().zip(without).map(|(with, without)| with - without).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quartiles() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0, 5.0]);
        assert_eq!((spread.median, spread.low, spread.high, spread.n), (3.0, 2.0, 4.0, 5));
        assert!((Spread::of(&[1.0, 2.0]).median - 1.5).abs() < 1e-9);
        assert!(Spread::of(&[]).median.is_nan());
        assert_eq!((percentile(&[3.0, 1.0, 2.0], 1.0), percentile(&[3.0, 1.0, 2.0], 0.0)), (3.0, 1.0));
        assert_eq!(differences(&[3.0, 5.0], &[1.0, 1.0]), [2.0, 4.0]);
    }
}
