//! Programs built in ways that few use: BoringCrypto and FIPS 140 builds are measured like any other, experiments that move the
//! runtime's fields but for its figures; libraries and plugins are read; what cannot be measured (packed, 32-bit, big-endian) is
//! refused in words that say why.
//! Each compiles Go's standard library once more.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{Agent, agent::binary, load, must_be_root, scratch, settles, start};
use serde_json::Value;
use xtask::{go, service::Running, util, vm};

const SERVICE: &str = r#"package main

import (
	"fmt"
	"net"
	"net/http"
)

func hello(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello") }

func main() {
	http.HandleFunc("/hello", hello)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("{\"http\": %q}\n", listener.Addr())
	http.Serve(listener, nil)
}
"#;
/// Small, since a library compiles all it needs anew.
const LIBRARY: &str =
    "package main\n\nimport \"C\"\n\n//export Answer\nfunc Answer() int { return 42 }\n\nfunc main() {}\n";
const GARBLE: &str = "mvdan.cc/garble@v0.17.0";

/// Builds a program with the machine's Go.
fn build(name: &str, source: &str, arguments: &[&str], environment: &[(&str, &str)]) -> PathBuf {
    build_by(&toolchain(), name, source, arguments, environment)
}

fn build_by(
    toolchain: &go::Toolchain,
    name: &str,
    source: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> PathBuf {
    let directory = scratch(&format!("unusual-{name}"));
    fs::write(directory.join("main.go"), source).expect("cargo's directory is writable");
    fs::write(directory.join("go.mod"), "module unusual\n\ngo 1.22\n").expect("cargo's directory is writable");
    let mut command = toolchain.command(&directory);
    command.arg("build").args(arguments).args(["-o", "program", "."]).envs(environment.iter().copied());
    util::output(&mut command).unwrap_or_else(|error| panic!("{name} does not build: {error:#}"));
    directory.join("program")
}

fn toolchain() -> go::Toolchain {
    go::toolchain("local").expect("the machine has Go")
}

/// What `gopulse inspect` says.
fn inspect(file: &Path) -> Value {
    let printed = util::output(Command::new(binary()).args(["inspect", "--json"]).arg(file));
    serde_json::from_str(&printed.unwrap_or_else(|error| panic!("{error:#}"))).expect("it is JSON")
}

/// The one line by which it refuses.
fn refusal(file: &Path) -> String {
    let output = Command::new(binary()).arg("inspect").arg(file).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let line = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(line.lines().count(), 1, "{line}");
    line
}

/// Starts, loads and measures a stripped build of the service.
fn measured(name: &str, program: &Path, layouts: &str) {
    must_be_root();
    let inspection = inspect(program);
    assert_eq!(inspection["functions_from"], "gopclntab", "{name}");
    assert_eq!(inspection["layouts_from"], layouts, "{name}: {inspection}");
    let running = start(program, &[]);
    let agent = Agent::measuring(running.pid(), &[]);
    let address = running.address("http").expect("it said where").to_string();
    load(&["-address", &address, "-n", "2000", "-c", "8"], &["GET /hello 200 /hello 3", "GET /none 404 /none 1"]);
    settles(&format!("{name}'s requests"), &2000, || agent.scrape().total(running.pid()));
    println!("{name}: 2000 of 2000 requests, {}", inspection["go_version"]);
    agent.stop();
}

#[test]
fn boringcrypto() {
    let program = build("boring", SERVICE, &["-ldflags=-s -w"], &[("GOEXPERIMENT", "boringcrypto")]);
    assert!(inspect(&program)["go_version"].as_str().expect("text").ends_with("X:boringcrypto"));
    measured("boringcrypto", &program, "table");
}

/// nogreenteagc adds fields to `runtime.p`: read by the release's table, 10^13 goroutines had been created.
#[test]
fn an_experiment_that_moves_the_runtimes_structs() {
    let toolchain = go::toolchain("1.26").expect("Go 1.26 is to be had");
    let experiment = [("GOEXPERIMENT", "nogreenteagc"), ("CGO_ENABLED", "0")];
    let program = build_by(&toolchain, "nogreenteagc", SERVICE, &["-ldflags=-s -w"], &experiment);
    let version = inspect(&program)["go_version"].to_string();
    assert!(version.contains("X:nogreenteagc"), "{version}");
    measured("nogreenteagc", &program, "table");

    let running = start(&program, &[]);
    let agent = Agent::measuring(running.pid(), &[]);
    let target = agent.target(running.pid()).expect("a target");
    let off: Vec<_> = target["disabled"].as_array().expect("a list").iter().map(ToString::to_string).collect();
    let why = "no layouts for GOEXPERIMENT=nogreenteagc";
    assert!(off.iter().any(|off| off.contains("\"runtime\"") && off.contains(why)), "{off:?}");
    assert!(!off.iter().any(|off| off.contains("\"panic\"")), "it leaves runtime.g as it is: {off:?}");
    // By its own account it has done next to nothing.
    for sample in agent.scrape().samples {
        let absurd = sample.name.starts_with("go_") && !sample.name.contains("_bytes") && sample.value > 1e12;
        assert!(!absurd || sample.name.starts_with("go_gc_gomemlimit"), "{sample:?}");
    }
    agent.stop();
}

#[test]
fn fips_140() {
    let program = build("fips", SERVICE, &["-ldflags=-s -w"], &[("GOFIPS140", "v1.0.0"), ("CGO_ENABLED", "0")]);
    measured("FIPS 140", &program, "table");
}

#[test]
fn libraries_and_plugins_are_read() {
    for (mode, needed) in [("c-shared", "runtime.sched"), ("plugin", "runtime.sched")] {
        let program = build(mode, LIBRARY, &[&format!("-buildmode={mode}")], &[("CGO_ENABLED", "1")]);
        let inspection = inspect(&program);
        assert_eq!(inspection["main_module"], "unusual", "{mode}");
        assert!(inspection["variables"][needed].is_u64(), "{mode}: {}", inspection["variables"]);
        println!("{mode}: {} {}", inspection["go_version"], inspection["variables_from"]);
    }
}

/// A program in another language that loads Go: what is asked for is named, and that it is no Go program.
#[test]
fn go_in_a_shared_library_is_not_the_program() {
    const LOADS: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv) {
    if (argc < 2 || !dlopen(argv[1], RTLD_NOW)) return 1;
    printf("{}\n");
    fflush(stdout);
    pause();
}
"#;
    let library = build("c-shared", LIBRARY, &["-buildmode=c-shared"], &[("CGO_ENABLED", "1")]);
    let directory = library.parent().expect("it is in a directory");
    fs::write(directory.join("loads.c.txt"), LOADS).expect("cargo's directory is writable");
    let program = directory.join("loads");
    let mut compiler = Command::new("cc");
    compiler.args(["-x", "c"]).arg(directory.join("loads.c.txt")).arg("-o").arg(&program).arg("-ldl");
    util::output(&mut compiler).expect("there is a C compiler");
    let running = Running::spawn(Command::new(&program).arg(&library)).expect("it loads it");
    let pid = running.pid().to_string();
    let refused = Command::new(binary()).args(["run", "--pid", &pid]).output().expect("the agent starts");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("/loads") && said.contains("not a Go program"), "{said}");
    let agent = Agent::start(&["--all"]);
    assert!(agent.target(running.pid()).is_none());
    agent.stop();
}

