//! Processes come, change and go; so does the agent, and it leaves nothing behind.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use crate::support::{
    Agent, eventually, glob,
    http::free_port,
    kernel_complaints, load, load_with_errors,
    memory::{probed, sites},
    must_be_root, scratch, service, service_of, settles, start,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use xtask::{
    go::Variant,
    service::{Running, get},
};

const METHODS: [&str; 2] = ["uprobe-multi", "perf-event"];
const HELLO: &str = "GET /hello 200 /hello 1";

fn http(running: &Running) -> String {
    running.address("http").expect("it listens").to_string()
}

/// Sends a hundred requests, and expects just them to be added.
fn counts_a_hundred_more(agent: &Agent, running: &Running) {
    let before = agent.scrape().total(running.pid());
    load(&["-address", &http(running), "-n", "100", "-c", "4"], &[HELLO]);
    settles("a hundred more", &(before + 100), || agent.scrape().total(running.pid()));
}

/// A copy of a service's binary that a test may replace or delete.
fn copy(name: &str, of: &Path) -> PathBuf {
    let binary = scratch(name).join("service");
    fs::copy(of, &binary).expect("the copy is made");
    binary
}

#[test]
fn an_agent_that_comes_to_a_busy_process() {
    must_be_root();
    let running = start(&service("hello"), &[]);
    let address = http(&running);
    for method in METHODS {
        let measured = AtomicBool::new(false);
        let agent = thread::scope(|scope| {
            // However long attaching takes: at least a second before it, and another once it is done.
            let busy = scope.spawn(|| {
                let (mut total, mut was_measured) = (0, false);
                // An agent that measures nothing ends the test elsewhere.
                for _ in 0..90 {
                    if was_measured {
                        break;
                    }
                    was_measured = measured.load(Ordering::Relaxed);
                    total += load(&["-address", &address, "-duration", "1s"], &[HELLO]).total;
                }
                total
            });
            thread::sleep(Duration::from_secs(1));
            let agent = Agent::measuring(running.pid(), &["--attach", method]);
            measured.store(true, Ordering::Relaxed);
            let total = busy.join().expect("the load generator ran");
            let scrape = agent.scrape();
            let counted = scrape.total(running.pid());
            println!("{method}: {counted} of {total} requests, {:?}", scrape.lost());
            assert!(counted > 0 && counted < total);
            // What was under way at that moment has no start; nothing else may be missing.
            assert!(scrape.lost().iter().all(|lost| lost.starts_with("start_not_seen")), "{:?}", scrape.lost());
            agent
        });
        settles("none is under way", &Some(0), || agent.scrape().active(running.pid()));
        counts_a_hundred_more(&agent, &running);
        agent.stop();
    }
}

#[test]
fn a_process_that_starts_under_load() {
    must_be_root();
    let binary = service("matrix");
    let agent = Agent::start(&["--executable", &glob(&binary)]);
    let address = format!("127.0.0.1:{}", free_port());
    let running = thread::scope(|scope| {
        let arguments = ["-address", &address, "-duration", "4s", "-rate", "20000"];
        // Until the service is there, nobody answers.
        let busy = scope.spawn(move || load_with_errors(&arguments, &["GET /ok 200 /ok 1"]));
        thread::sleep(Duration::from_millis(500));
        let running = start(&binary, &["-http", &address]);
        agent.wait_measured(running.pid());
        busy.join().expect("the load generator ran");
        running
    });
    let pid = running.pid();
    let own: u64 = running.counts().expect("it counts").iter().map(|it| it.count).sum();
    settles("none is under way", &Some(0), || agent.scrape().active(pid));
    let scrape = agent.scrape();
    println!("{} of {own} requests since its start, {:?}", scrape.total(pid), scrape.lost());
    assert!(scrape.total(pid) > 0 && scrape.total(pid) <= own);
    assert!(scrape.lost().iter().all(|lost| lost.starts_with("start_not_seen")), "{:?}", scrape.lost());
    let before = scrape.total(pid);
    load(&["-address", &address, "-n", "1000"], &["GET /ok 200 /ok 1"]);
    settles("a thousand more", &(before + 1000), || agent.scrape().total(pid));
    agent.stop();
}

