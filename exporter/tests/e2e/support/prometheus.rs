//! A real Prometheus server, Debian's.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use xtask::{service::get, util};

use super::{eventually, http::free_port};

/// Installs Debian's Prometheus, which brings promtool, where it is missing.
pub(crate) fn have_prometheus() {
    util::install(&[("prometheus", "prometheus"), ("promtool", "prometheus")])
        .expect("no Prometheus: put prometheus and promtool on PATH, or let apt-get install Debian's package");
}

/// A Prometheus server; it ends with this value.
pub(crate) struct Prometheus {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Prometheus {
    /// Starts one that scrapes the agent every so many seconds.
    pub(crate) fn start(directory: &Path, agent: SocketAddr, interval: u32) -> Self {
        have_prometheus();
        let config = directory.join("prometheus.yml");
        let yaml = format!(
            "global:\n  scrape_interval: {interval}s\nscrape_configs:\n- job_name: gopulse\n  honor_labels: true\n  static_configs:\n  \
             - targets: ['{agent}']\n"
        );
        fs::write(&config, yaml).expect("cargo's directory is writable");
        util::run(Command::new("promtool").args(["check", "config"]).arg(&config)).expect("the configuration is right");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let log = fs::File::create(directory.join("prometheus.log")).expect("cargo's directory is writable");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus starts");
        let prometheus = Self { child, address };
        eventually("Prometheus is ready", || get(address, "/-/ready").ok());
        prometheus
    }

    /// What an API answers.
    pub(crate) fn api(&self, path: &str) -> Value {
        let text = get(self.address, path).expect("Prometheus answers");
        serde_json::from_str::<Value>(&text).expect("JSON")["data"].take()
    }

    /// The value of an instant query with one result.
    pub(crate) fn query(&self, expression: &str) -> Option<f64> {
        let encoded = expression.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
        let data = self.api(&format!("/api/v1/query?query={encoded}"));
        data["result"][0]["value"][1].as_str()?.parse().ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = xtask::service::end(&mut self.child);
    }
}
