//! The HPAs that daemonset/hpa/ ships, applied as they are to a real controller: each must scale. `kubectl get --raw` takes labels'
//! values that the controller refuses, so only the controller shows that an example works.

use std::fs;

use crate::support::stage::{RPS, Stage, values_of};
use serde_json::{Value, json};
use xtask::util;

/// A service and a worker behind it, as the examples have them.
fn worker() -> String {
    let pod = json!({
        "metadata": {"labels": {"app": "worker"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "app", "image": "none"}]},
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "worker", "namespace": "shop"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "worker"}}, "template": pod},
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop", "namespace": "shop"},
        "spec": {"selector": {"app": "shop"}, "ports": [{"port": 80}]},
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [deployment, service]}).to_string()
}

fn example(stage: &Stage, file: &str, change: impl Fn(String) -> String) {
    let text = fs::read_to_string(util::root().join("daemonset/hpa").join(file)).unwrap();
    let mut hpa: Value = serde_norway::from_str(&change(text)).unwrap();
    hpa["metadata"]["namespace"] = json!("shop");
    stage.plane.apply(&hpa.to_string()).unwrap_or_else(|error| panic!("{file}: {error:#}"));
}

/// Waits until an HPA has values of all its metrics and wants as many replicas.
fn scales(stage: &Stage, name: &str, replicas: std::ops::RangeInclusive<u64>) {
    stage.until(&format!("HPA {name} wants {replicas:?}"), || {
        let hpa = stage.plane.get(&["hpa", name, "-n", "shop"]).ok()?;
        let names = |of: &Value| -> Option<Vec<String>> {
            let name = |metric: &Value| {
                let kind = metric["type"].as_str().unwrap_or_default().to_lowercase();
                metric[kind]["metric"]["name"].to_string()
            };
            Some(of.as_array()?.iter().map(name).collect())
        };
        let known = names(&hpa["status"]["currentMetrics"])?;
        let metrics = names(&hpa["spec"]["metrics"])?;
        let wanted = hpa["status"]["desiredReplicas"].as_u64()?;
        (known == metrics && replicas.contains(&wanted)).then_some(())
    });
}

#[test]
fn the_shipped_examples_scale() {
    let stage = Stage::set();
    {
        let mut load = stage.load.lock().unwrap();
        (load.requests_per_second, load.route) = (700.0, "/orders/{id}");
        load.waiting = [("chan receive", 7)].into();
    }
    stage.plane.apply(&worker()).unwrap();
    // 700 of the route at the Service, 100 a worker. New pods' rates overshoot, and no example scales down within minutes: what is
    // more than this is right, too.
    example(&stage, "hpa-external.yaml", |text| text);
    // 700 a second, 200 a pod.
    example(&stage, "hpa-pods.yaml", |text| text);
    scales(&stage, "shop", 4..=6);
    an_hpas_own_tolerance_holds_and_one_wakes_from_0(&stage);
    // 700 of the route, 150 a pod.
    example(&stage, "hpa-route.yaml", |text| text);
    scales(&stage, "shop", 5..=6);
    // A p99 of twice what is wanted. The example's minute of patience is left out: it is the controller's.
    stage.load.lock().unwrap().latency_seconds = 0.3;
    let window = "stabilizationWindowSeconds: 60";
    example(&stage, "hpa-object.yaml", |text| {
        assert!(text.contains(window));
        text.replace(window, "stabilizationWindowSeconds: 0")
    });
    scales(&stage, "shop", 6..=20);
    scales(&stage, "worker", 7..=10);
    routes_are_told_and_what_has_none_is_refused(&stage);
    objects_stand_for_their_own_pods(&stage);
    what_sends_requests_is_told_by_path_or_refused(&stage);
}

