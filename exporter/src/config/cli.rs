//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use super::Config;
use crate::{
    hpa::{api::MetricsApiArgs, doctor::DoctorArgs, feed::rehearse::RehearseArgs, simulate::SimulateArgs},
    kernel::Method,
    target::{Features, Sites},
};

/// Measures unmodified Go programs with eBPF and serves what it sees to Prometheus.
#[derive(Debug, Parser)]
#[command(
    name = "gopulse",
    version,
    about,
    after_help = "Start with:  sudo gopulse run --all\nthen read    http://127.0.0.1:9464/metrics  and  http://127.0.0.1:9464/targets"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure Go processes on this machine and serve /metrics (needs root or CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE).
    Run(Box<RunArgs>),
    /// Say what gopulse finds in a Go executable, and what it could measure there (needs no privilege).
    Inspect(InspectArgs),
    /// Serve the custom and external metrics APIs for the Horizontal Pod Autoscaler from the agents' own figures (runs in a
    /// cluster).
    MetricsApi(Box<MetricsApiArgs>),
    /// Try out and look into the scaling of a workload by the Horizontal Pod Autoscaler.
    #[command(subcommand)]
    Hpa(HpaCommand),
    /// Print the reference of every metric, as Markdown.
    MetricReference,
}

/// What to do about an HPA.
#[derive(Debug, Subcommand)]
pub(crate) enum HpaCommand {
    /// Show what replicas an HPA would have chosen under a recorded or made load, by the controller's own algorithm.
    Simulate(SimulateArgs),
    /// Walk from an HPA to its metric and name the first broken link.
    Doctor(DoctorArgs),
    /// Serve the stream of agents that measure nothing, for tests and benchmarks of the metrics-api.
    #[command(hide = true)]
    RehearseAgents(RehearseArgs),
}

/// Options of `gopulse run`.
#[derive(Debug, Default, Args)]
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct RunArgs {
    /// Configuration file (YAML); flags override it.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Print the effective configuration and end, without starting anything.
    #[arg(long)]
    pub(crate) check: bool,

    /// Measure this process. May be given more than once.
    #[arg(long = "pid", value_name = "PID", help_heading = "What to measure")]
    pub(crate) pids: Vec<u32>,

    /// Measure processes whose executable matches: its whole path if GLOB has a '/', else its file name. May be given more
    /// than once. Processes that start later are picked up.
    #[arg(long = "executable", value_name = "GLOB", help_heading = "What to measure")]
    pub(crate) executables: Vec<String>,

    /// Measure processes that listen on this TCP port. May be given more than once.
    #[arg(long = "listen-port", value_name = "PORT", help_heading = "What to measure")]
    pub(crate) listen_ports: Vec<u16>,

    /// Measure this node's pods that opt in by annotation [default: if run in a pod, and nothing else is to be measured]
    #[arg(long, help_heading = "What to measure")]
    pub(crate) kubernetes: bool,

    /// This node's name in Kubernetes [default: the environment variable NODE_NAME]
    #[arg(long, value_name = "NAME", help_heading = "What to measure")]
    pub(crate) node_name: Option<String>,

    /// Measure every Go process.
    #[arg(long, help_heading = "What to measure")]
    pub(crate) all: bool,

    /// What to measure of each process: http, http-client, grpc-server, runtime, blocking, gc, scheduler, with commas between, or all [default: all but scheduler]
    #[arg(long, value_name = "LIST", help_heading = "What to measure")]
    pub(crate) features: Option<Features>,

    /// Address to serve /metrics, /healthz, /readyz and /targets on [default: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics_address: Option<SocketAddr>,

    /// Serve over TLS with this certificate (PEM); it is read again when it changes
    #[arg(long, value_name = "FILE", help_heading = "Who may read")]
    pub(crate) tls_certificate: Option<PathBuf>,

    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", help_heading = "Who may read")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Answer /metrics and /targets only to owners of a Kubernetes bearer token that may get them
    #[arg(long, help_heading = "Who may read")]
    pub(crate) require_token: bool,

    /// Serve the stream that `gopulse metrics-api` listens to here, over TLS, for owners of a bearer token that may get it
    #[arg(long, value_name = "ADDRESS:PORT", help_heading = "Autoscaling", requires_all = ["hpa_stream_certificate", "hpa_stream_key"])]
    pub(crate) hpa_stream_address: Option<SocketAddr>,

    /// The stream's certificate (PEM); it is read again when it changes
    #[arg(long, value_name = "FILE", help_heading = "Autoscaling")]
    pub(crate) hpa_stream_certificate: Option<PathBuf>,

    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", help_heading = "Autoscaling")]
    pub(crate) hpa_stream_key: Option<PathBuf>,

    /// How probes are attached [default: auto]
    #[arg(long, value_enum, value_name = "METHOD")]
    pub(crate) attach: Option<Method>,

    /// Most distinct routes of one target; more are counted under one overflow route [default: 100]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub(crate) max_routes: Option<u32>,

    /// Most series over all targets; more are counted under one overflow series a target [default: 16384]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub(crate) max_series: Option<u32>,

    /// Most requests in flight at one time over all targets [default: 65536]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub(crate) max_in_flight: Option<u32>,

    /// What the probes on goroutines that block may cost a program: a share of the CPU time that it uses, or of one CPU where
    /// it uses less; where they would cost more, they are attached for a share of the time [default: 0.01]
    #[arg(long, value_name = "SHARE", help_heading = "Limits")]
    pub(crate) budget: Option<f64>,

    /// Where probes go in a function; the dear way is for `cargo xtask bench overhead` to measure.
    #[arg(long, value_enum, value_name = "SITES", hide = true)]
    pub(crate) bench_sites: Option<Sites>,

    /// Load every program at once, and end where the kernel refuses one: for tests of kernels.
    #[arg(long, hide = true)]
    pub(crate) load_all: bool,

    /// Log format [default: human]
    #[arg(long, value_enum, value_name = "FORMAT", help_heading = "Logging")]
    pub(crate) log_format: Option<LogFormat>,

    /// What to log: error, warn, info, debug, trace, or a filter [default: info]
    #[arg(long, value_name = "LEVEL", help_heading = "Logging")]
    pub(crate) log_level: Option<String>,
}

