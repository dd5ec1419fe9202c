//! What is measured is not harmed: no probe of one program gets into another that takes its file's place, whatever the way in
//! which it is written, and each is counted by its own offsets. Half of the long form's restarts were fatal when links on files
//! outlived the files' processes.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use xtask::{
    go::Variant,
    service::{Running, get},
};

use crate::support::{
    Agent, eventually,
    http::free_port,
    kernel_complaints,
    mounts::{Mounted, run},
    must_be_root, often, scratch, service, service_of, settles, start,
};

/// How a program's next version gets its place.
#[derive(Clone, Copy, Debug)]
enum Written {
    /// As `cat >`, `cp` and `rsync --inplace` do it: the inode stays.
    InPlace,
    /// As `mv` does it.
    Renamed,
    /// Deleted first: file systems give the next file the number of the last, once nobody holds that.
    Unlinked,
}

const WAYS: [Written; 3] = [Written::InPlace, Written::Renamed, Written::Unlinked];
const DELAYS_MS: [u64; 5] = [0, 10, 50, 200, 1000];
const METHODS: [&str; 2] = ["uprobe-multi", "perf-event"];
/// Requests to each process of a version, some before it is measured and these after.
const REQUESTS: u64 = 20;

/// Two programs in files of one size; without build ids where `ids` says so.
fn versions(ids: bool) -> [Vec<u8>; 2] {
    let programs = [service("hello"), service_of("hello", "1.22", Variant::Strip)];
    let mut contents = programs.each_ref().map(|it| fs::read(it).expect("it is built"));
    let size = contents.iter().map(Vec::len).max().unwrap_or_default();
    for content in &mut contents {
        content.resize(size.next_multiple_of(4096), 0);
        if !ids {
            erase_build_id(content);
        }
    }
    contents
}

/// As builds with `-ldflags=-buildid=` and those of Bazel, whose id is a constant.
fn erase_build_id(content: &mut [u8]) {
    let id = gobinary_build_id(content);
    let hex = |id: &str| -> Option<Vec<u8>> {
        let pairs = id.as_bytes().chunks_exact(2);
        pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
    };
    let Some(id) = id else { return };
    for raw in [Some(id.clone().into_bytes()), hex(&id)].into_iter().flatten() {
        while let Some(at) = content.windows(raw.len()).position(|window| window == raw) {
            content[at..at + raw.len()].fill(b'0');
        }
    }
}

fn gobinary_build_id(content: &[u8]) -> Option<String> {
    let path = scratch("build-id").join("program");
    fs::write(&path, content).expect("it is written");
    gobinary::build_id(fs::File::open(&path).expect("it is there")).expect("it is an executable")
}

/// Puts a version into its place, with the same times whichever it is.
fn put(at: &Path, content: &[u8], way: Written) {
    let write = |path: &Path| {
        fs::write(path, content).expect("nobody runs it");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        let opened = fs::File::options().write(true).open(path).expect("it can be opened");
        opened.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1)).expect("times can be set");
    };
    match way {
        Written::InPlace => write(at),
        Written::Renamed => {
            let next = at.with_extension("next");
            write(&next);
            fs::rename(&next, at).expect("it is renamed");
        }
        Written::Unlinked => {
            fs::remove_file(at).expect("it is there");
            write(at);
        }
    }
}

/// No process is begun while a program is written: the child would hold the file open for a moment, and whoever runs it then is told
/// that it is busy.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static FORKS: Mutex<()> = Mutex::new(());
    FORKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks until a request is answered wrongly, `times` at most.
fn ask(running: &Running, times: u64) -> u64 {
    let address = running.address("http").expect("it listens");
    (0..times).take_while(|_| get(address, "/hello").is_ok()).count() as u64
}

/// A place for a program: where it is run, and where it is written, which is another path for a lower layer.
struct Place {
    name: &'static str,
    run: PathBuf,
    write: PathBuf,
    _mounts: Vec<Mounted>,
}

