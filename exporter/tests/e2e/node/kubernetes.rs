//! gopulse in a real cluster, by the manifests that are shipped: kube-apiserver, the controllers, a kubelet and containerd on
//! this machine, and pods of one image on overlayfs.

use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};

use crate::support::{
    agent::Counts,
    cluster::{ENABLED, Lab, NAMESPACE, Pod},
};
use serde_json::Value;
use xtask::cluster::{NODE, wait_for};

fn named(lab: &Lab, pods: &[Pod]) {
    let scrape = lab.scrape();
    let named: Vec<String> = scrape.pods().into_iter().collect();
    let mut wanted: Vec<String> = pods.iter().map(|pod| pod.name.clone()).collect();
    wanted.sort();
    assert_eq!(named, wanted, "the pods that /metrics names");
    assert_eq!(scrape.lost(), Vec::<String>::new());
}

/// Three workloads, of which two opt in; the agent runs with what the manifests give it and nothing more.
#[test]
fn two_of_three_workloads_are_measured() {
    let lab = Lab::start();
    as_shipped(&lab);

    let checkout = lab.deploy("checkout", 1, &[ENABLED]);
    let catalog = lab.deploy("catalog", 2, &[ENABLED, ("gopulse.io/routes", "/items/{item}")]);
    let silent = lab.deploy("silent", 1, &[]);
    let measured = [checkout.clone(), catalog.clone()].concat();
    lab.wait_measured(&measured);

    let mut wanted: BTreeMap<Pod, Counts> = BTreeMap::new();
    for (pod, requests) in measured.iter().zip([1000, 2000, 3000]) {
        wanted.insert(pod.clone(), pod.load(requests));
    }
    silent[0].load(500);
    for (pod, wanted) in &wanted {
        lab.assert_counts(pod, wanted);
    }
    named(&lab, &measured);
    for pod in &measured {
        let workload = if pod.name.starts_with("checkout") { "checkout" } else { "catalog" };
        let scrape = lab.scrape();
        let info =
            scrape.samples.iter().find(|sample| sample.name == "go_target_info" && sample.label("pod") == pod.name);
        let info = info.expect("each target has its go_target_info");
        let said = ["namespace", "container", "node", "workload", "workload_kind"].map(|label| info.label(label));
        assert_eq!(said, [NAMESPACE, "app", NODE, workload, "Deployment"], "go_target_info of {}", pod.name);
    }
    println!("3 workloads, 2 annotated: {} pods measured, {} requests, all equal", wanted.len(), 6000);
}

/// The process that runs is as the DaemonSet's security context says.
fn as_shipped(lab: &Lab) {
    let pod = lab.agent_pod();
    let context = &pod["spec"]["containers"][0]["securityContext"];
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().expect("it runs");
    let pid = lab.cluster.node().container_pid(id).expect("containerd knows it");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap_or_default();
        line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let added = context["capabilities"]["add"].as_array().expect("it adds some");
    let bit = |name: &Value| match name.as_str() {
        Some("SYS_PTRACE") => 1_u64 << 19,
        Some("PERFMON") => 1 << 38,
        Some("BPF") => 1 << 39,
        other => panic!("a capability that this test does not know: {other:?}"),
    };
    let wanted: u64 = added.iter().map(bit).sum();
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        let has = u64::from_str_radix(&field(set)[0], 16).expect("a mask");
        assert_eq!(has, wanted, "{set} of the agent, {context}");
    }
    let user = context["runAsUser"].to_string();
    assert_eq!(field("Uid"), vec![user; 4]);
    assert_eq!(field("NoNewPrivs"), ["1"]);
    assert_eq!(field("Seccomp"), ["2"], "a seccomp filter");
    let mounts = fs::read_to_string(format!("/proc/{pid}/mounts")).expect("it runs");
    let root = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/")).expect("it has a root");
    assert!(root.contains(" overlay ro"), "the root is not read-only: {root}");
    println!("the agent runs as uid {}, capabilities {added:?}, seccomp on, root read-only", context["runAsUser"]);
}

