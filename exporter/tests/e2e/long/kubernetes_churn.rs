//! gopulse in a real cluster where everything changes under load: annotations, replicas, containers that are killed, versions
//! rolled out. Short by default; `GOPULSE_CHURN_SECONDS=300` is the long form.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    agent::{Counts, Scrape},
    cluster::{ENABLED, Lab, NAMESPACE, Pod},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use xtask::cluster::wait_for;

const PATIENCE: Duration = Duration::from_mins(2);
/// A series may outlive its pod for this long.
const STALE: Duration = Duration::from_secs(10);

/// A length of time from the environment, or the short form's.
fn seconds(variable: &str, short: u64) -> Duration {
    Duration::from_secs(env::var(variable).ok().map_or(short, |value| value.parse().expect("a number of seconds")))
}

fn add(to: &mut Counts, counts: &Counts) {
    for (key, count) in counts {
        *to.entry(key.clone()).or_default() += count;
    }
}

/// What is watched from outside while the cluster changes.
#[derive(Default)]
struct Watch {
    /// When the API server last had each pod.
    seen: BTreeMap<String, Instant>,
    /// The last value of each counter, with the start of the process that it was read of.
    counters: BTreeMap<String, (f64, f64)>,
    /// The last start of each pod's process.
    starts: BTreeMap<String, f64>,
    /// Pods whose process was seen to be another.
    restarted: BTreeSet<String>,
    faults: BTreeSet<String>,
    scrapes: u64,
}

impl Watch {
    /// Holds an answer of `/metrics` against the pods that are, and against the answer before.
    fn look(&mut self, pods: &[String], scrape: &Scrape) {
        self.scrapes += 1;
        let now = Instant::now();
        self.seen.extend(pods.iter().map(|pod| (pod.clone(), now)));
        for sample in scrape.samples.iter().filter(|sample| sample.name == "process_start_time_seconds") {
            let pod = sample.label("pod").to_owned();
            if self.starts.insert(pod.clone(), sample.value).is_some_and(|before| before < sample.value) {
                self.restarted.insert(pod);
            }
        }
        for sample in &scrape.samples {
            let pod = sample.label("pod");
            if pod.is_empty() {
                continue;
            }
            if sample.label("namespace") != NAMESPACE
                || sample.label("container") != "app"
                || pod.starts_with("silent-")
            {
                self.faults.insert(format!("a wrong label: {sample:?}"));
            }
            match self.seen.get(pod) {
                None => drop(self.faults.insert(format!("a pod that never was: {sample:?}"))),
                Some(last) if last.elapsed() > STALE => {
                    self.faults
                        .insert(format!("{pod} is gone for {:.0} s and has a series", last.elapsed().as_secs_f64()));
                }
                Some(_) => {}
            }
            if !is_counter(&sample.name) {
                continue;
            }
            let start = if is_of_process(&sample.name) { self.starts.get(pod).copied().unwrap_or(0.0) } else { 0.0 };
            let series = format!("{} {:?}", sample.name, sample.labels);
            let (before, its) = self.counters.insert(series.clone(), (sample.value, start)).unwrap_or((0.0, start));
            if sample.value < before && start.total_cmp(&its).is_eq() {
                self.faults.insert(format!("{series} went back from {before} to {}", sample.value));
            }
        }
        // What a program counts of itself may go back a little while nobody looks; what gopulse counts may not.
        let named = scrape.pods();
        let looked_at = |series: &String| named.iter().any(|pod| series.contains(pod.as_str()));
        self.counters.retain(|series, _| !is_of_process(series) || looked_at(series));
    }
}

/// A counter, or a part of a histogram or summary that is one.
fn is_counter(name: &str) -> bool {
    ["_total", "_count", "_sum", "_bucket"].iter().any(|suffix| name.ends_with(suffix))
}

/// What the runtime, /proc and the cgroup keep of one process: it begins anew with the next, as it does with client_golang.
fn is_of_process(name: &str) -> bool {
    let own = ["go_goroutine_blocked_", "go_stw_pause_", "go_runqueue_latency_", "go_involuntary_switches_"];
    name.starts_with("process_") || name.starts_with("go_") && !own.iter().any(|own| name.starts_with(own))
}

/// All pods of the namespace that the API server has, ready or not.
fn all_pods(lab: &Lab) -> Vec<String> {
    let names = lab.kubectl(&["get", "pods", "-n", NAMESPACE, "-o", "jsonpath={.items[*].metadata.name}"]);
    names.split_whitespace().map(str::to_owned).collect()
}

/// Resident memory of the agent after a scrape, KiB.
struct Resident {
    all: u64,
    /// Pages of its executable and libraries, which come as they are first used.
    of_files: u64,
}

impl Resident {
    fn now(lab: &Lab) -> Self {
        lab.scrape();
        let status = fs::read_to_string(format!("/proc/{}/status", lab.agent_pid())).expect("the agent runs");
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).expect("it has memory");
            line.split_whitespace().nth(1).and_then(|value| value.parse().ok()).expect("a number")
        };
        Self { all: field("VmRSS:"), of_files: field("RssFile:") }
    }
}

