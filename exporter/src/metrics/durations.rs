//! The families of durations: what each is as a metric, and how a key of it reads as labels. Pure. Knows nothing of the kernel's maps,
//! nor of how figures are added up.

use std::sync::Arc;

use exporter_ebpf::{
    durations::{REQUESTS, Scale, WAITS},
    key::{FAMILIES, Family, SeriesKey},
    method,
};

use super::contract::{self, Desc};
use crate::{
    runtime::reasons::reason,
    target::{UNKNOWN, stw_reason},
};

/// The label value of what is past a target's limit of texts, or of series.
pub(crate) const OVERFLOW: &str = "_overflow";

/// A label's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Value {
    /// One of a list.
    Word(&'static str),
    /// A number.
    Number(u16),
    /// Whatever a program or its clients have made up.
    Text(Arc<str>),
}

/// Labels of a series beside its target's, by name; none twice, in the order of the contract.
pub(crate) type LabelSet = Vec<(&'static str, Value)>;

/// What is known of a series beside its key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Its text, as it is shown.
    pub(crate) text: Option<Arc<str>>,
    /// Of the program's Go version: 22 of go1.22.10; 0 where it is not known.
    pub(crate) go_minor: u16,
}

/// One family.
#[derive(Debug)]
pub(crate) struct Description {
    /// Which.
    family: Family,
    /// What it is called, and means.
    pub(crate) desc: &'static Desc,
    /// Upper bounds of its buckets in seconds, without `+Inf`.
    pub(crate) bounds: &'static [f64],
    /// The labels of a key. It takes the key apart, so that a new field does not compile until it is handled.
    labels: fn(&SeriesKey, &Facts) -> LabelSet,
}

/// All of them, in the order of their numbers.
static DESCRIPTIONS: [Description; FAMILIES] = [
    Description {
        family: Family::HttpServer,
        desc: &contract::HTTP_SERVER_REQUEST_DURATION,
        bounds: &REQUEST_BOUNDS,
        labels: of_request,
    },
    Description {
        family: Family::Blocking,
        desc: &contract::GOROUTINE_BLOCKED,
        bounds: &WAIT_BOUNDS,
        labels: of_blocking,
    },
    Description { family: Family::Stw, desc: &contract::STW_PAUSE, bounds: &WAIT_BOUNDS, labels: of_stw },
    Description { family: Family::RunQueue, desc: &contract::RUN_QUEUE, bounds: &WAIT_BOUNDS, labels: of_run_queue },
];

static REQUEST_BOUNDS: [f64; REQUESTS.bounds_ns.len()] = seconds(&REQUESTS);
static WAIT_BOUNDS: [f64; WAITS.bounds_ns.len()] = seconds(&WAITS);

const fn seconds<const N: usize>(scale: &Scale) -> [f64; N] {
    let mut bounds = [0.0; N];
    let mut i = 0;
    while i < N {
        bounds[i] = scale.bounds_ns[i] as f64 / 1e9;
        i += 1;
    }
    bounds
}

/// A family as a metric.
pub(crate) fn describe(family: Family) -> &'static Description {
    &DESCRIPTIONS[family as usize]
}

/// The family that this is the metric of.
pub(super) fn of_metric(name: &str) -> Option<&'static Description> {
    DESCRIPTIONS.iter().find(|it| it.desc.name == name)
}

impl Description {
    /// Which family it is of.
    pub(super) fn family(&self) -> Family {
        self.family
    }

    /// The labels of a series.
    pub(crate) fn labels(&self, key: &SeriesKey, facts: &Facts) -> LabelSet {
        (self.labels)(key, facts)
    }
}

fn of_request(key: &SeriesKey, facts: &Facts) -> LabelSet {
    // The text and its kind are in the facts.
    let SeriesKey { text: _, target: _, family: _, text_kind: _, code, verb, spare: _ } = *key;
    let mut labels = Vec::with_capacity(3);
    labels.push(("http_request_method", Value::Word(method::label(verb))));
    if code != 0 {
        labels.push(("http_response_status_code", Value::Number(code)));
    }
    // An empty label is none (Prometheus' data model).
    if let Some(route) = facts.text.as_ref().filter(|route| !route.is_empty()) {
        labels.push(("http_route", Value::Text(route.clone())));
    }
    labels
}

