//! What the agent is told: flags over a YAML file over defaults, checked before anything starts.

mod cli;
mod selection;

pub(crate) use self::{
    cli::{Cli, Command, HpaCommand, LogFormat, RunArgs},
    selection::{Globs, Selection},
};

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    kernel::Method,
    kubernetes::{self, PolicySettings},
    target::{Features, Sites},
};

/// The effective configuration. The YAML file has the same keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Where /metrics, /healthz, /readyz and /targets are served.
    pub(crate) metrics_address: SocketAddr,
    /// What it is served with, where that is not plain HTTP for everyone.
    pub(crate) metrics_access: MetricsAccess,
    /// Where the metrics-api listens to this agent.
    pub(crate) hpa_stream: HpaStream,
    /// Which processes are measured.
    pub(crate) select: Selection,
    /// Pods of this node, that opt in.
    pub(crate) kubernetes: PolicySettings,
    /// What is measured of each process.
    pub(crate) features: Features,
    /// How probes are attached.
    pub(crate) attach: Method,
    /// Most distinct routes of one target.
    pub(crate) max_routes: u32,
    /// Most series (label sets of one histogram) over all targets.
    pub(crate) max_series: u32,
    /// Most requests in flight at one time over all targets.
    pub(crate) max_in_flight: u32,
    /// Most goroutines whose blocking is followed at one time over all targets.
    pub(crate) max_parked: u32,
    /// What the probes that can be done without may cost a measured program: a share of the CPU time that it uses, or of one
    /// CPU where it uses less.
    pub(crate) budget: f64,
    /// Seconds between scans of /proc, the net beneath the process events.
    pub(crate) scan_interval_seconds: f64,
    /// Where probes go in a function. No setting: only the benchmark's hidden flag changes it.
    #[serde(skip)]
    pub(crate) bench_sites: Sites,
    /// Whether all programs are loaded at once, and must be. No setting either.
    #[serde(skip)]
    pub(crate) load_all: bool,
    /// Human or JSON.
    pub(crate) log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or a filter as `gopulse=debug`.
    pub(crate) log_level: String,
}

/// How /metrics and /targets are protected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MetricsAccess {
    /// Certificate chain, PEM. With it everything is served over TLS. Read again when it changes, as the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// Its private key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Whether a bearer token is asked for, whose owner the API server allows to get the path.
    pub(crate) require_token: bool,
}

/// The stream that `gopulse metrics-api` listens to: always over TLS, and only for owners of a bearer token that may get it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HpaStream {
    /// Where it is served; without it there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<SocketAddr>,
    /// Certificate chain, PEM. Read again when it changes, as the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// Its private key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_key: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            metrics_address: SocketAddr::from(([127, 0, 0, 1], 9464)),
            metrics_access: MetricsAccess::default(),
            hpa_stream: HpaStream::default(),
            select: Selection::default(),
            kubernetes: PolicySettings::default(),
            features: Features::default(),
            attach: Method::Auto,
            max_routes: 100,
            max_series: exporter_ebpf::key::MAX_SERIES,
            max_in_flight: exporter_ebpf::span::MAX_IN_FLIGHT,
            max_parked: exporter_ebpf::wait::MAX_PARKED,
            budget: 0.01,
            scan_interval_seconds: 2.0,
            bench_sites: Sites::Chosen,
            load_all: false,
            log_format: LogFormat::Human,
            log_level: "info".to_owned(),
        }
    }
}

/// What is wrong with it. Usage errors end the program with status 2.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    #[error("cannot read the configuration {path}: {error}")]
    Unreadable { path: String, error: std::io::Error },
    #[error("configuration {path}: {error}")]
    Invalid { path: String, error: serde_norway::Error },
    #[error(
        "nothing to measure: say which processes with --pid, --executable, --listen-port or --all (or under `select` in the \
         configuration file), or measure this node's pods with --kubernetes"
    )]
    NothingSelected,
    #[error("kubernetes mode measures pods that opt in: it goes with no --pid, --executable, --listen-port or --all")]
    PodsAndProcesses,
    #[error(
        "the name of this node is not known: set NODE_NAME (in a pod: from the field spec.nodeName) or give --node-name"
    )]
    NoNodeName,
    #[error("{0}")]
    Kubernetes(String),
    #[error("TLS needs both a certificate and its key: give --tls-certificate and --tls-key")]
    HalfTls,
    #[error("the HPA's stream is served over TLS alone: give hpa_stream.tls_certificate and hpa_stream.tls_key")]
    OpenStream,
    #[error("{key} is {value}: {must}")]
    OutOfRange { key: &'static str, value: String, must: &'static str },
    #[error("--executable {glob}: {error}")]
    Glob { glob: String, error: String },
    #[error("log level {level:?}: {error}")]
    LogLevel { level: String, error: String },
}

