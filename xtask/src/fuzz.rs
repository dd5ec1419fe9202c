//! `cargo xtask fuzz`: libFuzzer over gobinary's parts, from the checked-in seeds of `exporter/gobinary/fuzz/seeds`. What it
//! learns stays below target/fuzz/corpus, so that the next run goes on from there; a crash is an error.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::util;

const CARGO_FUZZ: &str = "0.13.2";
/// Each is a file of `fuzz/fuzz_targets` and a folder of `fuzz/seeds`.
const TARGETS: [&str; 5] = ["elf", "pclntab", "buildinfo", "dwarf", "sites"];
/// What gobinary promises of any input: no hang over a second, no allocation over 64 MiB. Inputs of 64 KiB suffice to
/// reach every line; larger ones are the business of gobinary's own tests.
const LIMITS: [&str; 5] =
    ["-timeout=1", "-malloc_limit_mb=64", "-rss_limit_mb=2048", "-max_len=65536", "-print_final_stats=1"];

/// Options of `cargo xtask fuzz`.
#[derive(Debug, Args)]
pub struct Options {
    /// For how long, over all targets
    #[arg(long, default_value_t = 180)]
    pub seconds: u64,
    /// elf, pclntab, buildinfo, dwarf, sites, or all
    #[arg(long, default_value = "all")]
    pub target: String,
}

/// How one target went.
struct Outcome {
    executions: u64,
    edges: u64,
    /// Whole seconds that the slowest input took.
    slowest: u64,
    /// The most memory the fuzzer held, its own corpus and the address sanitizer's shadow included, MiB.
    peak: u64,
    /// Files with inputs that crashed it, ran too long or took too much.
    crashes: Vec<PathBuf>,
}

/// Fuzzes; an error when anything crashed.
pub fn run(options: &Options) -> Result<()> {
    let targets: Vec<_> = TARGETS.into_iter().filter(|name| ["all", name].contains(&options.target.as_str())).collect();
    if targets.is_empty() {
        bail!("no fuzz target {:?}: there are {}, and all", options.target, TARGETS.join(", "));
    }
    let share = (options.seconds / targets.len() as u64).max(1);
    require_nightly()?;
    let cargo_fuzz = cargo_fuzz()?;
    let binaries = build(&cargo_fuzz)?;
    let mut table = format!(
        "{:<10} {:>8} {:>12} {:>9} {:>10} {:>9} {:>8}\n",
        "target", "seconds", "executions", "coverage", "slowest, s", "peak, MiB", "crashes"
    );
    let mut crashes = Vec::new();
    for target in targets {
        util::say(&format!("fuzzing {target} for {share} s"));
        let outcome = fuzz(&binaries.join(target), target, share)?;
        let Outcome { executions, edges, slowest, peak, .. } = outcome;
        let found = outcome.crashes.len();
        writeln!(table, "{target:<10} {share:>8} {executions:>12} {edges:>9} {slowest:>10} {peak:>9} {found:>8}")?;
        crashes.extend(outcome.crashes);
    }
    print!("{table}");
    println!("an input that takes over 1 s, or an allocation over 64 MiB, counts as a crash");
    if !crashes.is_empty() {
        let files: Vec<_> = crashes.iter().map(|file| file.display().to_string()).collect();
        bail!("{} crashes, hangs or large allocations; the inputs: {}", files.len(), files.join(" "));
    }
    Ok(())
}

fn crate_folder() -> PathBuf {
    util::root().join("exporter/gobinary/fuzz")
}

/// An error where there is no nightly compiler.
pub(crate) fn require_nightly() -> Result<()> {
    let found = Command::new("cargo").args(["+nightly", "--version"]).output();
    if !found.is_ok_and(|output| output.status.success()) {
        bail!("fuzzing needs a nightly compiler: rustup toolchain install nightly --profile minimal");
    }
    Ok(())
}

