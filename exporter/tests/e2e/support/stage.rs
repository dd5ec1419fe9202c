//! A stage for the metrics-api: a real control plane, rehearsed agents that tell what the test says by the stream that real ones
//! have, and pods that are real objects whose status the test writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use xtask::{
    cluster::{ControlPlane, Options, free_port, wait_for},
    exposition, util,
};

/// The metrics that the tests ask for.
pub(crate) const RPS: &str = "http_server_requests_per_second";
pub(crate) const CUSTOM: &str = "/apis/custom.metrics.k8s.io";
/// On a machine that others burn, and the controller waits longer after each failure.
pub(crate) const PATIENCE: Duration = Duration::from_mins(4);
/// The controller's sync period.
pub(crate) const SYNC: Duration = Duration::from_secs(1);

/// On by default since Kubernetes 1.35 and 1.37.
const GATES: &str = "--feature-gates=HPAConfigurableTolerance=true,HPAScaleToZero=true";

/// A process that ends with this value.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the test tells the rehearsed agents: requests a second of the whole workload, spread over its pods.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) requests_per_second: f64,
    pub(crate) latency_seconds: f64,
    /// Of every request.
    pub(crate) route: &'static str,
    /// Requests in flight at each pod.
    pub(crate) active: u32,
    /// Goroutines of each pod by what they wait for.
    pub(crate) waiting: BTreeMap<&'static str, u32>,
    /// Whether every pod is measured, and not those of app=shop alone.
    pub(crate) everywhere: bool,
    /// Whether no container of the pods runs, as between a crash and the kubelet's next try.
    pub(crate) away: bool,
    /// Pods without a running container: the others have the load.
    pub(crate) crashed: BTreeSet<String>,
}

/// What came of a look of the HPA controller, as its own metric `reconciliations_total` names it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Look {
    /// It had its metrics and decided by them.
    Decided,
    /// It had no metrics, or could not do what it wanted.
    Failed,
}

pub(crate) struct Stage {
    pub(crate) plane: ControlPlane,
    pub(crate) directory: PathBuf,
    pub(crate) agents: Vec<Running>,
    pub(crate) addresses: Vec<String>,
    pub(crate) api: Option<Running>,
    pub(crate) port: u16,
    pub(crate) keda: u16,
    pub(crate) load: Arc<Mutex<Load>>,
    stop: Arc<AtomicBool>,
    /// Where kube-controller-manager serves its metrics.
    controllers: u16,
    /// Keeps pods' status and the agents' script.
    keeper: Option<thread::JoinHandle<()>>,
}

pub(crate) fn deployment(replicas: u32) -> String {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop", "namespace": "shop"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "shop"}},
            "template": {
                "metadata": {"labels": {"app": "shop"}, "annotations": {"gopulse.io/enabled": "true"}},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "app", "image": "none"}]},
            },
        },
    })
    .to_string()
}

pub(crate) fn hpa(metric: &Value) -> String {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "shop", "namespace": "shop"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"},
            "minReplicas": 2, "maxReplicas": 8, "metrics": [metric],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}},
        },
    })
    .to_string()
}

pub(crate) fn by_pods() -> Value {
    json!({"type": "Pods", "pods": {"metric": {"name": RPS}, "target": {"type": "AverageValue", "averageValue": "50"}}})
}

impl Stage {
    /// A control plane, two rehearsed agents, the metrics-api, and a Deployment of two pods under 80 requests a second.
    pub(crate) fn set() -> Self {
        let mut stage = Self::without_api();
        stage.start_api();
        stage
    }

    /// The same before the metrics-api starts.
    pub(crate) fn without_api() -> Self {
        Self::with_flags(Vec::new())
    }

