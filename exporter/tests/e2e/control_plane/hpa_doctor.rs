//! `gopulse hpa doctor` against set-ups that are each broken in one place: it must name that link, and be content with the whole
//! chain before and after.

use std::process::Command;

use crate::support::stage::{PATIENCE, RPS, Stage, by_pods, hpa};
use serde_json::{Value, json};
use xtask::cluster::wait_for;

/// The report, and whether it is content.
fn doctor(stage: &Stage, arguments: &[&str]) -> (String, bool) {
    let mut command = Command::new(crate::support::agent::binary());
    command.args(["hpa", "doctor"]).args(arguments).env("KUBECONFIG", stage.plane.kubeconfig());
    let output = command.output().expect("it starts");
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success())
}

/// Asks until the report is a right one: conditions of the API server come after a moment.
fn told(stage: &Stage, arguments: &[&str], what: &str, right: impl Fn(&str, bool) -> bool) -> String {
    let mut last = String::new();
    wait_for(what, PATIENCE, || {
        let (report, content) = doctor(stage, arguments);
        let right = right(&report, content);
        last = report;
        Ok(right.then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}, but it said\n{last}"));
    last
}

/// The link that the doctor calls broken.
fn broken(report: &str) -> &str {
    report.lines().find(|line| line.starts_with("BROKEN")).unwrap_or_default()
}

/// Asks until the doctor names this link with these words.
fn names(stage: &Stage, arguments: &[&str], link: &str, words: &str) {
    let start = format!("BROKEN  {link}:");
    let report = told(stage, arguments, &format!("the doctor names {link} with {words:?}"), |report, content| {
        !content && broken(report).starts_with(&start) && broken(report).contains(words)
    });
    println!("named: {}", broken(&report));
}

fn content(stage: &Stage) {
    told(stage, &SHOP, "the doctor is content", |_, content| content);
}

const SHOP: [&str; 3] = ["shop", "--namespace", "shop"];

fn object(metric: &str, target: &Value) -> Value {
    json!({"type": "Object", "object": {
        "describedObject": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"},
        "metric": {"name": metric}, "target": target,
    }})
}

fn pods_metric(name: &str, selector: &Value) -> Value {
    json!({"type": "Pods", "pods": {"metric": {"name": name, "selector": selector}, "target": {"type": "AverageValue", "averageValue": "50"}}})
}

fn kubectl(stage: &Stage, arguments: &[&str]) -> String {
    stage.plane.kubectl(arguments).unwrap_or_else(|error| panic!("{error:#}"))
}

fn apply(stage: &Stage, text: &str) {
    stage.plane.apply(text).unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn the_doctor_names_the_broken_link() {
    let mut stage = Stage::set();
    apply(&stage, &hpa(&by_pods()));
    content(&stage);
    // From here on the metrics-api leaves the APIServices as they are.
    stage.api = None;
    stage.start_api_with(false);
    content(&stage);

    what_is_scaled(&stage);
    what_is_asked_for(&stage);
    the_controllers_rights(&stage);
    an_agent_that_died(&mut stage);
    the_way_to_the_api(&stage);
    the_long_road(&stage);
}

/// The HPA, its target, and the target's pods.
fn what_is_scaled(stage: &Stage) {
    let whole = hpa(&by_pods());
    names(stage, &["shop", "--namespace", "default"], "HPA", "there is no HPA shop in namespace default");
    a_namespace_that_is_being_deleted(stage);
    // A target that is not there.
    apply(
        stage,
        &whole
            .replace("\"name\":\"shop\"},\"minReplicas\"", "\"name\":\"shoq\"},\"minReplicas\"")
            .replace("\"Deployment\",\"name\":\"shop\"", "\"Deployment\",\"name\":\"shoq\""),
    );
    names(stage, &SHOP, "workload", "there is no Deployment shoq");
    apply(stage, &whole);
    // Scaled to 0 by hand.
    kubectl(stage, &["scale", "deployment", "shop", "-n", "shop", "--replicas=0"]);
    names(stage, &SHOP, "workload", "has 0 replicas");
    kubectl(stage, &["scale", "deployment", "shop", "-n", "shop", "--replicas=2"]);
    content(stage);
    // A pod that is not to be measured.
    kubectl(stage, &["annotate", "pods", "--all", "-n", "shop", "--overwrite", "gopulse.io/enabled=false"]);
    names(stage, &SHOP, "opt-in", "gopulse.io/enabled");
    kubectl(stage, &["annotate", "pods", "--all", "-n", "shop", "--overwrite", "gopulse.io/enabled=true"]);
}

fn a_namespace_that_is_being_deleted(stage: &Stage) {
    apply(stage, &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "going"}}).to_string());
    let mut held: Value = serde_json::from_str(&hpa(&by_pods())).unwrap();
    held["metadata"] = json!({"name": "shop", "namespace": "going", "finalizers": ["example.com/hold"]});
    apply(stage, &held.to_string());
    kubectl(stage, &["delete", "namespace", "going", "--wait=false"]);
    names(stage, &["shop", "--namespace", "going"], "workload", "namespace going is being deleted");
    kubectl(
        stage,
        &["patch", "hpa", "shop", "-n", "going", "--type=merge", "-p", "{\"metadata\": {\"finalizers\": null}}"],
    );
}

