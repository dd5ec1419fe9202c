//! `cargo xtask test`: every check, every unit test, and the end-to-end tests as root. Nothing is left out without a
//! line that says so.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;

use crate::{build, check, setup, util};

/// Names the agent's binary to the end-to-end tests.
pub const AGENT: &str = "GOPULSE_BIN";

/// What the reader of executables is tested over without `GOPULSE_MATRIX=full`: the oldest release, the first with patterns in
/// requests, and the newest. Each pair of release and architecture compiles Go's standard library once.
const MATRIX_GO: &str = "1.17.13,1.22.12,1.27.4";
const MATRIX_VARIANTS: &str = "default,-s -w,pie";

/// Tests in a cluster come last: its programs take the longest to build, and what time there is goes to the ground first.
const IN_A_CLUSTER: [&str; 5] = ["access", "hpa", "image", "kubernetes", "manifests"];

/// Debian's kernels that the tests boot.
const KERNELS: [&str; 2] = ["6.1", "6.12"];

/// Options of `cargo xtask test`.
#[derive(Debug, Args)]
pub struct Options {
    /// Run only the tests whose name contains this, and no checks
    pub filter: Option<String>,
    /// Leave out the tests whose name contains "soak"
    #[arg(long)]
    pub quick: bool,
    /// Only the end-to-end tests, without checks and unit tests
    #[arg(long)]
    pub e2e: bool,
    /// Begin no further file of end-to-end tests after this many minutes; what is left out is named
    #[arg(long, value_name = "N")]
    pub minutes: Option<u64>,
}

/// Runs them all; the first failure ends it.
pub fn run(options: &Options) -> Result<()> {
    let start = Instant::now();
    util::section("setup");
    setup::run()?;
    // Asked for at the start: a password prompt after ten minutes of tests would be missed.
    util::ensure_root()?;
    util::section("build");
    build::run()?;
    if options.filter.is_none() && !options.e2e {
        check::run(&[])?;
    }
    if !options.e2e {
        unit(options)?;
    }
    let left_out = end_to_end(options, start)?;
    if options.filter.is_none() {
        kernels(options)?;
        // A regression of the hot path shows here as a number, not as noise.
        util::section("probe hits and verified instructions");
        let myself = env::current_exe().context("finding xtask itself")?;
        util::run(std::process::Command::new(myself).args(["bench", "limits"]))?;
    }
    util::section("result");
    if !left_out.is_empty() {
        println!("left out for want of time: {}", left_out.join(", "));
    }
    println!("all green after {} s", start.elapsed().as_secs());
    Ok(())
}

fn unit(options: &Options) -> Result<()> {
    util::section("unit tests");
    let filter = options.filter.as_deref();
    let run = |arguments: &[&str]| {
        let mut cargo = util::cargo();
        cargo.args(["test", "--ignore-rust-version", "--target-dir"]).arg(util::target()).args(arguments);
        if env::var("GOPULSE_MATRIX").as_deref() != Ok("full") {
            println!(
                "gobinary's matrix: {MATRIX_GO} x {MATRIX_VARIANTS}; GOPULSE_MATRIX=full takes all, in about 40 minutes"
            );
            cargo.envs([("GOBIN_MATRIX_GO", MATRIX_GO), ("GOBIN_MATRIX_VARIANTS", MATRIX_VARIANTS)]);
        }
        util::run(cargo.env(build::BPF_DIR, build::bpf_directory()).args(filter))
    };
    run(&["--workspace", "--exclude", "gopulse"])?;
    // Those below exporter/tests are the end-to-end tests.
    run(&["--package", "gopulse", "--bins"])
}

