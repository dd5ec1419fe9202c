use super::*;
use crate::hpa::api::table;

fn objects(of: Of) -> Question {
    Question::Objects { version: "v1beta2", namespace: "shop".into(), of, metric: "rps".into() }
}

#[test]
fn paths() {
    let of = |path: &str| Question::of(&format!("/apis/custom.metrics.k8s.io/v1beta2{path}"));
    assert_eq!(of("/namespaces/shop/pods/*/rps"), objects(Of::Pods));
    assert_eq!(of("/namespaces/shop/pods/%2A/rps"), objects(Of::Pods));
    assert_eq!(of("/namespaces/shop/pods/web-1/rps"), objects(Of::Pod("web-1".into())));
    assert_eq!(of("/namespaces/shop/deployments.apps/web/rps"), objects(Of::Object(Kind::Deployment, "web".into())));
    assert_eq!(of("/namespaces/shop/services/*/rps"), objects(Of::Objects(Kind::Service)));
    assert_eq!(of("/namespaces/shop/metrics/rps"), objects(Of::Namespace));
    assert_eq!(of(""), Question::Resources { group: CUSTOM, version: "v1beta2" });
    assert_eq!(of("/"), Question::Resources { group: CUSTOM, version: "v1beta2" });
    for unknown in ["/nodes/n1/rps", "/namespaces/shop", "/namespaces/shop/pods/rps", "/namespaces/shop/nodes/a/b/c"] {
        assert_eq!(of(unknown), Question::Unknown, "{unknown}");
    }
    assert_eq!(Question::of("/apis"), Question::Groups);
    assert_eq!(Question::of("/apis/external.metrics.k8s.io"), Question::Group(EXTERNAL));
    let external = Question::External { version: "v1beta1", namespace: "shop".into(), metric: "rps".into() };
    assert_eq!(Question::of("/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/rps"), external);
    for unknown in ["/", "/openapi/v2", "/apis/external.metrics.k8s.io/v1beta2", "/apis/apps/v1", "/apis/x"] {
        assert_eq!(Question::of(unknown), Question::Unknown, "{unknown}");
    }
}

#[test]
fn queries_are_decoded() {
    let read = parameters("labelSelector=app%3Dshop%2Ctier+in+%28a%29&x=%zz&labelSelector");
    assert_eq!(read["labelSelector"], "app=shop,tier in (a)");
    assert_eq!(read["x"], "%zz");
}

#[test]
fn both_versions_of_a_value() {
    let described =
        Described { kind: "Pod".into(), api_version: "v1".into(), namespace: "shop".into(), name: "web-1".into() };
    let value = Value { value: 12.3456, at_ms: 1_763_913_600_999, window_seconds: 15 };
    let selector = Selector::parse("http_route=/,code notin (200)").unwrap();
    let list = |version| values(version, "rps", &selector, std::iter::once((described.clone(), value)));
    let new = list("v1beta2");
    assert_eq!(new["apiVersion"], "custom.metrics.k8s.io/v1beta2");
    let item = &new["items"][0];
    assert_eq!((&item["value"], &item["timestamp"]), (&json!("12345m"), &json!("2025-11-23T16:00:00Z")));
    assert_eq!((&item["metric"]["name"], &item["windowSeconds"]), (&json!("rps"), &json!(15)));
    assert_eq!(item["metric"]["selector"]["matchLabels"], json!({"http_route": "/"}));
    assert_eq!(item["metric"]["selector"]["matchExpressions"][0]["operator"], "NotIn");
    assert_eq!(item["describedObject"]["namespace"], "shop");
    let old = list("v1beta1");
    assert_eq!((&old["items"][0]["metricName"], &old["items"][0]["window"]), (&json!("rps"), &json!(15)));
}

#[test]
fn discovery_names_every_metric_of_every_kind() {
    let metrics: Vec<String> = table::defaults().into_keys().collect();
    let custom = resources(CUSTOM, "v1beta2", &metrics);
    let names: Vec<&str> =
        custom["resources"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"pods/http_server_requests_per_second"));
    assert!(names.contains(&"deployments.apps/http_server_request_duration_p99_milliseconds"));
    assert_eq!(names.len(), metrics.len() * 11);
    assert_eq!(group(CUSTOM)["preferredVersion"]["version"], "v1beta2");
}
