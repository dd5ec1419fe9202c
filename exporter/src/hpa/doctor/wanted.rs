//! The metrics that an HPA asks for, and whether each makes sense: pure, of the HPA's object and of the table of metrics.

use serde_json::Value;

use crate::hpa::{families, known::Known, spec::LabelSelector};

/// Where a metric comes from, as the HPA names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Pods,
    Object,
    External,
    Resource,
    ContainerResource,
}

/// A metric of the HPA.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) source: Source,
    /// Its name; of a resource `cpu`, `memory`.
    pub(super) name: String,
    pub(super) selector: LabelSelector,
    /// `target` as it stands.
    pub(super) target: Value,
    /// `describedObject`, of type Object.
    pub(super) object: Value,
    /// Of type `ContainerResource`.
    pub(super) container: String,
}

/// What a metric is measured at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// The pods that the HPA scales.
    Own,
    /// Another object: group, kind and name.
    Object(String, String, String),
    /// Pods by a label selector.
    Pods(LabelSelector),
    /// What cannot be told from here.
    Unknown,
}

/// Keys of a selector of type External that name an object: its group and kind.
const OBJECTS: [(&str, &str, &str); 10] = [
    ("deployment", "apps", "Deployment"),
    ("statefulset", "apps", "StatefulSet"),
    ("replicaset", "apps", "ReplicaSet"),
    ("daemonset", "apps", "DaemonSet"),
    ("service", "", "Service"),
    ("ingress", "networking.k8s.io", "Ingress"),
    ("httproute", "gateway.networking.k8s.io", "HTTPRoute"),
    ("grpcroute", "gateway.networking.k8s.io", "GRPCRoute"),
    ("gateway", "gateway.networking.k8s.io", "Gateway"),
    ("rollout", "argoproj.io", "Rollout"),
];

impl Source {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "Pods" => Self::Pods,
            "Object" => Self::Object,
            "External" => Self::External,
            "Resource" => Self::Resource,
            "ContainerResource" => Self::ContainerResource,
            _ => return None,
        })
    }

    /// The section of a metric's spec that belongs to it.
    fn section(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Object => "object",
            Self::External => "external",
            Self::Resource => "resource",
            Self::ContainerResource => "containerResource",
        }
    }

    /// Whether the controller asks for a value of each pod.
    pub(super) fn per_pod(self) -> bool {
        matches!(self, Self::Pods | Self::Resource | Self::ContainerResource)
    }

    /// Whether the metrics-server has it.
    pub(super) fn is_resource(self) -> bool {
        matches!(self, Self::Resource | Self::ContainerResource)
    }
}

impl Wanted {
    /// Those of an HPA, in their order; what is wrong with one that cannot be read.
    pub(super) fn all(hpa: &Value) -> Result<Vec<Self>, String> {
        hpa["spec"]["metrics"].as_array().into_iter().flatten().map(Self::of).collect()
    }

