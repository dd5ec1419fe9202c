//! The kernels: which, from where, and what is expected of each.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::packages::Suite;
use super::{Arch, directory};

/// A kernel, and what the agent should find and need there.
#[derive(Debug)]
pub(super) struct Kernel {
    /// Its name on the command line.
    pub(super) name: &'static str,
    /// Debian's suite that has it.
    suite: &'static str,
    /// How probes are attached there.
    pub(super) method: &'static str,
    /// The first list of capabilities, of those that the guest tries, that is enough there.
    pub(super) capabilities: &'static [&'static str],
    /// How many things of use /targets says that it is without.
    pub(super) absent: usize,
    /// What its command line has beside what every machine's has. `gopulse.crowded` is for `xtask/go/guest`: for how many
    /// seconds two services share a CPU under load.
    pub(super) command_line: &'static str,
    /// The mode that it must preempt in, on amd64 by debugfs and on arm64, where Debian's kernels are built for one mode, by the
    /// version; any where that is empty.
    preempts: [&'static str; 2],
}

/// All kernels, oldest first. The first is the oldest that is supported.
pub(super) const KERNELS: [Kernel; 5] = [
    Kernel {
        name: "5.10",
        suite: "bullseye",
        method: "perf-event",
        capabilities: &["SYS_ADMIN", "SYS_PTRACE", "SYS_RESOURCE"],
        absent: 4,
        command_line: "",
        preempts: ["", ""],
    },
    Kernel {
        name: "6.1",
        suite: "bookworm",
        method: "perf-event",
        capabilities: &["SYS_ADMIN", "SYS_PTRACE"],
        absent: 1,
        command_line: "",
        preempts: ["", ""],
    },
    Kernel {
        name: "6.12",
        suite: "bookworm-backports",
        method: "uprobe-multi",
        capabilities: &["BPF", "PERFMON", "SYS_PTRACE"],
        absent: 0,
        command_line: "",
        preempts: ["", ""],
    },
    Kernel {
        name: "newest",
        suite: "sid",
        method: "uprobe-multi",
        capabilities: &["BPF", "PERFMON", "SYS_PTRACE"],
        absent: 0,
        command_line: "gopulse.crowded=60",
        preempts: ["lazy", "PREEMPT"],
    },
    Kernel {
        name: "newest-preempt",
        suite: "sid",
        method: "uprobe-multi",
        capabilities: &["BPF", "PERFMON", "SYS_PTRACE"],
        absent: 0,
        command_line: "preempt=full oops=panic gopulse.crowded=60",
        preempts: ["full", "PREEMPT"],
    },
];

impl Kernel {
    /// The mode that it must preempt in, as `xtask/go/guest` tells it; empty for any.
    pub(super) fn preempts(&self, arch: Arch) -> &'static str {
        let [amd64, arm64] = self.preempts;
        match arch {
            Arch::Amd64 => amd64,
            Arch::Arm64 => arm64,
        }
    }

    /// Gets the kernel's package, unless an earlier run has, and returns the image's path.
    pub(super) fn image(&self, arch: Arch) -> Result<PathBuf> {
        let to = directory().join("kernels").join(format!("{}-{}", self.suite, arch.name()));
        if let Some(image) = find(&to) {
            return Ok(image);
        }
        let suite = Suite::open(self.suite)?;
        // The package that names the suite's newest kernel; those for clouds have every driver needed and are small.
        let newest = format!("linux-image-cloud-{0}:{0}", arch.name());
        let package = suite.dependency(&newest, "linux-image-")?;
        suite.unpack(&package, &to)?;
        if find(&to).is_none() {
            // Newer packages leave the image to one more.
            suite.unpack(&suite.dependency(&package, "linux-binary-")?, &to)?;
        }
        find(&to).with_context(|| format!("no kernel image in {package}"))
    }
}

/// The kernel image below a directory.
fn find(directory: &Path) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    let image = |path: &&PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinu")) && path.is_file()
    };
    if let Some(found) = entries.iter().find(image) {
        return Some(found.clone());
    }
    entries.iter().filter(|path| path.is_dir() && !path.is_symlink()).find_map(|path| find(path))
}
