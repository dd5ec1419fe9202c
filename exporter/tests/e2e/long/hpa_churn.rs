//! HPAs under constant load in a real cluster where everything else changes: agents and the metrics-api are killed, containers are in
//! back-off, Deployments rolled out, pods opt out and in, the network of the agent stalls, the API server is started anew. Whatever
//! happens, what the HPAs want stays what the load asks for. Short by default; `GOPULSE_CHURN_SECONDS=1800` is the long form, and
//! `GOPULSE_CHURN_SEED` chooses another order.

mod hand;
mod nodes;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use xtask::cluster::{Options, wait_for};

use self::{
    hand::{Dice, Hand},
    watch::{Api, Scaled, Watch, audited},
};
use crate::support::{
    balanced::Balanced,
    cluster::{ENABLED, Lab, NAMESPACE, deployment, overlay},
    scratch,
    stage::{CUSTOM, RPS},
};

const PATIENCE: Duration = Duration::from_mins(3);
/// The controller's sync period.
const SYNC: Duration = Duration::from_secs(5);
/// Requests a second of each Deployment, and how many of them a pod is for: four pods, and the truth is in the middle of what is
/// tolerated.
const LOAD: f64 = 95.0;
const EACH: f64 = 25.0;
const REPLICAS: usize = 4;
const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1";

fn number(variable: &str, otherwise: u64) -> u64 {
    env::var(variable).ok().map_or(otherwise, |value| value.parse().expect("a number"))
}

/// One Deployment for each way in which an HPA asks.
fn scaled() -> Vec<(Scaled, Value)> {
    let average = json!({"type": "AverageValue", "averageValue": EACH.to_string()});
    let of = |name, path: String| Scaled { name, path, load: LOAD, target: EACH };
    let custom = |what: &str| format!("{CUSTOM}/v1beta2/namespaces/{NAMESPACE}/{what}/{RPS}");
    vec![
        (
            of("by-pods", format!("{}?labelSelector=app%3Dby-pods", custom("pods/*"))),
            json!({"type": "Pods", "pods": {"metric": {"name": RPS}, "target": average}}),
        ),
        (
            of("by-object", custom("deployments.apps/by-object")),
            json!({"type": "Object", "object": {
                "describedObject": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "by-object"},
                "metric": {"name": RPS}, "target": average,
            }}),
        ),
        (
            of("by-label", format!("{EXTERNAL}/namespaces/{NAMESPACE}/{RPS}?labelSelector=app%3Dby-label")),
            json!({"type": "External", "external": {
                "metric": {"name": RPS, "selector": {"matchLabels": {"app": "by-label"}}}, "target": average,
            }}),
        ),
    ]
}

fn hpa(name: &str, metric: &Value) -> String {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": 1, "maxReplicas": 12, "metrics": [metric],
            // Nothing is held back: whatever it is told shows at its next look.
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
        },
    })
    .to_string()
}

