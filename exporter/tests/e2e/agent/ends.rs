//! Requests that no probe sees the end of: what is in flight falls to the truth, and each is counted or told as lost. The program
//! is `xtask/go/idioms`, its file `hijack.go`.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread::{self, JoinHandle},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use xtask::service::Running;

use crate::support::{
    Agent,
    agent::Scrape,
    http::{begin, connect, request},
    must_be_root, often, scratch, service, settles, start,
};

fn at(running: &Running) -> SocketAddr {
    running.address("http").expect("it listens")
}

/// Asks for an upgrade, and holds the connection open.
fn upgrade(running: &Running, path: &str) -> TcpStream {
    let (stream, answer) =
        begin(at(running), &format!("GET {path} HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"));
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    stream
}

/// A configuration without scans but the first.
fn no_scans(name: &str) -> String {
    let config = scratch(name).join("gopulse.yaml");
    fs::write(&config, "scan_interval_seconds: 3600\n").expect("it can be written");
    config.display().to_string()
}

fn of(agent: &Agent, pid: u32, status: u16, route: &str) -> u64 {
    agent.scrape().counts(pid).remove(&("GET".to_owned(), status, route.to_owned())).unwrap_or(0)
}

/// Requests that were lost, for whatever reason.
fn told(scrape: &Scrape) -> u64 {
    scrape.samples.iter().filter(|it| it.name == "exporter_lost_total").map(|it| it.value as u64).sum()
}

fn signal(agent: &Agent, signal: Signal) {
    kill(Pid::from_raw(agent.pid().cast_signed()), signal).expect("it runs");
}

/// Middleware that runs the handler on a goroutine of its own, and a WebSocket behind it: the request ends where the connection is
/// taken over, whichever goroutine that is. Where the connection's own goroutine panics in the same moment and serves no more, as limits.md
/// says, one may be counted as the panic that it is too, or told as lost; never twice, and never not at all.
#[test]
fn connections_taken_over_on_another_goroutine() {
    must_be_root();
    let running = start(&service("idioms"), &[]);
    let (agent, pid) = (Agent::measuring(running.pid(), &[]), running.pid());
    for (path, route) in [("/here", "/here/{id}"), ("/ws", "/ws/{id}"), ("/ws-panic", "/ws-panic/{id}")] {
        let panics = path == "/ws-panic";
        let counted = || {
            let panicked = if panics { of(&agent, pid, 500, route) + told(&agent.scrape()) } else { 0 };
            of(&agent, pid, 101, route) + panicked
        };
        let open: Vec<_> = (0..10).map(|id| upgrade(&running, &format!("{path}/{id}"))).collect();
        settles(&format!("each of {route} is counted while it is open"), &10, counted);
        settles("none is in flight any more", &Some(0), || agent.scrape().active(pid));
        drop(open);
        // The goroutines' structs are used again by these.
        for id in 0..20 {
            drop(upgrade(&running, &format!("{path}/{id}")));
            request(at(&running), "GET", "/about");
        }
        settles(&format!("each of {route} is counted once"), &30, counted);
        assert!(of(&agent, pid, 101, route) >= if panics { 25 } else { 30 }, "{route}");
    }
    let lost = told(&agent.scrape());
    settles("and all others", &(90 + 60 - lost), || agent.scrape().total(pid));
    settles("none is in flight", &Some(0), || agent.scrape().active(pid));
    assert!(agent.scrape().lost().iter().all(|it| it.starts_with("end_not_seen")), "{:?}", agent.scrape().lost());
    agent.stop();
}

/// One that had been taken over before is not counted again.
#[test]
fn a_connection_taken_over_twice() {
    must_be_root();
    let running = start(&service("idioms"), &[]);
    let (agent, pid) = (Agent::measuring(running.pid(), &[]), running.pid());
    for id in 0..10 {
        drop(upgrade(&running, &format!("/twice/{id}")));
    }
    settles("what is kept of the second time is forgotten", &Some(0), || {
        let scrape = agent.scrape();
        let entries =
            scrape.samples.iter().find(|it| it.name == "exporter_map_entries" && it.label("map") == "hijacks");
        entries.map(|it| it.value as u64)
    });
    assert_eq!((of(&agent, pid, 101, "/twice/{id}"), agent.scrape().total(pid)), (10, 10));
    assert_eq!(agent.scrape().active(pid), Some(0));
    assert_eq!(agent.scrape().lost(), Vec::<String>::new());
    agent.stop();
}

/// Requests that are held at one time.
const HELD: u64 = 20;

