//! What is measured of a target, as a person or an annotation asks for it. Knows nothing of what a target can give: that is
//! [`super::plan`]'s.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// One thing that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Measure {
    /// HTTP server requests, by probes.
    Http,
    /// The Go runtime's own figures, read from its memory, and `process_*`: no probe.
    Runtime,
    /// How long goroutines are blocked, by probes that the overhead budget limits.
    Blocking,
    /// Stop-the-world pauses, by probes that are hit a few times a cycle of the garbage collector.
    Gc,
    /// How long threads wait for a CPU, by the scheduler's tracepoints.
    Scheduler,
}

impl Measure {
    /// All of them, in the order they are shown.
    pub(crate) const ALL: [Self; 5] = [Self::Http, Self::Runtime, Self::Blocking, Self::Gc, Self::Scheduler];

    /// Its name in configurations, annotations and figures.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Runtime => "runtime",
            Self::Blocking => "blocking",
            Self::Gc => "gc",
            Self::Scheduler => "scheduler",
        }
    }
}

/// A set of [`Measure`]s. In text their names with commas between: `http,runtime`; or `all`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Features(u8);

/// What is wrong with a list of features.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum FeaturesError {
    #[error("no feature is named: give one or more of {names}, with commas between, or all", names = names())]
    Empty,
    #[error("{0:?} is no feature: give one or more of {names}, with commas between, or all", names = names())]
    Unknown(String),
}

fn names() -> String {
    Measure::ALL.map(Measure::name).join(", ")
}

impl Features {
    /// Nothing.
    pub(crate) const NONE: Self = Self(0);
    /// Everything.
    pub(crate) const ALL: Self = Self((1 << Measure::ALL.len()) - 1);

    /// Whether this is measured.
    pub(crate) const fn has(self, measure: Measure) -> bool {
        self.0 & (1 << measure as u8) != 0
    }

    /// With this one too.
    #[must_use]
    pub(crate) const fn with(self, measure: Measure) -> Self {
        Self(self.0 | (1 << measure as u8))
    }

    /// What either asks for.
    #[must_use]
    pub(crate) const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it asks for anything that the kernel side keeps of waits.
    pub(crate) const fn watches(self) -> bool {
        self.has(Measure::Blocking) || self.has(Measure::Gc) || self.has(Measure::Scheduler)
    }

    /// Whether it asks for nothing.
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What it asks for, in the order of [`Measure::ALL`].
    pub(crate) fn iter(self) -> impl Iterator<Item = Measure> {
        Measure::ALL.into_iter().filter(move |measure| self.has(*measure))
    }

    /// Reads a list of names.
    ///
    /// # Errors
    /// The first name that is no feature's; an empty list.
    pub(crate) fn of_names<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Self, FeaturesError> {
        let mut features = Self::NONE;
        for name in names.into_iter().map(str::trim).filter(|name| !name.is_empty()) {
            let found = Measure::ALL.into_iter().find(|measure| name.eq_ignore_ascii_case(measure.name()));
            features = match found {
                Some(measure) => features.with(measure),
                None if name.eq_ignore_ascii_case("all") => Self::ALL,
                // A name from an annotation may be of any length.
                None => return Err(FeaturesError::Unknown(name.chars().take(40).collect())),
            };
        }
        if features.is_empty() { Err(FeaturesError::Empty) } else { Ok(features) }
    }
}

impl Default for Features {
    /// All but the scheduler: its tracepoints are hit at each switch of every thread on the node (three times a request on a
    /// saturated machine, 0.4 us each), which only who looks for them should pay.
    fn default() -> Self {
        Self::NONE.with(Measure::Http).with(Measure::Runtime).with(Measure::Blocking).with(Measure::Gc)
    }
}

impl FromStr for Features {
    type Err = FeaturesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::of_names(text.split(','))
    }
}

impl fmt::Display for Features {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, measure) in self.iter().enumerate() {
            out.write_str(if i == 0 { "" } else { "," })?;
            out.write_str(measure.name())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Features({self})")
    }
}

impl Serialize for Features {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Measure::name))
    }
}

/// A list of names, or one text with commas.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Names(BTreeSet<String>),
    Text(String),
}

impl<'de> Deserialize<'de> for Features {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Names(names) => Self::of_names(names.iter().map(String::as_str)),
            Written::Text(text) => text.parse(),
        }
        .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_whatever_their_order_case_and_spaces() {
        let features: Features = " Runtime,http ,,http".parse().unwrap();
        assert_eq!(features.to_string(), "http,runtime");
        assert!(features.has(Measure::Http) && !features.has(Measure::Blocking));
        assert_eq!("all".parse(), Ok(Features::ALL));
        assert_eq!(Features::ALL.to_string().parse(), Ok(Features::ALL));
    }

    #[test]
    fn what_is_no_feature_is_named_with_what_there_is() {
        let error = "http,blokcing".parse::<Features>().unwrap_err().to_string();
        assert!(error.contains("\"blokcing\"") && error.contains("http, runtime, blocking"), "{error}");
        for empty in ["", " , "] {
            assert_eq!(empty.parse::<Features>(), Err(FeaturesError::Empty));
        }
        let long = "x".repeat(100_000).parse::<Features>().unwrap_err().to_string();
        assert!(long.len() < 300, "{long}");
    }

    #[test]
    fn yaml_takes_a_list_or_a_text_and_gives_a_list() {
        for yaml in ["[http, gc]", "http,gc", "- gc\n- http\n"] {
            let features: Features = serde_norway::from_str(yaml).unwrap();
            assert_eq!(features, Features::NONE.with(Measure::Http).with(Measure::Gc));
        }
        assert_eq!(serde_norway::to_string(&Features::NONE.with(Measure::Gc)).unwrap(), "- gc\n");
        assert!(serde_norway::from_str::<Features>("[]").is_err());
    }
}