/// Pods that serve on for a while when they are deleted, as those do that wait until nobody sends them anything.
fn graceful(name: &str) -> String {
    let mut all: Value = serde_json::from_str(&deployment(name, REPLICAS, &[ENABLED])).expect("it is JSON");
    let pod = &mut all["spec"]["template"]["spec"];
    pod["terminationGracePeriodSeconds"] = json!(20);
    pod["containers"][0]["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 8}}});
    all.to_string()
}

/// What the threads share.
struct Scene {
    loads: BTreeMap<&'static str, Balanced>,
    /// Pods that are to get no requests, though they are ready.
    drained: Mutex<BTreeSet<String>>,
    churn: Mutex<Vec<(Duration, String)>>,
    begun: Instant,
    over: AtomicBool,
}

impl Scene {
    fn note(&self, what: String) {
        println!("{:.0} s: {what}", self.begun.elapsed().as_secs_f64());
        self.churn.lock().expect("nobody panics with it").push((self.begun.elapsed(), what));
    }

    /// Sends the load to the pods that are ready, as the endpoints of their Services would be.
    fn balance(&self, api: &Api) {
        while !self.over.load(Ordering::Relaxed) {
            if let Ok(pods) = api.get(&format!("/api/v1/namespaces/{NAMESPACE}/pods")) {
                let drained = self.drained.lock().expect("nobody panics with it").clone();
                for (name, load) in &self.loads {
                    let pods = pods["items"].as_array().into_iter().flatten();
                    let of = pods.filter(|pod| pod["metadata"]["labels"]["app"] == *name && is_ready(pod));
                    let of = of.filter(|pod| !drained.contains(pod["metadata"]["name"].as_str().unwrap_or_default()));
                    let address = |pod: &Value| -> Option<SocketAddr> {
                        format!("{}:8080", pod["status"]["podIP"].as_str()?).parse().ok()
                    };
                    load.set_pods(of.filter_map(address).collect());
                }
            }
            thread::sleep(Duration::from_millis(500));
        }
    }
}

fn is_ready(pod: &Value) -> bool {
    let ready = |it: &Value| it["type"] == "Ready" && it["status"] == "True";
    pod["metadata"]["deletionTimestamp"].is_null()
        && pod["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(ready))
}

#[test]
fn hpa_churn() {
    let length = Duration::from_secs(number("GOPULSE_CHURN_SECONDS", 240));
    let seed = number("GOPULSE_CHURN_SEED", 16);
    let (flags, audit) = audited(&scratch("hpa-churn"));
    let options =
        Options { autoscaler_period: SYNC, aggregator_routing: true, api_server: flags, ..Options::default() };
    let mut lab = Lab::start_with(&options, &overlay(&["hpa"], &[]));
    let kubeconfig = lab.cluster.plane().kubeconfig().to_owned();
    let scaled = scaled();
    let loads = scaled.iter().map(|(it, _)| (it.name, Balanced::start(LOAD))).collect();
    let scene = Scene {
        loads,
        drained: Mutex::default(),
        churn: Mutex::default(),
        begun: Instant::now(),
        over: AtomicBool::new(false),
    };
    for (it, _) in &scaled {
        lab.apply(&graceful(it.name));
    }
    let pods: Vec<_> = scaled.iter().flat_map(|(it, _)| lab.wait_for_pods(it.name, REPLICAS)).collect();
    lab.wait_measured(&pods);

    let (watched, done) = thread::scope(|scope| {
        let (scene, kubeconfig) = (&scene, &kubeconfig);
        scope.spawn(move || scene.balance(&Api::new(kubeconfig)));
        // Whatever goes wrong below, the threads are to end.
        let changes = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let api = Api::new(kubeconfig);
            let told = |it: &Scaled| {
                wait_for(&format!("{} has the whole load", it.name), PATIENCE, || {
                    let total = api.get(&it.path).ok().map(|list| watch::values(&list).0);
                    Ok(total.filter(|total| (total / LOAD - 1.0).abs() < 0.1))
                })
                .unwrap_or_else(|error| panic!("{error:#}: {:?}", api.get(&it.path)))
            };
            for (it, metric) in &scaled {
                told(it);
                lab.apply(&hpa(it.name, metric));
            }
            let of: Vec<Scaled> = scaled.iter().map(|(it, _)| it.clone()).collect();
            let mut watch = Watch::new(kubeconfig, &audit, &of, scene.begun, &scene.churn);
            wait_for("the HPAs want what is true", PATIENCE, || Ok(watch.all_right().then_some(()))).unwrap();
            let watching = scope.spawn(move || {
                while !scene.over.load(Ordering::Relaxed) {
                    let next = Instant::now() + Duration::from_secs(1);
                    watch.look(|name| scene.loads[name].answered());
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                }
                watch.end();
                watch
            });
            let mut hand = Hand {
                lab: &mut lab,
                scene,
                api: Api::new(kubeconfig),
                dice: Dice(seed),
                bag: Vec::new(),
                done: BTreeMap::new(),
            };
            // The truth is over a window.
            thread::sleep(Duration::from_secs(25));
            let start = Instant::now();
            while start.elapsed() < length {
                hand.next();
            }
            thread::sleep(Duration::from_secs(30));
            (watching, hand.done)
        }));
        scene.over.store(true, Ordering::Relaxed);
        let (watching, done) = changes.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (watching.join().expect("it watched"), done)
    });

    let summary = watched.summary();
    println!("seed {seed}, {} things done: {done:?}\n{summary}", done.values().sum::<u32>());
    let too_long = watched.excursions.iter().filter(|it| it.is_too_long()).count();
    assert_eq!(too_long, 0, "excursions that outlasted the next look of the controller: they are above");
    assert!(watched.has_judged(), "the machine is too busy: the load was not constant for most of the time");
}
