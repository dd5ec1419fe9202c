//! What runs on this node, from /proc: which executable a process runs, since when, and what it listens on. Knows nothing of
//! Go, of eBPF or of what is wanted; anything it reads may be gone the next moment.

mod container;
mod identity;
mod ports;
mod probed;
mod throttling;
mod usage;

pub(crate) use self::{
    container::{ContainerId, containers_of},
    identity::{FileId, Process, ProcessId, executable},
    ports::listens_on,
    probed::is_probed,
    throttling::Throttling,
    usage::{Image, Networks, Stat, Usage},
};

use std::{fs, io};

/// The ids of all processes that /proc shows now.
pub(crate) fn pids() -> io::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}
