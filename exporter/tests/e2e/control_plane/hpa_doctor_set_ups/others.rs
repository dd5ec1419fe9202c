//! Set-ups in which the APIs are others': KEDA's, and another adapter's, by stand-ins.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    Right::{self, Broken, Content},
    SetUp, apply, are_told, doctor, look,
    objects::{average, definition, deployment, external},
};
use crate::support::{
    aggregated,
    stage::{RPS, Stage},
};

/// An APIService of another's, served by a stand-in.
fn hand_over(stage: &Stage, group: &str, owner: (&str, &str), answers: BTreeMap<&'static str, Value>) {
    let port = aggregated::serve(&stage.plane, answers);
    let (namespace, name) = owner;
    apply(
        stage,
        &[
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
            "spec": {"type": "ExternalName", "externalName": "localhost"}}),
        ],
    );
    let patch = json!({"spec": {"caBundle": null, "insecureSkipTLSVerify": true,
        "service": {"namespace": namespace, "name": name, "port": port}}});
    let api_service = format!("v1beta1.{group}");
    stage.plane.kubectl(&["patch", "apiservice", &api_service, "--type=merge", "-p", &patch.to_string()]).unwrap();
}

/// Where KEDA has the external metrics API, and lists no names.
pub(super) fn by_keda(stage: &Stage) {
    const METRIC: &str = "s0-http_server_requests_per_second";
    let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "external.metrics.k8s.io/v1beta1",
        "resources": [{"name": "externalmetrics", "singularName": "", "namespaced": true, "kind": "ExternalMetricValueList", "verbs": ["get"]}]});
    let value = json!({"kind": "ExternalMetricValueList", "apiVersion": "external.metrics.k8s.io/v1beta1", "metadata": {},
        "items": [{"metricName": METRIC, "metricLabels": null, "timestamp": "2026-01-01T00:00:00Z", "value": "40"}]});
    let answers = BTreeMap::from([
        ("/apis/external.metrics.k8s.io/v1beta1", list),
        ("/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/s0-http_server_requests_per_second", value),
    ]);
    hand_over(stage, "external.metrics.k8s.io", ("keda", "keda-operator-metrics-apiserver"), answers);
    let of = |name: &'static str, right: Right| {
        SetUp::new(name, right).metrics(&[external(METRIC, &json!({"scaledobject.keda.sh/name": name}), &average())])
    };
    // Pods that gopulse does not measure are none of KEDA's business.
    let other = of("keda-other", Content("is 40")).objects(&[deployment("keda-other", 1, None)]);
    are_told(stage, &[of("keda", Content("is 40")), other]);

    apply(stage, &[definition("keda.sh", "ScaledObject", &json!({}))]);
    stage.until("ScaledObjects can be made", || stage.plane.kubectl(&["get", "scaledobjects", "-A"]).ok().map(drop));
    let scaled = |name: &str, least: i32, annotations: Value, status: Value| {
        json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
            "metadata": {"name": name, "namespace": "shop", "annotations": annotations},
            "spec": {"scaleTargetRef": {"name": name}, "minReplicaCount": least, "fallback": {"failureThreshold": 3, "replicas": 6},
                "triggers": [{"type": "external", "metadata": {"scalerAddress": "gopulse-metrics-api.gopulse.svc:9443",
                    "metric": RPS, "selector": format!("deployment={name}"), "target": "50"}}]},
            "status": status})
    };
    let conditions = |active: &str, fallback: &str| {
        json!({"conditions": [{"type": "Ready", "status": "True"},
        {"type": "Active", "status": active}, {"type": "Fallback", "status": fallback}]})
    };
    let none = || json!({});
    let failing = json!({"health": {METRIC: {"status": "Failing", "numberOfFailures": 7}}});
    are_told(stage, &[
        of("keda-whole", Content("ScaledObject: keda-whole")).and(scaled("keda-whole", 1, none(), conditions("True", "False"))),
        of("keda-paused", Broken("ScaledObject", "is paused"))
            .and(scaled("keda-paused", 1, json!({"autoscaling.keda.sh/paused": "true"}), none())),
        of("keda-fallback", Broken("ScaledObject", "fallback of 6")).and(scaled("keda-fallback", 1, none(), conditions("True", "True"))),
        of("keda-failing", Broken("ScaledObject", "fails, 7 times")).and(scaled("keda-failing", 1, none(), failing)),
        of("keda-zero", Content("KEDA wakes it"))
            .objects(&[deployment("keda-zero", 0, Some("true"))])
            .and(json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "keda-zero", "namespace": "shop"},
                "spec": {"scaleTargetRef": {"name": "keda-zero"}, "triggers": [{"type": "kafka", "metadata": {}}]},
                "status": conditions("False", "False")})),
        of("keda-sleeper", Broken("ScaledObject", "nothing wakes them")).and(scaled("keda-sleeper", 0, none(), none())),
        SetUp::new("not-kedas", Broken("discovery", "is KEDA's"))
            .metrics(&[external(RPS, &json!({"service": "front"}), &average())]),
    ]);
}

/// Where another adapter has a version of the custom metrics API, and where it has the whole.
pub(super) fn by_another_adapter(stage: &Stage) {
    let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "custom.metrics.k8s.io/v1beta1",
        "resources": [{"name": "services/queue_depth", "singularName": "", "namespaced": true, "kind": "MetricValueList", "verbs": ["get"]}]});
    let value = json!({"kind": "MetricValueList", "apiVersion": "custom.metrics.k8s.io/v1beta1", "metadata": {}, "items": [{
        "describedObject": {"kind": "Service", "namespace": "shop", "name": "front", "apiVersion": "/v1"}, "metricName": "queue_depth",
        "timestamp": "2026-01-01T00:00:00Z", "value": "7", "selector": null}]});
    let answers = BTreeMap::from([
        ("/apis/custom.metrics.k8s.io/v1beta1", list),
        ("/apis/custom.metrics.k8s.io/v1beta1/namespaces/shop/services/front/queue_depth", value),
    ]);
    hand_over(stage, "custom.metrics.k8s.io", ("monitoring", "prometheus-adapter"), answers);
    look(
        stage,
        &[
            SetUp::new("unknown", Broken("discovery", "v1beta1 has it, of another server")),
            SetUp::new("front", Content("is another server's")),
        ],
    );
    stage.plane.kubectl(&["delete", "apiservice", "v1beta2.custom.metrics.k8s.io"]).unwrap();
    // There is no Prometheus operator, and so no kind PodMonitor: the walk goes on.
    look(
        stage,
        &[
            SetUp::new("unknown", Content("queue_depth is 7")),
            SetUp::new("front", Broken("discovery", "the group belongs to another adapter")),
        ],
    );
    let (report, _) = doctor(stage.plane.kubeconfig(), &["front"]);
    assert!(report.contains("-       PodMonitor: there is no PodMonitor gopulse"), "{report}");
}