#[test]
fn exec_in_place() {
    must_be_root();
    let (old, new) = (service("hello"), service_of("hello", "1.22", Variant::Strip));
    for flags in [["--executable", "hello-*"], ["--all", "--attach=perf-event"]] {
        let agent = Agent::start(&flags);
        let port = format!("127.0.0.1:{}", free_port());
        // A shell becomes a Go service, which becomes another, which becomes itself once more.
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "exec \"$0\" \"$@\""]).arg(&old).args(["-listen", &port]).env("SAMPLE_EXEC", &new);
        let running = Running::spawn(&mut shell).expect("the shell becomes the service");
        let pid = running.pid();
        let version = |agent: &Agent| agent.target(pid).map(|it| it["go_version"].as_str().unwrap_or("").to_owned());
        agent.wait_measured(pid);
        let first = version(&agent);
        counts_a_hundred_more(&agent, &running);
        for again in [false, true] {
            let link = fs::metadata(format!("/proc/{pid}/exe")).expect("it runs").modified().expect("it has a time");
            // Where the kernel put the image's random bytes: another place for each image. While one takes the other's place there
            // is nothing to read.
            let image = || fs::read(format!("/proc/{pid}/auxv")).ok().filter(|auxv| !auxv.is_empty());
            let before = image().expect("it runs");
            kill(Pid::from_raw(pid as i32), Signal::SIGUSR1).expect("it runs");
            eventually("it runs another program", || image().filter(|now| *now != before));
            eventually("the new program listens", || get(port.parse().ok()?, "/hello").ok());
            let now = fs::metadata(format!("/proc/{pid}/exe")).expect("it runs").modified().expect("it has a time");
            assert_eq!(link == now, again, "the same program only the second time");
            eventually("the new program is measured", || {
                let target = agent.target(pid).filter(|target| target["state"] == "measured")?;
                target["go_version"].as_str()?.starts_with("go1.22.").then_some(())
            });
            assert_ne!(version(&agent), first);
            counts_a_hundred_more(&agent, &running);
            let total = agent.scrape().total(pid);
            assert!(total < 200, "the former program's {total} requests are not the new one's");
        }
        agent.stop();
        println!("{}: exec in place counted", flags.join(" "));
    }
}

#[test]
fn a_binary_replaced_on_disk_while_it_runs() {
    must_be_root();
    let binary = copy("replaced", &service("hello"));
    let glob = binary.display().to_string();
    let agent = Agent::start(&["--executable", &glob]);
    let old = start(&binary, &[]);
    agent.wait_measured(old.pid());
    counts_a_hundred_more(&agent, &old);
    let next = binary.with_extension("next");
    fs::copy(service_of("hello", "1.22", Variant::Strip), &next).expect("the copy is made");
    fs::rename(&next, &binary).expect("it is replaced");
    let new = start(&binary, &[]);
    agent.wait_measured(new.pid());
    for running in [&new, &old] {
        counts_a_hundred_more(&agent, running);
    }
    let scrape = agent.scrape();
    assert_eq!((scrape.total(old.pid()), scrape.total(new.pid())), (200, 100));
    let version = |running: &Running| agent.target(running.pid()).expect("a target")["go_version"].clone();
    assert_ne!(version(&old), version(&new));
    agent.stop();
}

/// How many links to programs a process holds.
fn links(pid: u32) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs, and this is root");
    let names = descriptors.filter_map(|it| fs::read_link(it.ok()?.path()).ok());
    names
        .filter(|name| name.to_string_lossy().starts_with("anon_inode:bpf"))
        .filter(|name| name.to_string_lossy().ends_with("link"))
        .count()
}

