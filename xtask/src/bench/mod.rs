//! `cargo xtask bench`: what gopulse costs, as figures that anyone can measure again. One module a subcommand; each gives a
//! [`report::Section`], and `all` makes `docs/performance.md` and `docs/performance.json` of them. Machines are noisy and
//! differ, so what is compared is measured alternating, and reported as medians of paired differences with their quartiles.

mod agent;
mod all;
mod answers;
mod attach;
mod budget;
mod fixture;
mod fleet;
mod inspect;
mod limits;
mod machine;
mod metrics_api;
mod overhead;
mod poller;
mod proc;
mod program_info;
mod programs;
mod replicas;
mod report;
mod runtime;
mod scale;
mod scrape;
mod stats;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use self::{fixture::Tools, report::Section};
use crate::util;

/// Tells the second start of a benchmark, by way of sudo, that everything is built.
const BUILT: &str = "GOPULSE_BENCH_BUILT";

/// Options of `cargo xtask bench`.
#[derive(Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// CPU time that probes add to a measured process, per request
    Overhead(overhead::Options),
    /// The agent's own memory and CPU time with one target
    Agent,
    /// From the start of a process to its first counted request
    Attach,
    /// Time and memory that reading a large executable takes
    Inspect(inspect::Options),
    /// Whether a probe hit costs the same with many processes of one executable
    Replicas(replicas::Options),
    /// Whether the overhead budget holds
    Budget(budget::Options),
    /// Reading a target's runtime from outside, and a walk over 100,000 goroutines
    Runtime,
    /// Scrapes of many targets
    Scrape(fleet::Options),
    /// Attaching to many targets, letting go of them, and what they cost the agent
    Scale(fleet::Options),
    /// Probe hits a request and instructions a program, against xtask/limits.json
    Limits(limits::Options),
    /// The metrics-api listening to a thousand agents
    MetricsApi(metrics_api::Options),
    /// All of them; writes docs/performance.md and docs/performance.json
    All(all::Options),
    /// Runs a command and prints its peak memory and CPU time
    #[command(hide = true)]
    Child {
        /// The command
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

/// Builds what is needed, becomes root, and measures.
pub fn run(options: &Options) -> Result<()> {
    if let Command::Child { command } = &options.command {
        return inspect::child(command);
    }
    let given = match &options.command {
        Command::Limits(limits) => limits.agent.as_deref(),
        _ => None,
    };
    let tools = Tools::build(given, std::env::var_os(BUILT).is_some())?;
    if !util::is_root() {
        return again_as_root();
    }
    proc::raise_open_files()?;
    fixture::warn_of_others();
    let section = match &options.command {
        Command::Overhead(options) => overhead::run(&tools, options)?,
        Command::Agent => agent::run(&tools)?,
        Command::Attach => attach::run(&tools)?,
        Command::Inspect(options) => inspect::run(&tools, options)?,
        Command::Replicas(options) => replicas::run(&tools, options)?,
        Command::Budget(options) => budget::run(&tools, options)?,
        Command::Runtime => runtime::run(&tools)?,
        Command::Scrape(options) => scrape::run(&mut fleet::Fleet::start(&tools, options)?)?,
        Command::Scale(options) => scale::run(&mut fleet::Fleet::start(&tools, options)?)?,
        Command::Limits(options) => return limits::run(&tools, options),
        Command::MetricsApi(options) => metrics_api::run(&tools, options)?,
        Command::All(options) => return all::run(&tools, options),
        Command::Child { .. } => return Ok(()),
    };
    finish(&section)
}

/// Prints a section and writes it below `target/bench`.
fn finish(section: &Section) -> Result<()> {
    println!("{}", section.text());
    let file = util::target().join("bench").join(format!("{}.json", section.name));
    util::write_if_changed(&file, (serde_json::to_string_pretty(section)? + "\n").as_bytes())?;
    util::say(&format!("written: {}", file.display()));
    Ok(())
}

/// Counting hits and resetting a peak of memory need root, as the agent does.
fn again_as_root() -> Result<()> {
    util::ensure_root()?;
    let own = std::env::current_exe().context("cannot find this program")?;
    let mut keep = vec![(BUILT, "1".to_owned()), ("GOPULSE_ROOT", util::root().display().to_string())];
    for name in ["PATH", "HOME"] {
        if let Ok(value) = std::env::var(name) {
            keep.push((name, value));
        }
    }
    util::run(util::as_root(&own, &keep)?.args(std::env::args_os().skip(1)))
}
