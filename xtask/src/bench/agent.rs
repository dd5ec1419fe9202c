//! `bench agent`: the agent's own memory and CPU time with one target, at rest and at full load by turns.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::fixture::{Agent, Tools};
use super::proc;
use super::report::Section;
use super::stats::{Spread, differences};

const ROUNDS: usize = 3;
const WINDOW: Duration = Duration::from_secs(5);

/// Measures.
pub(super) fn run(tools: &Tools) -> Result<Section> {
    let mut section = Section::new(
        "agent",
        format!(
            "Memory and CPU time of gopulse itself with one target, which is at rest and at full load by turns ({ROUNDS} rounds of \
             {} s each). The agent is found by name, so that it scans /proc as usual.",
            WINDOW.as_secs()
        ),
    );
    let copied = tools.copy(&tools.bench, "agent")?;
    let service = copied.start("hello")?;
    let address = service.address("http")?;
    let agent = Agent::measuring(tools, &["--executable", &copied.name()], 1)?;
    let pid = agent.pid();
    thread::sleep(Duration::from_secs(1));
    let (mut rest, mut load, mut rates, mut resident) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        rest.push(percent_of_a_core(pid, || {
            thread::sleep(WINDOW);
            Ok(())
        })?);
        let seconds = format!("{}s", WINDOW.as_secs());
        load.push(percent_of_a_core(pid, || {
            rates.push(tools.load(address, &["-duration", &seconds, "-c", "32"])?.rate);
            Ok(())
        })?);
        crate::service::get(agent.address, "/metrics")?;
        resident.push(proc::memory_mib(pid, "VmRSS")?);
    }
    section.limited("resident memory (VmRSS)", "MiB", Spread::of(&resident), 20.0);
    section.figure("of it not backed by a file (RssAnon)", "MiB", Spread::one(proc::memory_mib(pid, "RssAnon")?));
    section.figure("highest since its start (VmHWM)", "MiB", Spread::one(proc::memory_mib(pid, "VmHWM")?));
    section.figure("CPU with the target at rest", "% of a core", Spread::of(&rest));
    section.figure("CPU with the target at full load", "% of a core", Spread::of(&load));
    section.limited("CPU, difference within a round", "% of a core", Spread::of(&differences(&load, &rest)), 0.2);
    section.figure("load", "requests/s", Spread::of(&rates));
    Ok(section)
}

/// CPU time of a process while something goes on.
pub(super) fn percent_of_a_core(pid: u32, meanwhile: impl FnOnce() -> Result<()>) -> Result<f64> {
    let (start, before) = (Instant::now(), proc::cpu_ns(pid)?);
    meanwhile()?;
    Ok((proc::cpu_ns(pid)? - before) as f64 / start.elapsed().as_nanos() as f64 * 100.0)
}
