//! Routers that are not ServeMux: every request has the pattern that its router says it has matched.

use std::path::Path;

use xtask::{
    go::Variant,
    service::{Running, get},
};

use crate::support::{
    Agent,
    agent::{Counts, counted_by_service},
    load, must_be_root, service_of, settles, start,
};

/// The four that most services use.
const ROUTERS: [&str; 4] = ["gin", "echo", "chi", "gorilla"];

/// What the program takes off where it takes anything off.
const PREFIX: &str = "/svc/a";

/// What is asked of each: method, path, status, how often.
const SHAPES: [(&str, &str, u16, u32); 20] = [
    ("GET", "/", 200, 1),
    ("GET", "/hello/u{n}", 200, 3),
    ("GET", "/users/{n}/orders/x{n}", 200, 2),
    ("GET", "/files/a/b/c{n}", 200, 1),
    ("GET", "/static/about", 200, 1),
    ("GET", "/static/about?page={n}", 200, 1),
    ("POST", "/users", 200, 1),
    ("DELETE", "/users/{n}", 200, 1),
    ("GET", "/numbers/{n}", 200, 1),
    ("GET", "/slash/", 200, 1),
    ("GET", "/fail", 500, 1),
    ("GET", "/panic/u{n}", 500, 1),
    ("PUT", "/any", 200, 1),
    ("GET", "/batch/{n}", 200, 1),
    ("GET", "/api/v1/items", 200, 1),
    ("GET", "/api/v1/items/w{n}", 200, 2),
    ("GET", "/api/v1/admin/stats", 200, 1),
    ("GET", "/sub/things/t{n}", 200, 1),
    ("GET", "/sub/none/u{n}", 404, 1),
    ("GET", "/nothing/u{n}", 404, 1),
];

/// What routers answer to in ways of their own.
fn own_shapes(router: &str, before: &str) -> Vec<(&'static str, &'static str, u16, u32)> {
    let redirect = if matches!(router, "gin" | "gorilla") { 301 } else { 404 };
    // A subrouter of gorilla's does not tell that another method would do.
    let not_allowed =
        if router == "gorilla" && (before.starts_with("/two") || before.starts_with("/v")) { 404 } else { 405 };
    let mut shapes = vec![("GET", "/slash", redirect, 1), ("PATCH", "/static/about", not_allowed, 1)];
    // It is routed again by a path that a handler has made up, of which nothing was taken off.
    if router == "gin" && before != PREFIX {
        shapes.push(("GET", "/again/{n}", 200, 1));
    }
    shapes
}

fn mix(router: &str, before: &str) -> Vec<String> {
    let all = SHAPES.into_iter().chain(own_shapes(router, before));
    all.map(|(method, path, status, weight)| format!("{method} {before}{path} {status} - {weight}")).collect()
}

fn send(running: &Running, mode: &str, requests: u32, mix: &[String]) {
    let kind = if mode == "h1" { "http" } else { "https" };
    let address = running.address(kind).expect("it listens").to_string();
    let mix: Vec<&str> = mix.iter().map(String::as_str).collect();
    load(&["-mode", mode, "-address", &address, "-n", &requests.to_string(), "-c", "16"], &mix);
}

/// What is shown of what a program has counted. Where its router has matched nothing, a mux outside may have; and before Go 1.22,
/// which has no patterns, a redirect is folded as any other path.
fn shown_of(own: Counts, go: &str, how: &str) -> Counts {
    let is_old = go == "1.20";
    let mut shown = Counts::new();
    for ((method, status, route), count) in own {
        let route = match (route.as_str(), status, how) {
            ("", 301, "stripped" | "stripping-mux") if is_old => format!("{PREFIX}/slash"),
            ("", 301, _) if is_old => "/slash".to_owned(),
            ("", _, "mux") if !is_old => "/".to_owned(),
            ("", _, "stripping-mux") if !is_old => format!("{PREFIX}/"),
            _ => route,
        };
        *shown.entry((method, status, route)).or_default() += count;
    }
    shown
}

/// Starts a program, sends what `sends` does, and holds the agent's counts against the program's own.
fn is_equal(binary: &Path, go: &str, what: &str, arguments: &[&str], sends: impl FnOnce(&Running)) -> String {
    let running = start(binary, arguments);
    let agent = Agent::measuring(running.pid(), &[]);
    sends(&running);
    let own = shown_of(counted_by_service(&running), go, arguments.last().unwrap_or(&""));
    settles(what, &own, || agent.scrape().counts(running.pid()));
    assert_eq!(agent.scrape().lost(), Vec::<String>::new(), "{what}");
    let target = agent.target(running.pid()).expect("it is a target");
    let routes_from = target["routes_from"].as_array().expect("its routers are told of").clone();
    assert!(routes_from.iter().all(|it| it["from"] == "its patterns, by a probe"), "{routes_from:?}");
    let names = routes_from.iter().map(|it| format!("{} {}", it["router"], it["version"]).replace('"', ""));
    let names = names.collect::<Vec<_>>().join(", ");
    let with_route: u64 = own.iter().filter(|((_, _, route), _)| !route.is_empty()).map(|(_, count)| count).sum();
    println!("{what}: {} requests, {with_route} with a pattern, all equal ({names})", own.values().sum::<u64>());
    agent.stop();
    names
}

