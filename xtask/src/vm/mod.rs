//! `cargo xtask vm`: boots Debian's kernels under qemu with the agent and a Go service in an initramfs, and checks that
//! requests are counted exactly. What runs in there is `xtask/go/guest`.

mod agent;
mod boot;
mod initramfs;
mod kernel;
mod packages;
mod report;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use self::initramfs::Archive;
use self::kernel::{KERNELS, Kernel};
use self::report::Row;
use crate::go::{self, Service, Variant};
use crate::util;

/// Options of `cargo xtask vm`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// 5.10, 6.1, 6.12, newest or newest-preempt; may be given more than once
    #[arg(long = "kernel", value_name = "KERNEL", required_unless_present = "all")]
    kernels: Vec<String>,
    /// The architecture to emulate
    #[arg(long, value_enum, default_value = "amd64")]
    arch: Arch,
    /// Every kernel
    #[arg(long, conflicts_with = "kernels")]
    all: bool,
    /// An agent that was built before, to be tried instead of this checkout's
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// More words for the kernels' command line
    #[arg(long, value_name = "WORDS", default_value = "")]
    append: String,
}

/// An architecture that is emulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Arch {
    /// x86-64.
    Amd64,
    /// aarch64.
    Arm64,
}

impl Arch {
    /// The name that Debian and Go have for it.
    fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

/// Boots each kernel that is asked for and prints the table. An error if anything in the table is not as it should be.
pub fn run(options: &Options) -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        bail!("cargo xtask vm runs on amd64 machines");
    }
    let kernels = chosen(options)?;
    packages::install_tools(options.arch)?;
    let initramfs = initramfs(options.arch, options.agent.as_deref())?;
    let mut rows = Vec::new();
    for kernel in kernels {
        let row = match one(kernel, options, &initramfs) {
            Ok(row) => row,
            Err(error) => Row::broken(kernel, options.arch, &format!("{error:#}")),
        };
        rows.push(row);
    }
    report::print(&rows);
    let wrong = rows.iter().filter(|row| !row.wrong.is_empty()).count();
    if wrong > 0 {
        bail!("{wrong} of {} kernels are not as they should be", rows.len());
    }
    Ok(())
}

/// Downloads packages of a suite of Debian, named with their architecture, and unpacks them; nothing is installed.
pub fn unpack(suite: &str, packages: &[&str], to: &Path) -> Result<()> {
    let suite = packages::Suite::open(suite)?;
    packages.iter().try_for_each(|package| suite.unpack(package, to))
}

fn chosen(options: &Options) -> Result<Vec<&'static Kernel>> {
    if options.all {
        return Ok(KERNELS.iter().collect());
    }
    let names = || KERNELS.map(|kernel| kernel.name).join(", ");
    let find = |name: &String| {
        KERNELS
            .iter()
            .find(|kernel| kernel.name == name)
            .with_context(|| format!("no kernel `{name}`; there are {}", names()))
    };
    options.kernels.iter().map(find).collect()
}

fn one(kernel: &'static Kernel, options: &Options, initramfs: &Path) -> Result<Row> {
    let arch = options.arch;
    let image = kernel.image(arch)?;
    let console = directory().join(format!("console-{}-{}.txt", kernel.name, arch.name()));
    let booted = boot::run(kernel, arch, &image, initramfs, &options.append, &console)?;
    Ok(Row::new(kernel, arch, &booted))
}

/// Where everything lies that this command makes.
fn directory() -> PathBuf {
    util::target().join("vm")
}

/// Puts the agent, the service, the load generator and their init process into an archive.
fn initramfs(arch: Arch, agent: Option<&Path>) -> Result<PathBuf> {
    let mut archive = Archive::default();
    for (service, to) in [("guest", "init"), ("matrix", "service"), ("client", "client"), ("load", "load")] {
        let service = Service { name: service.to_owned(), go: "local".to_owned(), variant: Variant::Static };
        archive.file(to, &go::build_for(&service, Some(arch.name()))?)?;
    }
    for (file, to) in agent::files(arch, agent)? {
        archive.file(&to, &file)?;
    }
    let to = directory().join(format!("initramfs-{}.cpio", arch.name()));
    fs::create_dir_all(directory())?;
    fs::write(&to, archive.finish()).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(to)
}
