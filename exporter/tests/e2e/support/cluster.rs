//! A cluster with gopulse in it as it is shipped: the manifests of `daemonset/` applied to a real API server, and run by a
//! real kubelet and containerd. What tests deploy are the sample services, in images from scratch.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use serde_json::Value;
use xtask::{
    cluster::{Cluster, Image, Node, Options, wait_for},
    go::{Service, Variant},
    service, util,
};

use super::{
    agent::{Counts, Scrape, binary, method},
    load, must_be_root,
};

/// The namespace of the agent.
pub(crate) const AGENT_NAMESPACE: &str = "gopulse";
/// The namespace of what is measured.
pub(crate) const NAMESPACE: &str = "shop";
/// The image of the measured service.
pub(crate) const IMAGE: &str = "gopulse.test/counted:1";
/// How long pods and probes may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);
/// The ports of the service in its pods.
const PORT: u16 = 8080;
const ADMIN_PORT: u16 = 8081;

/// What is sent to pods: each hundred requests holds each line as often as its weight says.
pub(crate) const MIX: [&str; 5] = [
    "GET /hello 200 /hello 60",
    "POST /items 201 /items 10 send=abc",
    "GET /items/{n} 200 /items/{id} 20",
    "GET /items/0 404 /items/{id} 5",
    "GET /fail 500 /fail 5",
];

/// The annotation of a pod that opts in.
pub(crate) const ENABLED: (&str, &str) = ("gopulse.io/enabled", "true");

/// A cluster with the agent in it.
pub(crate) struct Lab {
    /// The cluster.
    pub(crate) cluster: Cluster,
    /// Where the agent serves.
    pub(crate) agent: SocketAddr,
}

/// A pod that runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pod {
    /// Its name.
    pub(crate) name: String,
    /// Its address.
    pub(crate) ip: String,
    /// Its container's id, as its status has it.
    pub(crate) container_id: String,
    /// How often the container was started again.
    pub(crate) restarts: u64,
}

impl Pod {
    /// Where its service listens.
    pub(crate) fn address(&self) -> String {
        format!("{}:{PORT}", self.ip)
    }

    /// Sends that many requests of [`MIX`], every answer being the expected one; what was sent.
    pub(crate) fn load(&self, requests: u64) -> Counts {
        let report = load(&["-address", &self.address(), "-n", &requests.to_string(), "-c", "4"], &MIX);
        assert_eq!(report.total, requests);
        super::agent::counted_by_load(&report)
    }
}

impl Lab {
    /// Starts a cluster, and the agent in it by the manifests that are shipped.
    pub(crate) fn start() -> Self {
        Self::start_with(&Options::default(), &manifests("base"))
    }

    /// Starts a cluster with these options, and the agent in it by this kustomization.
    pub(crate) fn start_with(options: &Options, kustomization: &Path) -> Self {
        Self::start_all(options, kustomization, |node| node.import(&agent_image()))
    }

    /// Starts a cluster, and the agent from this archive of an image.
    pub(crate) fn start_image(archive: &Path) -> Self {
        Self::start_all(&Options::default(), &manifests("base"), |node| node.import_archive(archive))
    }

