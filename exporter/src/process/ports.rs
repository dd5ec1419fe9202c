//! Whether a process listens on a TCP port: its sockets from /proc/PID/fd, joined with its namespace's listeners.

use std::collections::HashSet;

use procfs::{net::TcpState, process::FDTarget};

/// Whether the process listens on any of the ports, in its own network namespace. False where it cannot be seen.
pub(crate) fn listens_on(pid: u32, ports: &[u16]) -> bool {
    let Some(process) = i32::try_from(pid).ok().and_then(|pid| procfs::process::Process::new(pid).ok()) else {
        return false;
    };
    let listeners: HashSet<u64> = [process.tcp(), process.tcp6()]
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.state == TcpState::Listen && ports.contains(&entry.local_address.port()))
        .map(|entry| entry.inode)
        .collect();
    if listeners.is_empty() {
        return false;
    }
    let Ok(files) = process.fd() else { return false };
    files.flatten().any(|file| matches!(file.target, FDTarget::Socket(inode) if listeners.contains(&inode)))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::listens_on;

    #[test]
    fn sees_a_listener_and_its_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(listens_on(std::process::id(), &[port]));
        drop(listener);
        assert!(!listens_on(std::process::id(), &[port]));
    }
}
