//! `cargo xtask test`: every check, every unit test, and the end-to-end tests as root. It ends in a table of where the time
//! went and in what passed, failed and was skipped; what was left out is named and is not called green.

mod binaries;
mod section;
mod tally;

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

use self::binaries::{Binaries, Test};
use self::section::{Counts, Section};
use self::tally::{Row, Tally};
use crate::{build, fuzz, setup, util};

/// Names the agent's binary to the end-to-end tests.
pub const AGENT: &str = "GOPULSE_BIN";

/// The folders of `exporter/tests/e2e`, in the order in which they run.
const TIERS: [&str; 5] = ["agent", CONTROL_PLANE, "node", LONG, BUILDS];
/// The tier that has no probes, and so runs beside the others.
const CONTROL_PLANE: &str = "control_plane";
/// The tiers that only `--full` runs: one that waits, and one that compiles beside it.
const LONG: &str = "long";
const BUILDS: &str = "builds";

/// Debian's kernels that every run boots: one without `uprobe_multi`, one with it.
const KERNELS: [&str; 2] = ["6.1", "6.12"];

/// What gobinary's long form builds C code for arm64 by.
const ARM64_COMPILER: [(&str, &str); 1] = [("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu libc6-dev-arm64-cross")];

/// Options of `cargo xtask test`.
#[derive(Debug, Args)]
pub struct Options {
    /// Run only the tests whose name contains this, of every tier, and no checks
    pub filter: Option<String>,
    /// Only the unit tests: no root, no network beyond cargo's, and Go only where it is there
    #[arg(long, conflicts_with_all = ["e2e", "full"])]
    pub unit: bool,
    /// Only the end-to-end tests, without checks and unit tests
    #[arg(long)]
    pub e2e: bool,
    /// Every long form too: all Go releases and ways of building, soaks, churn, roads, every kernel, fuzzing
    #[arg(long, conflicts_with = "filter")]
    pub full: bool,
}