/// Kills a pod's container as the kernel would for lack of memory, and waits until the kubelet has started it again.
fn kill_container(lab: &Lab, pod: &Pod, deployment: &str) -> Pod {
    let pid = lab.cluster.node().container_pid(&pod.container_id).expect("it runs");
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).expect("it runs");
    let again = || Ok(lab.pods(deployment).into_iter().find(|it| it.name == pod.name && it.restarts > pod.restarts));
    wait_for("the container is started again", PATIENCE, again).unwrap_or_else(|error| panic!("{error:#}"))
}

/// Annotate, scale up and down, kill containers, roll out, all under load.
#[test]
fn churn() {
    let length = seconds("GOPULSE_CHURN_SECONDS", 15);
    let long = length > Duration::from_mins(1);
    let replicas = if long { 20 } else { 6 };
    let lab = Lab::start();
    let anchor = lab.deploy("anchor", 1, &[ENABLED]).remove(0);
    let silent = lab.deploy("silent", 1, &[]).remove(0);
    let first = lab.deploy("shop", 1, &[ENABLED]);
    lab.wait_measured(first.iter().chain([&anchor]));
    first[0].load(100);
    let memory = Resident::now(&lab);

    let over = AtomicBool::new(false);
    let watch = Mutex::new(Watch::default());
    let mut steps = 0;
    let sent = thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut sent = Counts::new();
            while !over.load(Ordering::Relaxed) {
                add(&mut sent, &anchor.load(500));
                silent.load(100);
            }
            sent
        });
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // A pod that comes between the two questions is only known by the second.
                let before = all_pods(&lab);
                let scrape = lab.scrape();
                let pods = [before, all_pods(&lab)].concat();
                watch.lock().expect("nobody panics with it").look(&pods, &scrape);
                thread::sleep(Duration::from_millis(500));
            }
        });
        // Whatever goes wrong below, the threads are to end.
        let changes = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let start = Instant::now();
            while start.elapsed() < length {
                change(&lab, &anchor, replicas);
                steps += 1;
            }
        }));
        over.store(true, Ordering::Relaxed);
        let sent = load.join().expect("the load ran");
        if let Err(panic) = changes {
            std::panic::resume_unwind(panic);
        }
        sent
    });

    lab.assert_counts(&anchor, &sent);
    thread::sleep(STALE);
    let mut left: Vec<String> = lab.pods("shop").into_iter().map(|pod| pod.name).chain([anchor.name.clone()]).collect();
    left.sort();
    let scrape = lab.scrape();
    assert_eq!(scrape.pods().into_iter().collect::<Vec<_>>(), left, "the pods that /metrics names in the end");
    assert_eq!(scrape.lost(), Vec::<String>::new());
    let watch = watch.into_inner().expect("nobody panicked with it");
    assert_eq!(watch.faults, BTreeSet::new());
    assert!(!watch.restarted.is_empty(), "containers were killed, and no process_start_time_seconds tells of it");
    let after = Resident::now(&lab);
    let growth = 100.0 * (after.all as f64 - memory.all as f64) / memory.all as f64;
    println!(
        "{steps} rounds of 1 -> {replicas} -> 1, {} scrapes, {} pods: no wrong label, no stale series; {} requests of the \
         pod that lived, all counted; memory {} KiB before, {} of files, {} KiB after, {} \
         of files ({growth:+.1}%)",
        watch.scrapes,
        watch.seen.len(),
        sent.values().sum::<u64>(),
        memory.all,
        memory.of_files,
        after.all,
        after.of_files,
    );
    // One round leaves the allocator's arenas at their first size; whether they stay there, only many can tell.
    assert!(!long || growth < 10.0, "the agent's memory grew by {growth:.1}%");
}

/// One round of every change.
fn change(lab: &Lab, anchor: &Pod, replicas: usize) {
    let measured = |pods: &[Pod]| lab.wait_measured(pods.iter().chain([anchor]));
    lab.kubectl(&["scale", "-n", NAMESPACE, "deployment", "shop", &format!("--replicas={replicas}")]);
    let pods = lab.wait_for_pods("shop", replicas);
    measured(&pods);
    for pod in &pods {
        let mut wanted = lab.counts(pod);
        add(&mut wanted, &pod.load(100));
        lab.assert_counts(pod, &wanted);
    }
    // A container that dies: its series go on.
    let mut counted = lab.counts(&pods[0]);
    let again = kill_container(lab, &pods[0], "shop");
    lab.wait_container_measured(&again);
    add(&mut counted, &again.load(100));
    lab.assert_counts(&again, &counted);
    // One pod changes its mind, and again.
    lab.annotate(&pods[1], "gopulse.io/enabled=false");
    measured(&lab.pods("shop").into_iter().filter(|pod| pod.name != pods[1].name).collect::<Vec<_>>());
    pods[1].load(100);
    lab.annotate(&pods[1], "gopulse.io/enabled=true");
    measured(&lab.pods("shop"));
    // Every pod is replaced by one of another version.
    lab.kubectl(&["rollout", "restart", "-n", NAMESPACE, "deployment", "shop"]);
    lab.kubectl(&["rollout", "status", "-n", NAMESPACE, "deployment", "shop", "--timeout=120s"]);
    let pods = lab.wait_for_pods("shop", replicas);
    measured(&pods);
    for pod in &pods {
        let wanted = pod.load(100);
        lab.assert_counts(pod, &wanted);
    }
    lab.kubectl(&["scale", "-n", NAMESPACE, "deployment", "shop", "--replicas=1"]);
    let pods = lab.wait_for_pods("shop", 1);
    measured(&pods);
}
