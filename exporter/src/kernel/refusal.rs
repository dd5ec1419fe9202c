//! Why a kernel refuses programs, for a person. Knows nothing of which programs there are.

use std::io;

use thiserror::Error;

/// Why the programs could not be loaded.
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    #[error(
        "no permission to load eBPF programs ({0}): run gopulse as root (sudo gopulse ...) or with CAP_BPF, CAP_PERFMON and \
         CAP_SYS_PTRACE (and CAP_SYS_ADMIN on kernels without uprobe_multi links, and CAP_SYS_RESOURCE before 5.11)"
    )]
    Permission(io::Error),
    #[error("this binary was built without its eBPF programs: build it with `cargo xtask build`")]
    NotBuilt,
    #[error("this kernel has no uprobe_multi links (Linux 6.6 and later have): leave out --attach uprobe-multi")]
    NoUprobeMulti,
    #[error("cannot tell whether this kernel has uprobe_multi links: {0}; try --attach perf-event")]
    Unknown(io::Error),
    #[error(
        "this kernel does not compile eBPF programs, and its interpreter does not take those of gopulse: switch the compiler \
         on (sysctl net.core.bpf_jit_enable=1)"
    )]
    NotCompiled,
    #[error(
        "no memory for the eBPF maps and programs ({0}): they take some 50 MiB by default; raise the memory limit of this process \
         (its cgroup's, and before Linux 5.11 its locked memory's), or lower --max-series, --max-in-flight and --max-parked"
    )]
    Memory(io::Error),
    #[error("the kernel refused program {program}: {reason}")]
    Program { program: &'static str, reason: String },
    #[error("the kernel refused the eBPF object: {0}; gopulse needs Linux 5.10 or later with eBPF and uprobes")]
    Object(String),
}

impl LoadError {
    /// Whether the kernel refuses one program for what is in it: others may be loaded nevertheless, and this one never.
    pub(super) fn is_of_one_program(&self) -> bool {
        matches!(self, Self::Program { .. })
    }
}

/// Why the kernel refused a program.
pub(super) fn refused(program: &'static str, error: &(dyn std::error::Error + 'static)) -> LoadError {
    if let Some(known) = known_cause(error) {
        return known;
    }
    let reason = chain(error);
    // kernel/bpf/fixups.c: fixup_call_args. It is about the tail call that keeps programs on their threads' stacks.
    if reason.contains("not allowed in non-JITed programs") {
        return LoadError::NotCompiled;
    }
    LoadError::Program { program, reason }
}

/// EACCES is how the verifier says that it refuses a program; a lack of capabilities is EPERM.
pub(super) fn is_permission(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EPERM)
}

/// A lack of permission or of memory, if that is at the root of an error.
pub(super) fn known_cause(error: &(dyn std::error::Error + 'static)) -> Option<LoadError> {
    let mut next = Some(error);
    while let Some(error) = next {
        let number = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        match number {
            Some(libc::EPERM) => return number.map(io::Error::from_raw_os_error).map(LoadError::Permission),
            Some(libc::ENOMEM) => return number.map(io::Error::from_raw_os_error).map(LoadError::Memory),
            _ => next = error.source(),
        }
    }
    None
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        next = error.source();
    }
    // A verifier log runs over thousands of lines; its end says what was wrong.
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(12)..].join(" | ")
}

#[cfg(test)]
mod tests;
