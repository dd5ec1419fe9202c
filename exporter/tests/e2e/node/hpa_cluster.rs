//! The short road in a real cluster: real Go containers under real load, measured by the real agent, scaled by the real HPA
//! controller through `gopulse metrics-api`, all by the manifests that are shipped, with no Prometheus anywhere.
//! `GOPULSE_HPA_SYNC_SECONDS` sets the controller's sync period (2; Kubernetes' own default is 15).

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    cluster::{AGENT_NAMESPACE, Lab, NAMESPACE, Pod, overlay},
    stage::quantity,
};
use serde_json::Value;
use xtask::cluster::{Options, wait_for};

const PATIENCE: Duration = Duration::from_mins(3);
/// Over 3 s: of the default table.
const RPS: &str = "http_server_requests_per_second_fast";
/// The same over 15 s.
const SLOW: &str = "http_server_requests_per_second";
/// What the HPA scales up for: 50 wanted, and its tolerance of a tenth.
const SEEN: f64 = 55.0;

fn hpa() -> String {
    format!(
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{name: shop, namespace: {NAMESPACE}}}\nspec:\n  \
         scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: shop}}\n  minReplicas: 2\n  maxReplicas: 6\n  \
         metrics:\n  - type: Pods\n    pods: {{metric: {{name: {RPS}}}, target: {{type: AverageValue, averageValue: \
         \"50\"}}}}\n  behavior: {{scaleDown: {{stabilizationWindowSeconds: 5}}}}\n"
    )
}

fn desired(lab: &Lab) -> u64 {
    let hpa = lab.cluster.plane().get(&["hpa", "shop", "-n", NAMESPACE]).unwrap_or_default();
    hpa["status"]["desiredReplicas"].as_u64().unwrap_or(0)
}

fn until(lab: &Lab, what: &str, mut so: impl FnMut() -> bool) {
    wait_for(what, PATIENCE, || Ok(so().then_some(()))).unwrap_or_else(|error| {
        let say =
            |arguments: &[&str]| lab.cluster.plane().kubectl(arguments).unwrap_or_else(|error| format!("{error:#}"));
        let api = say(&["logs", "-n", "gopulse", "-l", "app.kubernetes.io/name=gopulse-metrics-api", "--tail=60"]);
        let hpa = say(&["describe", "hpa", "-n", NAMESPACE]);
        let pods = say(&["get", "pods", "-A", "-o", "wide"]);
        let services = say(&["get", "apiservices"]);
        panic!("{error:#}\n{hpa}\n{pods}\n{services}\n{api}")
    });
}

/// The mean of these pods' values of a metric, as the controller asks for them. The replicas that a step brings are left out: they
/// have no load, and with them the mean may never rise.
fn mean(lab: &Lab, pods: &[Pod], metric: &str) -> Option<f64> {
    let path = format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/{NAMESPACE}/pods/*/{metric}");
    let list: Value = serde_json::from_str(&lab.cluster.plane().kubectl(&["get", "--raw", &path]).ok()?).ok()?;
    let loaded = |item: &&Value| pods.iter().any(|pod| item["describedObject"]["name"] == *pod.name);
    let values: Vec<f64> =
        list["items"].as_array()?.iter().filter(loaded).map(|item| quantity(&item["value"])).collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// That many requests a second at a pod, for a time.
fn load(pod: &Pod, rate: u32, seconds: u64) -> thread::JoinHandle<()> {
    let address = pod.address();
    thread::spawn(move || {
        let (rate, duration) = (rate.to_string(), format!("{seconds}s"));
        let arguments = ["-address", &address, "-rate", &rate, "-duration", &duration, "-c", "4"];
        crate::support::load_with_errors(&arguments, &["GET /hello 200 /hello 1"]);
    })
}

#[test]
fn requests_a_second_scale_a_deployment_up_and_down_without_prometheus() {
    let sync = std::env::var("GOPULSE_HPA_SYNC_SECONDS").ok().and_then(|it| it.parse().ok()).unwrap_or(2);
    let sync = Duration::from_secs(sync);
    let options = Options { autoscaler_period: sync, aggregator_routing: true, ..Options::default() };
    let lab = Lab::start_with(&options, &overlay(&["hpa"], &[]));
    until(&lab, "the APIServices are available", || {
        let services = lab.cluster.plane().get(&["apiservices"]).unwrap_or_default();
        let ours = services["items"].as_array().cloned().unwrap_or_default();
        let ours: Vec<_> = ours
            .iter()
            .filter(|it| it["metadata"]["name"].as_str().is_some_and(|name| name.ends_with("metrics.k8s.io")))
            .collect();
        let available = |it: &&serde_json::Value| {
            it["status"]["conditions"]
                .as_array()
                .is_some_and(|all| all.iter().any(|it| it["type"] == "Available" && it["status"] == "True"))
        };
        ours.len() == 3 && ours.iter().all(available)
    });
    let pods = lab.deploy("shop", 2, &[("gopulse.io/enabled", "true")]);
    lab.wait_measured(&pods);
    lab.apply(&hpa());
    until(&lab, "the HPA has looked and wants 2", || desired(&lab) == 2);
    let described = lab.kubectl(&["describe", "hpa", "shop", "-n", NAMESPACE]);
    assert!(described.contains("ValidMetricFound"), "{described}");

    // The load generator is built before the clock runs.
    crate::support::service("load");
    // 100 requests a second at each of the two, where 50 are wanted: four pods.
    let begun = Instant::now();
    let loads: Vec<_> = pods.iter().map(|pod| load(pod, 100, 30.max(4 * sync.as_secs()))).collect();
    let shows = |metric: &str| {
        until(&lab, "the metric shows the step", || mean(&lab, &pods, metric).is_some_and(|it| it > SEEN));
        begun.elapsed().as_secs_f64()
    };
    let (reaction, fast, slow) = thread::scope(|scope| {
        let shown = [RPS, SLOW].map(|metric| scope.spawn(move || shows(metric)));
        until(&lab, "scaled up", || desired(&lab) > 2);
        let reaction = begun.elapsed();
        let [fast, slow] = shown.map(|it| it.join().expect("both metrics show the step"));
        (reaction, fast, slow)
    });
    println!(
        "from the load step to more desired replicas: {:.1} s, at a sync period of {sync:?}; {RPS} shows the step after {fast:.1} s, \
         {SLOW} after {slow:.1} s",
        reaction.as_secs_f64()
    );
    until(&lab, "four replicas", || desired(&lab) == 4);
    lab.wait_for_pods("shop", 4);
    let path = format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/{NAMESPACE}/pods/*/{RPS}");
    until(&lab, "the new pods have values, 0 where idle", || {
        let list = lab.cluster.plane().kubectl(&["get", "--raw", &path]).unwrap_or_default();
        list.matches("\"describedObject\"").count() == 4
    });
    assert!(!lab.kubectl(&["get", "hpa", "-n", NAMESPACE]).contains("<unknown>"));

    // One of the two replicas of the metrics-api is killed under it: no wrong decision.
    let api = lab
        .cluster
        .plane()
        .get(&["pods", "-n", "gopulse", "-l", "app.kubernetes.io/name=gopulse-metrics-api"])
        .unwrap();
    let victim = api["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    lab.kubectl(&["delete", "pod", &victim, "-n", "gopulse", "--grace-period=0", "--force"]);
    for _ in 0..5 {
        assert_eq!(desired(&lab), 4, "a replica of the metrics-api less is no reason to scale");
        thread::sleep(Duration::from_secs(1));
    }
    for load in loads {
        load.join().expect("the load ends");
    }
    let ended = Instant::now();
    until(&lab, "scaled down", || desired(&lab) == 2);
    println!("2 -> 4 -> 2 replicas; down {:.1} s after the load's end", ended.elapsed().as_secs_f64());
    assert!(fast < slow, "{RPS} is there to show a step before {SLOW} does");
    its_namespace_can_be_deleted(&lab);
}

/// With nothing else of the manifests: what its pods registered would keep every namespace from going, its own too.
fn its_namespace_can_be_deleted(lab: &Lab) {
    lab.kubectl(&["delete", "namespace", AGENT_NAMESPACE, "--timeout=120s"]);
    let left = lab.kubectl(&["get", "apiservices"]);
    assert!(!left.contains("metrics.k8s.io"), "{left}");
}
