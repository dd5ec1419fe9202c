//! `bench scale`: attaching to many targets, what they cost the agent at rest, and letting go of them.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::agent::percent_of_a_core;
use super::answers::Answers;
use super::fixture::Agent;
use super::fleet::Fleet;
use super::proc;
use super::report::Section;
use super::stats::Spread;
use crate::service;

const ROUNDS: usize = 3;
const REST: Duration = Duration::from_secs(10);
/// From the last request until the targets are at rest, and the threads that attached to them are gone, 10 s after.
const SETTLED: Duration = Duration::from_secs(15);

/// Measures.
pub(super) fn run(fleet: &mut Fleet<'_>) -> Result<Section> {
    let n = fleet.size;
    let mut section = Section::new(
        "scale",
        format!(
            "{n} processes of {n} different executables, started before the agent; {ROUNDS} agents one after another. Attached means \
             that /targets says measured of all of them, looked at every 10 ms; the time begins at the agent's own exec and \
             so holds the loading and verifying of its programs too. At rest means from 15 s after the last request on, for 10 s. Detached means that no link is open any more."
        ),
    );
    let pattern = fleet.pattern.clone();
    let select = ["--executable", pattern.as_str()];
    let empty: Vec<f64> = (0..ROUNDS)
        .map(|_| until_measured(fleet, &["--executable", "no-such-name"], 0).map(|it| it.1))
        .collect::<Result<_>>()?;
    let (mut attach, mut exit, mut detach, mut rest, mut resident, mut peak) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut sites, mut answers) = (0, Answers::default());
    for _ in 0..ROUNDS {
        let (mut agent, seconds) = until_measured(fleet, &select, n)?;
        attach.push(seconds);
        sites = agent.targets()?.1;
        fleet.touch()?;
        thread::sleep(SETTLED);
        rest.push(percent_of_a_core(agent.pid(), || {
            thread::sleep(REST);
            Ok(())
        })?);
        service::get(agent.address, "/metrics")?;
        resident.push(proc::memory_mib(agent.pid(), "VmRSS")?);
        peak.push(proc::memory_mib(agent.pid(), "VmHWM")?);
        answers.measure(&agent)?;
        exit.push(agent.stop()?.as_secs_f64());
        let (agent, _) = until_measured(fleet, &select, n)?;
        fleet.kill()?;
        detach.push(until_detached(&agent)?);
        fleet.revive()?;
    }
    section.limited(
        format!("attach {n} targets, {sites} sites, agent's start included"),
        "s",
        Spread::of(&attach),
        5.0,
    );
    section.figure("of it the agent's start, without targets", "s", Spread::of(&empty));
    section.limited("detach all: every target is killed at once", "s", Spread::of(&detach), 2.0);
    section.limited("exit after SIGTERM with all attached", "s", Spread::of(&exit), 2.0);
    section.limited("agent's resident memory (VmRSS) after a scrape", "MiB", Spread::of(&resident), 48.0);
    section.figure("agent's highest (VmHWM)", "MiB", Spread::of(&peak));
    section.limited("agent's CPU, all targets at rest", "% of a core", Spread::of(&rest), 0.3);
    answers.report(&mut section);
    section.note(format!(
        "There are {:.1} sites a target at present, not the 20 that the limits are meant for.",
        sites as f64 / n as f64
    ));
    Ok(section)
}

fn until_measured(fleet: &Fleet<'_>, select: &[&str], n: usize) -> Result<(Agent, f64)> {
    let start = Instant::now();
    let mut agent = Agent::start(fleet.tools, select)?;
    agent.wait(n)?;
    Ok((agent, start.elapsed().as_secs_f64()))
}

/// Seconds until the agent has no probe open; its two tracepoints stay.
fn until_detached(agent: &Agent) -> Result<f64> {
    let start = Instant::now();
    while proc::probe_descriptors(agent.pid())? > 2 {
        if start.elapsed() > Duration::from_mins(1) {
            bail!("the agent still has {} probes", proc::probe_descriptors(agent.pid())?);
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(start.elapsed().as_secs_f64())
}
