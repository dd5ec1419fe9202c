//! `bench replicas`: whether a probe hit costs the same with 1, 20 and 100 processes of one executable.

use anyhow::Result;
use clap::Args;

use super::fixture::{Agent, Tools};
use super::proc;
use super::programs::Accounting;
use super::report::Section;
use super::stats::{Spread, differences};
use crate::service::Running;

/// Options of `bench replicas`.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    /// How many times each number is measured, with the agent and without
    #[arg(long, default_value_t = 8)]
    pub(super) pairs: usize,
}

const NUMBERS: [usize; 3] = [1, 20, 100];
const REQUESTS: u64 = 60_000;

/// Measures.
pub(super) fn run(tools: &Tools, options: &Options) -> Result<Section> {
    let mut section = Section::new(
        "replicas",
        format!(
            "n processes of one executable, all measured; one of them serves {REQUESTS} requests over 32 connections. Added CPU time \
             of that one a request, with the agent and without by turns, {} rounds in which each n has its turn; and the time in \
             gopulse's programs a hit, from runs of their own with bpf_stats on.",
            options.pairs
        ),
    );
    let copied = tools.copy(&tools.stripped, "replicas")?;
    let mut services: Vec<Running> = Vec::new();
    let mut added: Vec<Vec<f64>> = vec![Vec::new(); NUMBERS.len()];
    let mut in_programs = Vec::new();
    let name = copied.name();
    let select = ["--executable", name.as_str()];
    services.push(copied.start("hello")?);
    let one = |service: &Running, agent: bool, n: usize| -> Result<f64> {
        let _agent = if agent { Some(Agent::measuring(tools, &select, n)?) } else { None };
        let before = proc::cpu_ns(service.pid())?;
        tools.load(service.address("http")?, &["-n", &REQUESTS.to_string(), "-c", "32"])?;
        Ok((proc::cpu_ns(service.pid())? - before) as f64 / 1e3 / REQUESTS as f64)
    };
    one(&services[0], false, 0)?;
    for round in 0..options.pairs {
        let mut turns: Vec<(usize, usize)> = NUMBERS.into_iter().enumerate().collect();
        if round % 4 >= 2 {
            turns.reverse();
        }
        for (i, n) in turns {
            // Each round starts anew with one process; the first is the one under load throughout.
            services.truncate(n);
            while services.len() < n {
                services.push(copied.start("hello")?);
            }
            let (with, without) = if round % 2 == 0 {
                let with = one(&services[0], true, n)?;
                (with, one(&services[0], false, n)?)
            } else {
                let without = one(&services[0], false, n)?;
                (one(&services[0], true, n)?, without)
            };
            added[i].push(with - without);
            if round == 0 {
                in_programs.push(ns_a_hit(tools, &services[0], &select, n)?);
            }
        }
        services.truncate(1);
    }
    for (i, n) in NUMBERS.iter().enumerate() {
        section.figure(format!("{n} processes: added CPU time a request"), "us", Spread::of(&added[i]));
        section.figure(format!("{n} processes: time in the programs"), "ns/hit", Spread::one(in_programs[i]));
    }
    let base = Spread::of(&added[0]).median;
    for (i, n) in NUMBERS.iter().enumerate().skip(1) {
        let percent: Vec<f64> = differences(&added[i], &added[0]).iter().map(|it| 100.0 * it / base).collect();
        section.limited(format!("{n} processes against 1"), "%", Spread::of(&percent), 15.0);
    }
    Ok(section)
}

fn ns_a_hit(tools: &Tools, service: &Running, select: &[&str], n: usize) -> Result<f64> {
    let agent = Agent::measuring(tools, select, n)?;
    let _accounting = Accounting::on()?;
    tools.load(service.address("http")?, &["-n", "20000", "-c", "32"])?;
    let programs = agent.programs()?;
    let http = programs.iter().filter(|it| it.name.starts_with("http"));
    let (hits, ns) = http.fold((0, 0), |(hits, ns), it| (hits + it.hits, ns + it.ns));
    Ok(ns as f64 / hits.max(1) as f64)
}
