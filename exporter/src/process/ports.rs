//! Whether a process listens on a TCP port: its sockets from /proc/PID/fd, joined with its namespace's listeners.

use std::{
    collections::HashSet,
    fs::File,
    io::{BufRead, BufReader},
};

use procfs::process::{FDTarget, Process};

/// `TCP_LISTEN` (include/net/tcp_states.h), as /proc/net/tcp has it.
const LISTEN: &str = "0A";

/// Whether the process listens on any of the ports, in its own network namespace. False where it cannot be seen.
pub(crate) fn listens_on(pid: u32, ports: &[u16]) -> bool {
    let open = |family| File::open(format!("/proc/{pid}/net/{family}"));
    let tables = ["tcp", "tcp6"].into_iter().filter_map(|family| open(family).ok());
    let sockets: HashSet<u64> = tables.flat_map(|table| listeners(BufReader::new(table), ports)).collect();
    if sockets.is_empty() {
        return false;
    }
    let Some(files) = i32::try_from(pid).ok().and_then(|pid| Process::new(pid).ok()?.fd().ok()) else { return false };
    files.flatten().any(|file| matches!(file.target, FDTarget::Socket(inode) if sockets.contains(&inode)))
}

/// Inodes of the sockets of a /proc/net/tcp that listen on any of the ports. The kernel lists listeners first
/// (net/ipv4/tcp_ipv4.c: tcp_get_idx), and nothing is read beyond them: a busy node has 100,000 connections, of which a library
/// that parses the whole file would take a second of each look.
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
    use std::net::TcpListener;

    use super::{listeners, listens_on};

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
        assert!(listens_on(std::process::id(), &[port]));
        drop(listener);
        assert!(!listens_on(std::process::id(), &[port]));
    }
}
