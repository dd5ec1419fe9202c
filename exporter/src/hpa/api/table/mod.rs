//! The declared table: which metrics the HPA is served, and what each is computed from. The default table can be extended and
//! overridden by configuration; nothing else decides what a metric means.

mod defaults;
pub(crate) mod expression;
mod fits;
mod name;
mod smoothing;

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Deserializer, Serialize, de};
use thiserror::Error;

use self::expression::{Expression, ExpressionError, Matcher, Test};
pub(crate) use self::{defaults::defaults, name::Name, smoothing::Smoothing};
use super::{
    selector::{Requirement, Selector},
    store::Kept,
};
use crate::hpa::{
    families::{self, Family},
    wire::Kind,
};

/// The window that is taken unless a metric says otherwise.
pub(crate) const DEFAULT_WINDOW: f64 = 15.0;
/// The longest window; history is kept for the longest that a table asks for.
const MAX_WINDOW: f64 = 600.0;
/// Most metrics that a name with a label in it has in a list; others are served all the same.
pub(crate) const MAX_LISTED: usize = 100;
/// The label by which requests of probes are known.
pub(crate) const ROUTE: &str = "http_route";
/// Routes left out unless configured otherwise: what the kubelet and Prometheus ask for, by Kubernetes' own names and the usual
/// ones.
pub(crate) const EXCLUDED_ROUTES: [&str; 6] = ["/healthz", "/livez", "/readyz", "/health", "/ready", "/metrics"];
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

/// Entries by name, of which none may be there twice: the last would count, and nobody be told. Nothing is as none.
pub(crate) fn each_once<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Entry>, D::Error> {
    struct Entries;
    impl<'de> de::Visitor<'de> for Entries {
        type Value = BTreeMap<String, Entry>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("metrics by name")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(BTreeMap::new())
        }

        fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = BTreeMap::new();
            while let Some((name, entry)) = map.next_entry::<String, Entry>()? {
                if entries.contains_key(&name) {
                    return Err(de::Error::custom(format!("metric {name:?} is there twice")));
                }
                entries.insert(name, entry);
            }
            Ok(entries)
        }
    }
    deserializer.deserialize_any(Entries)
}

fn default_window() -> f64 {
    DEFAULT_WINDOW
}

/// A metric, checked.
#[derive(Clone, Debug)]
pub(crate) struct Metric {
    /// Its name.
    pub(crate) name: String,
    /// The same, read.
    pub(crate) names: Name,
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
pub(crate) struct Table {
    metrics: BTreeMap<String, Metric>,
    excluded: Arc<[String]>,
}

/// What is wrong with the table.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum TableError {
    #[error(
        "metric {name:?}: a name has letters, digits, _, - and . alone, at most 253 of them; or such parts between colons, of which \
             others than the first may be a label in braces, as rps:{{http_route}}"
    )]
    Name { name: String },
    #[error("metric {name}: expression {expression:?}, {error}")]
    Expression { name: String, expression: String, error: ExpressionError },
    #[error("metrics {one:?} and {other:?} have names in common")]
    Meet { one: String, other: String },
    #[error("metric {name}: {message}")]
    Value { name: String, message: String },
    #[error("no metrics: leave `metrics` out for the default ones")]
    Empty,
}

impl Table {
    /// Checks every entry.
    pub(crate) fn new(entries: &BTreeMap<String, Entry>) -> Result<Self, TableError> {
        let mut metrics = BTreeMap::new();
        for (name, entry) in entries {
            metrics.insert(name.clone(), Metric::new(name, entry)?);
        }
        let templates = metrics.values().filter(|it: &&Metric| it.names.is_template());
        for template in templates {
            let other = metrics.values().find(|it| it.name != template.name && it.names.meets(&template.names));
            if let Some(other) = other {
                return Err(TableError::Meet { one: template.name.clone(), other: other.name.clone() });
            }
        }
        if metrics.is_empty() { Err(TableError::Empty) } else { Ok(Self { metrics, excluded: Arc::default() }) }
    }

    /// Itself, if there are the families and labels that it names, and they are what its functions want.
    pub(crate) fn fitting(self) -> Result<Self, TableError> {
        for metric in self.iter() {
            for call in metric.expression.calls() {
                let wrong = |message| TableError::Value { name: metric.name.clone(), message };
                fits::check(call, &metric.names).map_err(wrong)?;
            }
        }
        Ok(self)
    }

