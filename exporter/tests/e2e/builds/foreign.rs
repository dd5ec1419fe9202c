//! Programs that nobody here wrote, stripped as they are shipped, measured live: each request that the load generator sent
//! is counted once, with the status that it got, and the runtime's own counters are what the program says of itself.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Stdio},
};

use crate::support::{Agent, eventually, http::free_port, load, must_be_root, scratch, settles};
use xtask::{
    exposition, foreign,
    service::{self, get},
};

/// Requests to each program, at full speed.
const REQUESTS: u64 = 3000;

/// A foreign program that runs.
struct Program {
    child: Child,
    address: SocketAddr,
}

impl Program {
    /// Starts it with arguments in which `{address}`, `{peer}` and `{dir}` stand for a free address, another, and a folder of
    /// its own; waits until it answers at `ready`.
    fn start(name: &str, arguments: &[&str], directory: &Path, ready: &str) -> Self {
        let mut command = foreign::command(name).unwrap_or_else(|error| panic!("{name} cannot be had: {error:#}"));
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let peer = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let fill = |argument: &&str| {
            argument
                .replace("{address}", &address.to_string())
                .replace("{port}", &address.port().to_string())
                .replace("{peer}", &peer.to_string())
                .replace("{dir}", &directory.display().to_string())
        };
        let log = directory.join("log.txt");
        let output = fs::File::create(&log).expect("cargo's directory is writable");
        let child = command
            .args(arguments.iter().map(fill))
            .current_dir(directory)
            .env("HOME", directory)
            .stdin(Stdio::piped())
            .stdout(output.try_clone().expect("a descriptor more"))
            .stderr(output)
            .spawn()
            .expect("it starts");
        let mut program = Self { child, address };
        eventually(&format!("{name} answers"), || {
            if let Ok(Some(status)) = program.child.try_wait() {
                panic!("{name} ended with {status}: {}", fs::read_to_string(&log).unwrap_or_default());
            }
            get(address, ready).ok()
        });
        program
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = service::end(&mut self.child);
    }
}

/// Statuses by method, of counts by method, status and route.
fn statuses(counts: &crate::support::agent::Counts) -> BTreeMap<(String, u16), u64> {
    let mut sums = BTreeMap::new();
    for ((method, status, _), count) in counts {
        *sums.entry((method.clone(), *status)).or_default() += count;
    }
    sums
}

/// Loads a program and compares; `own` is a page in client_golang's format that the program has of itself.
fn measure(name: &str, arguments: &[&str], directory: &Path, ready: &str, mix: &[&str], own: Option<&str>) {
    must_be_root();
    let program = Program::start(name, arguments, directory, ready);
    let agent = Agent::measuring(program.pid(), &[]);
    let target = agent.target(program.pid()).expect("it is measured");
    let report = load(&["-address", &program.address.to_string(), "-n", &REQUESTS.to_string(), "-c", "16"], mix);
    assert_eq!(report.total, REQUESTS);
    let wanted = statuses(&crate::support::agent::counted_by_load(&report));
    settles(&format!("{name}'s requests"), &wanted, || statuses(&agent.scrape().counts(program.pid())));
    assert_eq!(agent.scrape().lost(), Vec::<String>::new(), "{name}");
    println!(
        "{name}: {REQUESTS} of {REQUESTS} requests with the right status at {:.0} a second, built by {}",
        report.rate,
        target.pointer("/inspection/go_version").or_else(|| target.get("go_version")).unwrap_or(&target["state"])
    );
    if let Some(page) = own {
        compare_runtime(name, &program, &agent, page);
    }
    agent.stop();
}

