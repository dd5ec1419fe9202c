//! Builds the eBPF objects for both register layouts, and then the agent that embeds them.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::setup::{Compiler, Setup};
use crate::util;

/// The register layouts that an eBPF object is built for.
pub const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];
/// Names the directory of the eBPF objects to the agent's own build.
pub const BPF_DIR: &str = "GOPULSE_BPF_DIR";
const BPF_TARGET: &str = "bpfel-unknown-none";

/// Where the eBPF objects are put.
pub fn bpf_directory() -> PathBuf {
    util::target().join("bpf")
}

/// The eBPF object of a register layout, once it is built.
pub fn object_file(architecture: &str) -> PathBuf {
    bpf_directory().join(format!("gopulse-{architecture}.o"))
}

/// The agent's path once it is built.
pub fn agent() -> PathBuf {
    util::target().join("release/gopulse")
}

/// A command of cargo that embeds the eBPF objects where they are built, and else does without.
pub fn with_objects(mut cargo: std::process::Command) -> std::process::Command {
    if ARCHITECTURES.iter().all(|architecture| object_file(architecture).is_file()) {
        cargo.env(BPF_DIR, bpf_directory());
    }
    cargo
}

/// Builds the objects and the agent, and returns the agent's path.
pub fn run() -> Result<PathBuf> {
    objects()?;
    let mut cargo = util::cargo();
    cargo.args(["build", "--release", "--ignore-rust-version", "--package", "gopulse", "--target-dir"]);
    util::run(cargo.arg(util::target()).env(BPF_DIR, bpf_directory()))?;
    Ok(agent())
}

/// Builds the objects and an agent that needs no file of the system it runs on, for an image from scratch; returns its path.
pub fn run_static() -> Result<PathBuf> {
    objects()?;
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut cargo = util::cargo();
    // With a target named, the flags are not for build scripts and macros, which cannot be static.
    cargo.args([
        "rustc",
        "--release",
        "--ignore-rust-version",
        "--package",
        "gopulse",
        "--bin",
        "gopulse",
        "--target",
        &target,
        "--target-dir",
    ]);
    cargo.arg(util::target()).env(BPF_DIR, bpf_directory()).env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", "-C\u{1f}target-feature=+crt-static").env_remove("RUSTFLAGS");
    // An image is fetched by every node: generic code once, for size, and relative relocations packed (glibc 2.36 reads them).
    cargo.args(["--", "-C", "codegen-units=1", "-C", "opt-level=s", "-C", "link-arg=-Wl,-z,pack-relative-relocs"]);
    util::run(&mut cargo)?;
    let built = util::target().join(target).join("release/gopulse");
    let agent = util::target().join("release/gopulse-static");
    fs::copy(&built, &agent).with_context(|| format!("cannot copy {}", built.display()))?;
    Ok(agent)
}

/// Builds the eBPF objects.
pub fn objects() -> Result<()> {
    let setup = Setup::load_or_run()?;
    for architecture in ARCHITECTURES {
        object(&setup, architecture)
            .with_context(|| format!("cannot build the eBPF object for {architecture} registers"))?;
    }
    Ok(())
}

fn object(setup: &Setup, architecture: &str) -> Result<()> {
    let directory = bpf_directory().join(architecture);
    let flags = [
        "-C".to_owned(),
        format!("linker={}", setup.bpf_linker.display()),
        "--cfg".to_owned(),
        format!("bpf_target_arch=\"{architecture}\""),
        "-C".to_owned(),
        "link-arg=--btf".to_owned(),
        "-C".to_owned(),
        "debuginfo=2".to_owned(),
    ];
    let mut cargo = util::cargo();
    match &setup.compiler {
        Compiler::Nightly => {
            cargo.arg("+nightly").env_remove("RUSTC");
        }
        Compiler::Debian { rustc } => {
            cargo.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
        }
    }
    cargo.args(["build", "--release", "--ignore-rust-version", "-Z", "build-std=core", "--target", BPF_TARGET]);
    cargo.args(["--package", "exporter-ebpf", "--bin", "gopulse-ebpf", "--features", "kernel", "--target-dir"]);
    cargo.arg(&directory).env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")).env_remove("RUSTFLAGS");
    // bpf-linker optimises the whole program itself, and needs the debug information for BTF.
    cargo.env("CARGO_PROFILE_RELEASE_LTO", "fat").env("CARGO_PROFILE_RELEASE_STRIP", "none");
    util::run(&mut cargo)?;
    let built = directory.join(BPF_TARGET).join("release/gopulse-ebpf");
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    util::write_if_changed(&object_file(architecture), &bytes)
}
