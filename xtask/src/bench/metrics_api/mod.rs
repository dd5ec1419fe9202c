//! `bench metrics-api`: one metrics-api listening to very many agents and asked for very many HPAs: its answers, its CPU time and its
//! memory. It is the real program, over TLS on both sides, beside a real etcd and kube-apiserver that hold all the pods; asked as the
//! aggregation layer asks it. Rehearsed are the agents, and the HPA controller, which would take more of a small machine than what
//! is measured.

mod fleet;

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use self::fleet::Fleet;
use super::fixture::Tools;
use super::proc;
use super::report::{Section, Table, number};
use super::stats::Spread;
use crate::cluster::{self, ControlPlane, Pair, Subject, free_port};
use crate::service::LoadReport;
use crate::util;

/// How many.
#[derive(Debug, Clone, Args)]
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
    /// Routes of each pod
    #[arg(long, default_value = "2")]
    routes: u32,
    /// Agents tell all that they can of each pod, and not of its requests alone: some 24 series instead of 5
    #[arg(long)]
    all_figures: bool,
    /// HPAs, each of a workload of its own
    #[arg(long, default_value = "2000")]
    hpas: usize,
    /// How often the controller looks at each, seconds
    #[arg(long, default_value = "3")]
    sync: u32,
    /// Namespaces that the workloads are spread over; the HPAs are a multiple of them
    #[arg(long, default_value = "200")]
    namespaces: usize,
    /// Another build of gopulse as the metrics-api, to compare
    #[arg(long, value_name = "FILE")]
    served: Option<PathBuf>,
    /// How long to wait before measuring, seconds: until the longest window of the default metrics is full
    #[arg(long, default_value = "130")]
    settle: u64,
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

/// Who asks, as the aggregation layer says it.
const CALLER: [&str; 3] = [
    "X-Remote-User: system:serviceaccount:kube-system:horizontal-pod-autoscaler",
    "X-Remote-Group: system:serviceaccounts",
    "X-Remote-Group: system:authenticated",
];

/// Measures.
pub(super) fn run(tools: &Tools, options: &Options) -> Result<Section> {
    let fleet =
        Fleet { agents: options.agents, pods: options.pods, hpas: options.hpas, namespaces: options.namespaces };
    if !fleet.hpas.is_multiple_of(fleet.namespaces) || fleet.pods_of_each() == 0 {
        bail!("the HPAs must be a multiple of the namespaces, and no more than the pods");
    }
    let plane = ControlPlane::start(&cluster::Options { controllers: false, ..cluster::Options::default() })?;
    let begun = Instant::now();
    plane.put_into_store(fleet.objects())?;
    util::say(&format!("{} pods are in etcd after {:.1?}", fleet.agents * fleet.pods, begun.elapsed()));
    let (agents, addresses) = rehearse(tools, options, &plane)?;
    let served = Served::start(options.served.as_deref().unwrap_or(&tools.agent), &plane, &addresses)?;
    served.wait(fleet)?;
    util::say(&format!("the metrics-api knows them after {:.1?}", begun.elapsed()));

    let mix = plane.directory().join("mix");
    fs::write(&mix, fleet.mix())?;
    let rate = f64::from(options.hpas as u32) / f64::from(options.sync);
    // Asked meanwhile too: what is remembered of objects and of rights is part of its memory.
    served.load(tools, &mix, rate, options.settle)?;
    let pids = [served.process.0.id(), plane.api_server_pid().context("no API server")?, agents.0.id()];
    let cpu = || pids.iter().map(|pid| proc::cpu_ns(*pid)).collect::<Result<Vec<_>>>();
    let (before, at) = (cpu()?, Instant::now());
    let report = served.load(tools, &mix, rate, options.seconds)?;
    let seconds = at.elapsed().as_secs_f64();
    let used: Vec<f64> = cpu()?.iter().zip(before).map(|(now, then)| (now - then) as f64 / 1e9 / seconds).collect();
    let mut section = section(options, fleet, &report, &used, served.process.0.id())?;
    section.tables.push(agents_side(tools)?);
    Ok(section)
}

