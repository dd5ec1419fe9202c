//! Clients of the agent's own port at their worst: they take places and say nothing, begin and do not end, ask and do not read.
//! And nobody reads the agent's log.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::AsFd as _,
    process::{Child, Command, Stdio},
    thread,
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use xtask::{exposition, service::get};

use super::Ring;
use crate::support::{
    agent::binary,
    eventually,
    http::{connect, free_port, request},
    must_be_root,
};

/// Idle connections, far more than the agent has places.
pub(crate) const IDLE: usize = 600;
/// Readers that stall, more than are rendered for at one time.
pub(crate) const STALLED: usize = 16;

/// Sockets that a process has open.
fn sockets(pid: u32) -> usize {
    let open: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten().collect();
    let links = open.iter().filter_map(|it| fs::read_link(it.path()).ok());
    links.filter(|it| it.to_string_lossy().starts_with("socket:")).count()
}

pub(crate) fn allow_many_files() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit can be read");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit it can be set");
}

pub(crate) fn begin(address: SocketAddr, bytes: &str) -> TcpStream {
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

/// Who asks without pause waits for beats: others are answered meanwhile, and so is each of its requests.
#[test]
fn clients_that_ask_without_pause_are_all_answered() {
    const CLIENTS: usize = 40;
    let ring = Ring::start(&[]);
    let address = ring.agent.address;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|i| {
                scope.spawn(move || {
                    let (path, status) = [("/healthz", "200"), ("/nothing", "404"), ("no path", "400")][i % 3];
                    for _ in 0..50 {
                        let answer = request(address, "GET", path);
                        assert_eq!(answer.split(' ').nth(1), Some(status), "{path}: {answer}");
                    }
                    // Several on one connection, sent at once.
                    let head = "GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n";
                    let last = "GET /healthz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
                    let answer = garbage(address, &format!("{}{last}", head.repeat(20)));
                    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 21);
                })
            })
            .collect();
        while clients.iter().any(|it| !it.is_finished()) {
            ring.is_unharmed();
        }
    });
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

/// Starts the agent with a standard error that nobody reads, of one page.
fn start_unread(address: SocketAddr) -> Child {
    must_be_root();
    let child = Command::new(binary())
        .args(["run", "--executable", "nothing-is-called-so", "--log-level", "debug"])
        .args(["--metrics-address", &address.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the agent starts");
    let stderr = child.stderr.as_ref().expect("it is piped");
    fcntl(stderr.as_fd(), FcntlArg::F_SETPIPE_SZ(4096)).expect("a pipe can be small");
    eventually("the agent gets ready", || get(address, "/readyz").ok());
    child
}

/// What the agent says of lines that it could not log.
fn dropped(address: SocketAddr) -> u64 {
    let samples = exposition::parse(&get(address, "/metrics").expect("/metrics answers"));
    let found = samples.iter().find(|it| it.name == "exporter_log_lines_dropped_total").expect("it is told");
    found.value as u64
}

fn log_more_than_is_kept(address: SocketAddr) {
    // So many that they are not held up: each answer is a line of the log.
    const CLIENTS: usize = 220;
    eventually("more is logged than is kept", || {
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    for _ in 0..12 {
                        assert!(request(address, "GET", "no path").starts_with("HTTP/1.1 400"));
                    }
                });
            }
        });
        (dropped(address) > 0).then_some(())
    });
}

#[test]
fn nobody_reads_the_log() {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut agent = start_unread(address);
    log_more_than_is_kept(address);
    get(address, "/healthz").expect("/healthz answers");
    // Somebody reads at last, and learns what is missing.
    let mut lines = BufReader::new(agent.stderr.take().expect("it is piped")).lines();
    let told = lines.by_ref().map_while(Result::ok).find(|line| line.contains("lines of the log were dropped"));
    println!("    {}", told.expect("it is told"));
    kill(Pid::from_raw(agent.id() as i32), Signal::SIGTERM).expect("it runs");
    let rest: Vec<_> = lines.map_while(Result::ok).collect();
    assert!(rest.iter().any(|line| line.contains("detaching")), "what was logged at the end is written: {rest:?}");
    assert!(agent.wait().expect("it is a child").success());
}

#[test]
fn a_log_that_nobody_reads_does_not_keep_the_agent_from_ending() {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut agent = start_unread(address);
    log_more_than_is_kept(address);
    kill(Pid::from_raw(agent.id() as i32), Signal::SIGTERM).expect("it runs");
    let ended = eventually("it ends", || agent.try_wait().expect("it is a child"));
    assert!(ended.success());
}

#[test]
fn head_starts_no_profile() {
    let ring = Ring::start(&[]);
    let profile = |method: &str| {
        let path = format!("/debug/blocked?pid={}&seconds=1", ring.neighbour.pid());
        request(ring.agent.address, method, &path).split(' ').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(profile("HEAD"), "405");
    // More than a minute has, one after another: all are answered, and those past the limit are told to wait.
    let answers: Vec<String> = (0..12).map(|_| profile("GET")).collect();
    assert_eq!(
        answers.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        BTreeSet::from(["200", "429"]),
        "{answers:?}"
    );
    ring.is_unharmed();
}

#[test]
fn garbage_harms_nobody() {
    let ring = Ring::start(&[]);
    let long = "x".repeat(1 << 20);
    let answers: [(&str, String, &[&str]); 12] = [
        ("no HTTP at all", "\0\x01\x02garbage\r\n\r\n".to_owned(), &["400", ""]),
        ("another version", "GET /healthz HTTP/9.9\r\n\r\n".to_owned(), &["400", "505", ""]),
        ("a handshake in the clear", "\x16\x03\x01\x02\0\x01\0\x01\x7c\r\n\r\n".to_owned(), &["400", ""]),
        ("a method that nobody has", "BREW /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), &["405", "400"]),
        ("a path upwards", "GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), &["404", "400"]),
        ("a length that is none", "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1e9\r\n\r\n".to_owned(), &["400"]),
        (
            "two lengths",
            "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
            &["200", "400"],
        ),
        ("a head that is too long", format!("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: {long}\r\n\r\n"), &["431", "400", ""]),
        ("a path that is too long", format!("GET /{long} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), &["414", "431", "400", "404", ""]),
        ("seconds that overflow", "GET /debug/blocked?pid=1&seconds=18446744073709551616 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), &["400"]),
        ("a query without end", format!("GET /metrics?{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", &long[..4096]), &["200", "400"]),
        (
            "what nobody can write",
            "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept: application/openmetrics-text;q=NaN, text/plain;q=inf\r\n\r\n".to_owned(),
            &["200", "406"],
        ),
    ];
    for (what, head, wanted) in answers {
        let answer = garbage(ring.agent.address, &head);
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(wanted.contains(&status), "{what}: {:?}", &answer[..answer.len().min(200)]);
    }
    ring.is_unharmed();
}

/// The answer to bytes that may be no request; nothing where the connection is closed instead.
pub(crate) fn garbage(address: SocketAddr, bytes: &str) -> String {
    let mut stream = connect(address);
    // It may be closed by now.
    let _ = stream.write_all(bytes.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}
