//! Names that programs make up, with ends of lines and terminals' commands in them: none reaches the log, `/metrics` or `/targets`.

use std::fs;

use xtask::service::get;

use super::Ring;
use crate::support::{
    Agent,
    http::{exchange, request},
    must_be_root, scratch, service, settles, start,
};

/// Whether a character does something to who looks at it, but for the ends of lines between lines.
fn acts(c: char) -> bool {
    c.is_control() && c != '\n' || matches!(c, '\u{2028}' | '\u{2029}')
}

const NAME: &str =
    "evil\n2026-11-27T09:00:00.000000Z  INFO measured pid=1 executable=trusted\x1b[2J\x1b]0;owned\x07\u{9b}\u{2028}x";

#[test]
fn the_path_of_an_executable_forges_no_line_of_the_log() {
    must_be_root();
    let path = scratch("names").join(NAME);
    fs::copy(service("hello"), &path).expect("it can be called so");
    let running = start(&path, &[]);
    let agent = Agent::measuring(running.pid(), &[]);
    let log = agent.log();
    assert!(log.iter().any(|line| line.contains(r"evil\n2026") && line.contains(r"\u{1b}[2J")), "{log:#?}");
    assert!(!log.iter().any(|line| line.starts_with("2026-11-27T09:00:00") || line.contains(acts)), "{log:#?}");
    let targets = get(agent.address, "/targets").expect("it answers");
    assert!(!targets.contains(acts), "{targets}");
    let metrics = get(agent.address, "/metrics").expect("it answers");
    assert!(metrics.contains(r"evil\n2026") && !metrics.contains(acts));
    agent.stop();
}

#[test]
fn routes_do_nothing_to_who_looks_at_them() {
    let ring = Ring::start(&[]);
    let (pid, address) = (ring.hostile.pid(), ring.hostile.address("http").expect("it listens"));
    assert!(request(address, "GET", "/names/%1B%5B2J%07%C2%9B%E2%80%A8").starts_with("HTTP/1.1 200"));
    settles("the request is counted", &1, || ring.agent.scrape().total(pid));
    for accept in ["text/plain", "application/openmetrics-text"] {
        let head = format!("GET /metrics HTTP/1.0\r\nHost: test\r\nAccept: {accept}\r\n\r\n");
        let answer = exchange(ring.agent.address, &head);
        let (_, body) = answer.split_once("\r\n\r\n").expect("it is HTTP");
        // The format escapes the backslash again.
        assert!(body.contains(r#"http_route="/names/\\u{1b}[2J\\u{7}\\u{9b}\\u{2028}""#), "{accept}");
        assert!(!body.contains(acts), "{accept}");
    }
}