/// What the stream costs an agent, by the series of a container.
fn agents_side(tools: &Tools) -> Result<Table> {
    let mut command = Command::new(&tools.agent);
    command.args(["hpa", "rehearse-agents", "--cost", "100", "--cost", "1000", "--cost", "10000"]);
    let said = util::output(&mut command)?;
    Ok(Table {
        title: "What a second of the stream costs an agent, of a container all of whose series have changed".to_owned(),
        columns: ["series", "figures, ns a series", "frame, ns a series"].map(Into::into).to_vec(),
        rows: said.lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect(),
    })
}

fn section(options: &Options, fleet: Fleet, report: &LoadReport, used: &[f64], pid: u32) -> Result<Section> {
    let mut about = format!(
        "One metrics-api, a release build, listening to {} rehearsed agents of {} pods each over TLS, a frame from each every second; \
         etcd and kube-apiserver are real and hold the {} pods. Every pod answers {} requests a second by {} routes",
        options.agents,
        options.pods,
        options.agents * options.pods,
        options.rate,
        options.routes
    );
    let more = if options.all_figures {
        ", and all that an agent tells of a pod is told of it, as its runtime's, scheduler's and process' figures. "
    } else {
        ": durations and their sums by route, and requests in flight. "
    };
    let _ = write!(
        about,
        "{more}{} HPAs of {} pods each are asked for every {} s, as the controller asks through the aggregation layer (HTTP/2, the \
         front proxy's certificate, SubjectAccessReviews): half of type Pods, a quarter each Object and External. All of it runs on \
         this machine.",
        options.hpas,
        fleet.pods_of_each(),
        options.sync
    );
    let mut section = Section::new("metrics-api", about);
    section.figure("answers a second", "1/s", Spread::one(report.rate));
    section.figure("answer, median", "ms", Spread::one(report.p50 * 1e3));
    section.limited("answer, p99", "ms", Spread::one(report.p99 * 1e3), 200.0);
    section.figure("answer, longest", "ms", Spread::one(report.max * 1e3));
    section.limited("CPU", "cores", Spread::one(used[0]), 1.0);
    section.limited("resident memory (VmRSS)", "MiB", Spread::one(proc::memory_mib(pid, "VmRSS")?), 512.0);
    section.limited("highest (VmHWM)", "MiB", Spread::one(proc::memory_mib(pid, "VmHWM")?), 512.0);
    section.figure("CPU of kube-apiserver meanwhile", "cores", Spread::one(used[1]));
    section.figure("CPU of the rehearsed agents meanwhile", "cores", Spread::one(used[2]));
    let rows = report.counts.iter();
    let rows = rows.map(|it| vec![it.route.clone(), it.count.to_string(), number(it.seconds * 1e3 / it.count as f64)]);
    section.tables.push(Table {
        title: "Answers by the HPA's metric".to_owned(),
        columns: ["metric", "answers", "mean, ms"].map(Into::into).to_vec(),
        rows: rows.collect(),
    });
    Ok(section)
}

