//! Looks at a measured process's own instructions: a breakpoint there is a probe, and no other witness is needed.

use std::{fs, os::unix::fs::FileExt as _};

use serde_json::Value;

/// The breakpoint instruction that uprobes put in (x86-64).
const BREAKPOINT: u8 = 0xcc;

/// Addresses of a target's attached probe sites in its memory, from `/targets` and `/proc/PID/maps`.
pub(crate) fn sites(pid: u32, target: &Value) -> Vec<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("the process runs");
    let probes = target["probes"].as_array().expect("a measured target has probes");
    let offsets = probes.iter().filter(|probe| probe["attached"] == true);
    let offsets = offsets.map(|probe| probe["file_offset"].as_u64().expect("a number"));
    let sites: Vec<u64> = offsets.filter_map(|offset| address(&maps, offset)).collect();
    assert!(!sites.is_empty(), "no probe site of process {pid} is mapped");
    sites
}

/// Where a file offset of the executable is mapped for execution.
fn address(maps: &str, offset: u64) -> Option<u64> {
    maps.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (range, permissions, at) = (words.first()?, words.get(1)?, words.get(2)?);
        let (start, end) = range.split_once('-')?;
        let hexadecimal = |text: &str| u64::from_str_radix(text, 16).ok();
        let (start, end, at) = (hexadecimal(start)?, hexadecimal(end)?, hexadecimal(at)?);
        // The executable's own code comes first in the list.
        let inside = permissions.contains('x') && (at..at + (end - start)).contains(&offset);
        inside.then(|| start + offset - at)
    })
}

/// How many of these addresses hold a breakpoint now.
pub(crate) fn breakpoints(pid: u32, sites: &[u64]) -> usize {
    let memory = fs::File::open(format!("/proc/{pid}/mem")).expect("the process runs");
    let mut byte = [0];
    sites.iter().filter(|&&site| memory.read_exact_at(&mut byte, site).is_ok() && byte[0] == BREAKPOINT).count()
}

/// Whether the instructions at these addresses are `push %rbp` again (or whatever else is no breakpoint).
pub(crate) fn is_clean(pid: u32, sites: &[u64]) -> bool {
    breakpoints(pid, sites) == 0
}
