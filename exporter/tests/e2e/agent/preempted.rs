//! What is preempted, goroutine or thread, is counted once all the same.
//!
//! A function's stack check sends a call away and has it begin anew where the stack must grow or the goroutine is to be
//! preempted. The probes of a request sit at the branch of that check. A goroutine is asked to let go by a value in its stack guard (runtime/stack.go: stackPreempt). The test writes that value
//! into every goroutine of the service, over and over, as the runtime itself does at each stop of the world.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::IoSlice,
    os::unix::fs::FileExt as _,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use crate::support::{
    Agent,
    agent::{Counts, binary, counted_by_load},
    eventually, load, must_be_root, service, service_of, settles, start,
};
use nix::{
    sys::uio::{RemoteIoVec, process_vm_writev},
    unistd::Pid,
};
use serde::Deserialize;
use xtask::{go::Variant, service::Running, util};

/// `runtime.stackPreempt`, and where `runtime.g` has its guard: behind the stack's two ends (runtime/runtime2.go).
const STACK_PREEMPT: u64 = (-1314_i64).cast_unsigned();
const GUARD: u64 = 16;

/// What the last line's path is folded to where its pattern is not known.
const FOLDED: &str = "/users/alice/orders/{id}";

fn mix(go: &str) -> [String; 4] {
    let order = if go < "1.22" { FOLDED } else { "/users/{user}/orders/{order}" };
    [
        "GET /ok 200 /ok 2".into(),
        "POST /items 201 /items 1 send=abc".into(),
        "GET /fail 500 /fail 1".into(),
        format!("GET /users/alice/orders/{{n}} 200 {order} 2"),
    ]
}

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
        // The length first: the list grows, and moves when it does.
        let count = word(&memory, list + 8);
        let address = word(&memory, list);
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

/// Ends the disturbance, also where the load panics.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
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
        let _end = End(&end);
        let address = running.address(port).expect("it listens").to_string();
        let mix = mix(go);
        let mix: Vec<&str> = mix.iter().map(String::as_str).collect();
        load(&[&["-address", &address, "-n", requests, "-c", "8"], flags].concat(), &mix)
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
    let counts = agent.scrape().counts(running.pid());
    let of_route = |wanted: &str| -> u64 {
        counts.iter().filter(|((_, _, route), _)| route == wanted).map(|(_, count)| count).sum()
    };
    // Nothing holds a copy of a request, nor the http.Request of Go 1.27's HTTP/2, once the handler has used it last. Where the
    // garbage collector was faster than the end, the path is all that is known, or the method.
    let (gone, copied) = (of_route(""), !service_flags.is_empty());
    let folded = if copied { of_route(FOLDED) } else { 0 };
    let told = if gone == 0 { Vec::new() } else { vec![format!("memory_unreadable: {gone}")] };
    assert_eq!(agent.scrape().lost(), told);
    if gone + folded == 0 {
        assert_eq!(counts, wanted, "requests as the load generator counted them");
    }
    let may_be_gone = port == "https" && (copied || go == "1.27");
    assert!(gone + folded == 0 || may_be_gone && (gone + folded) * 1000 < report.total, "{counts:?}");
    for (series, count) in counts.iter().filter(|((_, _, route), _)| !route.is_empty() && (!copied || route != FOLDED))
    {
        assert!(wanted.get(series) >= Some(count), "{count} of {series:?}, not {:?}", wanted.get(series));
    }
    assert_eq!(agent.scrape().active(running.pid()), Some(0));
    let asked = asked.into_inner();
    assert!(asked > report.total, "goroutines were asked {asked} times to let go: too few to prove anything");
    println!(
        "Go {go}, {port}: {requests} requests, goroutines asked {asked} times to let go, {gone} without a route, {folded} folded, all others equal"
    );
    agent.stop();
}

#[test]
fn http1() {
    for go in ["1.17", "1.22", "1.27"] {
        every_request_once(go, &[], "http", &[], "40000");
    }
}

#[test]
fn http2() {
    for go in ["1.17", "1.27"] {
        every_request_once(go, &[], "https", &["-mode", "h2", "-s", "4"], "20000");
    }
}

#[test]
fn http1_with_copied_requests() {
    every_request_once("1.27", &["-copy-request"], "http", &[], "20000");
}

#[test]
fn http2_with_copied_requests() {
    for go in ["1.22", "1.27"] {
        every_request_once(go, &["-copy-request"], "https", &["-mode", "h2", "-s", "4"], "20000");
    }
}

/// What `guest stacks` says, see `xtask/go/guest/stacks.go`.
#[derive(Deserialize)]
struct Stacks {
    given: bool,
    looked: u64,
    programs: BTreeMap<String, u64>,
}

/// Whether this kernel gives programs on functions a stack per CPU, by its version alone (arch/*/net/bpf_jit_comp.c:
/// `bpf_jit_supports_private_stack`).
fn gives_stacks_per_cpu() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc is there");
    let mut numbers = release.split(['.', '-']).map_while(|word| word.parse::<u32>().ok());
    let version = (numbers.next().expect("a version"), numbers.next().expect("a version"));
    version >= if cfg!(target_arch = "x86_64") { (6, 13) } else { (6, 17) }
}

/// Threads that preempt each other in a program must not share its stack. Kernels that do not preempt give such stacks too, so
/// that it shows here in the machine code, though what it breaks shows only in `cargo xtask vm`.
#[test]
fn no_program_has_a_stack_per_cpu() {
    must_be_root();
    let running = start(&service("hello"), &[]);
    for attach in ["uprobe-multi", "perf-event"] {
        let agent = Agent::measuring(running.pid(), &["--attach", attach]);
        let said = util::output(Command::new(service("guest")).args(["stacks", &agent.pid().to_string()]));
        let found: Stacks = serde_json::from_str(&said.expect("the programs can be read")).expect("JSON");
        assert_eq!(found.programs, BTreeMap::new(), "{attach}: programs with a stack per CPU, and how many each");
        assert!(found.looked >= 15, "{attach}: only {} programs were looked at", found.looked);
        assert!(
            found.given || !gives_stacks_per_cpu(),
            "{attach}: not even a program that is made for it has such a stack"
        );
        println!(
            "{attach}: {} programs, none with a stack per CPU; others get one here: {}",
            found.looked, found.given
        );
        agent.stop();
    }
}
