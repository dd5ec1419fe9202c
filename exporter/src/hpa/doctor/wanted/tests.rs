use serde_json::json;

use super::*;

const RPS: &str = "http_server_requests_per_second";
const P99: &str = "http_server_request_duration_p99_milliseconds";

fn external(name: &str, selector: &Value, target: &Value) -> Wanted {
    Wanted::of(
        &json!({"type": "External", "external": {"metric": {"name": name, "selector": selector}, "target": target}}),
    )
    .unwrap()
}

fn complaint(wanted: &Wanted) -> String {
    wrong(wanted, &Known::of(None)).unwrap_or_default()
}

#[test]
fn the_targets_type_fits_what_adds_up() {
    let (value, average) =
        (json!({"type": "Value", "value": "50"}), json!({"type": "AverageValue", "averageValue": "50"}));
    let none = Value::Null;
    assert!(complaint(&external(RPS, &none, &value)).contains("give target.type AverageValue"));
    assert_eq!(complaint(&external(RPS, &none, &average)), "");
    assert!(complaint(&external(P99, &none, &average)).contains("give target.type Value"));
    assert_eq!(complaint(&external(P99, &none, &value)), "");
    assert!(complaint(&external("http_server_active_requests", &none, &value)).contains("adds up"));
    // Of what others serve nothing is known; KEDA's names are ours behind the trigger's number.
    for other in ["queue_depth", "s0-rabbitmq-orders", "queue_age_seconds", "jobs_per_second"] {
        assert_eq!(complaint(&external(other, &none, &value)) + &complaint(&external(other, &none, &average)), "");
    }
    assert!(complaint(&external(&format!("s1-{RPS}"), &none, &value)).contains("adds up"));
    let histogram = external("http_server_request_duration_seconds_bucket", &none, &value);
    assert!(complaint(&histogram).contains("is the name of a histogram"));
}

#[test]
fn selectors_that_the_controller_refuses_or_that_choose_nothing_are_named() {
    let average = json!({"type": "AverageValue", "averageValue": "50"});
    let of = |selector: Value| complaint(&external(RPS, &selector, &average));
    assert!(of(json!({"matchLabels": {"http_route": "/orders/{id}"}})).contains("is no label value"));
    assert!(
        of(json!({"matchExpressions": [{"key": "reason", "operator": "In", "values": ["IO wait"]}]}))
            .contains("no label")
    );
    assert!(of(json!({"matchLabels": {"http_response_status_code": "5xx"}})).contains("give a status"));
    assert!(of(json!({"matchLabels": {"http_request_method": "get"}})).contains("upper case"));
    assert_eq!(
        of(json!({"matchExpressions": [
        {"key": "http_response_status_code", "operator": "In", "values": ["500", "503"]}]})),
        ""
    );
}

#[test]
fn what_a_metric_is_measured_at() {
    let target = ("apps", "Deployment", "shop");
    let of = |selector: Value| external(RPS, &selector, &Value::Null).of_what(target);
    let labels = |key: &str, value: &str| of(json!({"matchLabels": {key: value}}));
    assert_eq!(labels("deployment", "shop"), Of::Own);
    assert_eq!(labels("service", "web"), Of::Object(String::new(), "Service".into(), "web".into()));
    assert!(matches!(labels("app", "web"), Of::Pods(it) if it.to_string() == "app=web"));
    assert_eq!(labels("http_request_method", "GET"), Of::Unknown);
    let object = json!({"type": "Object", "object": {"metric": {"name": RPS},
        "describedObject": {"apiVersion": "apps/v1beta2", "kind": "Deployment", "name": "shop"}}});
    // The controller goes by the group alone.
    assert_eq!(Wanted::of(&object).unwrap().of_what(target), Of::Own);
    assert!(Wanted::of(&json!({"type": "Podz"})).is_err());
}

#[test]
fn objects_and_labels_of_figures_are_those_of_the_metrics_api() {
    use crate::hpa::api::Kind;
    for (key, group, kind) in OBJECTS {
        let known = Kind::of_key(key).unwrap_or_else(|| panic!("the metrics-api knows no {key}="));
        let (_, its_group, _, its_kind) = known.names();
        // One that is known by its scale alone goes by its resource.
        assert_eq!(its_group, group);
        assert!(its_kind == kind || its_kind == format!("{}s.{group}", kind.to_lowercase()), "{key}");
    }
    assert!(Kind::ALL.iter().all(|known| OBJECTS.iter().any(|(_, _, kind)| *kind == known.names().3)));
    let by = external(RPS, &json!({"matchLabels": {"user_agent": "x", "reason": "select"}}), &Value::Null);
    assert!(matches!(by.of_what(("apps", "Deployment", "shop")), Of::Pods(it) if it.to_string() == "user_agent=x"));
}

#[test]
fn its_own_pods_wake_nothing() {
    let known = Known::of(None);
    let of = |name: &str, of: Of| (external(name, &Value::Null, &Value::Null), of);
    let other = || Of::Object(String::new(), "Service".into(), "front".into());
    assert!(sleeps_for_ever(&[of(RPS, Of::Own)], &known).is_some());
    assert!(sleeps_for_ever(&[of(RPS, Of::Own), of(RPS, other())], &known).is_none());
    // What another adapter serves of the workload may be a queue's length.
    assert!(sleeps_for_ever(&[of("queue_depth", Of::Own)], &known).is_none());
    assert!(sleeps_for_ever(&[], &known).is_none());
}
