//! A metric as the contract has it. Knows nothing of its values.

/// A metric's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows while its series lives.
    Counter,
    /// Goes both ways.
    Gauge,
    /// Cumulative buckets, sum and count.
    Histogram,
    /// Quantiles, sum and count.
    Summary,
}

/// Whether its name and meaning can still change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    /// Does not change within a major version.
    Stable,
    /// May change with a minor version.
    Development,
}

/// One metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Desc {
    /// As it is exposed in the text format.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// One sentence.
    pub help: &'static str,
    /// Whether it carries the target's labels.
    pub of_target: bool,
    /// Labels beside the target's.
    pub labels: &'static [&'static str],
    /// Whether it can change.
    pub stability: Stability,
    /// Where the figure comes from.
    pub source: &'static str,
}