/// Runs them all, also after a failure, which is an error in the end.
pub fn run(options: &Options) -> Result<()> {
    let start = Instant::now();
    util::myself()?;
    let mut rows = Vec::new();
    if !options.unit {
        // Asked for at the start: a password prompt after ten minutes of tests would be missed.
        util::ensure_root()?;
        prepared(&mut rows, "set-up", || {
            setup::run()?;
            if options.full { util::install(&ARM64_COMPILER) } else { Ok(()) }
        })?;
        prepared(&mut rows, "eBPF objects", build::objects)?;
    }
    let binaries = prepared(&mut rows, "build", || Binaries::build(options.unit))?;
    let plan = Plan::of(options, &binaries)?;
    let left_out = plan.left_out.clone();
    rows.extend(plan.run());
    util::section("result");
    println!("{}", tally::table(&rows, start.elapsed(), &left_out));
    if options.full {
        write_full_run(&tally::table(&rows, start.elapsed(), &left_out))?;
    }
    let mut all = Tally::default();
    for row in &rows {
        all.add(row.tally);
    }
    if all.passed + all.failed == 0 {
        bail!("no test has {:?} in its name", options.filter.as_deref().unwrap_or_default());
    }
    if all.failed > 0 {
        let failed: Vec<&str> = rows.iter().filter(|row| row.tally.failed > 0).map(|row| row.name.as_str()).collect();
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// The page of the book with the last full run, dated.
fn write_full_run(table: &str) -> Result<()> {
    let date = util::output(Command::new("date").args(["-u", "+%d %B %Y"]))?;
    let commit = util::output(Command::new("git").current_dir(util::root()).args(["rev-parse", "--short", "HEAD"]))?;
    let kernel = util::output(Command::new("uname").arg("-r"))?;
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let page = format!(
        "# The last full run\n\n`cargo xtask test --full` wrote this page on {date}, at commit {commit}, on {cpus} CPUs and Linux {kernel}.\n\n{table}\n"
    );
    util::write_if_changed(&util::root().join("docs/src/full-run.md"), page.as_bytes())
}

/// Something without which nothing else can run.
fn prepared<T>(rows: &mut Vec<Row>, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    util::section(name);
    let start = Instant::now();
    let made = work()?;
    rows.push(Row { name: name.to_owned(), seconds: start.elapsed(), tally: Tally::default(), beside: false });
    Ok(made)
}

/// What is run, in two lanes: the tests of the agent wait more than they compute, so that beside them the other lane
/// compiles Kubernetes, tests what needs no probes, and boots kernels.
struct Plan {
    foreground: Vec<Section>,
    beside: Vec<Section>,
    /// Comes beside the foreground when all else has: hours of compilers, while the long tests wait.
    late: Vec<Section>,
    /// Tests that this run leaves to `--full`.
    left_out: Vec<String>,
}

impl Plan {
    fn of(options: &Options, binaries: &Binaries) -> Result<Self> {
        let mut plan = Self { foreground: Vec::new(), beside: Vec::new(), late: Vec::new(), left_out: Vec::new() };
        let filter = options.filter.as_deref();
        let everything = filter.is_none();
        if everything && !options.unit && !options.e2e {
            plan.checks()?;
        }
        if !options.e2e {
            plan.unit(options, binaries)?;
        }
        if options.unit {
            return Ok(plan);
        }
        plan.end_to_end(options, binaries)?;
        if everything {
            plan.programs(binaries)?;
        }
        if options.full {
            plan.long(binaries)?;
        }
        Ok(plan)
    }

    /// What needs no root and runs no test.
    fn checks(&mut self) -> Result<()> {
        for check in ["formatting", "lints", "objects", "dependencies", "go"] {
            self.foreground.push(section(check, Counts::Check, [xtask(&["check", check])?]));
        }
        Ok(())
    }

    fn unit(&mut self, options: &Options, binaries: &Binaries) -> Result<()> {
        let run = |test: &Test| {
            let mut command = Command::new(&test.executable);
            command.current_dir(&test.directory).arg("--show-output").args(&options.filter);
            command
        };
        self.foreground.push(section("unit tests", Counts::Tests, binaries.unit.iter().map(run)));
        if options.filter.is_none() {
            let mut doc = util::cargo();
            doc.args(["test", "--workspace", "--doc", "--ignore-rust-version", "--target-dir"]).arg(util::target());
            self.foreground.push(section("examples in the docs", Counts::Tests, [build::with_objects(doc)]));
        }
        if options.unit {
            return Ok(());
        }
        // The reader of executables over releases of Go: some, whose executables the agent's tests use too, or all.
        for test in &binaries.releases {
            let filter = options.filter.as_deref().or((!options.full).then_some("short"));
            let listed = test.list()?;
            let chosen = |name: &String| filter.is_none_or(|filter| name.contains(filter));
            self.left_out.extend(listed.iter().filter(|name| options.filter.is_none() && !chosen(name)).cloned());
            if listed.iter().any(chosen) {
                let mut command = Command::new(&test.executable);
                command.current_dir(&test.directory).arg("--nocapture").args(filter);
                let tests = section(&format!("gobinary: {}", test.name), Counts::Tests, [command]);
                let lane = if options.full { &mut self.late } else { &mut self.foreground };
                lane.push(tests);
            }
        }
        Ok(())
    }

    /// The end-to-end tests, a tier each.
    fn end_to_end(&mut self, options: &Options, binaries: &Binaries) -> Result<()> {
        let tests = binaries.end_to_end.list()?;
        for (tier, names) in by_tier(&tests, options.filter.as_deref().unwrap_or_default())? {
            if [LONG, BUILDS].contains(&tier) && !options.full && options.filter.is_none() {
                self.left_out.extend(names.into_iter().map(str::to_owned));
                continue;
            }
            // What is built beside the others comes last.
            let (of_image, others): (Vec<&str>, Vec<&str>) =
                names.into_iter().partition(|name| name.starts_with("long::image"));
            let mut commands = Vec::new();
            for names in [others, of_image].into_iter().filter(|names| !names.is_empty()) {
                let mut command = binaries.end_to_end_command(options.full)?;
                // They share the machine's measured things, its CPUs and its probes, so they take turns.
                command.args(["--test-threads", "1", "--nocapture", "--exact"]).args(names);
                commands.push(command);
            }
            let tests = section(&format!("end-to-end: {tier}"), Counts::Tests, commands);
            if tier == BUILDS && options.full {
                self.late.push(tests);
                continue;
            }
            if tier != CONTROL_PLANE || options.filter.is_some() {
                self.foreground.push(tests);
                continue;
            }
            // A little behind the tests; much behind, it would starve where others burn the CPUs, and tests wait for it.
            let mut compile = Command::new("nice");
            compile.args(["-n", "5"]).arg(util::myself()?).args(["cluster", "setup", "--control-plane"]);
            self.beside.push(section("Kubernetes' control plane", Counts::Preparation, [compile]));
            self.beside.push(tests);
        }
        Ok(())
    }

    /// Exact counts on other kernels, and what the programs cost, in figures that are no times.
    fn programs(&mut self, binaries: &Binaries) -> Result<()> {
        let agent = binaries.agent.display().to_string();
        if cfg!(target_arch = "x86_64") {
            for kernel in KERNELS {
                let command = xtask(&["vm", "--kernel", kernel, "--agent", &agent])?;
                self.beside.push(section(&format!("kernel {kernel}"), Counts::Check, [command]));
            }
        } else {
            self.left_out.extend(KERNELS.map(|kernel| format!("kernel {kernel} (amd64 machines boot it)")));
        }
        let command = xtask(&["bench", "limits", "--agent", &agent])?;
        self.foreground.push(section("hits and instructions", Counts::Check, [command]));
        Ok(())
    }

    /// What takes an hour, and is no test binary's.
    fn long(&mut self, binaries: &Binaries) -> Result<()> {
        let agent = binaries.agent.display().to_string();
        for kernel in ["5.10", "newest", "newest-preempt"] {
            let command = xtask(&["vm", "--kernel", kernel, "--agent", &agent])?;
            self.beside.push(section(&format!("kernel {kernel}"), Counts::Check, [command]));
        }
        // The test of the image builds it where it is not there yet.
        self.beside.push(section("the agent's image", Counts::Preparation, [xtask(&["image"])?]));
        self.beside.append(&mut self.late);
        self.foreground.push(section("book", Counts::Check, [xtask(&["check", "book"])?]));
        match fuzz::require_nightly() {
            Ok(()) => self.foreground.push(section("fuzzing", Counts::Check, [xtask(&["fuzz"])?])),
            Err(error) => self.left_out.push(format!("fuzzing ({error})")),
        }
        Ok(())
    }

    /// Runs both lanes; the rows are in the order of the plan.
    fn run(self) -> Vec<Row> {
        let Self { foreground, beside, .. } = self;
        thread::scope(|scope| {
            let beside = scope.spawn(|| beside.into_iter().map(|it| it.run(true)).collect::<Vec<_>>());
            let mut rows: Vec<Row> = foreground.into_iter().map(|it| it.run(false)).collect();
            let waited = Instant::now();
            rows.extend(beside.join().expect("the lane beside does not panic"));
            if waited.elapsed() > Duration::from_secs(1) {
                let name = "waiting for what runs beside".to_owned();
                rows.push(Row { name, seconds: waited.elapsed(), tally: Tally::default(), beside: false });
            }
            rows
        })
    }
}

/// The end-to-end tests with `filter` in their name, tier by tier; an error where one is in no tier.
fn by_tier<'a>(tests: &'a [String], filter: &str) -> Result<Vec<(&'static str, Vec<&'a str>)>> {
    let tier_of = |name: &str| name.split("::").next().and_then(|first| TIERS.into_iter().find(|tier| *tier == first));
    if let Some(lost) = tests.iter().find(|name| tier_of(name).is_none()) {
        bail!("the end-to-end test {lost} is in none of {}: nothing would run it", TIERS.join(", "));
    }
    let of = |tier: &'static str| {
        let of_tier = tests.iter().map(String::as_str).filter(|name| tier_of(name) == Some(tier));
        (tier, of_tier.filter(|name| name.contains(filter)).collect::<Vec<_>>())
    };
    Ok(TIERS.map(of).into_iter().filter(|(_, names)| !names.is_empty()).collect())
}

