//! A function's stack check sends a call away and has it begin anew where the stack must grow or the goroutine is to be
//! preempted. The probes of a request sit at the branch of that check: each request must be counted once all the same.
//!
//! A goroutine is asked to let go by a value in its stack guard (runtime/stack.go: stackPreempt). The test writes that value
//! into every goroutine of the service, over and over, as the runtime itself does at each stop of the world.

mod support;

use std::{
    collections::BTreeMap,
    fs::File,
    io::IoSlice,
    os::unix::fs::FileExt as _,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use nix::{
    sys::uio::{RemoteIoVec, process_vm_writev},
    unistd::Pid,
};
use support::{
    Agent,
    agent::{Counts, binary, counted_by_load},
    eventually, load, must_be_root, service_of, settles, start,
};
use xtask::{go::Variant, service::Running, util};

/// `runtime.stackPreempt`, and where `runtime.g` has its guard: behind the stack's two ends (runtime/runtime2.go).
const STACK_PREEMPT: u64 = (-1314_i64).cast_unsigned();
const GUARD: u64 = 16;

const MIX: [&str; 3] = ["GET /ok 200 /ok 2", "GET /items/{n} 200 /items/{id} 1", "GET /fail 500 /fail 1"];

/// Where the service keeps the list of its goroutines. The executable is not position independent.
fn all_goroutines(service: &std::path::Path) -> u64 {
    let report = util::output(Command::new(binary()).args(["inspect", "--json"]).arg(service)).expect("it can be read");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    report["variables"]["runtime.allgs"].as_u64().expect("an address")
}

fn word(memory: &File, at: u64) -> u64 {
    let mut bytes = [0; 8];
    memory.read_exact_at(&mut bytes, at).expect("the service's memory can be read");
    u64::from_le_bytes(bytes)
}

/// Asks every goroutine to let go until told to end; how many times it has.
fn disturb(pid: u32, list: u64, end: &AtomicBool, asked: &AtomicU64) {
    let memory = File::open(format!("/proc/{pid}/mem")).expect("the service runs");
    let pid = Pid::from_raw(pid.cast_signed());
    while !end.load(Ordering::Relaxed) {
        let (address, count) = (word(&memory, list), word(&memory, list + 8));
        let goroutines: Vec<u64> = (0..count.min(1000)).map(|n| word(&memory, address + 8 * n)).collect();
        let guards: Vec<RemoteIoVec> =
            goroutines.iter().map(|g| RemoteIoVec { base: (g + GUARD) as usize, len: 8 }).collect();
        let values: Vec<u8> = goroutines.iter().flat_map(|_| STACK_PREEMPT.to_le_bytes()).collect();
        for _ in 0..1000 {
            let written = process_vm_writev(pid, &[IoSlice::new(&values)], &guards);
            assert_eq!(written, Ok(values.len()), "goroutines are never freed");
            asked.fetch_add(goroutines.len() as u64, Ordering::Relaxed);
        }
    }
}

/// Has the mux probed, by requests of middleware that copies them; what they were counted as.
fn probe_the_mux(agent: &Agent, running: &Running) -> Counts {
    let address = running.address("http").expect("it listens").to_string();
    load(&["-address", &address, "-n", "2", "-c", "1"], &["GET /ok 200 /ok 1"]);
    let of = |counts: Counts| (counts.values().sum::<u64>() == 2).then_some(counts);
    let before = eventually("two requests are counted", || of(agent.scrape().counts(running.pid())));
    eventually("the mux is probed", || {
        let target = agent.target(running.pid())?;
        let probes = target["probes"].as_array()?;
        probes.iter().any(|probe| probe["probe"] == "http_mux" && probe["attached"] == true).then_some(())
    });
    before
}

fn every_request_once(go: &str, service_flags: &[&str], port: &str, flags: &[&str], requests: &str) {
    must_be_root();
    let service = service_of("matrix", go, Variant::Default);
    let list = all_goroutines(&service);
    let running = start(&service, service_flags);
    let agent = Agent::measuring(running.pid(), &["--features", "http"]);
    let before = if service_flags.is_empty() { Counts::new() } else { probe_the_mux(&agent, &running) };
    let (end, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let report = thread::scope(|scope| {
        scope.spawn(|| disturb(running.pid(), list, &end, &asked));
        let address = running.address(port).expect("it listens").to_string();
        let report = load(&[&["-address", &address, "-n", requests, "-c", "8"], flags].concat(), &MIX);
        end.store(true, Ordering::Relaxed);
        report
    });
    let mut wanted = counted_by_load(&report);
    for (series, count) in before {
        *wanted.entry(series).or_default() += count;
    }
    let by_status = |counts: &Counts| {
        let mut sums = BTreeMap::<u16, u64>::new();
        for ((_, status, _), count) in counts {
            *sums.entry(*status).or_default() += count;
        }
        sums
    };
    settles("requests by status", &by_status(&wanted), || by_status(&agent.scrape().counts(running.pid())));
    let mut counts = agent.scrape().counts(running.pid());
    // Go 1.27's HTTP/2 holds no http.Request once the handler has returned: where the garbage collector was faster than the
    // end, what it said is not known, and that is told.
    let gone: u64 = counts.extract_if(.., |(method, _, _), _| method == "_OTHER").map(|(_, count)| count).sum();
    let told = if gone == 0 { Vec::new() } else { vec![format!("memory_unreadable: {gone}")] };
    assert_eq!(agent.scrape().lost(), told);
    if gone == 0 {
        assert_eq!(counts, wanted, "requests as the load generator counted them");
    } else {
        assert!(go == "1.27" && port == "https" && gone * 1000 < report.total, "{gone} requests are not known");
        assert!(counts.iter().all(|(series, count)| wanted.get(series) >= Some(count)), "{counts:?} of {wanted:?}");
    }
    assert_eq!(agent.scrape().active(running.pid()), Some(0));
    let asked = asked.into_inner();
    assert!(asked > report.total, "goroutines were asked {asked} times to let go: too few to prove anything");
    println!(
        "Go {go}, {port}: {requests} requests, goroutines asked {asked} times to let go, {gone} not known, all others equal"
    );
    agent.stop();
}

#[test]
fn http1() {
    for go in ["1.17", "1.21", "1.27"] {
        every_request_once(go, &[], "http", &[], "40000");
    }
}

#[test]
fn http2() {
    for go in ["1.17", "1.27"] {
        every_request_once(go, &[], "https", &["-mode", "h2", "-s", "4"], "20000");
    }
}

/// What the garbage collector takes between a handler's return and its request's end is another request's by then.
#[test]
fn http2_with_copied_requests() {
    for go in ["1.22", "1.27"] {
        every_request_once(go, &["-copy-request"], "https", &["-mode", "h2", "-s", "4"], "20000");
    }
}
