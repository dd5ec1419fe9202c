//! Every gRPC call is counted, once, by method and code: against what the program's handlers returned, and for methods that it does not
//! have against what its callers saw.

use std::collections::BTreeMap;

use crate::support::{Agent, agent::Scrape, eventually, must_be_root, settles, start};
use serde_json::Value;
use xtask::{
    go::{self, Service, Variant},
    service::{Running, get},
};

/// Method and code.
type Key = (String, String);
type Counts = BTreeMap<Key, u64>;

const DURATION: &str = "rpc_server_call_duration_seconds";
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Versions of the module and a Go release that builds each: one for each layout of its structs, and the newest.
pub(crate) const VERSIONS: [(&str, &str); 8] = [
    ("v1.40.0", "1.17"),
    ("v1.53.0", "1.20"),
    ("v1.60.1", "1.21"),
    ("v1.66.3", "1.22"),
    ("v1.70.0", "1.24"),
    ("v1.76.0", "1.25"),
    ("v1.79.3", "1.26"),
    ("v1.85.0", "1.27"),
];

/// How often, and for how many seconds.
fn of_agent(scrape: &Scrape, pid: u32) -> (Counts, f64) {
    let pid = pid.to_string();
    let (mut counts, mut seconds) = (Counts::new(), 0.0);
    for sample in scrape.samples.iter().filter(|it| it.label("instance_pid") == pid) {
        if sample.name == format!("{DURATION}_sum") {
            seconds += sample.value;
        } else if sample.name == format!("{DURATION}_count") {
            assert_eq!(sample.label("rpc_system_name"), "grpc");
            let key = (sample.label("rpc_method").to_owned(), sample.label("rpc_response_status_code").to_owned());
            *counts.entry(key).or_default() += sample.value as u64;
        }
    }
    (counts, seconds)
}

/// The same by the program; none before it has made all its calls.
fn of_program(running: &Running) -> Option<(Counts, f64)> {
    let text = get(running.address("admin").expect("it has one"), "/_grpc").expect("it answers");
    let said: Value = serde_json::from_str(&text).expect("JSON");
    if said["done"] != true {
        return None;
    }
    let (mut counts, mut seconds) = (Counts::new(), 0.0);
    let mut add = |of: &str, is_counted: &dyn Fn(&str, u64) -> Option<String>| {
        for it in said[of].as_array().expect("a list") {
            let (method, code) = (it["method"].as_str().expect("a text"), it["code"].as_u64().expect("a number"));
            if let Some(method) = is_counted(method, code) {
                let name = NAMES.get(code as usize).copied().unwrap_or("_OTHER");
                *counts.entry((method, name.to_owned())).or_default() += it["count"].as_u64().expect("a number");
                seconds += if of == "server" { it["seconds"].as_f64().expect("a number") } else { 0.0 };
            }
        }
    };
    add("server", &|method, _| Some(method.to_owned()));
    let is_there = |method: &str| method.starts_with("sample.Echo/") && method != "sample.Echo/None";
    add("client", &|method, _| (!is_there(method)).then(|| "_OTHER".to_owned()));
    Some((counts, seconds))
}

fn binary(version: &str, go: &str, variant: Variant) -> std::path::PathBuf {
    let service = Service { name: "grpc".to_owned(), go: go.to_owned(), variant };
    go::build_against(&service, "google.golang.org/grpc", version)
        .unwrap_or_else(|error| panic!("grpc {version} {go} does not build: {error:#}"))
}

const NO_HTTP: [&str; 6] = ["-http", "-", "-https", "-", "-h2c", "-"];

/// A program that is to make calls, and an agent that measures it.
fn begun((version, go): (&str, &str), variant: Variant, arguments: &[&str]) -> (Running, Agent) {
    must_be_root();
    let running = start(&binary(version, go, variant), &[&NO_HTTP, arguments].concat());
    let agent = Agent::measuring(running.pid(), &["--features", "grpc-server"]);
    ask(&running, "/_go");
    (running, agent)
}

fn ask(running: &Running, page: &str) {
    get(running.address("admin").expect("it has one"), page).expect("it answers");
}

/// Makes calls, and holds what the agent counted against what the program did: each count, and no loss; the seconds within 5%.
pub(crate) fn exact(version: (&str, &str), variant: Variant, arguments: &[&str]) {
    let (running, agent) = begun(version, variant, arguments);
    let (wanted, theirs) =
        crate::support::within(std::time::Duration::from_mins(10), "all calls", || of_program(&running));
    settles(&format!("calls of grpc {version:?} {variant} {arguments:?}"), &wanted, || {
        of_agent(&agent.scrape(), running.pid()).0
    });
    let scrape = agent.scrape();
    let (_, ours) = of_agent(&scrape, running.pid());
    assert!((ours / theirs - 1.0).abs() < 0.05, "{ours} s, the program's own {theirs} s");
    assert_eq!(scrape.lost(), Vec::<String>::new());
    assert_eq!(active(&scrape), 0);
    println!(
        "grpc {version:?} {variant} {arguments:?}: {} calls in {} series, all equal; {ours:.2} s, the program's own {theirs:.2} s",
        wanted.values().sum::<u64>(),
        wanted.len()
    );
    drop(running);
    agent.stop();
}

