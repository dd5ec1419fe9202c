//! What is asked, by path and query, and what is answered, as JSON: discovery, custom.metrics.k8s.io v1beta1 and v1beta2,
//! external.metrics.k8s.io v1beta1. Pure: figures come from whoever calls.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::{
    apiservice::VERSIONS,
    evaluate::Value,
    objects::Kind,
    selector::{Requirement, Selector, Test},
};
use crate::hpa::quantity::Milli;

pub(crate) const CUSTOM: &str = "custom.metrics.k8s.io";
pub(crate) const EXTERNAL: &str = "external.metrics.k8s.io";

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// `/apis`.
    Groups,
    /// `/apis/GROUP`.
    Group(&'static str),
    /// `/apis/GROUP/VERSION`.
    Resources { group: &'static str, version: &'static str },
    /// A metric of objects.
    Objects { version: &'static str, namespace: String, of: Of, metric: String },
    /// An external metric.
    External { version: &'static str, namespace: String, metric: String },
    /// Nothing that is served.
    Unknown,
}

/// Of which objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// Pods that a selector chooses.
    Pods,
    /// One pod.
    Pod(String),
    /// One object that stands for pods.
    Object(Kind, String),
    /// Objects of a kind, which a selector chooses.
    Objects(Kind),
    /// The namespace itself.
    Namespace,
}

impl Question {
    /// By the path.
    pub(crate) fn of(path: &str) -> Self {
        let parts: Vec<String> = path.split('/').skip(1).map(percent_decoded).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let parts = if let [parts @ .., ""] = &parts[..] { parts } else { &parts[..] };
        let version = |group: &str, version: &str| {
            let known = VERSIONS.iter().find(|(known, name, _)| *known == group && *name == version)?;
            Some((known.0, known.1))
        };
        match parts {
            ["apis"] => Self::Groups,
            ["apis", group] => {
                VERSIONS.iter().find(|(known, ..)| known == group).map_or(Self::Unknown, |it| Self::Group(it.0))
            }
            ["apis", group, name, rest @ ..] => match (version(group, name), rest) {
                (Some((group, version)), []) => Self::Resources { group, version },
                (Some((CUSTOM, version)), ["namespaces", namespace, rest @ ..]) => {
                    Self::objects(version, namespace, rest)
                }
                (Some((EXTERNAL, version)), ["namespaces", namespace, metric]) => {
                    Self::External { version, namespace: (*namespace).to_owned(), metric: (*metric).to_owned() }
                }
                _ => Self::Unknown,
            },
            _ => Self::Unknown,
        }
    }

    fn objects(version: &'static str, namespace: &str, rest: &[&str]) -> Self {
        let (of, metric) = match rest {
            ["metrics", metric] => (Of::Namespace, metric),
            ["pods", "*", metric] => (Of::Pods, metric),
            ["pods", name, metric] => (Of::Pod((*name).to_owned()), metric),
            [resource, "*", metric] => (Of::Objects(Kind::of_resource(resource)), metric),
            [resource, name, metric] => (Of::Object(Kind::of_resource(resource), (*name).to_owned()), metric),
            _ => return Self::Unknown,
        };
        Self::Objects { version, namespace: namespace.to_owned(), of, metric: (*metric).to_owned() }
    }
}

/// A query's parameters; the last of a name counts.
pub(crate) fn parameters(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (percent_decoded(name), percent_decoded(&value.replace('+', " ")))).collect()
}

/// `%2A` as `*`. What is no escape stays as it is.
pub(crate) fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = |byte: &u8| char::from(*byte).to_digit(16);
        match (first, after) {
            (b'%', [high, low, after @ ..]) if hex(high).is_some() && hex(low).is_some() => {
                bytes.push((hex(high).unwrap_or(0) * 16 + hex(low).unwrap_or(0)) as u8);
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `APIGroupList`.
pub(crate) fn groups() -> Json {
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group(CUSTOM), group(EXTERNAL)]})
}

