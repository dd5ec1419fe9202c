//! `bench budget`: what the probes on goroutines that block cost a program, from a thousand to a million parks a second, with
//! the budget at its default of 1 %.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde::Deserialize;

use super::fixture::{Agent, Tools};
use super::report::{Section, Table};
use super::stats::{Spread, differences};
use crate::go::{self, Service};
use crate::service::{self, Running};

/// Parks a second; the machine may not reach the last.
const RATES: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// What may be added at a budget of 1 %, percent of the program's CPU time, or of one CPU where it uses less.
const LIMIT: f64 = 1.5;

/// Options of `bench budget`.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    /// Rounds, each without and with the agent
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each half of a round; windows are some ten seconds apart
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { rounds: 3, seconds: 20 }
    }
}

/// What the sample service says of itself.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Parked {
    parks: u64,
    cpu_seconds: f64,
}

/// One half of a round.
#[derive(Debug, Clone, Copy)]
struct Half {
    /// Parks a second.
    rate: f64,
    /// CPUs used.
    cpus: f64,
    /// CPU seconds a park.
    cost: f64,
}

/// Measures.
pub(super) fn run(tools: &Tools, options: &Options) -> Result<Section> {
    let mut section = Section::new(
        "budget",
        format!(
            "CPU time that the probes on blocking goroutines add to a program whose goroutines park ever more often, at the \
             default budget of 1 %: percent of what the program uses, or of one CPU where it uses less. {} rounds of {} s \
             without and {} s with the agent, which measures blocking alone.",
            options.rounds, options.seconds, options.seconds
        ),
    );
    let mut table = Table {
        title: "What was attached, and what came of it".into(),
        columns: ["asked for", "parks/s", "CPUs", "share of the time", "blocked/s by the agent"].map(Into::into).into(),
        rows: Vec::new(),
    };
    let binary = go::build(&Service::local("waits"))?;
    for rate in RATES {
        let copied = tools.copy(&binary, "waits")?;
        let service = Running::start(copied.path(), &["-parks", &rate.to_string()])?;
        let address = service.address("http")?;
        thread::sleep(Duration::from_secs(1));
        let time = Duration::from_secs(options.seconds);
        let (mut added, mut last) = (Vec::new(), None);
        for _ in 0..options.rounds {
            let without = half(address, time)?;
            let flags = ["--executable", &copied.name(), "--features", "blocking"];
            let agent = Agent::measuring(tools, &flags, 1)?;
            thread::sleep(Duration::from_secs(2));
            let before = blocked(&agent)?;
            let with = half(address, time)?;
            let counted = (blocked(&agent)? - before) / time.as_secs_f64();
            last = Some((without, metric(&agent, "exporter_probe_sampled_ratio")?, counted));
            let difference = differences(&[with.cost], &[without.cost])[0] * without.rate;
            added.push(100.0 * difference / without.cpus.max(1.0));
        }
        section.limited(format!("added at {rate} parks a second"), "% of the CPU time", Spread::of(&added), LIMIT);
        if let Some((without, ratio, counted)) = last {
            table.rows.push(vec![
                rate.to_string(),
                format!("{:.0}", without.rate),
                format!("{:.2}", without.cpus),
                format!("{ratio:.3}"),
                format!("{counted:.0}"),
            ]);
        }
    }
    section.tables.push(table);
    section.note("A rate that the machine cannot reach means as many parks as it can do.");
    Ok(section)
}

fn half(address: SocketAddr, time: Duration) -> Result<Half> {
    let ask = || -> Result<Parked> {
        serde_json::from_str(&service::get(address, "/parked")?).context("what the service says of itself")
    };
    let (start, before) = (Instant::now(), ask()?);
    thread::sleep(time);
    let (after, seconds) = (ask()?, start.elapsed().as_secs_f64());
    let (parks, cpu) = ((after.parks - before.parks) as f64, after.cpu_seconds - before.cpu_seconds);
    Ok(Half { rate: parks / seconds, cpus: cpu / seconds, cost: cpu / parks.max(1.0) })
}

/// Waits that the agent has counted.
fn blocked(agent: &Agent) -> Result<f64> {
    metric(agent, "go_goroutine_blocked_seconds_count")
}

/// The sum over a metric's series.
fn metric(agent: &Agent, name: &str) -> Result<f64> {
    let text = service::get(agent.address, "/metrics")?;
    Ok(crate::exposition::parse(&text).iter().filter(|sample| sample.name == name).map(|sample| sample.value).sum())
}
