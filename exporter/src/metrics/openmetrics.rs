//! OpenMetrics 1.0 text, by the `prometheus-client` crate's encoder.

use std::{
    fmt,
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
    families::{BOUNDS, Sample, Value, families},
    snapshot::Snapshot,
};

pub(super) fn write(snapshot: &Arc<Snapshot>, out: &mut dyn Write) -> io::Result<()> {
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
        for family in families(&self.0) {
            let (name, unit) = name_and_unit(family.desc);
            let kind = match family.desc.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
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
        (Value::Durations(durations), _) => {
            let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(durations.buckets).collect();
            let sum = durations.sum_ns as f64 / 1e9;
            encoder.encode_histogram::<NoLabelSet>(sum, durations.count(), &buckets, None)
        }
        (Value::Number(number), Kind::Counter) => ConstCounter::new(number).encode(encoder),
        (Value::Number(number), _) => ConstGauge::new(number).encode(encoder),
    }
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
