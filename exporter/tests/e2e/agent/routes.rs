//! Routes and methods in the usual idioms: what a client asked for, whatever the program makes of it on the way to its handler.

use std::collections::BTreeMap;

use xtask::{go::Variant, service::Running};

use crate::support::{Agent, load, must_be_root, service, service_of, settles, start};

/// Requests by method and route, whatever their status.
type Shown = BTreeMap<(String, String), u64>;

fn shown(agent: &Agent, pid: u32) -> Shown {
    let mut shown = Shown::new();
    for ((method, _, route), count) in agent.scrape().counts(pid) {
        *shown.entry((method, route)).or_default() += count;
    }
    shown
}

fn wanted(of: &[(&str, &str, u64)]) -> Shown {
    of.iter().map(|(method, route, count)| (((*method).to_owned(), (*route).to_owned()), *count)).collect()
}

fn address(running: &Running) -> String {
    running.address("http").expect("it listens").to_string()
}

/// Handlers put another method, path and target in place of what was on the wire.
#[test]
fn requests_that_handlers_rewrite() {
    must_be_root();
    for binary in [service("idioms"), service_of("idioms", "1.22", Variant::Strip)] {
        let running = start(&binary, &["-as", "rewriting"]);
        let agent = Agent::measuring(running.pid(), &[]);
        let mix = [
            "POST /things/7 200 - 1",
            "PATCH /things/7 200 - 1",
            "GET /svc/a/list 200 - 1",
            "GET /svc/a/list?page={n} 200 - 1",
            "GET /uri/x?page={n} 200 - 1",
            "GET /caf%C3%A9/x?page=/{n} 200 - 1",
            // It has neither a neighbour left to tell the target by: the path is what the handler left.
            "GET /sent-on/x 200 - 1",
        ];
        load(&["-address", &address(&running), "-n", "70"], &mix);
        let wanted = wanted(&[
            ("POST", "/things/{id}", 10),
            ("PATCH", "/things/{id}", 10),
            ("GET", "/svc/a/list", 20),
            ("GET", "/uri/x", 10),
            ("GET", "/café/x", 10),
            ("PUT", "/sent-on/x", 10),
        ]);
        settles("requests as they were on the wire", &wanted, || shown(&agent, running.pid()));
        assert_eq!(agent.scrape().lost(), Vec::<String>::new());
        agent.stop();
    }
}

/// HTTP/2 has no first line. Go 1.27's server keeps the method beside the request.
#[test]
fn requests_that_handlers_rewrite_over_http_2() {
    must_be_root();
    for (binary, method) in [
        (service_of("idioms", "1.26", Variant::Strip), "DELETE"),
        (service_of("idioms", "1.27", Variant::Strip), "POST"),
    ] {
        let running = start(&binary, &["-as", "rewriting"]);
        let agent = Agent::measuring(running.pid(), &[]);
        let mix = ["POST /things/7 200 - 1", "GET /svc/a/list?page={n} 200 - 1"];
        load(&["-mode", "h2c", "-address", &address(&running), "-n", "40"], &mix);
        let wanted = wanted(&[(method, "/things/{id}", 20), ("GET", "/svc/a/list", 20)]);
        settles("requests as they were on the wire", &wanted, || shown(&agent, running.pid()));
        agent.stop();
    }
}
