//! HPAs under constant load in a real cluster where everything else changes: agents and the metrics-api are killed, containers are in
//! back-off, Deployments rolled out, pods opt out and in, the network of the agent stalls, the API server is started anew. Whatever
//! happens, what the HPAs want stays what the load asks for. Short by default; `GOPULSE_CHURN_SECONDS=1800` is the long form, and
//! `GOPULSE_CHURN_SEED` chooses another order.

mod nodes;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    net::SocketAddr,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use xtask::{
    cluster::{Options, wait_for},
    util,
};

use self::watch::{Api, Scaled, Watch, audited};
use crate::support::{
    balanced::Balanced,
    cluster::{AGENT_NAMESPACE, ENABLED, Lab, NAMESPACE, deployment, overlay},
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

/// What is done to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Churn {
    AgentKilled,
    AgentReplaced,
    /// It stands still, and the kernel's side counts on.
    AgentStopped,
    /// Its network stands still.
    AgentCutOff,
    ApiKilled,
    ApisKilled,
    ApiRolledOut,
    ContainerKilled,
    BackOff,
    PodDeleted,
    RolledOut,
    OptedOut,
    ApiServerRestarted,
}

const KINDS: [Churn; 13] = [
    Churn::AgentKilled,
    Churn::AgentReplaced,
    Churn::AgentStopped,
    Churn::AgentCutOff,
    Churn::ApiKilled,
    Churn::ApisKilled,
    Churn::ApiRolledOut,
    Churn::ContainerKilled,
    Churn::BackOff,
    Churn::PodDeleted,
    Churn::RolledOut,
    Churn::OptedOut,
    Churn::ApiServerRestarted,
];

/// splitmix64: the same order for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut it = self.0;
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (it ^ (it >> 31)) as usize % below
    }

    fn seconds(&mut self, from: usize, to: usize) -> Duration {
        Duration::from_secs((from + self.roll(to - from + 1)) as u64)
    }
}

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

/// Whoever does things to the cluster.
struct Hand<'a> {
    lab: &'a mut Lab,
    scene: &'a Scene,
    api: Api,
    dice: Dice,
    /// Kinds that have not been since all were.
    bag: Vec<Churn>,
    done: BTreeMap<Churn, u32>,
}

