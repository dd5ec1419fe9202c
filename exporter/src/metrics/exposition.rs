//! The two text formats: Prometheus 0.0.4 and OpenMetrics 1.0. Written by hand, since the crates for them print numbers in other
//! ways than client_golang does, and have no summaries. Memory does not grow with the number of series.

use std::{
    fmt::{Display, Write as _},
    io::{self, Write},
};

use super::{
    Format,
    contract::{self, Desc, Kind},
    families::{Family, Sample, Value, families},
    float::{Go, Open},
    snapshot::Snapshot,
};
use crate::runtime::QUANTILES;

/// Bytes collected before they are handed on.
const PIECE: usize = 16 * 1024;

pub(super) fn write(snapshot: &Snapshot, format: Format, out: &mut dyn Write) -> io::Result<()> {
    let mut text = String::new();
    for family in families(snapshot) {
        let name = Name::of(family.desc, format);
        header(&family, &name, format, &mut text);
        for sample in &family.samples {
            lines(sample, &name, format, &mut text);
            if text.len() >= PIECE {
                out.write_all(text.as_bytes())?;
                text.clear();
            }
        }
    }
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    out.write_all(text.as_bytes())
}

/// What a family is called, and of what type it is, in a format.
#[derive(Debug)]
pub(super) struct Name {
    family: &'static str,
    kind: &'static str,
    /// Of a sample that is one number.
    sample: &'static str,
}

impl Name {
    pub(super) fn of(desc: &'static Desc, format: Format) -> Self {
        let named = |kind| Self { family: desc.name, kind, sample: desc.name };
        match (desc.kind, format) {
            (Kind::Counter, Format::OpenMetrics) => {
                // A counter's samples have a suffix that its family has not. Two families of runtime.MemStats, whose names are
                // client_golang's, would be called go_memstats_alloc_bytes: the counter keeps its name, without a type.
                let family = desc.name.strip_suffix("_total").unwrap_or(desc.name);
                if contract::all().any(|other| other.name == family) {
                    named("unknown")
                } else {
                    Self { family, kind: "counter", sample: desc.name }
                }
            }
            (Kind::Counter, Format::Text) => named("counter"),
            (Kind::Gauge, _) => named("gauge"),
            (Kind::Histogram, _) => named("histogram"),
            (Kind::Summary, _) => named("summary"),
        }
    }
}

fn header(family: &Family<'_>, name: &Name, format: Format, text: &mut String) {
    let help = family.desc.help.replace('\\', "\\\\").replace('\n', "\\n");
    let help = if format == Format::OpenMetrics { help.replace('"', "\\\"") } else { help };
    put(text, format_args!("# HELP {} {help}\n# TYPE {} {}\n", name.family, name.family, name.kind));
    let unit = ["seconds", "bytes"].into_iter().find(|unit| {
        name.family.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_')) && format == Format::OpenMetrics
    });
    if let Some(unit) = unit {
        put(text, format_args!("# UNIT {} {unit}\n", name.family));
    }
}

/// The lines of one label set.
fn lines(sample: &Sample<'_>, name: &Name, format: Format, text: &mut String) {
    let mut labels = String::new();
    for (name, value) in sample.labels() {
        if !labels.is_empty() {
            labels.push(',');
        }
        put(&mut labels, format_args!("{name}=\""));
        escape(&value, &mut labels);
        labels.push('"');
    }
    let number = |number: f64| match format {
        Format::Text => Go(number).to_string(),
        Format::OpenMetrics => Open(number).to_string(),
    };
    match sample.value {
        Value::Number(value) => line(text, (name.sample, ""), &labels, None, number(value)),
        Value::Histogram { bounds, counts, sum } => histogram(text, name, &labels, (bounds, counts, sum), number),
        Value::Buckets(it) => histogram(text, name, &labels, (it.bounds, &it.counts, it.sum), number),
        Value::Summary(it) => {
            for (at, value) in QUANTILES.iter().zip(it.quantiles) {
                line(text, (name.family, ""), &labels, Some(("quantile", number(*at))), number(value));
            }
            line(text, (name.family, "_sum"), &labels, None, number(it.sum));
            line(text, (name.family, "_count"), &labels, None, it.count);
        }
    }
}

/// Bounds without `+Inf`, counts by bucket, one more, and the sum.
fn histogram(
    text: &mut String,
    name: &Name,
    labels: &str,
    (bounds, counts, sum): (&[f64], &[u64], f64),
    number: impl Fn(f64) -> String,
) {
    // Counts may come from a program's memory: whatever they are, they do not wrap.
    let mut cumulative: u64 = 0;
    for (bound, count) in bounds.iter().copied().chain([f64::INFINITY]).zip(counts) {
        cumulative = cumulative.saturating_add(*count);
        line(text, (name.family, "_bucket"), labels, Some(("le", number(bound))), cumulative);
    }
    line(text, (name.family, "_sum"), labels, None, number(sum));
    line(text, (name.family, "_count"), labels, None, cumulative);
}

fn line(
    text: &mut String,
    (name, suffix): (&str, &str),
    labels: &str,
    more: Option<(&str, String)>,
    value: impl Display,
) {
    put(text, format_args!("{name}{suffix}"));
    match (labels.is_empty(), more) {
        (true, None) => {}
        (false, None) => put(text, format_args!("{{{labels}}}")),
        (true, Some((label, of))) => put(text, format_args!("{{{label}=\"{of}\"}}")),
        (false, Some((label, of))) => put(text, format_args!("{{{labels},{label}=\"{of}\"}}")),
    }
    put(text, format_args!(" {value}\n"));
}

/// A label value as both formats have it.
fn escape(value: &str, out: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // A String takes everything.
    let _ = text.write_fmt(arguments);
}
