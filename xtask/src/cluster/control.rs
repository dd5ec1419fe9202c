//! The control plane: etcd, kube-apiserver and kube-controller-manager, each the real program, on addresses of this machine
//! alone; kube-scheduler where there is a node. It knows nothing of nodes and containers.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::bulk;
use super::certificates::{Authority, Pair, Subject, signing_key};
use super::process::{Process, wait_for};
use super::programs;
use crate::util;

/// How long a program may take until it serves, on a machine that others use too.
const PATIENCE: Duration = Duration::from_mins(2);

/// What differs between control planes.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often the HorizontalPodAutoscaler controller looks.
    pub autoscaler_period: Duration,
    /// For how long the highest recommendation of the autoscaler stands before pods are taken away.
    pub autoscaler_stabilization: Duration,
    /// The API server sends requests of the aggregation layer to a Service's endpoints (whose addresses must not be
    /// loopback) rather than to its cluster IP or external name.
    pub aggregator_routing: bool,
    /// Whether kube-controller-manager runs: without it nobody acts on what there is.
    pub controllers: bool,
    /// Further flags of kube-apiserver.
    pub api_server: Vec<String>,
    /// Further flags of kube-controller-manager.
    pub controller_manager: Vec<String>,
    /// The address that the API server is served at, on port 443, and that is the `kubernetes` Service's cluster IP: for pods
    /// in network namespaces of their own. None is a free port of 127.0.0.1.
    pub service_address: Option<Ipv4Addr>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            autoscaler_period: Duration::from_secs(2),
            autoscaler_stabilization: Duration::from_secs(5),
            aggregator_routing: false,
            controllers: true,
            api_server: Vec::new(),
            controller_manager: Vec::new(),
            service_address: None,
        }
    }
}

/// A control plane that runs; it ends when this is dropped.
#[derive(Debug)]
pub struct ControlPlane {
    // In the order of their end: who uses another goes before it.
    scheduler: Option<Process>,
    controller_manager: Option<Process>,
    api_server: Option<Process>,
    etcd: Process,
    etcd_url: String,
    api_server_command: Command,
    programs: PathBuf,
    directory: PathBuf,
    server: String,
    authority: Authority,
    front_proxy: Authority,
    kubeconfig: PathBuf,
}

impl ControlPlane {
    /// Starts one and waits until it answers and its controllers run.
    pub fn start(options: &Options) -> Result<Self> {
        let programs = programs::control_plane()?;
        let etcd = programs::etcd()?;
        let directory = fresh_directory()?;

        let authority = Authority::create(&directory, "ca")?;
        let front_proxy = Authority::create(&directory, "front-proxy-ca")?;
        let tokens = signing_key(&directory)?;

        let (etcd_clients, etcd_peers) = (free_port()?, free_port()?);
        let etcd_url = format!("http://127.0.0.1:{etcd_clients}");
        let mut command = Command::new(etcd);
        command.arg("--data-dir").arg(directory.join("etcd"));
        command.args(["--listen-client-urls", &etcd_url, "--advertise-client-urls", &etcd_url]);
        let peers = format!("http://127.0.0.1:{etcd_peers}");
        command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
        command.args(["--initial-cluster", &format!("default={peers}")]);
        let etcd = Process::start("etcd", &directory, &command)?;

        let (address, port) = match options.service_address {
            Some(address) => (address, 443),
            None => (Ipv4Addr::LOCALHOST, free_port()?),
        };
        let server = format!("https://{address}:{port}");
        let api_server_command = api_server(&ApiServer {
            programs: &programs,
            directory: &directory,
            authority: &authority,
            front_proxy: &front_proxy,
            tokens: &tokens,
            etcd: &etcd_url,
            address,
            port,
            options,
        })?;
        let mut plane = Self {
            scheduler: None,
            controller_manager: None,
            api_server: None,
            etcd,
            etcd_url,
            api_server_command,
            kubeconfig: directory.join("admin.kubeconfig"),
            programs,
            directory,
            server,
            authority,
            front_proxy,
        };
        plane.kubeconfig = plane.kubeconfig_for("admin", "admin", &["system:masters"])?;
        plane.start_api_server()?;
        if options.controllers {
            plane.start_controllers(options, &tokens)?;
            plane.controllers_work()?;
        }
        Ok(plane)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The API server's URL.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The directory of logs, certificates and whatever a test wants to keep with them; it goes with the control plane.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory that `kube-apiserver`, `kube-controller-manager` and `kubectl` are in.
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// The authority that the API server's clients and the API server itself are known by.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The authority that the API server shows itself by to aggregated API servers (their request header CA).
    pub fn front_proxy(&self) -> &Authority {
        &self.front_proxy
    }

    /// A kubeconfig with a client certificate of its own: `file` names it, `user` and `groups` are who it speaks for.
    pub fn kubeconfig_for(&self, file: &str, user: &str, groups: &[&str]) -> Result<PathBuf> {
        let client = self.authority.issue(&Subject { file, name: user, groups, hosts: &[] })?;
        let credentials =
            format!("{{client-certificate: {}, client-key: {}}}", client.certificate.display(), client.key.display());
        self.write_kubeconfig(file, &credentials)
    }

    /// A kubeconfig that speaks as a service account, by a token that is good for a day.
    pub fn kubeconfig_of_account(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        let token = self.token(namespace, account)?;
        self.write_kubeconfig(&format!("{namespace}-{account}"), &format!("{{token: {token}}}"))
    }

    /// A token of a service account, good for a day.
    pub fn token(&self, namespace: &str, account: &str) -> Result<String> {
        self.kubectl(&["create", "token", account, "--namespace", namespace, "--duration", "24h"])
    }

    fn write_kubeconfig(&self, file: &str, user: &str) -> Result<PathBuf> {
        let path = self.directory.join(format!("{file}.kubeconfig"));
        let text = format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: test\n  cluster: {{server: \"{}\", \
             certificate-authority: {}}}\nusers:\n- name: user\n  user: {user}\ncontexts:\n- name: test\n  context: \
             {{cluster: test, user: user}}\ncurrent-context: test\n",
            self.server,
            self.authority.certificate.display(),
        );
        fs::write(&path, text)?;
        Ok(path)
    }

    /// kubectl as the administrator, for the caller to add arguments.
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new(self.programs.join("kubectl"));
        command.arg("--kubeconfig").arg(&self.kubeconfig).env("HOME", &self.directory).env_remove("KUBECONFIG");
        command
    }

    /// Puts objects into the store as they are, by their keys there, such as `pods/NAMESPACE/NAME`: nothing of them is checked or
    /// defaulted. For more of them than can be created one by one.
    pub fn put_into_store(&self, objects: impl Iterator<Item = (String, Value)>) -> Result<()> {
        bulk::put(&self.etcd_url, objects)
    }

    /// Runs kubectl as the administrator; what it prints.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        util::output(self.kubectl_command().args(arguments))
    }