/// Router by version, stripped and not.
#[test]
fn patterns_are_the_routers_own() {
    must_be_root();
    for (go, variant) in [("1.20", Variant::Strip), ("local", Variant::Strip), ("local", Variant::Default)] {
        let binary = service_of("routers", go, variant);
        for router in ROUTERS {
            is_equal(&binary, go, &format!("{router}, Go {go}, {}", variant.name()), &["-as", router], |running| {
                send(running, "h1", 1000, &mix(router, ""));
                send(running, "h2", 500, &mix(router, ""));
            });
        }
    }
}

/// What is put before a router, and routers within others and beside them.
#[test]
fn whatever_is_before_a_router() {
    must_be_root();
    for (go, variant) in [("local", Variant::Strip), ("1.20", Variant::Strip)] {
        let binary = service_of("routers", go, variant);
        for router in ROUTERS {
            // What differs by Go's version.
            let ways: &[&str] = if go == "1.20" {
                &["timed", "stripped"]
            } else {
                &["slow", "timed", "mux", "stripped", "stripping-mux"]
            };
            for how in ways.iter().copied() {
                let before = if how.starts_with("strip") { PREFIX } else { "" };
                let what = format!("{router} behind {how}, Go {go}");
                is_equal(&binary, go, &what, &["-as", router, "-in", how], |running| {
                    send(running, "h1", 600, &mix(router, before));
                });
            }
        }
    }
}

#[test]
fn two_routers_in_one_program() {
    must_be_root();
    let binary = service_of("routers", "local", Variant::Strip);
    for (first, second) in [("gin", "chi"), ("echo", "gorilla"), ("chi", "gin")] {
        is_equal(
            &binary,
            "local",
            &format!("{first} and {second}"),
            &["-as", &format!("{first}+{second}")],
            |running| {
                let both: Vec<String> = mix(first, "").into_iter().chain(mix(second, "/two")).collect();
                send(running, "h1", 1200, &both);
            },
        );
    }
}

/// Its patterns are freed, and others may get their addresses.
#[test]
fn a_router_that_is_replaced_while_it_runs() {
    must_be_root();
    let binary = service_of("routers", "local", Variant::Strip);
    for router in ROUTERS {
        is_equal(&binary, "local", &format!("{router} replaced"), &["-as", router, "-in", "replaced"], |running| {
            let address = running.address("http").expect("it listens");
            send(running, "h1", 100, &mix(router, ""));
            for generation in 1..=3 {
                get(address, "/reload").expect("it answers");
                send(running, "h1", 100, &mix(router, &format!("/v{}", "i".repeat(generation))));
            }
        });
    }
}

/// Frameworks, of which each has a router of its own.
#[test]
fn patterns_of_frameworks() {
    const ITEMS: [&str; 5] = [
        "GET /api/v1/items/ 200 - 1",
        "GET /api/v1/items/u{n} 200 - 2",
        "PUT /api/v1/items/u{n}/parts/p{n} 200 - 1",
        "GET /files/a/b/c{n} 200 - 1",
        "GET /nothing/u{n} 404 - 1",
    ];
    const SHOP: [&str; 5] = [
        "GET /v1/items/u{n} 200 - 2",
        "GET /v1/items 200 - 1",
        "POST /v1/items 200 - 1",
        "GET /v1/shelves/u{n}/books 404 - 1",
        "GET /nothing/u{n} 404 - 1",
    ];
    must_be_root();
    for variant in [Variant::Strip, Variant::Default] {
        let binary = service_of("frameworks", "local", variant);
        for (framework, shapes) in [("go-restful", &ITEMS[..]), ("grpc-gateway", &SHOP[..])] {
            for timed in ["-timed=false", "-timed=true"] {
                let what = format!("{framework}, {timed}, {}", variant.name());
                is_equal(&binary, "local", &what, &["-as", framework, timed], |running| {
                    let shapes: Vec<String> = shapes.iter().map(|it| (*it).to_owned()).collect();
                    send(running, "h1", 700, &shapes);
                });
            }
        }
    }
}
