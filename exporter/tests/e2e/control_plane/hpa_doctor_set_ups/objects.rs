//! Objects of the set-ups, and metrics of HPAs.

use serde_json::{Value, json};

use crate::support::stage::RPS;

pub(super) fn deployment(name: &str, replicas: i32, opted_in: Option<&str>) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template(name, opted_in)},
    })
}

pub(super) fn template(name: &str, opted_in: Option<&str>) -> Value {
    let annotations = opted_in.map(|it| json!({"gopulse.io/enabled": it}));
    json!({"metadata": {"labels": {"app": name}, "annotations": annotations},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "app", "image": "none"}]}})
}

/// A pod of no workload.
pub(super) fn pod(name: &str, app: &str) -> Value {
    let mut pod = template(app, Some("true"));
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["name"] = name.into();
    pod["metadata"]["namespace"] = "shop".into();
    pod
}

pub(super) fn service(name: &str, app: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"selector": {"app": app}, "ports": [{"port": 80}]}})
}

pub(super) fn by_pods(selector: &Value) -> Value {
    json!({"type": "Pods", "pods": {"metric": {"name": RPS, "selector": selector}, "target": average()}})
}

pub(super) fn object(kind: (&str, &str), name: &str, metric: &str, target: &Value) -> Value {
    json!({"type": "Object", "object": {"describedObject": {"apiVersion": kind.0, "kind": kind.1, "name": name},
        "metric": {"name": metric}, "target": target}})
}

pub(super) fn external(metric: &str, labels: &Value, target: &Value) -> Value {
    json!({"type": "External", "external": {"metric": {"name": metric, "selector": {"matchLabels": labels}}, "target": target}})
}

pub(super) fn average() -> Value {
    json!({"type": "AverageValue", "averageValue": "500"})
}

pub(super) fn value() -> Value {
    json!({"type": "Value", "value": "500"})
}

pub(super) fn labels(key: &str, value: &str) -> Value {
    json!({"matchLabels": {key: value}})
}

pub(super) fn definition(group: &str, kind: &str, subresources: &Value) -> Value {
    let (singular, plural) = (kind.to_lowercase(), format!("{}s", kind.to_lowercase()));
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "names": {"kind": kind, "plural": plural, "singular": singular},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "subresources": subresources,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}})
}

/// A Rollout that takes its pods from elsewhere (`workloadRef`): it has no selector in its spec.
pub(super) fn rollout(name: &str, selector: &str) -> Value {
    json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"replicas": 1, "workloadRef": {"kind": "Deployment", "name": "elsewhere"}},
        "status": {"replicas": 1, "selector": selector}})
}
