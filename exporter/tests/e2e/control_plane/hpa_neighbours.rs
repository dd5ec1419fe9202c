//! The metrics-api beside another custom metrics adapter, behind a real kube-apiserver and under the real HPA controller: it is
//! installed, takes over what the other leaves, gives way when the other comes back, and is uninstalled. The other is a metrics-api
//! too, by another Service's name and with a metric of its own, whose APIService is as prometheus-adapter's chart has it.

use std::{
    fs,
    process::{Command, Stdio},
};

use crate::support::stage::{CUSTOM, Look, RPS, Running, Stage, hpa};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use xtask::{
    cluster::{Subject, free_port},
    util,
};

const DEPTH: &str = "queue_depth";
const V1BETA1: &str = "v1beta1.custom.metrics.k8s.io";
const V1BETA2: &str = "v1beta2.custom.metrics.k8s.io";
const EXTERNAL: &str = "v1beta1.external.metrics.k8s.io";

/// The other adapter, while it runs, and its APIService.
struct Adapter {
    process: Option<Running>,
    config: std::path::PathBuf,
    apiservice: String,
}

impl Adapter {
    fn new(stage: &Stage) -> Self {
        stage.plane.apply("{apiVersion: v1, kind: Namespace, metadata: {name: monitoring}}").unwrap();
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "prometheus-adapter", "namespace": "monitoring"},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        });
        stage.plane.apply(&service.to_string()).unwrap();
        let name = "prometheus-adapter.monitoring.svc";
        let authority = stage.plane.authority();
        let pair = authority.issue(&Subject { file: "adapter", name, groups: &[], hosts: &[name] }).unwrap();
        let port = free_port().unwrap();
        let config = stage.directory.join("adapter.yaml");
        let text = json!({
            "address": format!("127.0.0.1:{port}"), "namespace": "monitoring", "service": "prometheus-adapter",
            "register": {"custom": false, "external": false}, "agents": {"addresses": stage.addresses, "tls": false},
            "certificate": {"certificate_file": pair.certificate, "key_file": pair.key}, "default_metrics": false,
            "metrics": {DEPTH: {"expression": "rate(http_server_request_duration_seconds)", "window_seconds": 15, "help": "Theirs."}},
        });
        fs::write(&config, text.to_string()).unwrap();
        let ca = util::output(Command::new("base64").arg("-w0").arg(&authority.certificate)).unwrap();
        let apiservice = json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": V1BETA1},
            "spec": {
                "group": "custom.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
                "service": {"name": "prometheus-adapter", "namespace": "monitoring", "port": port}, "caBundle": ca,
            },
        });
        Self { process: None, config, apiservice: apiservice.to_string() }
    }

    fn install(&mut self, stage: &Stage) {
        let mut command = Stage::gopulse();
        command.arg("metrics-api").arg("--config").arg(&self.config).env("KUBECONFIG", stage.plane.kubeconfig());
        let child = command.stdout(Stdio::null()).stderr(stage.log("adapter.log")).spawn().unwrap();
        self.process = Some(Running(child));
        stage.plane.apply(&self.apiservice).unwrap();
        let path = format!("{CUSTOM}/v1beta1/namespaces/shop/pods/*/{DEPTH}");
        stage.until("the other adapter's metric is there", || (stage.values(&path).len() == 2).then_some(()));
    }

    fn uninstall(&mut self, stage: &Stage) {
        stage.plane.kubectl(&["delete", "apiservice", V1BETA1]).unwrap();
        self.process = None;
    }
}

fn by_depth() -> Value {
    json!({"type": "Pods", "pods": {"metric": {"name": DEPTH}, "target": {"type": "AverageValue", "averageValue": "50"}}})
}

/// Where an APIService leads: namespace and Service.
fn leads_to(stage: &Stage, name: &str) -> Option<String> {
    let found = stage.plane.get(&["apiservice", name]).ok()?;
    let part = |name: &str| found["spec"]["service"][name].as_str().unwrap_or_default().to_owned();
    Some(format!("{}/{}", part("namespace"), part("name")))
}

const OURS: Option<&str> = Some("gopulse/gopulse-metrics-api");
const THEIRS: Option<&str> = Some("monitoring/prometheus-adapter");

/// Waits until the three APIServices lead there.
fn lead_to(stage: &Stage, what: &str, wanted: [Option<&str>; 3]) {
    stage.until(what, || {
        let found = [V1BETA1, V1BETA2, EXTERNAL].map(|name| leads_to(stage, name));
        (found.each_ref().map(Option::as_deref) == wanted).then_some(())
    });
}

/// Looks of the HPA controller that failed so far.
fn misses(stage: &Stage) -> u64 {
    stage.until("the controller tells how often it failed", || stage.looks(Look::Failed))
}

#[test]
fn another_adapter_keeps_its_hpas_and_what_was_installed_goes() {
    let mut stage = Stage::without_api();
    let mut other = Adapter::new(&stage);
    other.install(&stage);
    stage.plane.apply(&hpa(&by_depth())).unwrap();
    stage.settle(2);
    stage.looked(1, Look::Decided, "it has its metrics", |desired| desired == 2);

    installed_beside_it(&mut stage);
    what_it_leaves_is_taken(&stage, &mut other);
    stopped_for_good(&mut stage);
    it_comes_back(&mut stage, &mut other);
    uninstalled_beside_it(&mut stage);
}

