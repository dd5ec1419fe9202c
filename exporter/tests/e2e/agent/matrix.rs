//! Go releases and ways of building: what is sent is counted exactly. Prints a table. Every release in every way is
//! `builds::releases`.

use crate::support::{
    Agent,
    agent::{Counts, counted_by_load, counted_by_service},
    eventually, load, must_be_root, service_of, settles, start,
};
use xtask::go::Variant;

/// The oldest release, the first with patterns in requests, and the newest, which alone is built as position-independent code: that
/// compiles its standard library once more.
const SOME: [(&str, &[Variant]); 3] = [
    ("1.17", &[Variant::Default, Variant::Strip]),
    ("1.22", &[Variant::Default, Variant::Strip]),
    ("1.27", &[Variant::Default, Variant::Strip, Variant::Pie]),
];

fn minor(version: &str) -> u32 {
    version.split('.').nth(1).and_then(|minor| minor.parse().ok()).expect("a Go version")
}

/// What is sent. A path's first request is one with a route, since a path that is answered by 404 makes none.
fn mix(minor: u32) -> Vec<String> {
    // Before 1.22 the mux knows no wildcards, and routes are folded from paths.
    let (item, status, order) = if minor < 22 {
        ("/items/{id}", "/status/{id}", "/users/{id}/orders/{id}")
    } else {
        ("/items/{id}", "/status/{code}", "/users/{user}/orders/{order}")
    };
    vec![
        "GET /ok 200 /ok 20".into(),
        "HEAD /ok 200 /ok 2".into(),
        "GET /implicit 200 /implicit 5".into(),
        "GET /empty 200 /empty 5".into(),
        "GET /old 301 /old 2".into(),
        "GET /fail 500 /fail 2".into(),
        "POST /items 201 /items 5 send=abc".into(),
        format!("GET /items/{{n}} 200 {item} 10"),
        format!("PUT /items/{{n}} 200 {item} 3 send=abc"),
        format!("PATCH /items/5 200 {item} 2"),
        format!("DELETE /items/{{n}} 204 {item} 2"),
        format!("OPTIONS /items/3 204 {item} 1"),
        format!("PURGE /items/2 200 {item} 1"),
        format!("GET /items/0 404 {item} 2"),
        format!("GET /status/418 418 {status} 1"),
        format!("GET /status/503 503 {status} 1"),
        format!("GET /users/1001/orders/{{n}} 200 {order} 5"),
        "GET /nowhere/{n} 404 - 2".into(),
    ]
}

/// One line of the table.
fn row(agent: &Agent, version: &str, variant: Variant) -> String {
    let running = start(&service_of("matrix", version, variant), &[]);
    let pid = running.pid();
    let target = agent.wait_measured(pid);
    let mix = mix(minor(version));
    let mix: Vec<&str> = mix.iter().map(String::as_str).collect();
    let mut wanted = Counts::new();
    let mut protocols = Vec::new();
    for (mode, kind) in [("h1", "http"), ("h1-pipelined", "http"), ("h2", "https"), ("h2c", "h2c")] {
        let Ok(address) = running.address(kind) else {
            assert!(kind == "h2c" && minor(version) < 24, "net/http speaks h2c from Go 1.24 on");
            continue;
        };
        let address = address.to_string();
        // One by one at first: each route is there before the requests that none answers.
        for arguments in [["-n", "71", "-c", "1"], ["-n", "639", "-c", "8"]] {
            let report = load(&[&["-mode", mode, "-address", &address], arguments.as_slice()].concat(), &mix);
            for (key, count) in counted_by_load(&report) {
                *wanted.entry(key).or_default() += count;
            }
        }
        settles(&format!("Go {version} {variant}, {mode}"), &wanted, || agent.scrape().counts(pid));
        protocols.push(mode);
    }
    assert_eq!(counted_by_service(&running), wanted, "the service's own account and the load generator's");
    assert_eq!(agent.scrape().lost(), Vec::<String>::new());
    let text = |key: &str| target[key].as_str().unwrap_or("-").to_owned();
    let total: u64 = wanted.values().sum();
    let probes = target["probes"].as_array().expect("a measured target has probes");
    let attached = probes.iter().filter(|probe| probe["attached"] == true).count();
    let off = target["disabled"].as_array().expect("a list").iter().map(|off| off["feature"].as_str().unwrap_or("?"));
    let off: Vec<&str> = off.collect();
    assert_eq!(off, if minor(version) < 22 { vec!["route_pattern"] } else { vec![] }, "{target}");
    let line = format!(
        "| {:<9} | {:<8} | {:<12} | {:<8} | {attached:>6} | {:<22} | {total:>8} | exact |",
        text("go_version"),
        variant.name(),
        text("functions_from"),
        text("layouts_from"),
        protocols.join(" "),
    );
    println!("{line}");
    line
}

