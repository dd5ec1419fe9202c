//! Requests in flight without end.

use std::{collections::BTreeMap, fs};

use xtask::go::Variant;

use super::Ring;
use crate::support::{Agent, eventually, load, must_be_root, scratch, service_of, settles, start};

#[test]
fn what_is_refused_is_told_once_and_who_is_idle_gives_way() {
    const BURST: u64 = 200;
    // Room is made because it is needed, and not by a scan.
    let config = scratch("in-flight").join("gopulse.yaml");
    fs::write(&config, "scan_interval_seconds: 3600\n").expect("it can be written");
    let ring = Ring::start(&["--max-in-flight", "1024", "--config", config.to_str().expect("UTF-8")]);
    let pid = ring.hostile.pid();
    ring.ask("/hold?n=1700");
    // Four fifths of what the other leaves. All of them are truly in flight, so that nothing gives way.
    let active = ring.agent.scrape().active(pid).unwrap_or(0);
    assert!((700..=820).contains(&active), "it has its share: {active}");
    ring.is_unharmed();
    ring.ask("/release");
    settles("none is left", &Some(0), || ring.agent.scrape().active(pid));
    // All connections stay, and with them the entries of their goroutines.
    ring.is_unharmed();
    // Its own new goroutines: of these requests none waits any more.
    let mut asked = 1 + 1700 + 1;
    eventually("room is made for them", || {
        let before = ring.agent.scrape().total(pid);
        ring.ask(&format!("/hold?n={BURST}"));
        asked += BURST + 1;
        ring.ask("/hello");
        asked += 1;
        (ring.agent.scrape().total(pid) > before + BURST).then_some(())
    });
    settles("no request is under way", &Some(0), || ring.agent.scrape().active(pid));
    let scrape = ring.agent.scrape();
    let lost = scrape.lost();
    assert!(lost.iter().all(|lost| lost.starts_with("in_flight_map_full: ")), "{lost:?}");
    let of_hostile = scrape
        .samples
        .iter()
        .find(|it| it.name == "exporter_lost_total" && it.label("instance_pid") == pid.to_string());
    let refused = of_hostile.expect("it was refused some").value as u64;
    assert_eq!(scrape.total(pid) + refused, asked, "each is counted or told");
}

#[test]
fn what_has_two_starts_is_told_once() {
    const REQUESTS: u64 = 3000;
    must_be_root();
    let running = start(&service_of("xnet", "local", Variant::Default), &[]);
    let agent = Agent::measuring(running.pid(), &["--max-in-flight", "16"]);
    let address = running.address("https").expect("it listens").to_string();
    let load_of = ["-mode", "h2", "-address", &address, "-n", &REQUESTS.to_string(), "-c", "16", "-s", "4"];
    load(&load_of, &["GET /hello 200 /hello 1"]);
    let counted_or_told = || {
        let scrape = agent.scrape();
        let told = scrape.samples.iter().filter(|it| it.name == "exporter_lost_total");
        let told: BTreeMap<_, _> = told.map(|it| (it.label("reason").to_owned(), it.value as u64)).collect();
        let refused = told.get("in_flight_map_full").copied().unwrap_or(0);
        println!("    {refused} of {REQUESTS} were refused");
        (refused > 0, scrape.total(running.pid()) + told.values().sum::<u64>())
    };
    settles("some were refused, and each is counted or told", &(true, REQUESTS), counted_or_told);
}
