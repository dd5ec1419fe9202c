//! What the metrics-api is told: a YAML file over defaults, flags over the file.

use std::{
    collections::BTreeMap,
    fmt, fs,
    net::{Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use clap::Args;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use super::table::{self, Entry, Table, TableError};

/// Options of `gopulse metrics-api`.
#[derive(Debug, Default, Args)]
pub(crate) struct MetricsApiArgs {
    /// Configuration file (YAML); flags override it.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print the effective configuration and end, without starting anything.
    #[arg(long)]
    pub(crate) check: bool,
    /// Print the table of metrics, as Markdown, and end.
    #[arg(long)]
    pub(crate) table: bool,
    /// Print how a route or a reason is spelled in an HPA's selector and in a metric's name, and end.
    #[arg(long, value_name = "VALUE")]
    pub(crate) encode: Option<String>,
    /// Address to serve the APIs on [default: [::]:6443, all addresses of both families]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) address: Option<SocketAddr>,
    /// This server's namespace [default: the environment variable POD_NAMESPACE, or the service account's]
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// What to log: error, warn, info, debug, trace, or a filter [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
}

/// The effective configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "settings")]
pub(crate) struct Config {
    /// Where the APIs are served, over TLS.
    pub(crate) address: SocketAddr,
    /// Where the KEDA external scaler is served, over gRPC; none: it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keda_address: Option<SocketAddr>,
    /// Whether that is over TLS, by the same certificate.
    pub(crate) keda_tls: bool,
    /// This server's namespace.
    pub(crate) namespace: String,
    /// This server's Service, which the APIServices name, and its port.
    pub(crate) service: String,
    pub(crate) service_port: i32,
    /// The Deployment that this server is of, in its namespace: once that is gone, its APIServices are withdrawn; empty: it is of none.
    pub(crate) deployment: String,
    /// Whether the APIServices are made and kept right from here, and of which APIs.
    pub(crate) register: Register,
    /// Whether callers are authenticated and authorised. Off only where nobody else can connect.
    pub(crate) authentication: bool,
    /// The serving certificate.
    pub(crate) certificate: Certificate,
    /// The agents.
    pub(crate) agents: Agents,
    /// Metrics beside the default ones, or in their place where they have their names.
    #[serde(deserialize_with = "table::each_once")]
    pub(crate) metrics: BTreeMap<String, Entry>,
    /// Whether the default metrics are served.
    pub(crate) default_metrics: bool,
    /// Whether the API's resource lists, which everybody in the cluster may read, have the metrics of each route and reason.
    pub(crate) list_values: bool,
    /// Routes whose requests are left out of metrics that choose none: those of probes and of scrapes.
    pub(crate) exclude_routes: Vec<String>,
    /// What is logged.
    pub(crate) log_level: String,
    /// One JSON object a line.
    pub(crate) log_json: bool,
}

/// Which APIServices are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Register {
    /// custom.metrics.k8s.io.
    pub(crate) custom: Keep,
    /// external.metrics.k8s.io: KEDA has it where it is installed.
    pub(crate) external: Keep,
    /// The ClusterRole that owns the APIServices made here, so that they go with it; empty: none does.
    pub(crate) owner: String,
}

/// Whether the APIServices of a group are made and kept right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// `false`: they are left as they are.
    No,
    /// `true`: unless another adapter has any version of the group.
    Yes,
    /// `force`: whatever versions of the group others have. Theirs are left as they are.
    Force,
}

const FORCE: &str = "force";

impl Serialize for Keep {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Force => serializer.serialize_str(FORCE),
            other => serializer.serialize_bool(*other == Self::Yes),
        }
    }
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Keep;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "true, false or {FORCE}")
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Keep, E> {
                Ok(if value { Keep::Yes } else { Keep::No })
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Keep, E> {
                if value == FORCE { Ok(Keep::Force) } else { Err(E::invalid_value(de::Unexpected::Str(value), &self)) }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// The serving certificate: files, or a Secret that is kept from here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "names of settings")]
pub(crate) struct Certificate {
    /// PEM files, read again when they change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) certificate_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_file: Option<PathBuf>,
    /// What the APIServices are to trust, with files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    /// The Secret, without files.
    pub(crate) secret: String,
    /// How long a certificate made here is valid; it is replaced after two thirds of it.
    pub(crate) lifetime_seconds: u64,
}

/// Where the agents are and how they are spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Agents {
    /// Their Service, in this namespace.
    pub(crate) service: String,
    /// Addresses instead.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) addresses: Vec<String>,
    /// Whether they serve TLS.
    pub(crate) tls: bool,
    /// What their certificates are checked by, PEM; without it the Secret below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    /// A Secret with a certificate for the agents, made and replaced from here.
    pub(crate) secret: String,
    /// The name that their certificates are for [default: SERVICE.NAMESPACE.svc].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_name: Option<String>,
    /// The bearer token that is shown to them; without it the service account's, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 6443)),
            keda_address: None,
            keda_tls: false,
            namespace: String::new(),
            service: "gopulse-metrics-api".into(),
            service_port: 443,
            deployment: "gopulse-metrics-api".into(),
            register: Register::default(),
            authentication: true,
            certificate: Certificate::default(),
            agents: Agents::default(),
            metrics: BTreeMap::new(),
            default_metrics: true,
            list_values: false,
            exclude_routes: table::EXCLUDED_ROUTES.map(str::to_owned).to_vec(),
            log_level: "info".into(),
            log_json: false,
        }
    }
}

