//! Routes and methods in the usual idioms: what a client asked for, whatever the program makes of it on the way to its handler.

use std::collections::BTreeMap;

use xtask::{
    go::Variant,
    service::{Running, get},
};

use crate::support::{
    Agent, agent::counted_by_load, eventually, load, must_be_root, service, service_of, settles, start,
};

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

/// Waits until the mux is probed, which is so after a scrape with a folded route.
fn probed_mux(agent: &Agent) {
    eventually("the mux is probed", || {
        agent.scrape();
        agent.log().iter().any(|line| line.contains("requests are copied")).then_some(())
    });
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

/// A pattern that takes a whole tree hides the router behind it, as in gorilla/mux's README and grpc-gateway's.
const SUBTREES: [&str; 9] = [
    "GET / 200 / 1",
    "GET /products 200 /products 1",
    "GET /products?page={n} 200 /products 1",
    "GET /articles/{n}/comments 200 /articles/{id}/comments 1",
    "GET /nothing/u{n} 404 / 1",
    "GET /plain/alice 200 /plain/{name} 1",
    "GET /api/v1/users/{n} 200 /api/v1/users/{id} 1",
    "GET /api/v1/orders/{n} 200 /api/v1/orders/{id} 1",
    "GET /buckets/photos/raw/{n} 200 /buckets/{bucket}/raw/{id} 1",
];

#[test]
fn routers_behind_a_pattern() {
    must_be_root();
    for (binary, program) in [
        (service("idioms"), "subtrees"),
        (service_of("idioms", "1.22", Variant::Strip), "subtrees"),
        (service("idioms"), "copied-subtrees"),
    ] {
        let running = start(&binary, &["-as", program]);
        let agent = Agent::measuring(running.pid(), &[]);
        let address = address(&running);
        if program == "copied-subtrees" {
            load(&["-address", &address, "-n", "10"], &["GET /products 200 /products 1"]);
            probed_mux(&agent);
        }
        let before = shown(&agent, running.pid());
        let report = load(&["-address", &address, "-n", "180"], &SUBTREES);
        let mut wanted = before;
        for ((method, _, route), count) in counted_by_load(&report) {
            *wanted.entry((method, route)).or_default() += count;
        }
        settles("requests of each route", &wanted, || shown(&agent, running.pid()));
        assert_eq!(agent.scrape().lost(), Vec::<String>::new());
        agent.stop();
    }
}

/// A tree of files has a part of the routes, and leaves the rest to others.
#[test]
fn a_tree_of_files_does_not_take_all_routes() {
    must_be_root();
    let running = start(&service("idioms"), &["-as", "subtrees"]);
    let agent = Agent::measuring(running.pid(), &[]);
    let address = address(&running);
    // Names that do not fold.
    let files: Vec<_> = ('a'..='z').flat_map(|a| ('a'..='h').map(move |b| format!("/static/{a}{b}.css"))).collect();
    for file in &files {
        get(running.address("http").expect("it listens"), file).expect("it answers");
    }
    load(&["-address", &address, "-n", "90"], &SUBTREES);
    settles("all are counted", &(files.len() as u64 + 90), || agent.scrape().total(running.pid()));
    let shown = shown(&agent, running.pid());
    let of = |route: &str| shown.get(&("GET".to_owned(), route.to_owned())).copied().unwrap_or(0);
    let below: Vec<_> =
        shown.keys().filter(|(_, route)| route.starts_with("/static/") && route != "/static/").collect();
    assert_eq!(below.len(), 25, "{below:?}");
    assert_eq!(of("/static/"), files.len() as u64 - 25);
    assert_eq!((of("/products"), of("/articles/{id}/comments"), of("/")), (20, 10, 20));
    assert_eq!(agent.scrape().lost(), Vec::<String>::new());
    agent.stop();
}

/// A handler that gives a mux requests of its own making stays under its own route.
#[test]
fn requests_that_a_handler_makes_up() {
    must_be_root();
    for binary in [service("idioms"), service_of("idioms", "1.22", Variant::Strip)] {
        let running = start(&binary, &["-as", "batches"]);
        let agent = Agent::measuring(running.pid(), &[]);
        let address = address(&running);
        load(&["-address", &address, "-n", "10"], &["GET /batch 200 /batch 1"]);
        probed_mux(&agent);
        let mix = ["GET /batch 200 - 1", "GET /ok/alice 200 - 1", "GET /cloned/alice 200 - 1"];
        load(&["-address", &address, "-n", "60"], &mix);
        let wanted = wanted(&[("GET", "/batch", 30), ("GET", "/ok/{id}", 20), ("GET", "/cloned/{id}", 20)]);
        settles("requests of each route", &wanted, || shown(&agent, running.pid()));
        agent.stop();
    }
}

/// Muxes on other goroutines than the connection's: behind http.TimeoutHandler, and behind middleware of the same kind.
#[test]
fn muxes_on_other_goroutines() {
    must_be_root();
    let of = |version| service_of("idioms", version, Variant::Strip);
    for (binary, program, mode) in [
        (of("1.22"), "timeouts", "h1"),
        (of("1.26"), "timeouts", "h1"),
        (of("1.26"), "timeouts", "h2c"),
        (of("1.27"), "timeouts", "h1"),
        (of("1.27"), "timeouts", "h2c"),
        (of("1.26"), "nested-timeouts", "h1"),
        (of("1.27"), "nested-timeouts", "h2c"),
        (of("1.26"), "goroutines", "h1"),
    ] {
        let running = start(&binary, &["-as", program]);
        let agent = Agent::measuring(running.pid(), &[]);
        let address = address(&running);
        load(&["-address", &address, "-mode", mode, "-n", "10"], &["GET /hello/7 200 /hello/{id} 1"]);
        probed_mux(&agent);
        let mut mix = vec!["GET /hello/alice 200 - 3", "POST /hello/bob 200 - 3", "GET /panics/carol 500 - 1"];
        let mut wanted = wanted(&[("GET", "/hello/{id}", 10), ("GET", "/hello/{name}", 300)]);
        wanted.insert(("POST".to_owned(), "/hello/{name}".to_owned()), 300);
        wanted.insert(("GET".to_owned(), "/panics/{name}".to_owned()), 100);
        if program != "goroutines" {
            mix.push("GET /slow/dave 503 - 1");
            wanted.insert(("GET".to_owned(), "/slow/{name}".to_owned()), 100);
        }
        let requests = (wanted.values().sum::<u64>() - 10).to_string();
        load(&["-address", &address, "-mode", mode, "-n", &requests, "-c", "16"], &mix);
        settles(&format!("{program} {mode} {}", binary.display()), &wanted, || shown(&agent, running.pid()));
        assert_eq!(agent.scrape().lost(), Vec::<String>::new());
        agent.stop();
    }
}

/// A mux behind another, which is given the path without its beginning.
#[test]
fn muxes_behind_prefixes() {
    must_be_root();
    let of = |version| service_of("idioms", version, Variant::Strip);
    for (binary, program, mode) in [
        (of("1.22"), "prefixes", "h1"),
        (of("1.26"), "prefixes", "h1"),
        (of("1.27"), "prefixes", "h2c"),
        (of("1.26"), "copied-prefixes", "h2c"),
        (of("1.27"), "copied-prefixes", "h1"),
        (of("1.26"), "timeouts-prefixes", "h1"),
    ] {
        let running = start(&binary, &["-as", program]);
        let agent = Agent::measuring(running.pid(), &[]);
        let address = address(&running);
        load(&["-address", &address, "-mode", mode, "-n", "10"], &["GET /api/v1/users/7 200 - 1"]);
        probed_mux(&agent);
        let before = shown(&agent, running.pid());
        let mix = [
            "GET /api/v1/users/alice 200 /api/v1/users/{name} 1",
            "POST /api/v1/orders/bob 200 /api/v1/orders/{name} 1",
            "GET /api/v1/gone/carol 404 /api/v1/gone/{name} 1",
            "GET /api/v1/files/dave/x 200 /api/v1/files/{name}/ 1",
            "GET /api/v1/nothing 404 /api/v1/ 1",
            "GET /api/v2/users/alice 200 /api/v2/users/{name} 1",
            "GET /three/deep/users/alice 200 /three/deep/users/{name} 1",
            "GET /t/one/users/alice 200 /t/{tenant}/users/{name} 1",
            "GET /t/two/orders/alice 200 /t/{tenant}/orders/{name} 1",
            "GET /t/two/v2/orders/alice 200 /t/{tenant}/v2/orders/{name} 1",
            "GET /within/it/users/alice 200 /within/it/users/{name} 1",
            "GET /rest/users/alice 200 /rest/users/{name} 1",
            "GET /root/users/alice 200 /root/users/{name} 1",
            "GET /root/orders/42 200 /root/orders/{name} 1",
        ];
        let report = load(&["-address", &address, "-mode", mode, "-n", "280", "-c", "8"], &mix);
        let mut wanted = before;
        for ((method, _, route), count) in counted_by_load(&report) {
            *wanted.entry((method, route)).or_default() += count;
        }
        settles(&format!("{program} {mode} {}", binary.display()), &wanted, || shown(&agent, running.pid()));
        assert_eq!(agent.scrape().lost(), Vec::<String>::new());
        agent.stop();
    }
}

/// No mux is in front of what takes the path's beginning off.
#[test]
fn a_mux_behind_a_prefix_alone() {
    must_be_root();
    let running = start(&service_of("idioms", "1.26", Variant::Strip), &["-as", "one-prefix"]);
    let agent = Agent::measuring(running.pid(), &[]);
    let address = address(&running);
    load(&["-address", &address, "-n", "10"], &["GET /base/hello/eve 200 - 1"]);
    probed_mux(&agent);
    let mix = ["GET /base/hello/eve 200 - 1", "GET /base/hello/frank 200 - 1", "GET /base/nothing 404 - 1"];
    load(&["-address", &address, "-n", "30"], &mix);
    let wanted = wanted(&[("GET", "/base/hello/eve", 10), ("GET", "/base/hello/{name}", 20), ("GET", "", 10)]);
    settles("requests of each route", &wanted, || shown(&agent, running.pid()));
    assert_eq!(agent.scrape().lost(), Vec::<String>::new());
    agent.stop();
}

/// What net/http itself puts before a mux copies the request, and may give the copy another URL.
#[test]
fn muxes_behind_handlers_of_net_http_that_copy() {
    must_be_root();
    for (version, mode) in [("1.22", "h1"), ("1.26", "h2c"), ("1.27", "h1")] {
        let running = start(&service_of("idioms", version, Variant::Strip), &["-as", "limited"]);
        let agent = Agent::measuring(running.pid(), &[]);
        let address = address(&running);
        load(&["-address", &address, "-mode", mode, "-n", "10"], &["GET /hello/eve 200 - 1"]);
        probed_mux(&agent);
        let mix = ["GET /hello/eve 200 - 1", "GET /hello/frank?a=1;b=2 200 - 1", "POST /hello/grace?a;b 200 - 1"];
        load(&["-address", &address, "-mode", mode, "-n", "30"], &mix);
        let wanted = wanted(&[("GET", "/hello/eve", 10), ("GET", "/hello/{name}", 20), ("POST", "/hello/{name}", 10)]);
        settles(&format!("Go {version}, {mode}"), &wanted, || shown(&agent, running.pid()));
        assert_eq!(agent.scrape().lost(), Vec::<String>::new());
        agent.stop();
    }
}

/// A router that sets the pattern of the request that it was given has it shown, as echo 5; one that sets it on a copy of its own
/// with the request's context, as chi, has its routes folded.
#[test]
fn routers_that_set_the_pattern_themselves() {
    must_be_root();
    for version in ["1.26", "1.27"] {
        let running = start(&service_of("idioms", version, Variant::Strip), &["-as", "setting"]);
        let agent = Agent::measuring(running.pid(), &[]);
        let mix = [
            "GET /given/alice 200 - 1",
            "GET /given/bob 200 - 1",
            "GET /copied/alice 200 - 1",
            "GET /copied/7 200 - 1",
        ];
        load(&["-address", &address(&running), "-n", "40"], &mix);
        let wanted = wanted(&[("GET", "/given/{name}", 20), ("GET", "/copied/alice", 10), ("GET", "/copied/{id}", 10)]);
        settles(&format!("Go {version}"), &wanted, || shown(&agent, running.pid()));
        assert_eq!(agent.scrape().lost(), Vec::<String>::new());
        agent.stop();
    }
}

/// What docs/src/limits.md says of routes that cannot be told, or only in part.
#[test]
fn routes_that_are_not_told_as_one_may_expect() {
    must_be_root();
    let running = start(&service_of("idioms", "1.26", Variant::Strip), &["-as", "limits"]);
    let agent = Agent::measuring(running.pid(), &[]);
    let address = address(&running);
    load(&["-address", &address, "-n", "10"], &["GET /cloned/eve 200 - 1"]);
    probed_mux(&agent);
    let mix = [
        "GET /v1/users/alice 200 - 1",
        "GET /v2/users/bob 200 - 1",
        "GET /users/carol 200 - 1",
        "GET /cloned/dave 200 - 1",
        "GET /copied/users/7 200 - 1",
        "GET /copied/users/erin 200 - 1",
    ];
    load(&["-address", &address, "-n", "60"], &mix);
    let wanted = wanted(&[
        ("GET", "/cloned/eve", 10),
        // What was cut off is not shown, and of two muxes with one request the last one's pattern is.
        ("GET", "/users/{name}", 20),
        ("GET", "/users/{copy}", 10),
        // Neither URL nor headers are shared on another goroutine.
        ("GET", "/cloned/dave", 10),
        // A copy behind a pattern that takes all below it: told, since the mux is probed because of others.
        ("GET", "/copied/users/{name}", 20),
    ]);
    settles("requests of each route", &wanted, || shown(&agent, running.pid()));
    agent.stop();
    // The same goroutine, over HTTP/2.
    let running = start(&service_of("idioms", "1.26", Variant::Strip), &["-as", "cloning"]);
    let agent = Agent::measuring(running.pid(), &[]);
    load(&["-mode", "h2c", "-address", &self::address(&running), "-n", "10"], &["GET /hello/eve 200 - 1"]);
    probed_mux(&agent);
    load(&["-mode", "h2c", "-address", &self::address(&running), "-n", "10"], &["GET /hello/eve 200 - 1"]);
    settles("requests over HTTP/2", &self::wanted(&[("GET", "/hello/eve", 20)]), || shown(&agent, running.pid()));
    agent.stop();
}