    fn start_all(
        options: &Options,
        kustomization: &Path,
        import_agent: impl FnOnce(&Node) -> anyhow::Result<()>,
    ) -> Self {
        must_be_root();
        let cluster = Cluster::start(options).unwrap_or_else(|error| panic!("no cluster: {error:#}"));
        let node = cluster.node();
        let counted = Service { name: "counted".to_owned(), go: "local".to_owned(), variant: Variant::Static };
        let counted = xtask::go::build(&counted).unwrap_or_else(|error| panic!("counted does not build: {error:#}"));
        node.import(&Image::of(IMAGE, &counted)).expect("containerd takes the service's image");
        import_agent(node).expect("containerd takes the agent's image");
        let mut lab = Self { cluster, agent: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let shipped = lab.kubectl(&["kustomize", &kustomization.display().to_string()]);
        lab.apply(&shipped);
        lab.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n"));
        lab.agent = lab.wait_for_agent();
        lab
    }

    fn wait_for_agent(&self) -> SocketAddr {
        let ready = || {
            let pod = self.agent_pod();
            let ready = pod["status"]["containerStatuses"][0]["ready"] == true;
            let ip = pod["status"]["podIP"].as_str().filter(|_| ready);
            Ok(ip.and_then(|ip| format!("{ip}:9464").parse().ok()))
        };
        wait_for("the agent's pod gets ready", PATIENCE, ready).unwrap_or_else(|error| {
            let describe = self.kubectl(&["describe", "pods", "-n", AGENT_NAMESPACE]);
            panic!("{error:#}\n{describe}\n{}", self.agent_log())
        })
    }

    /// The agent's pod, as the API server has it.
    pub(crate) fn agent_pod(&self) -> Value {
        let pods = self.cluster.plane().get(&["pods", "-n", AGENT_NAMESPACE, "-l", "app.kubernetes.io/name=gopulse"]);
        pods.expect("the API server answers")["items"][0].clone()
    }

    /// What the agent has logged.
    pub(crate) fn agent_log(&self) -> String {
        let logs = ["logs", "-n", AGENT_NAMESPACE, "-l", "app.kubernetes.io/name=gopulse", "--tail=-1"];
        self.cluster.plane().kubectl(&logs).unwrap_or_else(|error| format!("{error:#}"))
    }

    /// Runs kubectl.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        self.cluster.plane().kubectl(arguments).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Applies manifests.
    pub(crate) fn apply(&self, manifests: &str) {
        self.cluster.plane().apply(manifests).unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Deploys the service and waits until its pods are ready.
    pub(crate) fn deploy(&self, name: &str, replicas: usize, annotations: &[(&str, &str)]) -> Vec<Pod> {
        self.apply(&deployment(name, replicas, annotations));
        self.wait_for_pods(name, replicas)
    }

    /// The pods of a Deployment that are ready and are not being deleted.
    pub(crate) fn pods(&self, name: &str) -> Vec<Pod> {
        let pods = self.cluster.plane().get(&["pods", "-n", NAMESPACE, "-l", &format!("app={name}")]);
        let pods = pods.expect("the API server answers");
        let mut found: Vec<Pod> = pods["items"].as_array().into_iter().flatten().filter_map(ready_pod).collect();
        found.sort();
        found
    }

    /// Waits until a Deployment has that many pods, all ready, and no other.
    pub(crate) fn wait_for_pods(&self, name: &str, replicas: usize) -> Vec<Pod> {
        let there = || {
            let pods = self.pods(name);
            Ok((pods.len() == replicas).then_some(pods))
        };
        wait_for(&format!("{replicas} pods of {name}"), PATIENCE, there).unwrap_or_else(|error| {
            panic!("{error:#}\n{}", self.kubectl(&["describe", "pods", "-n", NAMESPACE, "-l", &format!("app={name}")]))
        })
    }

    /// `/metrics` of the agent.
    pub(crate) fn scrape(&self) -> Scrape {
        Scrape::of_address(self.agent)
    }

    /// `/targets` of the agent.
    pub(crate) fn targets(&self) -> Vec<Value> {
        let text = service::get(self.agent, "/targets").expect("/targets answers");
        serde_json::from_str(&text).expect("/targets is JSON")
    }

    /// The pods whose containers are measured now.
    pub(crate) fn measured(&self) -> BTreeSet<String> {
        let measured = self.targets().into_iter().filter(|target| target["state"] == "measured");
        measured.filter_map(|target| target["pod"].as_str().map(str::to_owned)).collect()
    }

    /// Waits until exactly these pods are measured; how long that took.
    pub(crate) fn wait_measured<'a>(&self, pods: impl IntoIterator<Item = &'a Pod>) -> Duration {
        let start = std::time::Instant::now();
        let wanted: BTreeSet<String> = pods.into_iter().map(|pod| pod.name.clone()).collect();
        let measured = || Ok((self.measured() == wanted).then_some(()));
        wait_for(&format!("exactly {wanted:?} are measured"), Duration::from_secs(30), measured).unwrap_or_else(
            |error| panic!("{error:#}; measured are {:?}; the agent's log:\n{}", self.measured(), self.agent_log()),
        );
        start.elapsed()
    }

    /// Whether the process of a pod's container, as its status names it, is measured now.
    pub(crate) fn is_container_measured(&self, pod: &Pod) -> bool {
        let Ok(pid) = self.cluster.node().container_pid(&pod.container_id) else { return false };
        self.targets().iter().any(|target| target["pid"] == pid && target["state"] == "measured")
    }

    /// Waits until the process of a pod's container is measured.
    pub(crate) fn wait_container_measured(&self, pod: &Pod) {
        let measured = || Ok(self.is_container_measured(pod).then_some(()));
        wait_for(&format!("the container of {} is measured", pod.name), PATIENCE, measured)
            .unwrap_or_else(|error| panic!("{error:#}; the agent's log:\n{}", self.agent_log()));
    }

    /// The agent's process.
    pub(crate) fn agent_pid(&self) -> u32 {
        let pod = self.agent_pod();
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().expect("it runs");
        self.cluster.node().container_pid(id).expect("containerd knows it")
    }

    /// What the agent has counted for a pod's container `app`.
    pub(crate) fn counts(&self, pod: &Pod) -> Counts {
        self.scrape().counts_of_pod(&pod.name)
    }

    /// Asserts that the agent comes to these counts for a pod, and that no series of it has a wrong label.
    pub(crate) fn assert_counts(&self, pod: &Pod, wanted: &Counts) {
        super::settles(&format!("requests of {}", pod.name), wanted, || self.counts(pod));
    }

    /// A setting of the pod template's or a pod's annotation; an empty value takes it away.
    pub(crate) fn annotate(&self, pod: &Pod, annotation: &str) {
        self.kubectl(&["annotate", "--overwrite", "-n", NAMESPACE, "pod", &pod.name, annotation]);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the agent's log:\n{}", self.agent_log());
        }
    }
}

