//! What is known of a metric by its name, from outside the metrics-api: the table that it serves. For the doctor and for
//! `simulate`.

use std::{collections::BTreeSet, time::Duration};

use super::api;

/// The table of a configuration, if it has one.
pub(crate) struct Known(Option<api::Table>);

impl Known {
    /// By the metrics-api's configuration (YAML), where it can be read; else the default metrics.
    pub(crate) fn of(yaml: Option<&str>) -> Self {
        let given = yaml.and_then(|it| serde_norway::from_str::<api::Config>(it).ok()?.table().ok());
        Self(given.or_else(|| api::Config::default().table().ok()))
    }

    /// What it is; none of what is not in the table. A metric of each value of a label, `name:{label}`, is meant by `name:VALUE`.
    fn find<T>(&self, metric: &str, what: impl Fn(&api::Metric) -> T) -> Option<T> {
        self.0.as_ref()?.find(api::without_index(metric)).map(|(it, _)| what(it))
    }

    /// Whether the values of pods add up; none of what is not in the table.
    pub(crate) fn additive(&self, metric: &str) -> Option<bool> {
        self.find(metric, api::Metric::is_additive)
    }

    /// Over how long it is measured; none of what is not in the table.
    pub(crate) fn window(&self, metric: &str) -> Option<Duration> {
        self.find(metric, |it| it.window)
    }

    /// Whether it is in the table.
    pub(crate) fn has(&self, metric: &str) -> bool {
        self.find(metric, |_| ()).is_some()
    }

    /// Whether it is one of those that a name with a label in it stands for.
    pub(crate) fn is_one_of_several(&self, metric: &str) -> bool {
        self.find(metric, |it| it.names.is_template()).unwrap_or(false)
    }

    /// The families that metrics are made of.
    pub(crate) fn families(&self) -> BTreeSet<String> {
        let metrics = self.0.iter().flat_map(api::Table::iter);
        metrics.flat_map(|it| it.expression.calls()).map(|call| call.family.clone()).collect()
    }

    /// Whether text, as a query, speaks of gopulse's figures.
    pub(crate) fn mentioned(&self, text: &str) -> bool {
        self.families().iter().any(|family| text.contains(family.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_known_by_its_name_and_behind_kedas_number() {
        let known = Known::of(Some(
            "metrics: {mine: {expression: rate(http_server_request_duration_seconds), window_seconds: 30}}",
        ));
        assert_eq!(
            (known.additive("mine"), known.additive("s3-mine"), known.additive("other")),
            (Some(true), Some(true), None)
        );
        assert_eq!(known.window("mine"), Some(Duration::from_secs(30)));
        assert_eq!(known.additive("http_server_request_duration_p99_milliseconds"), Some(false));
        assert!(known.has("http_server_requests_per_second") && !known.has("http_server_requests"));
        assert!(known.mentioned("sum(rate(http_server_request_duration_seconds_count[1m]))") && !known.mentioned("up"));
        // What cannot be read is as if it were not there.
        assert!(Known::of(Some("new_setting: 1")).has("http_server_requests_per_second"));
    }
}
