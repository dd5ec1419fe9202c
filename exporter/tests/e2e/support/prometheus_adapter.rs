//! The real prometheus-adapter, built from its published module, on this machine.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use xtask::cluster::{self, ControlPlane, Subject};

/// How one is to be started.
pub(crate) struct Setting<'s> {
    pub(crate) plane: &'s ControlPlane,
    /// For its configuration and its log.
    pub(crate) directory: &'s Path,
    /// The namespace of its Service `prometheus-adapter`, which its certificate is of.
    pub(crate) namespace: &'s str,
    pub(crate) address: SocketAddr,
    pub(crate) prometheus: SocketAddr,
    /// Its configuration: `rules`, `externalRules`.
    pub(crate) config: Value,
    /// How often it looks which series there are, as `30s`.
    pub(crate) relist: &'s str,
}

/// The adapter; it ends with this value.
pub(crate) struct PrometheusAdapter(Child);

impl PrometheusAdapter {
    /// Starts it; it serves once it has asked Prometheus which series there are.
    pub(crate) fn start(setting: &Setting<'_>) -> Self {
        let Setting { plane, directory, namespace, address, prometheus, config, relist } = setting;
        let file = directory.join("config.yaml");
        fs::write(&file, config.to_string()).expect("it is writable");
        let name = format!("prometheus-adapter.{namespace}.svc");
        let subject = Subject { file: "adapter", name: &name, groups: &[], hosts: &[&name] };
        let pair = plane.authority().issue(&subject).expect("it is issued");
        let kubeconfig = plane.kubeconfig().display().to_string();
        let log = fs::OpenOptions::new().create(true).append(true).open(directory.join("adapter.log"));
        let program = cluster::prometheus_adapter().unwrap_or_else(|error| panic!("no prometheus-adapter: {error:#}"));
        let child = Command::new(program)
            .args(["--bind-address", &address.ip().to_string(), "--secure-port", &address.port().to_string()])
            .arg("--config")
            .arg(&file)
            .arg("--tls-cert-file")
            .arg(&pair.certificate)
            .arg("--tls-private-key-file")
            .arg(&pair.key)
            .args(["--lister-kubeconfig", &kubeconfig, "--authentication-kubeconfig", &kubeconfig])
            .args(["--authorization-kubeconfig", &kubeconfig])
            .args(["--prometheus-url", &format!("http://{prometheus}")])
            .arg(format!("--metrics-relist-interval={relist}"))
            .stdin(Stdio::null())
            .stderr(log.expect("it is writable"))
            .spawn()
            .expect("the adapter starts");
        Self(child)
    }
}

impl Drop for PrometheusAdapter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
