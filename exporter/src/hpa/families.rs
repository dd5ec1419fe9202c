//! What metrics can be made of: the families that the agents' stream feeds, as the metric contract describes them. The one place
//! that says which families and labels there are; knows nothing of values.

use std::collections::BTreeSet;

use super::{feed::FED, wire::Kind};
use crate::metrics::{
    bounds,
    contract::{self, Desc},
    summed,
};

/// The label of figures that says whose they are within a pod; it is no label of a series on the stream.
pub(crate) const CONTAINER: &str = "container";

/// A family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    /// As at `/metrics`.
    pub(crate) name: &'static str,
    /// What its values are.
    pub(crate) kind: Kind,
    /// Labels of its series.
    pub(crate) labels: &'static [&'static str],
    /// Upper bounds of a histogram's buckets, where they are the same of every program.
    pub(crate) bounds: Option<&'static [f64]>,
}

impl Family {
    /// Those there are, in the order of the stream's list.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        FED.iter().filter_map(|(name, kind, _)| {
            let desc = Self::described(name)?;
            Some(Self { name, kind: *kind, labels: desc.labels, bounds: bounds(name) })
        })
    }

    /// What the contract says of it; of a histogram's sum that of the histogram.
    fn described(name: &str) -> Option<&'static Desc> {
        contract::all().find(|it| it.name == name).or_else(|| summed(name))
    }

    /// By its name; else what there is instead.
    pub(crate) fn find(name: &str) -> Result<Self, String> {
        Self::all().find(|it| it.name == name).ok_or_else(|| {
            let names: Vec<&str> = Self::all().map(|it| it.name).collect();
            let why = if contract::all().any(|it| it.name == name) {
                format!("{name:?} is not among what the agents send for the HPA")
            } else {
                format!("there is no family {name:?}")
            };
            let of_histogram = ["_count", "_bucket"].iter().find_map(|it| name.strip_suffix(it));
            if let Some(base) = of_histogram.filter(|it| names.contains(it)) {
                return format!("{why}: the growth of a histogram's count is rate({base}), and its buckets are quantile(0.99, {base})");
            }
            match nearest(name, names.iter().copied()) {
                Some(near) => format!("{why}; did you mean {near:?}?"),
                None => format!("{why}: there are {}", names.join(", ")),
            }
        })
    }

    /// What is wrong with a label of it.
    pub(crate) fn lacks(&self, label: &str) -> Option<String> {
        if self.labels.contains(&label) {
            return None;
        }
        let there_are = match (self.labels, nearest(label, self.labels.iter().copied())) {
            ([], _) => "it has none".to_owned(),
            (_, Some(near)) => format!("did you mean {near:?}?"),
            (labels, None) => format!("it has {}", labels.join(", ")),
        };
        Some(format!("{} has no label {label:?}: {there_are}", self.name))
    }
}

/// Every label that figures can be chosen by.
pub(crate) fn labels() -> BTreeSet<&'static str> {
    Family::all().flat_map(|it| it.labels.iter().copied()).chain([CONTAINER]).collect()
}

/// Which of some names was meant, if one is near enough.
pub(crate) fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let near = names.map(|it| (strsim::damerau_levenshtein(name, it), it)).min()?;
    (near.0 <= name.len().max(3) / 3).then_some(near.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_and_labels_are_those_of_the_contract() {
        let requests = Family::find("http_server_request_duration_seconds").unwrap();
        assert_eq!((requests.kind, requests.labels.len()), (Kind::Histogram, 3));
        assert!(requests.bounds.unwrap().contains(&0.25));
        let sum = Family::find("http_server_request_duration_seconds_sum").unwrap();
        assert_eq!((sum.kind, sum.labels, sum.bounds), (Kind::Counter, requests.labels, None));
        assert!(labels().contains("reason") && labels().contains("container") && !labels().contains("pod"));
    }

    #[test]
    fn whatever_the_stream_feeds_is_in_the_contract_as_what_it_is_fed() {
        for (name, kind, witness) in FED.iter() {
            let Some(desc) = Family::described(name) else { panic!("{name} is in no contract") };
            let is = match desc.kind {
                _ if desc.name != *name => Kind::Counter,
                contract::Kind::Counter => Kind::Counter,
                contract::Kind::Gauge => Kind::Gauge,
                contract::Kind::Histogram => Kind::Histogram,
                contract::Kind::Summary => panic!("{name} is a summary, of which no figures can be joined"),
            };
            assert_eq!(*kind, is, "{name}");
            assert!(witness.is_none_or(|it| FED.iter().any(|(other, ..)| *other == it)), "{name} has no such witness");
        }
    }

    #[test]
    fn what_there_is_not_is_told_with_what_was_meant() {
        let missing = |name: &str| Family::find(name).unwrap_err();
        assert!(
            missing("http_server_request_duration_second").contains("mean \"http_server_request_duration_seconds\"")
        );
        for part in ["_count", "_bucket"] {
            let told = missing(&format!("http_server_request_duration_seconds{part}"));
            assert!(told.contains("rate(http_server_request_duration_seconds),"), "{told}");
        }
        assert!(missing("go_memstats_mspan_inuse_bytes").contains("not among"));
        assert!(missing("up").contains("there are http_server_request_duration_seconds, "));
        let requests = Family::find("http_server_request_duration_seconds").unwrap();
        assert_eq!(requests.lacks("http_route"), None);
        assert!(requests.lacks("http_rout").unwrap().contains("mean \"http_route\""));
        assert!(requests.lacks("code").unwrap().contains("it has http_request_method, "));
        assert!(Family::find("http_server_active_requests").unwrap().lacks("http_route").unwrap().contains("none"));
    }
}