/// By the feature gates that are on by default in newer Kubernetes than the control plane's.
fn an_hpas_own_tolerance_holds_and_one_wakes_from_0(stage: &Stage) {
    // 700 over two pods is 1.17 times what is wanted.
    for (name, replicas, least, up) in
        [("eager", 2, 2, json!({})), ("calm", 2, 2, json!({"tolerance": "500m"})), ("asleep", 0, 0, json!({}))]
    {
        let pod = json!({"metadata": {"labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "app", "image": "none"}]}});
        let labels = json!({"matchLabels": {"app": name}});
        object(
            stage,
            "apps/v1",
            "Deployment",
            name,
            &json!({"spec": {"replicas": replicas, "selector": labels, "template": pod}}),
        );
        let selector = json!({"matchLabels": {"service": "shop"}});
        let metric = json!({"type": "External", "external": {"metric": {"name": RPS, "selector": selector},
            "target": {"type": "AverageValue", "averageValue": "300"}}});
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name});
        let spec = json!({"scaleTargetRef": target, "minReplicas": least, "maxReplicas": 8, "metrics": [metric],
            "behavior": {"scaleUp": up}});
        object(stage, "autoscaling/v2", "HorizontalPodAutoscaler", name, &json!({"spec": spec}));
    }
    scales(stage, "eager", 3..=8);
    scales(stage, "asleep", 1..=8);
    scales(stage, "calm", 2..=2);
    stage.plane.kubectl(&["delete", "hpa,deployment", "eager", "calm", "asleep", "-n", "shop"]).unwrap();
}

fn routes_are_told_and_what_has_none_is_refused(stage: &Stage) {
    // Every user may read the list, and whoever may get metrics in a namespace is told of its routes.
    let listed = stage.raw("/apis/external.metrics.k8s.io/v1beta1").unwrap().to_string();
    assert!(listed.contains(RPS) && !listed.contains("orders") && !listed.contains("receive"), "{listed}");
    for (template, one) in [
        ("http_server_requests_per_second:{http_route}", "http_server_requests_per_second:x..orders._7bid_7d"),
        ("go_goroutines_waiting:{reason}", "go_goroutines_waiting:x.chan_20receive"),
    ] {
        refused(stage, &format!("pods/*/{template}"), one);
        refused(stage, &format!("services/shop/{template}"), "stands for several metrics");
    }
    let custom = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop";
    let waiting = format!("{custom}/deployments.apps/shop/go_goroutines_waiting:x.chan_20receive");
    let waiting = values_of(&stage.raw(&waiting).unwrap())["shop"];
    // Of the pods that are measured by now.
    assert!((14.0..=140.0).contains(&waiting), "{waiting} of 7 a pod");
    // 300 ms each by now, some of 20 ms before.
    let mean = value(stage, "deployments.apps/shop/http_server_request_duration_mean_milliseconds").unwrap();
    assert!((20.0..=300.5).contains(&mean), "a mean of {mean} ms");
    let refused = |path: &str| stage.raw(&format!("{custom}/pods/*/{path}")).unwrap_err();
    let none = refused("http_server_active_requests?metricLabelSelector=http_route%3Dx._2f");
    assert!(none.contains("no label"), "a figure without routes would be 0 of each: {none}");
    let two = format!(
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/{RPS}?labelSelector=deployment%3Dshop,service%3Dshop"
    );
    assert!(stage.raw(&two).unwrap_err().contains("two objects"), "one of them would be passed over");
    let typing = refused("http_server_requests_per_second?metricLabelSelector=http_route%3Dx.orders_7");
    assert!(typing.contains("--encode"), "{typing}");
}

const CUSTOM: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop";

/// A custom resource; a group of Kubernetes' own needs a word of who approved it.
fn custom_resource(stage: &Stage, group: &str, kind: &str) {
    let plural = format!("{}s", kind.to_lowercase());
    let version = json!({
        "name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
        "subresources": {"scale": {
            "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector",
        }},
    });
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}"), "annotations": {"api-approved.kubernetes.io": "unapproved, a test"}},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": plural, "kind": kind}, "versions": [version]},
    });
    stage.plane.apply(&definition.to_string()).unwrap();
}

/// Applies an object of namespace shop; a kind that is new is not known at once.
fn object(stage: &Stage, api_version: &str, kind: &str, name: &str, rest: &Value) {
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "shop"}});
    for (key, value) in rest.as_object().unwrap() {
        object[key] = value.clone();
    }
    if let Some(annotations) = rest.pointer("/metadata/annotations") {
        object["metadata"] = json!({"name": name, "namespace": "shop", "annotations": annotations});
    }
    stage.until(&format!("{kind} {name} is taken"), || stage.plane.apply(&object.to_string()).ok());
}

