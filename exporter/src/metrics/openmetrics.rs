//! OpenMetrics 1.0 text, by the `prometheus-client` crate's encoder.

use std::{
    fmt::{self, Write as _},
    io::{self, Write},
    sync::Arc,
};

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, LabelSetEncoder, MetricEncoder, NoLabelSet, text,
    },
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use super::{
    contract::{Desc, Kind},
    families::{Family, Sample, Value, families},
    snapshot::Snapshot,
};
use crate::runtime::QUANTILES;

pub(super) fn write(snapshot: &Arc<Snapshot>, out: &mut dyn Write) -> io::Result<()> {
    for family in families(snapshot).filter(|family| family.desc.kind == Kind::Summary) {
        write_summaries(&family, out)?;
    }
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(Arc::clone(snapshot))));
    let mut writer = Writer { out, error: None };
    let result = text::encode(&mut writer, &registry);
    match (writer.error, result) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(io::Error::other(error)),
        (None, Ok(())) => Ok(()),
    }
}

/// `fmt::Write` over `io::Write`, keeping the error that the former cannot carry.
struct Writer<'w> {
    out: &'w mut dyn Write,
    error: Option<io::Error>,
}

impl fmt::Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.out.write_all(text.as_bytes()).map_err(|error| {
            self.error = Some(error);
            fmt::Error
        })
    }
}

#[derive(Debug)]
struct Families(Arc<Snapshot>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in families(&self.0).filter(|family| family.desc.kind != Kind::Summary) {
            let (name, unit) = name_and_unit(family.desc);
            let kind = match family.desc.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
                Kind::Summary => MetricType::Unknown,
            };
            // The encoder ends the help with a full stop of its own.
            let help = family.desc.help.trim_end_matches('.');
            let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
            for sample in &family.samples {
                encode_sample(metric.encode_family(&SampleLabels(sample))?, family.desc.kind, sample)?;
            }
        }
        Ok(())
    }
}

fn encode_sample(mut encoder: MetricEncoder<'_>, kind: Kind, sample: &Sample<'_>) -> fmt::Result {
    match (sample.value, kind) {
        (Value::Histogram { bounds, counts, sum }, _) => {
            let bounds = bounds.iter().copied().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
            encoder.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
        }
        (Value::Buckets(it), _) => {
            let bounds = it.bounds.iter().copied().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(it.counts.iter().copied()).collect();
            encoder.encode_histogram::<NoLabelSet>(it.sum, it.counts.iter().sum(), &buckets, None)
        }
        // Written apart.
        (Value::Summary(_), _) => Ok(()),
        (Value::Number(number), Kind::Counter) => ConstCounter::new(number).encode(encoder),
        (Value::Number(number), _) => ConstGauge::new(number).encode(encoder),
    }
}

/// The crate has no summaries (its `MetricType` says "not yet"): these lines are the specification's.
fn write_summaries(family: &Family<'_>, out: &mut dyn Write) -> io::Result<()> {
    let name = family.desc.name;
    writeln!(out, "# HELP {name} {}", family.desc.help)?;
    writeln!(out, "# TYPE {name} summary")?;
    for sample in &family.samples {
        let Value::Summary(it) = sample.value else { continue };
        let mut labels = String::new();
        for (i, (name, value)) in sample.labels().enumerate() {
            let value = value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"");
            let _ = write!(labels, "{}{name}=\"{value}\"", if i == 0 { "" } else { "," });
        }
        for (at, value) in QUANTILES.iter().zip(it.quantiles) {
            writeln!(out, "{name}{{{labels},quantile=\"{at:?}\"}} {value:?}")?;
        }
        writeln!(out, "{name}_sum{{{labels}}} {:?}", it.sum)?;
        writeln!(out, "{name}_count{{{labels}}} {}", it.count)?;
    }
    Ok(())
}

/// The encoder appends the unit and `_total` itself.
fn name_and_unit(desc: &Desc) -> (&'static str, Option<Unit>) {
    let name = match desc.kind {
        Kind::Counter => desc.name.strip_suffix("_total").unwrap_or(desc.name),
        _ => desc.name,
    };
    if let Some(short) = name.strip_suffix("_seconds") {
        (short, Some(Unit::Seconds))
    } else if let Some(short) = name.strip_suffix("_bytes") {
        (short, Some(Unit::Bytes))
    } else {
        (name, None)
    }
}

#[derive(Debug)]
struct SampleLabels<'s>(&'s Sample<'s>);

impl EncodeLabelSet for SampleLabels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for pair in self.0.labels() {
            prometheus_client::encoding::EncodeLabel::encode(&pair, encoder.encode_label())?;
        }
        Ok(())
    }
}
