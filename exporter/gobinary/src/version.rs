//! Go versions as build information spells them. Knows nothing of files.

use std::fmt;

use serde::Serialize;

/// A Go version. Ordered by release; compare only [`known`](Self::is_known) ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoVersion {
    /// 1.
    pub major: u16,
    /// 22 of go1.22.10. 0 when unknown.
    pub minor: u16,
    /// 10 of go1.22.10; 0 for go1.22 and its release candidates.
    pub patch: u16,
    /// What follows the number: `rc1`, `-custom`, `X:boringcrypto`; empty for a plain release.
    pub suffix: String,
    /// The text as found.
    pub raw: String,
    /// Built from a development tree (`devel ...`): it may differ from every release.
    pub devel: bool,
    /// What stands behind `X:`, before the text was cut.
    experiments: Vec<String>,
}

impl GoVersion {
    /// Parses whatever `runtime.Version()` may return. Never fails: what is not understood is
    /// [unknown](Self::is_known) and keeps its text.
    pub fn parse(text: &str) -> Self {
        // `go1.25.1 X:a,b`, from Go 1.26 on `go1.26.1-X:a,b` (cmd/link/internal/ld/main.go).
        let experiments = text.split_once("X:").map_or("", |(_, names)| names).split_ascii_whitespace().next();
        let experiments =
            experiments.unwrap_or_default().split(',').filter(|it| !it.is_empty()).map(str::to_owned).collect();
        let raw: String = text.chars().filter(|c| !c.is_control()).take(128).collect();
        let mut version = Self {
            major: 0,
            minor: 0,
            patch: 0,
            suffix: String::new(),
            devel: raw.starts_with("devel"),
            raw,
            experiments,
        };
        let word = version
            .raw
            .split_ascii_whitespace()
            .find(|w| w.strip_prefix("go").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())));
        let Some(word) = word else { return version };
        let after = version.raw.find(word).map_or("", |at| version.raw.get(at + word.len()..).unwrap_or(""));
        let rest = word.get(2..).unwrap_or("");
        let Some((major, rest)) = number(rest) else { return version };
        let Some((minor, rest)) = rest.strip_prefix('.').and_then(number) else { return version };
        let (patch, rest) = rest.strip_prefix('.').and_then(number).unwrap_or((0, rest));
        let suffix = format!("{rest}{after}").trim().to_owned();
        version.major = major;
        version.minor = minor;
        version.patch = patch;
        version.suffix = suffix;
        version
    }

    /// Whether a release number was found.
    pub fn is_known(&self) -> bool {
        self.major > 0
    }

    /// Whether this is `major.minor` or newer. False when unknown.
    pub fn at_least(&self, major: u16, minor: u16) -> bool {
        (self.major, self.minor) >= (major, minor)
    }

    /// Whether both are the same release, whatever follows its number.
    pub(crate) fn same_release(&self, other: &Self) -> bool {
        (self.major, self.minor, self.patch) == (other.major, other.minor, other.patch)
            && self.is_prerelease() == other.is_prerelease()
    }

    /// The experiments in which it differs from the release's default build: those that are switched off begin with `no`
    /// (internal/buildcfg).
    pub fn experiments(&self) -> impl Iterator<Item = &str> {
        self.experiments.iter().map(String::as_str)
    }

    /// What another record of the same program's version names too.
    pub(crate) fn add_experiments(&mut self, other: &Self) {
        self.experiments.extend(other.experiments.iter().cloned());
    }

    /// Whether it says that functions pass arguments on the stack. Go 1.17 and 1.18 alone can be built so.
    pub fn is_without_registers(&self) -> bool {
        self.experiments().any(|it| it.starts_with("noregabi"))
    }

    /// Whether the version is a pre-release (`go1.22rc1`, `go1.22beta1`).
    pub fn is_prerelease(&self) -> bool {
        self.suffix.starts_with("rc") || self.suffix.starts_with("beta")
    }
}

fn number(text: &str) -> Option<(u16, &str)> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, rest) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, rest))
}

impl fmt::Display for GoVersion {
    /// As found, so that nothing is lost: `go1.22.10`, `go1.21.3 X:boringcrypto`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.raw.is_empty() { f.write_str("an unknown Go") } else { f.write_str(&self.raw) }
    }
}

impl Serialize for GoVersion {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(text: &str) -> (u16, u16, u16) {
        let v = GoVersion::parse(text);
        (v.major, v.minor, v.patch)
    }

    #[test]
    fn reads_what_the_wild_has() {
        assert_eq!(numbers("go1.22.10"), (1, 22, 10));
        assert_eq!(numbers("go1.22"), (1, 22, 0));
        assert_eq!(numbers("go1.22rc1"), (1, 22, 0));
        assert!(GoVersion::parse("go1.22rc1").is_prerelease());
        assert_eq!(numbers("devel go1.23-abcdef Tue Jan 2 00:00:00 2024 +0000"), (1, 23, 0));
        assert!(GoVersion::parse("devel go1.23-abcdef").devel);
        assert_eq!(numbers("go1.21.3 X:boringcrypto"), (1, 21, 3));
        assert_eq!(GoVersion::parse("go1.21.3 X:boringcrypto").suffix, "X:boringcrypto");
        let without = |text| GoVersion::parse(text).is_without_registers();
        assert!(without("go1.17.13 X:noregabiwrappers,noregabig,noregabireflect,noregabidefer,noregabiargs"));
        assert!(without("go1.17.13 X:boringcrypto,noregabiargs"));
        assert!(
            !without("go1.17.13 X:boringcrypto") && !without("go1.17.13") && !without("go1.22 X:nocoverageredesign")
        );
        assert_eq!(numbers("go1.20.1-custom"), (1, 20, 1));
        assert_eq!(GoVersion::parse("go1.20.1-custom").to_string(), "go1.20.1-custom");
        assert_eq!(numbers("go1.24-20250101-RC00 cl/1 +2"), (1, 24, 0));
    }

    #[test]
    fn unknown_is_unknown() {
        for text in ["", "unknown", "devel +abc", "go", "go1", "go1.", "go99999.1", "gopher", "go1.99999"] {
            assert!(!GoVersion::parse(text).is_known(), "{text}");
        }
        assert!(!GoVersion::parse("").at_least(1, 17));
    }
}
