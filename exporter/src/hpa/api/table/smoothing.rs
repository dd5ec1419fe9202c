//! How a metric's values a second apart are evened out. Pure.

use serde::{Deserialize, Serialize};

/// How values are evened out. Computed from the history when asked for, so that replicas of the metrics-api agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Smoothing {
    /// Not at all.
    #[default]
    None,
    /// An exponentially weighted moving average over the last `seconds`; the newest value's weight is `alpha`.
    Ewma {
        /// From more than 0 to 1.
        alpha: f64,
        /// Over how many values a second apart.
        #[serde(default = "fifteen")]
        seconds: u32,
    },
    /// The median of the last `seconds` values.
    Median {
        /// How many values a second apart.
        #[serde(default = "fifteen")]
        seconds: u32,
    },
}

fn fifteen() -> u32 {
    15
}

impl Smoothing {
    pub(super) fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// Over how many values, a second apart.
    pub(crate) fn seconds(self) -> u32 {
        match self {
            Self::None => 1,
            Self::Ewma { seconds, .. } | Self::Median { seconds } => seconds,
        }
    }

    /// One value of several, the oldest first.
    pub(crate) fn apply(self, values: &[f64]) -> Option<f64> {
        let last = *values.last()?;
        Some(match self {
            Self::None => last,
            Self::Ewma { alpha, .. } => {
                values.iter().copied().reduce(|smooth, value| smooth + alpha * (value - smooth)).unwrap_or(last)
            }
            Self::Median { .. } => {
                let mut sorted = values.to_vec();
                sorted.sort_by(f64::total_cmp);
                let middle = sorted.len() / 2;
                if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing() {
        let values = [10.0, 20.0, 100.0, 20.0];
        assert_eq!(Smoothing::None.apply(&values), Some(20.0));
        assert_eq!(Smoothing::Ewma { alpha: 0.5, seconds: 4 }.apply(&values), Some(38.75));
        assert_eq!(Smoothing::Median { seconds: 4 }.apply(&values), Some(20.0));
        assert_eq!(Smoothing::Median { seconds: 4 }.apply(&values[1..3]), Some(60.0));
        assert_eq!(Smoothing::None.apply(&[]), None);
    }
}
