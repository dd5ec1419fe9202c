//! What needs no root and runs no test: formatting, lints, the rules for eBPF objects and dependencies, the Go sources, and the book.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::{build, deny, go, objects, util, walls};

/// Without search and server it builds in a fraction of the time, and the pages are the same.
const MDBOOK: &str = "0.5.4";

/// One of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Check {
    /// `cargo fmt --check`
    Formatting,
    /// Clippy, warnings being errors
    Lints,
    /// The built eBPF objects keep no state that preempted threads could share
    Objects,
    /// Licences, sources and duplicates of the dependencies
    Dependencies,
    /// gofmt and go vet
    Go,
    /// The mdBook in docs/ builds
    Book,
}

/// Runs these checks, or every check if none is named.
pub fn run(checks: &[Check]) -> Result<()> {
    let checks = if checks.is_empty() { Check::value_variants() } else { checks };
    for check in checks {
        match check {
            Check::Formatting => formatting()?,
            Check::Lints => {
                // The agent embeds them, so it does not compile without.
                build::objects()?;
                lints()?;
            }
            Check::Objects => {
                build::objects()?;
                objects()?;
            }
            Check::Dependencies => dependencies()?,
            Check::Go => go_sources()?,
            Check::Book => book()?,
        }
    }
    Ok(())
}

/// `cargo fmt --check`.
pub fn formatting() -> Result<()> {
    util::section("rustfmt");
    util::run(util::cargo().args(["fmt", "--all", "--check"]))
}

/// Clippy, warnings being errors.
pub fn lints() -> Result<()> {
    walls::check()?;
    util::section("clippy");
    let mut cargo = util::cargo();
    // By this glob also the tests that plain `cargo test` leaves alone, which `--all-targets` leaves out.
    cargo.args(["clippy", "--workspace", "--lib", "--bins", "--examples", "--test", "*", "--ignore-rust-version"]);
    cargo.arg("--target-dir");
    cargo.arg(util::target()).args(["--", "-D", "warnings"]).env(build::BPF_DIR, build::bpf_directory());
    util::run(&mut cargo)?;
    // The kernel side, as code for this machine: the compiler for eBPF brings no clippy.
    let mut kernel = util::cargo();
    kernel.args(["clippy", "--package", "exporter-ebpf", "--features", "kernel", "--bin", "gopulse-ebpf"]);
    kernel.args(["--ignore-rust-version", "--target-dir"]).arg(build::bpf_directory().join("clippy"));
    kernel.args(["--", "-D", "warnings"]).env_remove("RUSTFLAGS");
    kernel.env("CARGO_ENCODED_RUSTFLAGS", "--cfg\u{1f}bpf_target_arch=\"x86_64\"\u{1f}-Cpanic=abort");
    util::run(&mut kernel)
}

/// The built eBPF objects, by the rules of [`crate::objects`].
pub fn objects() -> Result<()> {
    util::section("eBPF objects");
    for architecture in build::ARCHITECTURES {
        let file = build::object_file(architecture);
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let (programs, stack) = objects::check(&bytes).with_context(|| format!("{}", file.display()))?;
        println!(
            "{architecture}: {programs} programs on functions, no state that preempted threads could share, {stack} bytes of stack at most"
        );
    }
    Ok(())
}

/// Licences, sources and duplicates of the dependencies, by the rules in deny.toml.
pub fn dependencies() -> Result<()> {
    util::section("dependencies (deny.toml)");
    if util::which("cargo-deny").is_some() {
        return util::run(util::cargo().args(["deny", "check", "licenses", "bans", "sources"]));
    }
    util::say("cargo-deny is not installed; checking the same rules by xtask itself");
    deny::check()
}

/// gofmt and go vet.
pub fn go_sources() -> Result<()> {
    util::section("gofmt and go vet");
    go::vet()
}

/// The mdBook in docs/ builds.
pub fn book() -> Result<()> {
    util::section("book");
    let docs = util::root().join("docs");
    if !docs.join("book.toml").is_file() {
        anyhow::bail!("docs/book.toml is missing");
    }
    util::run(Command::new(mdbook()?).arg("build").arg(docs))
}

fn mdbook() -> Result<PathBuf> {
    if let Some(found) = util::which("mdbook") {
        return Ok(found);
    }
    let own = util::tools().join("bin/mdbook");
    if own.is_file() {
        return Ok(own);
    }
    util::say("installing mdbook below target/tools");
    fs::create_dir_all(util::tools())?;
    let mut cargo = util::cargo();
    cargo.current_dir(util::tools()).env("CARGO_BUILD_RUSTC_WRAPPER", "");
    // It runs for a moment; that it is built soon matters more than that it is fast.
    cargo.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0").env("CARGO_PROFILE_RELEASE_LTO", "off");
    cargo.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    cargo.args(["install", "mdbook", "--version", MDBOOK, "--locked", "--no-default-features", "--root"]);
    cargo.arg(util::tools()).arg("--target-dir").arg(util::tools().join("build"));
    util::run(&mut cargo).context("no mdbook on PATH, and it could not be installed")?;
    Ok(own)
}