    /// Leaves requests of these routes out of every metric that does not name a route itself. Whoever chooses by routes is given
    /// those that he chooses.
    pub(crate) fn excluding(mut self, routes: &[String]) -> Self {
        self.excluded = routes.into();
        if routes.is_empty() {
            return self;
        }
        for call in self.metrics.values_mut().flat_map(|it| it.expression.calls_mut()) {
            let has_routes = Family::find(&call.family).is_ok_and(|it| it.labels.contains(&ROUTE));
            if has_routes && call.matchers.iter().all(|it| it.label != ROUTE) {
                let test = Test::LeftOut(self.excluded.clone());
                call.matchers.push(Matcher { label: ROUTE.to_owned(), test });
            }
        }
        self
    }

    /// A metric by its name as it is declared.
    #[cfg(test)]
    pub(crate) fn get(&self, name: &str) -> Option<&Metric> {
        self.metrics.get(name)
    }

    /// A metric of each value of a label, by its name as it is declared.
    pub(crate) fn template(&self, name: &str) -> Option<&Metric> {
        self.metrics.get(name).filter(|it| it.names.is_template())
    }

    /// What a name that is asked for stands for: a metric, and what is chosen of its figures.
    pub(crate) fn find(&self, name: &str) -> Option<(&Metric, Vec<Requirement>)> {
        if let Some(metric) = self.metrics.get(name).filter(|it| !it.names.is_template()) {
            return Some((metric, Vec::new()));
        }
        let templates = self.metrics.values().filter(|it| it.names.is_template());
        templates.into_iter().find_map(|metric| Some((metric, metric.names.chosen(name)?)))
    }

    /// All, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Metric> {
        self.metrics.values()
    }

    /// As a page for people.
    pub(crate) fn markdown(&self) -> String {
        let mut page = "| metric | window | expression | |\n|---|---|---|---|\n".to_owned();
        for metric in self.iter() {
            let (name, seconds) = (&metric.name, metric.window.as_secs_f64());
            let source = metric.source.replace('|', "\\|");
            let _ = writeln!(page, "| `{name}` | {seconds} s | `{source}` | {} |", metric.help);
        }
        if !self.excluded.is_empty() {
            let routes: Vec<String> = self.excluded.iter().map(|it| format!("`{it}`")).collect();
            let _ = writeln!(
                page,
                "\nRequests of the routes {} are left out (`exclude_routes`) of figures with the label `{ROUTE}`, unless the \
                 expression, the name or the selector chooses by it.",
                routes.join(", ")
            );
        }
        page.push_str("\nFamilies that metrics can be made of, and their labels beside `container`:\n\n");
        for family in Family::all() {
            let labels: Vec<String> = family.labels.iter().map(|it| format!("`{it}`")).collect();
            let labels = if labels.is_empty() { String::new() } else { format!(": {}", labels.join(", ")) };
            let _ = writeln!(page, "- `{}` ({}){labels}", family.name, format!("{:?}", family.kind).to_lowercase());
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
        let Some(names) = Name::parse(name) else { return Err(TableError::Name { name: name.to_owned() }) };
        let value = |message: &str| Err(TableError::Value { name: name.to_owned(), message: message.to_owned() });
        if entry.expression.len() > MAX_EXPRESSION {
            return value("the expression is longer than 1000 bytes");
        }
        let expression = Expression::parse(&entry.expression).map_err(|error| TableError::Expression {
            name: name.to_owned(),
            expression: entry.expression.clone(),
            error,
        })?;
        if !expression.is_measured() {
            return value("the expression names no family of figures, as rate(http_server_request_duration_seconds)");
        }
        if let Some(why) = expression.is_idle() {
            return value(why);
        }
        if names.is_template() && expression.calls().is_empty() {
            return value("a metric of each value of a label is made of a family that has the label");
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
            names,
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

    /// Whether the value of some of the pods is at most that of all.
    pub(crate) fn bounds_from_below(&self) -> bool {
        self.expression.only_grows()
    }

    /// What is wrong with choosing its figures so: by a label that they do not have, everything would be 0.
    pub(crate) fn refuses(&self, figures: &Selector) -> Option<String> {
        let asked = figures.0.iter().map(|it| it.key.as_str()).filter(|it| *it != families::CONTAINER);
        let calls = self.expression.calls();
        let lacks = |label: &str| {
            let of_call = |name: &str| Family::find(name).ok().and_then(|it| it.lacks(label));
            calls.iter().find_map(|call| of_call(&call.family))
        };
        asked.into_iter().find_map(lacks)
    }

    /// Whether it uses this function on a family of this kind sensibly.
    pub(crate) fn misuse(&self, family: &str, kind: Kind) -> Option<String> {
        self.expression
            .calls()
            .into_iter()
            .filter(|call| call.family == family)
            .find_map(|call| fits::misuse(call, kind))
    }
}

#[cfg(test)]
mod tests;
