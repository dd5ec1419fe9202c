use serde_json::json;

use super::*;

fn hpa(metric: serde_json::Value, current: i32, desired: i32) -> Vec<Wanted> {
    of_hpa(
        &serde_json::from_value(json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "shop"},
            "spec": {"maxReplicas": 9, "scaleTargetRef": {"kind": "Deployment", "name": "shop"}, "metrics": [metric]},
            "status": {"currentReplicas": current, "desiredReplicas": desired},
        }))
        .unwrap(),
    )
}

#[test]
fn a_part_is_enough_to_scale_up_or_stay_and_never_to_scale_down() {
    let object = |target| {
        let described = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"});
        let metric = json!({"name": "rps"});
        json!({"type": "Object", "object": {"describedObject": described, "metric": metric, "target": target}})
    };
    let asked = |name: &str| Asked::Object {
        kind: "Deployment".into(),
        name: name.into(),
        metric: "rps".into(),
        figures: Selector::default(),
    };
    let each = hpa(object(json!({"type": "AverageValue", "averageValue": "10"})), 8, 4);
    assert!(!suffices(&each, &asked("shop"), 79.9) && suffices(&each, &asked("shop"), 80.0));
    let decided = hpa(object(json!({"type": "AverageValue", "averageValue": "10"})), 4, 8);
    assert!(!suffices(&decided, &asked("shop"), 50.0), "it has decided on 8");
    let whole = hpa(object(json!({"type": "Value", "value": "500m"})), 8, 8);
    assert!(!suffices(&whole, &asked("shop"), 0.49) && suffices(&whole, &asked("shop"), 0.5));
    assert!(!suffices(&each, &asked("other"), 1e9), "nobody asks");
    let both: Vec<_> = each.into_iter().chain(whole).collect();
    assert!(!suffices(&both, &asked("shop"), 40.0), "all who ask must be content");
}

#[test]
fn kinds_that_are_known_by_their_scale_are_the_same_by_kind_and_by_resource() {
    let kind = |api_version: &str, kind: &str| {
        let reference = json!({"apiVersion": api_version, "kind": kind, "name": "shop"});
        kind_of(&serde_json::from_value(reference).unwrap())
    };
    assert_eq!(kind("argoproj.io/v1alpha1", "Rollout"), Kind::of_resource("rollouts.argoproj.io").names().3);
    assert_eq!(kind("v1", "Namespace"), "Namespace");
    for known in Kind::ALL {
        assert_eq!(kind(&known.api_version(), known.names().3), known.names().3);
    }
}

#[test]
fn external_metrics_are_told_apart_by_their_selectors_and_kedas_by_their_object() {
    let external = |name: &str, labels: serde_json::Value| {
        let metric = json!({"name": name, "selector": {"matchLabels": labels}});
        json!({"type": "External", "external": {"metric": metric, "target": {"type": "AverageValue", "averageValue": "5"}}})
    };
    let by = |text: &str| Asked::External { metric: "rps".into(), selector: Selector::parse(text).unwrap() };
    let own = hpa(external("rps", json!({"deployment": "shop", "http_request_method": "GET"})), 2, 2);
    assert!(suffices(&own, &by("http_request_method=GET,deployment=shop"), 10.0));
    assert!(!suffices(&own, &by("deployment=shop"), 10.0));
    let keda = hpa(external("s0-rps", json!({"scaledobject.keda.sh/name": "shop"})), 2, 2);
    let of = |object: &str| Asked::Keda { object: object.into(), metric: "rps".into() };
    assert!(suffices(&keda, &of("shop"), 10.0) && !suffices(&keda, &of("other"), 10.0));
    assert_eq!(
        ["s12-rps", "s0-b-c", "sales-rps", "s-x", "sum"].map(without_index),
        ["rps", "b-c", "sales-rps", "s-x", "sum"]
    );
}
