//! Whatever programs can do without end: executing themselves, beginning and ending, goroutines, threads, collections.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    thread,
};

use xtask::service::get;

use super::Ring;
use crate::support::{eventually, glob, service, settles, start};

/// Starts a hostile program of its own, which is ended by [`end`].
fn hostile(arguments: &[&str]) -> Child {
    Command::new(service("hostile")).args(arguments).stdout(Stdio::piped()).spawn().expect("it starts")
}

fn end(mut child: Child) {
    child.kill().expect("it can be ended");
    child.wait().expect("it has ended");
}

#[test]
fn a_program_that_executes_itself_without_end() {
    let ring = Ring::start(&["--executable", &glob(&service("hostile"))]);
    let mut storm = hostile(&["-exec", "300"]);
    let pid = storm.id();
    let mut said = String::new();
    let mut lines = BufReader::new(storm.stdout.take().expect("it is piped"));
    let reader = thread::spawn(move || {
        lines.read_line(&mut said).expect("it can be read");
        said
    });
    while !reader.is_finished() {
        ring.is_unharmed();
    }
    let said: serde_json::Value = serde_json::from_str(&reader.join().expect("it does not panic")).expect("it is JSON");
    let address = said["http"].as_str().and_then(|it| it.parse().ok()).expect("it listens");
    ring.agent.wait_measured(pid);
    for _ in 0..100 {
        get(address, "/hello").expect("it lives");
    }
    settles("it is counted from then on", &100, || ring.agent.scrape().total(pid));
    end(storm);
    ring.is_unharmed();
}

#[test]
fn processes_that_end_at_once_without_end() {
    let ring = Ring::start(&["--executable", &glob(&service("hostile"))]);
    let storm = thread::spawn(|| {
        for _ in 0..100 {
            let two: Vec<_> = (0..2).map(|_| hostile(&["-exit"])).collect();
            for mut one in two {
                assert!(one.wait().expect("it has ended").success(), "a measured program died");
            }
        }
    });
    while !storm.is_finished() {
        ring.is_unharmed();
    }
    storm.join().expect("it does not panic");
    // One that stays is measured as ever, and those that ended are forgotten.
    let late = start(&service("hostile"), &[]);
    ring.agent.wait_measured(late.pid());
    get(late.address("http").expect("it listens"), "/hello").expect("it lives");
    settles("it is counted", &1, || ring.agent.scrape().total(late.pid()));
    eventually("those that ended are forgotten", || (ring.agent.targets().len() <= 3).then_some(()));
    ring.is_unharmed();
}

#[test]
fn goroutines_and_threads_without_end() {
    let ring = Ring::start(&["--features", "all"]);
    ring.ask("/goroutines?n=300000");
    ring.is_unharmed();
    for _ in 0..3 {
        ring.ask("/threads?n=1000");
        ring.is_unharmed();
    }
}

#[test]
fn collections_without_end() {
    let ring = Ring::start(&["--features", "all"]);
    let address = ring.hostile.address("http").expect("it listens");
    let storm = thread::spawn(move || get(address, "/collect?seconds=3").expect("it answers"));
    while !storm.is_finished() {
        ring.is_unharmed();
    }
    let collections: u64 = storm.join().expect("it does not panic").trim().parse().expect("a number");
    println!("    {collections} collections");
    ring.is_unharmed();
}
