//! A service that brings its own HTTP/2, golang.org/x/net/http2: over TLS by ConfigureServer, in the clear by h2c.NewHandler.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    path::PathBuf,
    process::Command,
};

use crate::support::{
    Agent, agent::counted_by_service, http::connect, load, must_be_root, scratch, service_of, settles, start,
};
use xtask::{
    go::{self, Variant},
    util,
};

const MIX: [&str; 6] = [
    "GET /hello 200 /hello 5",
    "GET /items/{n} 200 /items/{id} 3",
    "GET /items/0 404 /items/{id} 1",
    "POST /items 201 /items 2",
    "GET /silent 200 /silent 1",
    "GET /fail 500 /fail 1",
];

#[test]
fn http2_of_golang_org_x_net() {
    must_be_root();
    for variant in [Variant::Default, Variant::Strip] {
        let running = start(&service_of("xnet", "local", variant), &[]);
        let agent = Agent::measuring(running.pid(), &[]);
        for (mode, kind) in [("h1", "http"), ("h2", "https"), ("h2c", "h2c")] {
            let address = running.address(kind).expect("it listens").to_string();
            load(&["-mode", mode, "-address", &address, "-n", "3000", "-c", "16", "-s", "4"], &MIX);
        }
        let own = counted_by_service(&running);
        assert_eq!(own.values().sum::<u64>(), 9000);
        settles("x/net's requests, and no preface among them", &own, || agent.scrape().counts(running.pid()));
        agent.stop();
        println!("x/net/http2, {}: 9000 requests equal", variant.name());
    }
}

/// A panicked request is read by its own server's layout: that of net/http in the same program is another in Go 1.27.
#[test]
fn panics_in_golang_org_x_net() {
    must_be_root();
    let running = start(&service_of("xnet", "1.27", Variant::Strip), &[]);
    let agent = Agent::measuring(running.pid(), &[]);
    for kind in ["https", "h2c"] {
        let mode = if kind == "https" { "h2" } else { "h2c" };
        let address = running.address(kind).expect("it listens").to_string();
        load(
            &["-mode", mode, "-address", &address, "-n", "200"],
            &["GET /panic 0 /panic 1", "GET /hello 200 /hello 1"],
        );
    }
    let key = |status, route: &str| ("GET".to_owned(), status, route.to_owned());
    let wanted = BTreeMap::from([(key(500, "/panic"), 200), (key(200, "/hello"), 200)]);
    settles("requests that panicked and others", &wanted, || agent.scrape().counts(running.pid()));
    settles("none is under way", &Some(0), || agent.scrape().active(running.pid()));
    assert_eq!(agent.scrape().lost(), Vec::<String>::new());
    agent.stop();
}

/// A connection in the clear that is upgraded (RFC 7540, 3.2): its first request goes on over HTTP/2, and is counted there, once.
#[test]
fn an_upgrade_goes_on_as_the_same_request() {
    const UPGRADES: u64 = 20;
    // After the answer 101: the client's preface, and settings without any.
    const HEAD: &[u8] =
        b"GET /items/7 HTTP/1.1\r\nHost: test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
        HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    must_be_root();
    let running = start(&service_of("xnet", "local", Variant::Strip), &[]);
    let agent = Agent::measuring(running.pid(), &[]);
    for _ in 0..UPGRADES {
        let mut stream = connect(running.address("h2c").expect("it listens"));
        stream.write_all(HEAD).expect("it reads");
        let mut answer = Vec::new();
        while !answer.windows(6).any(|window| window == b"item 7") {
            let mut some = [0; 512];
            let read = stream.read(&mut some).expect("it answers");
            assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend(&some[..read]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101"));
    }
    let wanted = BTreeMap::from([(("GET".to_owned(), 200, "/items/{id}".to_owned()), UPGRADES)]);
    settles("each is counted once", &wanted, || agent.scrape().counts(running.pid()));
    settles("none is under way", &Some(0), || agent.scrape().active(running.pid()));
    assert_eq!(agent.scrape().lost(), Vec::<String>::new());
    agent.stop();
}

/// A copy of golang.org/x/net whose version says nothing, stripped: its requests cannot be read. None is in flight for ever, and
/// each is told as lost.
#[test]
fn an_unknown_version_of_golang_org_x_net() {
    must_be_root();
    let running = start(&replaced(), &[]);
    let agent = Agent::measuring(running.pid(), &[]);
    let disabled = agent.target(running.pid()).expect("a target")["disabled"].to_string();
    assert!(disabled.contains("layout_unknown"), "{disabled}");
    for (mode, kind) in [("h1", "http"), ("h2", "https")] {
        let address = running.address(kind).expect("it listens").to_string();
        load(&["-mode", mode, "-address", &address, "-n", "300", "-c", "8"], &["GET /hello 200 /hello 1"]);
    }
    settles("those over HTTP/1 are counted", &300, || agent.scrape().total(running.pid()));
    settles("those over HTTP/2 are lost", &vec!["layout_unknown: 300".to_owned()], || agent.scrape().lost());
    settles("none is under way", &Some(0), || agent.scrape().active(running.pid()));
    agent.stop();
}

/// The service with a copy of golang.org/x/net in place of the module.
fn replaced() -> PathBuf {
    let folder = scratch("xnet-replaced");
    let toolchain = go::toolchain("local").expect("there is a Go");
    let run = |mut command: Command| util::output(&mut command).unwrap_or_else(|error| panic!("{error:#}"));
    let copy = |from: &str| {
        let mut command = Command::new("cp");
        command.args(["-r", "--no-preserve=mode", from]).arg(&folder);
        run(command);
    };
    for module in ["xnet", "self"] {
        copy(&util::root().join("xtask/go").join(module).display().to_string());
    }
    let go = |arguments: &[&str]| {
        let mut command = toolchain.command(&folder.join("xnet"));
        command.args(arguments).env("GOFLAGS", "-mod=mod");
        run(command)
    };
    let module = go(&["list", "-m", "-f", "{{.Dir}}", "golang.org/x/net"]);
    copy(module.trim());
    let name = PathBuf::from(module.trim());
    let name = name.file_name().expect("a module's directory").to_string_lossy();
    std::fs::rename(folder.join(&*name), folder.join("fork")).expect("it is copied");
    go(&["mod", "edit", "-replace", "golang.org/x/net=../fork"]);
    go(&["build", "-ldflags", "-s -w", "-o", "../service", "."]);
    folder.join("service")
}