impl Config {
    /// Reads the file, if one is named, lays the flags over it, and checks the whole.
    pub(crate) fn load(args: &RunArgs) -> Result<Self, ConfigError> {
        let mut config = args.config.as_deref().map_or_else(|| Ok(Self::default()), Self::read)?;
        args.lay_over(&mut config);
        config.choose_mode();
        config.check()?;
        Ok(config)
    }

    fn read(path: &Path) -> Result<Self, ConfigError> {
        let shown = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|error| ConfigError::Unreadable { path: shown.clone(), error })?;
        // Some editors begin a file with a byte order mark.
        let text = text.trim_start_matches('\u{feff}');
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_norway::from_str(text).map_err(|error| ConfigError::Invalid { path: shown, error })
    }

    /// Whether pods of this node are measured.
    pub(crate) fn in_pods(&self) -> bool {
        self.kubernetes.enabled == Some(true)
    }

    /// In a pod, with nothing selected, pods are meant.
    fn choose_mode(&mut self) {
        if self.kubernetes.enabled.is_none() && self.select.is_empty() && kubernetes::in_cluster() {
            self.kubernetes.enabled = Some(true);
        }
        if self.in_pods() && self.kubernetes.node_name.is_none() {
            self.kubernetes.node_name = env::var("NODE_NAME").ok();
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.in_pods() {
            if !self.select.is_empty() {
                return Err(ConfigError::PodsAndProcesses);
            }
            if self.kubernetes.node_name.as_deref().is_none_or(str::is_empty) {
                return Err(ConfigError::NoNodeName);
            }
        } else if self.select.is_empty() {
            return Err(ConfigError::NothingSelected);
        }
        self.kubernetes.check().map_err(ConfigError::Kubernetes)?;
        if self.metrics_access.tls_certificate.is_some() != self.metrics_access.tls_key.is_some() {
            return Err(ConfigError::HalfTls);
        }
        let stream = &self.hpa_stream;
        if stream.address.is_some() && (stream.tls_certificate.is_none() || stream.tls_key.is_none()) {
            return Err(ConfigError::OpenStream);
        }
        self.select.matcher().map_err(|(glob, error)| ConfigError::Glob { glob, error })?;
        let range = |key, value: u32, least, most, must| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(ConfigError::OutOfRange { key, value: value.to_string(), must })
            }
        };
        range("max_routes", self.max_routes, 1, 10_000, "it must be from 1 to 10000")?;
        range("max_series", self.max_series, 16, 1 << 22, "it must be from 16 to 4194304")?;
        range("max_in_flight", self.max_in_flight, 16, 1 << 22, "it must be from 16 to 4194304")?;
        range("max_parked", self.max_parked, 16, 1 << 22, "it must be from 16 to 4194304")?;
        if !(0.0001..=1.0).contains(&self.budget) {
            return Err(ConfigError::OutOfRange {
                key: "budget",
                value: self.budget.to_string(),
                must: "it must be from 0.0001 to 1 (1 %: 0.01); to go without the probes, leave blocking out of features",
            });
        }
        if !(0.1..=3600.0).contains(&self.scan_interval_seconds) {
            return Err(ConfigError::OutOfRange {
                key: "scan_interval_seconds",
                value: self.scan_interval_seconds.to_string(),
                must: "it must be from 0.1 to 3600",
            });
        }
        tracing_subscriber::EnvFilter::try_new(&self.log_level)
            .map(drop)
            .map_err(|error| ConfigError::LogLevel { level: self.log_level.clone(), error: error.to_string() })
    }
}

#[cfg(test)]
mod tests;
