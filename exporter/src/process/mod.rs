//! What runs on this node, from /proc: which executable a process runs, since when, and what it listens on. Knows nothing of
//! Go, of eBPF or of what is wanted; anything it reads may be gone the next moment.

mod code;
mod container;
mod filesystem;
mod identity;
mod lasting;
mod linked;
mod owner;
mod patched;
mod ports;
mod probed;
mod throttling;
mod usage;

pub(crate) use self::{
    code::Code,
    container::{ContainerId, containers_of},
    identity::{FileId, Inode, Process, ProcessId, executable},
    lasting::is_lasting,
    owner::owner,
    patched::{Patched, patched},
    ports::Ports,
    probed::is_probed,
    throttling::Throttling,
    usage::{Image, Networks, Stat, Usage},
};

use std::{
    fs::{self, File},
    io::{self, Read as _},
};

/// Bytes of a file that tells of a process. A process may have 65,530 mappings (vm.max_map_count), which are some 6 MiB; with
/// the longest names there are, a quarter of a gigabyte.
const MOST: u64 = 16 << 20;

/// Reads a file of /proc/PID, however long the process has made it: `FileTooLarge` past what a program needs.
pub(crate) fn told(pid: u32, file: &str) -> io::Result<Vec<u8>> {
    read_most(File::open(format!("/proc/{pid}/{file}"))?, MOST)
}

fn read_most(file: impl io::Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

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
    use super::{Census, io, read_most, told};

    #[test]
    fn what_a_process_makes_too_long_is_refused() {
        assert_eq!(read_most(&b"12345"[..], 5).unwrap(), b"12345");
        assert_eq!(read_most(&b"123456"[..], 5).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read_most(io::repeat(7), 1000).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(told(std::process::id(), "maps").unwrap().ends_with(b"\n"));
        assert_eq!(told(0, "maps").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

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