impl Scrape {
    /// The requests of a pod's container `app`, by method, status and route.
    pub(crate) fn counts_of_pod(&self, pod: &str) -> Counts {
        let mut counts = BTreeMap::new();
        let name = "http_server_request_duration_seconds_count";
        for sample in self.samples.iter().filter(|sample| sample.name == name && sample.label("pod") == pod) {
            assert_eq!(
                (sample.label("namespace"), sample.label("container")),
                (NAMESPACE, "app"),
                "labels of {sample:?}"
            );
            let status = sample.label("http_response_status_code").parse().unwrap_or(0);
            let key = (method(sample.label("http_request_method")), status, sample.label("http_route").to_owned());
            *counts.entry(key).or_default() += sample.value as u64;
        }
        counts
    }

    /// The pods that any series names.
    pub(crate) fn pods(&self) -> BTreeSet<String> {
        let named = self.samples.iter().map(|sample| sample.label("pod")).filter(|pod| !pod.is_empty());
        named.map(str::to_owned).collect()
    }

    /// The value of a metric's sample with this label.
    pub(crate) fn value(&self, name: &str, label: &str, value: &str) -> Option<f64> {
        let mut samples = self.samples.iter().filter(|sample| sample.name == name && sample.label(label) == value);
        samples.next().map(|sample| sample.value)
    }
}

/// What that many requests of [`MIX`], a multiple of 100, are counted as.
pub(crate) fn mix_of(requests: u64) -> Counts {
    let mut counts = Counts::new();
    for line in MIX {
        let words: Vec<&str> = line.split(' ').collect();
        let weight: u64 = words[4].parse().expect("a weight");
        let key = (words[0].to_owned(), words[2].parse().expect("a status"), words[3].to_owned());
        *counts.entry(key).or_default() += weight * requests / 100;
    }
    counts
}

/// A directory of shipped manifests.
pub(crate) fn manifests(name: &str) -> PathBuf {
    util::root().join("daemonset").join(name)
}

/// A kustomization of the shipped base with these components, and with patches of the test's own.
pub(crate) fn overlay(components: &[&str], patches: &[Value]) -> PathBuf {
    let directory = super::scratch("overlay");
    // kustomize wants relative paths.
    let up = "../".repeat(directory.components().count() - 1);
    let shipped = |name: &str| format!("{up}{}", manifests(name).display().to_string().trim_start_matches('/'));
    let components: Vec<String> = components.iter().map(|name| shipped(&format!("components/{name}"))).collect();
    let kustomization = serde_json::json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [shipped("base")],
        "components": components,
        "patches": patches,
    });
    std::fs::write(directory.join("kustomization.yaml"), kustomization.to_string()).expect("it is writable");
    directory
}

/// A Deployment of the service: each pod has one container, `app`.
pub(crate) fn deployment(name: &str, replicas: usize, annotations: &[(&str, &str)]) -> String {
    let annotations: BTreeMap<&str, &str> = annotations.iter().copied().collect();
    let listen = ["-http", &format!(":{PORT}"), "-admin", &format!(":{ADMIN_PORT}"), "-https", "-", "-h2c", "-"];
    serde_json::json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name }, "annotations": annotations },
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "automountServiceAccountToken": false,
                    "containers": [{
                        "name": "app",
                        "image": IMAGE,
                        "args": listen,
                        "resources": { "requests": { "cpu": "1m" } },
                        "readinessProbe": { "tcpSocket": { "port": PORT }, "periodSeconds": 1 },
                    }],
                },
            },
        },
    })
    .to_string()
}

fn ready_pod(pod: &Value) -> Option<Pod> {
    let status = &pod["status"];
    let container = &status["containerStatuses"][0];
    let alive = pod["metadata"]["deletionTimestamp"].is_null() && container["ready"] == true;
    alive.then_some(Pod {
        name: pod["metadata"]["name"].as_str()?.to_owned(),
        ip: status["podIP"].as_str()?.to_owned(),
        container_id: container["containerID"].as_str()?.to_owned(),
        restarts: container["restartCount"].as_u64()?,
    })
}

/// The agent's image under the name that the manifests give: its executable, and what that is linked with.
fn agent_image() -> Image {
    let agent = binary();
    let mut files = vec![("gopulse".to_owned(), agent.clone())];
    let linked = util::output(std::process::Command::new("ldd").arg(&agent)).unwrap_or_default();
    for word in linked.split_whitespace().filter(|word| word.starts_with('/') && Path::new(word).is_file()) {
        files.push((word.to_owned(), PathBuf::from(word)));
    }
    Image { name: xtask::image::NAME.to_owned(), files, entrypoint: vec!["/gopulse".to_owned()], user: String::new() }
}