    fn of(metric: &Value) -> Result<Self, String> {
        let r#type = metric["type"].as_str().unwrap_or_default();
        let source = Source::of(r#type).ok_or_else(|| format!("type {type:?} is not known"))?;
        let section = &metric[source.section()];
        let identifier = if source.is_resource() { section } else { &section["metric"] };
        let selector = &section["metric"]["selector"];
        Ok(Self {
            source,
            name: identifier["name"].as_str().unwrap_or_default().to_owned(),
            selector: LabelSelector::of(selector).ok_or_else(|| format!("selector {selector} cannot be read"))?,
            target: section["target"].clone(),
            object: section["describedObject"].clone(),
            container: section["container"].as_str().unwrap_or_default().to_owned(),
        })
    }

    /// As it is named in a report.
    pub(super) fn title(&self) -> String {
        format!("{} ({:?})", self.name, self.source)
    }

    /// What it is measured at, if gopulse measures it: `target` is group, kind and name of what the HPA scales.
    pub(super) fn of_what(&self, target: (&str, &str, &str)) -> Of {
        let object = |group: &str, kind: &str, name: &str| {
            if (group, kind, name) == target {
                Of::Own
            } else {
                Of::Object(group.to_owned(), kind.to_owned(), name.to_owned())
            }
        };
        match self.source {
            Source::Pods | Source::Resource | Source::ContainerResource => Of::Own,
            Source::Object => {
                let text = |key: &str| self.object[key].as_str().unwrap_or_default();
                object(text("apiVersion").split_once('/').map_or("", |it| it.0), text("kind"), text("name"))
            }
            Source::External => {
                for (key, group, kind) in OBJECTS {
                    if let Some([name]) = self.selector.values_of(key).as_deref() {
                        return object(group, kind, name);
                    }
                }
                let of_figures: Vec<&str> = families::labels().into_iter().collect();
                let of_pods = self.selector.without(&of_figures);
                if of_pods.is_empty() { Of::Unknown } else { Of::Pods(of_pods) }
            }
        }
    }
}

/// What is wrong with a metric in itself, and what to do.
pub(super) fn wrong(wanted: &Wanted, known: &Known) -> Option<String> {
    if wanted.source.is_resource() {
        return None;
    }
    let name = &wanted.name;
    let family = ["_bucket", "_count", "_sum"].iter().find_map(|it| name.strip_suffix(it)).unwrap_or(name);
    if family.ends_with("_seconds") && known.families().contains(family) {
        return Some(format!(
            "{name} is the name of a histogram: an HPA needs one figure, as http_server_request_duration_p99_milliseconds or \
             http_server_requests_per_second"
        ));
    }
    if let Some(refused) = wanted.selector.refused() {
        return Some(format!(
            "the HPA controller refuses the selector of {name}, although `kubectl get --raw` may answer: {refused}; write it as \
             `gopulse metrics-api --encode VALUE` spells it, or ask for a metric of that route or reason"
        ));
    }
    if let Some(impossible) = impossible(&wanted.selector, known.has(name)) {
        return Some(format!("{name}: {impossible}"));
    }
    if wanted.source == Source::Pods {
        return None;
    }
    let (value, average) = (&wanted.target["value"], &wanted.target["averageValue"]);
    match known.additive(name) {
        Some(false) if !average.is_null() => Some(format!(
            "{name} is no total, but its target is an averageValue, which divides it by the number of pods: give target.type Value"
        )),
        Some(true) if !value.is_null() && average.is_null() => Some(format!(
            "{name} adds up over the pods, but its target is a Value, which more pods do not bring nearer: above it the HPA goes to \
             maxReplicas under constant load, below it to minReplicas; give target.type AverageValue, for what one pod carries"
        )),
        _ => None,
    }
}

/// Values that no figure's label has.
fn impossible(selector: &LabelSelector, known: bool) -> Option<String> {
    let values = |key: &str| selector.values_of(key).unwrap_or_default();
    if !known {
        return None;
    }
    let code = |it: &&str| it.len() != 3 || !it.bytes().all(|it| it.is_ascii_digit());
    if let Some(value) = values("http_response_status_code").into_iter().find(code) {
        return Some(format!("no figure has http_response_status_code {value:?}: give a status, as \"503\""));
    }
    let lower = |it: &&str| it.bytes().any(|it| it.is_ascii_lowercase()) && *it != "_OTHER";
    let method = values("http_request_method").into_iter().find(lower)?;
    Some(format!("no figure has http_request_method {method:?}: methods are in upper case, as \"GET\""))
}

/// Whether nothing can wake it from 0 replicas: all that could is measured at its own pods, of which there are none then.
pub(super) fn sleeps_for_ever(metrics: &[(Wanted, Of)], known: &Known) -> Option<String> {
    let mut waking = metrics.iter().filter(|(it, _)| matches!(it.source, Source::Object | Source::External)).peekable();
    waking.peek()?;
    let names: Vec<&str> =
        metrics.iter().filter(|(it, _)| !it.source.per_pod()).map(|(it, _)| it.name.as_str()).collect();
    waking.all(|(it, of)| *of == Of::Own && known.has(&it.name)).then(|| {
        format!(
            "{} is measured at the pods that it scales: at 0 replicas there are none, and nothing wakes them; give minReplicas 1, or \
             a metric of something before them, as of the Service or queue that the work comes from",
            names.join(", ")
        )
    })
}

#[cfg(test)]
mod tests;
