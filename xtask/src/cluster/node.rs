//! A node: the real kubelet with the real containerd, in a mount namespace and a cgroup of their own. Pods get their own
//! network namespaces on a bridge that only this machine reaches. Needs root.
//!
//! What differs from a node of a cluster: images are imported and never pulled; no kube-proxy runs, so a Service's cluster IP
//! leads nowhere, except the API server's, which is an address of this machine; a container that ended is started again
//! after a second rather than ten; nothing is evicted for the machine's full disk.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::certificates::Subject;
use super::control::{ControlPlane, free_port};
use super::image::Image;
use super::process::{Process, wait_for};
use super::programs;
use crate::go::{self, Service, Variant};
use crate::util;

/// The node's name.
pub const NODE: &str = "node-1";
const PAUSE: &str = "gopulse.test/pause:1";
const PATIENCE: Duration = Duration::from_mins(2);
/// Where the kubelet and the network plug-ins write whatever they are told; the node has its own there, in memory.
const FIXED_DIRECTORIES: [&str; 2] = ["/var/lib/kubelet", "/var/lib/cni"];
/// What the kubelet sets for the whole machine; here it writes into files of the node's own instead.
const KERNEL_SETTINGS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// Addresses and names that no other cluster on this machine uses, for as long as this lives.
#[derive(Debug)]
pub(super) struct Place {
    number: u8,
    _lock: fs::File,
}

impl Place {
    /// Takes a free one, and clears away what a cluster that was killed has left there.
    pub(super) fn take() -> Result<Self> {
        if !util::is_root() {
            bail!("a node needs root: it makes namespaces, cgroups and network links");
        }
        fs::create_dir_all("/run/gopulse-test")?;
        for number in 0..=u8::MAX {
            let path = format!("/run/gopulse-test/{number}.lock");
            let file = fs::File::create(&path).with_context(|| format!("cannot create {path}"))?;
            if file.try_lock().is_ok() {
                let place = Self { number, _lock: file };
                place.clear();
                return Ok(place);
            }
        }
        bail!("256 clusters run on this machine already")
    }

