//! Bad input: one line that says what is wrong and what to do, and the right exit code. One bad target never stops others.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use crate::support::{Agent, agent::binary, load, must_be_root, scratch, service, settles, start};

/// Runs the agent's binary, which is to fail with this code and one line that holds all of these words.
#[track_caller]
fn fails(arguments: &[&str], code: i32, words: &[&str]) {
    failed(&Command::new(binary()).args(arguments).output().expect("it runs"), code, words);
}

#[track_caller]
fn failed(output: &Output, code: i32, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    println!("{code}: {}", stderr.trim_end());
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "one line: {stderr}");
    assert!(output.stdout.is_empty(), "nothing on standard output");
    for word in words {
        assert!(stderr.contains(word), "`{word}` is not in: {stderr}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("cargo's directories have plain names")
}

#[test]
fn files_that_cannot_be_inspected() {
    let directory = scratch("errors-inspect");
    let go = fs::read(service("hello")).expect("it was built");
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        fs::write(&path, bytes).expect("cargo's directory is writable");
        path
    };
    for length in [1, 16, 64, 4096, go.len() / 2] {
        let cut = file(&format!("truncated-{length}"), &go[..length]);
        fails(&["inspect", text(&cut)], 1, &[text(&cut)]);
    }
    fails(&["inspect", text(&file("empty", b""))], 1, &["empty"]);
    fails(&["inspect", text(&file("script", b"#!/bin/sh\nexit 0\n"))], 1, &["ELF"]);
    fails(&["inspect", "/bin/sh"], 1, &["/bin/sh", "Go"]);
    fails(&["inspect", text(&directory)], 1, &[text(&directory)]);
    fails(&["inspect", text(&directory.join("missing"))], 1, &["missing", "No such file"]);
}

/// A command as a user without any privilege.
fn as_nobody(arguments: &[&str]) -> Output {
    must_be_root();
    // Directories above the checkout may be closed to others: a copy lies where everyone can read.
    let directory = std::env::temp_dir().join(format!("gopulse-nobody-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("the directory for temporary files is writable");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let copy = directory.join("gopulse");
    fs::copy(binary(), &copy).expect("the copy is made");
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"])
        .arg(&copy)
        .args(arguments)
        .current_dir("/")
        .output()
        .expect("setpriv (util-linux) is there");
    fs::remove_dir_all(&directory).expect("it is ours");
    output
}

#[test]
fn no_privilege() {
    let output = as_nobody(&["run", "--all", "--metrics-address", "127.0.0.1:0"]);
    failed(&output, 1, &["no permission", "root", "CAP_BPF"]);
    let directory = std::env::temp_dir().join(format!("gopulse-closed-{}", std::process::id()));
    fs::write(&directory, "closed").expect("the directory for temporary files is writable");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o600)).expect("it is ours");
    failed(&as_nobody(&["inspect", text(&directory)]), 1, &["Permission denied"]);
    fs::remove_file(&directory).expect("it is ours");
}

#[test]
fn another_s_process_without_privilege() {
    must_be_root();
    let running = start(&service("hello"), &[]);
    let output = as_nobody(&["run", "--pid", &running.pid().to_string(), "--metrics-address", "127.0.0.1:0"]);
    failed(&output, 1, &[&running.pid().to_string(), "ermission"]);
}

#[test]
fn processes_that_cannot_be_measured() {
    must_be_root();
    let mut ended = Command::new("/bin/true").spawn().expect("it starts");
    ended.wait().expect("it ends");
    fails(&["run", "--pid", &ended.id().to_string()], 1, &[&ended.id().to_string(), "no process"]);
    let mut sleeper = Command::new("/bin/sleep").arg("60").spawn().expect("it starts");
    let pid = sleeper.id().to_string();
    let output = Command::new(binary()).args(["run", "--pid", &pid]).output().expect("it runs");
    sleeper.kill().expect("it runs");
    sleeper.wait().expect("it ends");
    failed(&output, 1, &[&pid, "Go"]);
}

#[test]
fn a_port_in_use() {
    must_be_root();
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    fails(&["run", "--all", "--metrics-address", &address], 1, &[&address, "--metrics-address"]);
}

#[test]
fn configurations_that_are_wrong() {
    let directory = scratch("errors-configuration");
    let file = |name: &str, yaml: &str| {
        let path = directory.join(name);
        fs::write(&path, yaml).expect("cargo's directory is writable");
        text(&path).to_owned()
    };
    fails(&["run", "--config", &file("key", "max_rouets: 5\n")], 2, &["max_rouets"]);
    fails(&["run", "--config", &file("nested", "select:\n  al: true\n")], 2, &["unknown field `al`"]);
    fails(&["run", "--config", &file("type", "max_routes: many\nselect:\n  all: true\n")], 2, &["max_routes"]);
    fails(&["run", "--config", &file("yaml", "select: [\n")], 2, &["yaml"]);
    fails(&["run", "--config", text(&directory.join("missing"))], 2, &["missing", "No such file"]);
    fails(&["run"], 2, &["nothing to measure", "--all"]);
    fails(&["run", "--check"], 2, &["nothing to measure"]);
    fails(&["run", "--executable", "a["], 2, &["a["]);
    fails(&["run", "--all", "--max-routes", "0"], 2, &["max_routes", "1 to 10000"]);
    fails(&["run", "--all", "--log-level", "a=b=c"], 2, &["log level"]);
}

#[test]
fn usage_errors() {
    for arguments in [&["run", "--pid", "x"][..], &["run", "--frobnicate"], &["frobnicate"], &[]] {
        let output = Command::new(binary()).args(arguments).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn check_prints_the_effective_configuration() {
    let file = scratch("errors-check").join("gopulse.yaml");
    fs::write(&file, "max_routes: 7\nselect:\n  executables: [shop]\n").expect("cargo's directory is writable");
    let arguments = ["run", "--check", "--config", text(&file), "--max-series", "100"];
    let output = Command::new(binary()).args(arguments).output().expect("it runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && output.stderr.is_empty());
    for line in ["max_routes: 7", "max_series: 100", "- shop", "metrics_address: 127.0.0.1:9464"] {
        assert!(printed.contains(line), "`{line}` is not in: {printed}");
    }
}

/// Bad ones among the selected are named at `/targets`; the good one is measured.
#[test]
fn one_bad_target_does_not_stop_the_others() {
    must_be_root();
    let directory = scratch("errors-targets");
    let mut copies = Vec::new();
    for name in ["mixed-good", "mixed-shell"] {
        let from = if name == "mixed-good" { service("hello") } else { "/bin/sleep".into() };
        let to = directory.join(name);
        fs::copy(from, &to).expect("the copy is made");
        copies.push(to);
    }
    let mut bad = Command::new(&copies[1]).arg("600").spawn().expect("it starts");
    let good = start(&copies[0], &[]);
    let agent = Agent::start(&["--executable", "mixed-*", "--pid", &bad.id().to_string()]);
    agent.wait_measured(good.pid());
    let target = agent.wait_state(bad.id(), "unsupported");
    assert!(target["reason"].as_str().is_some_and(|reason| reason.contains("Go")), "{target}");
    let address = good.address("http").expect("it listens").to_string();
    load(&["-address", &address, "-n", "100"], &["GET /hello 200 /hello 1"]);
    settles("the good one's requests", &100, || agent.scrape().total(good.pid()));
    bad.kill().expect("it runs");
    bad.wait().expect("it ends");
    agent.stop();
}
