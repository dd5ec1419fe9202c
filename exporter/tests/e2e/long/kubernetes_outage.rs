//! The API server of a real cluster goes away and comes back. Short by default; `GOPULSE_OUTAGE_SECONDS=60` is the long form.

use std::{
    env,
    time::{Duration, Instant},
};

use crate::support::{
    agent::Counts,
    cluster::{ENABLED, Lab, NAMESPACE, Pod, deployment},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use xtask::cluster::wait_for;

const PATIENCE: Duration = Duration::from_mins(2);

/// A length of time from the environment, or the short form's.
fn seconds(variable: &str, short: u64) -> Duration {
    Duration::from_secs(env::var(variable).ok().map_or(short, |value| value.parse().expect("a number of seconds")))
}

fn add(to: &mut Counts, counts: &Counts) {
    for (key, count) in counts {
        *to.entry(key.clone()).or_default() += count;
    }
}

/// The API server is gone for a while: measuring goes on, and what came meanwhile is attached when it is back.
#[test]
fn api_server_outage() {
    let outage = seconds("GOPULSE_OUTAGE_SECONDS", 8);
    let mut lab = Lab::start();
    let pods = lab.deploy("shop", 2, &[ENABLED]);
    lab.wait_measured(&pods);
    let mut sent: Vec<Counts> = pods.iter().map(|pod| pod.load(200)).collect();

    lab.cluster.plane_mut().stop_api_server().expect("it runs");
    let start = Instant::now();
    // A container that dies meanwhile is started again under an id that the agent cannot know, and so is a pod that the
    // kubelet has from a file.
    let pid = lab.cluster.node().container_pid(&pods[1].container_id).expect("it runs");
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).expect("it runs");
    let meanwhile: serde_json::Value = serde_json::from_str(&deployment("static", 1, &[ENABLED])).expect("it is JSON");
    let mut template = meanwhile["spec"]["template"].clone();
    template["apiVersion"] = "v1".into();
    template["kind"] = "Pod".into();
    template["metadata"]["name"] = "static".into();
    template["metadata"]["namespace"] = NAMESPACE.into();
    lab.cluster.node().write_static_pod("static", &template.to_string()).expect("the kubelet reads it");
    let down =
        || Ok((lab.scrape().value("exporter_kubernetes_watch_up", "resource", "pods") == Some(0.0)).then_some(()));
    wait_for("the agent says that it cannot watch", PATIENCE, down).unwrap_or_else(|error| panic!("{error:#}"));
    while start.elapsed() < outage {
        add(&mut sent[0], &pods[0].load(200));
    }
    lab.assert_counts(&pods[0], &sent[0]);
    let ready = xtask::service::get(lab.agent, "/readyz").expect("it stays ready: what it knows, it measures");
    println!("/readyz in the outage: {}", ready.trim());

    lab.cluster.plane_mut().start_api_server().expect("it starts again");
    let back = Instant::now();
    let mut known = None;
    let all = || {
        let now: Vec<Pod> = [lab.pods("shop"), lab.pods("static")].concat();
        let restarted = now.iter().any(|pod| pod.name == pods[1].name && pod.restarts > 0);
        if now.len() == 3 && restarted {
            known.get_or_insert_with(Instant::now);
            return Ok(now.iter().all(|pod| lab.is_container_measured(pod)).then_some(now));
        }
        Ok(None)
    };
    let now = wait_for("all three are measured", PATIENCE, all).unwrap_or_else(|error| {
        panic!("{error:#}: {:?}; measured {:?}\n{}", lab.pods("shop"), lab.measured(), lab.agent_log())
    });
    let attached = known.map_or(Duration::ZERO, |known| known.elapsed());
    println!(
        "outage of {:.0} s; all measured {:.1} s after the API server was back, {:.1} s after it knew the containers",
        outage.as_secs_f64(),
        back.elapsed().as_secs_f64(),
        attached.as_secs_f64(),
    );
    for pod in &now {
        let mut wanted = lab.counts(pod);
        add(&mut wanted, &pod.load(200));
        lab.assert_counts(pod, &wanted);
    }
    lab.assert_counts(&pods[0], &{
        let mut all = sent[0].clone();
        add(&mut all, &crate::support::cluster::mix_of(200));
        all
    });
}