/// Returns the files for which there was no time.
fn end_to_end(options: &Options, start: Instant) -> Result<Vec<String>> {
    util::section("end-to-end tests (as root)");
    let tests = build_end_to_end()?;
    if tests.is_empty() {
        bail!("there are no end-to-end tests in exporter/tests");
    }
    if options.quick {
        println!("left out by --quick: tests whose name contains `soak`");
    }
    // NAME is a file of tests, all of which run, or else a part of tests' names.
    let filter = options.filter.as_deref();
    let files: Vec<_> = tests.iter().filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter))).collect();
    let (files, filter) = if files.is_empty() { (tests.iter().collect(), filter) } else { (files, None) };
    let mut ran = 0;
    let mut left_out = Vec::new();
    for (name, executable) in files {
        if options.minutes.is_some_and(|minutes| start.elapsed().as_secs() >= minutes * 60) {
            left_out.push(name.clone());
            continue;
        }
        let selected = listed(executable, filter)?;
        if selected == 0 {
            continue;
        }
        ran += selected;
        util::section(&format!("end-to-end: {name}"));
        let mut command = util::as_root(executable, &environment()?)?;
        // The tests share the machine's two measured things, its CPUs and its probes, so they take turns.
        command.current_dir(util::root().join("exporter")).args(["--test-threads", "1", "--nocapture"]);
        if options.quick {
            command.args(["--skip", "soak"]);
        }
        util::run(command.args(filter))?;
    }
    if ran == 0 {
        bail!("no end-to-end test has {:?} in its file's name or its own", filter.unwrap_or_default());
    }
    Ok(left_out)
}

/// Exact counts on older kernels too, under emulation: one without `uprobe_multi`, one with it.
fn kernels(options: &Options) -> Result<()> {
    util::section("other kernels");
    if options.quick || cfg!(not(target_arch = "x86_64")) {
        println!("left out by --quick, and on machines that are not amd64: cargo xtask vm");
        return Ok(());
    }
    let myself = env::current_exe().context("finding xtask itself")?;
    let chosen = KERNELS.iter().flat_map(|kernel| ["--kernel", kernel]);
    util::run(std::process::Command::new(myself).arg("vm").args(chosen))
}

/// How many tests of an executable the filter selects.
fn listed(executable: &Path, filter: Option<&str>) -> Result<usize> {
    let mut command = std::process::Command::new(executable);
    let output = command.arg("--list").args(filter).output().context("listing tests")?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.ends_with(": test")).count())
}

/// What the tests need of the environment, which sudo would not pass on.
fn environment() -> Result<Vec<(&'static str, String)>> {
    let mut environment = vec![
        (AGENT, build::agent().display().to_string()),
        (build::BPF_DIR, build::bpf_directory().display().to_string()),
        ("GOPULSE_ROOT", util::root().display().to_string()),
    ];
    for name in [
        "PATH",
        "HOME",
        "GOPROXY",
        "GOSUMDB",
        "GONOSUMDB",
        "GOFLAGS",
        "HTTPS_PROXY",
        "SSL_CERT_FILE",
        "GOPULSE_MATRIX",
        "GOPULSE_SOAK_SECONDS",
        "GOPULSE_CHURN_SECONDS",
        "GOPULSE_OUTAGE_SECONDS",
        "GOPULSE_KEEP_CLUSTER",
        "GOPULSE_UNUSUAL",
        "GOPULSE_HPA_SYNC_SECONDS",
        "GOPULSE_HPA_SERIES",
    ] {
        if let Ok(value) = env::var(name) {
            environment.push((name, value));
        }
    }
    if !build::agent().is_file() {
        bail!("{} is not built", build::agent().display());
    }
    Ok(environment)
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// Builds the end-to-end tests and returns their names and executables.
fn build_end_to_end() -> Result<Vec<(String, PathBuf)>> {
    if !has_rust_files(&util::root().join("exporter/tests")) {
        return Ok(Vec::new());
    }
    let mut cargo = util::cargo();
    cargo.args(["test", "--no-run", "--package", "gopulse", "--test", "*", "--ignore-rust-version"]);
    cargo.args(["--message-format", "json-render-diagnostics", "--target-dir"]).arg(util::target());
    cargo.env(build::BPF_DIR, build::bpf_directory()).stderr(Stdio::inherit());
    let built = cargo.output().context("cannot start cargo")?;
    if !built.status.success() {
        bail!("the end-to-end tests do not build");
    }
    let mut tests = Vec::new();
    for line in String::from_utf8_lossy(&built.stdout).lines() {
        let Ok(message) = serde_json::from_str::<Message>(line) else { continue };
        if let Message { reason, executable: Some(executable), target: Some(target) } = message
            && reason == "compiler-artifact"
            && target.kind.iter().any(|kind| kind == "test")
        {
            tests.push((target.name, executable));
        }
    }
    tests.sort_by_cached_key(|(name, _)| (IN_A_CLUSTER.iter().any(|cluster| name.starts_with(cluster)), name.clone()));
    Ok(tests)
}

fn has_rust_files(directory: &Path) -> bool {
    let entries = directory.read_dir().into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.path()).any(|path| path.extension().is_some_and(|extension| extension == "rs"))
}