fn of_blocking(key: &SeriesKey, facts: &Facts) -> LabelSet {
    let SeriesKey { text: _, target: _, family: _, text_kind: _, code, verb: _, spare: _ } = *key;
    let known = u8::try_from(code).ok().and_then(|number| reason(facts.go_minor, number));
    of_reason(key, known.unwrap_or(UNKNOWN))
}

fn of_stw(key: &SeriesKey, facts: &Facts) -> LabelSet {
    let SeriesKey { text: _, target: _, family: _, text_kind: _, code, verb: _, spare: _ } = *key;
    of_reason(key, stw_reason(facts.go_minor, code))
}

fn of_reason(key: &SeriesKey, reason: &'static str) -> LabelSet {
    vec![("reason", Value::Word(if key.is_overflow() { OVERFLOW } else { reason }))]
}

fn of_run_queue(key: &SeriesKey, _: &Facts) -> LabelSet {
    let SeriesKey { text: _, target: _, family: _, text_kind: _, code: _, verb: _, spare: _ } = *key;
    LabelSet::new()
}

/// The labels that stand for these where there are too many: what a program or its clients have made up is left out.
pub(crate) fn past_the_limit(labels: LabelSet) -> LabelSet {
    let bounded = |(name, value)| match value {
        Value::Text(_) => (name, Value::Text(OVERFLOW.into())),
        value => (name, value),
    };
    labels.into_iter().map(bounded).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn labels(key: &SeriesKey, text: Option<&str>) -> LabelSet {
        let family = Family::of_number(key.family).expect("there is such a family");
        describe(family).labels(key, &Facts { text: text.map(Into::into), go_minor: 27 })
    }

    #[test]
    fn each_family_has_its_description_whose_labels_are_the_contract_s() {
        for &family in Family::ALL {
            let it = describe(family);
            assert_eq!(it.family, family);
            assert_eq!(it.bounds.len(), family.scale().bounds_ns.len());
            for key in [SeriesKey { verb: 1, ..SeriesKey::of(family, 1, 2) }, SeriesKey::overflow(family, 1)] {
                let labels = labels(&key, Some("/a"));
                assert!(labels.iter().all(|(name, _)| it.desc.labels.contains(name)), "{family:?}: {labels:?}");
            }
            let full = labels(&SeriesKey { verb: 1, ..SeriesKey::of(family, 1, 2) }, Some("/a"));
            assert!(full.iter().map(|(name, _)| *name).eq(it.desc.labels.iter().copied()), "{family:?}: {full:?}");
        }
    }

    #[test]
    fn bounds_in_seconds_are_those_of_the_kernel_side() {
        assert_eq!(REQUEST_BOUNDS[..3], [0.000_05, 0.000_1, 0.000_25]);
        assert_eq!(REQUEST_BOUNDS[17..], [5.0, 7.5, 10.0]);
        assert_eq!((WAIT_BOUNDS[0], WAIT_BOUNDS[15]), (0.000_001, 60.0));
    }

    #[test]
    fn no_two_requests_have_the_same_labels_but_by_what_is_shown_alike() {
        let mut seen = BTreeSet::new();
        for verb in 0..=u8::MAX {
            for text in [None, Some(""), Some("/a")] {
                seen.insert(labels(&SeriesKey { verb, ..SeriesKey::of(Family::HttpServer, 1, 200) }, text));
            }
        }
        assert_eq!(seen.len(), 2 * method::NAMES.len());
    }

    #[test]
    fn what_is_past_a_limit_says_so() {
        for family in [Family::Blocking, Family::Stw] {
            assert_eq!(labels(&SeriesKey::overflow(family, 1), None), [("reason", Value::Word(OVERFLOW))]);
            let unknown = labels(&SeriesKey::of(family, 1, 300), None);
            assert_eq!(unknown, [("reason", Value::Word(UNKNOWN))]);
        }
        let request = labels(&SeriesKey { verb: 1, ..SeriesKey::of(Family::HttpServer, 1, 200) }, Some("/a"));
        let bounded = past_the_limit(request.clone());
        assert_eq!(bounded[..2], request[..2]);
        assert_eq!(bounded[2], ("http_route", Value::Text(OVERFLOW.into())));
    }
}
