//! Resource metrics, which the metrics-server has and which block scaling down while they fail. Pure.

use serde_json::Value;

use super::{
    report::Look,
    wanted::{Source, Wanted},
};

/// What follows from a failing metric.
const BLOCKS: &str = "while it fails the HPA does not scale down";

/// There is nobody to answer, or no answer.
pub(super) fn failed(wanted: &Wanted, code: u16, message: &str) -> Look {
    let title = wanted.title();
    match code {
        404 => Look::Broken(format!(
            "{title}: nobody serves metrics.k8s.io; {BLOCKS}: install metrics-server, or take the metric out of the HPA"
        )),
        401 | 403 | 0 => Look::Unknown(format!("{title} cannot be asked for: {message}")),
        code => Look::Broken(format!("{title}: metrics.k8s.io does not answer ({code}: {message}); {BLOCKS}")),
    }
}

/// Judges what the metrics-server has of the pods, and what they request.
pub(super) fn judge(wanted: &Wanted, items: &[Value], running: &[Value]) -> Look {
    let (title, resource) = (wanted.title(), wanted.name.as_str());
    let name = |it: &Value| it["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let by_request = !wanted.target["averageUtilization"].is_null();
    for pod in running {
        let containers = pod["spec"]["containers"].as_array().cloned().unwrap_or_default();
        let chosen =
            |it: &&Value| wanted.source != Source::ContainerResource || it["name"] == wanted.container.as_str();
        let mut chosen = containers.iter().filter(chosen).peekable();
        if chosen.peek().is_none() {
            return Look::Broken(format!("{title}: pod {} has no container {}; {BLOCKS}", name(pod), wanted.container));
        }
        let of_pod = &pod["spec"]["resources"]["requests"][resource];
        let lacks = chosen.find(|it| it["resources"]["requests"][resource].is_null());
        if let Some(lacks) = lacks.filter(|_| by_request && of_pod.is_null()) {
            return Look::Broken(format!(
                "{title}: container {} of pod {} requests no {resource}, of which the target is a percentage; {BLOCKS}: set \
                 resources.requests.{resource}",
                lacks["name"].as_str().unwrap_or_default(),
                name(pod)
            ));
        }
    }
    let known: Vec<String> = items.iter().map(name).collect();
    let missing: Vec<String> = running.iter().map(name).filter(|it| !known.contains(it)).collect();
    match missing.first() {
        Some(first) if missing.len() == running.len() => {
            Look::Broken(format!("{title}: the metrics-server has no pod of it, as {first}; {BLOCKS}"))
        }
        Some(first) => Look::Warned(format!(
            "{title}: the metrics-server lacks {} of {} pods, as {first}; young pods come after a moment",
            missing.len(),
            running.len()
        )),
        None => Look::Whole(format!("{title} of {} pods", running.len())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, requests: Value) -> Value {
        json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "app", "resources": {"requests": requests}}]}})
    }

    fn wanted(source: &str, section: &str, container: &str, target: Value) -> Wanted {
        let metric = json!({"type": source, section: {"name": "cpu", "container": container, "target": target}});
        Wanted::all(&json!({"spec": {"metrics": [metric]}})).unwrap().remove(0)
    }

    #[test]
    fn a_metric_that_fails_is_named() {
        let percent = json!({"type": "Utilization", "averageUtilization": 60});
        let by_pod = wanted("Resource", "resource", "", percent.clone());
        let broken = |look: Look, words: &str| matches!(look, Look::Broken(text) if text.contains(words));
        assert!(broken(failed(&by_pod, 404, ""), "cpu (Resource): nobody serves metrics.k8s.io"));
        assert!(broken(failed(&by_pod, 503, "no"), "does not scale down"));
        assert!(matches!(failed(&by_pod, 403, "no"), Look::Unknown(_)));
        let (whole, none) = ([pod("a", json!({"cpu": "1"})), pod("b", json!({"cpu": "1"}))], [pod("a", json!({}))]);
        assert!(matches!(judge(&by_pod, &whole, &whole), Look::Whole(_)));
        assert!(broken(judge(&by_pod, &[], &whole), "has no pod of it"));
        assert!(matches!(judge(&by_pod, &whole[..1], &whole), Look::Warned(_)));
        assert!(broken(judge(&by_pod, &none, &none), "requests no cpu"));
        // Of an average value nothing need be requested.
        let value = wanted("Resource", "resource", "", json!({"averageValue": "1"}));
        assert!(matches!(judge(&value, &none, &none), Look::Whole(_)));
        let by_container = wanted("ContainerResource", "containerResource", "sidecar", percent);
        assert!(broken(judge(&by_container, &whole, &whole), "has no container sidecar"));
    }
}