/// Twenty replicas of one image share one inode, and with it their probes: each request counts once, for its own pod, and only
/// if that has opted in.
#[test]
fn twenty_replicas_of_one_image() {
    let lab = Lab::start();
    let pods = lab.deploy("shop", 20, &[]);
    let inode = |pod: &Pod| {
        use std::os::unix::fs::MetadataExt;
        let pid = lab.cluster.node().container_pid(&pod.container_id).expect("it runs");
        fs::metadata(format!("/proc/{pid}/root/app")).expect("it has its executable").ino()
    };
    assert!(pods.iter().all(|pod| inode(pod) == inode(&pods[0])), "the replicas do not share their layer");

    let (half, others) = pods.split_at(10);
    let mut wanted: BTreeMap<&Pod, Counts> = BTreeMap::new();
    for (opted, what) in [(half, "half"), (others, "all")] {
        let start = Instant::now();
        for pod in opted {
            lab.annotate(pod, "gopulse.io/enabled=true");
            wanted.insert(pod, Counts::new());
        }
        lab.wait_measured(wanted.keys().copied());
        println!(
            "{what} of the replicas opted in, all measured {:.1} s after the first",
            start.elapsed().as_secs_f64()
        );
        // At once, and each another number, so that a request counted for another pod shows.
        let sent: Vec<Counts> = thread::scope(|scope| {
            let loads: Vec<_> =
                pods.iter().zip(1..).map(|(pod, hundreds)| scope.spawn(move || pod.load(hundreds * 100))).collect();
            loads.into_iter().map(|load| load.join().expect("the load ran")).collect()
        });
        for (pod, sent) in pods.iter().zip(&sent) {
            if let Some(wanted) = wanted.get_mut(pod) {
                for (key, count) in sent {
                    *wanted.entry(key.clone()).or_default() += count;
                }
                lab.assert_counts(pod, wanted);
            }
        }
        named(&lab, &wanted.keys().map(|&pod| pod.clone()).collect::<Vec<_>>());
    }
    let targets = xtask::service::get(lab.agent, "/targets").expect("/targets answers");
    assert_eq!(
        targets.matches("\"probe_scope\": \"file\"").count(),
        20,
        "an image's file keeps its content: {targets}"
    );
    let total: u64 = wanted.values().flat_map(BTreeMap::values).sum();
    println!("20 replicas, one inode: {total} requests, each counted once and for its own pod");
}

/// An annotation takes effect on a pod that runs; one that cannot be used is told at the pod and at `/targets`.
#[test]
fn annotations_of_a_running_pod() {
    let lab = Lab::start();
    let pod = lab.deploy("shop", 1, &[]).remove(0);
    let timed = |annotation: &str, wanted: &[Pod]| {
        lab.annotate(&pod, annotation);
        println!("{annotation}: in force {:.2} s later", lab.wait_measured(wanted).as_secs_f64());
    };
    named(&lab, &[]);
    let one = [pod.clone()];
    timed("gopulse.io/enabled=true", &one);
    lab.assert_counts(&pod, &pod.load(200));
    timed("gopulse.io/enabled-", &[]);
    pod.load(100);
    // The namespace's default, and a pod that refuses it.
    lab.kubectl(&["annotate", "namespace", NAMESPACE, "gopulse.io/enabled=true"]);
    lab.wait_measured(&one);
    timed("gopulse.io/enabled=false", &[]);
    lab.kubectl(&["annotate", "namespace", NAMESPACE, "gopulse.io/enabled-"]);
    timed("gopulse.io/enabled=true", &one);

    lab.annotate(&pod, "gopulse.io/features=htpp");
    let selector = format!("involvedObject.name={},type=Warning", pod.name);
    let told = || {
        let events = lab.cluster.plane().get(&["events", "-n", NAMESPACE, "--field-selector", &selector])?;
        let messages = events["items"].as_array().into_iter().flatten().filter_map(|event| event["message"].as_str());
        Ok(messages.filter(|message| message.contains("htpp")).map(str::to_owned).next())
    };
    let message = wait_for("an Event tells of the bad annotation", Duration::from_secs(30), told)
        .unwrap_or_else(|error| panic!("{error:#}; the agent's log:\n{}", lab.agent_log()));
    println!("the Event: {message}");
    let targets = xtask::service::get(lab.agent, "/targets").expect("/targets answers");
    assert!(targets.contains("htpp"), "/targets does not tell of it: {targets}");
    // The default stands.
    lab.wait_measured(&one);
}
