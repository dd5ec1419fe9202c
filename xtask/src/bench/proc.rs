//! What the kernel says of a process: CPU time, memory, descriptors.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// CPU time of all its threads so far, those that have ended included, nanoseconds: user, system and the probes' traps and
/// programs, which run in its name (clock_getcpuclockid(3)).
pub(super) fn cpu_ns(pid: u32) -> Result<u64> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid as i32)).with_context(|| format!("process {pid} is gone"))?;
    let time = clock_gettime(clock).with_context(|| format!("process {pid} is gone"))?;
    Ok(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// A field of /proc/PID/status in MiB: `VmRSS`, `VmHWM`, `RssAnon`.
pub(super) fn memory_mib(pid: u32, field: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} is gone"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kib.with_context(|| format!("no {field} in the status of process {pid}"))? / 1024.0)
}

/// Sets `VmHWM` to what is resident now (proc(5), clear_refs).
pub(super) fn reset_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("cannot reset the peak of memory")
}

/// Descriptors of links or perf events that it has open.
pub(super) fn probe_descriptors(pid: u32) -> Result<usize> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).with_context(|| format!("process {pid} is gone"))?;
    let names = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    Ok(names
        .filter(|name| name.to_string_lossy().contains("bpf_link") || name.to_string_lossy().contains("perf_event"))
        .count())
}

/// What /proc/PID/fdinfo says of each eBPF program that it has open.
pub(super) fn program_fdinfo(pid: u32) -> Result<Vec<String>> {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo")).with_context(|| format!("process {pid} is gone"))?;
    let texts = entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    Ok(texts.filter(|text| text.contains("prog_type:")).collect())
}

/// Processes of that name, this one apart.
pub(super) fn named(name: &str) -> Vec<u32> {
    let pids =
        fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let exe: Option<PathBuf> = fs::read_link(format!("/proc/{pid}/exe")).ok();
        exe.is_some_and(|exe| exe.file_name().is_some_and(|file| file == name))
    })
    .collect()
}

/// As many open files as are allowed, for itself and what it starts.
pub(super) fn raise_open_files() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Root may raise the hard limit too; where it may not, the old one has to do.
    if setrlimit(Resource::RLIMIT_NOFILE, hard.max(65_536), hard.max(65_536)).is_err() {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the limit of open files")?;
    }
    Ok(())
}

/// Which CPUs this process, and what it starts from here on, may run on: the first alone, all but the first, or all. On a machine
/// with a single CPU, that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cpus {
    First,
    Others,
    All,
}

/// Keeps this thread, and what it starts from here on, on some CPUs.
pub(super) fn pin(cpus: Cpus) -> Result<()> {
    let count = std::fs::read_dir("/sys/devices/system/cpu")?
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let digits = name.to_string_lossy().strip_prefix("cpu").map(str::to_owned).unwrap_or_default();
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        })
        .count();
    let mut set = CpuSet::new();
    for cpu in 0..count {
        if count < 2 || cpus == Cpus::All || (cpu == 0) == (cpus == Cpus::First) {
            set.set(cpu)?;
        }
    }
    sched_setaffinity(Pid::from_raw(0), &set).context("cannot choose the CPUs to run on")
}
