//! The declared table: which metrics the HPA is served, and what each is computed from. The default table can be extended and
//! overridden by configuration; nothing else decides what a metric means.

pub(crate) mod expression;

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::expression::{Expression, ExpressionError, Function};
use super::store::Kept;

/// The window that is taken unless a metric says otherwise.
pub(crate) const DEFAULT_WINDOW: f64 = 15.0;
/// The longest window; history is kept for the longest that a table asks for.
const MAX_WINDOW: f64 = 600.0;
/// The longest expression, bytes.
const MAX_EXPRESSION: usize = 1000;

/// A metric as it is configured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// What it is computed from.
    pub(crate) expression: String,
    /// Over how many seconds.
    #[serde(default = "default_window")]
    pub(crate) window_seconds: f64,
    /// How its values a second apart are evened out.
    #[serde(default, skip_serializing_if = "Smoothing::is_none", with = "serde_norway::with::singleton_map")]
    pub(crate) smoothing: Smoothing,
    /// What it is, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) help: String,
}

fn default_window() -> f64 {
    DEFAULT_WINDOW
}

/// How values are evened out. Computed from the history when asked for, so that replicas of the metrics-api agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Smoothing {
    /// Not at all.
    #[default]
    None,
    /// An exponentially weighted moving average over the last `seconds`; the newest value's weight is `alpha`.
    Ewma {
        /// From more than 0 to 1.
        alpha: f64,
        /// Over how many values a second apart.
        #[serde(default = "fifteen")]
        seconds: u32,
    },
    /// The median of the last `seconds` values.
    Median {
        /// How many values a second apart.
        #[serde(default = "fifteen")]
        seconds: u32,
    },
}

fn fifteen() -> u32 {
    15
}

impl Smoothing {
    fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// Over how many values, a second apart.
    pub(crate) fn seconds(self) -> u32 {
        match self {
            Self::None => 1,
            Self::Ewma { seconds, .. } | Self::Median { seconds } => seconds,
        }
    }

    /// One value of several, the oldest first.
    pub(crate) fn apply(self, values: &[f64]) -> Option<f64> {
        let last = *values.last()?;
        Some(match self {
            Self::None => last,
            Self::Ewma { alpha, .. } => {
                values.iter().copied().reduce(|smooth, value| smooth + alpha * (value - smooth)).unwrap_or(last)
            }
            Self::Median { .. } => {
                let mut sorted = values.to_vec();
                sorted.sort_by(f64::total_cmp);
                let middle = sorted.len() / 2;
                if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
            }
        })
    }
}

/// A metric, checked.
#[derive(Clone, Debug)]
pub(crate) struct Metric {
    /// Its name.
    pub(crate) name: String,
    /// What it is computed from.
    pub(crate) expression: Expression,
    /// The same as it was written.
    source: String,
    /// Over how long.
    pub(crate) window: Duration,
    /// Evened out how.
    pub(crate) smoothing: Smoothing,
    /// What it is.
    pub(crate) help: String,
}

/// All metrics, by name.
#[derive(Clone, Debug)]
pub(crate) struct Table(BTreeMap<String, Metric>);

/// What is wrong with the table.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum TableError {
    #[error("metric {name:?}: a name has letters, digits, _, - and . alone, and at most 253 of them")]
    Name { name: String },
    #[error("metric {name}: expression {expression:?}, {error}")]
    Expression { name: String, expression: String, error: ExpressionError },
    #[error("metric {name}: {message}")]
    Value { name: String, message: String },
    #[error("no metrics: leave `metrics` out for the default ones")]
    Empty,
}

