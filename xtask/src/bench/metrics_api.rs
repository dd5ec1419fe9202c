//! `bench metrics-api`: one metrics-api listening to very many agents: its memory, its CPU time, and how long a wildcard query
//! takes. The agents are rehearsed ones, all in one process, telling of pods that are never idle; the API server is one that
//! knows their pods and nothing else.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::fixture::Tools;
use super::proc;
use super::report::Section;
use super::stats::Spread;
use crate::cluster::free_port;
use crate::go::{self, Service};
use crate::util;

/// How many.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Agents
    #[arg(long, default_value = "1000")]
    agents: usize,
    /// Pods of each
    #[arg(long, default_value = "100")]
    pods: usize,
    /// Requests a second of each pod
    #[arg(long, default_value = "50")]
    rate: u32,
    /// How long to measure, seconds
    #[arg(long, default_value = "30")]
    seconds: u64,
}

/// Ends with this value.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const NAMESPACES: usize = 1000;

/// Measures.
pub(super) fn run(tools: &Tools, options: &Options) -> Result<Section> {
    let (agents, pods) = (options.agents.to_string(), options.pods.to_string());
    let namespaces = NAMESPACES.to_string();
    let directory = util::target().join("bench/metrics-api");
    fs::create_dir_all(&directory)?;
    let mut api = Command::new(go::build(&Service::local("pods"))?);
    api.args(["-agents", &agents, "-pods", &pods, "-namespaces", &namespaces]);
    let (_api, addresses) = started(&mut api, 1)?;
    let kubeconfig = directory.join("kubeconfig");
    fs::write(
        &kubeconfig,
        format!(
            "{{apiVersion: v1, kind: Config, current-context: b, clusters: [{{name: b, cluster: {{server: \"http://{}\"}}}}], \
             users: [{{name: b, user: {{}}}}], contexts: [{{name: b, context: {{cluster: b, user: b}}}}]}}",
            addresses[0]
        ),
    )?;
    let mut rehearsed = Command::new(&tools.agent);
    rehearsed.args(["hpa", "rehearse-agents", "--address", "127.0.0.1:0", "--agents", &agents, "--pods", &pods]);
    rehearsed.args(["--namespaces", &namespaces, "--rate", &options.rate.to_string()]);
    let (_agents, addresses) = started(&mut rehearsed, options.agents)?;

    let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let config = directory.join("metrics-api.yaml");
    let text = serde_json::json!({
        "address": address.to_string(), "namespace": "gopulse", "authentication": false,
        "register": {"custom": false, "external": false},
        "agents": {"addresses": addresses, "tls": false}, "log_level": "warn",
    });
    fs::write(&config, text.to_string())?;
    let mut command = Command::new(&tools.agent);
    command.arg("metrics-api").arg("--config").arg(&config).env("KUBECONFIG", &kubeconfig);
    let served = Ends(command.stdin(Stdio::null()).spawn().context("cannot start the metrics-api")?);
    let pid = served.0.id();

    // Every namespace has as many pods as all have on the whole; its own are at as many agents.
    let of_one = options.agents * options.pods / NAMESPACES;
    let path =
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/ns-7/pods/*/http_server_request_duration_p99_milliseconds";
    let begun = Instant::now();
    loop {
        let curl = ["-sk", "--max-time", "10", &format!("https://{address}{path}?labelSelector=app%3Dapp-ns-7")];
        let answer = util::output(Command::new("curl").args(curl)).unwrap_or_default();
        if answer.matches("describedObject").count() == of_one {
            break;
        }
        if begun.elapsed() > Duration::from_mins(3) {
            bail!("the metrics-api does not come to know the pods of ns-7: {answer:.300}");
        }
        thread::sleep(Duration::from_secs(1));
    }
    // Windows fill, and what is old goes.
    thread::sleep(Duration::from_secs(25));
    let (cpu, at) = (proc::cpu_ns(pid)?, Instant::now());
    let duration = format!("{}s", options.seconds);
    let mix = format!("GET {path}?labelSelector=app%3Dapp-ns-7 200 x 1");
    let load = ["-tls", "-rate", "20", "-c", "4", "-duration", &duration, "-mix", &mix];
    let report = tools.load(address, &load)?;
    let used = (proc::cpu_ns(pid)? - cpu) as f64 / 1e9 / at.elapsed().as_secs_f64();

    let mut section = Section::new(
        "metrics-api",
        format!(
            "One metrics-api, {agents} agents of {pods} pods each, every pod answering {} requests a second, a frame from each \
             agent every second; 20 wildcard queries a second of a p99 over the {of_one} pods of a namespace, which are at \
             different agents. Agents, API server and client run on the same machine.",
            options.rate
        ),
    );
    section.limited("resident memory (VmRSS)", "MiB", Spread::one(proc::memory_mib(pid, "VmRSS")?), 512.0);
    section.figure("highest (VmHWM)", "MiB", Spread::one(proc::memory_mib(pid, "VmHWM")?));
    section.limited("CPU", "cores", Spread::one(used), 1.0);
    section.figure("wildcard query, median", "ms", Spread::one(report.p50 * 1e3));
    section.limited("wildcard query, p99", "ms", Spread::one(report.p99 * 1e3), 200.0);
    Ok(section)
}

/// Starts a program that prints so many addresses.
fn started(command: &mut Command, count: usize) -> Result<(Ends, Vec<String>)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start a program")?;
    let stdout = child.stdout.take().context("it has no output")?;
    let child = Ends(child);
    let lines = BufReader::new(stdout).lines().take(count).collect::<Result<Vec<_>, _>>()?;
    if lines.len() < count {
        bail!("a program ended before it told its addresses");
    }
    Ok((child, lines))
}
