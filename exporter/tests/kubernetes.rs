//! gopulse in a real cluster, by the manifests that are shipped: kube-apiserver, the controllers, a kubelet and containerd on
//! this machine, and pods of one image on overlayfs.

mod support;

use std::{collections::BTreeMap, fs};

use serde_json::Value;
use support::{
    agent::Counts,
    cluster::{Lab, NAMESPACE, Pod},
};
use xtask::cluster::NODE;

const ENABLED: (&str, &str) = ("gopulse.io/enabled", "true");

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