/// The metrics served unless configured otherwise, the leading signals first.
const DEFAULTS: &[(&str, f64, &str, &str)] = &[
    (
        "http_server_active_requests",
        5.0,
        "avg(http_server_active_requests)",
        "Requests being served, the mean of 5 s. Rises first when a workload is short of capacity.",
    ),
    (
        "http_server_requests_per_second",
        15.0,
        "rate(http_server_request_duration_seconds)",
        "Requests answered a second.",
    ),
    (
        "http_server_requests_per_second_fast",
        3.0,
        "rate(http_server_request_duration_seconds)",
        "The same over 3 s: a step of load to twice the target shows after some 3 s.",
    ),
    (
        "go_runqueue_latency_p99_milliseconds",
        15.0,
        "quantile(0.99, go_runqueue_latency_seconds) * 1000",
        "How long threads wait for a CPU, 99th percentile: the node or the CPU limit is short.",
    ),
    (
        "go_sched_latency_p99_milliseconds",
        15.0,
        "quantile(0.99, go_sched_latencies_seconds) * 1000",
        "How long goroutines wait to run, 99th percentile: GOMAXPROCS is short.",
    ),
    ("go_goroutines_waiting", 5.0, "avg(go_goroutines_waiting)", "Goroutines that wait; choose by the label `reason`."),
    (
        "go_gc_cpu_percent",
        120.0,
        "100 * rate(go_cpu_classes_gc_total_cpu_seconds_total) / rate(process_cpu_seconds_total)",
        "Share of the process's CPU time that the garbage collector takes; the runtime tells of it once a collection.",
    ),
    (
        "http_server_request_duration_p50_milliseconds",
        15.0,
        "quantile(0.5, http_server_request_duration_seconds) * 1000",
        "Latency, median.",
    ),
    (
        "http_server_request_duration_p95_milliseconds",
        15.0,
        "quantile(0.95, http_server_request_duration_seconds) * 1000",
        "Latency, 95th percentile.",
    ),
    (
        "http_server_request_duration_p99_milliseconds",
        15.0,
        "quantile(0.99, http_server_request_duration_seconds) * 1000",
        "Latency, 99th percentile.",
    ),
    (
        "http_server_errors_per_second",
        15.0,
        "rate(http_server_request_duration_seconds{http_response_status_code=~\"5..\"})",
        "Requests answered with 5xx a second.",
    ),
];

/// The default table, as configuration.
pub(crate) fn defaults() -> BTreeMap<String, Entry> {
    let entry = |(name, window, expression, help): &(&str, f64, &str, &str)| {
        let entry = Entry {
            expression: (*expression).to_owned(),
            window_seconds: *window,
            smoothing: Smoothing::None,
            help: (*help).to_owned(),
        };
        ((*name).to_owned(), entry)
    };
    DEFAULTS.iter().map(entry).collect()
}

impl Table {
    /// Checks every entry.
    pub(crate) fn new(entries: &BTreeMap<String, Entry>) -> Result<Self, TableError> {
        let mut metrics = BTreeMap::new();
        for (name, entry) in entries {
            metrics.insert(name.clone(), Metric::new(name, entry)?);
        }
        if metrics.is_empty() { Err(TableError::Empty) } else { Ok(Self(metrics)) }
    }

    /// A metric by its name.
    pub(crate) fn get(&self, name: &str) -> Option<&Metric> {
        self.0.get(name)
    }

    /// All, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Metric> {
        self.0.values()
    }

    /// As a page for people.
    pub(crate) fn markdown(&self) -> String {
        let mut page = "| metric | window | expression | |\n|---|---|---|---|\n".to_owned();
        for metric in self.iter() {
            let (name, seconds) = (&metric.name, metric.window.as_secs_f64());
            let _ = writeln!(page, "| `{name}` | {seconds} s | `{}` | {} |", metric.source, metric.help);
        }
        page
    }

    /// For how long figures are to be kept, by family; those that no metric is made of not at all.
    pub(crate) fn kept(&self) -> Kept {
        let mut kept = Kept::default();
        for metric in self.iter() {
            let needed = metric.window + Duration::from_secs(metric.smoothing.seconds().into());
            for call in metric.expression.calls() {
                let family = kept.families.entry(call.family.clone()).or_default();
                *family = needed.max(*family);
            }
        }
        kept
    }
}

