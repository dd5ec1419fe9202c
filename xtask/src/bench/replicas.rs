//! `bench replicas`: whether a probe hit costs the same with 1, 20 and 100 processes of one executable.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

use super::fixture::{Agent, Copied, Tools};
use super::proc::{self, Cpus};
use super::programs::Accounting;
use super::report::Section;
use super::stats::{Spread, differences};
use crate::service::{self, Running};

/// Options of `bench replicas`.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    /// Rounds, in each of which every number is measured twice
    #[arg(long, default_value_t = 30)]
    pub(super) pairs: usize,

    /// Leave the file writable: each process has probes of its own then, of which the kernel asks all at every hit
    #[arg(long)]
    pub(super) writable: bool,
}

const NUMBERS: [usize; 3] = [1, 20, 100];
const REQUESTS: u64 = 20_000;
/// Rounds with `bpf_stats` on.
const ACCOUNTED: usize = 5;
const PATIENCE: Duration = Duration::from_mins(1);

/// Measures.
pub(super) fn run(tools: &Tools, options: &Options) -> Result<Section> {
    let mut section = Section::new(
        "replicas",
        format!(
            "n processes of one executable{}, all measured. One of them, on a CPU of its own, serves itself {REQUESTS} requests at a time from \
             its memory, so that nothing but a hit differs; the others rest. Its CPU time alone counts. In each of {} rounds: no agent, n = 1, 20, 100, and the \
             same backwards. What a hit adds is the difference to no agent in the same round, divided by the hits a request; they, \
             and the time in gopulse's programs, are from {ACCOUNTED} rounds of their own with bpf_stats on.",
            if options.writable {
                ", which can be written"
            } else {
                " that is marked as immutable, as an image's files in a pod are in effect"
            },
            options.pairs
        ),
    );
    let mut fleet = Fleet::start(tools, options.writable)?;
    let mut in_programs = vec![Vec::new(); NUMBERS.len()];
    let mut hits = Vec::new();
    for _ in 0..ACCOUNTED {
        let mut agent = fleet.agent()?;
        for (i, n) in NUMBERS.into_iter().enumerate() {
            fleet.resize(n, Some(&mut agent))?;
            let (hits_a_request, ns_a_hit) = fleet.account(&agent)?;
            hits.push(hits_a_request);
            in_programs[i].push(ns_a_hit);
        }
        fleet.resize(1, None)?;
    }
    let mut without = Vec::new();
    let mut with = vec![Vec::new(); NUMBERS.len()];
    for _ in 0..options.pairs {
        let first = fleet.serve()?;
        let mut sums = [0.0; NUMBERS.len()];
        let mut agent = fleet.agent()?;
        // There and back, so that what drifts weighs the same on each.
        for i in (0..NUMBERS.len()).chain((0..NUMBERS.len()).rev()) {
            fleet.resize(NUMBERS[i], Some(&mut agent))?;
            sums[i] += fleet.serve()?;
        }
        drop(agent);
        without.push(f64::midpoint(first, fleet.serve()?));
        for (with, sum) in with.iter_mut().zip(sums) {
            with.push(sum / 2.0);
        }
    }
    let hits = Spread::of(&hits);
    section.figure("hits a request", "hits", hits);
    section.figure("CPU time a request without an agent", "ns", Spread::of(&without));
    let a_hit = |with: &[f64], without: &[f64]| -> Vec<f64> {
        differences(with, without).iter().map(|added| added / hits.median).collect()
    };
    for (i, n) in NUMBERS.iter().enumerate() {
        section.figure(format!("{n} measured: added CPU time"), "ns/hit", Spread::of(&a_hit(&with[i], &without)));
        section.figure(format!("{n} measured: time in the programs"), "ns/hit", Spread::of(&in_programs[i]));
    }
    let base = Spread::of(&a_hit(&with[0], &without)).median;
    for (i, n) in NUMBERS.iter().enumerate().skip(1) {
        let percent: Vec<f64> = a_hit(&with[i], &with[0]).iter().map(|more| 100.0 * more / base).collect();
        section.limited(format!("{n} measured against 1: a hit"), "%", Spread::of(&percent), 15.0);
        let percent: Vec<f64> =
            in_programs[i].iter().zip(&in_programs[0]).map(|(many, one)| 100.0 * (many / one - 1.0)).collect();
        section.limited(format!("{n} measured against 1: time in the programs"), "%", Spread::of(&percent), 15.0);
    }
    Ok(section)
}

/// Processes of one executable, of which the first serves. It has the first CPU for itself; the others rest beside the load and
/// the agent.
struct Fleet<'a> {
    tools: &'a Tools,
    services: Vec<Running>,
    copied: Copied,
}

impl<'a> Fleet<'a> {
    fn start(tools: &'a Tools, writable: bool) -> Result<Self> {
        let copied = tools.copy(&tools.stripped, "replicas")?;
        if !writable {
            copied.seal()?;
        }
        proc::pin(Cpus::First)?;
        let first = copied.start("inside");
        proc::pin(Cpus::Others)?;
        let fleet = Self { tools, services: vec![first?], copied };
        // Its heap and its connections' buffers grow to their size.
        fleet.serve()?;
        Ok(fleet)
    }

    /// An agent that measures them for their requests alone: probes on blocking come and go with the budget.
    fn agent(&self) -> Result<Agent> {
        let name = self.copied.name();
        Agent::measuring(self.tools, &["--executable", &name, "--features", "http"], self.services.len())
    }

    /// Starts and ends processes, and waits until the agent measures those and no others.
    fn resize(&mut self, n: usize, agent: Option<&mut Agent>) -> Result<()> {
        self.services.truncate(n);
        while self.services.len() < n {
            self.services.push(self.copied.start("inside")?);
        }
        let Some(agent) = agent else { return Ok(()) };
        let start = Instant::now();
        loop {
            let (measured, _) = agent.targets()?;
            if measured == n {
                break;
            }
            if start.elapsed() > PATIENCE {
                bail!("gopulse measures {measured} processes of {n} after {} s", PATIENCE.as_secs());
            }
            thread::sleep(Duration::from_millis(20));
        }
        // What came and went has caches to itself for a moment.
        thread::sleep(Duration::from_millis(100));
        Ok(())
    }

    /// CPU time of the first a request, nanoseconds.
    fn serve(&self) -> Result<f64> {
        let service = &self.services[0];
        let before = proc::cpu_ns(service.pid())?;
        service::get(service.address("http")?, &format!("/inside?n={REQUESTS}"))?;
        Ok((proc::cpu_ns(service.pid())? - before) as f64 / REQUESTS as f64)
    }

    /// Hits a request, and nanoseconds in gopulse's programs a hit.
    fn account(&self, agent: &Agent) -> Result<(f64, f64)> {
        let sum = || -> Result<(u64, u64)> {
            Ok(agent
                .programs()?
                .iter()
                .filter(|it| it.name.starts_with("http"))
                .fold((0, 0), |(hits, ns), it| (hits + it.hits, ns + it.ns)))
        };
        let _accounting = Accounting::on()?;
        let before = sum()?;
        self.serve()?;
        let after = sum()?;
        let (hits, ns) = (after.0 - before.0, after.1 - before.1);
        Ok((hits as f64 / REQUESTS as f64, ns as f64 / hits.max(1) as f64))
    }
}

impl Drop for Fleet<'_> {
    fn drop(&mut self) {
        // What is measured after this has all CPUs again.
        let _ = proc::pin(Cpus::All);
    }
}
