//! `bench runtime`: what reading one target's runtime takes, and a walk over very many goroutines.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::fixture::{Agent, Tools};
use super::proc;
use super::report::Section;
use super::stats::Spread;
use crate::exposition::{self, Sample};
use crate::go::{self, Service, Variant};
use crate::service::{self, Running};

/// Goroutines of the second service.
const GOROUTINES: usize = 100_000;
const ROUNDS: usize = 15;
/// Longer than one reading serves several scrapes.
const PAUSE: Duration = Duration::from_millis(120);

/// Measures.
pub(super) fn run(tools: &Tools) -> Result<Section> {
    let mut section = Section::new(
        "runtime",
        format!(
            "Reading the runtime of one stripped Go program from outside, by the agent's own account \
             (exporter_runtime_read_seconds_total, exporter_goroutine_walk_seconds_total), over {ROUNDS} scrapes: all counters of \
             a program that allocates and collects all the time, then of one with {GOROUTINES} goroutines that wait. A walk's time is \
             its CPU time at most: one thread does it. Extra memory is the agent's peak during a first walk over what was resident before."
        ),
    );
    let stripped = Service { variant: Variant::Strip, ..Service::local("truth") };
    let program = go::build(&stripped)?;
    let quiet = ["-https", "-", "-h2c", "-", "-admin", "-"];

    let busy = tools.copy(&program, "runtime-busy")?;
    let running = Running::start(busy.path(), &quiet)?;
    let agent = Agent::measuring(tools, &["--pid", &running.pid().to_string(), "--features", "runtime"], 1)?;
    let account = measure(&agent, running.pid())?;
    section.limited("all counters of one target", "ms", Spread::of(&account.read_ms), 1.0);
    drop(agent);
    drop(running);

    let many = tools.copy(&program, "runtime-many")?;
    let waiting = GOROUTINES.to_string();
    let running = Running::start(many.path(), &[&quiet[..], &["-work=false", "-waiting", &waiting]].concat())?;
    let agent = Agent::measuring(tools, &["--pid", &running.pid().to_string(), "--features", "runtime"], 1)?;
    let account = measure(&agent, running.pid())?;
    let seen = format!("goroutines seen of {GOROUTINES} that wait for a channel");
    section.figure(seen, "", Spread::one(account.waiting));
    section.limited("a walk over them", "ms", Spread::of(&account.walk_ms), 50.0);
    section.limited("extra memory of the first scrape and walk", "MiB", Spread::one(account.extra_mib), 16.0);
    section.figure("all counters beside them", "ms", Spread::of(&account.read_ms));
    Ok(section)
}

struct Account {
    read_ms: Vec<f64>,
    walk_ms: Vec<f64>,
    extra_mib: f64,
    waiting: f64,
}

/// Scrapes, and takes what the agent says each read and walk took.
fn measure(agent: &Agent, pid: u32) -> Result<Account> {
    thread::sleep(Duration::from_secs(1));
    let mut account = Account { read_ms: Vec::new(), walk_ms: Vec::new(), extra_mib: 0.0, waiting: 0.0 };
    proc::reset_peak(agent.pid())?;
    let resident = proc::memory_mib(agent.pid(), "VmRSS")?;
    let mut before = scrape(agent)?;
    account.extra_mib = proc::memory_mib(agent.pid(), "VmHWM")? - resident;
    for _ in 0..ROUNDS {
        // A walk rests fifty times as long as it took.
        let rest =
            value(&before, "exporter_goroutine_walk_seconds_total", &[])? * 51.0 / account.walk_ms.len().max(1) as f64;
        thread::sleep(PAUSE.max(Duration::from_secs_f64(rest.clamp(1.05, 4.0))));
        let now = scrape(agent)?;
        let took = |name: &str| Ok::<_, anyhow::Error>((value(&now, name, &[])? - value(&before, name, &[])?) * 1e3);
        account.read_ms.push(took("exporter_runtime_read_seconds_total")?);
        let walked = took("exporter_goroutine_walk_seconds_total")?;
        let pid = pid.to_string();
        // Without a walk, its account grows by next to nothing.
        if value(&now, "exporter_target_goroutine_walk_age_seconds", &[("instance_pid", &pid)])? < 0.1 {
            account.walk_ms.push(walked);
        }
        account.waiting = value(&now, "go_goroutines_waiting", &[("instance_pid", &pid), ("reason", "chan receive")])?;
        before = now;
    }
    Ok(account)
}

fn scrape(agent: &Agent) -> Result<Vec<Sample>> {
    Ok(exposition::parse(&service::get(agent.address, "/metrics")?))
}

fn value(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> Result<f64> {
    let mut found = samples.iter().filter(|it| it.name == name);
    let found = found.find(|it| labels.iter().all(|(label, value)| it.label(label) == *value));
    Ok(found.with_context(|| format!("no {name} with {labels:?}"))?.value)
}