impl RunArgs {
    /// Flags override the file. Selections given as flags replace the file's selection as a whole.
    pub(super) fn lay_over(&self, config: &mut Config) {
        let selected =
            !self.pids.is_empty() || !self.executables.is_empty() || !self.listen_ports.is_empty() || self.all;
        if selected {
            config.select.pids.clone_from(&self.pids);
            config.select.executables.clone_from(&self.executables);
            config.select.listen_ports.clone_from(&self.listen_ports);
            config.select.all = self.all;
        }
        set(&mut config.metrics_address, self.metrics_address.as_ref());
        if self.kubernetes {
            config.kubernetes.enabled = Some(true);
        }
        set_some(&mut config.kubernetes.node_name, self.node_name.as_ref());
        set_some(&mut config.metrics_access.tls_certificate, self.tls_certificate.as_ref());
        set_some(&mut config.metrics_access.tls_key, self.tls_key.as_ref());
        config.metrics_access.require_token |= self.require_token;
        set_some(&mut config.hpa_stream.address, self.hpa_stream_address.as_ref());
        set_some(&mut config.hpa_stream.tls_certificate, self.hpa_stream_certificate.as_ref());
        set_some(&mut config.hpa_stream.tls_key, self.hpa_stream_key.as_ref());
        set(&mut config.features, self.features.as_ref());
        set(&mut config.attach, self.attach.as_ref());
        set(&mut config.max_routes, self.max_routes.as_ref());
        set(&mut config.max_series, self.max_series.as_ref());
        set(&mut config.budget, self.budget.as_ref());
        set(&mut config.max_in_flight, self.max_in_flight.as_ref());
        set(&mut config.bench_sites, self.bench_sites.as_ref());
        config.load_all |= self.load_all;
        set(&mut config.log_format, self.log_format.as_ref());
        set(&mut config.log_level, self.log_level.as_ref());
    }
}

fn set_some<T: Clone>(slot: &mut Option<T>, flag: Option<&T>) {
    if flag.is_some() {
        *slot = flag.cloned();
    }
}

fn set<T: Clone>(slot: &mut T, flag: Option<&T>) {
    if let Some(value) = flag {
        slot.clone_from(value);
    }
}

/// Options of `gopulse inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The executable.
    pub(crate) file: PathBuf,
    /// As one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}
