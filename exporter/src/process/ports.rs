//! Whether a process listens on a TCP port: its sockets from /proc/PID/fd, joined with its namespace's listeners.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt as _,
    time::{Duration, Instant},
};

use procfs::process::{FDTarget, Process};

/// `TCP_LISTEN` (include/net/tcp_states.h), as /proc/net/tcp has it.
const LISTEN: &str = "0A";
/// What was read of a namespace holds for so many times what reading it took: the kernel walks over every bucket of its table
/// of connections for it, some 20 ms, and many processes share a namespace.
const HOLDS: u32 = 30;
/// And for as long as this.
const HOLDS_AT_LEAST: Duration = Duration::from_millis(20);
/// Namespaces not asked for in so long are forgotten.
const FORGET: Duration = Duration::from_mins(1);

/// Looks for processes that listen on any of some ports.
#[derive(Debug)]
pub(crate) struct Ports {
    ports: Vec<u16>,
    /// By the network namespace's inode.
    namespaces: HashMap<u64, Listeners>,
}

/// Sockets of one network namespace that listen on any of the ports.
#[derive(Debug)]
struct Listeners {
    inodes: HashSet<u64>,
    read: Instant,
    holds_until: Instant,
}

impl Ports {
    /// Looks for these.
    pub(crate) fn new(ports: &[u16]) -> Self {
        Self { ports: ports.to_vec(), namespaces: HashMap::new() }
    }

    /// Whether the process listens, in its own network namespace, as of now or a moment ago. False where it cannot be seen.
    pub(crate) fn listens(&mut self, pid: u32) -> bool {
        let sockets = sockets(pid);
        // Most processes that come and go have none.
        if sockets.is_empty() {
            return false;
        }
        let Ok(namespace) = fs::metadata(format!("/proc/{pid}/ns/net")) else { return false };
        let now = Instant::now();
        if self.namespaces.get(&namespace.ino()).is_none_or(|known| known.holds_until < now) {
            let inodes = self.read(pid);
            let holds = (now.elapsed() * HOLDS).max(HOLDS_AT_LEAST);
            self.namespaces.retain(|_, known| now.duration_since(known.read) < FORGET);
            let known = Listeners { inodes, read: now, holds_until: Instant::now() + holds };
            self.namespaces.insert(namespace.ino(), known);
        }
        self.namespaces.get(&namespace.ino()).is_some_and(|known| sockets.iter().any(|it| known.inodes.contains(it)))
    }

    fn read(&self, pid: u32) -> HashSet<u64> {
        let open = |family| File::open(format!("/proc/{pid}/net/{family}"));
        let tables = ["tcp", "tcp6"].into_iter().filter_map(|family| open(family).ok());
        tables.flat_map(|table| listeners(BufReader::new(table), &self.ports)).collect()
    }
}

/// Inodes of a process's sockets.
fn sockets(pid: u32) -> Vec<u64> {
    let Some(files) = i32::try_from(pid).ok().and_then(|pid| Process::new(pid).ok()?.fd().ok()) else {
        return Vec::new();
    };
    let socket = |file: procfs::process::FDInfo| match file.target {
        FDTarget::Socket(inode) => Some(inode),
        _ => None,
    };
    files.flatten().filter_map(socket).collect()
}

/// Inodes of the sockets of a /proc/net/tcp that listen on any of the ports. The kernel lists listeners first
/// (net/ipv4/tcp_ipv4.c: tcp_get_idx), and nothing is read beyond them: a busy node has 100,000 connections.
fn listeners(table: impl BufRead, ports: &[u16]) -> Vec<u64> {
    let entries = table.lines().skip(1).map_while(Result::ok).map_while(|line| {
        let fields: Vec<&str> = line.split_whitespace().take(10).collect();
        let [_, local, _, LISTEN, .., inode] = fields[..] else { return None };
        Some((u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?, inode.parse().ok()?))
    });
    entries.filter(|(port, _)| ports.contains(port)).map(|(_, inode)| inode).collect()
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, time::Duration};

    use super::{HOLDS_AT_LEAST, Ports, listeners};

    #[test]
    fn nothing_is_read_beyond_the_listeners() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 00 100 0\n\
            \x20  1: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 \
            00000000     0        0 4712 1 00 100 0\n\
            \x20  2: 0100007F:0050 0100007F:C350 06 00000000:00000000 03:00001770 00000000     0        0 0 3 00\n\
            \x20  3: 0100007F:0051 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 00 100 0\n";
        assert_eq!(listeners(table.as_bytes(), &[8080, 443, 80, 81]), [4711, 4712]);
        assert_eq!(listeners(table.as_bytes(), &[443]), [4712]);
        assert_eq!(listeners(&b""[..], &[443]), [] as [u64; 0]);
    }

    #[test]
    fn sees_a_listener_and_its_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut ports = Ports::new(&[port]);
        assert!(ports.listens(std::process::id()));
        assert!(!Ports::new(&[1]).listens(std::process::id()));
        assert!(!ports.listens(1_999_999_999), "no such process");
        drop(listener);
        // Its socket is gone, whatever is still known of the namespace.
        assert!(!ports.listens(std::process::id()));
        // A child that another test starts has the listener too until its `execve`.
        let later = (0..1000).find_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            TcpListener::bind(("127.0.0.1", port)).ok()
        });
        let wait = ports.namespaces.values().map(|known| known.holds_until.duration_since(known.read)).max();
        std::thread::sleep(wait.unwrap().max(HOLDS_AT_LEAST));
        assert!(ports.listens(std::process::id()));
        drop(later);
    }
}
