//! What the end-to-end tests share: the agent as a user starts it, what it serves, and plain HTTP by hand. Everything is
//! real: the kernel, the services, the probes. Each test takes only what it needs of this.

pub(crate) mod agent;
pub(crate) mod aggregated;
pub(crate) mod balanced;
pub(crate) mod cluster;
pub(crate) mod failing;
pub(crate) mod http;
pub(crate) mod memory;
pub(crate) mod mounts;
pub(crate) mod prometheus;
pub(crate) mod prometheus_adapter;
pub(crate) mod stage;
pub(crate) mod stalling;

use std::{
    collections::BTreeSet,
    fmt::Debug,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use xtask::{
    go::{self, Service, Variant},
    service::{self, LoadReport, Running},
    util,
};

pub(crate) use self::agent::Agent;

/// How long to wait for what should come within moments, on a machine that others use too.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Asks until there is an answer.
pub(crate) fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, ask)
}

/// The same with another patience.
pub(crate) fn within<T>(patience: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < patience, "waited {patience:?} in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Asks until the answer is the wanted one, and asserts that it is.
pub(crate) fn settles<T: PartialEq + Debug>(what: &str, wanted: &T, mut ask: impl FnMut() -> T) {
    let start = Instant::now();
    loop {
        let answer = ask();
        if answer == *wanted {
            return;
        }
        if start.elapsed() > PATIENCE {
            assert_eq!(answer, *wanted, "{what}");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Whatever else the machine does comes between the places where two observers take the time, and a sample is a sample: of three
/// measurements one must be as it should.
pub(crate) fn one_of_three(mut measure: impl FnMut() -> Result<(), String>) {
    let mut wrong = String::new();
    for _ in 0..3 {
        match measure() {
            Ok(()) => return,
            Err(error) => wrong = error,
        }
        println!("retry: {wrong}");
    }
    panic!("three times in a row, the last: {wrong}");
}

/// The tests attach probes: without root there is nothing to test, and that is a failure.
pub(crate) fn must_be_root() {
    assert!(xtask::util::is_root(), "the end-to-end tests need root: run them by `cargo xtask test --e2e`");
}

/// A sample service's binary, built by the machine's own Go.
pub(crate) fn service(name: &str) -> PathBuf {
    go::build(&Service::local(name)).unwrap_or_else(|error| panic!("{name} does not build: {error:#}"))
}

/// A sample service's binary of one Go version and variant.
pub(crate) fn service_of(name: &str, go: &str, variant: Variant) -> PathBuf {
    let service = Service { name: name.to_owned(), go: go.to_owned(), variant };
    go::build(&service).unwrap_or_else(|error| panic!("{name} {go} {variant} does not build: {error:#}"))
}

/// Starts a service.
pub(crate) fn start(binary: &Path, arguments: &[&str]) -> Running {
    Running::start(binary, arguments).unwrap_or_else(|error| panic!("{} does not start: {error:#}", binary.display()))
}

/// Lines of the kernel's log that tell of something wrong.
pub(crate) fn kernel_complaints() -> BTreeSet<String> {
    const WORDS: [&str; 9] =
        ["BUG", "WARNING", "Oops", "segfault", "traps:", "general protection", "Call Trace", "uprobe", "lockup"];
    let log = util::output(&mut Command::new("dmesg")).expect("root may read the kernel's log");
    log.lines().filter(|line| WORDS.iter().any(|word| line.contains(word))).map(str::to_owned).collect()
}

/// The executable's file name, as a glob for `--executable`.
pub(crate) fn glob(binary: &Path) -> String {
    binary.file_name().expect("a file").to_string_lossy().into_owned()
}

/// Sends what the mix says, and expects every answer to be the one it names.
pub(crate) fn load(arguments: &[&str], mix: &[&str]) -> LoadReport {
    let report = load_with_errors(arguments, mix);
    assert_eq!(report.errors, 0, "wrong answers: {:?}", report.error_samples);
    report
}

/// Sends what the mix says.
pub(crate) fn load_with_errors(arguments: &[&str], mix: &[&str]) -> LoadReport {
    let mut all = arguments.to_vec();
    for line in mix {
        all.extend(["-mix", line]);
    }
    service::load(&service("load"), &all).unwrap_or_else(|error| panic!("the load generator failed: {error:#}"))
}

/// A directory of this test's own below cargo's for tests, empty.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).expect("cargo's directory for tests is writable");
    directory
}

/// A configuration by which the agent looks at every process each 1.5 s.
pub(crate) fn often(name: &str) -> String {
    let path = scratch(&format!("often-{name}")).join("config.yaml");
    std::fs::write(&path, "scan_interval_seconds: 0.1\n").expect("it is written");
    path.display().to_string()
}

/// What the edge service's `/deep` answers: the sum of squares up to `depth`, modulo 1000003.
pub(crate) fn checksum(depth: u64) -> u64 {
    (0..=depth).fold(0, |sum, n| (sum + n * n) % 1_000_003)
}
