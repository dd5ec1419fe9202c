//! Programs as the compiler makes them with a profile of their own load: functions that are to be probed are copied into those that
//! call them often.

use std::{fs, path::PathBuf, process::Command};

use xtask::{go, service::get, util};

use crate::support::{Agent, must_be_root, scratch, settles, start};

/// hello, as with a profile by which net/http's loop over requests calls `finishRequest` often.
fn with_profile() -> PathBuf {
    let folder = scratch("inlined");
    let toolchain = go::toolchain("local").expect("there is a Go");
    let sample = util::root().join("xtask/go/hello");
    let run = |mut command: Command| util::output(&mut command).unwrap_or_else(|error| panic!("{error:#}"));
    let mut command = toolchain.command(&sample);
    command.args(["env", "GOROOT"]);
    let source = PathBuf::from(run(command).trim()).join("src/net/http/server.go");
    let source = fs::read_to_string(source).expect("Go has its source");
    let line = |text: &str| source.lines().position(|line| line.trim_start().starts_with(text)).expect("it is there");
    // What cmd/preprofile makes of a profile: caller, callee, the call's distance in lines from the caller's first, its weight.
    let profile = format!(
        "GO PREPROFILE V1\nnet/http.(*conn).serve\nnet/http.(*response).finishRequest\n{} 1000000\n",
        line("w.finishRequest()") - line("func (c *conn) serve(")
    );
    let (at, program) = (folder.join("profile"), folder.join("service"));
    fs::write(&at, profile).expect("it is written");
    let mut command = toolchain.command(&sample);
    command.args(["build", &format!("-gcflags=net/http=-pgoprofile={}", at.display()), "-ldflags=-s -w", "-o"]);
    command.arg(&program).arg(".");
    run(command);
    program
}

/// Requests would begin and never end: none is counted, which is told with both functions' names, and the rest is measured.
#[test]
fn a_request_whose_end_is_inlined_is_not_counted_and_that_is_told() {
    must_be_root();
    let mut running = start(&with_profile(), &[]);
    let pid = running.pid();
    let agent = Agent::measuring(pid, &[]);
    let target = agent.target(pid).expect("it is there");
    let disabled = target["disabled"].as_array().expect("a list");
    let off = disabled.iter().find(|it| it["feature"] == "http1_server").expect("it is off");
    let reason = off["reason"].as_str().expect("a text");
    assert!(reason.contains("inlined net/http.(*response).finishRequest into net/http.(*conn).serve"), "{reason}");
    for _ in 0..50 {
        get(running.address("http").expect("it listens"), "/hello").expect("it answers");
    }
    let goroutines = || agent.scrape().samples.iter().any(|it| it.name == "go_goroutines");
    settles("the runtime is measured", &true, goroutines);
    let scrape = agent.scrape();
    assert_eq!((scrape.total(pid), scrape.active(pid), scrape.lost()), (0, None, vec![]), "absent, not false");
    agent.stop();
    running.stop().expect("it ends as asked");
}