    /// Where the API server is, as a Service of the cluster and as an address of this machine.
    pub(super) fn service_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.number, 1)
    }

    /// Gives the machine the API server's address.
    pub(super) fn open(&self) -> Result<()> {
        let address = format!("{}/32", self.service_address());
        util::output(Command::new("ip").args(["address", "replace", &address, "dev", "lo"])).map(drop)
    }

    fn pods(&self) -> String {
        format!("10.214.{}.0/24", self.number)
    }

    fn name(&self) -> String {
        format!("gopulse{}", self.number)
    }

    /// Sockets are here: their paths must be short.
    fn run(&self) -> PathBuf {
        PathBuf::from(format!("/run/gopulse-test/{}", self.number))
    }

    /// The node's cgroup in each hierarchy.
    fn cgroups(&self) -> Vec<PathBuf> {
        hierarchies().into_iter().map(|hierarchy| hierarchy.join(self.name())).collect()
    }

    fn create_cgroups(&self) -> Result<()> {
        for cgroup in self.cgroups().iter().flat_map(|cgroup| [cgroup.clone(), cgroup.join("daemons")]) {
            fs::create_dir(&cgroup).with_context(|| format!("cannot create {}", cgroup.display()))?;
            // A cpuset of cgroup v1 takes no process before it has these.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let parent = cgroup.parent().map(|parent| parent.join(file)).filter(|parent| parent.exists());
                if let Some(parent) = parent
                    && fs::read_to_string(cgroup.join(file)).is_ok_and(|own| own.trim().is_empty())
                {
                    fs::copy(parent, cgroup.join(file))
                        .with_context(|| format!("cannot write {}", cgroup.join(file).display()))?;
                }
            }
        }
        Ok(())
    }

    /// Kills what is left in the node's cgroup, and removes every trace of it.
    fn clear(&self) {
        for _ in 0..50 {
            let mut left = 0;
            for cgroup in self.cgroups() {
                left += kill_all(&cgroup);
            }
            if left == 0 {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
        for cgroup in self.cgroups() {
            remove_cgroup(&cgroup);
        }
        let ip = |arguments: &[&str]| {
            // Mostly there is nothing to delete.
            let _ = util::output(Command::new("ip").args(arguments));
        };
        ip(&["link", "delete", &self.name()]);
        ip(&["address", "delete", &format!("{}/32", self.service_address()), "dev", "lo"]);
        let _ = fs::remove_dir_all(self.run());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A node that runs. It must go before its control plane does.
#[derive(Debug)]
pub struct Node {
    kubelet: Option<Process>,
    containerd: Process,
    /// Holds the mount namespace.
    namespace: Process,
    place: Place,
    directory: PathBuf,
    packages: PathBuf,
}

impl Node {
    pub(super) fn start(plane: &ControlPlane, place: Place) -> Result<Self> {
        let packages = programs::node()?;
        let directory = plane.directory().join("node");
        fs::create_dir_all(directory.join("kernel"))?;
        fs::create_dir_all(directory.join("static"))?;
        fs::create_dir_all(place.run())?;
        place.create_cgroups()?;
        let namespace = namespace(&directory, &place)?;
        let containerd = containerd(&directory, &place, &packages, &namespace)?;
        let mut node = Self { kubelet: None, containerd, namespace, place, directory, packages };
        wait_for("containerd serves", PATIENCE, || {
            node.containerd.check()?;
            Ok(node.ctr(&["version"]).ok())
        })?;
        let pause = Service { name: "pause".to_owned(), go: "local".to_owned(), variant: Variant::Static };
        let pause = go::build(&pause)?;
        node.import(&Image { entrypoint: vec!["/app".to_owned()], ..Image::of(PAUSE, &pause) })?;
        node.kubelet = Some(node.start_kubelet(plane)?);
        wait_for("the node gets ready", PATIENCE, || {
            if let Some(kubelet) = &mut node.kubelet {
                kubelet.check()?;
            }
            let path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
            let said = plane.kubectl(&["get", "node", NODE, "-o", path]);
            Ok(said.is_ok_and(|status| status == "True").then_some(()))
        })?;
        Ok(node)
    }

    /// Makes an image known to the node.
    pub fn import(&self, image: &Image) -> Result<()> {
        let archive = image.archive(&self.directory)?;
        self.import_archive(&archive)?;
        fs::remove_file(archive)?;
        Ok(())
    }

    /// Makes the images of an archive known to the node.
    pub fn import_archive(&self, archive: &Path) -> Result<()> {
        self.ctr(&["images", "import", "--no-unpack", &archive.display().to_string()]).map(drop)
    }

    /// containerd's own command line, in the kubelet's namespace of containers.
    pub fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.inside(self.packages.join("usr/bin/ctr"));
        command.arg("--address").arg(self.place.run().join("containerd.sock")).args(["--namespace", "k8s.io"]);
        util::output(command.args(arguments))
    }

    /// Has the kubelet run a pod that is not from the API server: its manifest in YAML or JSON.
    pub fn write_static_pod(&self, name: &str, manifest: &str) -> Result<()> {
        let file = self.directory.join("static").join(format!("{name}.yaml"));
        fs::write(&file, manifest).with_context(|| format!("cannot write {}", file.display()))
    }

    /// The kubelet's process id.
    pub fn kubelet_pid(&self) -> Option<u32> {
        self.kubelet.as_ref().map(Process::pid)
    }

    /// The init process of a running container, by its id.
    pub fn container_pid(&self, id: &str) -> Result<u32> {
        let id = id.trim_start_matches("containerd://");
        let tasks = self.ctr(&["tasks", "list"])?;
        let line =
            tasks.lines().find(|line| line.starts_with(id)).with_context(|| format!("container {id} does not run"))?;
        let pid = line.split_whitespace().nth(1).and_then(|pid| pid.parse().ok());
        pid.with_context(|| format!("ctr tells no process id: `{line}`"))
    }

    fn inside(&self, program: impl AsRef<Path>) -> Command {
        inside(&self.namespace, program)
    }

    fn start_kubelet(&self, plane: &ControlPlane) -> Result<Process> {
        let address = self.place.service_address().to_string();
        let user = format!("system:node:{NODE}");
        let kubeconfig = plane.kubeconfig_for("kubelet", &user, &["system:nodes"])?;
        let serving = plane.authority().issue(&Subject {
            file: "kubelet-serving",
            name: &user,
            groups: &["system:nodes"],
            hosts: &[NODE, &address],
        })?;
        let config = self.directory.join("kubelet.yaml");
        let text = format!(
            "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {address}
port: {port}
healthzPort: 0
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {ca}}}}}
authorization: {{mode: Webhook}}
tlsCertFile: {certificate}
tlsPrivateKeyFile: {key}
containerRuntimeEndpoint: unix://{run}/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /{name}
enforceNodeAllocatable: [pods]
failSwapOn: false
failCgroupV1: false
localStorageCapacityIsolation: false
evictionHard: {{memory.available: 0%, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%}}
imageGCHighThresholdPercent: 100
podLogsDir: {directory}/logs
volumePluginDir: {directory}/volume-plugins
staticPodPath: {directory}/static
fileCheckFrequency: 1s
resolvConf: {directory}/resolv.conf
registerNode: true
syncFrequency: 10s
nodeStatusUpdateFrequency: 5s
shutdownGracePeriod: 0s
featureGates: {{KubeletCrashLoopBackOffMax: true, ReduceDefaultCrashLoopBackOffDecay: true}}
crashLoopBackOff: {{maxContainerRestartPeriod: 1s}}
kubeAPIQPS: 100
kubeAPIBurst: 200
maxPods: 200
",
            port = free_port()?,
            ca = plane.authority().certificate.display(),
            certificate = serving.certificate.display(),
            key = serving.key.display(),
            run = self.place.run().display(),
            name = self.place.name(),
            directory = self.directory.display(),
        );
        fs::write(&config, text)?;
        fs::write(self.directory.join("resolv.conf"), "")?;
        let mut command = self.in_cgroup(programs::node_programs()?.join("kubelet"));
        command.arg("--config").arg(&config).arg("--kubeconfig").arg(kubeconfig);
        command.arg("--root-dir").arg(self.directory.join("kubelet"));
        command.arg("--cert-dir").arg(self.directory.join("certificates"));
        command.args(["--hostname-override", NODE, "--node-ip", &address]);
        Process::start("kubelet", plane.directory(), &command)
    }

    fn in_cgroup(&self, program: impl AsRef<Path>) -> Command {
        in_cgroup(&self.place, &self.namespace, program)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(kubelet) = &mut self.kubelet {
            let _ = kubelet.kill();
        }
        let _ = self.containerd.kill();
        // What is left of it goes with its place.
    }
}

