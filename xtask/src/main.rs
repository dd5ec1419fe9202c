//! The command line of `cargo xtask`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::go::{self, Service, Variant};
use xtask::{bench, build, check, cluster, demo, fuzz, image, manifests, offsets, setup, test, vm};

/// Every habit of the project as a command.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or install what the build needs and the machine lacks: a compiler and a linker for eBPF, and Go
    Setup,
    /// Build the eBPF objects for both register layouts, and target/release/gopulse with them in it
    Build {
        /// target/release/gopulse-static instead, which needs no file of the system it runs on
        #[arg(long = "static")]
        without_libraries: bool,
    },
    /// Run a sample shop under load, measure it, and show live what gopulse sees
    Demo(demo::Options),
    /// Run every check and every test; the end-to-end tests run as root
    Test(test::Options),
    /// Measure what gopulse costs; `bench all` writes docs/performance.md and docs/performance.json
    Bench(bench::Options),
    /// Boot Debian's kernels under qemu with the agent and a Go service, and check that requests are counted exactly
    Vm(vm::Options),
    /// Formatting, lints, the eBPF objects, licences and sources of dependencies, Go vet, and the book
    Check {
        /// Only these; without any, all
        checks: Vec<check::Check>,
    },
    /// Make gobinary's table of struct layouts out of real Go toolchains
    Offsets {
        /// Passed on as they are
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Fuzz the reader of Go executables; needs a nightly compiler, and installs cargo-fuzz
    Fuzz(fuzz::Options),
    /// Render what daemonset/ ships, hold the Helm chart against the kustomize base, and have a real API server check both
    Manifests(manifests::Options),
    /// Make the agent's image out of the Containerfile and a static agent that is built here
    Image,
    /// A real Kubernetes on this machine
    #[command(subcommand)]
    Cluster(cluster::Action),
    /// Build the Go sample services
    #[command(subcommand)]
    Go(GoCommand),
}

#[derive(Subcommand)]
enum GoCommand {
    /// Build one service and print the binary's path
    Build {
        /// A directory of xtask/go
        name: String,
        /// Go version: 1.22, 1.22.12, or local for the machine's own
        #[arg(long, default_value = "local")]
        go: String,
        /// default, strip, pie, trimpath, static, cgo or race
        #[arg(long, default_value = "default")]
        variant: Variant,
    },
    /// Print the Go versions that services are built with
    Versions,
    /// Check that the Go sources are formatted and that go vet finds nothing
    Vet,
}

fn main() -> ExitCode {
    match dispatch(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Setup => setup::run().map(drop),
        Command::Build { without_libraries: true } => build::run_static().map(drop),
        Command::Build { without_libraries: false } => build::run().map(drop),
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Vm(options) => vm::run(&options),
        Command::Check { checks } => check::run(&checks),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Offsets { arguments } => offsets::run(&arguments),
        Command::Manifests(options) => manifests::run(&options),
        Command::Image => image::run().map(drop),
        Command::Cluster(action) => cluster::run(&action),
        Command::Go(GoCommand::Build { name, go, variant }) => {
            println!("{}", go::build(&Service { name, go, variant })?.display());
            Ok(())
        }
        Command::Go(GoCommand::Versions) => {
            println!("{}", go::versions()?.join("\n"));
            Ok(())
        }
        Command::Go(GoCommand::Vet) => go::vet(),
    }
}