/// The runtime's counters as the program tells them, before and after the agent reads them.
fn compare_runtime(name: &str, program: &Program, agent: &Agent, page: &str) {
    let pid = program.pid().to_string();
    let told = |figure: &str| {
        let text = get(program.address, page).expect("it answers");
        exposition::parse(&text).iter().find(|s| s.name == figure).map(|s| s.value)
    };
    for figure in ["go_gc_duration_seconds_count", "go_threads", "go_memstats_alloc_bytes_total"] {
        let before = told(figure).unwrap_or_else(|| panic!("{name} does not tell {figure}"));
        let read =
            agent.scrape().samples.iter().find(|s| s.name == figure && s.label("instance_pid") == pid).map(|s| s.value);
        let after = told(figure).expect("it told before");
        let read = read.unwrap_or_else(|| panic!("{name}: no {figure} was read"));
        // Allocations are counted when a span is full or a processor is asked, so a reader from outside may be behind.
        let slack = if figure.contains("alloc") { 4e6 } else { 0.0 };
        assert!(
            before - slack <= read && read <= after + slack,
            "{name}: {figure} is {before} to {after}, read {read}"
        );
        println!("{name}: {figure} {read}, by the program itself {before} to {after}");
    }
}

#[test]
fn prometheus() {
    let directory = scratch("foreign-prometheus");
    fs::write(directory.join("prometheus.yml"), "global:\n  scrape_interval: 1h\n").expect("it is writable");
    measure(
        "prometheus",
        &["--config.file={dir}/prometheus.yml", "--storage.tsdb.path={dir}/data", "--web.listen-address={address}"],
        &directory,
        "/-/ready",
        &[
            "GET /-/healthy 200 /-/healthy 4",
            "GET /api/v1/query?query=1 200 /api/v1/query 4",
            "GET /api/v1/query 400 /api/v1/query 2",
            "GET /none 404 /none 1",
            "GET /graph 301 /graph 1",
        ],
        Some("/metrics"),
    );
}

#[test]
fn node_exporter() {
    measure(
        "node-exporter",
        &["--web.listen-address={address}", "--collector.disable-defaults", "--collector.loadavg"],
        &scratch("foreign-node-exporter"),
        "/metrics",
        &["GET /metrics 200 /metrics 1", "GET / 200 / 3", "POST / 200 / 1"],
        Some("/metrics"),
    );
}

#[test]
fn etcd() {
    measure(
        "etcd",
        &[
            "--data-dir={dir}/data",
            "--listen-client-urls=http://{address}",
            "--advertise-client-urls=http://{address}",
            "--listen-peer-urls=http://{peer}",
            "--initial-advertise-peer-urls=http://{peer}",
            "--initial-cluster=default=http://{peer}",
            "--log-level=error",
        ],
        &scratch("foreign-etcd"),
        "/health",
        &["GET /version 200 /version 5", "GET /health 200 /health 2", "GET /none 404 /none 1"],
        Some("/metrics"),
    );
}

#[test]
fn caddy() {
    let directory = scratch("foreign-caddy");
    fs::create_dir_all(directory.join("site")).expect("it is writable");
    fs::write(directory.join("site/page.txt"), "a page\n").expect("it is writable");
    measure(
        "caddy",
        &["file-server", "--listen", "{address}", "--root", "{dir}/site"],
        &directory,
        "/page.txt",
        &["GET /page.txt 200 /page.txt 5", "GET /none 404 /none 1", "PUT /page.txt 200 /page.txt 1"],
        None,
    );
}

#[test]
fn hugo() {
    let directory = scratch("foreign-hugo");
    fs::create_dir_all(directory.join("static")).expect("it is writable");
    fs::write(directory.join("config.toml"), "title = 'test'\ndisableKinds = ['taxonomy', 'term']\n")
        .expect("writable");
    fs::write(directory.join("static/page.txt"), "a page\n").expect("it is writable");
    measure(
        "hugo",
        &["server", "--bind=127.0.0.1", "--port={port}", "--disableLiveReload", "--watch=false", "--source={dir}"],
        &directory,
        "/page.txt",
        &["GET /page.txt 200 /page.txt 5", "GET /none.txt 404 /none.txt 1"],
        None,
    );
}

#[test]
fn esbuild() {
    let directory = scratch("foreign-esbuild");
    fs::create_dir_all(directory.join("site")).expect("it is writable");
    fs::write(directory.join("site/page.txt"), "a page\n").expect("it is writable");
    measure(
        "esbuild",
        &["--serve={address}", "--servedir={dir}/site"],
        &directory,
        "/page.txt",
        &["GET /page.txt 200 /page.txt 5", "GET /none.txt 404 /none.txt 1"],
        None,
    );
}
