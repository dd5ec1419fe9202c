//! Where a cluster's programs come from: etcd, containerd, runc and the network plug-ins out of Debian's packages,
//! Kubernetes' own and helm compiled from their published Go modules. Everything lies below `target`; nothing is installed
//! into the system, so no service of a package is ever started.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{go, util};

/// What a control plane needs of Debian.
const CONTROL_PACKAGES: [&str; 1] = ["etcd-server"];
/// What a node needs of it.
const NODE_PACKAGES: [&str; 3] = ["containerd", "runc", "containernetworking-plugins"];
/// The names that our file of a control plane's programs answers to.
const CONTROL_PLANE: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kubectl"];
/// The names that our file of a node's programs answers to.
const NODE: [&str; 2] = ["kube-scheduler", "kubelet"];
/// How all of them are compiled, so that a package that several need is compiled once. Without symbols the files are half the size;
/// without inlining and debug information the compiler takes a third less of the CPU, and what is compiled is quick enough.
const FLAGS: [&str; 3] = ["-trimpath", "-gcflags=all=-l -dwarf=false", "-ldflags=-s -w"];
const HELM: &str = "helm.sh/helm/v3/cmd/helm";
const ADAPTER: &str = "sigs.k8s.io/prometheus-adapter/cmd/adapter";
const KEDA: &str = "github.com/kedacore/keda/v2";

/// The directory with a control plane's programs, each by its own name; compiled if they are not there yet, which takes some
/// three minutes on two cores.
pub fn control_plane() -> Result<PathBuf> {
    compiled(&module(), "./control", "control-plane", &CONTROL_PLANE)
}

/// The directory with a node's programs, kube-scheduler and kubelet, likewise. What they share with the control plane's is
/// compiled once.
pub(super) fn node_programs() -> Result<PathBuf> {
    compiled(&module(), "./node", "node", &NODE)
}

/// helm's path; compiled if it is not there yet.
pub fn helm() -> Result<PathBuf> {
    Ok(compiled(&module(), HELM, "helm", &["helm"])?.join("helm"))
}

/// prometheus-adapter's path; compiled if it is not there yet. Its module is one of its own, since it is made of an older
/// Kubernetes.
pub fn prometheus_adapter() -> Result<PathBuf> {
    let module = go::sources_directory().join("adapter");
    Ok(compiled(&module, ADAPTER, "prometheus-adapter", &["prometheus-adapter"])?.join("prometheus-adapter"))
}

/// KEDA's programs, and the manifests that its module has.
#[derive(Debug)]
pub struct Keda {
    /// keda-operator: makes HPAs of ScaledObjects, scales from and to 0, asks the scalers.
    pub operator: PathBuf,
    /// keda-operator-metrics-apiserver: serves `external.metrics.k8s.io`, by asking the operator.
    pub adapter: PathBuf,
    /// `config` of the module: `crd/bases` and others.
    pub manifests: PathBuf,
}

/// KEDA; compiled if it is not there yet, with the client libraries of all its scalers: 3,400 packages. Its module is one of its own,
/// since it is made of another Kubernetes.
pub fn keda() -> Result<Keda> {
    let module = go::sources_directory().join("operator");
    let program = |package: &str, name: &str| {
        Ok::<_, anyhow::Error>(
            compiled(&module, &format!("{KEDA}/cmd/{package}"), name, &[])?.join(format!("{name}.bin")),
        )
    };
    Ok(Keda {
        operator: program("operator", "keda-operator")?,
        adapter: program("adapter", "keda-adapter")?,
        manifests: directory_of(&module, KEDA)?.join("config"),
    })
}

/// etcd's path.
pub(super) fn etcd() -> Result<PathBuf> {
    Ok(unpacked(&CONTROL_PACKAGES)?.join("usr/bin/etcd"))
}

/// The root of a node's packages: `usr/bin/containerd`, `usr/sbin/runc`, `usr/lib/cni`.
pub(super) fn node() -> Result<PathBuf> {
    unpacked(&NODE_PACKAGES)
}

/// The module's directory.
fn module() -> PathBuf {
    go::sources_directory().join("cluster")
}

/// Where Go keeps a module that ours names, after fetching it: example files and CRDs are in there.
pub fn module_directory(module_path: &str) -> Result<PathBuf> {
    directory_of(&module(), module_path)
}

fn directory_of(module: &Path, module_path: &str) -> Result<PathBuf> {
    let toolchain = go::toolchain("local")?;
    let mut command = toolchain.command(module);
    command.env("GOFLAGS", "-mod=mod").args(["mod", "download", "-json", module_path]);
    let said: serde_json::Value = serde_json::from_str(&util::output(&mut command)?)?;
    let directory = said["Dir"].as_str().with_context(|| format!("go names no directory for {module_path}"))?;
    Ok(PathBuf::from(directory))
}

