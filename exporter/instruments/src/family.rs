//! A family of durations as a metric, and how a key of it reads as labels. Knows nothing of the kernel's maps, nor of how figures are
//! added up.

use std::sync::Arc;

use exporter_ebpf::{
    durations::{REQUESTS, Scale, WAITS},
    key::{Family, SeriesKey, Text, TextKey},
    span::Lane,
};

use crate::Desc;

/// The label value of what is past a target's limit of texts, or of series.
pub const OVERFLOW: &str = "_overflow";
/// What a number that has no name is called.
pub const UNKNOWN: &str = "unknown";

/// A label's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    /// One of a list.
    Word(&'static str),
    /// A number.
    Number(u16),
    /// Whatever a program or its clients have made up.
    Text(Arc<str>),
}

/// Labels of a series beside its target's, by name; none twice, in the order of the contract.
pub type LabelSet = Vec<(&'static str, Value)>;

/// What is known of a series beside its key.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Its text, as [`Described::text`] makes it; [`OVERFLOW`] past a limit.
    pub text: Option<Arc<str>>,
    /// The other one, of a family that has two.
    pub second: Option<Arc<str>>,
    /// Of the program's Go version: 22 of go1.22.10; 0 where it is not known.
    pub go_minor: u16,
}

/// A text as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// It.
    pub text: String,
    /// The other one, of a family that has two.
    pub second: Option<String>,
    /// Whether it is a path, which a pod's own templates of routes may fold.
    pub is_path: bool,
}

/// Looks a text up; none where it is not there.
pub type Texts<'t> = &'t dyn Fn(&TextKey) -> Option<Text>;

/// One family.
#[derive(Debug)]
pub struct Described {
    /// Which.
    pub family: Family,
    /// What it is called, and means.
    pub desc: Desc,
    /// The counter that the HPA's stream has its sum under, where it has.
    pub sum: Option<&'static str>,
    /// Upper bounds of its buckets in seconds, without `+Inf`.
    pub bounds: &'static [f64],
    /// The labels of a key. It takes the key apart, so that a new field does not compile until it is handled.
    pub labels: fn(&SeriesKey, &Known) -> LabelSet,
    /// A text of a kind of the family's own as it is shown; none where its bytes could not be read.
    pub text: fn(&TextKey, Texts<'_>) -> Option<Shown>,
}

impl Described {
    /// The labels of a series.
    pub fn labels(&self, key: &SeriesKey, known: &Known) -> LabelSet {
        (self.labels)(key, known)
    }
}

/// A gauge of spans that are open.
#[derive(Debug)]
pub struct Open {
    /// What it is called, and means.
    pub desc: Desc,
    /// In which lanes they are.
    pub lanes: &'static [Lane],
}

/// A family of which the stream to the metrics-api tells.
#[derive(Clone, Copy, Debug)]
pub struct Fed {
    /// Its name: a family's, or a histogram's [`Described::sum`].
    pub name: &'static str,
    /// What its values are.
    pub kind: crate::Kind,
    /// A family that a container has as soon as it is measured, and whose presence means that this one is measured too, so that a
    /// series that is not there counts as 0.
    pub witness: Option<&'static str>,
}

/// The text of a family that has none.
pub(crate) fn no_text(_: &TextKey, _: Texts<'_>) -> Option<Shown> {
    None
}

/// The one label of a family of waits.
pub(crate) fn of_reason(key: &SeriesKey, reason: &'static str) -> LabelSet {
    vec![("reason", Value::Word(if key.is_overflow() { OVERFLOW } else { reason }))]
}

/// The labels that stand for these where there are too many: what a program or its clients have made up is left out.
pub fn past_the_limit(labels: LabelSet) -> LabelSet {
    let bounded = |(name, value)| match value {
        Value::Text(_) => (name, Value::Text(OVERFLOW.into())),
        value => (name, value),
    };
    labels.into_iter().map(bounded).collect()
}

pub(crate) static REQUEST_BOUNDS: [f64; REQUESTS.bounds_ns.len()] = seconds(&REQUESTS);
pub(crate) static WAIT_BOUNDS: [f64; WAITS.bounds_ns.len()] = seconds(&WAITS);

const fn seconds<const N: usize>(scale: &Scale) -> [f64; N] {
    let mut bounds = [0.0; N];
    let mut i = 0;
    while i < N {
        bounds[i] = scale.bounds_ns[i] as f64 / 1e9;
        i += 1;
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ALL, describe};

    fn labels(key: &SeriesKey, text: Option<&str>) -> LabelSet {
        let family = Family::of_number(key.family).expect("there is such a family");
        describe(family).labels(key, &Known { text: text.map(Into::into), second: None, go_minor: 27 })
    }

    #[test]
    fn each_family_has_its_description_whose_labels_are_the_contract_s() {
        assert_eq!(ALL.iter().map(|it| it.families.len()).sum::<usize>(), Family::ALL.len());
        for &family in Family::ALL {
            let it = describe(family);
            assert_eq!(it.family, family);
            assert_eq!(it.bounds.len(), family.scale().bounds_ns.len());
            for key in [SeriesKey { verb: 1, ..SeriesKey::of(family, 1, 2) }, SeriesKey::overflow(family, 1)] {
                let labels = labels(&key, Some("/a"));
                assert!(labels.iter().all(|(name, _)| it.desc.labels.contains(name)), "{family:?}: {labels:?}");
                let order: Vec<_> =
                    it.desc.labels.iter().filter(|it| labels.iter().any(|(name, _)| name == *it)).collect();
                assert!(labels.iter().map(|(name, _)| name).eq(order), "{family:?}: {labels:?}");
            }
        }
    }

    #[test]
    fn bounds_in_seconds_are_those_of_the_kernel_side() {
        assert_eq!(REQUEST_BOUNDS[..3], [0.000_05, 0.000_1, 0.000_25]);
        assert_eq!(REQUEST_BOUNDS[17..], [5.0, 7.5, 10.0]);
        assert_eq!((WAIT_BOUNDS[0], WAIT_BOUNDS[15]), (0.000_001, 60.0));
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
