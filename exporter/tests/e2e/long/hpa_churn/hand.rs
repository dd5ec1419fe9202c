//! What is done to the cluster, in an order that a seed chooses. Knows nothing of HPAs and of what is right.

use std::{
    collections::BTreeMap,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use xtask::{cluster::wait_for, util};

use super::{Scene, is_ready, watch::Api};
use crate::support::{
    cluster::{AGENT_NAMESPACE, Lab, NAMESPACE},
    stage::{CUSTOM, RPS},
};

/// What is done to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Churn {
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
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut it = self.0;
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (it ^ (it >> 31)) as usize % below
    }

    pub(super) fn seconds(&mut self, from: usize, to: usize) -> Duration {
        Duration::from_secs((from + self.roll(to - from + 1)) as u64)
    }
}

/// Whoever does things to the cluster.
pub(super) struct Hand<'a> {
    pub(super) lab: &'a mut Lab,
    pub(super) scene: &'a Scene,
    pub(super) api: Api,
    pub(super) dice: Dice,
    /// Kinds that have not been since all were.
    pub(super) bag: Vec<Churn>,
    pub(super) done: BTreeMap<Churn, u32>,
}

impl Hand<'_> {
    pub(super) fn next(&mut self) -> Option<()> {
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

pub(super) fn signal(pid: i32, signal: Signal) -> Option<()> {
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
