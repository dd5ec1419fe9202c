//! What one measured program does costs that program's figures at most: while it does its worst, an ordinary neighbour's counts
//! stay exact, `/metrics` and `/healthz` answer, and the agent stays small; afterwards all is as before. The programs are
//! `xtask/go/hostile`.

mod agents;
mod budget;
pub(crate) mod clients;
mod in_flight;
mod lies;
mod memory;
mod names;
mod panics;
mod series;
pub(crate) mod stalling;
mod storms;

use std::time::{Duration, Instant};

use xtask::service::{Running, get};

use crate::support::{Agent, must_be_root, service, settles, start};

/// Most memory of an agent under attack, MiB resident.
pub(crate) const MEMORY_MIB: u64 = 64;

/// An agent that measures an ordinary program and a hostile one.
pub(crate) struct Ring {
    pub(crate) agent: Agent,
    pub(crate) neighbour: Running,
    pub(crate) hostile: Running,
}

impl Ring {
    /// Starts both, and the agent with these flags besides.
    pub(crate) fn start(flags: &[&str]) -> Self {
        must_be_root();
        let (neighbour, hostile) = (start(&service("hello"), &[]), start(&service("hostile"), &[]));
        let pids = [neighbour.pid().to_string(), hostile.pid().to_string()];
        let mut all = vec!["--pid", &pids[0], "--pid", &pids[1]];
        all.extend(flags);
        let agent = Agent::start(&all);
        for running in [&neighbour, &hostile] {
            agent.wait_measured(running.pid());
        }
        Self { agent, neighbour, hostile }
    }

    /// Asks the hostile program for something, and returns what it says.
    pub(crate) fn ask(&self, path: &str) -> String {
        get(self.hostile.address("http").expect("it listens"), path).expect("it answers")
    }

    /// The neighbour is asked a hundred times, and each request is counted, once; the agent answers and is small.
    pub(crate) fn is_unharmed(&self) {
        const REQUESTS: u64 = 100;
        let (pid, address) = (self.neighbour.pid(), self.neighbour.address("http").expect("it listens"));
        let before = self.agent.scrape().total(pid);
        for _ in 0..REQUESTS {
            get(address, "/hello").expect("it lives");
        }
        settles("the neighbour's requests", &(before + REQUESTS), || self.agent.scrape().total(pid));
        let asked = Instant::now();
        get(self.agent.address, "/healthz").expect("/healthz answers");
        println!("    /healthz after {:.1} ms, {} MiB", asked.elapsed().as_secs_f64() * 1e3, self.memory_mib());
        // A hang guard: on an idle machine it is a millisecond.
        assert!(asked.elapsed() < Duration::from_secs(10));
        assert!(self.memory_mib() <= MEMORY_MIB, "the agent takes {} MiB", self.memory_mib());
    }

    /// What the agent takes, MiB resident.
    pub(crate) fn memory_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.agent.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
    }
}
