//! What every command needs: the checkout's paths, running other programs with errors that name them, and becoming root
//! for those that need it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// The checkout's root.
pub fn root() -> PathBuf {
    // Cargo says where the checkout is now; the path from compile time serves a binary that is run by hand.
    let manifest = std::env::var_os("GOPULSE_ROOT").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default(),
        PathBuf::from,
    );
    manifest.canonicalize().unwrap_or(manifest)
}

/// The checkout's `target` directory: everything that the commands make lies below it.
pub fn target() -> PathBuf {
    root().join("target")
}

/// Where tools are installed that the machine lacks.
pub fn tools() -> PathBuf {
    target().join("tools")
}

/// This program's own file, as it was called: a build that a command starts may put another in its place.
pub fn myself() -> Result<PathBuf> {
    static MYSELF: OnceLock<PathBuf> = OnceLock::new();
    if let Some(known) = MYSELF.get() {
        return Ok(known.clone());
    }
    let found = std::env::current_exe().context("cannot find this program's own file")?;
    Ok(MYSELF.get_or_init(|| found).clone())
}

/// Says on standard error what is being done.
pub fn say(message: &str) {
    eprintln!("xtask: {message}");
}

/// Prints a section header, and how long this command has run, so that a log shows where its time went.
pub fn section(title: &str) {
    static START: OnceLock<Instant> = OnceLock::new();
    let seconds = START.get_or_init(Instant::now).elapsed().as_secs();
    // Standard output may be a pipe that buffers; the header has to come before what the children print.
    println!("\n==== {title} ({seconds} s) ====");
    let _ = std::io::stdout().flush();
}

/// A command as it would be typed, for messages.
pub fn display(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs a command, its output going to the terminal; an exit code other than 0 is an error that names the command.
pub fn run(command: &mut Command) -> Result<()> {
    say(&display(command));
    let status = command.status().with_context(|| format!("cannot start `{}`", display(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", display(command));
    }
    Ok(())
}

/// Runs a command and returns what it wrote to standard output; on failure the error carries its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", command.get_program().to_string_lossy()))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", display(command), output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The first executable file of that name on PATH.
pub fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Writes a file unless it already holds these bytes, so that what is built from it is not built again.
pub fn write_if_changed(file: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(file).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))
}

/// `cargo` in the checkout's root. The target directory is passed on the command line where it matters, so the variable
/// of the caller's own build must not reach it.
pub fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root()).env_remove("CARGO_TARGET_DIR").env_remove("CARGO_ENCODED_RUSTFLAGS");
    // What `cargo run` tells of this package: build scripts that look at it would run again for each who calls.
    let ours = |name: &str| {
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|it| name.starts_with(it))
    };
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(ours) {
            command.env_remove(name);
        }
    }
    command
}

/// True when this process is root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A command that runs as root: as it is when this process is root, else through sudo with the environment kept.
pub fn as_root(program: &Path, keep: &[(&str, String)]) -> Result<Command> {
    if is_root() {
        let mut command = Command::new(program);
        command.envs(keep.iter().map(|(name, value)| (name, value)));
        return Ok(command);
    }
    let Some(sudo) = which("sudo") else {
        bail!("`{}` needs root: run this as root, or install sudo", program.display());
    };
    let mut command = Command::new(sudo);
    // `env` sets the variables again, since sudo's policy may drop them.
    command.arg("env").args(keep.iter().map(|(name, value)| format!("{name}={value}"))).arg(program);
    Ok(command)
}

/// Asks for sudo's password once, early and on the terminal, when root will be needed.
pub fn ensure_root() -> Result<()> {
    if is_root() {
        return Ok(());
    }
    let Some(sudo) = which("sudo") else {
        bail!("loading eBPF programs needs root: run this as root, or install sudo");
    };
    let status = Command::new(sudo).arg("-v").status().context("cannot start sudo")?;
    if !status.success() {
        bail!("loading eBPF programs needs root, and sudo refused it");
    }
    Ok(())
}

/// Installs Debian's packages for programs that are not on PATH: each program, and the packages that it comes from.
pub fn install(needed: &[(&str, &str)]) -> Result<()> {
    let missing = needed.iter().filter(|(program, _)| which(program).is_none());
    let packages: Vec<&str> = missing.flat_map(|(_, packages)| packages.split(' ')).collect();
    if packages.is_empty() {
        return Ok(());
    }
    let install = || {
        let mut command = as_root(Path::new("apt-get"), &[("DEBIAN_FRONTEND", "noninteractive".to_owned())])?;
        // Two lanes of tests, or another of the machine's users, may want packages at once.
        command.args(["-o", "DPkg::Lock::Timeout=300", "install", "-y", "-qq", "--no-install-recommends"]);
        run(command.args(&packages))
    };
    if install().is_err() {
        run(as_root(Path::new("apt-get"), &[])?.arg("update"))?;
        install().with_context(|| format!("cannot install {}", packages.join(", ")))?;
    }
    Ok(())
}
