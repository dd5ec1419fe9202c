//! Conditions on labels of series. Patterns are regular expressions that hold of the whole value, as Prometheus has them.

use std::sync::Arc;

use regex::{Regex, RegexBuilder};

/// The largest pattern once compiled, bytes: they come from the configuration.
const MOST: usize = 1 << 18;

/// Around a pattern, so that it is of the whole value.
const BEFORE: &str = "^(?s:";
const AFTER: &str = ")$";

/// A condition on a label. A label that is not there is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Matcher {
    /// The label.
    pub(crate) label: String,
    /// The test.
    pub(crate) test: Test,
}

/// A test of a label's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    /// Is this.
    Equal(String),
    /// Is not this.
    NotEqual(String),
    /// Is as a whole of this pattern.
    Matches(Pattern),
    /// Is not.
    MatchesNot(Pattern),
    /// Is none of these, unless whoever asks chooses by this label: what is left out where nobody says more.
    LeftOut(Arc<[String]>),
}

/// A pattern, compiled.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(Regex);

impl Pattern {
    /// Compiles one; else what is wrong with it.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let whole = format!("{BEFORE}{text}{AFTER}");
        // Read by itself first: brackets of its own must not close ours.
        let compiled = Regex::new(text).and_then(|_| RegexBuilder::new(&whole).size_limit(MOST).build());
        compiled.map(Self).map_err(|error| {
            let error = error.to_string();
            format!(
                "{text:?} is no pattern: {}",
                error.lines().last().unwrap_or_default().trim_start_matches("error: ")
            )
        })
    }

    pub(crate) fn matches(&self, value: &str) -> bool {
        self.0.is_match(value)
    }

    /// As it was written.
    pub(crate) fn text(&self) -> &str {
        let whole = self.0.as_str();
        whole.strip_prefix(BEFORE).and_then(|it| it.strip_suffix(AFTER)).unwrap_or(whole)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

impl Matcher {
    /// Whether a series with these labels matches; `chosen` says whether whoever asks chooses by a label.
    pub(crate) fn matches(&self, labels: &[(Box<str>, Box<str>)], chosen: impl Fn(&str) -> bool) -> bool {
        let value = labels.iter().find(|(name, _)| **name == *self.label).map_or("", |(_, value)| value);
        match &self.test {
            Test::Equal(wanted) => value == wanted,
            Test::NotEqual(unwanted) => value != unwanted,
            Test::Matches(pattern) => pattern.matches(value),
            Test::MatchesNot(pattern) => !pattern.matches(value),
            Test::LeftOut(values) => values.iter().all(|it| it != value) || chosen(&self.label),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(test: Test, value: &str, chosen: bool) -> bool {
        let labels = [(Box::from("a"), Box::from(value))];
        Matcher { label: "a".into(), test }.matches(&labels, |_| chosen)
    }

    #[test]
    fn a_pattern_holds_of_the_whole_value() {
        let pattern = |text: &str, value: &str| matches(Test::Matches(Pattern::new(text).unwrap()), value, false);
        assert!(pattern("5..", "503") && !pattern("5..", "5030") && !pattern("5..", "1503"));
        assert!(pattern("4..|5..", "404") && pattern("4..|5..", "500") && !pattern("4..|5..", "302"));
        assert!(pattern("/api/.*", "/api/items/{id}") && !pattern("/api/.*", "/apis"));
        assert!(pattern("", "") && !pattern(".+", ""));
        assert!(matches(Test::MatchesNot(Pattern::new("4..|429").unwrap()), "200", false));
        assert!(!matches(Test::MatchesNot(Pattern::new("4..|429").unwrap()), "429", false));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for wrong in ["(", "a)(b", "[", "*", "a{1000}{1000}"] {
            assert!(Pattern::new(wrong).unwrap_err().contains("no pattern"), "{wrong}");
        }
    }

    #[test]
    fn what_is_left_out_is_there_for_who_chooses_by_its_label() {
        let test = || Test::LeftOut(["/healthz".to_owned()].into());
        assert!(matches(test(), "/orders", false) && !matches(test(), "/healthz", false));
        assert!(matches(test(), "/healthz", true));
    }
}
