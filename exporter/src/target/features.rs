//! What is featured of a target, as a person or an annotation asks for it. Knows nothing of what a target can give: that is
//! [`super::plan`]'s.

use std::{collections::BTreeSet, fmt, str::FromStr};

use exporter_ebpf::feature::Feature;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// A set of [`Feature`]s. In text their names with commas between: `http,runtime`; or `all`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Features(u32);

/// What is wrong with a list of features.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum FeaturesError {
    #[error("no feature is named: give one or more of {names}, with commas between, or all", names = names())]
    Empty,
    #[error("{0:?} is no feature: give one or more of {names}, with commas between, or all", names = names())]
    Unknown(String),
}

fn names() -> String {
    Feature::ALL.iter().map(|it| it.name()).collect::<Vec<_>>().join(", ")
}

impl Features {
    /// Nothing.
    pub(crate) const NONE: Self = Self(0);
    /// Everything.
    pub(crate) const ALL: Self = Self((1 << Feature::ALL.len()) - 1);

    /// Whether this is featured.
    pub(crate) const fn has(self, feature: Feature) -> bool {
        self.0 & feature.bit() != 0
    }

    /// With this one too.
    #[must_use]
    pub(crate) const fn with(self, feature: Feature) -> Self {
        Self(self.0 | feature.bit())
    }

    /// What either asks for.
    #[must_use]
    pub(crate) const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Of these, those that the kernel side measures, as it has them.
    pub(crate) fn in_kernel(self) -> u32 {
        self.iter().filter(|it| it.is_in_kernel()).fold(0, |bits, it| bits | it.bit())
    }

    /// Whether it asks for nothing.
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What it asks for, in the order of [`Feature::ALL`].
    pub(crate) fn iter(self) -> impl Iterator<Item = Feature> {
        Feature::ALL.iter().copied().filter(move |feature| self.has(*feature))
    }

    /// Reads a list of names.
    ///
    /// # Errors
    /// The first name that is no feature's; an empty list.
    pub(crate) fn of_names<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Self, FeaturesError> {
        let mut features = Self::NONE;
        for name in names.into_iter().map(str::trim).filter(|name| !name.is_empty()) {
            let found = Feature::ALL.iter().copied().find(|feature| name.eq_ignore_ascii_case(feature.name()));
            features = match found {
                Some(feature) => features.with(feature),
                None if name.eq_ignore_ascii_case("all") => Self::ALL,
                // A name from an annotation may be of any length.
                None => return Err(FeaturesError::Unknown(name.chars().take(40).collect())),
            };
        }
        if features.is_empty() { Err(FeaturesError::Empty) } else { Ok(features) }
    }
}

impl Default for Features {
    /// All that need not be asked for.
    fn default() -> Self {
        let usual = Feature::ALL.iter().copied().filter(|it| it.is_usual());
        usual.fold(Self::NONE, Self::with)
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
        for (i, feature) in self.iter().enumerate() {
            out.write_str(if i == 0 { "" } else { "," })?;
            out.write_str(feature.name())?;
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
        serializer.collect_seq(self.iter().map(Feature::name))
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
        assert!(features.has(Feature::Http) && !features.has(Feature::Blocking));
        assert_eq!("all".parse(), Ok(Features::ALL));
        assert_eq!(Features::ALL.to_string().parse(), Ok(Features::ALL));
    }

    #[test]
    fn what_is_no_feature_is_named_with_what_there_is() {
        let error = "http,blokcing".parse::<Features>().unwrap_err().to_string();
        assert!(
            error.contains("\"blokcing\"") && error.contains("http, ") && error.contains("runtime, blocking"),
            "{error}"
        );
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
            assert_eq!(features, Features::NONE.with(Feature::Http).with(Feature::Stw));
        }
        assert_eq!(serde_norway::to_string(&Features::NONE.with(Feature::Stw)).unwrap(), "- gc\n");
        assert!(serde_norway::from_str::<Features>("[]").is_err());
    }
}