/// The HPA's metrics.
fn what_is_asked_for(stage: &Stage) {
    // A histogram's name.
    apply(stage, &hpa(&pods_metric("http_server_request_duration_seconds", &Value::Null)));
    names(stage, &SHOP, "HPA's metrics", "is the name of a histogram");
    // A quantile divided by the pods.
    let p99 = "http_server_request_duration_p99_milliseconds";
    apply(stage, &hpa(&object(p99, &json!({"type": "AverageValue", "averageValue": "250"}))));
    names(stage, &SHOP, "HPA's metrics", "give target.type Value");
    apply(stage, &hpa(&object(p99, &json!({"type": "Value", "value": "250"}))));
    content(stage);
    // A metric that nobody serves.
    apply(stage, &hpa(&pods_metric("http_requests_per_second", &Value::Null)));
    names(stage, &SHOP, "discovery", "has no metric http_requests_per_second");
    // A selector that the controller refuses, and one that chooses nothing, which may be meant so.
    apply(stage, &hpa(&pods_metric(RPS, &json!({"matchLabels": {"http_route": "/nowhere"}}))));
    names(stage, &SHOP, "HPA's metrics", "http_route: \"/nowhere\" is no label value");
    apply(stage, &hpa(&pods_metric(RPS, &json!({"matchLabels": {"http_request_method": "DELETE"}}))));
    told(stage, &SHOP, "the doctor warns of a selector that chooses nothing", |report, content| {
        content
            && report.contains("warn    values: ")
            && report.contains("with the selector http_request_method=DELETE")
    });
    apply(stage, &hpa(&by_pods()));
    content(stage);
}

/// The controller may not ask.
fn the_controllers_rights(stage: &Stage) {
    let role = "system:controller:horizontal-pod-autoscaler";
    let before = stage.plane.get(&["clusterrole", role]).unwrap()["rules"].clone();
    let replace = |rules: &Value| {
        let patch = json!([{"op": "replace", "path": "/rules", "value": rules}]).to_string();
        kubectl(stage, &["patch", "clusterrole", role, "--type=json", "-p", &patch]);
    };
    let mut without = before.clone();
    let rules = without.as_array_mut().unwrap();
    rules.retain(|rule| !rule["apiGroups"].to_string().contains("custom.metrics.k8s.io"));
    replace(&without);
    names(stage, &SHOP, "controller's rights", "may not get custom.metrics.k8s.io");
    replace(&before);
}