fn places(scratch: &Path) -> Vec<Place> {
    let plain = scratch.join("plain");
    fs::create_dir_all(&plain).expect("a directory");
    let memory = Mounted::new(&["-t", "tmpfs", "tmpfs"], scratch.join("memory"));
    let lower = scratch.join("lower");
    fs::create_dir_all(&lower).expect("a directory");
    let overlay = |name| Mounted::overlay(&lower, scratch, name);
    let (below, above) = (overlay("below"), overlay("above"));
    let place = |name, run: &Path, write: &Path, mounts| Place {
        name,
        run: run.join("program"),
        write: write.join("program"),
        _mounts: mounts,
    };
    let (memory_at, below_at, above_at) = (memory.0.clone(), below.0.clone(), above.0.clone());
    vec![
        place("a disk", &plain, &plain, vec![]),
        place("tmpfs", &memory_at, &memory_at, vec![memory]),
        place("an overlay's upper layer", &above_at, &above_at, vec![above]),
        place("an overlay's lower layer", &below_at, &lower, vec![below]),
    ]
}

/// One version takes the other's place again and again, so often by each method; at all places at once, since an agent mostly waits
/// for its turn to read an executable of one owner. Each place has an agent of its own.
fn restart(restarts: [usize; 2]) {
    must_be_root();
    let before = kernel_complaints();
    let scratch = scratch("never-harm");
    let contents = [versions(true), versions(false)];
    let places = places(&scratch);
    let (mut deaths, mut total) = (Vec::new(), 0);
    thread::scope(|scope| {
        let at_each: Vec<_> =
            places.iter().map(|place| scope.spawn(|| restart_at(place, &contents, restarts))).collect();
        for (place, ended) in places.iter().zip(at_each) {
            let (processes, died) = ended.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            println!("{}: {processes} processes, {} died", place.name, died.len());
            total += processes;
            deaths.extend(died);
        }
    });
    assert!(deaths.is_empty(), "{} of {total} died or were counted wrongly: {deaths:#?}", deaths.len());
    let told: Vec<_> = kernel_complaints().difference(&before).cloned().collect();
    assert!(told.is_empty(), "the kernel complains: {told:#?}");
}

/// The restarts at one place: how many processes there were, and which died.
fn restart_at(place: &Place, contents: &[[Vec<u8>; 2]; 2], restarts: [usize; 2]) -> (usize, Vec<String>) {
    let (mut deaths, mut total) = (Vec::new(), 0);
    // An overlay goes by what a file of its lower layer was when it first saw it.
    fs::write(&place.write, b"").expect("it is written");
    put(&place.write, &contents[0][0], Written::InPlace);
    for (method, restarts) in METHODS.into_iter().zip(restarts) {
        let alone = one_at_a_time();
        let agent = Agent::start(&["--executable", &place.run.display().to_string(), "--attach", method]);
        drop(alone);
        for i in 0..restarts {
            // Strides without a common divisor: every way meets every delay.
            let way = if place.run == place.write { WAYS[i % WAYS.len()] } else { Written::InPlace };
            let delay = DELAYS_MS[i % DELAYS_MS.len()];
            let processes = if i % 12 == 7 { 20 } else { 1 + i % 2 };
            let content = &contents[i / 2 % 2][i % 2];
            let alone = one_at_a_time();
            put(&place.write, content, way);
            drop(alone);
            thread::sleep(Duration::from_millis(delay));
            let case = format!("{}, {way:?}, {delay} ms, {processes} processes, {method}, restart {i}", place.name);
            total += processes;
            deaths
                .extend(one_version(&agent, &place.run, processes).into_iter().map(|death| format!("{case}: {death}")));
        }
        agent.stop();
    }
    (total, deaths)
}

/// Starts the program that is there, asks at once, and again once it is measured; ends it without a word. What went wrong.
fn one_version(agent: &Agent, program: &Path, processes: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    let alone = one_at_a_time();
    let started: Vec<_> = (0..processes).map(|_| Running::start(program, &[])).collect();
    drop(alone);
    let mut all = Vec::new();
    for running in started {
        match running {
            Ok(running) => all.push(running),
            Err(error) => wrong.push(format!("it did not start: {error:#}")),
        }
    }
    for running in &all {
        if ask(running, REQUESTS) < REQUESTS {
            wrong.push("it died at its first requests".to_owned());
        }
    }
    for running in &mut all {
        if !running.is_alive() {
            continue;
        }
        let pid = running.pid();
        agent.wait_measured(pid);
        let before = agent.scrape().total(pid);
        if ask(running, REQUESTS) < REQUESTS {
            wrong.push("it died once it was measured".to_owned());
            continue;
        }
        settles("each request is counted once", &(before + REQUESTS), || agent.scrape().total(pid));
    }
    for running in &mut all {
        if running.is_alive() {
            running.kill().expect("it is a child");
        } else {
            wrong.push("it was not there any more".to_owned());
        }
    }
    wrong
}

