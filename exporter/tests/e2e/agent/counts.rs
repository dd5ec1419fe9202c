//! Every request is counted, once, as what it was: against the load generator's account and promhttp's in the service.

use std::collections::BTreeMap;

use crate::support::{
    Agent,
    agent::{Counts, counted_by_load, method},
    glob, load, must_be_root, one_of_three, service, settles, start,
};
use xtask::{
    exposition::{self, Sample},
    service::{LoadReport, Running, get},
};

/// Weights add up to 100, so that each hundred of requests holds each line as often as its weight says.
const MIX: [&str; 16] = [
    "GET /hello 200 /hello 24",
    "HEAD /hello 200 /hello 4",
    "POST /items 201 /items 8 send=abc",
    "GET /items/{n} 200 /items/{id} 16",
    "GET /items/0 404 /items/{id} 4",
    "PUT /items/{n} 200 /items/{id} 4 send=abc",
    "PATCH /items/7 200 /items/{id} 4",
    "PURGE /items/8 200 /items/{id} 3",
    "DELETE /items/{n} 204 /items/{id} 3",
    "OPTIONS /items/1 204 /items/{id} 2",
    "GET /users/alice/orders/{n} 200 /users/{user}/orders/{order} 6",
    "GET /old 301 /old 2",
    "GET /fail 500 /fail 2",
    "GET /silent 200 /silent 2",
    "GET /sleep?ms=20 200 /sleep 8",
    "GET /work?us=200 200 /work 8",
];
/// What no route answers to: promhttp sits behind the mux and does not see it.
const UNROUTED: [&str; 2] = ["GET /nowhere/{n} 404 - 1", "POST /hello 405 - 1"];

struct Account {
    counts: Counts,
    seconds: BTreeMap<(String, u16, String), f64>,
}

/// What promhttp counted in the service.
fn promhttp(running: &Running) -> Account {
    let text = get(running.address("admin").expect("it has one"), "/metrics").expect("promhttp answers");
    let samples = exposition::parse(&text);
    let key = |sample: &Sample| {
        let name = method(&sample.label("method").to_uppercase());
        (name, sample.label("code").parse().unwrap_or(0), sample.label("route").to_owned())
    };
    let mut account = Account { counts: Counts::new(), seconds: BTreeMap::new() };
    for sample in &samples {
        match sample.name.as_str() {
            "http_requests_total" => *account.counts.entry(key(sample)).or_default() += sample.value as u64,
            "http_request_duration_seconds_sum" => *account.seconds.entry(key(sample)).or_default() += sample.value,
            _ => {}
        }
    }
    account
}

/// The agent's account against the other two: counts are equal; durations agree but for what a busy machine does between the places
/// where the two take the time.
fn compare(agent: &Agent, running: &Running, report: &LoadReport, name: &str) -> Result<(), String> {
    let pid = running.pid();
    let by_load = counted_by_load(report);
    settles("requests as the load generator counted them", &by_load, || agent.scrape().counts(pid));
    let scrape = agent.scrape();
    let promhttp = promhttp(running);
    let routed: Counts = by_load.into_iter().filter(|((_, _, route), _)| !route.is_empty()).collect();
    assert_eq!(promhttp.counts, routed, "promhttp's account and the load generator's");
    assert_eq!(scrape.lost(), Vec::<String>::new());
    assert_eq!(scrape.active(pid), Some(0));
    let ours: f64 = scrape.seconds(pid).iter().filter(|((_, _, route), _)| !route.is_empty()).map(|(_, sum)| sum).sum();
    let theirs: f64 = promhttp.seconds.values().sum();
    let difference = 100.0 * (ours - theirs) / theirs;
    println!(
        "{name}: {} requests, {:.0} a second, {} series, all equal; durations {ours:.1} s, promhttp's {theirs:.1} s \
         ({difference:+.2}%)",
        report.total,
        report.rate,
        scrape.counts(pid).len()
    );
    if difference.abs() < 5.0 { Ok(()) } else { Err(format!("durations are {difference:+.2}% off promhttp's")) }
}

