//! What may make the probes on blocking cost more than the budget: an agent that stands still while they are attached, and profiles.

use std::time::Duration;

use nix::{
    sys::{
        ptrace,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use xtask::service::get;

use crate::support::{
    Agent, eventually,
    memory::{Site, probed, sites_that},
    must_be_root, service, start, within,
};

/// The agent's first thread, on which its tokio runtime runs, held still until this is dropped; its other threads go on.
struct Held(Pid);

impl Held {
    fn of(agent: &Agent) -> Self {
        let thread = Pid::from_raw(agent.pid() as i32);
        ptrace::seize(thread, ptrace::Options::empty()).expect("root may trace it");
        let held = Self(thread);
        ptrace::interrupt(thread).expect("it runs");
        waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops");
        held
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // When a failed test has killed it there is nothing to let go of.
        let _ = ptrace::detach(self.0, None);
    }
}

/// Where goroutines park and run.
fn sampled(agent: &Agent, pid: u32) -> Vec<Site> {
    sites_that(pid, &agent.wait_measured(pid), |probe| probe["probe"] == "go_park" || probe["probe"] == "go_run")
}

/// Hits of the probes on blocking in a process, and the CPU seconds that they cost.
fn spent(agent: &Agent, pid: u32) -> (f64, f64) {
    let scrape = agent.scrape();
    let of = |metric: &str| {
        let mut all = scrape.samples.iter().filter(|it| it.name == metric && it.label("probes") == "blocking");
        all.find(|it| it.label("instance_pid") == pid.to_string()).map_or(0.0, |it| it.value)
    };
    (of("exporter_probe_hits_total"), of("exporter_probe_cpu_seconds_total"))
}

/// Waits that the agent has counted.
fn waits(agent: &Agent, pid: u32) -> u64 {
    let scrape = agent.scrape();
    let mine = scrape.samples.iter().filter(|it| it.label("instance_pid") == pid.to_string());
    mine.filter(|it| it.name == "go_goroutine_blocked_seconds_count").map(|it| it.value as u64).sum()
}

/// Holds the agent still while the probes are there: they come off all the same, and when it goes on so does measuring.
fn comes_off(parks: &str, budget: &str) {
    must_be_root();
    let running = start(&service("waits"), &["-parks", parks]);
    let pid = running.pid();
    let agent = Agent::measuring(pid, &["--features", "http,blocking", "--budget", budget]);
    let sites = sampled(&agent, pid);
    eventually("waits are counted", || (waits(&agent, pid) > 0).then_some(()));
    within(Duration::from_mins(3), "they come off by themselves", || {
        let before = waits(&agent, pid);
        let held = within(Duration::from_mins(1), "it is held while they are attached", || {
            let held = Held::of(&agent);
            (probed(pid, &sites) == sites.len()).then_some(held)
        });
        eventually("they come off", || (probed(pid, &sites) == 0).then_some(()));
        drop(held);
        eventually("waits are counted again", || (waits(&agent, pid) > before).then_some(()));
        // Where they were just being detached when the agent was held, once more.
        agent.log().iter().any(|line| line.contains("came off by themselves")).then_some(())
    });
    let lost = agent.scrape().lost();
    assert!(lost.iter().all(|lost| lost.starts_with("wait_unreadable: ")), "{lost:?}");
    agent.stop();
    assert_eq!(probed(pid, &sites), 0, "a probe is left");
}

#[test]
fn probes_in_a_window_come_off_though_the_agent_stands_still() {
    comes_off("20000", "0.015");
}

#[test]
fn probes_of_an_idle_program_come_off_though_the_agent_stands_still() {
    comes_off("100", "0.5");
}

#[test]
fn what_stacks_cost_counts_in_the_budget() {
    must_be_root();
    let running = start(&service("waits"), &["-parks", "20000"]);
    let pid = running.pid();
    let agent = Agent::measuring(pid, &["--features", "blocking", "--budget", "0.5"]);
    let before = eventually("the probes are hit", || Some(spent(&agent, pid)).filter(|(hits, _)| *hits > 10_000.0));
    get(agent.address, &format!("/debug/blocked?pid={pid}&seconds=3")).expect("there is a profile");
    let after = spent(&agent, pid);
    let (without, with) = (before.1 / before.0, (after.1 - before.1) / (after.0 - before.0));
    println!("a hit: {:.2} us, {:.2} us while a profile is taken", without * 1e6, with * 1e6);
    assert!(with > without * 1.05, "stacks cost nothing");
}
