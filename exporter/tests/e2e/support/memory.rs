//! Looks at a measured process's own instructions: where they are not the file's, there is a probe, and no other witness is
//! needed.

use std::{fs, os::unix::fs::FileExt as _};

use serde_json::Value;

/// A probe's place in the file and in the process's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    file_offset: u64,
    address: u64,
}

/// A target's attached probe sites, from `/targets` and `/proc/PID/maps`.
pub(crate) fn sites(pid: u32, target: &Value) -> Vec<Site> {
    sites_that(pid, target, |probe| probe["attached"] == true)
}

/// The places of its probes that are like this.
pub(crate) fn sites_that(pid: u32, target: &Value, are: impl Fn(&Value) -> bool) -> Vec<Site> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("the process runs");
    let probes = target["probes"].as_array().expect("a measured target has probes");
    let offsets = probes.iter().filter(|probe| are(probe));
    let offsets = offsets.map(|probe| probe["file_offset"].as_u64().expect("a number"));
    let sites: Vec<Site> = offsets
        .map(|file_offset| Site { file_offset, address: address(&maps, file_offset).expect("the site is mapped") })
        .collect();
    assert!(!sites.is_empty(), "process {pid} has no probes");
    sites
}

/// Where a file offset of the executable is mapped for execution. The executable's own code comes first in the list.
fn address(maps: &str, offset: u64) -> Option<u64> {
    maps.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (range, permissions, at) = (words.first()?, words.get(1)?, words.get(2)?);
        let (start, end) = range.split_once('-')?;
        let hexadecimal = |text: &str| u64::from_str_radix(text, 16).ok();
        let (start, end, at) = (hexadecimal(start)?, hexadecimal(end)?, hexadecimal(at)?);
        let inside = permissions.contains('x') && (at..at + (end - start)).contains(&offset);
        inside.then(|| start + offset - at)
    })
}

/// How many of these sites hold something else in memory than in the file: a breakpoint, or the call that newer kernels put
/// over a long `nop`.
pub(crate) fn probed(pid: u32, sites: &[Site]) -> usize {
    let memory = fs::File::open(format!("/proc/{pid}/mem")).expect("the process runs");
    let file = fs::File::open(format!("/proc/{pid}/exe")).expect("the process runs");
    let differs = |site: &&Site| {
        let (mut now, mut built) = ([0], [0]);
        memory.read_exact_at(&mut now, site.address).expect("code can be read");
        file.read_exact_at(&mut built, site.file_offset).expect("the site is in the file");
        now != built
    };
    sites.iter().filter(differs).count()
}