#[test]
fn versions_over_each_other_in_place_by_rename_and_by_unlink() {
    // Perf events take seconds to go from many processes.
    restart([10, 4]);
}

/// The same task runs one version, a shell, which writes the other over it, and that. The shell waits for as long as limits.md says
/// that taking the probes away can take: the kernel needs a tenth of a second for each by perf events.
#[test]
fn versions_over_each_other_by_a_chain_of_execs() {
    must_be_root();
    let scratch = scratch("never-harm-chain");
    let program = scratch.join("program");
    let stored = ["first", "second"].map(|name| scratch.join(name));
    for (stored, content) in stored.iter().zip(&versions(false)) {
        fs::write(stored, content).expect("it is written");
    }
    let script = scratch.join("replace");
    let text =
        format!("#!/bin/sh\ncat \"$SAMPLE_NEXT\" > {0}\nsleep \"$SAMPLE_REST\"\nexec {0} \"$@\"\n", program.display());
    fs::write(&script, text).expect("it is written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("it is ours");
    for (method, rest) in METHODS.into_iter().zip(["0.5", "3"]) {
        let agent = Agent::start(&["--executable", &program.display().to_string(), "--attach", method]);
        for i in 0..4 {
            fs::copy(&stored[i % 2], &program).expect("nobody runs it");
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
            let address = format!("127.0.0.1:{}", free_port());
            let mut command = Command::new(&program);
            command.args(["-listen", &address]);
            command.env("SAMPLE_EXEC", &script).env("SAMPLE_NEXT", &stored[(i + 1) % 2]).env("SAMPLE_REST", rest);
            let mut running = Running::spawn(&mut command).expect("it starts");
            let pid = running.pid();
            let first = agent.wait_measured(pid)["go_version"].clone();
            assert_eq!(ask(&running, REQUESTS), REQUESTS);
            kill(Pid::from_raw(pid as i32), Signal::SIGUSR1).expect("it runs");
            eventually("the other version is measured", || {
                assert!(running.is_alive(), "{method}: it died");
                agent.target(pid).filter(|it| it["state"] == "measured" && it["go_version"] != first)
            });
            eventually("it listens", || get(address.parse().ok()?, "/hello").ok());
            let before = agent.scrape().total(pid);
            assert_eq!(ask(&running, REQUESTS), REQUESTS, "{method}: it died");
            settles("each is counted once", &(before + REQUESTS), || agent.scrape().total(pid));
            running.stop().expect("it ends as asked");
        }
        agent.stop();
    }
}

/// Two files below overlayfs that agree in all that `stat` says and are different programs: images that are file systems of their
/// own, of which the second was made from a copy of the first.
#[test]
fn twins_below_overlays() {
    must_be_root();
    let scratch = scratch("never-harm-twins");
    let contents = versions(false);
    let images = twins(&scratch, &contents);
    for method in METHODS {
        let layers: Vec<_> = images
            .iter()
            .zip(["layer-a", "layer-b"])
            .map(|(image, name)| {
                Mounted::new(&["-o", "loop,ro", image.to_str().expect("a plain path")], scratch.join(name))
            })
            .collect();
        let mounts: Vec<_> =
            layers.iter().zip(["a", "b"]).map(|(layer, name)| Mounted::overlay(&layer.0, &scratch, name)).collect();
        let agent = Agent::start(&["--executable", "*/twin", "--attach", method]);
        let mut running = Vec::new();
        for mount in &mounts {
            let it = start(&mount.0.join("twin"), &[]);
            agent.wait_measured(it.pid());
            running.push(it);
        }
        let versions: Vec<_> =
            running.iter().map(|it| agent.target(it.pid()).expect("a target")["go_version"].clone()).collect();
        assert_ne!(versions[0], versions[1], "each is inspected");
        for it in &mut running {
            let before = agent.scrape().total(it.pid());
            assert_eq!(ask(it, REQUESTS), REQUESTS, "{method}: it died");
            settles("each is counted once", &(before + REQUESTS), || agent.scrape().total(it.pid()));
            it.stop().expect("it ends as asked");
        }
        agent.stop();
        drop(mounts);
    }
}

/// Images with a file `twin` at the same place, of the same times, and another content.
fn twins(scratch: &Path, contents: &[Vec<u8>; 2]) -> [PathBuf; 2] {
    const BLOCK: usize = 4096;
    let image = scratch.join("pattern.img");
    fs::File::create(&image).and_then(|file| file.set_len(96 << 20)).expect("a file");
    run("mkfs.ext4", &["-q", "-b", "4096", image.to_str().expect("a plain path")]);
    let mark = |number: usize| format!("block {number:08} of the twin").into_bytes();
    {
        let filled = Mounted::new(&["-o", "loop", image.to_str().expect("a plain path")], scratch.join("filled"));
        let mut pattern = vec![b'.'; contents[0].len()];
        for (number, block) in pattern.chunks_mut(BLOCK).enumerate() {
            let mark = mark(number);
            block[..mark.len()].copy_from_slice(&mark);
        }
        let twin = filled.0.join("twin");
        fs::write(&twin, pattern).expect("it is written");
        fs::set_permissions(&twin, fs::Permissions::from_mode(0o755)).expect("it is ours");
        run("umount", &[filled.0.to_str().expect("a plain path")]);
    }
    let pattern = fs::read(&image).expect("it is there");
    let numbers: HashMap<Vec<u8>, usize> =
        (0..contents[0].len() / BLOCK).map(|number| (mark(number), number)).collect();
    let length = mark(0).len();
    ["a.img", "b.img"].map(|name| {
        let content = &contents[usize::from(name == "b.img")];
        let mut bytes = pattern.clone();
        let mut replaced = 0;
        for block in bytes.chunks_mut(BLOCK) {
            if let Some(number) = numbers.get(&block[..length]) {
                block.copy_from_slice(&content[number * BLOCK..][..BLOCK]);
                replaced += 1;
            }
        }
        assert_eq!(replaced, numbers.len(), "every block was found");
        let path = scratch.join(name);
        fs::write(&path, bytes).expect("it is written");
        path
    })
}

/// A file's names, mode and times are not the process's: what it has counted stays.
#[test]
fn a_file_that_is_touched_renamed_and_deleted_while_it_runs() {
    must_be_root();
    let program = scratch("never-harm-touched").join("program");
    fs::copy(service("hello"), &program).expect("a copy");
    let mut first = start(&program, &[]);
    let often = often("touched");
    let agent = Agent::start(&["--executable", &program.display().to_string(), "--config", &often]);
    agent.wait_measured(first.pid());
    let mut counted = ask(&first, REQUESTS);
    let renamed = program.with_extension("renamed");
    let steps: [&dyn Fn(); 4] = [
        &|| {
            let opened = fs::File::open(&program).expect("it is there");
            opened.set_modified(std::time::UNIX_EPOCH).expect("times can be set");
        },
        &|| fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("it is ours"),
        &|| fs::rename(&program, &renamed).expect("it is renamed"),
        &|| fs::remove_file(&renamed).expect("it is deleted"),
    ];
    for step in steps {
        step();
        // Longer than it takes to look at every process anew.
        thread::sleep(Duration::from_millis(1800));
        counted += ask(&first, REQUESTS);
        settles("what was counted stays", &counted, || agent.scrape().total(first.pid()));
    }
    assert_eq!(counted, 5 * REQUESTS);
    first.stop().expect("it ends as asked");
    agent.stop();
}

/// A program that drops its code pages loses the probes in them: noticed, told, and put right.
#[test]
fn a_program_that_drops_its_code_pages() {
    must_be_root();
    let often = often("dropped");
    for method in METHODS {
        let mut running = start(&service("edge"), &[]);
        let pid = running.pid();
        let agent = Agent::measuring(pid, &["--attach", method, "--config", &often]);
        let address = running.address("http").expect("it listens");
        for times in 1..=2 {
            assert_eq!(get(address, "/drop-code").expect("it answers").trim(), "1");
            let target = eventually("it is told", || agent.target(pid).filter(|it| it["code_replaced"] == times));
            assert_eq!(target["state"], "measured");
            let before = agent.scrape().total(pid);
            for _ in 0..REQUESTS {
                get(address, "/ok").expect("it lives");
            }
            settles("each is counted once", &(before + REQUESTS), || agent.scrape().total(pid));
            settles("none is under way", &Some(0), || agent.scrape().active(pid));
        }
        running.stop().expect("it ends as asked");
        agent.stop();
    }
}

/// The long form of the restarts.
pub(crate) fn long() {
    restart([65, 65]);
}
