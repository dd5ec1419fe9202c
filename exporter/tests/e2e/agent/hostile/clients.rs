//! Clients of the agent's own port at their worst: they take places and say nothing, begin and do not end, ask and do not read.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use xtask::service::get;

use super::Ring;
use crate::support::{eventually, http::connect};

/// Idle connections, far more than the agent has places.
const IDLE: usize = 600;
/// Readers that stall, more than are rendered for at one time.
const STALLED: usize = 16;

/// Sockets that a process has open.
fn sockets(pid: u32) -> usize {
    let open: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten().collect();
    let links = open.iter().filter_map(|it| fs::read_link(it.path()).ok());
    links.filter(|it| it.to_string_lossy().starts_with("socket:")).count()
}

fn allow_many_files() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit can be read");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit it can be set");
}

fn begin(address: SocketAddr, bytes: &str) -> TcpStream {
    let mut stream = connect(address);
    // It may have been closed by now.
    let _ = stream.write_all(bytes.as_bytes());
    stream
}

#[test]
fn idle_connections_and_half_heads_lock_nobody_out() {
    allow_many_files();
    let ring = Ring::start(&[]);
    let (address, before) = (ring.agent.address, sockets(ring.agent.pid()));
    let mut idle = Vec::new();
    for round in 0..3 {
        idle.extend((0..IDLE).map(|i| begin(address, ["", "GET /me", "\x16\x03\x01"][(round + i) % 3])));
        ring.is_unharmed();
    }
    // Byte by byte is no reason to wait for longer either.
    let mut slow = begin(address, "GET /healthz HTTP/1.1\r\nHost: test\r\nX: ");
    eventually("half a head is given up", || slow.write_all(b"x").is_err().then_some(()));
    eventually("all of them are given up", || (sockets(ring.agent.pid()) <= before + 1).then_some(()));
    ring.is_unharmed();
}

#[test]
fn readers_that_stall_hold_up_no_scrape() {
    let ring = Ring::start(&[]);
    assert_eq!(ring.ask("/widen?statuses=60").trim(), "1200");
    let (address, before) = (ring.agent.address, sockets(ring.agent.pid()));
    let length = get(address, "/metrics").expect("it answers").len();
    println!("    /metrics is {:.1} MB long", length as f64 / 1e6);
    // Else all of it fits between the two ends.
    assert!(length > 4 << 20);
    let stalled: Vec<_> = (0..STALLED).map(|_| begin(address, "GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n")).collect();
    ring.is_unharmed();
    eventually("they are given up", || (sockets(ring.agent.pid()) <= before + 1).then_some(()));
    ring.is_unharmed();
    for mut stream in stalled {
        let mut read = Vec::new();
        let _ = stream.read_to_end(&mut read);
        assert!(read.len() < length && !read.ends_with(b"0\r\n\r\n"), "it does not end as if it were whole");
    }
}