    /// `kubectl get ARGUMENTS -o json`.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = vec!["get", "-o", "json"];
        all.extend(arguments);
        Ok(serde_json::from_str(&self.kubectl(&all)?)?)
    }

    /// `kubectl apply --server-side` of manifests in YAML.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        self.kubectl_with(&["apply", "--server-side", "--force-conflicts", "-f", "-"], manifests)
    }

    /// Runs kubectl with a standard input.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        use std::io::Write;
        let mut command = self.kubectl_command();
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start kubectl")?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        let input = input.to_owned();
        // kubectl may write before it has read all.
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output()?;
        let _ = writer.join();
        if !output.status.success() {
            bail!("`kubectl {}` failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Ends the API server, and nothing else. Until it is started again, no connection to it succeeds.
    pub fn stop_api_server(&mut self) -> Result<()> {
        match self.api_server.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Starts the API server where it was before, and waits until it is ready.
    pub fn start_api_server(&mut self) -> Result<()> {
        if self.api_server.is_none() {
            self.api_server = Some(Process::start("kube-apiserver", &self.directory, &self.api_server_command)?);
        }
        wait_for("the API server gets ready", PATIENCE, || {
            if let Some(process) = &mut self.api_server {
                process.check()?;
            }
            Ok(util::output(
                Command::new(self.programs.join("kubectl"))
                    .arg("--kubeconfig")
                    .arg(&self.kubeconfig)
                    .env("HOME", &self.directory)
                    .args(["get", "--raw", "/readyz"]),
            )
            .ok())
        })
        .map(drop)
    }

    /// The API server's process id, while it runs.
    pub fn api_server_pid(&self) -> Option<u32> {
        self.api_server.as_ref().map(Process::pid)
    }

    fn start_controllers(&mut self, options: &Options, tokens: &Pair) -> Result<()> {
        let kubeconfig = self.kubeconfig_for("controller-manager", "system:kube-controller-manager", &[])?;
        let mut command = Command::new(self.programs.join("kube-controller-manager"));
        command.arg("--kubeconfig").arg(kubeconfig);
        command.arg("--service-account-private-key-file").arg(&tokens.key);
        command.arg("--root-ca-file").arg(&self.authority.certificate);
        command.args(["--use-service-account-credentials", "--leader-elect=false", "--secure-port=0"]);
        command.arg(format!("--horizontal-pod-autoscaler-sync-period={}ms", options.autoscaler_period.as_millis()));
        command.arg(format!(
            "--horizontal-pod-autoscaler-downscale-stabilization={}ms",
            options.autoscaler_stabilization.as_millis()
        ));
        // Metrics count from the first moment: the tests do not wait out a start-up.
        command.args([
            "--horizontal-pod-autoscaler-initial-readiness-delay=1s",
            "--horizontal-pod-autoscaler-cpu-initialization-period=1s",
        ]);
        command.args(&options.controller_manager);
        self.controller_manager = Some(Process::start("kube-controller-manager", &self.directory, &command)?);
        Ok(())
    }

    /// Starts kube-scheduler, which has nothing to do until there is a node.
    pub(super) fn start_scheduler(&mut self) -> Result<()> {
        let kubeconfig = self.kubeconfig_for("scheduler", "system:kube-scheduler", &[])?;
        let mut command = Command::new(programs::node_programs()?.join("kube-scheduler"));
        command.arg("--kubeconfig").arg(kubeconfig).args(["--leader-elect=false", "--secure-port=0"]);
        self.scheduler = Some(Process::start("kube-scheduler", &self.directory, &command)?);
        Ok(())
    }

    /// The default namespace has its service account as soon as the controllers work.
    fn controllers_work(&mut self) -> Result<()> {
        wait_for("the controllers make the default service account", PATIENCE, || {
            for process in [&mut self.controller_manager, &mut self.scheduler].into_iter().flatten() {
                process.check()?;
            }
            Ok(self.kubectl(&["get", "serviceaccount", "default"]).ok())
        })
        .map(drop)
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        for process in [&mut self.scheduler, &mut self.controller_manager, &mut self.api_server].into_iter().flatten() {
            // Nothing of theirs is kept, so nothing is to be put in order.
            let _ = process.kill();
        }
        let _ = self.etcd.kill();
        if std::thread::panicking() || std::env::var_os("GOPULSE_KEEP_CLUSTER").is_some() {
            util::say(&format!("the cluster's logs stay in {}", self.directory.display()));
        } else {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

struct ApiServer<'a> {
    programs: &'a Path,
    directory: &'a Path,
    authority: &'a Authority,
    front_proxy: &'a Authority,
    tokens: &'a Pair,
    etcd: &'a str,
    address: Ipv4Addr,
    port: u16,
    options: &'a Options,
}

fn api_server(of: &ApiServer<'_>) -> Result<Command> {
    let address = of.address.to_string();
    let services = match of.address {
        Ipv4Addr::LOCALHOST => "10.96.0.0/24".to_owned(),
        // The first address of the range is the `kubernetes` Service's.
        address => format!("{}/24", Ipv4Addr::from(u32::from(address) & 0xffff_ff00)),
    };
    let hosts = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1", &address];
    let serving =
        of.authority.issue(&Subject { file: "api-server", name: "kube-apiserver", groups: &[], hosts: &hosts })?;
    let groups = ["system:masters"];
    let kubelets = of.authority.issue(&Subject {
        file: "api-server-kubelet-client",
        name: "kube-apiserver-kubelet-client",
        groups: &groups,
        hosts: &[],
    })?;
    let proxy = of.front_proxy.issue(&Subject {
        file: "front-proxy-client",
        name: "front-proxy-client",
        groups: &[],
        hosts: &[],
    })?;
    let mut command = Command::new(of.programs.join("kube-apiserver"));
    command.args(["--etcd-servers", of.etcd, "--bind-address", &address, "--advertise-address", &address]);
    command.arg(format!("--secure-port={}", of.port));
    if of.address.is_loopback() {
        // The `kubernetes` Service may not have a loopback address as its endpoint.
        command.arg("--endpoint-reconciler-type=none");
    }
    command.args(["--service-cluster-ip-range", &services]);
    command.arg("--cert-dir").arg(of.directory);
    command.arg("--tls-cert-file").arg(&serving.certificate).arg("--tls-private-key-file").arg(&serving.key);
    command.arg("--client-ca-file").arg(&of.authority.certificate);
    command.arg("--kubelet-certificate-authority").arg(&of.authority.certificate);
    command.arg("--kubelet-client-certificate").arg(&kubelets.certificate);
    command.arg("--kubelet-client-key").arg(&kubelets.key);
    command.args(["--kubelet-preferred-address-types", "InternalIP"]);
    command.arg("--requestheader-client-ca-file").arg(&of.front_proxy.certificate);
    command.args([
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
    ]);
    command.arg("--proxy-client-cert-file").arg(&proxy.certificate);
    command.arg("--proxy-client-key-file").arg(&proxy.key);
    command.arg("--service-account-key-file").arg(&of.tokens.certificate);
    command.arg("--service-account-signing-key-file").arg(&of.tokens.key);
    command.args(["--service-account-issuer", "https://kubernetes.default.svc"]);
    command.args(["--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction"]);
    command.arg("--allow-privileged=true");
    command.arg(format!("--enable-aggregator-routing={}", of.options.aggregator_routing));
    command.args(&of.options.api_server);
    Ok(command)
}

/// A port of 127.0.0.1 that nobody listens on now.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn fresh_directory() -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("cluster-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let directory = util::target().join("tmp").join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    Ok(directory)
}