/// A command in the node's mount namespace.
fn inside(namespace: &Process, program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--mount=/proc/{}/ns/mnt", namespace.pid())).arg("--").arg(program.as_ref());
    command
}

/// A command in the node's mount namespace and in its cgroup, so that what it starts ends with the node.
fn in_cgroup(place: &Place, namespace: &Process, program: impl AsRef<Path>) -> Command {
    let enter: Vec<String> =
        place.cgroups().iter().map(|cgroup| format!("echo $$ > {}/daemons/cgroup.procs", cgroup.display())).collect();
    let mut command = inside(namespace, "sh");
    command.args(["-c", &format!("set -e\n{}\nexec \"$0\" \"$@\"", enter.join("\n"))]).arg(program.as_ref());
    command
}

/// A mount namespace, and a process that holds it.
fn namespace(directory: &Path, place: &Place) -> Result<Process> {
    let mut script = vec!["set -e".to_owned(), "mount --make-rshared /".to_owned()];
    for setting in KERNEL_SETTINGS {
        let own = directory.join("kernel").join(setting.replace('/', "."));
        let path = Path::new("/proc/sys").join(setting);
        fs::copy(&path, &own).with_context(|| format!("cannot copy {}", path.display()))?;
        script.push(format!("mount --bind {} {}", own.display(), path.display()));
    }
    for fixed in FIXED_DIRECTORIES {
        script.push(format!("mkdir -p {fixed} && mount -t tmpfs tmpfs {fixed}"));
    }
    let ready = place.run().join("namespace");
    script.extend([format!("touch {}", ready.display()), "exec sleep infinity".to_owned()]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "slave", "--", "sh", "-c", &script.join("\n")]);
    let mut process = Process::start("namespace", directory, &command)?;
    wait_for("the mount namespace", PATIENCE, || {
        process.check()?;
        Ok(ready.exists().then_some(()))
    })?;
    Ok(process)
}