/// Begins [`HELD`] requests and one more, and ends all but that one, which it returns.
fn hold_and_release(agent: &Agent, pid: u32, address: SocketAddr) -> JoinHandle<String> {
    let hold = |path: &'static str| thread::spawn(move || request(address, "GET", path));
    let (held, on) = ((0..HELD).map(|_| hold("/hold")).collect::<Vec<_>>(), hold("/hold-on"));
    settles("all are in flight", &Some(HELD + 1), || agent.scrape().active(pid));
    request(address, "GET", "/release");
    for it in held {
        assert!(it.join().expect("it is asked").contains(" 200 "));
    }
    on
}

/// A program loses its probes, and its requests end unseen. Once their goroutines are gone they are told, each once; one that goes
/// on stays in flight.
#[test]
fn goroutines_that_are_gone() {
    must_be_root();
    let running = start(&service("idioms"), &[]);
    let (agent, pid) = (Agent::measuring(running.pid(), &["--config", &no_scans("ends-gone")]), running.pid());
    let address = at(&running);
    let on = hold_and_release(&agent, pid, address);
    // And the one that made it so.
    settles("those that ended are told", &vec![format!("end_not_seen: {}", HELD + 1)], || agent.scrape().lost());
    assert_eq!((agent.scrape().active(pid), agent.scrape().total(pid)), (Some(1), 0));
    assert!(!on.is_finished());
    request(address, "GET", "/release-on");
    on.join().expect("it is asked");
    agent.stop();
}

/// The same, where a scan finds the probes gone: what was in flight is told then, once each, whether it had ended or ends later.
#[test]
fn requests_of_code_that_was_dropped() {
    must_be_root();
    let running = start(&service("idioms"), &[]);
    let (agent, pid) = (Agent::measuring(running.pid(), &["--config", &often("ends-code")]), running.pid());
    let address = at(&running);
    let on = hold_and_release(&agent, pid, address);
    let told = vec![format!("end_not_seen: {}", HELD + 2)];
    settles("what was in flight is told", &told, || agent.scrape().lost());
    settles("none is in flight", &Some(0), || agent.scrape().active(pid));
    request(address, "GET", "/release-on");
    on.join().expect("it is asked");
    settles("the probes are there again", &1, || agent.scrape().total(pid));
    assert_eq!(agent.scrape().lost(), told);
    agent.stop();
}

/// More connections are taken over than can be kept until the agent looks: each is counted, or told.
#[test]
fn hijacks_while_the_agent_stands_still() {
    const HIJACKS: u64 = 6000;
    must_be_root();
    let running = start(&service("idioms"), &[]);
    let (agent, pid) = (Agent::measuring(running.pid(), &[]), running.pid());
    signal(&agent, Signal::SIGSTOP);
    // All are open at one time, but for some, so that there are goroutines that are used again, and others.
    let mut open = Vec::new();
    for id in 0..HIJACKS {
        let stream = upgrade(&running, &format!("/ws/{id}"));
        if id % 8 == 0 {
            open.push(stream);
        }
    }
    signal(&agent, Signal::SIGCONT);
    drop(open);
    settles("each is counted or told, and none is in flight", &(HIJACKS, Some(0)), || {
        let scrape = agent.scrape();
        (scrape.total(pid) + told(&scrape), scrape.active(pid))
    });
    let lost = agent.scrape().lost();
    println!("    lost: {lost:?}");
    assert!(lost.iter().all(|lost| lost.starts_with("end_not_seen: ")), "{lost:?}");
    agent.stop();
}

/// More requests panic at one time than can be kept: each is counted or told, and the agent does not tell again what it finds gone.
#[test]
fn panics_while_the_agent_stands_still() {
    const PANICS: u64 = 5000;
    must_be_root();
    let running = start(&service("idioms"), &[]);
    let (agent, pid) = (Agent::measuring(running.pid(), &[]), running.pid());
    let hold = |_| {
        let mut stream = connect(at(&running));
        stream.write_all(b"GET /hold-panic HTTP/1.1\r\nHost: t\r\n\r\n").expect("the service reads");
        stream
    };
    let mut held: Vec<_> = (0..PANICS).map(hold).collect();
    settles("all are in flight", &Some(PANICS), || agent.scrape().active(pid));
    signal(&agent, Signal::SIGSTOP);
    request(at(&running), "GET", "/release-panic");
    for stream in &mut held {
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    }
    signal(&agent, Signal::SIGCONT);
    settles("each is counted or told, and none is in flight", &(PANICS + 1, Some(0)), || {
        let scrape = agent.scrape();
        (scrape.total(pid) + told(&scrape), scrape.active(pid))
    });
    let lost = agent.scrape().lost();
    println!("    lost: {lost:?}");
    assert!(lost.iter().all(|lost| lost.starts_with("panics_map_full: ")), "{lost:?}");
    agent.stop();
}