impl Default for Register {
    fn default() -> Self {
        Self { custom: Keep::Yes, external: Keep::Yes, owner: "gopulse-metrics-api".into() }
    }
}

impl Default for Certificate {
    fn default() -> Self {
        Self {
            certificate_file: None,
            key_file: None,
            ca_file: None,
            secret: "gopulse-metrics-api-tls".into(),
            lifetime_seconds: 90 * 24 * 3600,
        }
    }
}

impl Default for Agents {
    fn default() -> Self {
        Self {
            service: "gopulse-agents".into(),
            addresses: Vec::new(),
            tls: true,
            ca_file: None,
            secret: "gopulse-agents-tls".into(),
            server_name: None,
            token_file: None,
        }
    }
}

/// What is wrong with it.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    #[error("cannot read the configuration {path}: {error}")]
    Unreadable { path: String, error: std::io::Error },
    #[error("configuration {path}: {error}")]
    Invalid { path: String, error: serde_norway::Error },
    #[error(
        "the namespace is not known: set POD_NAMESPACE (in a pod: from the field metadata.namespace) or give --namespace"
    )]
    NoNamespace,
    #[error("exclude_routes: an empty route would leave out all requests without a route; leave all in by []")]
    NoRoute,
    #[error("certificate: give both certificate_file and key_file, or neither")]
    HalfCertificate,
    #[error("certificate.lifetime_seconds is {0}: it must be at least 60")]
    Lifetime(u64),
    #[error(
        "authentication is off and address {0} is not this machine's alone: whoever reaches it could read every metric; serve \
         on 127.0.0.1, or leave authentication on"
    )]
    Open(SocketAddr),
    #[error("{0}")]
    Table(#[from] TableError),
    #[error("log level {level:?}: {error}")]
    LogLevel { level: String, error: String },
}

const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

impl Config {
    /// Reads the file, if one is named, lays the flags over it, and checks the whole.
    pub(crate) fn load(args: &MetricsApiArgs) -> Result<Self, ConfigError> {
        let mut config = match &args.config {
            None => Self::default(),
            Some(path) => {
                let shown = path.display().to_string();
                let text =
                    fs::read_to_string(path).map_err(|error| ConfigError::Unreadable { path: shown.clone(), error })?;
                // Some editors begin a file with a byte order mark.
                let text = text.trim_start_matches('\u{feff}');
                if text.trim().is_empty() {
                    Self::default()
                } else {
                    serde_norway::from_str(text).map_err(|error| ConfigError::Invalid { path: shown, error })?
                }
            }
        };
        config.address = args.address.unwrap_or(config.address);
        config.namespace = args.namespace.clone().unwrap_or(config.namespace);
        config.log_level = args.log_level.clone().unwrap_or(config.log_level);
        if config.namespace.is_empty() {
            let file = || fs::read_to_string(NAMESPACE_FILE).ok();
            let namespace = std::env::var("POD_NAMESPACE").ok().or_else(file).unwrap_or_default();
            namespace.trim().clone_into(&mut config.namespace);
        }
        if args.table && config.namespace.is_empty() {
            "none".clone_into(&mut config.namespace);
        }
        config.check()?;
        Ok(config)
    }

    /// The table of metrics.
    pub(crate) fn table(&self) -> Result<Table, TableError> {
        let mut entries = if self.default_metrics { table::defaults() } else { BTreeMap::new() };
        entries.extend(self.metrics.clone());
        Ok(Table::new(&entries)?.fitting()?.excluding(&self.exclude_routes))
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.namespace.is_empty() {
            return Err(ConfigError::NoNamespace);
        }
        if self.certificate.certificate_file.is_some() != self.certificate.key_file.is_some() {
            return Err(ConfigError::HalfCertificate);
        }
        if self.certificate.lifetime_seconds < 60 {
            return Err(ConfigError::Lifetime(self.certificate.lifetime_seconds));
        }
        if !self.authentication && !self.address.ip().is_loopback() {
            return Err(ConfigError::Open(self.address));
        }
        self.table()?;
        if self.exclude_routes.iter().any(String::is_empty) {
            return Err(ConfigError::NoRoute);
        }
        tracing_subscriber::EnvFilter::try_new(&self.log_level)
            .map(drop)
            .map_err(|error| ConfigError::LogLevel { level: self.log_level.clone(), error: error.to_string() })
    }
}

#[cfg(test)]
mod tests;