fn cargo_fuzz() -> Result<PathBuf> {
    if let Some(found) = util::which("cargo-fuzz") {
        return Ok(found);
    }
    let own = util::tools().join("bin/cargo-fuzz");
    if !own.is_file() {
        util::say("installing cargo-fuzz below target/tools");
        let mut cargo = util::cargo();
        cargo.args(["install", "cargo-fuzz", "--version", CARGO_FUZZ, "--locked", "--root"]).arg(util::tools());
        cargo.arg("--target-dir").arg(util::tools().join("build"));
        util::run(&mut cargo).context("no cargo-fuzz on PATH, and it could not be installed")?;
    }
    Ok(own)
}

/// Builds every target with coverage and the address sanitizer, and returns the folder of the executables.
fn build(cargo_fuzz: &Path) -> Result<PathBuf> {
    let folder = util::target().join("fuzz");
    let mut command = Command::new(cargo_fuzz);
    // As cargo would start it; the toolchain is chosen by the variable, since no proxy is between.
    command.current_dir(crate_folder()).env("RUSTUP_TOOLCHAIN", "nightly").env_remove("CARGO");
    command.env_remove("CARGO_TARGET_DIR").env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("RUSTC");
    command.args(["fuzz", "build", "--fuzz-dir", ".", "--target-dir"]).arg(folder.join("build"));
    util::run(&mut command)?;
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    Ok(folder.join("build").join(triple).join("release"))
}

fn fuzz(binary: &Path, target: &str, seconds: u64) -> Result<Outcome> {
    let (corpus, found) =
        (util::target().join("fuzz/corpus").join(target), util::target().join("fuzz/found").join(target));
    for folder in [&corpus, &found] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let before = files(&found)?;
    let mut command = Command::new(binary);
    command.args(LIMITS).arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-artifact_prefix={}/", found.display()));
    // What is learnt is written to the first.
    command.arg(&corpus).arg(crate_folder().join("seeds").join(target)).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("cannot start `{}`", util::display(&command)))?;
    let log = String::from_utf8_lossy(&output.stderr);
    let crashes: Vec<_> = files(&found)?.into_iter().filter(|file| !before.contains(file)).collect();
    if !output.status.success() {
        let tail: Vec<_> = log.lines().rev().take(60).collect();
        eprintln!("{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        if crashes.is_empty() {
            bail!("`{}` failed: {}", util::display(&command), output.status);
        }
    }
    let (slowest, peak) = (stat(&log, "slowest_unit_time_sec"), stat(&log, "peak_rss_mb"));
    let (slowest, peak) = (slowest.unwrap_or(0), peak.unwrap_or(0));
    Ok(Outcome { executions: executions(&log), edges: edges(&log), slowest, peak, crashes })
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// `stat::number_of_executed_units: 123`, or the number of the last line of progress after a crash.
fn executions(log: &str) -> u64 {
    let total = stat(log, "number_of_executed_units");
    let progress =
        || log.lines().rev().find_map(|line| line.strip_prefix('#')?.split('\t').next()?.trim().parse().ok());
    total.or_else(progress).unwrap_or(0)
}

/// A line of `-print_final_stats=1`: `stat::NAME: 123`.
fn stat(log: &str, name: &str) -> Option<u64> {
    log.lines().find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
}

/// `cov: 123` of the last line of progress: the edges of the program's flow that were taken.
fn edges(log: &str) -> u64 {
    let last = log.lines().rev().find_map(|line| line.split_once(" cov: "));
    last.and_then(|(_, rest)| rest.split(' ').next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_says_is_understood() {
        let log = "#7\tINITED cov: 517 ft: 585 corp: 6/24Kb exec/s: 0 rss: 37Mb\n\
                   #101561\tREDUCE cov: 841 ft: 2764 corp: 374/1506Kb lim: 4856 exec/s: 1092 rss: 398Mb\n";
        assert_eq!((executions(log), edges(log)), (101_561, 841));
        let done = format!("{log}stat::number_of_executed_units: 101999\n");
        assert_eq!((executions(&done), edges(&done)), (101_999, 841));
        assert_eq!(stat("stat::peak_rss_mb:              398\n", "peak_rss_mb"), Some(398));
    }

    #[test]
    fn every_target_has_seeds() {
        for target in TARGETS {
            assert!(!files(&crate_folder().join("seeds").join(target)).unwrap().is_empty(), "{target}");
            assert!(crate_folder().join("fuzz_targets").join(target).with_extension("rs").is_file(), "{target}");
        }
    }
}
