//! What users of this kind of program do, and what they then expect: names, ends, limits and selections of the usual and the
//! unusual sort. Each was reported of one program or another as wrong.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use xtask::{
    go::Variant,
    service::{Running, get},
};

use crate::support::{
    Agent, agent::binary, eventually, glob, load, must_be_root, often, scratch, service, service_of, settles, start,
};

fn ask(running: &Running, times: u64) {
    for _ in 0..times {
        get(running.address("http").expect("it listens"), "/hello").expect("it answers");
    }
}

/// The kernel cuts a process's name at 15 bytes, which may be in the middle of a character, and a file's name may be any bytes.
#[test]
fn names_that_are_not_utf_8() {
    must_be_root();
    let scratch = scratch("names");
    let names: [&[u8]; 3] = ["a订单服务网关".as_bytes(), b"caf\xe9", b"line\nend"];
    for name in names {
        let program: PathBuf = scratch.join(OsStr::from_bytes(name));
        fs::copy(service("hello"), &program).expect("a copy");
        let running = start(&program, &[]);
        let pid = running.pid().to_string();
        for flags in [["--executable", "*/names/*"], ["--pid", &pid]] {
            let agent = Agent::start(&flags);
            agent.wait_measured(running.pid());
            ask(&running, 20);
            settles("each is counted", &20, || agent.scrape().total(running.pid()));
            agent.stop();
        }
    }
}

/// A process that ends between two scrapes is shown by the second.
#[test]
fn last_figures_stay_until_a_scrape_has_shown_them() {
    must_be_root();
    let mut running = start(&service("hello"), &[]);
    let pid = running.pid();
    let agent = Agent::start(&["--executable", &glob(&service("hello"))]);
    agent.wait_measured(pid);
    ask(&running, 50);
    settles("the first are counted", &50, || agent.scrape().total(pid));
    ask(&running, 500);
    running.kill().expect("it runs");
    eventually("its end is seen", || agent.target(pid).filter(|it| it["state"] == "gone"));
    // Twice as long as figures stay that a scrape has shown.
    thread::sleep(Duration::from_secs(10));
    assert_eq!(agent.scrape().total(pid), 550);
    settles("and then they go", &false, || agent.scrape().mentions(pid));
    agent.stop();
}

/// Each link takes a file descriptor; systemd's soft limit is for programs that use select(2).
#[test]
fn a_soft_limit_of_open_files_is_raised() {
    must_be_root();
    let many = many("descriptors");
    let agent = Agent::start_after("ulimit -Sn 128", &["--executable", "*/descriptors/program"]);
    for running in &many {
        agent.wait_measured(running.pid());
    }
    agent.stop();
}

/// What failed by a limit is measured once there is room, and scrapes are answered meanwhile.
#[test]
fn what_could_not_be_attached_is_tried_again() {
    must_be_root();
    let mut many = many("again");
    let agent = Agent::start_after("ulimit -n 300", &["--executable", "*/again/program", "--config", &often("again")]);
    let states = || agent.targets().iter().map(|it| it["state"].as_str().unwrap_or("").to_owned()).collect::<Vec<_>>();
    // What failed is tried again, and then is neither for a while.
    eventually("each is measured or failed", || {
        let states = states();
        let has = |state: &str| states.iter().any(|it| it == state);
        let all = states.len() == many.len() && states.iter().all(|it| it == "measured" || it == "failed");
        (all && has("measured") && has("failed")).then_some(())
    });
    many.retain_mut(|it| {
        let failed = agent.target(it.pid()).is_some_and(|it| it["state"] == "failed");
        failed || it.kill().is_err()
    });
    for running in &many {
        agent.wait_measured(running.pid());
        ask(running, 3);
        settles("each is counted", &3, || agent.scrape().total(running.pid()));
    }
    agent.stop();
}

/// Thirty processes of one file, which take some 250 links.
fn many(name: &str) -> Vec<Running> {
    let program = scratch(name).join("program");
    fs::copy(service("hello"), &program).expect("a copy");
    (0..30).map(|_| start(&program, &[])).collect()
}

/// A program that was started through the dynamic linker runs that, as far as the kernel says.
#[test]
fn a_program_started_by_the_dynamic_linker_is_told_by_name() {
    struct Ended(Child);
    impl Drop for Ended {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    must_be_root();
    let linker =
        if cfg!(target_arch = "x86_64") { "/lib64/ld-linux-x86-64.so.2" } else { "/lib/ld-linux-aarch64.so.1" };
    let sleep = Ended(Command::new(linker).args(["/bin/sleep", "60"]).spawn().expect("the linker runs"));
    let pid = sleep.0.id().to_string();
    eventually("it runs", || {
        fs::read_link(format!("/proc/{pid}/exe")).ok().filter(|it| it.to_string_lossy().contains("ld-"))
    });
    let output = Command::new(binary()).args(["run", "--pid", &pid]).stdin(Stdio::null()).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("ld-linux") && said.contains("dynamic linker"), "{said}");
}

