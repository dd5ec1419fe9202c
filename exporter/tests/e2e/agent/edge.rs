//! The requests that are hard to count right, against the service's own exact account of them.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
};

use crate::support::{
    Agent,
    agent::{Counts, method},
    eventually,
    http::{begin, connect, exchange, request},
    load, must_be_root, service_of, settles, start,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use xtask::{
    go::Variant,
    service::{Running, get},
};

/// The oldest, the first with patterns in requests, and the newest.
const VERSIONS: [&str; 3] = ["1.17", "1.22", "1.27"];

struct Case {
    running: Running,
    agent: Agent,
    minor: u32,
}

impl Case {
    fn start(go: &str, arguments: &[&str]) -> Self {
        must_be_root();
        let running = start(&service_of("edge", go, Variant::Default), arguments);
        let agent = Agent::measuring(running.pid(), &[]);
        Self { running, agent, minor: go[2..].parse().expect("a minor version") }
    }

    fn http(&self) -> SocketAddr {
        self.running.address("http").expect("it listens")
    }

    /// Waits until the agent's account is the service's own, and returns it.
    fn agree(&self, what: &str) -> Counts {
        // Handlers of clients that left come to their end a little later.
        eventually("no request is under way", || {
            let active = get(self.running.address("admin").ok()?, "/_active").ok()?;
            (active.trim() == "0").then_some(())
        });
        let wanted = self.own();
        settles(what, &wanted, || self.agent.scrape().counts(self.running.pid()));
        let scrape = self.agent.scrape();
        assert_eq!(scrape.lost(), Vec::<String>::new(), "{what}");
        settles(what, &Some(0), || self.agent.scrape().active(self.running.pid()));
        wanted
    }

    /// The service's own account, as the agent should have it: a connection taken over is 101 (200 for CONNECT); a request
    /// that panicked or left by `Goexit` before anything was written is 500.
    fn own(&self) -> Counts {
        let mut counts = Counts::new();
        for it in self.running.counts().expect("the service counts") {
            let status = match (it.outcome.as_str(), it.status) {
                ("hijacked", _) if it.method == "CONNECT" => 200,
                ("hijacked", _) => 101,
                ("returned", status) => status,
                (_, 0) => 500,
                (_, status) => status,
            };
            *counts.entry((method(&it.method), status, it.route)).or_default() += it.count;
        }
        counts
    }

    fn stop(self) {
        self.agent.stop();
    }
}

fn count(counts: &Counts, method: &str, status: u16, route: &str) -> u64 {
    counts.get(&(method.to_owned(), status, route.to_owned())).copied().unwrap_or(0)
}

fn each_version(test: impl Fn(&Case)) {
    for go in VERSIONS {
        let case = Case::start(go, &[]);
        test(&case);
        case.stop();
        println!("Go {go}: equal");
    }
}

#[test]
fn handlers_that_never_write_and_head() {
    each_version(|case| {
        let at = case.http();
        assert!(request(at, "GET", "/silent").starts_with("HTTP/1.1 200"));
        assert!(request(at, "HEAD", "/ok").starts_with("HTTP/1.1 200"));
        assert!(request(at, "HEAD", "/silent").starts_with("HTTP/1.1 200"));
        assert!(request(at, "GET", "/double-header").starts_with("HTTP/1.1 418"));
        assert!(request(at, "PURGE", "/ok").starts_with("HTTP/1.1 200"));
        assert!(request(at, "GET", "/nowhere").starts_with("HTTP/1.1 404"));
        let counts = case.agree("plain answers");
        for (method, status, route) in [
            ("GET", 200, "/silent"),
            ("HEAD", 200, "/ok"),
            ("HEAD", 200, "/silent"),
            ("GET", 418, "/double-header"),
            ("_OTHER", 200, "/ok"),
            ("GET", 404, ""),
        ] {
            assert_eq!(count(&counts, method, status, route), 1, "{method} {status} {route}");
        }
    });
}

#[test]
fn panics_aborts_and_goexit() {
    each_version(|case| {
        let at = case.http();
        for _ in 0..5 {
            assert_eq!(request(at, "GET", "/panic-before"), "");
            assert!(request(at, "GET", "/panic-after").starts_with("HTTP/1.1 202"));
            assert_eq!(request(at, "POST", "/abort"), "");
            assert_eq!(request(at, "GET", "/goexit"), "");
            assert!(request(at, "GET", "/ok").starts_with("HTTP/1.1 200"));
        }
        let counts = case.agree("panics");
        for (method, status, route) in [
            ("GET", 500, "/panic-before"),
            ("GET", 202, "/panic-after"),
            ("POST", 500, "/abort"),
            ("GET", 500, "/goexit"),
        ] {
            assert_eq!(count(&counts, method, status, route), 5, "{method} {status} {route}");
        }
    });
}

const PANICS: [&str; 5] = [
    "GET /panic-before 0 /panic-before 2",
    "GET /abort 0 /abort 1",
    "GET /goexit 0 /goexit 1",
    "GET /ok 200 /ok 3",
    "GET /silent 200 /silent 1",
];

#[test]
fn panics_over_http2() {
    each_version(|case| {
        let https = case.running.address("https").expect("it listens").to_string();
        let mut mix = PANICS.to_vec();
        mix.push("GET /panic-after 0 /panic-after 1");
        load(&["-mode", "h2", "-address", &https, "-n", "900", "-c", "4", "-s", "4"], &mix);
        let counts = case.agree("panics over HTTP/2");
        assert_eq!(count(&counts, "GET", 500, "/panic-before"), 200);
        assert_eq!(count(&counts, "GET", 202, "/panic-after"), 100);
        assert_eq!(count(&counts, "GET", 500, "/goexit"), 100);
    });
}

/// Goroutines and requests come and go at the same addresses, as fast as the collector can take them.
#[test]
fn panics_at_full_speed_under_a_busy_collector() {
    for go in VERSIONS {
        let case = Case::start(go, &["-gogc", "1"]);
        let at = case.http().to_string();
        load(&["-address", &at, "-n", "20000"], &PANICS);
        case.agree("panics at full speed");
        let ours: f64 = case.agent.scrape().seconds(case.running.pid()).values().sum();
        let theirs: f64 = case.running.counts().expect("the service counts").iter().map(|it| it.seconds).sum();
        println!("Go {go}: 20000 equal; durations {ours:.2} s, the service's own {theirs:.2} s");
        case.stop();
    }
}

#[test]
fn hijacked_connections_and_websockets() {
    each_version(|case| {
        let at = case.http();
        assert!(request(at, "GET", "/hijack?sleep=400").contains("hijacked"));
        assert!(request(at, "CONNECT", "/hijack").contains("hijacked"));
        let handshake = "GET /ws HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let (mut socket, answer) = begin(at, handshake);
        assert!(answer.starts_with("HTTP/1.1 101") && answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
        // It is counted while the socket still lives, and the socket is no request under way.
        let counts = case.agree("connections taken over");
        assert_eq!(count(&counts, "GET", 101, "/ws"), 1);
        assert_eq!(count(&counts, "GET", 101, "/hijack"), 1);
        assert_eq!(count(&counts, "CONNECT", 200, "/hijack"), 1);
        socket.write_all(b"ping").expect("the socket is open");
        let mut echo = [0; 4];
        socket.read_exact(&mut echo).expect("the socket answers");
        assert_eq!(&echo, b"ping");
        drop(socket);
        assert_eq!(case.agree("after the socket's end"), counts);
        let key = ("GET".to_owned(), 101, "/hijack".to_owned());
        let until_hijack = case.agent.scrape().seconds(case.running.pid())[&key];
        let own = case.running.counts().expect("the service counts");
        let whole = own.iter().find(|it| it.route == "/hijack" && it.method == "GET").expect("it was asked").seconds;
        assert!(until_hijack < whole / 2.0, "{until_hijack} s until the hijack, {whole} s for the handler");
    });
}

#[test]
fn informational_answers() {
    each_version(|case| {
        if case.minor < 19 {
            println!("Go 1.{}: WriteHeader takes 103 for the final status there; left out", case.minor);
            return;
        }
        let answer = request(case.http(), "GET", "/early");
        assert!(answer.starts_with("HTTP/1.1 103") && answer.contains("HTTP/1.1 200"), "{answer}");
        let https = case.running.address("https").expect("it listens").to_string();
        load(&["-mode", "h2", "-address", &https, "-n", "20", "-c", "1"], &["GET /early 200 /early 1"]);
        assert_eq!(count(&case.agree("early hints"), "GET", 200, "/early"), 21);
    });
}

#[test]
fn streams_and_clients_that_leave() {
    each_version(|case| {
        let at = case.http();
        assert!(request(at, "GET", "/sse?events=5&interval=1").contains("data: 4"));
        for path in ["/sse", "/big?bytes=100000000", "/wait"] {
            let head = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
            if path == "/wait" {
                let mut stream = connect(at);
                stream.write_all(head.as_bytes()).expect("the service reads");
                eventually("the request is under way", || {
                    (case.agent.scrape().active(case.running.pid()) == Some(1)).then_some(())
                });
            } else {
                let (_stream, answer) = begin(at, &head);
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            }
        }
        let counts = case.agree("clients that leave");
        assert_eq!(count(&counts, "GET", 200, "/sse"), 2);
        assert_eq!(count(&counts, "GET", 200, "/big"), 1);
        assert_eq!(count(&counts, "GET", 200, "/wait"), 1);
    });
}

#[test]
fn timeouts_proxies_and_deep_stacks() {
    each_version(|case| {
        let at = case.http();
        assert!(request(at, "GET", "/timeout?sleep=500").starts_with("HTTP/1.1 503"));
        assert!(request(at, "GET", "/timeout?sleep=1").starts_with("HTTP/1.1 200"));
        assert!(request(at, "GET", "/proxy").contains("ok"));
        let deep = format!("GET /deep?depth=50000 200 /deep 1 body={}", crate::support::checksum(50_000));
        load(&["-address", &at.to_string(), "-n", "100", "-c", "8"], &[&deep]);
        let counts = case.agree("timeouts, proxies, deep stacks");
        assert_eq!(count(&counts, "GET", 503, "/timeout"), 1);
        assert_eq!(count(&counts, "GET", 200, "/timeout"), 1);
        assert_eq!(count(&counts, "GET", 200, "/proxy"), 1);
        assert_eq!(count(&counts, "GET", 200, "/ok"), 1, "the proxied request is one of its own");
        assert_eq!(count(&counts, "GET", 200, "/deep"), 100);
    });
}

#[test]
fn pipelining() {
    each_version(|case| {
        let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: test\r\n{more}\r\n");
        let five = [get("/ok", ""), get("/silent", ""), get("/deep", ""), get("/double-header", "")].concat();
        let answer = exchange(case.http(), &(five + &get("/ok", "Connection: close\r\n")));
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 5, "{answer}");
        // The panic closes the connection: what was sent behind it is never served.
        let answer = exchange(case.http(), &[get("/ok", ""), get("/panic-before", ""), get("/ok", "")].concat());
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        let counts = case.agree("pipelining");
        assert_eq!(count(&counts, "GET", 200, "/ok"), 3);
        assert_eq!(count(&counts, "GET", 500, "/panic-before"), 1);
    });
}

#[test]
fn thousands_of_concurrent_requests() {
    const MANY: usize = 3000;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit can be read");
    assert!(hard > 2 * MANY as u64, "at most {hard} open files are allowed, and {} are needed", 2 * MANY);
    // The service inherits it.
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit it can be set");
    each_version(|case| {
        let pid = case.running.pid();
        let clients: Vec<_> = (0..MANY)
            .map(|_| {
                let mut stream = connect(case.http());
                stream.write_all(b"GET /wait HTTP/1.1\r\nHost: test\r\n\r\n").expect("the service reads");
                stream
            })
            .collect();
        settles("all are under way", &Some(MANY as u64), || case.agent.scrape().active(pid));
        assert_eq!(case.agent.scrape().total(pid), 0);
        drop(clients);
        let counts = case.agree("thousands at one time");
        assert_eq!(count(&counts, "GET", 200, "/wait"), MANY as u64);
    });
}
