//! KEDA's `ScaledObject`, of which KEDA makes the HPA. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    report::Look,
    wanted::{Of, Wanted, sleeps_for_ever},
};
use crate::hpa::known::Known;

/// The label of an HPA, and the key of its metrics' selectors.
const LABEL: &str = "scaledobject.keda.sh/name";
const PAUSED: &str = "autoscaling.keda.sh/paused";

/// The `ScaledObject` that an HPA is made of.
pub(super) fn name_of(hpa: &Value) -> Option<String> {
    let metadata = &hpa["metadata"];
    let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    let owner = owners.filter(|it| it["kind"] == "ScaledObject").find_map(|it| it["name"].as_str());
    let metrics = hpa["spec"]["metrics"].as_array().into_iter().flatten();
    let mut selected = metrics.filter_map(|it| it["external"]["metric"]["selector"]["matchLabels"][LABEL].as_str());
    metadata["labels"][LABEL].as_str().or(owner).or_else(|| selected.next()).map(str::to_owned)
}

/// What an HPA's metric is made of.
#[derive(Clone, Debug)]
pub(super) enum Made {
    /// By gopulse's external scaler: what it is asked for.
    Scaler(Wanted),
    /// By Prometheus, of gopulse's figures.
    Prometheus,
    /// By something else, or it cannot be told.
    Other,
}

/// By the trigger whose number is before the metric's name: `s0-`.
pub(super) fn made(object: &Value, metric: &str, known: &Known) -> Made {
    let number = metric.strip_prefix('s').and_then(|it| it.split_once('-')).and_then(|it| it.0.parse::<usize>().ok());
    number.map_or(Made::Other, |it| of_trigger(&object["spec"]["triggers"][it], known))
}

fn of_trigger(trigger: &Value, known: &Known) -> Made {
    let text = |key: &str| trigger["metadata"][key].as_str().unwrap_or_default();
    match trigger["type"].as_str() {
        Some("external" | "external-push") if text("scalerAddress").contains("gopulse") => {
            let pairs = text("selector").split(',').filter_map(|it| it.split_once('='));
            let labels: BTreeMap<&str, &str> = pairs.map(|(key, value)| (key.trim(), value.trim())).collect();
            let metric = json!({"type": "External", "external": {
                "metric": {"name": text("metric"), "selector": {"matchLabels": labels}}}});
            let wanted = Wanted::all(&json!({"spec": {"metrics": [metric]}})).ok().and_then(|mut it| it.pop());
            wanted.map_or(Made::Other, Made::Scaler)
        }
        Some("prometheus") if known.mentioned(text("query")) => Made::Prometheus,
        _ => Made::Other,
    }
}

/// Judges it; `target` is group, kind and name of what is scaled.
pub(super) fn judge(object: &Value, target: (&str, &str, &str), known: &Known) -> Look {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let annotation = |key: &str| object["metadata"]["annotations"][key].as_str();
    let condition = |kind: &str| {
        let all = object["status"]["conditions"].as_array()?;
        all.iter().find(|it| it["type"] == kind)
    };
    let is = |kind: &str, status: &str| condition(kind).is_some_and(|it| it["status"] == status);
    if let Some(replicas) = annotation(&format!("{PAUSED}-replicas")) {
        return Look::Broken(format!(
            "{name} is paused at {replicas} replicas: remove its annotation {PAUSED}-replicas"
        ));
    }
    if annotation(PAUSED).is_some_and(|it| it != "false") || is("Paused", "True") {
        return Look::Broken(format!("{name} is paused: remove its annotation {PAUSED}"));
    }
    if let Some(it) = condition("Ready").filter(|it| it["status"] == "False") {
        let message = it["message"].as_str().unwrap_or_default();
        return Look::Broken(format!(
            "{name} is not ready: {message}; see `kubectl logs -n keda deployment/keda-operator`"
        ));
    }
    let health = object["status"]["health"].as_object();
    let failing = health.into_iter().flatten().find(|(_, it)| it["status"] == "Failing");
    if is("Fallback", "True") {
        let replicas = &object["spec"]["fallback"]["replicas"];
        let which = failing.map_or_else(String::new, |(metric, _)| format!(" ({metric})"));
        return Look::Broken(format!(
            "{name} is at its fallback of {replicas} replicas, since a trigger fails{which}: see `kubectl logs -n keda \
             deployment/keda-operator`"
        ));
    }
    if let Some((metric, it)) = failing {
        return Look::Broken(format!(
            "the trigger of {metric} fails, {} times in a row: see `kubectl logs -n keda deployment/keda-operator`",
            it["numberOfFailures"]
        ));
    }
    let to_zero = object["spec"]["minReplicaCount"].as_i64().unwrap_or(0) == 0;
    if to_zero && let Some(why) = sleeps(object, target, known) {
        return Look::Broken(why.replace("minReplicas 1", "minReplicaCount 1"));
    }
    if let Some(way) = ["in", "out"].into_iter().find(|it| annotation(&format!("{PAUSED}-scale-{it}")) == Some("true"))
    {
        return Look::Warned(format!("{name} does not scale {way}: its annotation {PAUSED}-scale-{way} says so"));
    }
    if is("Active", "False") {
        return Look::Whole(format!("{name}, not active: no trigger is above its activation"));
    }
    Look::Whole(name.to_owned())
}

