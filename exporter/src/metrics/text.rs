//! The Prometheus text format 0.0.4, by the `prometheus` crate's encoder. A family is given to it in pieces, so that memory
//! does not grow with the number of series.

use std::io::{self, Write};

use prometheus::{
    Encoder as _, TextEncoder,
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType, Quantile, Summary},
};

use super::{
    contract::Kind,
    families::{Family, Sample, Value, families},
    snapshot::Snapshot,
};
use crate::runtime::{GcSummary, QUANTILES};

/// Samples encoded at once.
const PIECE: usize = 64;

pub(super) fn write(snapshot: &Snapshot, out: &mut dyn Write) -> io::Result<()> {
    let mut piece = Vec::new();
    for family in families(snapshot) {
        for (i, samples) in family.samples.chunks(PIECE).enumerate() {
            piece.clear();
            TextEncoder::new().encode(&[encoded(&family, samples)], &mut piece).map_err(io::Error::other)?;
            out.write_all(if i == 0 { &piece } else { without_header(&piece) })?;
        }
    }
    Ok(())
}

/// The encoder writes `# HELP` and `# TYPE` before each piece; they belong before the first alone.
fn without_header(piece: &[u8]) -> &[u8] {
    let mut rest = piece;
    while rest.first() == Some(&b'#') {
        match rest.iter().position(|&byte| byte == b'\n') {
            Some(end) => rest = &rest[end + 1..],
            None => return &[],
        }
    }
    rest
}

fn encoded(family: &Family<'_>, samples: &[Sample<'_>]) -> MetricFamily {
    let mut out = MetricFamily::default();
    out.set_name(family.desc.name.to_owned());
    out.set_help(family.desc.help.to_owned());
    out.set_field_type(match family.desc.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram => MetricType::HISTOGRAM,
        Kind::Summary => MetricType::SUMMARY,
    });
    out.set_metric(samples.iter().map(|sample| metric(family.desc.kind, sample)).collect());
    out
}

fn metric(kind: Kind, sample: &Sample<'_>) -> Metric {
    let mut metric = Metric::default();
    let labels = sample.labels().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.into_owned());
        pair
    });
    metric.set_label(labels.collect());
    match (sample.value, kind) {
        (Value::Histogram { bounds, counts, sum }, _) => metric.set_histogram(histogram(bounds, counts, sum)),
        (Value::Buckets(it), _) => metric.set_histogram(histogram(it.bounds, &it.counts, it.sum)),
        (Value::Summary(it), _) => metric.set_summary(summary(it)),
        (Value::Number(number), Kind::Counter) => {
            let mut counter = Counter::default();
            counter.set_value(number);
            metric.set_counter(counter);
        }
        (Value::Number(number), _) => {
            let mut gauge = Gauge::default();
            gauge.set_value(number);
            metric.set_gauge(gauge);
        }
    }
    metric
}

/// There is one count more than bounds: that of what is above them all.
fn histogram(bounds: &[f64], counts: &[u64], sum: f64) -> Histogram {
    let mut histogram = Histogram::default();
    let mut cumulative = 0;
    let buckets = bounds.iter().zip(counts).map(|(bound, count)| {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(cumulative);
        bucket
    });
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(counts.iter().sum());
    histogram.set_sample_sum(sum);
    histogram
}

fn summary(of: &GcSummary) -> Summary {
    let mut summary = Summary::default();
    let quantiles = QUANTILES.iter().zip(of.quantiles).map(|(at, value)| {
        let mut quantile = Quantile::default();
        quantile.set_quantile(*at);
        quantile.set_value(value);
        quantile
    });
    summary.set_quantile(quantiles.collect());
    summary.set_sample_sum(of.sum);
    summary.set_sample_count(of.count);
    summary
}
