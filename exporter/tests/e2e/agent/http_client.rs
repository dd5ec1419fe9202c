//! Every exchange of `http.Client` is counted, once, as what it was: against what the program's RoundTripper counted.

use std::collections::BTreeMap;

use crate::support::{
    Agent,
    agent::{Scrape, method},
    eventually, must_be_root, service_of, settles, start,
};
use serde_json::Value;
use xtask::{
    go::Variant,
    service::{Running, get},
};

/// Method, status (empty without), address, port, error.
type Key = [String; 5];
type Counts = BTreeMap<Key, u64>;

const DURATION: &str = "http_client_request_duration_seconds";

/// How often, and for how many seconds.
fn of_agent(scrape: &Scrape, pid: u32) -> (Counts, f64) {
    let pid = pid.to_string();
    let (mut counts, mut seconds) = (Counts::new(), 0.0);
    for sample in scrape.samples.iter().filter(|it| it.label("instance_pid") == pid) {
        if sample.name == format!("{DURATION}_sum") {
            seconds += sample.value;
        } else if sample.name == format!("{DURATION}_count") {
            let labels =
                ["http_request_method", "http_response_status_code", "server_address", "server_port", "error_type"];
            *counts.entry(labels.map(|label| sample.label(label).to_owned())).or_default() += sample.value as u64;
        }
    }
    (counts, seconds)
}

/// The same by the program; none before it has made all its calls.
fn of_program(running: &Running) -> Option<(Counts, f64)> {
    let text = get(running.address("admin").expect("it has one"), "/_client").expect("it answers");
    let said: Value = serde_json::from_str(&text).expect("JSON");
    if said["done"] != true {
        return None;
    }
    let (mut counts, mut seconds) = (Counts::new(), 0.0);
    for it in said["counts"].as_array().expect("a list") {
        let text = |key: &str| it[key].as_str().expect("a text").to_owned();
        let (host, status) = (text("host"), it["status"].as_u64().expect("a number"));
        let (address, port) = host.split_once(':').unwrap_or((&host, ""));
        let (status, error) = match status {
            0 => (String::new(), text("error_type")),
            400.. => (status.to_string(), status.to_string()),
            _ => (status.to_string(), String::new()),
        };
        let key = [method(&text("method")), status, address.to_owned(), port.to_owned(), error];
        *counts.entry(key).or_default() += it["count"].as_u64().expect("a number");
        seconds += it["seconds"].as_f64().expect("a number");
    }
    Some((counts, seconds))
}

/// A program that makes its calls, and an agent that measures it.
fn begun(go: &str, variant: Variant, arguments: &[&str]) -> (Running, Agent) {
    must_be_root();
    let none = ["-http", "-", "-https", "-", "-h2c", "-"];
    let running = start(&service_of("client", go, variant), &[&none, arguments].concat());
    let agent = Agent::measuring(running.pid(), &["--features", "http-client"]);
    get(running.address("admin").expect("it has one"), "/_go").expect("it begins");
    (running, agent)
}

fn make_calls(go: &str, variant: Variant, arguments: &[&str]) -> (Running, Agent, Counts) {
    let (running, agent) = begun(go, variant, arguments);
    let (wanted, theirs) = eventually("all calls have been made", || of_program(&running));
    settles(&format!("exchanges of Go {go} {variant} {arguments:?}"), &wanted, || {
        of_agent(&agent.scrape(), running.pid()).0
    });
    let (_, ours) = of_agent(&agent.scrape(), running.pid());
    assert!((ours / theirs - 1.0).abs() < 0.05, "{ours} s, the program's own {theirs} s");
    println!(
        "Go {go} {variant} {arguments:?}: {} exchanges in {} series, all equal; {ours:.2} s, the program's own {theirs:.2} s",
        wanted.values().sum::<u64>(),
        wanted.len()
    );
    (running, agent, wanted)
}

