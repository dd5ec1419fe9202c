//! The agent's binary, started with flags, and what it serves.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use xtask::{
    exposition::{self, Sample},
    service::{self, LoadReport},
};

use super::{eventually, http::free_port, must_be_root};

/// Requests by method, status and route.
pub(crate) type Counts = BTreeMap<(String, u16, String), u64>;

/// The binary under test: `cargo xtask test` names it.
pub(crate) fn binary() -> PathBuf {
    let binary = std::env::var_os("GOPULSE_BIN").map_or_else(xtask::build::agent, PathBuf::from);
    assert!(binary.is_file(), "{} is not there: run the tests by `cargo xtask test`", binary.display());
    binary
}

/// An agent that runs. It is killed when it is dropped without [`Agent::stop`].
pub(crate) struct Agent {
    child: Child,
    /// Where it serves.
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Agent {
    /// Starts `gopulse run` with these flags on a free port, and waits until it is ready.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::start_after("true", flags)
    }

    /// The same in a shell that ran this first.
    pub(crate) fn start_after(first: &str, flags: &[&str]) -> Self {
        must_be_root();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut child = Command::new("/bin/sh")
            .args(["-c", &format!("{first}; exec \"$0\" \"$@\"")])
            .arg(binary())
            .args(["run", "--metrics-address", &address.to_string()])
            .args(flags)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the agent starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, stderr) = (Arc::clone(&log), child.stderr.take().expect("it is piped"));
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().expect("nobody panics with it").push(line);
            }
        });
        let mut agent = Self { child, address, log };
        eventually("the agent gets ready", || {
            if let Ok(Some(status)) = agent.child.try_wait() {
                panic!("the agent ended with {status}: {:?}", agent.log());
            }
            service::get(agent.address, "/readyz").ok()
        });
        agent
    }

    /// Starts it for one process, and waits until that is measured.
    pub(crate) fn measuring(pid: u32, flags: &[&str]) -> Self {
        let pid_flag = pid.to_string();
        let mut all = vec!["--pid", pid_flag.as_str()];
        all.extend(flags);
        let agent = Self::start(&all);
        agent.wait_measured(pid);
        agent
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().expect("nobody panics with it").clone()
    }

    /// `/targets`.
    pub(crate) fn targets(&self) -> Vec<Value> {
        let text = service::get(self.address, "/targets").expect("/targets answers");
        serde_json::from_str(&text).expect("/targets is JSON")
    }

    /// One process at `/targets`.
    pub(crate) fn target(&self, pid: u32) -> Option<Value> {
        self.targets().into_iter().find(|target| target["pid"] == pid)
    }

    /// Waits until a process is measured, and returns what `/targets` says of it.
    pub(crate) fn wait_measured(&self, pid: u32) -> Value {
        self.wait_state(pid, "measured")
    }

    /// Waits until a process has a state at `/targets`.
    pub(crate) fn wait_state(&self, pid: u32, state: &str) -> Value {
        eventually(&format!("process {pid} is {state}"), || self.target(pid).filter(|target| target["state"] == state))
    }

    /// `/metrics`.
    pub(crate) fn scrape(&self) -> Scrape {
        Scrape::of_address(self.address)
    }

    /// Kills it, so that it cannot clean up.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was started here");
    }

    /// Ends it by SIGTERM and asserts that it ends cleanly; how long that took.
    pub(crate) fn stop(self) -> Duration {
        self.stop_by(Signal::SIGTERM)
    }

    /// Ends it by a signal and asserts that it ends cleanly; how long that took.
    pub(crate) fn stop_by(mut self, signal: Signal) -> Duration {
        let start = Instant::now();
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it runs");
        let status: ExitStatus = eventually("the agent ends", || self.child.try_wait().expect("it is a child"));
        let took = start.elapsed();
        assert!(status.success(), "the agent ended with {status}: {:?}", self.log());
        took
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            eprintln!("the agent's log:\n{}", self.log().join("\n"));
        }
    }
}

/// One answer of `/metrics`.
#[derive(Debug)]
pub(crate) struct Scrape {
    /// Every sample.
    pub(crate) samples: Vec<Sample>,
}

const DURATION: &str = "http_server_request_duration_seconds";

impl Scrape {
    /// What an agent says now.
    pub(crate) fn of_address(address: SocketAddr) -> Self {
        Self { samples: exposition::parse(&service::get(address, "/metrics").expect("/metrics answers")) }
    }

    fn of(&self, pid: u32, name: &str) -> impl Iterator<Item = &Sample> {
        let pid = pid.to_string();
        self.samples.iter().filter(move |sample| sample.name == name && sample.label("instance_pid") == pid)
    }

    /// Requests counted for a process.
    pub(crate) fn counts(&self, pid: u32) -> Counts {
        let mut counts = Counts::new();
        for sample in self.of(pid, &format!("{DURATION}_count")) {
            *counts.entry(key(sample)).or_default() += sample.value as u64;
        }
        counts
    }

    /// All requests counted for a process.
    pub(crate) fn total(&self, pid: u32) -> u64 {
        self.counts(pid).values().sum()
    }

    /// Sums of durations of a process, seconds.
    pub(crate) fn seconds(&self, pid: u32) -> BTreeMap<(String, u16, String), f64> {
        self.of(pid, &format!("{DURATION}_sum")).map(|sample| (key(sample), sample.value)).collect()
    }

    /// `http_server_active_requests` of a process.
    pub(crate) fn active(&self, pid: u32) -> Option<u64> {
        self.of(pid, "http_server_active_requests").next().map(|sample| sample.value as u64)
    }

    /// Everything that the agent says it lost, as `reason: count`.
    pub(crate) fn lost(&self) -> Vec<String> {
        let lost = self.samples.iter().filter(|sample| sample.name == "exporter_lost_total" && sample.value > 0.0);
        lost.map(|sample| format!("{}: {}", sample.label("reason"), sample.value)).collect()
    }

    /// Whether any series names this process.
    pub(crate) fn mentions(&self, pid: u32) -> bool {
        let pid = pid.to_string();
        self.samples.iter().any(|sample| sample.label("instance_pid") == pid)
    }
}

fn key(sample: &Sample) -> (String, u16, String) {
    let status = sample.label("http_response_status_code").parse().unwrap_or(0);
    (sample.label("http_request_method").to_owned(), status, sample.label("http_route").to_owned())
}

/// What a service has counted of itself.
pub(crate) fn counted_by_service(service: &xtask::service::Running) -> Counts {
    let mut counts = Counts::new();
    for it in service.counts().expect("the service counts") {
        *counts.entry((method(&it.method), it.status, it.route)).or_default() += it.count;
    }
    counts
}

/// What the load generator counted, with methods as the agent names them.
pub(crate) fn counted_by_load(report: &LoadReport) -> Counts {
    let mut counts = Counts::new();
    for it in &report.counts {
        *counts.entry((method(&it.method), it.status, it.route.clone())).or_default() += it.count;
    }
    counts
}

/// A method as the agent names it.
pub(crate) fn method(of: &str) -> String {
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"];
    if known.contains(&of) { of.to_owned() } else { "_OTHER".to_owned() }
}