fn exact(name: &str, address: &str, arguments: &[&str]) {
    must_be_root();
    one_of_three(|| {
        let running = start(&service("counted"), &[]);
        let agent = Agent::measuring(running.pid(), &[]);
        let address = running.address(address).expect("it listens").to_string();
        let mut all = vec!["-address", address.as_str(), "-n", "100000"];
        all.extend(arguments);
        let report = load(&all, &[MIX.as_slice(), UNROUTED.as_slice()].concat());
        assert_eq!(report.total, 100_000);
        let compared = compare(&agent, &running, &report, name);
        agent.stop();
        compared
    });
}

#[test]
fn http1_at_full_speed() {
    exact("HTTP/1.1", "http", &["-mode", "h1", "-c", "64"]);
}

#[test]
fn http1_over_tls() {
    exact("HTTP/1.1 over TLS", "https", &["-mode", "h1", "-tls", "-c", "64"]);
}

#[test]
fn http1_pipelined() {
    exact("HTTP/1.1 pipelined", "http", &["-mode", "h1-pipelined", "-c", "64", "-depth", "8"]);
}

#[test]
fn http2_at_full_speed() {
    exact("HTTP/2 over TLS", "https", &["-mode", "h2", "-c", "64"]);
}

#[test]
fn http2_with_many_streams() {
    exact("HTTP/2 over TLS, 8 streams a connection", "https", &["-mode", "h2", "-c", "8", "-s", "8"]);
}

#[test]
fn http2_in_the_clear() {
    exact("h2c", "h2c", &["-mode", "h2c", "-c", "64"]);
}

#[test]
fn http1_by_perf_events() {
    must_be_root();
    one_of_three(|| {
        let running = start(&service("counted"), &[]);
        let agent = Agent::measuring(running.pid(), &["--attach", "perf-event"]);
        let address = running.address("http").expect("it listens").to_string();
        let report = load(&["-address", &address, "-n", "100000"], &MIX);
        let compared = compare(&agent, &running, &report, "HTTP/1.1, perf events");
        agent.stop();
        compared
    });
}

#[test]
fn two_processes_of_one_binary() {
    must_be_root();
    let binary = service("counted");
    let both = [start(&binary, &[]), start(&binary, &[])];
    // By a glob they share their probes; by process ids each has its own.
    let pids = both.each_ref().map(|running| running.pid().to_string());
    for flags in [vec!["--executable", &glob(&binary)], vec!["--pid", &pids[0], "--pid", &pids[1]]] {
        let agent = Agent::start(&flags);
        let before = both.each_ref().map(|running| {
            agent.wait_measured(running.pid());
            promhttp(running).counts
        });
        let reports = std::thread::scope(|scope| {
            let threads = both.each_ref().map(|running| {
                let address = running.address("http").expect("it listens").to_string();
                scope.spawn(move || load(&["-address", &address, "-n", "20000", "-c", "32"], &MIX))
            });
            threads.map(|thread| thread.join().expect("the load generator ran"))
        });
        for ((running, report), before) in both.iter().zip(&reports).zip(before) {
            let wanted = counted_by_load(report);
            settles("each process's own requests", &wanted, || agent.scrape().counts(running.pid()));
            let after = promhttp(running).counts;
            let new =
                after.into_iter().map(|(key, count)| (key.clone(), count - before.get(&key).copied().unwrap_or(0)));
            assert_eq!(new.collect::<Counts>(), wanted);
        }
        assert_eq!(agent.scrape().lost(), Vec::<String>::new());
        println!("two processes, {}: {} requests each, all equal", flags[0], reports[0].total);
        agent.stop();
    }
}

/// A process that is not selected is not counted, though the probes of its twin are in its file.
#[test]
fn a_twin_that_is_not_selected() {
    must_be_root();
    let binary = service("counted");
    let [wanted, other] = [start(&binary, &[]), start(&binary, &[])];
    let agent = Agent::measuring(wanted.pid(), &[]);
    for running in [&wanted, &other] {
        let address = running.address("http").expect("it listens").to_string();
        load(&["-address", &address, "-n", "1000"], &MIX);
    }
    settles("the selected one's requests", &1000, || agent.scrape().total(wanted.pid()));
    assert!(!agent.scrape().mentions(other.pid()));
    agent.stop();
}