/// Starts the agents; where they listen.
fn rehearse(tools: &Tools, options: &Options, plane: &ControlPlane) -> Result<(Ends, Vec<String>)> {
    let hosts = ["gopulse-agents.gopulse.svc"];
    let pair = plane.authority().issue(&Subject { file: "agents", name: "agents", groups: &[], hosts: &hosts })?;
    let mut command = Command::new(&tools.agent);
    command.args(["hpa", "rehearse-agents", "--address", "127.0.0.1:0"]);
    command.arg("--agents").arg(options.agents.to_string()).arg("--pods").arg(options.pods.to_string());
    command.arg("--namespaces").arg(options.namespaces.to_string()).arg("--rate").arg(options.rate.to_string());
    command.arg("--routes").arg(options.routes.to_string());
    command.arg("--certificate").arg(&pair.certificate).arg("--key").arg(&pair.key);
    if !options.all_figures {
        command.arg("--requests-alone");
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start the agents")?;
    let stdout = child.stdout.take().context("the agents have no output")?;
    let child = Ends(child);
    let lines = BufReader::new(stdout).lines().take(options.agents).collect::<Result<Vec<_>, _>>()?;
    if lines.len() < options.agents {
        bail!("the agents ended before they told their addresses");
    }
    Ok((child, lines))
}

/// The metrics-api, and how the aggregation layer speaks to it.
struct Served {
    process: Ends,
    address: SocketAddr,
    proxy: Pair,
    log: PathBuf,
}

impl Served {
    fn start(program: &Path, plane: &ControlPlane, agents: &[String]) -> Result<Self> {
        let hosts = ["gopulse-metrics-api.gopulse.svc", "127.0.0.1"];
        let serving = plane.authority().issue(&Subject {
            file: "metrics-api",
            name: "metrics-api",
            groups: &[],
            hosts: &hosts,
        })?;
        let proxy = Subject { file: "aggregation-layer", name: "front-proxy-client", groups: &[], hosts: &[] };
        let proxy = plane.front_proxy().issue(&proxy)?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let config = plane.directory().join("metrics-api.yaml");
        let ca = &plane.authority().certificate;
        let text = serde_json::json!({
            "address": address.to_string(), "namespace": "gopulse", "log_level": "info",
            "register": {"custom": false, "external": false},
            "certificate": {"certificate_file": serving.certificate, "key_file": serving.key, "ca_file": ca},
            "agents": {"addresses": agents, "tls": true, "ca_file": ca},
        });
        fs::write(&config, text.to_string())?;
        let log = plane.directory().join("metrics-api.log");
        let output = fs::File::create(&log)?;
        let mut command = Command::new(program);
        command.arg("metrics-api").arg("--config").arg(&config).env("KUBECONFIG", plane.kubeconfig());
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let process = Ends(command.spawn().context("cannot start the metrics-api")?);
        Ok(Self { process, address, proxy, log })
    }

    /// Until it is ready, and answers for all pods of the first HPA.
    fn wait(&self, fleet: Fleet) -> Result<()> {
        let begun = Instant::now();
        loop {
            let mut curl = Command::new("curl");
            curl.args(["-sk", "--max-time", "10", "--cert"]).arg(&self.proxy.certificate);
            curl.arg("--key").arg(&self.proxy.key);
            curl.args(CALLER.iter().flat_map(|header| ["-H", header]));
            let url = format!("https://{}", self.address);
            let answer = util::output(curl.args([format!("{url}/readyz"), url + &fleet.path(0)])).unwrap_or_default();
            if answer.starts_with("ok") && answer.matches("describedObject").count() == fleet.pods_of_each() {
                return Ok(());
            }
            if begun.elapsed() > Duration::from_mins(5) {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                let log: Vec<&str> = log.lines().rev().take(5).collect();
                bail!("the metrics-api does not come to know the pods of ns-0: {answer:.300}; {}", log.join("\n"));
            }
            thread::sleep(Duration::from_secs(1));
        }
    }

    /// Asks for every HPA, over as many connections as a few API servers hold.
    fn load(&self, tools: &Tools, mix: &Path, rate: f64, seconds: u64) -> Result<LoadReport> {
        let (mix, rate, seconds) = (mix.to_string_lossy(), rate.to_string(), format!("{seconds}s"));
        let (certificate, key) = (self.proxy.certificate.to_string_lossy(), self.proxy.key.to_string_lossy());
        let mut arguments = vec!["-mode", "h2", "-c", "3", "-s", "32", "-rate", &rate, "-duration", &seconds];
        arguments.extend(["-mix-file", &mix, "-cert", &certificate, "-key", &key]);
        arguments.extend(CALLER.iter().flat_map(|header| ["-header", header]));
        tools.load(self.address, &arguments)
    }
}
