//! Programs that replace functions of their own in memory, as libraries for mocks and hooks do: where the kernel is told to probe
//! such a function, it takes the instruction from the file and writes a breakpoint into what is there now, and the program dies.

use std::fs;

use serde_json::Value;
use xtask::service::{Running, get};

use crate::support::{Agent, eventually, mounts::Immutable, must_be_root, often, scratch, service, settles, start};

const GOEXIT: &str = "runtime.Goexit";
const MUX: &str = "net/http.(*ServeMux).ServeHTTP";
const SERVE: &str = "net/http.serverHandler.ServeHTTP";
const METHODS: [&str; 2] = ["uprobe-multi", "perf-event"];
const REQUESTS: u64 = 20;

fn ask(running: &Running, path: &str) -> String {
    get(running.address("http").expect("it listens"), path).expect("it lives and answers").trim().to_owned()
}

fn asked(running: &Running) {
    for _ in 0..REQUESTS {
        ask(running, "/hello");
        assert_eq!(ask(running, "/goexit"), "done");
    }
}

fn replace(running: &Running, function: &str) {
    assert_eq!(ask(running, &format!("/patch?of={function}")), "true", "{function} is replaced");
}

fn put_back(running: &Running, function: &str) {
    assert_eq!(ask(running, &format!("/unpatch?of={function}")), "true", "{function} is as it was");
}

/// Why a feature is off at `/targets`.
fn off(target: &Value, feature: &str) -> Option<String> {
    let disabled = target["disabled"].as_array().expect("a list");
    let reason = disabled.iter().find(|it| it["feature"] == feature)?;
    Some(reason["reason"].as_str().expect("a text").to_owned())
}

/// Whatever was replaced before the agent came is not probed, and is told; what needs it is off, and the rest is measured.
#[test]
fn a_function_that_was_replaced_in_memory_is_not_probed() {
    must_be_root();
    let often = often("patched");
    for method in METHODS {
        for (function, feature) in [(GOEXIT, "panic"), (MUX, "route_pattern"), (SERVE, "http1_server")] {
            println!("  {method}, {function}");
            let mut running = start(&service("hostile"), &["-copy"]);
            let pid = running.pid();
            replace(&running, function);
            let agent = Agent::measuring(pid, &["--attach", method, "--config", &often]);
            for _ in 0..3 {
                asked(&running);
                agent.scrape();
            }
            let reason = off(&agent.target(pid).expect("it is there"), feature).expect("it is off");
            assert!(reason.contains(&format!("has changed the code of {function} in its memory")), "{reason}");
            if function == SERVE {
                assert_eq!((agent.scrape().total(pid), agent.scrape().active(pid)), (0, None), "absent, not false");
            } else {
                settles("the others are counted", &(6 * REQUESTS), || agent.scrape().total(pid));
            }
            agent.stop();
            asked(&running);
            running.stop().expect("it ends as asked");
        }
    }
}

/// While it is probed: told, and the probes stay, for the bytes that the program has kept, to put them back, have breakpoints in
/// them. What is put back is measured again.
#[test]
fn a_function_that_is_replaced_while_it_is_probed_is_told() {
    must_be_root();
    let often = often("patched-later");
    for method in METHODS {
        let mut running = start(&service("hostile"), &[]);
        let pid = running.pid();
        let agent = Agent::measuring(pid, &["--attach", method, "--config", &often]);
        let reason = || off(&agent.target(pid)?, "http1_server");
        assert_eq!(reason(), None);
        for _ in 0..2 {
            replace(&running, SERVE);
            let told = eventually("it is told", reason);
            assert!(told.contains(SERVE) && told.contains("since it was probed"), "{told}");
            asked(&running);
            put_back(&running, SERVE);
            eventually("it is as it was", || reason().is_none().then_some(()));
            let before = agent.scrape().total(pid);
            asked(&running);
            settles("each is counted", &(before + 2 * REQUESTS), || agent.scrape().total(pid));
        }
        agent.stop();
        asked(&running);
        running.stop().expect("it ends as asked");
    }
}

/// Probes on a file get into all of its processes: also into one that has replaced a function, whichever is found first.
#[test]
fn one_process_of_a_file_that_replaces_a_function_takes_the_probes_off_the_file() {
    must_be_root();
    let scratch = scratch("patched-file");
    let file = scratch.join("patching");
    fs::copy(service("hostile"), &file).expect("a copy");
    let _sealed = Immutable::new(&file);
    let often = often("patched-file");
    for method in METHODS {
        let first = [(); 3].map(|()| start(&file, &[]));
        replace(&first[1], GOEXIT);
        let agent = Agent::start(&["--executable", "patching", "--attach", method, "--config", &often]);
        let scope = |it: &Running| agent.wait_measured(it.pid())["probe_scope"].as_str().map(str::to_owned);
        for it in &first {
            scope(it);
            asked(it);
            settles("each has its own", &Some("process".into()), || scope(it));
        }
        // One more, by when probes could be on the file again; and one that is measured before it replaces a function.
        let next = start(&file, &[]);
        assert_eq!(scope(&next).as_deref(), Some("process"));
        for it in first.iter().chain([&next]) {
            asked(it);
        }
        assert!(off(&agent.wait_measured(first[1].pid()), "panic").expect("it is off").contains(GOEXIT));
        assert_eq!(off(&agent.wait_measured(next.pid()), "panic"), None);
        agent.stop();
        for mut it in first.into_iter().chain([next]) {
            asked(&it);
            it.stop().expect("it ends as asked");
        }
    }
}