/// Makes calls, and holds what the agent counted against what the program did: each count, and no loss; the seconds within 5%.
pub(crate) fn exact(go: &str, variant: Variant, arguments: &[&str]) {
    let (running, agent, _) = make_calls(go, variant, arguments);
    assert_eq!(agent.scrape().lost(), Vec::<String>::new());
    drop(running);
    agent.stop();
}

#[test]
fn http1_of_some_releases() {
    for (go, variant) in [("1.17", Variant::Strip), ("1.22", Variant::Default), ("1.27", Variant::Pie)] {
        exact(go, variant, &["-n", "4000"]);
    }
}

#[test]
fn http2_of_some_releases() {
    for (go, variant) in [("1.22", Variant::Strip), ("1.27", Variant::Strip)] {
        exact(go, variant, &["-n", "4000", "-http2"]);
    }
}

#[test]
fn one_that_panics_is_told_as_lost_and_costs_the_next_nothing() {
    let (_running, agent, _) = make_calls("1.26", Variant::Default, &["-n", "2000", "-panics"]);
    assert_eq!(agent.scrape().lost(), ["end_not_seen: 100"]);
}

#[test]
fn calls_without_a_client_are_not_seen() {
    let (running, agent) = begun("1.27", Variant::Strip, &["-n", "200", "-mode", "direct"]);
    eventually("all calls have been made", || of_program(&running));
    let scrape = agent.scrape();
    assert_eq!((of_agent(&scrape, running.pid()).0, scrape.lost()), (Counts::new(), Vec::new()));
    let not_measured = agent.target(running.pid()).expect("it is a target")["not_measured"].to_string();
    assert!(not_measured.contains("ReverseProxy"), "{not_measured}");
}

#[test]
fn addresses_have_a_limit() {
    let (running, agent) = begun("1.27", Variant::Strip, &["-n", "1500", "-mode", "hosts"]);
    let (wanted, _) = eventually("all calls have been made", || of_program(&running));
    assert_eq!(wanted.len(), 150);
    settles("exchanges", &1500, || of_agent(&agent.scrape(), running.pid()).0.values().sum::<u64>());
    let (ours, _) = of_agent(&agent.scrape(), running.pid());
    let (past, within): (Counts, Counts) = ours.into_iter().partition(|(key, _)| key[2] == "_overflow");
    assert_eq!(within.len(), 100);
    assert!(within.iter().all(|(key, count)| wanted.get(key) == Some(count)), "{within:?}");
    assert_eq!(past.into_values().sum::<u64>(), 500);
}

/// Types that a program makes up take no more texts than it may have, and cost others nothing.
#[test]
fn types_of_errors_have_a_limit() {
    let (running, agent) = begun("1.27", Variant::Strip, &["-n", "1500", "-mode", "forged"]);
    eventually("all calls have been made", || of_program(&running));
    settles("exchanges", &1500, || of_agent(&agent.scrape(), running.pid()).0.values().sum::<u64>());
    let scrape = agent.scrape();
    let mut entries = scrape.samples.iter().filter(|it| it.name == "exporter_map_entries");
    let texts = entries.find(|it| it.label("map") == "texts").expect("it tells").value;
    assert!((2.0..=101.0).contains(&texts), "{texts}");
}

#[test]
fn four_within_each_other() {
    let (running, agent) = begun("1.27", Variant::Strip, &["-n", "300", "-mode", "nested"]);
    let (mut wanted, _) = eventually("all calls have been made", || of_program(&running));
    // The innermost is the fourth.
    wanted.retain(|key, _| key[2] != "depth1.example");
    let with_ports = |(mut key, count): (Key, u64)| {
        "80".clone_into(&mut key[3]);
        (key, count)
    };
    let wanted: Counts = wanted.into_iter().map(with_ports).collect();
    assert_eq!(wanted.len(), 3);
    settles("exchanges", &wanted, || of_agent(&agent.scrape(), running.pid()).0);
    assert_eq!(agent.scrape().lost(), ["nested_too_deep: 300"]);
}
