//! What a program serves and gopulse does not measure is named at `/targets` and by `inspect`: servers of other libraries, and programs
//! started through the dynamic linker.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use xtask::{
    go::{self, Variant},
    service::Running,
    util,
};

use crate::support::{Agent, agent::binary, eventually, must_be_root, scratch, service, service_of, start};

const MAIN: &str = r#"package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/fcgi"
	"os"

	"github.com/quic-go/quic-go/http3"
	"github.com/valyala/fasthttp"
)

func main() {
	if len(os.Args) > 1 {
		new(fasthttp.Server).Run()
		new(http3.Server).Run()
		cgi.Serve(nil)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("{\"http\": %q}\n", listener.Addr())
	fcgi.Serve(listener, http.NotFoundHandler())
}
"#;

/// Modules of these names, with the one function each by which they are known.
const MODULES: [(&str, &str, &str, &str); 2] = [
    ("github.com/valyala/fasthttp", "", "fasthttp", "serveConn"),
    ("github.com/quic-go/quic-go", "http3", "http3", "handleConn"),
];

fn build() -> PathBuf {
    let directory = scratch("not-measured");
    let write = |file: PathBuf, text: &str| {
        fs::create_dir_all(file.parent().expect("it is in a directory")).expect("cargo's directory is writable");
        fs::write(file, text).expect("cargo's directory is writable");
    };
    write(directory.join("main.go"), MAIN);
    let mut module = "module notmeasured\n\ngo 1.17\n".to_owned();
    for (path, below, package, function) in MODULES {
        let at = directory.join("modules").join(package);
        let replaced = ["\nrequire ", path, " v0.0.0\n\nreplace ", path, " => ./modules/", package, "\n"];
        module.extend(replaced);
        write(at.join("go.mod"), &format!("module {path}\n\ngo 1.17\n"));
        let code = format!(
            "package {package}\n\ntype Server struct{{ n int }}\n\nfunc (s *Server) Run() {{ s.{function}() }}\n\n\
             //go:noinline\nfunc (s *Server) {function}() {{ s.n++ }}\n"
        );
        write(at.join(below).join("server.go"), &code);
    }
    write(directory.join("go.mod"), &module);
    let mut command = go::toolchain("local").expect("the machine has Go").command(&directory);
    command.args(["build", "-mod=mod", "-trimpath", "-ldflags", "-s -w", "-o", "program", "."]);
    util::output(&mut command).unwrap_or_else(|error| panic!("it does not build: {error:#}"));
    directory.join("program")
}

fn servers(of: &Value) -> Vec<String> {
    let all = of["not_measured"].as_array().into_iter().flatten();
    all.map(|it| it["server"].as_str().expect("a name").to_owned()).collect()
}

/// Names of features in one of the lists.
fn features(of: &Value, list: &str) -> Vec<String> {
    let all = of[list].as_array().into_iter().flatten();
    let name = |it: &Value| it["feature"].as_str().or(it.as_str()).expect("a name").to_owned();
    all.map(name).collect()
}

fn inspect(file: &Path) -> Value {
    let printed = util::output(Command::new(binary()).args(["inspect", "--json"]).arg(file));
    serde_json::from_str(&printed.expect("it can be inspected")).expect("it is JSON")
}

#[test]
fn servers_of_other_libraries_are_named() {
    must_be_root();
    let program = build();
    let all = ["http3", "fasthttp", "fcgi", "cgi"];
    assert_eq!(servers(&inspect(&program)), all);
    assert!(servers(&inspect(&service("hello"))).is_empty());
    let (running, hello) = (start(&program, &[]), start(&service("hello"), &[]));
    let agent = Agent::start(&["--pid", &running.pid().to_string(), "--pid", &hello.pid().to_string()]);
    assert_eq!(servers(&agent.wait_measured(running.pid())), all);
    assert!(servers(&agent.wait_measured(hello.pid())).is_empty());
    let text = util::output(Command::new(binary()).arg("inspect").arg(&program)).expect("it can be inspected");
    assert!(text.contains("not measured  fcgi: net/http/fcgi"), "{text}");
    agent.stop();
}

/// What a program has no code for is not off: who reads `disabled` looks for what is wrong.
#[test]
fn what_a_program_does_not_use_is_not_off() {
    must_be_root();
    let servers = ["http1_server", "http2_server", "xnet_http2_server", "http_client", "grpc_server"];
    let (other, hello) = (build(), service("hello"));
    assert_eq!(features(&inspect(&other), "not_used"), servers);
    let (running, plain) = (start(&other, &[]), start(&hello, &[]));
    let agent = Agent::start(&["--pid", &running.pid().to_string(), "--pid", &plain.pid().to_string()]);
    let (running, plain) = (agent.wait_measured(running.pid()), agent.wait_measured(plain.pid()));
    for target in [&running, &plain, &inspect(&hello)] {
        assert_eq!(features(target, "disabled"), Vec::<String>::new(), "{target}");
    }
    assert_eq!(features(&running, "not_used"), servers);
    assert_eq!(
        features(&plain, "not_used"),
        ["xnet_http2_server", "hijack", "router_pattern", "http_client", "grpc_server"]
    );
    let text = util::output(Command::new(binary()).arg("inspect").arg(&hello)).expect("it can be inspected");
    assert!(text.contains("not used  XnetHttp2Server") && !text.contains("off  "), "{text}");
    agent.stop();
}

/// The dynamic linker of this machine.
fn linker() -> PathBuf {
    let names = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    names.iter().map(PathBuf::from).find(|it| it.exists()).expect("the machine has glibc")
}

#[test]
fn programs_started_through_the_dynamic_linker_are_named() {
    must_be_root();
    let program = service_of("matrix", "local", Variant::Cgo);
    let wrapped = Running::spawn(Command::new(linker()).arg(&program));
    let wrapped = wrapped.expect("it starts");
    let other =
        Running::spawn(Command::new(linker()).args(["/bin/sh", "-c", "echo '{}'; kill -STOP $$"])).expect("it starts");
    let agent = Agent::start(&["--all"]);
    let told = eventually("it is told of", || agent.target(wrapped.pid()));
    let reason = told["reason"].as_str().unwrap_or_default();
    let name = program.file_name().expect("a file").to_string_lossy();
    assert!(told["state"] == "unsupported" && reason.contains("dynamic linker") && reason.contains(&*name), "{told}");
    assert!(agent.target(other.pid()).is_none(), "it is not Go");
    agent.stop();
}