fn section(name: &str, counts: Counts, commands: impl IntoIterator<Item = Command>) -> Section {
    Section { name: name.to_owned(), counts, commands: commands.into_iter().collect() }
}

/// One of our own commands.
fn xtask(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(util::myself()?);
    command.args(arguments).env("GOPULSE_ROOT", util::root());
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::by_tier;

    fn names() -> Vec<String> {
        ["agent::counts::http1", "long::soak::soak", "node::kubernetes::counts"].map(str::to_owned).to_vec()
    }

    #[test]
    fn tests_are_run_tier_by_tier() {
        let all = vec![
            ("agent", vec!["agent::counts::http1"]),
            ("node", vec!["node::kubernetes::counts"]),
            ("long", vec!["long::soak::soak"]),
        ];
        assert_eq!(by_tier(&names(), "").unwrap(), all);
        let counts = vec![all[0].clone(), all[1].clone()];
        assert_eq!(by_tier(&names(), "counts").unwrap(), counts);
        assert_eq!(by_tier(&names(), "nothing").unwrap(), []);
    }

    #[test]
    fn a_test_in_no_tier_is_not_left_out_in_silence() {
        let tests = [names(), vec!["agents::counts::http1".to_owned()]].concat();
        let error = by_tier(&tests, "soak").unwrap_err().to_string();
        assert!(error.contains("agents::counts::http1"), "{error}");
    }
}