fn an_agent_that_died(stage: &mut Stage) {
    drop(stage.agents.pop());
    names(stage, &SHOP, "values", "its agent has been silent for 15 s");
    // A total is refused, and a quantile is of the pods that are left.
    apply(stage, &hpa(&object(RPS, &json!({"type": "AverageValue", "averageValue": "500"}))));
    names(stage, &SHOP, "values", "1 of 2 pods of Deployment shop/shop have no figures");
    let p99 = "http_server_request_duration_p99_milliseconds";
    apply(stage, &hpa(&object(p99, &json!({"type": "Value", "value": "250"}))));
    told(stage, &SHOP, "the doctor warns of a quantile that lacks a pod", |report, content| {
        content && report.contains("is without 1 of 2 pods: ") && report.contains("its agent has been silent for 15 s")
    });
    apply(stage, &hpa(&by_pods()));
}

/// The APIServices of the custom metrics.
const SERVICES: [&str; 2] = ["v1beta1.custom.metrics.k8s.io", "v1beta2.custom.metrics.k8s.io"];

/// Merges the same into both.
fn patch_services(stage: &Stage, patch: &Value) {
    for name in SERVICES {
        kubectl(stage, &["patch", "apiservice", name, "--type=merge", "-p", &patch.to_string()]);
    }
}

/// From the API server to the metrics-api.
fn the_way_to_the_api(stage: &Stage) {
    // A caBundle of something else.
    let right = stage.plane.get(&["apiservice", SERVICES[1]]).unwrap()["spec"]["caBundle"].clone();
    let wrong = std::fs::read(&stage.plane.authority().certificate).unwrap();
    patch_services(stage, &json!({"spec": {"caBundle": base64(&wrong)}}));
    names(stage, &SHOP, "APIService", "its caBundle is not that of the server's certificate");
    patch_services(stage, &json!({"spec": {"caBundle": right}}));
    // The Service is gone.
    let service = stage.plane.get(&["service", "gopulse-metrics-api", "-n", "gopulse"]).unwrap();
    kubectl(stage, &["delete", "service", "gopulse-metrics-api", "-n", "gopulse"]);
    names(stage, &SHOP, "APIService", "there is no Service gopulse-metrics-api");
    let again = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "gopulse-metrics-api", "namespace": "gopulse"}, "spec": {"type": service["spec"]["type"], "externalName": service["spec"]["externalName"]}});
    apply(stage, &again.to_string());
    // By External, which nobody serves.
    kubectl(stage, &["delete", "apiservice", "v1beta1.external.metrics.k8s.io"]);
    let external = json!({"type": "External", "external": {"metric": {"name": RPS}, "target": {"type": "AverageValue", "averageValue": "50"}}});
    apply(stage, &hpa(&external));
    names(stage, &SHOP, "APIService", "nobody serves external.metrics.k8s.io");
}

/// By prometheus-adapter: a PodMonitor without honorLabels.
fn the_long_road(stage: &Stage) {
    apply(stage, POD_MONITORS);
    stage.until("PodMonitors can be made", || stage.plane.apply(MONITOR).ok());
    apply(stage, &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "prometheus-adapter", "namespace": "gopulse"}, "spec": {"type": "ExternalName", "externalName": "localhost"}}).to_string());
    let to_adapter =
        json!({"spec": {"caBundle": null, "insecureSkipTLSVerify": true, "service": {"name": "prometheus-adapter"}}});
    patch_services(stage, &to_adapter);
    apply(stage, &hpa(&by_pods()));
    names(stage, &SHOP, "PodMonitor", "does not set honorLabels: true");
}

const POD_MONITORS: &str = r#"{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
    "metadata": {"name": "podmonitors.monitoring.coreos.com"},
    "spec": {"group": "monitoring.coreos.com", "scope": "Namespaced",
        "names": {"kind": "PodMonitor", "plural": "podmonitors", "singular": "podmonitor"},
        "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}}"#;
const MONITOR: &str = r#"{"apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor",
    "metadata": {"name": "gopulse", "namespace": "gopulse"},
    "spec": {"podMetricsEndpoints": [{"port": "metrics"}]}}"#;

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = u32::from(chunk[0]) << 16
            | u32::from(*chunk.get(1).unwrap_or(&0)) << 8
            | u32::from(*chunk.get(2).unwrap_or(&0));
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place)) as usize & 63];
            text.push(if place > chunk.len() { '=' } else { char::from(digit) });
        }
    }
    text
}