fn sleeps(object: &Value, target: (&str, &str, &str), known: &Known) -> Option<String> {
    let triggers = object["spec"]["triggers"].as_array()?;
    let mut metrics = Vec::new();
    for trigger in triggers {
        match of_trigger(trigger, known) {
            Made::Scaler(wanted) => {
                let of = wanted.of_what(target);
                metrics.push((wanted, of));
            }
            // CPU and memory wake nothing either.
            Made::Other if matches!(trigger["type"].as_str(), Some("cpu" | "memory")) => {}
            _ => return None,
        }
    }
    // Of labels of pods it cannot be told whose they are.
    metrics.iter().all(|(_, of)| *of == Of::Own).then(|| sleeps_for_ever(&metrics, known)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: (&str, &str, &str) = ("apps", "Deployment", "shop");

    fn object(annotations: &Value, status: &Value) -> Value {
        let trigger = json!({"type": "external", "metadata": {"scalerAddress": "gopulse-metrics-api.gopulse.svc:9443",
            "metric": "http_server_requests_per_second", "selector": "deployment=shop"}});
        json!({"metadata": {"name": "shop", "annotations": annotations},
            "spec": {"minReplicaCount": 2, "fallback": {"replicas": 6}, "triggers": [trigger]}, "status": status})
    }

    fn look(annotations: Value, status: Value) -> Look {
        judge(&object(&annotations, &status), TARGET, &Known::of(None))
    }

    fn conditions(all: &[(&str, &str)]) -> Value {
        let one = |(kind, status): &(&str, &str)| json!({"type": kind, "status": status, "message": "because"});
        json!({"conditions": all.iter().map(one).collect::<Vec<_>>()})
    }

    #[test]
    fn what_keeps_it_from_scaling_is_named() {
        let broken = |look: Look, words: &str| matches!(look, Look::Broken(text) if text.contains(words));
        let none = || json!({});
        let working = conditions(&[("Ready", "True"), ("Active", "True"), ("Fallback", "False"), ("Paused", "False")]);
        assert_eq!(look(none(), working.clone()), Look::Whole("shop".into()));
        assert_eq!(look(json!({PAUSED: "false"}), working), Look::Whole("shop".into()));
        assert!(broken(look(json!({PAUSED: "true"}), none()), "is paused"));
        assert!(broken(look(none(), conditions(&[("Paused", "True")])), "is paused"));
        assert!(broken(look(json!({"autoscaling.keda.sh/paused-replicas": "3"}), none()), "paused at 3 replicas"));
        assert!(matches!(look(json!({"autoscaling.keda.sh/paused-scale-in": "true"}), none()), Look::Warned(_)));
        assert!(broken(look(none(), conditions(&[("Ready", "False")])), "not ready: because"));
        assert!(broken(look(none(), conditions(&[("Fallback", "True")])), "fallback of 6"));
        let health = json!({"health": {"s0-rps": {"status": "Failing", "numberOfFailures": 4}}});
        assert!(broken(look(none(), health), "s0-rps fails, 4 times"));
        // Below its activation it rests, which is no break.
        assert!(
            matches!(look(none(), conditions(&[("Active", "False")])), Look::Whole(text) if text.contains("not active"))
        );
    }

    #[test]
    fn its_own_pods_cannot_wake_it() {
        let known = Known::of(None);
        let mut own = object(&Value::Null, &Value::Null);
        own["spec"]["minReplicaCount"] = 0.into();
        assert!(matches!(judge(&own, TARGET, &known), Look::Broken(text) if text.contains("give minReplicaCount 1")));
        own["spec"]["triggers"][0]["metadata"]["selector"] = "service=front".into();
        assert!(matches!(judge(&own, TARGET, &known), Look::Whole(_)));
        own["spec"]["triggers"] = json!([{"type": "kafka", "metadata": {}}]);
        assert!(matches!(judge(&own, TARGET, &known), Look::Whole(_)));
    }

    #[test]
    fn a_metric_is_known_by_its_trigger() {
        let known = Known::of(None);
        let of = |metric: &str, triggers: Value| made(&json!({"spec": {"triggers": triggers}}), metric, &known);
        let query = json!([{"type": "kafka"}, {"type": "prometheus", "metadata": {
            "query": "sum(rate(http_server_request_duration_seconds_count{namespace=\"shop\"}[1m]))"}}]);
        assert!(matches!(of("s1-prometheus", query.clone()), Made::Prometheus));
        assert!(matches!(of("s0-kafka-orders", query.clone()), Made::Other));
        assert!(matches!(of("s7-x", query), Made::Other));
        let own = made(&object(&Value::Null, &Value::Null), "s0-rps", &known);
        assert!(matches!(own, Made::Scaler(it) if it.of_what(TARGET) == Of::Own));
        let label = json!({"metadata": {"labels": {LABEL: "a"}}});
        let owner = json!({"metadata": {"ownerReferences": [{"kind": "ScaledObject", "name": "b"}]}});
        let selected =
            json!({"spec": {"metrics": [{"external": {"metric": {"selector": {"matchLabels": {LABEL: "c"}}}}}]}});
        assert_eq!(
            [&label, &owner, &selected, &json!({})].map(name_of),
            [Some("a"), Some("b"), Some("c"), None].map(|it| it.map(str::to_owned))
        );
    }
}
