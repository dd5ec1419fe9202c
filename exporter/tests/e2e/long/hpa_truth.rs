//! What the HPA makes of figures that go away: a gauge whose series vanishes, an agent that stays dead, and containers that crash
//! again and again, under the real controller. The agents are rehearsed.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::support::stage::{CUSTOM, Look, RPS, Stage, by_pods, hpa};
use serde_json::json;

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
    assert!(values.values().all(|it| *it == 3.0), "{values:?}");
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
