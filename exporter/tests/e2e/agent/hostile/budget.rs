//! An agent that stands still while probes are attached whose cost it should watch.

use std::time::Duration;

use nix::{
    sys::{
        ptrace,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};

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
