//! What runs on this node, from /proc: which executable a process runs, since when, and what it listens on. Knows nothing of
//! Go, of eBPF or of what is wanted; anything it reads may be gone the next moment.

mod code;
mod container;
mod identity;
mod lasting;
mod ports;
mod probed;
mod throttling;
mod usage;

pub(crate) use self::{
    code::Code,
    container::{ContainerId, containers_of},
    identity::{FileId, Process, ProcessId, executable},
    lasting::is_lasting,
    ports::Ports,
    probed::is_probed,
    throttling::Throttling,
    usage::{Image, Networks, Stat, Usage},
};

#[cfg(test)]
pub(crate) use self::identity::Inode;

use std::{fs, io};

/// How many tasks there are, and the last id given to one: while both stay, no process has come, nor any gone. From
/// `/proc/loadavg` (proc(5)), of which reading costs a small part of what listing /proc does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Census {
    tasks: String,
    last_id: String,
}

impl Census {
    /// As of now; none where it cannot be told.
    pub(crate) fn now() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/loadavg").ok()?)
    }

    fn parse(loadavg: &str) -> Option<Self> {
        let mut fields = loadavg.split_whitespace().skip(3);
        let (_, tasks) = fields.next()?.split_once('/')?;
        Some(Self { tasks: tasks.into(), last_id: fields.next()?.into() })
    }
}

/// The ids of all processes that /proc shows now.
pub(crate) fn pids() -> io::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::Census;

    #[test]
    fn a_process_that_comes_or_goes_changes_the_census() {
        let census = |text: &str| Census::parse(text);
        let quiet = census("0.20 0.18 0.12 1/80 11206\n");
        assert!(quiet.is_some());
        assert_eq!(census("0.90 0.18 0.12 3/80 11206\n"), quiet, "load is no change");
        assert_ne!(census("0.20 0.18 0.12 1/81 11207\n"), quiet);
        assert_ne!(census("0.20 0.18 0.12 1/79 11206\n"), quiet);
        assert_ne!(census("0.20 0.18 0.12 1/80 11210\n"), quiet, "some came, as many went");
        assert_eq!(census("0.20 0.18"), None);
        let before = Census::now().unwrap();
        assert!(std::process::Command::new("true").status().unwrap().success());
        assert_ne!(Census::now().unwrap(), before);
    }
}