fn active(scrape: &Scrape) -> u64 {
    scrape.samples.iter().filter(|it| it.name == "rpc_server_active_calls").map(|it| it.value as u64).sum()
}

#[test]
fn calls_of_an_old_version_and_the_newest() {
    exact(VERSIONS[0], Variant::Strip, &["-n", "4000"]);
    exact(VERSIONS[7], Variant::Strip, &["-n", "4000"]);
}

/// By its own debug information, a stream that the probes are given by a pointer in another.
#[test]
fn calls_of_a_version_between_by_debug_information() {
    exact(VERSIONS[4], Variant::Default, &["-n", "1000"]);
}

#[test]
fn workers_and_requests_of_net_http() {
    exact(VERSIONS[7], Variant::Pie, &["-n", "2000", "-workers", "3"]);
    exact(VERSIONS[7], Variant::Default, &["-n", "2000", "-handler"]);
}

#[test]
fn a_stream_that_is_received_on_another_goroutine_is_counted_once() {
    exact(VERSIONS[7], Variant::Strip, &["-n", "500", "-mode", "apart"]);
}

/// Where a connection breaks, grpc writes a status or none, by version and moment; a handler that never returns has none. Of a goroutine
/// whose place is another's already, that takes minutes to be told (limits.md): until then the call is active.
fn kills(version: (&str, &str)) {
    let (running, agent) = begun(version, Variant::Strip, &["-n", "60", "-c", "6", "-mode", "kills"]);
    let (wanted, _) = eventually("all calls have been made", || of_program(&running));
    let is_deaf = |(method, _): &Key| method == "sample.Echo/Deaf";
    let of_deaf = |counts: &Counts| counts.iter().filter(|(key, _)| is_deaf(key)).map(|(_, count)| count).sum::<u64>();
    let others = |counts: Counts| counts.into_iter().filter(|(key, _)| !is_deaf(key)).collect::<Counts>();
    // One with a connection that holds.
    let made = of_deaf(&wanted);
    assert_eq!(made, 61);
    let wanted = others(wanted);
    settles("calls whose connection holds", &wanted, || others(of_agent(&agent.scrape(), running.pid()).0));
    settles("calls with their status, lost ones, and those that are not told yet", &(made + 60), || {
        let scrape = agent.scrape();
        let lost = scrape.lost();
        assert!(lost.iter().all(|it| it.starts_with("end_not_seen: ")), "{lost:?}");
        let told = lost.iter().filter_map(|it| it.strip_prefix("end_not_seen: ")?.parse::<u64>().ok()).sum::<u64>();
        // At first all are active: at most these few stay so.
        let active = Some(active(&scrape)).filter(|it| *it <= 5).unwrap_or(0);
        of_deaf(&of_agent(&scrape, running.pid()).0) + told + active
    });
    let scrape = agent.scrape();
    println!("grpc {version:?}: {:?}, {:?}", of_agent(&scrape, running.pid()).0, scrape.lost());
}

#[test]
fn what_grpc_writes_no_status_for_is_told_as_lost() {
    for version in [VERSIONS[0], VERSIONS[2], VERSIONS[6], VERSIONS[7]] {
        kills(version);
    }
}

#[test]
fn methods_that_clients_make_up_are_one() {
    let (running, agent) = begun(VERSIONS[7], Variant::Strip, &["-n", "1500", "-mode", "methods"]);
    let (wanted, _) = eventually("all calls have been made", || of_program(&running));
    assert_eq!(wanted[&("_OTHER".to_owned(), "UNIMPLEMENTED".to_owned())], 1500);
    settles("calls", &wanted, || of_agent(&agent.scrape(), running.pid()).0);
    assert_eq!(agent.scrape().lost(), Vec::<String>::new());
}

#[test]
fn a_stream_is_active_while_it_is_open_and_one_from_before_is_told_once() {
    must_be_root();
    let running = start(&binary(VERSIONS[7].0, VERSIONS[7].1, Variant::Strip), &NO_HTTP);
    ask(&running, "/_hold");
    let agent = Agent::measuring(running.pid(), &["--features", "grpc-server"]);
    ask(&running, "/_hold");
    settles("open streams that were seen to begin", &1, || active(&agent.scrape()));
    ask(&running, "/_release");
    let ended = Counts::from([(("sample.Echo/Held".to_owned(), "OK".to_owned()), 1)]);
    settles("streams that were seen to begin", &ended, || of_agent(&agent.scrape(), running.pid()).0);
    settles("streams that were not", &vec!["start_not_seen: 1".to_owned()], || agent.scrape().lost());
    assert_eq!(active(&agent.scrape()), 0);
}
