//! Programs that replace functions of their own in memory, as libraries for mocks and hooks do: where the kernel is told to probe
//! such a function, it takes the instruction from the file and writes a breakpoint into what is there now, and the program dies.

use std::{fs, path::PathBuf};

use serde_json::Value;
use xtask::{
    go,
    service::{Running, get},
    util,
};

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

const PROGRAM: &str = r#"package main

import (
	"fmt"
	"net"
	"net/http"
	"os"

	"MODULE"
)

func main() {
	http.HandleFunc("/hello", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("patch") != "" {
			monkey.Patch()
		}
		_, _ = w.Write([]byte("hello\n"))
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("{\"pid\":%d,\"http\":%q}\n", os.Getpid(), l.Addr().String())
	panic(http.Serve(l, nil))
}
"#;

const LIBRARY: &str = r"package monkey

// Patch replaces nothing: what it is called is what counts.
func Patch() { FUNCTION(0, 1, 2) }

//go:noinline
func FUNCTION(addr uintptr, length int, prot int) { println(addr, length, prot) }
";

/// A program with a module of this name, and of that a function of this name.
fn with_library(module: &str, function: &str) -> PathBuf {
    let folder = scratch(&format!("patchers-{function}"));
    let library = folder.join("library");
    fs::create_dir_all(&library).expect("a directory");
    let put = |path: PathBuf, text: String| fs::write(path, text).expect("it is written");
    put(library.join("go.mod"), format!("module {module}\n\ngo 1.21\n"));
    put(library.join("library.go"), LIBRARY.replace("FUNCTION", function));
    put(folder.join("main.go"), PROGRAM.replace("MODULE", module));
    let version = if module.ends_with("/v2") { "v2.0.0" } else { "v1.0.0" };
    let requires = format!("require {module} {version}\n\nreplace {module} => ./library\n");
    put(folder.join("go.mod"), format!("module sample/patching\n\ngo 1.21\n\n{requires}"));
    let mut command = go::toolchain("local").expect("there is a Go").command(&folder);
    command.args(["build", "-ldflags=-s -w", "-o", "service", "."]);
    util::output(&mut command).unwrap_or_else(|error| panic!("{error:#}"));
    folder.join("service")
}

/// A library that replaces functions copies breakpoints with them: nothing is attached to a program that has one, whether it is known
/// by its module or, in a fork, by a function; what is read from memory is measured.
#[test]
fn a_program_with_a_library_that_replaces_functions_gets_no_probes() {
    must_be_root();
    let by = [
        ("github.com/agiledragon/gomonkey/v2", "apply", "by github.com/agiledragon/gomonkey/v2"),
        ("example.com/fork/monkey", "mprotectCrossPage", "by mprotectCrossPage"),
    ];
    for (module, function, known) in by {
        let mut running = start(&with_library(module, function), &[]);
        let pid = running.pid();
        let agent = Agent::measuring(pid, &[]);
        let target = agent.target(pid).expect("it is there");
        assert_eq!(target["probes"].as_array().map(Vec::len), Some(0), "{module}");
        for feature in ["http1_server", "panic", "goroutine_blocking", "stop_the_world"] {
            assert!(off(&target, feature).expect("it is off").contains(known), "{target}");
        }
        for _ in 0..REQUESTS {
            ask(&running, "/hello");
        }
        let scrape = agent.scrape();
        assert!(scrape.samples.iter().any(|it| it.name == "go_goroutines"), "the runtime is measured");
        assert_eq!((scrape.total(pid), scrape.active(pid), scrape.lost()), (0, None, vec![]), "absent, not false");
        let blocked = scrape.samples.iter().find(|it| it.name.starts_with("go_goroutine_blocked"));
        assert_eq!(blocked.map(|it| &it.name), None, "absent, not false");
        agent.stop();
        running.stop().expect("it ends as asked");
    }
}