    /// The same with further flags of kube-apiserver.
    pub(crate) fn with_flags(flags: Vec<String>) -> Self {
        let controllers = free_port().unwrap();
        let controller_manager = vec![
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={controllers}"),
            "--authorization-always-allow-paths=/metrics".to_owned(),
            GATES.to_owned(),
        ];
        let api_server = vec![
            // As OpenShift has it: whoever sets an owner must be allowed to delete what is owned.
            "--enable-admission-plugins=OwnerReferencesPermissionEnforcement".to_owned(),
            GATES.to_owned(),
        ];
        let api_server = [api_server, flags].concat();
        let options = Options { autoscaler_period: SYNC, controller_manager, api_server, ..Options::default() };
        let plane = ControlPlane::start(&options).unwrap_or_else(|error| panic!("no control plane: {error:#}"));
        let directory = plane.directory().join("hpa");
        fs::create_dir_all(&directory).unwrap();
        for name in ["gopulse", "shop"] {
            plane.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}")).unwrap();
        }
        let rights = util::root().join("daemonset/components/hpa/rbac.yaml");
        plane.apply(&fs::read_to_string(rights).unwrap()).unwrap();
        plane
            .apply(
                "{apiVersion: v1, kind: Service, metadata: {name: gopulse-metrics-api, namespace: gopulse}, spec: {type: \
                 ExternalName, externalName: localhost}}",
            )
            .unwrap();
        plane.apply(&deployment(2)).unwrap();
        let (port, keda) = (free_port().unwrap(), free_port().unwrap());
        let load = Arc::new(Mutex::new(Load {
            requests_per_second: 80.0,
            latency_seconds: 0.02,
            route: "/items/{id}",
            active: 3,
            waiting: BTreeMap::new(),
            everywhere: false,
            away: false,
            crashed: BTreeSet::new(),
        }));
        let mut stage = Self {
            plane,
            directory,
            agents: Vec::new(),
            addresses: Vec::new(),
            api: None,
            port,
            keda,
            load,
            stop: Arc::default(),
            controllers,
            keeper: None,
        };
        stage.keep();
        for number in 0..2 {
            stage.start_agent(number);
        }
        stage
    }

    pub(crate) fn gopulse() -> Command {
        Command::new(super::agent::binary())
    }

    pub(crate) fn log(&self, name: &str) -> Stdio {
        fs::OpenOptions::new().create(true).append(true).open(self.directory.join(name)).unwrap().into()
    }

    /// Agent by number: each pod is at that which has fewer when it comes.
    pub(crate) fn start_agent(&mut self, number: usize) {
        // Each process is one agent of the script: those at smaller numbers listen where nobody asks.
        let address = format!("127.0.0.1:{}", free_port().unwrap());
        self.agents.push(self.agent_at(number, &address));
        self.addresses.push(address);
    }

    /// Ends an agent, and starts it again where it was after a while: what it had counted is gone.
    pub(crate) fn restart_agent(&mut self, number: usize, after: Duration) {
        let _ = self.agents[number].0.kill();
        thread::sleep(after);
        self.agents[number] = self.agent_at(number, &self.addresses[number]);
    }

    fn agent_at(&self, number: usize, address: &str) -> Running {
        let mut command = Self::gopulse();
        command.args(["hpa", "rehearse-agents", "--script"]).arg(self.script(number)).args(["--address", address]);
        Running(command.stdout(self.log("agents.log")).stderr(self.log("agents.log")).spawn().unwrap())
    }

    pub(crate) fn script(&self, agent: usize) -> PathBuf {
        self.directory.join(format!("agent-{agent}.yaml"))
    }

    pub(crate) fn start_api(&mut self) {
        self.start_api_with(true);
    }

    /// Starts the metrics-api; whether it keeps the APIServices.
    pub(crate) fn start_api_with(&mut self, register: bool) {
        let kubeconfig = self.plane.kubeconfig_of_account("gopulse", "gopulse-metrics-api").unwrap();
        let config = json!({
            "address": format!("[::]:{}", self.port), "namespace": "gopulse", "service_port": self.port,
            "agents": {"addresses": self.addresses, "tls": false}, "keda_address": format!("127.0.0.1:{}", self.keda),
            "register": {"custom": register, "external": register}, "log_level": "info,gopulse=debug",
        });
        let path = self.directory.join("metrics-api.yaml");
        fs::write(&path, config.to_string()).unwrap();
        let mut command = Self::gopulse();
        command.arg("metrics-api").arg("--config").arg(path).env("KUBECONFIG", kubeconfig);
        self.api = Some(Running(command.stdout(Stdio::null()).stderr(self.log("metrics-api.log")).spawn().unwrap()));
    }

    /// Makes pods running and ready, as a node would, and tells the agents of them.
    pub(crate) fn keep(&mut self) {
        let (load, stop) = (self.load.clone(), self.stop.clone());
        let (program, config) = (self.plane.programs().join("kubectl"), self.plane.kubeconfig().to_owned());
        let kubectl = move |arguments: &[&str]| {
            util::output(Command::new(&program).arg("--kubeconfig").arg(&config).args(["-n", "shop"]).args(arguments))
        };
        let scripts: Vec<PathBuf> = (0..2).map(|number| self.script(number)).collect();
        self.keeper = Some(thread::spawn(move || {
            // A pod stays at its node.
            let mut nodes: BTreeMap<String, usize> = BTreeMap::new();
            while !stop.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(300));
                // The API server is away at times.
                let Ok(pods) = kubectl(&["get", "pods", "-o", "json"]) else { continue };
                let Ok(pods) = serde_json::from_str::<Value>(&pods) else { continue };
                let load = load.lock().unwrap().clone();
                let mut names = Vec::new();
                for pod in pods["items"].as_array().into_iter().flatten() {
                    let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                    if pod["metadata"]["deletionTimestamp"].is_null() {
                        if pod["status"]["phase"] == "Pending" {
                            let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
                            let status = json!({"status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z", "conditions": [ready]}});
                            let _ =
                                kubectl(&["patch", "pod", &name, "--subresource", "status", "-p", &status.to_string()]);
                        }
                        if load.everywhere || pod["metadata"]["labels"]["app"] == "shop" {
                            names.push(name);
                        }
                    }
                }
                nodes.retain(|name, _| names.contains(name));
                for name in &names {
                    let at = |node: usize| nodes.values().filter(|it| **it == node).count();
                    let node = (0..scripts.len()).min_by_key(|node| at(*node)).unwrap_or(0);
                    nodes.entry(name.clone()).or_insert(node);
                }
                let runs = |name: &String| !load.away && !load.crashed.contains(name);
                let running = names.iter().filter(|name| !load.crashed.contains(*name)).count();
                for (agent, script) in scripts.iter().enumerate() {
                    let own = names.iter().filter(|name| runs(name) && nodes.get(*name) == Some(&agent));
                    let told: Vec<Value> = own
                        .map(|name| {
                            json!({
                                "namespace": "shop", "pod": name, "active": load.active,
                                "requests_per_second": load.requests_per_second / running as f64,
                                "latency_seconds": load.latency_seconds, "route": load.route, "waiting": load.waiting,
                            })
                        })
                        .collect();
                    let partial = script.with_extension("partial");
                    let crashed = load.crashed.iter().filter(|name| nodes.get(*name) == Some(&agent));
                    let without = |name: &String| json!({"namespace": "shop", "pod": name, "expected": true, "reason": "crashes"});
                    let without: Vec<Value> = crashed.map(without).collect();
                    fs::write(&partial, json!({"pods": told, "unmeasured": without}).to_string()).unwrap();
                    fs::rename(&partial, script).unwrap();
                }
            }
        }));
    }

    pub(crate) fn set_load(&self, requests_per_second: f64) {
        self.load.lock().unwrap().requests_per_second = requests_per_second;
    }

    pub(crate) fn raw(&self, path: &str) -> Result<Value, String> {
        let text = self.plane.kubectl(&["get", "--raw", path]).map_err(|error| format!("{error:#}"))?;
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    /// What the metrics-api has logged.
    pub(crate) fn api_log(&self) -> String {
        fs::read_to_string(self.directory.join("metrics-api.log")).unwrap_or_default()
    }

    /// How many lines of the metrics-api's log have these words.
    pub(crate) fn said(&self, words: &str) -> usize {
        self.api_log().lines().filter(|line| line.contains(words)).count()
    }

    /// Waits until the metrics-api has logged these words so many times more than `before`.
    pub(crate) fn says(&self, words: &str, more: usize, before: usize) {
        self.until(&format!("the metrics-api logs {words:?}"), || (self.said(words) >= before + more).then_some(()));
    }

    /// How often the HPA controller has looked so far, with this outcome. None where it does not say.
    pub(crate) fn looks(&self, outcome: Look) -> Option<u64> {
        let url = format!("https://127.0.0.1:{}/metrics", self.controllers);
        let text = util::output(Command::new("curl").args(["-skf", "--max-time", "10", &url])).ok()?;
        let name = "horizontal_pod_autoscaler_controller_reconciliations_total";
        let looks = exposition::parse(&text).into_iter().filter(|sample| sample.name == name);
        let wanted = looks.filter(|look| (look.label("error") == "none") == matches!(outcome, Look::Decided));
        Some(wanted.map(|look| look.value as u64).sum())
    }

    /// Waits until the HPA controller has looked so many times more, with this outcome, and asserts all the while that as many
    /// replicas are desired as `right` says.
    pub(crate) fn looked(&self, more: u64, outcome: Look, why: &str, right: impl Fn(u64) -> bool) {
        let before = self.until("the controller tells how often it looked", || self.looks(outcome));
        let mut seen = before;
        self.until(&format!("{more} looks of the HPA controller: {outcome:?}"), || {
            let looks = self.looks(outcome).filter(|looks| *looks > seen)?;
            seen = looks;
            let desired = self.desired();
            assert!(right(desired), "{why}, but {desired} replicas are desired");
            // The first may have been under way when this was called.
            (looks > before + more).then_some(())
        });
    }

    /// Waits until a path is answered so.
    pub(crate) fn until<T>(&self, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
        wait_for(what, PATIENCE, || Ok(ask())).unwrap_or_else(|error| {
            let log = self.api_log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            let events = self.plane.kubectl(&["describe", "hpa", "-n", "shop"]).unwrap_or_default();
            panic!("{error:#}\n{events}\n{}", tail.join("\n"))
        })
    }

    pub(crate) fn values(&self, path: &str) -> BTreeMap<String, f64> {
        self.raw(path).map(|list| values_of(&list)).unwrap_or_default()
    }

    /// As many replicas as the HPA wants; 0 before it has looked.
    pub(crate) fn desired(&self) -> u64 {
        let hpa = self.until("the API server has the HPA", || self.plane.get(&["hpa", "shop", "-n", "shop"]).ok());
        hpa["status"]["desiredReplicas"].as_u64().unwrap_or(0)
    }

    pub(crate) fn settle(&self, replicas: u64) {
        self.until(&format!("{replicas} replicas"), || (self.desired() == replicas).then_some(()));
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// A MetricValueList's values, by the names of what they are of.
pub(crate) fn values_of(list: &Value) -> BTreeMap<String, f64> {
    let items = list["items"].as_array().into_iter().flatten();
    let name = |item: &Value| item["describedObject"]["name"].as_str().unwrap_or_default().to_owned();
    items.map(|item| (name(item), quantity(&item["value"]))).collect()
}

pub(crate) fn quantity(value: &Value) -> f64 {
    let text = value.as_str().unwrap_or_default();
    let digits = text.trim_end_matches(|it: char| it.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        _ => f64::NAN,
    };
    digits.parse().unwrap_or(f64::NAN) * unit
}