/// Another program in the same inode, of the same size and time: to `stat` nothing has changed, and only the build id tells that
/// what is known of the first does not hold. Probes at its offsets would be in the middle of the second's instructions.
#[test]
fn a_binary_rewritten_in_place() {
    must_be_root();
    let programs = [service("hello"), service_of("hello", "1.22", Variant::Strip)];
    let mut contents = programs.each_ref().map(|it| fs::read(it).expect("it is built"));
    let size = contents.iter().map(Vec::len).max().unwrap_or_default();
    for content in &mut contents {
        content.resize(size, 0);
    }
    let binary = copy("rewritten", &programs[0]);
    fs::write(&binary, &contents[0]).expect("it is written");
    let identity = || {
        let meta = fs::metadata(&binary).expect("it is there");
        (meta.ino(), meta.len(), meta.modified().expect("it has a time"))
    };
    let first_identity = identity();
    let agent = Agent::start(&["--executable", &binary.display().to_string()]);
    let without = links(agent.pid());
    let mut versions = Vec::new();
    for content in [&contents[0], &contents[1], &contents[0]] {
        // The kernel puts what is attached to an inode into whatever is in it when it is next run: what was attached to the
        // earlier program has to be gone, which takes a moment after its end.
        eventually("the probes on the earlier program go", || (links(agent.pid()) == without).then_some(()));
        fs::write(&binary, content).expect("nobody runs it");
        let opened = fs::File::options().write(true).open(&binary).expect("it can be opened");
        opened.set_modified(first_identity.2).expect("times can be set");
        drop(opened);
        assert_eq!(identity(), first_identity);
        let mut running = start(&binary, &[]);
        agent.wait_measured(running.pid());
        counts_a_hundred_more(&agent, &running);
        assert_eq!(agent.scrape().total(running.pid()), 100);
        versions.push(agent.target(running.pid()).expect("a target")["go_version"].clone());
        running.stop().expect("it ends as asked, and was not killed by a breakpoint in the wrong place");
    }
    println!("the same file to stat, inspected as {versions:?}");
    assert_eq!(versions[0], versions[2]);
    assert_ne!(versions[0], versions[1]);
    agent.stop();
}

#[test]
fn a_deleted_binary() {
    must_be_root();
    for method in METHODS {
        let binary = copy("deleted", &service("hello"));
        let running = start(&binary, &[]);
        fs::remove_file(&binary).expect("it is deleted");
        for flags in [["--pid", &running.pid().to_string()], ["--executable", &binary.display().to_string()]] {
            let agent = Agent::start(&[flags[0], flags[1], "--attach", method]);
            agent.wait_measured(running.pid());
            counts_a_hundred_more(&agent, &running);
            agent.stop();
        }
    }
}

#[test]
fn a_target_that_exits() {
    must_be_root();
    let binary = service("hello");
    let agent = Agent::start(&["--executable", &glob(&binary)]);
    let (mut running, other) = (start(&binary, &[]), start(&binary, &[]));
    let pid = running.pid();
    for running in [&running, &other] {
        agent.wait_measured(running.pid());
        counts_a_hundred_more(&agent, running);
    }
    running.stop().expect("it ends");
    settles("its series are gone", &false, || agent.scrape().mentions(pid));
    assert!(agent.target(pid).is_none());
    counts_a_hundred_more(&agent, &other);
    assert_eq!(agent.scrape().total(other.pid()), 200, "the other's probes stay");
    agent.stop();
}