/// `APIGroup`. The preferred version is the one of the greatest priority.
pub(crate) fn group(name: &str) -> Json {
    let mut versions: Vec<_> = VERSIONS.iter().filter(|(group, ..)| *group == name).collect();
    versions.sort_by_key(|(.., priority)| -priority);
    let versions: Vec<Json> = versions
        .iter()
        .map(|(group, version, _)| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    let preferred = versions.first().cloned();
    json!({"kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": versions, "preferredVersion": preferred})
}

/// `APIResourceList`.
pub(crate) fn resources(group: &str, version: &str, metrics: &[String]) -> Json {
    let resource = |name: String, namespaced: bool, kind: &str| json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get"]});
    let mut list = Vec::new();
    for name in metrics {
        if group == EXTERNAL {
            list.push(resource(name.clone(), true, "ExternalMetricValueList"));
            continue;
        }
        list.push(resource(format!("pods/{name}"), true, "MetricValueList"));
        list.push(resource(format!("namespaces/{name}"), false, "MetricValueList"));
        let of = |kind: &Kind| resource(format!("{}/{name}", kind.names().0), true, "MetricValueList");
        list.extend(Kind::ALL.iter().map(of));
    }
    json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": format!("{group}/{version}"), "resources": list,
    })
}

/// An object that a value describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    /// Kind and API version.
    pub(crate) kind: String,
    pub(crate) api_version: String,
    /// Empty for a namespace.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// `MetricValueList`.
pub(crate) fn values(
    version: &str,
    metric: &str,
    selector: &Selector,
    items: impl Iterator<Item = (Described, Value)>,
) -> Json {
    let selector = (!selector.0.is_empty()).then(|| label_selector(selector));
    let items: Vec<Json> = items
        .map(|(object, value)| {
            let mut described = json!({"kind": object.kind, "name": object.name, "apiVersion": object.api_version});
            if !object.namespace.is_empty() {
                described["namespace"] = object.namespace.into();
            }
            let mut item = json!({
                "describedObject": described,
                "timestamp": timestamp(value.at_ms),
                "value": Milli::of(value.value).to_string(),
            });
            // As the two versions name them (k8s.io/metrics v0.34.4, pkg/apis/custom_metrics).
            if version == "v1beta2" {
                item["metric"] = json!({"name": metric, "selector": selector});
                item["windowSeconds"] = value.window_seconds.into();
            } else {
                item["metricName"] = metric.into();
                item["selector"] = json!(selector);
                item["window"] = value.window_seconds.into();
            }
            item
        })
        .collect();
    json!({"kind": "MetricValueList", "apiVersion": format!("{CUSTOM}/{version}"), "metadata": {}, "items": items})
}

/// `ExternalMetricValueList` of at most one value.
pub(crate) fn external(version: &str, metric: &str, selector: &Selector, value: Option<Value>) -> Json {
    let equal = selector.0.iter().filter_map(|it| match &it.test {
        Test::In(values) if values.len() == 1 => Some((it.key.clone(), values[0].clone())),
        _ => None,
    });
    let labels: BTreeMap<String, String> = equal.collect();
    let items: Vec<Json> = value
        .map(|value| {
            json!({
                "metricName": metric, "metricLabels": labels, "timestamp": timestamp(value.at_ms),
                "window": value.window_seconds, "value": Milli::of(value.value).to_string(),
            })
        })
        .into_iter()
        .collect();
    json!({"kind": "ExternalMetricValueList", "apiVersion": format!("{EXTERNAL}/{version}"), "metadata": {}, "items": items})
}

/// `Status` of a failure.
pub(crate) fn failure(code: u16, reason: &str, message: &str) -> Json {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

fn timestamp(unix_ms: u64) -> String {
    // Seconds, as `metav1.Time` is written.
    Timestamp::from_second((unix_ms / 1000) as i64).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

fn label_selector(selector: &Selector) -> Json {
    let expression = |it: &Requirement| {
        let (operator, values) = match &it.test {
            Test::In(values) => ("In", values.as_slice()),
            Test::NotIn(values) => ("NotIn", values.as_slice()),
            Test::Exists => ("Exists", &[][..]),
            Test::Absent => ("DoesNotExist", &[][..]),
        };
        json!({"key": it.key, "operator": operator, "values": values})
    };
    let equal = |it: &Requirement| {
        if let Test::In(values) = &it.test { (values.len() == 1).then(|| values[0].clone()) } else { None }
    };
    let labels: BTreeMap<&str, String> =
        selector.0.iter().filter_map(|it| Some((it.key.as_str(), equal(it)?))).collect();
    let expressions: Vec<Json> = selector.0.iter().filter(|it| equal(it).is_none()).map(expression).collect();
    json!({"matchLabels": labels, "matchExpressions": expressions})
}

#[cfg(test)]
mod tests;
