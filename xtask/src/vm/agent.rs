//! The agent and the shared libraries that it needs, for the machine's own architecture or for arm64.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::packages::Suite;
use super::{Arch, directory};
use crate::build;
use crate::setup::{Compiler, Setup};
use crate::util;

const ARM64: &str = "aarch64-unknown-linux-gnu";
/// Debian's package with Rust's library for an architecture.
const LIBRARY: &str = "libstd-rust-web-dev";

/// Builds the agent, unless one is given, and returns the files to be put into the initramfs, with their paths there.
pub(super) fn files(arch: Arch, given: Option<&Path>) -> Result<Vec<(PathBuf, String)>> {
    let agent = match (given, arch) {
        (Some(given), _) => given.to_owned(),
        (None, Arch::Amd64) => build::run()?,
        (None, Arch::Arm64) => arm64()?,
    };
    let mut files = match arch {
        Arch::Amd64 => libraries(&agent)?,
        Arch::Arm64 => arm64_libraries(&agent)?,
    };
    files.push((agent, "gopulse".to_owned()));
    Ok(files)
}

/// The libraries that the loader finds on this machine, at the same paths.
fn libraries(agent: &Path) -> Result<Vec<(PathBuf, String)>> {
    let listed = util::output(Command::new("ldd").arg(agent))?;
    let paths = listed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(|path| (PathBuf::from(path), path.trim_start_matches('/').to_owned())).collect())
}

/// The libraries of the cross compiler, where the arm64 loader looks for them.
fn arm64_libraries(agent: &Path) -> Result<Vec<(PathBuf, String)>> {
    let dynamic = util::output(Command::new("aarch64-linux-gnu-readelf").arg("-d").arg(agent))?;
    let needed = dynamic.lines().filter(|line| line.contains("(NEEDED)"));
    let needed = needed.filter_map(|line| line.split_once('[')?.1.split(']').next());
    // The loader is always needed, and named as a library only where something of it is called.
    let names: BTreeSet<&str> = needed.chain(["ld-linux-aarch64.so.1"]).collect();
    let mut files = Vec::new();
    for name in names {
        let found = util::output(Command::new("aarch64-linux-gnu-gcc").arg(format!("-print-file-name={name}")))?;
        let found = PathBuf::from(found);
        if !found.is_absolute() {
            bail!("the cross compiler has no {name}, which the agent needs");
        }
        files.push((found, format!("lib/{name}")));
    }
    Ok(files)
}

/// Builds the agent for arm64: with Rust's own library for that target where rustup has installed it, else with Debian's
/// compiler, which builds the eBPF objects too, and its library out of the arm64 package.
fn arm64() -> Result<PathBuf> {
    build::objects()?;
    // A directory of its own: another compiler's work would wait for, and hold up, the ordinary builds.
    let target = directory().join("agent-arm64");
    let mut cargo = util::cargo();
    cargo.args(["build", "--release", "--ignore-rust-version", "--package", "gopulse", "--target", ARM64]);
    cargo.arg("--target-dir").arg(&target).env(build::BPF_DIR, build::bpf_directory());
    cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc").env_remove("RUSTFLAGS");
    if !rustup_has_library()? {
        let Compiler::Debian { rustc } = Setup::load_or_run()?.compiler else {
            bail!("no Rust library for arm64: run `rustup target add {ARM64}`");
        };
        let library = debian_library()?;
        cargo.env("RUSTC", rustc);
        cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS", format!("-L {}", library.display()));
    }
    util::run(&mut cargo)?;
    Ok(target.join(ARM64).join("release/gopulse"))
}

fn rustup_has_library() -> Result<bool> {
    let mut rustc = Command::new("rustc");
    let sysroot = util::output(rustc.current_dir(util::root()).args(["--print", "sysroot"]))?;
    Ok(Path::new(&sysroot).join("lib/rustlib").join(ARM64).join("lib").is_dir())
}

/// Rust's library for arm64 of exactly the version that Debian's compiler is of.
fn debian_library() -> Result<PathBuf> {
    let mut query = Command::new("dpkg-query");
    let version = util::output(query.args(["--show", "--showformat=${Version}", LIBRARY]))
        .with_context(|| format!("{LIBRARY} is not installed, though the eBPF compiler is Debian's"))?;
    let home = directory().join("rust-arm64");
    let library = home.join("usr/lib/rustlib").join(ARM64).join("lib");
    let stamp = home.join("version");
    if !fs::read_to_string(&stamp).is_ok_and(|unpacked| unpacked == version) {
        let _ = fs::remove_dir_all(&home);
        Suite::machine()?.unpack(&format!("{LIBRARY}:arm64={version}"), &home)?;
        fs::write(&stamp, &version)?;
    }
    if !library.is_dir() {
        bail!("the package {LIBRARY}:arm64 {version} has no {ARM64}");
    }
    Ok(library)
}