#[test]
fn every_way_of_selecting() {
    must_be_root();
    let binary = service("hello");
    let other = start(&service("matrix"), &[]);
    let early = start(&binary, &[]);
    let (pid, port) = (early.pid().to_string(), early.address("http").expect("it listens").port().to_string());
    let (name, path) = (glob(&binary), binary.display().to_string());
    let port_later = free_port().to_string();
    let flags: [&[&str]; 6] = [
        &["--pid", &pid],
        &["--executable", &name],
        &["--executable", &path],
        &["--executable", "hel?o-*"],
        &["--listen-port", &port, "--listen-port", &port_later],
        &["--all"],
    ];
    for flags in flags {
        let agent = Agent::start(flags);
        agent.wait_measured(early.pid());
        counts_a_hundred_more(&agent, &early);
        if flags[0] != "--pid" {
            let late = start(&binary, &["-listen", &format!("127.0.0.1:{port_later}")]);
            agent.wait_measured(late.pid());
            counts_a_hundred_more(&agent, &late);
        }
        assert_eq!(agent.target(other.pid()).is_some(), flags == ["--all"], "{flags:?}");
        agent.stop();
        println!("{}: counted", flags.join(" "));
    }
}

/// Contract: an end by a signal is clean and takes every probe, however they are attached. How long that took is printed: the kernel
/// takes perf events' probes away one after another, 85 ms each on an idle machine, so it is given two processes of these.
#[test]
fn signals_end_it_and_take_every_probe() {
    must_be_root();
    // Copies, since another agent on this machine may have probes in the services' own binaries.
    let mut services = ["hello", "edge", "matrix", "counted"]
        .map(|name| start(&copy(&format!("leave-{name}"), &service(name)), &[]))
        .into_iter()
        .collect::<Vec<_>>();
    for (method, processes) in METHODS.into_iter().zip([4, 2]) {
        services.truncate(processes);
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let agent = Agent::start(&["--executable", "**/leave-*/service", "--attach", method]);
            let sites = services.iter().map(|it| (it.pid(), sites(it.pid(), &agent.wait_measured(it.pid()))));
            let sites: Vec<_> = sites.collect();
            let all: usize = sites.iter().map(|(_, sites)| sites.len()).sum();
            assert_eq!(
                sites.iter().map(|(pid, sites)| probed(*pid, sites)).sum::<usize>(),
                all,
                "every probe is there"
            );
            let took = agent.stop_by(signal);
            println!("{method}, {signal}: {all} probes in {processes} processes gone in {took:.2?}");
            assert_eq!(sites.iter().map(|(pid, sites)| probed(*pid, sites)).sum::<usize>(), 0, "a probe is left");
        }
    }
}

/// While blocking is sampled, and while the cost of a probe is measured at the start, something is always being attached or
/// detached, which takes longest with perf events. A thread that was killed in it left its breakpoint behind, in one end of four.
#[test]
fn an_end_while_probes_come_and_go_leaves_none() {
    const AGENTS: u64 = 16;
    must_be_root();
    let running = start(&service("waits"), &["-parks", "20000"]);
    let pid = running.pid().to_string();
    let before = kernel_complaints();
    for i in 0..AGENTS {
        let agent = Agent::start(&["--pid", &pid, "--attach", "perf-event"]);
        thread::sleep(Duration::from_millis(100 + i * 131 % 1500));
        agent.stop();
    }
    let new: Vec<_> = kernel_complaints().difference(&before).cloned().collect();
    assert_eq!(new, Vec::<String>::new(), "the kernel complains");
    println!("{AGENTS} agents ended, and the kernel did not complain");
}

#[test]
fn kill_leaves_no_probe() {
    must_be_root();
    let running = start(&copy("kill", &service("hello")), &[]);
    let pid = running.pid();
    for method in METHODS {
        let agent = Agent::start(&["--pid", &pid.to_string(), "--attach", method]);
        let sites = sites(pid, &agent.wait_measured(pid));
        assert_eq!(probed(pid, &sites), sites.len());
        agent.kill();
        eventually("the kernel takes the probes of a dead agent", || (probed(pid, &sites) == 0).then_some(()));
        load(&["-address", &http(&running), "-n", "1000"], &[HELLO]);
        println!("{method}: no probe is left of {}", sites.len());
    }
}
