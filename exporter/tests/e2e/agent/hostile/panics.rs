//! Panics without end.

use xtask::{exposition::Sample, service::get};

use super::Ring;
use crate::support::{Agent, http::request, must_be_root, service, settles, start};

#[test]
fn a_storm_of_panics_is_told_of_once() {
    let ring = Ring::start(&[]);
    let pid = ring.hostile.pid();
    for _ in 0..3 {
        ring.ask("/storm?panics=200000");
        ring.is_unharmed();
    }
    settles("requests that recovered", &3, || ring.agent.scrape().total(pid));
    let scrape = ring.agent.scrape();
    let of_panics = |it: &&Sample| it.name == "exporter_process_events_total" && it.label("event") == "panic";
    let told = scrape.samples.iter().find(of_panics).expect("it is a metric").value;
    assert!((1.0..=3.0).contains(&told), "{told} events for three requests");
    assert_eq!(scrape.lost(), Vec::<String>::new());
}

#[test]
fn requests_that_recovered_and_go_on_hold_up_no_other() {
    const STUCK: u64 = 2000;
    let ring = Ring::start(&[]);
    let pid = ring.hostile.pid();
    ring.ask(&format!("/stuck?n={STUCK}"));
    let address = ring.hostile.address("http").expect("it listens");
    for _ in 0..10 {
        assert_eq!(request(address, "GET", "/die"), "");
        ring.is_unharmed();
    }
    let death = ("GET".to_owned(), 500, "/die".to_owned());
    settles("those that died", &Some(10), || ring.agent.scrape().counts(pid).remove(&death));
    settles("those that go on", &Some(STUCK), || ring.agent.scrape().active(pid));
    ring.ask("/unstick");
    // /stuck, /unstick, and those that died.
    settles("all have ended", &(STUCK + 12), || ring.agent.scrape().total(pid));
    settles("none goes on", &Some(0), || ring.agent.scrape().active(pid));
    assert_eq!(ring.agent.scrape().lost(), Vec::<String>::new());
}

/// The runtime gives a request's goroutine, once that has died, to whatever begins next.
#[test]
fn panics_of_goroutines_that_serve_nothing_are_no_requests() {
    const DEATHS: u64 = 100;
    let ring = Ring::start(&[]);
    let (pid, address) = (ring.hostile.pid(), ring.hostile.address("http").expect("it listens"));
    ring.ask("/worker?n=4000");
    for _ in 0..DEATHS {
        assert_eq!(request(address, "GET", "/die"), "");
    }
    let all =
        [(("GET".to_owned(), 500, "/die".to_owned()), DEATHS), (("GET".to_owned(), 200, "/worker".to_owned()), 1)];
    let all = all.into();
    settles("each is counted", &all, || ring.agent.scrape().counts(pid));
    // They go on.
    for _ in 0..3 {
        ring.is_unharmed();
    }
    assert_eq!(ring.agent.scrape().counts(pid), all, "and once");
    settles("none is in flight", &Some(0), || ring.agent.scrape().active(pid));
    assert_eq!(ring.agent.scrape().lost(), Vec::<String>::new());
}

#[test]
fn panicked_requests_are_within_the_limits_of_series() {
    const SHARE: u64 = 256;
    let ring = Ring::start(&["--max-series", "1024"]);
    let pid = ring.hostile.pid();
    ring.ask("/burst?routes=10&statuses=100");
    // With the request that asked for it.
    let all = 10 * 100 + 1;
    settles("each is counted", &all, || ring.agent.scrape().total(pid));
    let scrape = ring.agent.scrape();
    assert_eq!(scrape.counts(pid).len() as u64, SHARE + 1);
    assert_eq!(scrape.lost(), [format!("series_limit: {}", all - SHARE)]);
    ring.is_unharmed();
}

#[test]
fn one_program_never_has_all_the_places_of_panicked_requests() {
    // More than there are.
    const STUCK: u64 = 4200;
    must_be_root();
    let (hostile, other) = (start(&service("hostile"), &[]), start(&service("hostile"), &[]));
    let pids = [hostile.pid().to_string(), other.pid().to_string()];
    let agent = Agent::start(&["--pid", &pids[0], "--pid", &pids[1]]);
    for running in [&hostile, &other] {
        agent.wait_measured(running.pid());
    }
    let ask = |path: &str| get(hostile.address("http").expect("it listens"), path).expect("it answers");
    ask(&format!("/stuck?n={STUCK}"));
    let address = other.address("http").expect("it listens");
    for _ in 0..20 {
        assert_eq!(request(address, "GET", "/die"), "");
    }
    let deaths = [(("GET".to_owned(), 500, "/die".to_owned()), 20)].into();
    settles("the other's", &deaths, || agent.scrape().counts(other.pid()));
    let scrape = agent.scrape();
    let lost: Vec<_> = scrape.samples.iter().filter(|it| it.name == "exporter_lost_total" && it.value > 0.0).collect();
    assert!(lost.iter().all(|it| it.label("instance_pid") == pids[0] && it.label("reason") == "panics_map_full"));
    assert!(!lost.is_empty(), "the first has more than its share");
    ask("/unstick");
    settles("they end normally after all", &(STUCK + 2), || agent.scrape().total(hostile.pid()));
}
