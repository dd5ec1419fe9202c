//! Programs whose executables are on a file system that stops answering: nobody else waits for it, neither for being measured nor
//! for an answer of the agent. Every `fork` of the machine would, were a probe being written to such a page.

use std::fs;

use serde_json::Value;
use xtask::service::{Running, get};

use crate::support::{
    Agent, http::free_port, mounts::Mounted, must_be_root, scratch, service, settles, stalling::Stalling, start,
};

const PROGRAMS: u64 = 40;

/// Processes of as many files on it, by whatever way these are seen.
pub(crate) fn run_all(directory: &std::path::Path) -> Vec<Running> {
    Stalling::names(PROGRAMS).map(|name| start(&directory.join(name), &[])).collect()
}

/// Starts an ordinary program now, and each request to it is counted, once.
fn is_measured(agent: &Agent, neighbour: &Running) {
    const REQUESTS: u64 = 100;
    agent.wait_measured(neighbour.pid());
    let before = agent.scrape().total(neighbour.pid());
    for _ in 0..REQUESTS {
        get(neighbour.address("http").expect("it listens"), "/hello").expect("it lives");
    }
    settles("the neighbour's requests", &(before + REQUESTS), || agent.scrape().total(neighbour.pid()));
    get(agent.address, "/healthz").expect("/healthz answers");
}

/// Waits until `/targets` says this of each of them.
fn are_told(agent: &Agent, programs: &[Running], state: &str, reason: &str) {
    settles("who is told otherwise", &Vec::new(), || {
        let targets = agent.targets();
        let told = |pid: u32| {
            let of_pid = targets.iter().find(|target| target["pid"] == pid);
            let has = |it: &Value| it["reason"].as_str().is_some_and(|it| it.contains(reason));
            let is = of_pid.is_some_and(|it| it["state"] == state && has(it));
            (!is).then(|| format!("{pid}: {of_pid:?}"))
        };
        programs.iter().filter_map(|program| told(program.pid())).collect()
    });
}

#[test]
fn executables_on_a_file_system_in_user_space_that_never_answers() {
    must_be_root();
    let hello = service("hello");
    let file_system =
        Stalling::mount(scratch("stalling").join("fuse"), fs::read(&hello).expect("it is built"), PROGRAMS);
    let programs = run_all(file_system.at());
    file_system.stall();
    let port = free_port();
    let ports: Vec<String> = programs
        .iter()
        .map(|it| it.address("http").expect("it listens").port())
        .chain([port])
        .map(|port| format!("--listen-port={port}"))
        .collect();
    let flags: Vec<&str> = ports.iter().map(String::as_str).chain(["--executable=never-answers-*0"]).collect();
    // Whether they are asked for by name, or it must first be seen that they are Go.
    let agent = Agent::start(&flags);
    let neighbour = start(&hello, &["-listen", &format!("127.0.0.1:{port}")]);
    is_measured(&agent, &neighbour);
    are_told(&agent, &programs, "unsupported", "a file system in user space (fuse)");
    // Nothing of the agent waits for it.
    agent.stop();
    file_system.go_on();
}

#[test]
fn executables_whose_file_system_never_answers_take_no_turn_of_others() {
    must_be_root();
    let hello = service("hello");
    let scratch = scratch("stalling-below");
    // As lazily pulled images are: what is behind the overlay cannot be seen.
    let file_system = Stalling::mount(scratch.join("fuse"), fs::read(&hello).expect("it is built"), PROGRAMS);
    let overlay = Mounted::overlay(file_system.at(), &scratch, "merged");
    let programs = run_all(&overlay.0);
    file_system.stall();
    let own = format!("--executable={}", hello.display());
    let agent = Agent::start(&["--executable=never-answers-*", &own]);
    let neighbour = start(&hello, &[]);
    is_measured(&agent, &neighbour);
    are_told(&agent, &programs, "preparing", "do not answer");
    is_measured(&agent, &neighbour);
    // Once it answers, they are measured too.
    file_system.go_on();
    for program in &programs {
        agent.wait_measured(program.pid());
    }
    is_measured(&agent, &programs[0]);
    agent.stop();
}
