//! The machine that was measured on, in words.

use std::fs;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::go;

/// What figures depend on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Machine {
    cpu: String,
    cpus: usize,
    hypervisor: bool,
    memory_gib: f64,
    kernel: String,
    /// What the kernel does against its CPU's weaknesses: a trap is many calls and returns, each of which these make slower.
    #[serde(default)]
    mitigations: String,
    go: String,
    commit: String,
    load_average: String,
}

impl Machine {
    /// This one.
    pub(super) fn here() -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let field = |name: &str| {
            cpuinfo.lines().find_map(|line| Some(line.strip_prefix(name)?.split_once(':')?.1.trim().to_owned()))
        };
        let memory = fs::read_to_string("/proc/meminfo")?;
        let kib: f64 = memory.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0.0);
        let commit = std::process::Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
        Ok(Self {
            cpu: field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            hypervisor: field("flags").is_some_and(|flags| flags.contains("hypervisor")),
            memory_gib: kib / (1024.0 * 1024.0),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            mitigations: mitigations(),
            go: go::toolchain("local")?.version,
            commit: commit.map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned()).unwrap_or_default(),
            load_average: fs::read_to_string("/proc/loadavg")?.split(' ').take(3).collect::<Vec<_>>().join(" "),
        })
    }

    /// Whether what is measured on one can stand beside what is measured on the other.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        (self.cpus, &self.cpu, &self.kernel) == (other.cpus, &other.cpu, &other.kernel)
    }

    /// One paragraph.
    pub(super) fn describe(&self) -> String {
        let mitigations = if self.mitigations.is_empty() { "no mitigations" } else { &self.mitigations };
        let machine = if self.hypervisor { "a virtual machine with" } else { "a machine with" };
        format!(
            "Measured on {machine} {} CPUs ({}), {:.0} GiB of memory, Linux {} ({mitigations}); services built by Go {}; gopulse at commit {} or \
             with changes on top of it; load average at the start {}.",
            self.cpus, self.cpu, self.memory_gib, self.kernel, self.go, self.commit, self.load_average
        )
    }
}

/// What slows the kernel's calls and returns, as it says it itself.
fn mitigations() -> String {
    let all = ["spectre_v2", "retbleed", "spec_rstack_overflow", "meltdown"];
    let read = |name: &str| fs::read_to_string(format!("/sys/devices/system/cpu/vulnerabilities/{name}")).ok();
    let said = all.iter().filter_map(|name| Some(format!("{name}: {}", read(name)?.trim().split(';').next()?)));
    said.filter(|line| !line.ends_with("Not affected")).collect::<Vec<_>>().join(", ")
}
