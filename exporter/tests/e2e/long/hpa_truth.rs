//! What the HPA makes of figures that go away: a gauge whose series vanishes, an agent that stays dead, and containers that crash
//! again and again, under the real controller with rehearsed agents; and real containers that come back, measured by the real agent.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    cluster::{Lab, NAMESPACE, Pod, overlay},
    stage::{CUSTOM, Look, RPS, Stage, by_pods, hpa, quantity},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use xtask::cluster::{Options, wait_for};

const WAITING: &str = "go_goroutines_waiting";

#[test]
fn a_reason_that_nobody_waits_for_any_more_lets_the_hpa_scale_down() {
    let stage = Stage::set();
    stage.load.lock().unwrap().waiting = [("select", 3), ("semacquire", 60)].into();
    let target = json!({"type": "AverageValue", "averageValue": "20"});
    stage.plane.apply(&hpa(&json!({"type": "Pods", "pods": {"metric": {"name": WAITING}, "target": target}}))).unwrap();
    stage.until("scaled up for those who wait", || (stage.desired() == 8).then_some(()));
    stage.load.lock().unwrap().waiting = [("select", 3)].into();
    stage.until("scaled down when they are gone", || (stage.desired() == 2).then_some(()));
    let values = stage.values(&format!("{CUSTOM}/v1beta2/namespaces/shop/pods/*/{WAITING}"));
    assert!(values.values().all(|it| (2.9..=3.1).contains(it)), "{values:?}");
}

/// Longer than anything is remembered: the total stays refused, and nothing is scaled down.
#[test]
fn a_total_without_a_dead_agents_share_stays_refused() {
    let mut stage = Stage::set();
    let described = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"});
    let target = json!({"type": "AverageValue", "averageValue": "50"});
    let metric = json!({"describedObject": described, "metric": {"name": RPS}, "target": target});
    stage.plane.apply(&hpa(&json!({"type": "Object", "object": metric}))).unwrap();
    stage.set_load(300.0);
    stage.settle(6);
    stage.agents.truncate(1);
    let path = format!("{CUSTOM}/v1beta2/namespaces/shop/deployments.apps/shop/{RPS}");
    stage.until("refused", || stage.raw(&path).err());
    let killed = Instant::now();
    while killed.elapsed() < Duration::from_secs(330) {
        let told = stage.raw(&path);
        assert!(told.as_ref().is_err_and(|it| it.contains("have no figures")), "{told:?} after {:?}", killed.elapsed());
        assert_eq!(stage.desired(), 6);
        thread::sleep(Duration::from_secs(5));
    }
}

/// Crashes under constant load: as many replicas as before, whenever the controller looks.
#[test]
fn containers_that_crash_again_and_again_scale_nothing_up() {
    let stage = Stage::set();
    stage.plane.apply(&hpa(&by_pods())).unwrap();
    stage.settle(2);
    for seconds in [1, 7, 12, 20] {
        stage.load.lock().unwrap().away = true;
        thread::sleep(Duration::from_secs(seconds));
        stage.load.lock().unwrap().away = false;
        stage.looked(5, Look::Decided, "40 requests a second each, as before", |desired| desired == 2);
    }
}

/// A value of the pods, or of their Deployment.
fn told(lab: &Lab, of: &str) -> Option<f64> {
    let path = format!("{CUSTOM}/v1beta2/namespaces/{NAMESPACE}/{of}/{RPS}");
    let list: Value = serde_json::from_str(&lab.cluster.plane().kubectl(&["get", "--raw", &path]).ok()?).ok()?;
    list["items"].as_array()?.first().map(|item| quantity(&item["value"]))
}

/// Looks on until `so`, and for some seconds more: a pod that nobody asks anything of has no requests a second.
fn idle_until(lab: &Lab, what: &str, mut so: impl FnMut() -> bool) {
    let look = || {
        for of in ["pods/*", "deployments.apps/shop"] {
            let value = told(lab, of);
            assert!(value.is_none_or(|it| it < 5.0), "{what}: {of} has {value:?} requests a second");
        }
    };
    wait_for(what, Duration::from_mins(2), || {
        look();
        Ok(so().then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", lab.agent_log()));
    for _ in 0..20 {
        look();
        thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn real_containers_that_come_back_bring_no_history() {
    let options = Options { aggregator_routing: true, ..Options::default() };
    let lab = Lab::start_with(&options, &overlay(&["hpa"], &[]));
    let pods = lab.deploy("shop", 1, &[("gopulse.io/enabled", "true")]);
    lab.wait_measured(&pods);
    let value = |of: &str| told(&lab, of);
    wait_for("the Deployment has a value", Duration::from_mins(2), || Ok(value("deployments.apps/shop"))).unwrap();
    pods[0].load(10_000);
    wait_for("they are counted", Duration::from_mins(1), || Ok(value("pods/*").filter(|it| *it > 50.0))).unwrap();
    wait_for("they are past", Duration::from_mins(1), || Ok(value("pods/*").filter(|it| *it < 5.0))).unwrap();

    let crash = |pod: &Pod| {
        let pid = lab.cluster.node().container_pid(&pod.container_id).expect("it runs");
        kill(Pid::from_raw(pid as i32), Signal::SIGKILL).expect("it runs");
    };
    // The second time the kubelet waits for 10 s, the third for 20.
    for restarts in 1..=3 {
        crash(&lab.pods("shop")[0]);
        let again =
            || lab.pods("shop").first().is_some_and(|pod| pod.restarts == restarts && lab.is_container_measured(pod));
        idle_until(&lab, &format!("crash {restarts}"), again);
        wait_for("it has a value", Duration::from_mins(1), || Ok(value("pods/*"))).unwrap();
    }
    let pod = lab.pods("shop").remove(0);
    lab.annotate(&pod, "gopulse.io/enabled=false");
    idle_until(&lab, "opted out", || value("pods/*").is_none());
    lab.annotate(&pod, "gopulse.io/enabled=true");
    idle_until(&lab, "opted in", || value("pods/*").is_some());
    // The metrics-api and the agent, each started anew.
    let metrics_api = ["-l", "app.kubernetes.io/name=gopulse-metrics-api"];
    lab.kubectl(&[&["delete", "pod", "-n", "gopulse", "--wait=true"][..], &metrics_api].concat());
    idle_until(&lab, "the metrics-api is there again", || value("deployments.apps/shop").is_some());
    kill(Pid::from_raw(lab.agent_pid() as i32), Signal::SIGKILL).expect("it runs");
    idle_until(&lab, "the agent is there again", || value("deployments.apps/shop").is_some());
    pod.load(1_000);
    wait_for("requests are counted", Duration::from_mins(1), || Ok(value("pods/*").filter(|it| *it > 10.0))).unwrap();
}
