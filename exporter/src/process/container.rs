//! Which container a process is in, from /proc/PID/cgroup: every shape in which kubelets, container runtimes and cgroup drivers
//! write a container's id. Knows nothing of pods: a path may name several ids (a node that is a container itself, a container
//! run by a container), and which of them is a pod's is for others to say.

use std::{fmt, fs, io::Read as _};

/// A container's id: 64 hexadecimal digits, as containerd, CRI-O, Docker and Podman make them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ContainerId([u8; 32]);

impl ContainerId {
    /// From the digits alone.
    pub(crate) fn parse(digits: &str) -> Option<Self> {
        let digits = digits.as_bytes();
        let mut id = [0; 32];
        if digits.len() != 64 {
            return None;
        }
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(Self(id))
    }

    /// From a pod's status: `containerd://4a7…`, `cri-o://…`, `docker://…` (`containerID` of Kubernetes' `ContainerStatus`).
    pub(crate) fn of_status(id: &str) -> Option<Self> {
        Self::parse(id.rsplit_once("://").map_or(id, |(_, digits)| digits))
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Upper case is refused: no runtime writes it.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Bytes read of a cgroup file: 14 hierarchies of deeply nested containers are a third of it.
const MOST: u64 = 16 * 1024;
/// Ids kept of one process.
const MOST_IDS: usize = 8;

/// The containers a process is in, the innermost first; none where it is in none, or cannot be seen.
pub(crate) fn containers_of(pid: u32) -> Vec<ContainerId> {
    let mut text = Vec::new();
    match fs::File::open(format!("/proc/{pid}/cgroup")).and_then(|file| file.take(MOST).read_to_end(&mut text)) {
        Ok(_) => in_cgroup_file(&String::from_utf8_lossy(&text)),
        Err(_) => Vec::new(),
    }
}

/// The container ids that a cgroup file names, each once: of each line the last first. A line is `ID:CONTROLLERS:PATH`
/// (cgroups(7)); the path may itself hold colons.
fn in_cgroup_file(text: &str) -> Vec<ContainerId> {
    let mut found = Vec::new();
    for path in text.lines().filter_map(|line| line.splitn(3, ':').nth(2)) {
        for id in path.rsplit(['/', ':']).filter_map(id_of_segment) {
            if found.len() < MOST_IDS && !found.contains(&id) {
                found.push(id);
            }
        }
    }
    found
}

/// The id in one part of a path: alone (cgroupfs driver), or as `RUNTIME-ID.scope` (systemd driver) or `RUNTIME-ID` (CRI-O with
/// the cgroupfs driver). A monitor process of a container (conmon) is not in it.
fn id_of_segment(segment: &str) -> Option<ContainerId> {
    let name = segment.strip_suffix(".scope").unwrap_or(segment);
    match name.rsplit_once('-') {
        Some((runtime, _)) if runtime.ends_with("conmon") => None,
        Some((_, digits)) => ContainerId::parse(digits),
        None => ContainerId::parse(name),
    }
}

#[cfg(test)]
mod tests;
