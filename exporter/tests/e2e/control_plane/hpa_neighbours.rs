//! The metrics-api beside the real prometheus-adapter, behind a real kube-apiserver and under the real HPA controller: it is
//! installed, takes over what the other leaves, gives way when the other comes back, and is uninstalled. The adapter is fed by a real
//! Prometheus, with a metric that only the workload itself exports.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::support::{
    prometheus::Prometheus,
    prometheus_adapter::{PrometheusAdapter, Setting},
    stage::{CUSTOM, Look, RPS, Stage, hpa, values_of},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use xtask::{cluster::free_port, util};

const DEPTH: &str = "queue_depth";
const V1BETA1: &str = "v1beta1.custom.metrics.k8s.io";
const V1BETA2: &str = "v1beta2.custom.metrics.k8s.io";
const EXTERNAL: &str = "v1beta1.external.metrics.k8s.io";

/// Serves what the workload's pods say of themselves, as Prometheus reads it; as long as the test's process.
fn exporter(stage: &Stage) -> SocketAddr {
    let pods = stage.until("two pods", || {
        let pods = stage.plane.get(&["pods", "-n", "shop"]).ok()?;
        let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let names: Vec<String> = pods["items"].as_array()?.iter().map(name).collect();
        (names.len() == 2).then_some(names)
    });
    let line = |pod: &String| format!("{DEPTH}{{namespace=\"shop\",pod=\"{pod}\"}} 40\n");
    let body = format!("# TYPE {DEPTH} gauge\n{}", pods.iter().map(line).collect::<String>());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            while stream.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\nconnection: close\r\n\r\n";
            let _ = stream.get_mut().write_all(format!("{head}{body}").as_bytes());
        }
    });
    address
}

/// The other adapter, while it runs.
struct Adapter {
    process: Option<PrometheusAdapter>,
    directory: PathBuf,
    address: SocketAddr,
    prometheus: Prometheus,
}

impl Adapter {
    fn new(stage: &Stage) -> Self {
        stage.plane.apply("{apiVersion: v1, kind: Namespace, metadata: {name: monitoring}}").unwrap();
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "prometheus-adapter", "namespace": "monitoring"},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        });
        stage.plane.apply(&service.to_string()).unwrap();
        let directory = stage.directory.join("adapter");
        fs::create_dir_all(&directory).unwrap();
        let prometheus = Prometheus::start(&directory, exporter(stage), 1);
        Self { process: None, directory, address: SocketAddr::from(([127, 0, 0, 1], free_port().unwrap())), prometheus }
    }

    /// Installs it with these APIServices: its chart has that of `custom.metrics.k8s.io/v1beta1` alone, others have all.
    fn install(&mut self, stage: &Stage, apiservices: &[&str]) {
        let by = |labels: &Value, query: &str| json!({"seriesQuery": DEPTH, "resources": {"overrides": labels}, "metricsQuery": query});
        let namespace = json!({"namespace": {"resource": "namespace"}});
        let pod = json!({"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}});
        let mut config = json!({"rules": [by(&pod, "sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)")]});
        // With rules of external metrics its OpenAPI document has their paths too, and two servers would tell of one.
        if apiservices.contains(&EXTERNAL) {
            config["externalRules"] = json!([by(&namespace, "sum(<<.Series>>{<<.LabelMatchers>>})")]);
        }
        self.process = Some(PrometheusAdapter::start(&Setting {
            plane: &stage.plane,
            directory: &self.directory,
            namespace: "monitoring",
            address: self.address,
            prometheus: self.prometheus.address,
            config,
            relist: "2s",
        }));
        let ca = util::output(Command::new("base64").arg("-w0").arg(&stage.plane.authority().certificate)).unwrap();
        for name in apiservices {
            let (version, group) = name.split_once('.').unwrap();
            let service = json!({"name": "prometheus-adapter", "namespace": "monitoring", "port": self.address.port()});
            let apiservice = json!({
                "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": name},
                "spec": {
                    "group": group, "version": version, "groupPriorityMinimum": 100, "versionPriority": 100,
                    "service": service, "caBundle": ca,
                },
            });
            stage.plane.apply(&apiservice.to_string()).unwrap();
        }
        let path = format!("{CUSTOM}/v1beta1/namespaces/shop/pods/*/{DEPTH}");
        stage.until("the other adapter's metric is there", || (stage.values(&path).len() == 2).then_some(()));
    }

    fn uninstall(&mut self, stage: &Stage, apiservices: &[&str]) {
        stage.plane.kubectl(&[&["delete", "apiservice"], apiservices].concat()).unwrap();
        self.process = None;
    }
}

/// Asks for the other adapter's metric all the while, beside the HPA controller.
struct Asking {
    stop: Arc<AtomicBool>,
    answers: JoinHandle<(usize, Vec<String>)>,
}

