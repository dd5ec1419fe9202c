//! The families of what was read of Go runtimes and their processes.

use std::borrow::Cow;

use super::{
    contract::{self, Desc},
    families::{Family, Sample, Value},
    snapshot::{RuntimeFigures, Snapshot},
};
use crate::runtime::{DISTRIBUTIONS, FIGURES, Waiting};

/// Numbers and histograms whose names are wanted, one family at a time.
pub(super) fn families(snapshot: &Snapshot, wanted: impl Fn(&str) -> bool + Copy) -> impl Iterator<Item = Family<'_>> {
    let all = &snapshot.runtimes;
    let numbers = FIGURES.iter().enumerate().filter(move |(_, desc)| wanted(desc.name)).map(|(i, desc)| {
        let samples = all.iter().filter_map(|it| Some((it, it.reading.figures.at(i)?)));
        family(desc, samples.map(|(it, value)| Sample::of(&it.target, Vec::new(), Value::Number(value))).collect())
    });
    let histograms = DISTRIBUTIONS.iter().enumerate().filter(move |(_, desc)| wanted(desc.name)).map(|(i, desc)| {
        let samples = all.iter().filter_map(|it| Some((it, it.reading.distributions.get(i)?.as_ref()?)));
        family(desc, samples.map(|(it, value)| Sample::of(&it.target, Vec::new(), Value::Buckets(value))).collect())
    });
    numbers.chain(histograms)
}

fn family<'a>(desc: &'static Desc, samples: Vec<Sample<'a>>) -> Family<'a> {
    Family { desc, samples }
}

/// The samples of one of the other entries of the contract, if it is one of these.
pub(super) fn samples<'a>(desc: &Desc, snapshot: &'a Snapshot) -> Option<Vec<Sample<'a>>> {
    let all = &snapshot.runtimes;
    let waiting = |value: fn(&Waiting) -> Option<f64>| {
        let each = all.iter().filter_map(|it| Some((it, it.goroutines.as_deref()?)));
        let rows = each.flat_map(|(it, goroutines)| goroutines.waiting.iter().map(move |waiting| (it, waiting)));
        rows.filter_map(|(it, waiting)| {
            let reason = vec![("reason", Cow::Borrowed(waiting.reason))];
            Some(Sample::of(&it.target, reason, Value::Number(value(waiting)?)))
        })
        .collect()
    };
    let walked = |value: fn(&RuntimeFigures) -> Option<f64>| {
        let samples = all.iter().filter_map(|it| Some(Sample::of(&it.target, Vec::new(), Value::Number(value(it)?))));
        samples.collect()
    };
    Some(match desc.name {
        name if name == contract::GO_INFO.name => all
            .iter()
            .filter_map(|it| {
                let version = vec![("version", Cow::Borrowed(it.go_version.as_deref()?))];
                Some(Sample::of(&it.target, version, Value::Number(1.0)))
            })
            .collect(),
        name if name == contract::GO_GC_DURATION.name => all
            .iter()
            .filter_map(|it| Some(Sample::of(&it.target, Vec::new(), Value::Summary(it.reading.gc.as_ref()?))))
            .collect(),
        name if name == contract::GO_GOROUTINES_WAITING.name => waiting(|it| Some(it.count as f64)),
        name if name == contract::GO_GOROUTINES_WAITING_OLDEST.name => waiting(|it| it.oldest_seconds),
        name if name == contract::WALK_AGE.name => walked(|it| it.goroutines.as_ref().map(|_| it.walk_age_seconds)),
        name if name == contract::WALK_RATIO.name => walked(|it| it.goroutines.as_ref().map(|found| found.looked_at)),
        _ => return None,
    })
}