/// Measures the service built by each of these releases in each of these ways; prints the table.
pub(crate) fn exact(releases: &[(&str, &[Variant])]) {
    must_be_root();
    // By the whole path: another checkout's tests may run on this machine.
    let ours = xtask::util::target().join("go/bin/matrix-go*");
    let agent = Agent::start(&["--executable", &ours.display().to_string()]);
    let mut table = vec![
        "| Go        | variant  | functions    | layouts  | probes | protocols              | requests | count |"
            .to_owned(),
        "|-----------|----------|--------------|----------|--------|------------------------|----------|-------|"
            .to_owned(),
    ];
    for (version, variants) in releases {
        for variant in *variants {
            table.push(row(&agent, version, *variant));
        }
    }
    agent.stop();
    println!("\n{}", table.join("\n"));
}

#[test]
fn oldest_first_with_patterns_and_newest() {
    exact(&SOME);
}

/// Middleware that replaces the request hides from the server what the mux writes into it: the mux is probed, on demand.
#[test]
fn middleware_that_copies_the_request() {
    must_be_root();
    for version in ["1.22", "1.27"] {
        let running = start(&service_of("matrix", version, Variant::Strip), &["-copy-request"]);
        let pid = running.pid();
        let agent = Agent::measuring(pid, &[]);
        let kinds = [("h1", "http"), ("h2", "https")];
        let send = |count: &str| {
            for (mode, kind) in kinds {
                let address = running.address(kind).expect("it listens").to_string();
                let mix = ["GET /users/alice/orders/{n} 200 /users/{user}/orders/{order} 1", "GET /ok 200 /ok 1"];
                load(&["-mode", mode, "-address", &address, "-n", count, "-c", "4"], &mix);
            }
        };
        send("2");
        let of = |route: &str| ("GET".to_owned(), 200, route.to_owned());
        let folded = "/users/alice/orders/{id}";
        let before = Counts::from([(of(folded), 2), (of("/ok"), 2)]);
        settles("folded before the first scrape", &before, || agent.scrape().counts(pid));
        eventually("the mux is probed", || {
            let target = agent.target(pid)?;
            let probes = target["probes"].as_array()?;
            probes.iter().any(|probe| probe["probe"] == "http_mux" && probe["attached"] == true).then_some(())
        });
        send("200");
        let after = Counts::from([(of(folded), 2), (of("/users/{user}/orders/{order}"), 200), (of("/ok"), 202)]);
        settles("patterns after it", &after, || agent.scrape().counts(pid));
        agent.stop();
        println!("Go {version}: patterns, though the request is copied");
    }
}

/// Without such middleware the third probe stays away.
#[test]
fn the_mux_is_not_probed_without_need() {
    must_be_root();
    let running = start(&service_of("matrix", "1.27", Variant::Strip), &[]);
    let agent = Agent::measuring(running.pid(), &[]);
    let address = running.address("http").expect("it listens").to_string();
    let mix = ["GET /ok 200 /ok 1", "GET /nowhere 404 - 1", "POST /implicit 405 - 1"];
    load(&["-address", &address, "-n", "300"], &mix);
    for _ in 0..3 {
        assert_eq!(agent.scrape().counts(running.pid()), counted_by_service(&running));
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    let target = agent.target(running.pid()).expect("a target");
    let mux = target["probes"].as_array().and_then(|all| all.iter().find(|probe| probe["probe"] == "http_mux"));
    assert_eq!(mux.expect("it is planned")["attached"], false);
    agent.stop();
}