fn value(stage: &Stage, path: &str) -> Result<f64, String> {
    let list = stage.raw(&format!("{CUSTOM}/{path}"))?;
    Ok(values_of(&list).into_values().next().unwrap_or(f64::NAN))
}

/// What was applied a moment ago may not be known: the metrics-api keeps what it was told of objects for 10 s.
fn refused(stage: &Stage, path: &str, why: &str) {
    let error = stage
        .until(&format!("{path} is refused: {why}"), || value(stage, path).err().filter(|error| error.contains(why)));
    println!("{path}: {error}");
}

fn objects_stand_for_their_own_pods(stage: &Stage) {
    // Whose selector takes the pods of the other, too.
    let pod = json!({
        "metadata": {"labels": {"app": "shop", "track": "canary"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "app", "image": "none"}]},
    });
    let labels = json!({"app": "shop", "track": "canary"});
    let canary = json!({"spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": pod}});
    object(stage, "apps/v1", "Deployment", "canary", &canary);
    custom_resource(stage, "example.com", "Queue");
    object(
        stage,
        "example.com/v1",
        "Queue",
        "shop",
        &json!({"spec": {"replicas": 1}, "status": {"selector": "app=shop"}}),
    );
    let idle = json!({"spec": {"replicas": 0}, "status": {"selector": "app=idle"}});
    object(stage, "example.com/v1", "Queue", "idle", &idle);
    stage.until("what is scaled to 0 has no requests, of whatever kind it is", || {
        (value(stage, "queues.example.com/idle/http_server_requests_per_second") == Ok(0.0)).then_some(())
    });
    let measured = |of: &str| value(stage, &format!("{of}/measured_pods"));
    stage.until("both pods of the canary are measured", || {
        (measured("deployments.apps/canary") == Ok(2.0)).then_some(())
    });
    stage.until("pods are counted once", || {
        let (own, all, scaled) = (
            measured("deployments.apps/shop").ok()?,
            measured("services/shop").ok()?,
            measured("queues.example.com/shop").ok()?,
        );
        ((own + 2.0 - all).abs() < 0.1 && (scaled - all).abs() < 0.1).then_some(())
    });
    refused(stage, "queues.example.com/nobody/measured_pods", "there is no queues.example.com nobody");
    refused(stage, "leases.coordination.k8s.io/x/measured_pods", "deployments.apps, ");
    refused(stage, "nothing.example.com/x/measured_pods", "scale subresource (as rollouts.argoproj.io)");
}

