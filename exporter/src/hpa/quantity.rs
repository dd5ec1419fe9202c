//! Kubernetes quantities, as far as the HPA uses them: it reads every value through `MilliValue` (k8s.io/apimachinery
//! v0.34.4, pkg/api/resource/quantity.go), so here a quantity is a count of thousandths.

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use thiserror::Error;

/// Thousandths, as the HPA sees a value. Of a quantity that is read, what lies between is rounded up, as `MilliValue` does; of
/// a value that is computed it is cut. What is past the range is at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Milli(pub(crate) i64);

/// Not a quantity.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is not a Kubernetes quantity: give a number with an optional suffix, as 100, 0.5, 250m, 2k or 1Gi")]
pub(crate) struct QuantityError(String);

/// Suffixes and their factors in thousandths.
const SUFFIXES: [(&str, f64); 16] = [
    ("Ki", 1_024e3),
    ("Mi", 1_048_576e3),
    ("Gi", 1_073_741_824e3),
    ("Ti", 1_099_511_627_776e3),
    ("Pi", 1_125_899_906_842_624e3),
    ("Ei", 1_152_921_504_606_846_976.0 * 1e3),
    ("n", 1e-6),
    ("u", 1e-3),
    ("m", 1.0),
    ("k", 1e6),
    ("M", 1e9),
    ("G", 1e12),
    ("T", 1e15),
    ("P", 1e18),
    ("E", 1e21),
    ("", 1e3),
];

impl Milli {
    /// Whole thousandths of a value that was computed. The rest is cut: an HPA rounds up the pods that it asks for, so that a
    /// load that divides evenly would otherwise ask for one too many (500 over 12 pods against a target of 50: 41667m x 12 is
    /// more than 10 x 50).
    pub(crate) fn of(value: f64) -> Self {
        let thousandths = value * 1e3;
        let nearest = thousandths.round();
        // 1.001 x 1000 is 1000.9999999999999: that is no rest.
        let whole = if (thousandths - nearest).abs() <= nearest.abs() * 1e-12 { nearest } else { thousandths.trunc() };
        // `as` saturates, and takes NaN for 0.
        Self(whole as i64)
    }

    /// Reads a quantity.
    pub(crate) fn parse(text: &str) -> Result<Self, QuantityError> {
        let thousandths = thousandths(text)?;
        // A decimal fraction has no exact binary form; a billionth of the value is no thousandth more.
        let nearest = thousandths.round();
        let close = (thousandths - nearest).abs() <= nearest.abs() * 1e-12;
        Ok(Self(if close { nearest as i64 } else { thousandths.ceil() as i64 }))
    }
}

/// A quantity as a fraction, not rounded: a tolerance is read so (`AsApproximateFloat64`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fraction(pub(crate) f64);

/// As `ParseQuantity` reads it: a sign, digits with at most one point among them, and then either a suffix or a decimal
/// exponent; nothing before, between or after them.
fn thousandths(text: &str) -> Result<f64, QuantityError> {
    let wrong = || QuantityError(text.to_owned());
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let length = unsigned.find(|it: char| !it.is_ascii_digit() && it != '.').unwrap_or(unsigned.len());
    let (number, suffix) = text.split_at(text.len() - unsigned.len() + length);
    if !number.contains(|it: char| it.is_ascii_digit()) {
        return Err(wrong());
    }
    if let Some((_, factor)) = SUFFIXES.iter().find(|(name, _)| *name == suffix) {
        return Ok(number.parse::<f64>().map_err(|_| wrong())? * factor);
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or_else(wrong)?;
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if digits.is_empty() || !digits.bytes().all(|it| it.is_ascii_digit()) {
        return Err(wrong());
    }
    Ok(format!("{number}e{exponent}").parse::<f64>().map_err(|_| wrong())? * 1e3)
}

/// In the canonical form: whole numbers without a suffix, others in thousandths.
impl fmt::Display for Milli {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 % 1000 == 0 { write!(formatter, "{}", self.0 / 1000) } else { write!(formatter, "{}m", self.0) }
    }
}

impl<'de> Deserialize<'de> for Milli {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&text(deserializer)?).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Fraction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        thousandths(&text(deserializer)?).map(|it| Self(it / 1e3)).map_err(de::Error::custom)
    }
}

/// YAML gives `50` as a number and `50m` as a text.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a quantity was expected, as 100, 0.5, 250m, 2k or 1Gi")]
    enum Given {
        Whole(i64),
        Number(f64),
        Text(String),
    }
    Ok(match Given::deserialize(deserializer)? {
        Given::Whole(number) => number.to_string(),
        Given::Number(number) => number.to_string(),
        Given::Text(text) => text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_read_and_thousandths_rounded_up() {
        let milli = |text| Milli::parse(text).map(|it| it.0);
        assert_eq!(milli("100"), Ok(100_000));
        assert_eq!(milli("0.1"), Ok(100));
        assert_eq!(milli("250m"), Ok(250));
        assert_eq!(milli("1.5"), Ok(1500));
        assert_eq!(milli("0.0001"), Ok(1));
        assert_eq!(milli("1u"), Ok(1));
        assert_eq!(milli("2k"), Ok(2_000_000));
        assert_eq!(milli("1Ki"), Ok(1_024_000));
        assert_eq!(milli("1e3"), Ok(1_000_000));
        assert_eq!(milli("1E"), Ok(i64::MAX));
        assert_eq!(milli("-5"), Ok(-5000));
        assert_eq!(
            ["1e-3", "1E3", ".5", "5.", "+5", "5e+2"].map(milli),
            [1, 1_000_000, 500, 5000, 5000, 500_000].map(Ok)
        );
        // The API server refuses the last seven (`ParseQuantity`).
        for wrong in [
            "", "m", "abc", "1 m", "1mm", "inf", "nan", "1e", "--1", "1.2.3", "1e3m", "1e3k", "1e3Ki", " 50", "50 ",
            "1k ", "1Ki2",
        ] {
            assert!(milli(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_written_is_canonical() {
        assert_eq!(Milli(1500).to_string(), "1500m");
        assert_eq!(Milli(2000).to_string(), "2");
        assert_eq!(Milli(0).to_string(), "0");
        // prometheus-adapter cuts as well.
        assert_eq!(
            [0.0005, 0.0019, 500.0 / 12.0, 0.29, 1.001, 0.1 + 0.2, -0.0019].map(Milli::of),
            [0, 1, 41_666, 290, 1001, 300, -1].map(Milli)
        );
        assert_eq!(Milli::of(f64::NAN), Milli(0));
        assert_eq!(Milli::of(f64::INFINITY), Milli(i64::MAX));
    }
}
