//! `bench inspect`: time and memory that reading a large executable takes, by `gopulse inspect`.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

use super::fixture::Tools;
use super::report::{Section, Table};
use super::stats::{Spread, differences};
use crate::{foreign, util};

const ROUNDS: usize = 15;
/// A large stripped Go program that Debian packages.
const DEFAULT: &str = "prometheus";
/// Rounds for each of the other programs that nobody here wrote.
const FEW_ROUNDS: usize = 7;
const MIB: f64 = 1_048_576.0;

/// Options of `bench inspect`.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub(super) struct Options {
    /// A large Go executable; without it, Debian's prometheus, and a table of all foreign programs
    #[arg(long)]
    pub(super) file: Option<PathBuf>,
}

/// What a child needed.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Usage {
    peak_mib: f64,
    wall_ms: f64,
    cpu_ms: f64,
}

/// Measures.
pub(super) fn run(tools: &Tools, options: &Options) -> Result<Section> {
    let file = match &options.file {
        Some(file) => file.clone(),
        None => foreign::program(DEFAULT)?,
    };
    let bytes = std::fs::metadata(&file).with_context(|| format!("cannot read {}", file.display()))?.len();
    let small = tools.copy(&tools.stripped, "inspect")?;
    let mut section = Section::new(
        "inspect",
        format!(
            "`gopulse inspect` of {} ({:.0} MB) and of a small stripped service ({:.1} MB) by turns, files cached. Peak memory is \
             the kernel's ru_maxrss of the child; the extra is over the small file's of the same round.",
            file.file_name().unwrap_or_default().to_string_lossy(),
            bytes as f64 / 1e6,
            std::fs::metadata(small.path())?.len() as f64 / 1e6,
        ),
    );
    let (mut large, mut tiny, mut inside) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        large.push(measured(tools, &file)?);
        tiny.push(measured(tools, small.path())?);
        inside.push(inspection(tools, &file)?.seconds * 1e3);
    }
    let of = |usages: &[Usage], field: fn(&Usage) -> f64| usages.iter().map(field).collect::<Vec<f64>>();
    section.limited("time of reading it, as gopulse itself reports", "ms", Spread::of(&inside), 100.0);
    section.figure("the whole command", "ms", Spread::of(&of(&large, |it| it.wall_ms)));
    section.figure("CPU time of the command", "ms", Spread::of(&of(&large, |it| it.cpu_ms)));
    section.figure("the whole command on the small file", "ms", Spread::of(&of(&tiny, |it| it.wall_ms)));
    section.figure("peak memory", "MiB", Spread::of(&of(&large, |it| it.peak_mib)));
    let extra = differences(&of(&large, |it| it.peak_mib), &of(&tiny, |it| it.peak_mib));
    section.limited("extra peak memory", "MiB", Spread::of(&extra), 32.0);
    section.note(
        "A child's peak begins with what the measuring process had when it started it, some 6 MiB: where the extra is about \
         zero, reading never needed more than that in all.",
    );
    if bytes < 60_000_000 {
        section.note("The file is smaller than the 60 MB that the limits are for.");
    }
    if options.file.is_none() {
        section.tables.push(programs(tools, small.path())?);
    }
    Ok(section)
}

/// Each program that nobody here wrote, with the medians of what it took.
fn programs(tools: &Tools, small: &std::path::Path) -> Result<Table> {
    let columns =
        ["program", "MiB", "Go", "read, MiB", "time, ms", "limit 100 ms", "extra memory, MiB", "limit 32 MiB"];
    let mut rows = Vec::new();
    for program in foreign::PROGRAMS {
        let file = program.path()?;
        let (mut large, mut tiny, mut inside) = (Vec::new(), Vec::new(), Vec::new());
        let seen = inspection(tools, &file)?;
        for _ in 0..FEW_ROUNDS {
            large.push(measured(tools, &file)?.peak_mib);
            tiny.push(measured(tools, small)?.peak_mib);
            inside.push(inspection(tools, &file)?.seconds * 1e3);
        }
        let (time, extra) = (Spread::of(&inside).median, Spread::of(&differences(&large, &tiny)).median);
        let verdict = |met: bool| if met { "met" } else { "NOT MET" };
        rows.push(vec![
            program.name.to_owned(),
            format!("{:.1}", std::fs::metadata(&file)?.len() as f64 / MIB),
            seen.go_version,
            format!("{:.1}", seen.bytes_read as f64 / MIB),
            format!("{time:.1}"),
            verdict(time <= 100.0).to_owned(),
            format!("{extra:.1}"),
            verdict(extra <= 32.0).to_owned(),
        ]);
    }
    let title = "Programs that nobody here wrote, stripped as they are shipped; medians".to_owned();
    Ok(Table { title, columns: columns.map(Into::into).to_vec(), rows })
}

/// Inspects by way of a process that has no other child, since the kernel keeps one peak for all children. What such a child
/// inherits before its exec counts too, so that process is kept small: this program, which has done nothing yet.
fn measured(tools: &Tools, file: &std::path::Path) -> Result<Usage> {
    let own = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(own);
    let printed = util::output(command.args(["bench", "child"]).arg(&tools.agent).arg("inspect").arg(file))?;
    serde_json::from_str(&printed).with_context(|| format!("the measuring child printed `{printed}`"))
}

/// `bench child`: runs a command and prints what it needed.
pub(super) fn child(command: &[String]) -> Result<()> {
    let [program, arguments @ ..] = command else { bail!("a command is needed") };
    let start = Instant::now();
    let null = File::options().write(true).open("/dev/null")?;
    let status = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(null).status()?;
    if !status.success() {
        bail!("{program} failed: {status}");
    }
    let wall_ms = start.elapsed().as_secs_f64() * 1e3;
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let ms = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e3 + time.tv_usec() as f64 / 1e3;
    let usage = Usage {
        peak_mib: usage.max_rss() as f64 / 1024.0,
        wall_ms,
        cpu_ms: ms(usage.user_time()) + ms(usage.system_time()),
    };
    println!("{}", serde_json::to_string(&usage)?);
    Ok(())
}

#[derive(Deserialize)]
struct Inspection {
    seconds: f64,
    bytes_read: u64,
    go_version: String,
}

fn inspection(tools: &Tools, file: &std::path::Path) -> Result<Inspection> {
    let printed = util::output(Command::new(&tools.agent).args(["inspect", "--json"]).arg(file))?;
    serde_json::from_str(&printed).context("reading what gopulse inspect printed")
}