/// By the packer of Debian's archive, whose suite has one.
#[test]
fn packed_by_upx() {
    let program = build("upx", SERVICE, &["-ldflags=-s -w"], &[("CGO_ENABLED", "0")]);
    let tools = util::target().join("tools/upx");
    let packer = tools.join("usr/bin/upx-ucl");
    if !packer.is_file() {
        vm::unpack("bullseye", &["upx-ucl:amd64", "libucl1:amd64"], &tools).expect("Debian's archive has it");
    }
    let mut command = Command::new(packer);
    command.env("LD_LIBRARY_PATH", tools.join("usr/lib/x86_64-linux-gnu")).arg("-q").arg(&program);
    util::output(&mut command).expect("it packs");
    let line = refusal(&program);
    assert!(line.contains("packed with UPX: unpack it with upx -d"), "{line}");
    print!("{line}");
}

#[test]
fn other_architectures_are_refused() {
    for (architecture, words) in [("386", "a 32-bit executable"), ("s390x", "a big-endian executable")] {
        let program = build(architecture, SERVICE, &[], &[("GOARCH", architecture), ("CGO_ENABLED", "0")]);
        let line = refusal(&program);
        assert!(line.contains(words), "{line}");
    }
}

/// Garble renames functions and writes a function table of its own: that is recognised, and nothing is attached.
#[test]
fn garbled_names() {
    let directory = scratch("unusual-garble");
    fs::write(directory.join("main.go"), SERVICE).expect("cargo's directory is writable");
    fs::write(directory.join("go.mod"), "module unusual\n\ngo 1.22\n").expect("cargo's directory is writable");
    let tools = util::target().join("tools/garble");
    let mut install = toolchain().command(&directory);
    util::output(install.args(["install", GARBLE]).env("GOBIN", &tools)).expect("the module proxy has garble");
    let go = toolchain().command(&directory);
    let mut garble = Command::new(tools.join("garble"));
    garble.current_dir(&directory).args(["build", "-o", "program", "."]);
    for (name, value) in go.get_envs() {
        if let Some(value) = value {
            garble.env(name, value);
        }
    }
    util::output(&mut garble).expect("garble builds it");
    let output = Command::new(binary()).args(["inspect"]).arg(directory.join("program")).output().expect("it runs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(said.contains("unknown magic") && said.contains("an obfuscator"), "{said}");
}