/// Shows Kubernetes' own HPA controller what traces of `gopulse hpa simulate` say, one for each spec of the same file name;
/// what it printed. An error says where it decided otherwise.
pub fn replay_autoscaler(specs: &Path, traces: &Path) -> Result<String> {
    let mut command = Command::new(compile_replay()?);
    command.env("GOPULSE_HPA_SPECS", specs).env("GOPULSE_HPA_TRACES", traces);
    util::output(command.args(["-test.v", "-test.run", "TestReplay"]))
}

/// The test that does so, compiled; by the flags of the control plane, whose packages it shares.
pub(super) fn compile_replay() -> Result<PathBuf> {
    let home = util::target().join("go/cluster/replay");
    fs::create_dir_all(&home)?;
    let lock = fs::File::create(home.join("lock"))?;
    lock.lock().with_context(|| format!("cannot lock {}", home.join("lock").display()))?;
    let test = home.join("replay.test");
    let mut command = compiler(&module())?;
    // Vet would read all that it is made of, which takes longer than to compile it.
    util::output(command.args(["test", "-c", "-vet=off"]).args(FLAGS).arg("-o").arg(&test).arg("./replay"))?;
    Ok(test)
}

/// Go on a module as it is. No C, so that what is compiled runs in an image from scratch.
fn compiler(module: &Path) -> Result<Command> {
    let mut command = go::toolchain("local")?.command(module);
    command.env("GOFLAGS", "-mod=readonly -buildvcs=false").env("CGO_ENABLED", "0");
    // The compiler collects its garbage less often: memory for CPU.
    command.env("GOGC", "400");
    Ok(command)
}

/// Compiles a package of a module into `target/go/cluster/NAME`, unless the module is that of an earlier build.
fn compiled(module: &Path, package: &str, name: &str, programs: &[&str]) -> Result<PathBuf> {
    let home = util::target().join("go/cluster").join(name);
    fs::create_dir_all(&home)?;
    let lock = fs::File::create(home.join("lock"))?;
    lock.lock().with_context(|| format!("cannot lock {}", home.join("lock").display()))?;
    let toolchain = go::toolchain("local")?;
    let mut hasher = DefaultHasher::new();
    (&toolchain.version, package, FLAGS).hash(&mut hasher);
    go::read_sources(module)?.hash(&mut hasher);
    let stamp = format!("{:016x}", hasher.finish());
    let binary = home.join(format!("{name}.bin"));
    if !(binary.is_file() && fs::read_to_string(home.join("stamp")).is_ok_and(|old| old == stamp)) {
        util::say(&format!("compiling {name} from its Go modules; the first time takes minutes"));
        let partial = home.join(format!("{name}.partial"));
        let mut command = compiler(module)?;
        command.arg("build").args(FLAGS).arg("-o").arg(&partial).arg(package);
        util::output(&mut command).with_context(|| format!("cannot compile {name}"))?;
        fs::rename(&partial, &binary)?;
        fs::write(home.join("stamp"), stamp)?;
    }
    for program in programs {
        let link = home.join(program);
        if !link.exists() {
            let _ = fs::remove_file(&link);
            symlink(binary.file_name().unwrap_or_default(), &link)
                .with_context(|| format!("cannot create {}", link.display()))?;
        }
    }
    Ok(home)
}

/// The directory below `target/tools` that packages are unpacked into; fetched if one is not there yet.
fn unpacked(packages: &[&str]) -> Result<PathBuf> {
    let root = util::tools().join("cluster");
    fs::create_dir_all(&root)?;
    let lock = fs::File::create(root.join("lock"))?;
    lock.lock().with_context(|| format!("cannot lock {}", root.join("lock").display()))?;
    for package in packages {
        let done = root.join(format!("{package}.unpacked"));
        if done.is_file() {
            continue;
        }
        if util::which("apt-get").is_none() {
            bail!("apt-get is not on PATH: {package} comes from Debian's packages");
        }
        let download = root.join(format!("{package}.download"));
        let _ = fs::remove_dir_all(&download);
        fs::create_dir_all(&download)?;
        util::say(&format!("fetching Debian's {package}"));
        if fetch(package, &download).is_err() {
            // A fresh image has no package lists, and old lists name files that the archive no longer has.
            util::run(util::as_root(Path::new("apt-get"), &[])?.arg("update"))?;
            fetch(package, &download).with_context(|| format!("Debian's {package} is not to be had"))?;
        }
        for file in fs::read_dir(&download)? {
            util::output(Command::new("dpkg-deb").arg("-x").arg(file?.path()).arg(&root))?;
        }
        fs::remove_dir_all(&download)?;
        fs::write(&done, b"")?;
    }
    Ok(root)
}

fn fetch(package: &str, to: &Path) -> Result<()> {
    // Not as the user _apt, which may not write there.
    let mut command = Command::new("apt-get");
    command.args(["download", "-qq", "-o", "APT::Sandbox::User=root", package]).current_dir(to);
    util::output(&mut command).map(drop)
}