/// Nothing of the group is registered, and the other's HPA does not miss a look.
fn installed_beside_it(stage: &mut Stage) {
    let missed = misses(stage);
    stage.start_api();
    lead_to(stage, "the other group is ours", [THEIRS, None, OURS]);
    stage.says("custom.metrics.k8s.io is not served from here", 1, 0);
    stage.looked(2, Look::Decided, "the other's metrics are there", |desired| desired == 2);
    // It looks when an APIService changes, and finds what it has found before.
    let looks = "the APIServices were looked at";
    let before = stage.said(looks);
    stage.plane.kubectl(&["annotate", "apiservice", V1BETA1, "touched=yes"]).unwrap();
    stage.says(looks, 1, before);
    let group = stage.raw(CUSTOM).unwrap();
    assert_eq!(
        (&group["preferredVersion"]["version"], group["versions"].as_array().map(Vec::len)),
        (&json!("v1beta1"), Some(1))
    );
    assert_eq!(misses(stage), missed, "the other's HPA missed none");
    assert_eq!(stage.said("belongs to"), 1, "said once");

    // Both families, and whose the groups are.
    for host in ["127.0.0.1", "[::1]"] {
        let url = format!("https://{host}:{}/readyz?verbose", stage.port);
        let told = util::output(Command::new("curl").args(["-sk", "--max-time", "10", &url])).unwrap();
        assert!(
            told.contains(&format!("{V1BETA1} belongs to Service monitoring/prometheus-adapter")),
            "{host}: {told}"
        );
    }
    // The aggregation layer has documents of what is ours alone, and nothing to complain about.
    let documents = || {
        let v2 = stage.raw("/openapi/v2").ok()?;
        let v3 = stage.raw("/openapi/v3").ok()?;
        v2["paths"].get("/apis/external.metrics.k8s.io/v1beta1/")?;
        v3["paths"].get("apis/external.metrics.k8s.io/v1beta1").cloned()
    };
    let v3 = stage.until("the API server has the documents of what is ours", documents);
    let v3 = stage.raw(v3["serverRelativeURL"].as_str().unwrap()).unwrap();
    assert_eq!(v3["openapi"], "3.0.0");
    let log = fs::read_to_string(stage.plane.directory().join("kube-apiserver.log")).unwrap();
    let complaints: Vec<&str> =
        log.lines().filter(|line| line.contains("OpenAPI") && line.contains(&format!("{EXTERNAL}\" failed"))).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}

fn what_it_leaves_is_taken(stage: &Stage, other: &mut Adapter) {
    other.uninstall(stage);
    lead_to(stage, "the group is taken", [OURS; 3]);
    stage.says("custom.metrics.k8s.io is served from here", 1, 0);
    let path = format!("{CUSTOM}/v1beta2/namespaces/shop/pods/*/{RPS}");
    stage.until("its metrics are ours", || (stage.values(&path).len() == 2).then_some(()));
}

/// What ends by itself when it is asked to.
fn stop(stage: &mut Stage) {
    let mut api = stage.api.take().unwrap();
    kill(Pid::from_raw(api.0.id() as i32), Signal::SIGTERM).unwrap();
    assert!(api.0.wait().unwrap().success(), "it ends by itself");
}

/// A replica that ends leaves the APIServices to the others, unless there are to be none.
fn stopped_for_good(stage: &mut Stage) {
    let shipped = util::root().join("daemonset/components/hpa/deployment.yaml");
    stage.plane.apply(&fs::read_to_string(shipped).unwrap()).unwrap();
    stop(stage);
    lead_to(stage, "its Deployment has other replicas", [OURS; 3]);
    stage.start_api();
    let looks = "the APIServices were looked at";
    stage.says(looks, 1, stage.said(looks));
    stage.plane.kubectl(&["scale", "deployment", "gopulse-metrics-api", "-n", "gopulse", "--replicas=0"]).unwrap();
    stop(stage);
    lead_to(stage, "it is withdrawn", [None; 3]);
}

/// It is installed over what is registered: gopulse gives way, and leaves no mark on what is the other's now.
fn it_comes_back(stage: &mut Stage, other: &mut Adapter) {
    stage.start_api();
    lead_to(stage, "the groups are ours again", [OURS; 3]);
    let owners = |name: &str| stage.plane.get(&["apiservice", name]).unwrap()["metadata"]["ownerReferences"].clone();
    assert_eq!(owners(V1BETA1)[0]["kind"], "ClusterRole");
    other.install(stage);
    lead_to(stage, "it gives way", [THEIRS, None, OURS]);
    stage.until("it has no mark of ours", || owners(V1BETA1).is_null().then_some(()));
    stage.looked(1, Look::Decided, "the other's metrics are there again", |desired| desired == 2);
}

/// Killed, and the manifests deleted: what was registered goes with the ClusterRole that owns it.
fn uninstalled_beside_it(stage: &mut Stage) {
    let missed = misses(stage);
    stage.api = None;
    let rights = util::root().join("daemonset/components/hpa/rbac.yaml");
    stage.plane.kubectl(&["delete", "-f", &rights.display().to_string()]).unwrap();
    // The namespace controller lets none go as long as there is an API that it cannot ask.
    stage.plane.kubectl(&["create", "namespace", "victim"]).unwrap();
    stage.plane.kubectl(&["delete", "namespace", "gopulse", "victim", "--timeout=120s"]).unwrap();
    lead_to(stage, "only the other's is left", [THEIRS, None, None]);
    stage.looked(1, Look::Decided, "the other's metrics are there still", |desired| desired == 2);
    assert_eq!(misses(stage), missed, "the other's HPA missed none");
}