impl Hand<'_> {
    fn next(&mut self) -> Option<()> {
        if self.bag.is_empty() {
            self.bag = KINDS.to_vec();
        }
        let kind = self.bag.swap_remove(self.dice.roll(self.bag.len()));
        let done = self.act(kind);
        match done {
            Some(()) => *self.done.entry(kind).or_default() += 1,
            // Nobody is there at the moment.
            None => self.scene.note(format!("{kind:?} could not be")),
        }
        // Often the next comes before this one is got over.
        let pause = if self.dice.roll(3) == 0 { Duration::ZERO } else { self.dice.seconds(3, 20) };
        thread::sleep(pause);
        done
    }

    fn act(&mut self, kind: Churn) -> Option<()> {
        let agents = "app.kubernetes.io/name=gopulse";
        let apis = "app.kubernetes.io/name=gopulse-metrics-api";
        match kind {
            Churn::AgentKilled => {
                self.note(kind, "");
                signal(self.pids(AGENT_NAMESPACE, agents).pop()?, Signal::SIGKILL)
            }
            Churn::AgentReplaced => {
                self.note(kind, "");
                self.kubectl(&["delete", "pod", "-n", AGENT_NAMESPACE, "-l", agents, "--wait=false"])
            }
            Churn::AgentStopped => {
                let (pid, time) = (self.pids(AGENT_NAMESPACE, agents).pop()?, self.dice.seconds(3, 25));
                self.note(kind, &format!("for {time:?}"));
                signal(pid, Signal::SIGSTOP)?;
                thread::sleep(time);
                // It may have been killed for it.
                let _ = signal(pid, Signal::SIGCONT);
                Some(())
            }
            Churn::AgentCutOff => {
                let (pid, time) = (self.pids(AGENT_NAMESPACE, agents).pop()?, self.dice.seconds(3, 25));
                let link = host_link(pid)?;
                self.note(kind, &format!("for {time:?}"));
                ip(&["link", "set", &link, "down"])?;
                thread::sleep(time);
                ip(&["link", "set", &link, "up"])
            }
            Churn::ApiKilled => {
                self.note(kind, "");
                let pids = self.pids(AGENT_NAMESPACE, apis);
                signal(*pids.get(self.dice.roll(pids.len().max(1)))?, Signal::SIGKILL)
            }
            Churn::ApisKilled => {
                self.note(kind, "");
                let pids = self.pids(AGENT_NAMESPACE, apis);
                pids.into_iter().try_for_each(|pid| signal(pid, Signal::SIGKILL))
            }
            Churn::ApiRolledOut => {
                self.note(kind, "");
                self.kubectl(&["rollout", "restart", "-n", AGENT_NAMESPACE, "deployment", "gopulse-metrics-api"])
            }
            Churn::ContainerKilled => {
                let (_, pod) = self.pod()?;
                self.note(kind, &name_of(&pod));
                signal(self.pid(&pod)?, Signal::SIGKILL)
            }
            Churn::BackOff => {
                let ((_, pod), time) = (self.pod()?, self.dice.seconds(8, 25));
                self.note(kind, &format!("{} for {time:?}", name_of(&pod)));
                // The kubelet tries each second: no process of it gets to do anything.
                let begun = Instant::now();
                while begun.elapsed() < time {
                    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{}", name_of(&pod));
                    if let Some(pid) = self.api.get(&path).ok().and_then(|pod| self.pid(&pod)) {
                        let _ = signal(pid, Signal::SIGKILL);
                    }
                    thread::sleep(Duration::from_millis(100));
                }
                Some(())
            }
            Churn::PodDeleted => {
                let (_, pod) = self.pod()?;
                self.note(kind, &name_of(&pod));
                self.kubectl(&["delete", "pod", "-n", NAMESPACE, &name_of(&pod), "--wait=false"])
            }
            Churn::RolledOut => {
                let (deployment, _) = self.pod()?;
                self.note(kind, deployment);
                self.kubectl(&["rollout", "restart", "-n", NAMESPACE, "deployment", deployment])
            }
            Churn::OptedOut => {
                let ((_, pod), time) = (self.pod()?, self.dice.seconds(5, 25));
                let name = name_of(&pod);
                self.note(kind, &format!("{name} for {time:?}"));
                // Others take what it was sent, for it is not counted.
                self.scene.drained.lock().expect("nobody panics with it").insert(name.clone());
                self.kubectl(&["annotate", "--overwrite", "-n", NAMESPACE, "pod", &name, "gopulse.io/enabled=false"]);
                thread::sleep(time);
                self.kubectl(&["annotate", "--overwrite", "-n", NAMESPACE, "pod", &name, "gopulse.io/enabled=true"]);
                // It serves again once it is measured: what it did before nobody can know.
                let path = format!("{CUSTOM}/v1beta2/namespaces/{NAMESPACE}/pods/{name}/{RPS}");
                let _ = wait_for("it has a value", Duration::from_secs(30), || Ok(self.api.get(&path).ok()));
                thread::sleep(Duration::from_secs(5));
                self.scene.drained.lock().expect("nobody panics with it").remove(&name);
                Some(())
            }
            Churn::ApiServerRestarted => {
                let time = self.dice.seconds(1, 15);
                self.note(kind, &format!("after {time:?}"));
                self.lab.cluster.plane_mut().stop_api_server().ok()?;
                thread::sleep(time);
                self.lab.cluster.plane_mut().start_api_server().ok()
            }
        }
    }

    fn note(&self, kind: Churn, of: &str) {
        self.scene.note(format!("{kind:?} {of}"));
    }

    fn kubectl(&self, arguments: &[&str]) -> Option<()> {
        self.lab.cluster.plane().kubectl(arguments).inspect_err(|error| println!("{error:#}")).ok().map(drop)
    }

    /// A pod of some Deployment that is ready.
    fn pod(&mut self) -> Option<(&'static str, Value)> {
        let names: Vec<&'static str> = self.scene.loads.keys().copied().collect();
        let name = names[self.dice.roll(names.len())];
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app%3D{name}");
        let list = self.api.get(&path).ok()?;
        let ready: Vec<&Value> = list["items"].as_array()?.iter().filter(|it| is_ready(it)).collect();
        let chosen = self.dice.roll(ready.len().max(1));
        Some((name, (*ready.get(chosen)?).clone()))
    }

    /// The process of a pod's only container.
    fn pid(&self, pod: &Value) -> Option<i32> {
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str()?;
        self.lab.cluster.node().container_pid(id).ok().map(|pid| pid as i32)
    }

    fn pids(&self, namespace: &str, label: &str) -> Vec<i32> {
        let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector={}", label.replace('=', "%3D"));
        let list = self.api.get(&path).unwrap_or_default();
        list["items"].as_array().into_iter().flatten().filter_map(|pod| self.pid(pod)).collect()
    }
}

fn name_of(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

fn signal(pid: i32, signal: Signal) -> Option<()> {
    kill(Pid::from_raw(pid), signal).ok()
}

fn ip(arguments: &[&str]) -> Option<()> {
    util::output(Command::new("ip").args(arguments)).ok().map(drop)
}

/// This machine's end of a process' network.
fn host_link(pid: i32) -> Option<String> {
    let namespace = format!("--net=/proc/{pid}/ns/net");
    let own = util::output(Command::new("nsenter").args([&namespace, "ip", "-o", "link", "show", "eth0"])).ok()?;
    // `2: eth0@if17: <...>`
    let index: String = own.split_once("@if")?.1.chars().take_while(char::is_ascii_digit).collect();
    let all = util::output(Command::new("ip").args(["-o", "link"])).ok()?;
    let line = all.lines().find(|line| line.starts_with(&format!("{index}: ")))?;
    Some(line.split_whitespace().nth(1)?.split(['@', ':']).next()?.to_owned())
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
