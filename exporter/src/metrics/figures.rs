//! Chosen families of a snapshot, one sample at a time, for who serves them in another way than as text.

use std::borrow::Cow;

use super::{
    contract::{self, Desc},
    families::{Value, chosen},
    snapshot::Snapshot,
};

/// A sample's value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Figure<'a> {
    /// A gauge's.
    Gauge(f64),
    /// A counter's.
    Counter(f64),
    /// Upper bounds without `+Inf`, and counts by bucket, not cumulative, one more.
    Buckets(&'a [f64], &'a [u64]),
}

/// The histogram that a name is the sum of: a counter by itself, named as in the text format.
pub(crate) fn summed(name: &str) -> Option<&'static Desc> {
    instruments::families().find(|it| it.sum == Some(name)).map(|it| &it.desc)
}

/// Calls `each` with every sample of the families whose names are wanted: name, labels and value. A histogram's sum is a family
/// beside it ([`summed`]).
pub(crate) fn visit(
    snapshot: &Snapshot,
    wanted: impl Fn(&str) -> bool + Copy,
    mut each: impl FnMut(&'static str, &[(&'static str, Cow<'_, str>)], Figure<'_>),
) {
    let sum_of = |name: &str| instruments::families().find(|it| it.desc.name == name).and_then(|it| it.sum);
    let sum_wanted = |name: &str| sum_of(name).filter(|it| wanted(it));
    for family in chosen(snapshot, |name| wanted(name) || sum_wanted(name).is_some()) {
        let mut labels = Vec::new();
        for sample in &family.samples {
            labels.clear();
            labels.extend(sample.labels());
            if let (Value::Histogram { sum, .. }, Some(name)) = (sample.value, sum_wanted(family.desc.name)) {
                each(name, &labels, Figure::Counter(sum));
            }
            if !wanted(family.desc.name) {
                continue;
            }
            let figure = match (sample.value, family.desc.kind) {
                (Value::Number(number), contract::Kind::Counter) => Figure::Counter(number),
                (Value::Number(number), _) => Figure::Gauge(number),
                (Value::Histogram { bounds, counts, .. }, _) => Figure::Buckets(bounds, counts),
                (Value::Buckets(value), _) => Figure::Buckets(value.bounds, &value.counts),
                // Quantiles cannot be joined.
                (Value::Summary(_), _) => continue,
            };
            each(family.desc.name, &labels, figure);
        }
    }
}