impl Metric {
    fn new(name: &str, entry: &Entry) -> Result<Self, TableError> {
        let fits = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | '-' | '.');
        if name.is_empty() || name.len() > 253 || !name.chars().all(fits) || matches!(name, "." | "..") {
            return Err(TableError::Name { name: name.to_owned() });
        }
        let value = |message: &str| Err(TableError::Value { name: name.to_owned(), message: message.to_owned() });
        if entry.expression.len() > MAX_EXPRESSION {
            return value("the expression is longer than 1000 bytes");
        }
        let expression = Expression::parse(&entry.expression).map_err(|error| TableError::Expression {
            name: name.to_owned(),
            expression: entry.expression.clone(),
            error,
        })?;
        if expression.calls().is_empty() {
            return value("the expression names no family of figures, as rate(http_server_request_duration_seconds)");
        }
        if !(1.0..=MAX_WINDOW).contains(&entry.window_seconds) {
            return value("window_seconds must be from 1 to 600");
        }
        let smoothing = entry.smoothing;
        if let Smoothing::Ewma { alpha, .. } = smoothing
            && !(alpha > 0.0 && alpha <= 1.0)
        {
            return value("smoothing: alpha must be more than 0 and at most 1");
        }
        if !(1..=300).contains(&smoothing.seconds()) {
            return value("smoothing: seconds must be from 1 to 300");
        }
        Ok(Self {
            name: name.to_owned(),
            expression,
            source: entry.expression.clone(),
            window: Duration::from_secs_f64(entry.window_seconds),
            smoothing,
            help: entry.help.clone(),
        })
    }

    /// Whether the pods' values add up to the workload's.
    pub(crate) fn is_additive(&self) -> bool {
        self.expression.is_additive()
    }

    /// Whether it uses this function on a family of this kind sensibly.
    pub(crate) fn misuse(&self, family: &str, kind: crate::hpa::wire::Kind) -> Option<String> {
        use crate::hpa::wire::Kind;
        let call = self.expression.calls().into_iter().find(|call| call.family == family)?;
        let fits = match call.function {
            Function::Rate => kind != Kind::Gauge,
            Function::Quantile(_) => kind == Kind::Histogram,
            Function::Last | Function::Avg | Function::Max => kind == Kind::Gauge,
        };
        (!fits).then(|| format!("{call} does not fit a {kind:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(yaml: &str) -> Entry {
        serde_norway::from_str(yaml).unwrap()
    }

    fn error(name: &str, yaml: &str) -> String {
        Table::new(&[(name.to_owned(), entry(yaml))].into()).unwrap_err().to_string()
    }

    #[test]
    fn the_default_table_is_valid_and_keeps_half_a_minute() {
        let table = Table::new(&defaults()).unwrap();
        assert_eq!(table.kept().families["http_server_request_duration_seconds"], Duration::from_secs(16));
        assert!(table.get("http_server_requests_per_second").unwrap().is_additive());
        assert!(!table.get("http_server_request_duration_p99_milliseconds").unwrap().is_additive());
    }

    #[test]
    fn the_page_in_the_book_is_the_table() {
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/hpa/metrics.md");
        let page = std::fs::read_to_string(page).unwrap();
        let now = Table::new(&defaults()).unwrap().markdown();
        assert_eq!(page, now, "write it anew: gopulse metrics-api --table > docs/src/hpa/metrics.md");
    }

    #[test]
    fn mistakes_are_named_with_their_metric() {
        assert!(error("a b", "expression: rate(f)").contains("letters"));
        assert!(error("m", "expression: rate(f").contains("metric m: expression \"rate(f\", column 7"));
        assert!(error("m", "expression: '3'").contains("no family"));
        assert!(error("m", "{expression: rate(f), window_seconds: 0}").contains("window_seconds"));
        assert!(error("m", "{expression: rate(f), smoothing: {ewma: {alpha: 2}}}").contains("alpha"));
        assert!(Table::new(&BTreeMap::new()).unwrap_err().to_string().contains("default"));
    }

    #[test]
    fn smoothing() {
        let values = [10.0, 20.0, 100.0, 20.0];
        assert_eq!(Smoothing::None.apply(&values), Some(20.0));
        assert_eq!(Smoothing::Ewma { alpha: 0.5, seconds: 4 }.apply(&values), Some(38.75));
        assert_eq!(Smoothing::Median { seconds: 4 }.apply(&values), Some(20.0));
        assert_eq!(Smoothing::Median { seconds: 4 }.apply(&values[1..3]), Some(60.0));
        assert_eq!(Smoothing::None.apply(&[]), None);
    }
}