impl Asking {
    fn begin(stage: &Stage) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (program, config) = (stage.plane.programs().join("kubectl"), stage.plane.kubeconfig().to_owned());
        let raw = move |path: &str| {
            let mut command = Command::new(&program);
            let text = util::output(command.arg("--kubeconfig").arg(&config).args(["get", "--raw", path]));
            let text = text.map_err(|error| format!("{error:#}"))?;
            serde_json::from_str::<Value>(&text).map_err(|error| error.to_string())
        };
        let ask = move || {
            // As the HPA controller does: which version is preferred, then the metric by it.
            let version = raw(CUSTOM)?["preferredVersion"]["version"].as_str().unwrap_or_default().to_owned();
            let list = raw(&format!("{CUSTOM}/{version}/namespaces/shop/pods/*/{DEPTH}"))?;
            if values_of(&list).values().eq(&[40.0, 40.0]) { Ok(()) } else { Err(format!("by {version}: {list}")) }
        };
        let ended = stop.clone();
        let answers = thread::spawn(move || {
            let (mut asked, mut wrong) = (0, Vec::new());
            while !ended.load(Ordering::Relaxed) {
                asked += 1;
                wrong.extend(ask().err());
                thread::sleep(Duration::from_millis(100));
            }
            (asked, wrong)
        });
        Self { stop, answers }
    }

    fn was_answered(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (asked, wrong) = self.answers.join().unwrap();
        println!("asked for the other adapter's metric {asked} times");
        assert!(asked > 0 && wrong.is_empty(), "{wrong:?}");
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

/// What prometheus-adapter's Helm chart registers for rules of custom metrics.
const CHART: [&str; 1] = [V1BETA1];
/// What it can serve.
const ALL: [&str; 3] = [V1BETA1, V1BETA2, EXTERNAL];

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

/// The other's HPA has its metric, and no event has ever said otherwise.
fn is_content(stage: &Stage) {
    let described = stage.plane.kubectl(&["describe", "hpa", "shop", "-n", "shop"]).unwrap();
    let active = described.lines().find(|line| line.trim_start().starts_with("ScalingActive")).unwrap_or_default();
    assert!(active.contains("ValidMetricFound"), "{described}");
}

#[test]
fn another_adapter_keeps_its_hpas_and_what_was_installed_goes() {
    let mut stage = Stage::without_api();
    let mut other = Adapter::new(&stage);
    other.install(&stage, &CHART);
    stage.plane.apply(&hpa(&by_depth())).unwrap();
    stage.settle(2);
    stage.looked(1, Look::Decided, "it has its metrics", |desired| desired == 2);

    let asking = Asking::begin(&stage);
    installed_beside_it(&mut stage);
    asking.was_answered();
    what_it_leaves_is_taken(&stage, &mut other, &CHART);
    stopped_for_good(&mut stage);
    it_comes_back(&mut stage, &mut other);
    what_it_leaves_is_taken(&stage, &mut other, &CHART);
    all_of_it_is_applied_over_ours(&stage, &mut other);
    let asking = Asking::begin(&stage);
    uninstalled_beside_it(&mut stage);
    asking.was_answered();
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
    is_content(stage);
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

fn what_it_leaves_is_taken(stage: &Stage, other: &mut Adapter, apiservices: &[&str]) {
    let before = stage.said("custom.metrics.k8s.io is served from here");
    other.uninstall(stage, apiservices);
    lead_to(stage, "the group is taken", [OURS; 3]);
    stage.says("custom.metrics.k8s.io is served from here", 1, before);
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
    other.install(stage, &CHART);
    lead_to(stage, "it gives way", [THEIRS, None, OURS]);
    stage.until("it has no mark of ours", || owners(V1BETA1).is_null().then_some(()));
    stage.looked(1, Look::Decided, "the other's metrics are there again", |desired| desired == 2);
}

/// Both groups at once, each version of them: it is said of each, and when it is gone they are taken back.
fn all_of_it_is_applied_over_ours(stage: &Stage, other: &mut Adapter) {
    other.install(stage, &ALL);
    lead_to(stage, "all is the other's", [THEIRS; 3]);
    stage.says("external.metrics.k8s.io is not served from here", 1, 0);
    stage.looked(2, Look::Decided, "the other's metrics are there", |desired| desired == 2);
    is_content(stage);
    let external = "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop";
    let sum = stage.until("its external metric", || stage.raw(&format!("{external}/{DEPTH}")).ok());
    assert_eq!(sum["items"][0]["value"], "80", "{sum}");
    what_it_leaves_is_taken(stage, other, &ALL);
    let ours = format!("{external}/{RPS}?labelSelector=deployment%3Dshop");
    stage.until("external metrics are ours", || stage.raw(&ours).ok());
    other.install(stage, &CHART);
    lead_to(stage, "it gives way", [THEIRS, None, OURS]);
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
    is_content(stage);
}