/// A symbolic link matches no process: the kernel names executables by their own paths.
#[test]
fn an_executable_that_is_a_symbolic_link_is_pointed_out() {
    must_be_root();
    let scratch = scratch("links");
    fs::create_dir_all(scratch.join("releases/5")).expect("a directory");
    fs::copy(service("hello"), scratch.join("releases/5/api")).expect("a copy");
    std::os::unix::fs::symlink("releases/5", scratch.join("current")).expect("a link");
    let link = scratch.join("current/api").display().to_string();
    let agent = Agent::start(&["--executable", &link]);
    let log = agent.log().join("\n");
    assert!(log.contains("symbolic link") && log.contains("releases/5/api"), "{log}");
    agent.stop();
}

/// Requests by route, whatever their method and status.
fn routes(agent: &Agent, pid: u32) -> BTreeMap<String, u64> {
    let mut routes = BTreeMap::new();
    for ((_, _, route), count) in agent.scrape().counts(pid) {
        *routes.entry(route).or_default() += count;
    }
    routes
}

/// A mux that is made anew, with patterns that are made at run time: an address of one is another's once it is freed.
#[test]
fn muxes_that_are_made_anew() {
    must_be_root();
    let names = ["from-aaaa", "from-bbbb", "from-cccc", "from-dddd", "from-eeee", "from-ffff"];
    for binary in [service("idioms"), service_of("idioms", "1.22", Variant::Strip)] {
        let running = start(&binary, &[]);
        let agent = Agent::measuring(running.pid(), &[]);
        let address = running.address("http").expect("it listens");
        let mut wanted = BTreeMap::from([("/reload".to_owned(), 40)]);
        for name in names.iter().cycle().take(40) {
            get(address, &format!("/reload?name={name}")).expect("it answers");
            for id in 0..10 {
                get(address, &format!("/{name}/{id}")).expect("it answers");
            }
            *wanted.entry(format!("/{name}/{{id}}")).or_default() += 10;
        }
        settles("requests of each route", &wanted, || routes(&agent, running.pid()));
        agent.stop();
    }
}

/// Of redirects a ServeMux does not tell the pattern; up to Go 1.25 and for `CONNECT` it gives the request the path that it redirects
/// to for one: no route, or any client could use up all that a service may have.
#[test]
fn redirects_to_a_slash() {
    must_be_root();
    for (go, status) in [("1.22", 301), ("1.26", 307)] {
        let running = start(&service_of("idioms", go, Variant::Strip), &[]);
        let agent = Agent::measuring(running.pid(), &[]);
        let address = running.address("http").expect("it listens").to_string();
        for redirected in ["GET /users/u{n}", "GET //x{n}/y", "CONNECT /users/u{n}"] {
            load(&["-address", &address, "-n", "300"], &[&format!("{redirected} {status} - 1")]);
        }
        load(&["-address", &address, "-n", "40"], &["GET /users/7/ 200 /users/{id}/ 1", "GET /about 200 /about 1"]);
        let wanted = BTreeMap::from([(String::new(), 900), ("/users/{id}/".to_owned(), 20), ("/about".to_owned(), 20)]);
        settles("requests of each route", &wanted, || routes(&agent, running.pid()));
        assert_eq!(agent.scrape().lost(), Vec::<String>::new());
        agent.stop();
    }
}

/// Middleware may answer whatever path a client makes up: such paths never take all routes.
#[test]
fn paths_that_middleware_turns_away() {
    const ROUTES: &str = "20";
    must_be_root();
    let running = start(&service_of("idioms", "1.26", Variant::Strip), &["-as", "guarded"]);
    let agent = Agent::measuring(running.pid(), &["--max-routes", ROUTES]);
    let address = running.address("http").expect("it listens").to_string();
    load(&["-address", &address, "-n", "300"], &["GET /made-up-{n} 401 - 1"]);
    load(&["-address", &address, "-n", "40"], &["GET /about 200 /about 1"]);
    settles("all are counted", &340, || agent.scrape().total(running.pid()));
    let seen = routes(&agent, running.pid());
    assert_eq!(
        (seen.len(), seen["/about"]),
        (5 + 2, 40),
        "a quarter of the routes, those past it, and its own: {seen:?}"
    );
    agent.stop();
}
