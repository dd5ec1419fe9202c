//! Numbers as Go prints them: Prometheus 2 tells bounds apart by their text, and those of programs that expose themselves are
//! client_golang's.

use std::fmt;

/// A number as Go's `strconv.FormatFloat(x, 'g', -1, 64)`: the shortest digits that give the same number back, with an exponent
/// below 1e-4 and from 1e6 on (strconv/ftoa.go: "if precision was the shortest possible, use precision 6 for this decision").
#[derive(Clone, Copy, Debug)]
pub(super) struct Go(pub(super) f64);

/// The same as OpenMetrics wants it, which has a point in whole numbers (expfmt, `writeOpenMetricsFloat`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Open(pub(super) f64);

impl fmt::Display for Go {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0;
        if number.is_nan() {
            return out.write_str("NaN");
        }
        if number.is_infinite() {
            return out.write_str(if number > 0.0 { "+Inf" } else { "-Inf" });
        }
        let plain = number == 0.0 || (1e-4..1e6).contains(&number.abs());
        // Rust's digits are the shortest, too.
        if plain { write!(out, "{number}") } else { exponential(number, out) }
    }
}

/// At least two digits of the exponent, and its sign.
fn exponential(number: f64, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    write!(out, "{digits}e{sign}{exponent:0>2}")
}

impl fmt::Display for Open {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        Go(self.0).fmt(out)?;
        let whole = self.0.fract() == 0.0 && self.0.abs() < 1e6;
        if whole { out.write_str(".0") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of Go 1.26.8: `fmt.Println(strconv.FormatFloat(x, 'g', -1, 64))`.
    const PRINTED: &[(f64, &str)] = &[
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (-1.0, "-1"),
        (0.5, "0.5"),
        (10.0, "10"),
        (0.000_05, "5e-05"),
        (0.000_1, "0.0001"),
        (0.000_25, "0.00025"),
        (0.000_123_4, "0.0001234"),
        (9.999e-5, "9.999e-05"),
        (6.399_999_999_999_999e-8, "6.399999999999999e-08"),
        (6.399_999_999_999_999e-7, "6.399999999999999e-07"),
        (7.167_999_999_999_999e-6, "7.167999999999999e-06"),
        (8.191_999_999_999_999e-5, "8.191999999999999e-05"),
        (0.000_917_503_999_999_999_9, "0.0009175039999999999"),
        (0.010_485_759_999_999_998, "0.010485759999999998"),
        (0.117_440_511_999_999_98, "0.11744051199999998"),
        (8.999_999_999_999_998, "8.999999999999998"),
        (100_000.0, "100000"),
        (999_999.0, "999999"),
        (1e6, "1e+06"),
        (1_234_567.0, "1.234567e+06"),
        (2_345_678.5, "2.3456785e+06"),
        (20_971_520.0, "2.097152e+07"),
        (1e20, "1e+20"),
        (1e21, "1e+21"),
        (1.5e21, "1.5e+21"),
        (123_456_789.0, "1.23456789e+08"),
        (1_764_300_000.25, "1.76430000025e+09"),
        (9_007_199_254_740_993.0, "9.007199254740992e+15"),
        (1.844_674_407_370_955_2e19, "1.8446744073709552e+19"),
        (f64::MAX, "1.7976931348623157e+308"),
        (5e-324, "5e-324"),
        (1e-9, "1e-09"),
        (1e100, "1e+100"),
        (1e-100, "1e-100"),
        (f64::INFINITY, "+Inf"),
        (f64::NEG_INFINITY, "-Inf"),
        (f64::NAN, "NaN"),
    ];

    #[test]
    fn numbers_are_printed_as_go_prints_them() {
        for (number, text) in PRINTED {
            assert_eq!(Go(*number).to_string(), *text);
        }
    }

    #[test]
    fn in_openmetrics_whole_numbers_have_a_point() {
        for (number, text) in PRINTED {
            let open = if text.contains(['e', '.', 'I', 'N']) { (*text).to_owned() } else { format!("{text}.0") };
            assert_eq!(Open(*number).to_string(), open);
        }
    }
}