fn containerd(directory: &Path, place: &Place, packages: &Path, namespace: &Process) -> Result<Process> {
    let networks = directory.join("networks");
    fs::create_dir_all(&networks)?;
    let network = serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": place.name(),
                "isGateway": true,
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "dataDir": directory.join("addresses"),
                    "ranges": [[{ "subnet": place.pods() }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
        ],
    });
    fs::write(networks.join("10-pods.conflist"), network.to_string())?;
    let config = directory.join("containerd.toml");
    let text = format!(
        "version = 2
root = \"{root}\"
state = \"{run}/containerd\"
disabled_plugins = [\"io.containerd.snapshotter.v1.btrfs\", \"io.containerd.snapshotter.v1.zfs\",
  \"io.containerd.snapshotter.v1.aufs\", \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.tracing.processor.v1.otlp\"]
[grpc]
address = \"{run}/containerd.sock\"
[plugins.\"io.containerd.internal.v1.opt\"]
path = \"{root}/opt\"
[plugins.\"io.containerd.grpc.v1.cri\"]
sandbox_image = \"{PAUSE}\"
# Not every machine lets root lower it.
restrict_oom_score_adj = true
disable_apparmor = true
[plugins.\"io.containerd.grpc.v1.cri\".cni]
bin_dir = \"{packages}/usr/lib/cni\"
conf_dir = \"{networks}\"
[plugins.\"io.containerd.grpc.v1.cri\".containerd]
snapshotter = \"overlayfs\"
[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]
runtime_type = \"io.containerd.runc.v2\"
[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]
BinaryName = \"{packages}/usr/sbin/runc\"
",
        root = directory.join("containerd").display(),
        run = place.run().display(),
        packages = packages.display(),
        networks = networks.display(),
    );
    fs::write(&config, text)?;
    let binaries = packages.join("usr/bin");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = in_cgroup(place, namespace, binaries.join("containerd"));
    command.arg("--config").arg(&config).env("PATH", format!("{}:{path}", binaries.display()));
    Process::start("containerd", directory, &command)
}

/// The mounted cgroup hierarchies, one path for each.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let of_cgroups = mounts.lines().filter_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        matches!(*words.get(2)?, "cgroup" | "cgroup2").then(|| PathBuf::from(words[1]))
    });
    of_cgroups.filter(|path| path.starts_with("/sys/fs/cgroup")).collect()
}

/// Kills every process in a cgroup and below; how many there were.
fn kill_all(cgroup: &Path) -> usize {
    let mut killed = 0;
    for directory in below(cgroup) {
        let pids = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        for pid in pids.lines().filter_map(|pid| pid.parse().ok()).filter(|&pid| pid > 1) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            killed += 1;
        }
    }
    killed
}

fn remove_cgroup(cgroup: &Path) {
    let mut directories = below(cgroup);
    directories.reverse();
    for directory in directories {
        let _ = fs::remove_dir(directory);
    }
}

/// A directory and those below it, each after the one that it is in.
fn below(directory: &Path) -> Vec<PathBuf> {
    if !directory.is_dir() {
        return Vec::new();
    }
    let mut found = vec![directory.to_owned()];
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        found.extend(below(&entry.path()));
    }
    found
}
