//! The same at several nodes, of which one is away at a time: a real control plane, and rehearsed agents, since this machine is one
//! node.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::json;

use super::{
    EACH, LOAD, REPLICAS,
    hand::{Dice, signal},
    number,
    watch::{Scaled, Watch, audited},
};
use crate::support::{
    scratch,
    stage::{CUSTOM, RPS, Stage},
};

/// What is done to the cluster.
const KINDS: [&str; 8] = [
    "agent killed",
    "agent away",
    "agent stands still",
    "metrics-api killed",
    "container in back-off",
    "pod deleted",
    "rolled out",
    "API server restarted",
];

fn act(stage: &mut Stage, dice: &mut Dice, kind: &str, note: &impl Fn(String)) {
    let pods = |stage: &Stage| {
        let pods = stage.plane.get(&["pods", "-n", "shop", "-l", "app=shop"]).unwrap_or_default();
        let names = pods["items"].as_array().into_iter().flatten();
        names.filter_map(|it| it["metadata"]["name"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let agent = dice.roll(stage.agents.len());
    let names = pods(stage);
    let pod = names.get(dice.roll(names.len().max(1))).cloned().unwrap_or_default();
    let time = match kind {
        "agent killed" => Duration::ZERO,
        "agent away" => dice.seconds(5, 60),
        _ => dice.seconds(1, 25),
    };
    note(format!("{kind}: agent {agent}, pod {pod}, {time:?}"));
    let kubectl = |stage: &Stage, arguments: &[&str]| drop(stage.plane.kubectl(arguments));
    match kind {
        "agent killed" | "agent away" => stage.restart_agent(agent, time),
        "agent stands still" => {
            let pid = stage.agents[agent].0.id() as i32;
            let _ = signal(pid, Signal::SIGSTOP);
            thread::sleep(time);
            let _ = signal(pid, Signal::SIGCONT);
        }
        "metrics-api killed" => {
            stage.api = None;
            stage.start_api();
        }
        "container in back-off" => {
            stage.load.lock().unwrap().crashed.insert(pod.clone());
            thread::sleep(time);
            stage.load.lock().unwrap().crashed.remove(&pod);
        }
        "pod deleted" => kubectl(stage, &["delete", "pod", "-n", "shop", &pod, "--wait=false"]),
        "rolled out" => kubectl(stage, &["rollout", "restart", "-n", "shop", "deployment", "shop"]),
        _ => {
            stage.plane.stop_api_server().expect("it runs");
            thread::sleep(time);
            stage.plane.start_api_server().expect("it starts again");
        }
    }
}

#[test]
fn hpa_churn_of_several_nodes() {
    let length = Duration::from_secs(number("GOPULSE_CHURN_SECONDS", 240));
    let seed = number("GOPULSE_CHURN_SEED", 16);
    let (flags, audit) = audited(&scratch("hpa-churn-nodes"));
    let mut stage = Stage::with_flags(flags);
    stage.start_api();
    stage.set_load(LOAD);
    let path = format!("{CUSTOM}/v1beta2/namespaces/shop/deployments.apps/shop/{RPS}");
    let metric = json!({"type": "Object", "object": {
        "describedObject": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"},
        "metric": {"name": RPS}, "target": {"type": "AverageValue", "averageValue": EACH.to_string()},
    }});
    stage.plane.apply(&super::hpa("shop", &metric)).unwrap();
    stage.settle(REPLICAS as u64);
    let of = [Scaled { name: "shop", path, load: LOAD, target: EACH }];
    let (churn, over) = (Mutex::default(), AtomicBool::new(false));
    let begun = Instant::now();
    let mut watch = Watch::new(stage.plane.kubeconfig(), &audit, &of, begun, &churn);
    let note = |what: String| {
        println!("{:.0} s: {what}", begun.elapsed().as_secs_f64());
        churn.lock().expect("nobody panics with it").push((begun.elapsed(), what));
    };
    let mut done: BTreeMap<&str, u32> = BTreeMap::new();
    let watch = thread::scope(|scope| {
        let over = &over;
        let watching = scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                watch.look(|_| (LOAD * begun.elapsed().as_secs_f64()) as u64);
                thread::sleep(Duration::from_secs(1));
            }
            watch.end();
            watch
        });
        let changes = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut dice = Dice(seed);
            thread::sleep(Duration::from_secs(25));
            let mut bag: Vec<&str> = Vec::new();
            let start = Instant::now();
            while start.elapsed() < length {
                if bag.is_empty() {
                    bag = KINDS.to_vec();
                }
                let kind = bag.swap_remove(dice.roll(bag.len()));
                *done.entry(kind).or_default() += 1;
                act(&mut stage, &mut dice, kind, &note);
                let pause = if dice.roll(3) == 0 { Duration::ZERO } else { dice.seconds(3, 20) };
                thread::sleep(pause);
            }
            thread::sleep(Duration::from_secs(30));
        }));
        over.store(true, Ordering::Relaxed);
        if let Err(panic) = changes {
            std::panic::resume_unwind(panic);
        }
        watching.join().expect("it watched")
    });
    println!("seed {seed}, {} things done: {done:?}\n{}", done.values().sum::<u32>(), watch.summary());
    let too_long = watch.excursions.iter().filter(|it| it.is_too_long()).count();
    assert_eq!(too_long, 0, "excursions that outlasted the next look of the controller: they are above");
    assert!(watch.has_judged(), "the machine is too busy: the load was not constant for most of the time");
}
