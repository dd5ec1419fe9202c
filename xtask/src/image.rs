//! The agent's image, by the `Containerfile` itself. Its build stage wants base images and a toolchain of the network; what it
//! would make is made here instead, and put in its place: buildah takes a directory for a stage. All stages after it, the
//! image, are built as they are written.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{build, util};

/// The name that the manifests give.
pub const NAME: &str = "docker.io/library/gopulse:0.1.0";
/// The build stage's name, and where the image takes the agent from.
const STAGE: &str = "build";
const AGENT: &str = "src/target/release/gopulse-static";
/// The capabilities that the build stage puts on the file.
const CAPABILITIES: &str = "cap_bpf,cap_perfmon,cap_sys_ptrace=ep";
/// What the image may take, packed as it is in a registry or not.
const LIMIT: u64 = 20_000_000;

/// Makes it; the path of an archive that `ctr images import`, `podman load` and `docker load` read.
pub fn run() -> Result<PathBuf> {
    let agent = build::run_static()?;
    let archive = make(&agent)?;
    let contents = Contents::of(&archive)?;
    println!(
        "{}: {} in {} bytes, {}",
        archive.display(),
        contents.files.join(", "),
        contents.bytes,
        contents.config["config"]
    );
    contents.check()?;
    Ok(archive)
}

/// Makes it of an agent that is there already.
fn make(agent: &Path) -> Result<PathBuf> {
    util::install(&[("buildah", "buildah"), ("setcap", "libcap2-bin")])?;
    let directory = util::target().join("image");
    let containerfile = util::root().join("Containerfile");
    let text = fs::read_to_string(&containerfile)?;
    // The stage that is left out has to do what is done here.
    for wanted in [format!(" AS {STAGE}\n"), format!("setcap {CAPABILITIES} "), format!("--from={STAGE} /{AGENT} ")] {
        ensure!(
            text.contains(&wanted),
            "the Containerfile has no `{}`, which xtask/src/image.rs goes by",
            wanted.trim()
        );
    }
    let stage = directory.join("stage");
    let copy = stage.join(AGENT);
    fs::create_dir_all(copy.parent().context("it is in a directory")?)?;
    fs::copy(agent, &copy).with_context(|| format!("cannot write {}", copy.display()))?;
    util::run(util::as_root(Path::new("setcap"), &[])?.arg(CAPABILITIES).arg(&copy))?;
    let nothing = directory.join("context");
    fs::create_dir_all(&nothing)?;
    let buildah = || -> Result<std::process::Command> {
        let mut command = util::as_root(Path::new("buildah"), &[])?;
        // A store of its own; no mount, no network and no service is needed for this.
        command.args(["--storage-driver", "vfs", "--root"]).arg(directory.join("store"));
        command.arg("--runroot").arg(directory.join("run"));
        Ok(command)
    };
    let mut command = buildah()?;
    command.args(["build", "--isolation", "chroot", "--build-context"]).arg(format!("{STAGE}={}", stage.display()));
    util::run(command.args(["--pull-never", "--tag", NAME, "--file"]).arg(&containerfile).arg(&nothing))?;
    let archive = directory.join("gopulse.tar");
    let _ = fs::remove_file(&archive);
    util::run(buildah()?.args(["push", NAME]).arg(format!("docker-archive:{}:{NAME}", archive.display())))?;
    Ok(archive)
}

/// What an archive holds.
struct Contents {
    config: Value,
    /// Files of its layers, by their path.
    files: Vec<String>,
    /// Of the layers, unpacked.
    bytes: u64,
}

impl Contents {
    fn of(archive: &Path) -> Result<Self> {
        let unpacked = archive.with_extension("unpacked");
        let _ = fs::remove_dir_all(&unpacked);
        fs::create_dir_all(&unpacked)?;
        util::output(std::process::Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&unpacked))?;
        let json = |name: &str| -> Result<Value> {
            let file = unpacked.join(name);
            let text = fs::read_to_string(&file).with_context(|| format!("the archive has no {name}"))?;
            Ok(serde_json::from_str(&text)?)
        };
        let manifest = json("manifest.json")?;
        let config = json(manifest[0]["Config"].as_str().context("the manifest names no configuration")?)?;
        let (mut files, mut bytes) = (Vec::new(), 0);
        for layer in manifest[0]["Layers"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let layer = unpacked.join(layer);
            bytes += fs::metadata(&layer)?.len();
            let listed = util::output(std::process::Command::new("tar").arg("-tf").arg(&layer))?;
            files.extend(listed.lines().map(str::to_owned));
        }
        fs::remove_dir_all(&unpacked)?;
        Ok(Self { config, files, bytes })
    }

    /// One file, the agent, run as root without a shell around it, in less than is promised.
    fn check(&self) -> Result<()> {
        let config = &self.config["config"];
        ensure!(self.files == ["gopulse"], "the image holds more than the agent: {:?}", self.files);
        ensure!(self.bytes < LIMIT, "the image takes {} bytes, and is to take less than {LIMIT}", self.bytes);
        ensure!(config["User"] == "0:0", "the image's user is {}", config["User"]);
        if config["Entrypoint"] != serde_json::json!(["/gopulse"]) {
            bail!("the image's entry point is {}", config["Entrypoint"]);
        }
        Ok(())
    }
}