fn what_sends_requests_is_told_by_path_or_refused(stage: &Stage) {
    let rps = |of: &str| format!("{of}/http_server_requests_per_second");
    let ingress = |name: &str, host: &str, path: &str, kind: &str, annotations: Value| {
        let service = json!({"service": {"name": "shop", "port": {"number": 80}}});
        let paths = json!([{"path": path, "pathType": kind, "backend": service}]);
        let rest = json!({"metadata": {"annotations": annotations}, "spec": {"rules": [{"host": host, "http": {"paths": paths}}]}});
        object(stage, "networking.k8s.io/v1", "Ingress", name, &rest);
    };
    ingress("orders", "a.example", "/orders", "Prefix", json!({}));
    let has_all = |of: &str| {
        // Asked one after the other, while pods come.
        stage.until(&format!("all of the Service's requests come through {of}"), || {
            let (all, through) = (value(stage, &rps("services/shop")).ok()?, value(stage, &rps(of)).ok()?);
            ((through - all).abs() < all / 5.0).then_some(())
        });
    };
    has_all("ingresses.networking.k8s.io/orders");
    refused(stage, "ingresses.networking.k8s.io/orders/http_server_active_requests", "has no routes");
    ingress("cut", "a.example", "/cut", "Prefix", json!({}));
    refused(stage, &rps("ingresses.networking.k8s.io/cut"), "http.StripPrefix");
    ingress("literal", "a.example", "/orders/7", "Prefix", json!({}));
    refused(stage, &rps("ingresses.networking.k8s.io/literal"), "sends requests of the same paths to Service shop");
    one_host_of_an_ingress(stage);
    ingress("regex", "b.example", "/shop(/|$)(.*)", "ImplementationSpecific", json!({}));
    refused(stage, &rps("ingresses.networking.k8s.io/regex"), "may be a pattern");
    ingress("rewritten", "c.example", "/else", "Prefix", json!({"nginx.ingress.kubernetes.io/rewrite-target": "/"}));
    refused(stage, &rps("ingresses.networking.k8s.io/rewritten"), "rewrite-target");
    // What is rewritten there may be a request of these paths.
    ingress("orders", "a.example", "/orders", "Prefix", json!({}));
    refused(stage, &rps("ingresses.networking.k8s.io/orders"), "sends requests of the same paths");

    custom_resource(stage, "gateway.networking.k8s.io", "HTTPRoute");
    custom_resource(stage, "gateway.networking.k8s.io", "Gateway");
    let route = |name: &str, path: Value| {
        let rules = json!([{"matches": [{"path": path}], "backendRefs": [{"name": "shop", "port": 80}]}]);
        let rest = json!({"spec": {"parentRefs": [{"name": "edge"}], "rules": rules}});
        object(stage, "gateway.networking.k8s.io/v1", "HTTPRoute", name, &rest);
    };
    route("orders", json!({"type": "PathPrefix", "value": "/orders"}));
    object(stage, "gateway.networking.k8s.io/v1", "Gateway", "edge", &json!({"spec": {}}));
    // As while one takes the place of the other.
    refused(stage, &rps("httproutes.gateway.networking.k8s.io/orders"), "Ingress ");
    refused(stage, &rps("gateways.gateway.networking.k8s.io/edge"), "Ingress ");
    stage.plane.kubectl(&["delete", "ingress", "--all", "-n", "shop"]).unwrap();
    for of in ["httproutes.gateway.networking.k8s.io/orders", "gateways.gateway.networking.k8s.io/edge"] {
        has_all(of);
    }
    route("regex", json!({"type": "RegularExpression", "value": "/.*"}));
    refused(stage, &rps("httproutes.gateway.networking.k8s.io/regex"), "regular expressions");
}

fn one_host_of_an_ingress(stage: &Stage) {
    let rule = |host: &str, path: &str, service: &str| {
        let backend = json!({"service": {"name": service, "port": {"number": 80}}});
        json!({"host": host, "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]}})
    };
    stage.plane.kubectl(&["delete", "ingress", "--all", "-n", "shop"]).unwrap();
    let rules = [rule("a.example", "/", "shop"), rule("b.example", "/", "worker"), rule("*.c.example", "/", "worker")];
    object(stage, "networking.k8s.io/v1", "Ingress", "hosts", &json!({"spec": {"rules": rules}}));
    let of = |host: &str| format!("ingresses.networking.k8s.io/hosts/{RPS}?metricLabelSelector=host%3D{host}");
    stage.until("one host's requests are those of its Service", || {
        let (all, through) =
            (value(stage, &format!("services/shop/{RPS}")).ok()?, value(stage, &of("a.example")).ok()?);
        ((through - all).abs() < all / 5.0).then_some(())
    });
    let external = format!(
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/{RPS}?labelSelector=ingress%3Dhosts,host%3Da.example"
    );
    assert!(stage.raw(&external).is_ok(), "{:?}", stage.raw(&external));
    refused(stage, &of("x.c.example"), "take other hosts' requests");
    refused(stage, &of("d.example"), "no rules for host d.example, but for *.c.example, a.example, b.example");
    refused(stage, &format!("services/shop/{RPS}?metricLabelSelector=host%3Da.example"), "no label");
    // Two hosts before one Service.
    let rules = [rule("a.example", "/", "shop"), rule("b.example", "/orders", "shop")];
    object(stage, "networking.k8s.io/v1", "Ingress", "both", &json!({"spec": {"rules": rules}}));
    stage.plane.kubectl(&["delete", "ingress", "hosts", "-n", "shop"]).unwrap();
    let of = |host: &str| format!("ingresses.networking.k8s.io/both/{RPS}?metricLabelSelector=host%3D{host}");
    refused(stage, &of("b.example"), "another host's rule sends requests");
    stage.plane.kubectl(&["delete", "ingress", "--all", "-n", "shop"]).unwrap();
}
