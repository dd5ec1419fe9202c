//! What the agent spends, and how fast it answers, while a hostile program does its worst: `agent::hostile` asserts what must not
//! break, and this prints how far from it all stays. Times are printed and never asserted; an answer that does not come, a lost
//! request of the neighbour's and too much memory fail it. `GOPULSE_HOSTILE_SECONDS` sets how long each attack lasts (3).

use std::{
    fs, iter,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{time::ClockId, unistd::Pid};
use xtask::service::{Running, get};

use crate::{
    agent::hostile::{
        MEMORY_MIB, Ring,
        clients::{IDLE, STALLED, allow_many_files, begin, garbage},
        stalling::run_all,
    },
    support::{
        Agent, PATIENCE, glob, http::request, mounts::Mounted, scratch, service, settles, stalling::Stalling, start,
    },
};

/// How long the agent is looked at before an attack.
const ALONE: Duration = SCRAPES;
/// How long it is looked at for whether all is as before.
const WINDOW: Duration = Duration::from_millis(500);
/// How often it is scraped: seven times as often as Prometheus does by default.
const SCRAPES: Duration = Duration::from_secs(2);
/// More of a core than before is not as before.
const MORE: f64 = 0.05;

/// What is done again and again while the attack lasts; dropped, it ends.
type Again<'r> = Box<dyn FnMut() + 'r>;

struct Attack {
    name: &'static str,
    flags: Vec<String>,
    begin: fn(&Ring) -> Again<'_>,
}

fn attack(name: &'static str, flags: &[&str], begin: fn(&Ring) -> Again<'_>) -> Attack {
    Attack { name, flags: flags.iter().map(|it| (*it).to_owned()).collect(), begin }
}

/// A thread that asks for a path once a period.
struct Asker {
    end: Arc<AtomicBool>,
    slowest: Arc<AtomicU64>,
    thread: Option<JoinHandle<u64>>,
}

impl Asker {
    fn start(address: SocketAddr, path: &'static str, period: Duration) -> Self {
        let (end, slowest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (is_over, max) = (Arc::clone(&end), Arc::clone(&slowest));
        let thread = thread::spawn(move || {
            let mut asked = 0;
            while !is_over.load(Ordering::Relaxed) {
                let before = Instant::now();
                get(address, path).unwrap_or_else(|error| panic!("{path}: {error:#}"));
                asked += 1;
                max.fetch_max(before.elapsed().as_micros() as u64, Ordering::Relaxed);
                thread::sleep(period.saturating_sub(before.elapsed()));
            }
            asked
        });
        Self { end, slowest, thread: Some(thread) }
    }

    /// The longest that an answer has taken since this was asked, milliseconds.
    fn slowest_ms(&self) -> f64 {
        self.slowest.swap(0, Ordering::Relaxed) as f64 / 1e3
    }

    /// How often it has asked.
    fn stop(mut self) -> u64 {
        self.end.store(true, Ordering::Relaxed);
        self.thread.take().expect("it is stopped once").join().expect("each is answered")
    }
}

/// CPU seconds that a process has taken.
fn cpu_seconds(pid: u32) -> f64 {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid as i32)).expect("it runs");
    Duration::from(clock.now().expect("it runs")).as_secs_f64()
}

/// The share of a core that a process takes while something is done.
fn share_of_a_core(pid: u32, mut done: impl FnMut()) -> f64 {
    let (cpu, start) = (cpu_seconds(pid), Instant::now());
    done();
    (cpu_seconds(pid) - cpu) / start.elapsed().as_secs_f64()
}

fn measure(attack: &Attack, length: Duration) -> String {
    let flags: Vec<&str> = attack.flags.iter().map(String::as_str).collect();
    let mut ring = Ring::start(&flags);
    let (agent, neighbour) = (ring.agent.pid(), ring.neighbour.pid());
    let before = ring.agent.scrape().total(neighbour);
    let healthz = Asker::start(ring.agent.address, "/healthz", Duration::from_millis(50));
    let metrics = Asker::start(ring.agent.address, "/metrics", SCRAPES);
    let requests =
        Asker::start(ring.neighbour.address("http").expect("it listens"), "/hello", Duration::from_millis(10));
    // What starting has left to do is not what it takes.
    thread::sleep(WINDOW);
    let alone = share_of_a_core(agent, || thread::sleep(ALONE));
    let _before = (healthz.slowest_ms(), metrics.slowest_ms());
    let during = share_of_a_core(agent, || {
        let end = Instant::now() + length;
        let mut again = (attack.begin)(&ring);
        while Instant::now() < end {
            again();
        }
    });
    let (slowest_healthz, slowest_metrics) = (healthz.slowest_ms(), metrics.slowest_ms());
    ring.hostile.kill().expect("it runs");
    let ended = Instant::now();
    let back = loop {
        let at = ended.elapsed();
        let share = share_of_a_core(agent, || thread::sleep(WINDOW));
        if share <= alone + MORE && healthz.slowest_ms() <= 100.0 && metrics.slowest_ms() <= 1e3 {
            break at;
        }
        assert!(at < PATIENCE, "{}: it is not as before: {:.1}% of a core", attack.name, share * 100.0);
    };
    let (answered, _, _) = (requests.stop(), healthz.stop(), metrics.stop());
    settles("the neighbour's requests", &(before + answered), || ring.agent.scrape().total(neighbour));
    let memory = ring.memory_mib();
    assert!(memory <= MEMORY_MIB, "{}: the agent takes {memory} MiB", attack.name);
    let line = format!(
        "| {} | {slowest_metrics:.0} ms | {slowest_healthz:.0} ms | {:.1}% | {:.1}% | {:.1} s | {memory} MiB | {answered} |",
        attack.name,
        during * 100.0,
        alone * 100.0,
        back.as_secs_f64()
    );
    println!("{line}");
    line
}

/// Nothing more is to be done than to keep this.
fn goes_on<'r>(held: impl Sized + 'r) -> Again<'r> {
    Box::new(move || {
        let _kept = &held;
        thread::sleep(Duration::from_millis(50));
    })
}

fn asks<'r>(ring: &'r Ring, path: &'static str) -> Again<'r> {
    Box::new(move || drop(ring.ask(path)))
}

/// Sends requests, and reads what is answered within a moment.
fn stays(address: SocketAddr, requests: &str) {
    let mut stream = begin(address, requests);
    stream.set_read_timeout(Some(Duration::from_millis(500))).expect("a duration above zero");
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

/// A program that is ended with this.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A file system that stalls, until this is dropped, before what waits for it.
struct Stalled(Rc<Stalling>);

impl Drop for Stalled {
    fn drop(&mut self) {
        self.0.go_on();
    }
}

fn hostile(arguments: &[&str]) -> Ended {
    Ended(Command::new(service("hostile")).args(arguments).stdout(Stdio::null()).spawn().expect("it starts"))
}

/// What a program says of itself in its requests and in its memory.
fn of_lies() -> Vec<Attack> {
    vec![
        attack("2^62 goroutines, by its own word", &[], |ring| {
            let page = ring.ask("/page");
            ring.poke("runtime.allgptr", &page);
            ring.poke("runtime.allglen", &(1_u64 << 62).to_string());
            goes_on(())
        }),
        attack("2^32 goroutines, where no memory is", &[], |ring| {
            let page = ring.ask("/page");
            ring.poke("runtime.allgptr", &page);
            ring.poke("runtime.allglen", &(1_u64 << 32).to_string());
            goes_on(())
        }),
        attack("memory that never answers", &[], |ring| {
            let page = ring.ask("/silent");
            ring.poke("runtime.allgptr", &page);
            goes_on(())
        }),
        attack("requests whose fields lie", &[], |ring| {
            let fields = ["method", "pattern", "path", "uri", "url"];
            let mut fields = fields.into_iter().cycle();
            Box::new(move || {
                let of = fields.next().expect("there is no end");
                ring.ask(&format!("/lie?of={of}&address=140737488355328&length=4611686018427387904"));
            })
        }),
        attack("routes that command terminals", &[], |ring| {
            let address = ring.hostile.address("http").expect("it listens");
            Box::new(move || drop(request(address, "GET", "/names/%1B%5B2J%07%C2%9B%E2%80%A8")))
        }),
        attack("functions replaced and put back", &[], |ring| {
            Box::new(move || {
                ring.ask("/patch?of=runtime.Goexit");
                ring.ask("/unpatch?of=runtime.Goexit");
            })
        }),
    ]
}

/// What there is of too much.
fn of_numbers() -> Vec<Attack> {
    vec![
        attack("200,000 panics in a request, again and again", &[], |ring| asks(ring, "/storm?panics=200000")),
        attack("2,000 requests that recovered go on, others die", &[], |ring| {
            ring.ask("/stuck?n=2000");
            let address = ring.hostile.address("http").expect("it listens");
            Box::new(move || drop(request(address, "GET", "/die")))
        }),
        attack("panics of goroutines that serve nothing", &[], |ring| {
            ring.ask("/worker?n=3000");
            let address = ring.hostile.address("http").expect("it listens");
            Box::new(move || drop(request(address, "GET", "/die")))
        }),
        attack("1,000 requests that panic together", &["--max-series", "1024"], |ring| {
            asks(ring, "/burst?routes=10&statuses=100")
        }),
        attack("2,000 series, in a map of 1,024", &["--max-series", "1024"], |ring| {
            asks(ring, "/fill?routes=20&statuses=100")
        }),
        attack("50 series, in a map of 16", &["--max-series", "16"], |ring| asks(ring, "/fill?routes=5&statuses=10")),
        attack("79,900 series, in a map of 16,384", &[], |ring| asks(ring, "/fill?routes=100&statuses=799")),
        attack("400 statuses that HTTP does not have", &[], |ring| asks(ring, "/fill?statuses=400&from=600")),
        attack("1,700 requests in flight, in a map of 1,024", &["--max-in-flight", "1024"], |ring| {
            ring.ask("/hold?n=1700");
            goes_on(())
        }),
        attack("60,000 requests in flight", &[], |ring| {
            // Not at once: who asks waits for an answer.
            for _ in 0..6 {
                ring.ask("/hold?n=10000");
            }
            goes_on(())
        }),
        attack("300,000 goroutines, all features", &["--features", "all"], |ring| {
            ring.ask("/goroutines?n=300000");
            goes_on(())
        }),
        attack("threads without end, all features", &["--features", "all"], |ring| asks(ring, "/threads?n=300")),
        attack("collections without end, all features", &["--features", "all"], |ring| {
            asks(ring, "/collect?seconds=1")
        }),
    ]
}

/// Processes, and their executables.
fn of_processes() -> Vec<Attack> {
    let hostiles = glob(&service("hostile"));
    let waits = glob(&service("waits"));
    let hellos = glob(&service("hello"));
    vec![
        attack("a program that executes itself without end", &["--executable", &hostiles], |_| {
            goes_on(hostile(&["-exec", "100000"]))
        }),
        attack("processes that end at once", &["--executable", &hostiles], |_| {
            Box::new(|| {
                let two = [hostile(&["-exit"]), hostile(&["-exit"])];
                for mut one in two {
                    assert!(one.0.wait().expect("it is a child").success(), "a measured program died");
                }
            })
        }),
        attack("40 processes of one file, begun and ended", &["--executable", &hellos], |_| {
            Box::new(|| drop(iter::repeat_with(|| start(&service("hello"), &[])).take(40).collect::<Vec<Running>>()))
        }),
        attack(
            "goroutines that park as fast as they can, all features",
            &["--executable", &waits, "--features", "all"],
            |_| goes_on(start(&service("waits"), &["-parks", "2000000"])),
        ),
        attack("40 executables whose file system never answers", &["--executable", "never-answers-*"], |_| {
            let content = fs::read(service("hello")).expect("it is built");
            let file_system = Rc::new(Stalling::mount(scratch("stalling-cost").join("fuse"), content, 40));
            let programs = run_all(file_system.at());
            file_system.stall();
            goes_on((Stalled(Rc::clone(&file_system)), programs, file_system))
        }),
        attack("the same below overlayfs", &["--executable", "never-answers-*"], |_| {
            let content = fs::read(service("hello")).expect("it is built");
            let scratch = scratch("stalling-below-cost");
            let file_system = Rc::new(Stalling::mount(scratch.join("fuse"), content, 40));
            let overlay = Mounted::overlay(file_system.at(), &scratch, "merged");
            let programs = run_all(&overlay.0);
            file_system.stall();
            goes_on((Stalled(Rc::clone(&file_system)), programs, overlay, file_system))
        }),
        attack("a second agent, begun and ended", &[], |ring| {
            Box::new(move || {
                Agent::measuring(ring.neighbour.pid(), &[]).stop();
            })
        }),
    ]
}

/// Clients of the agent.
fn of_clients() -> Vec<Attack> {
    vec![
        attack("600 connections that say nothing, again and again", &[], |ring| {
            let mut idle = Vec::new();
            Box::new(move || {
                idle.clear();
                idle.extend((0..IDLE).map(|i| begin(ring.agent.address, ["", "GET /me", "\x16\x03\x01"][i % 3])));
                thread::sleep(Duration::from_millis(200));
            })
        }),
        attack("16 readers of megabytes that stall", &[], |ring| {
            ring.ask("/widen?statuses=60");
            let ask = || begin(ring.agent.address, "GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n");
            goes_on(iter::repeat_with(ask).take(STALLED).collect::<Vec<_>>())
        }),
        attack("garbage", &[], |ring| Box::new(move || drop(garbage(ring.agent.address, "\0\x01\x02garbage\r\n\r\n")))),
        attack("requests that are each a line of the log", &["--log-level", "debug"], |ring| {
            Box::new(move || drop(request(ring.agent.address, "GET", "no path")))
        }),
        attack("32 clients that ask without pause", &[], |ring| {
            let address = ring.agent.address;
            Box::new(move || {
                thread::scope(|scope| {
                    for _ in 0..32 {
                        scope.spawn(|| (0..10).for_each(|_| drop(request(address, "GET", "/healthz"))));
                    }
                });
            })
        }),
        attack("a client that asks 400 times on each connection", &[], |ring| {
            let requests = "GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n".repeat(400);
            // It does not wait for the last.
            Box::new(move || stays(ring.agent.address, &requests))
        }),
        attack("scrapes without pause, of 1,200 series", &[], |ring| {
            ring.ask("/widen?statuses=60");
            Box::new(move || drop(request(ring.agent.address, "GET", "/metrics")))
        }),
        attack("profiles, as many as are given", &["--features", "all"], |ring| {
            let path = format!("/debug/blocked?pid={}&seconds=1", ring.neighbour.pid());
            Box::new(move || drop(request(ring.agent.address, "GET", &path)))
        }),
    ]
}

#[test]
fn what_attacks_cost() {
    allow_many_files();
    let seconds = std::env::var("GOPULSE_HOSTILE_SECONDS").ok().and_then(|it| it.parse().ok()).unwrap_or(3);
    // The attacks with this in their names.
    let only = std::env::var("GOPULSE_HOSTILE_ONLY").unwrap_or_default();
    println!(
        "| attack | slowest scrape | slowest `/healthz` | the agent, of a core | the same before | as before after | memory | neighbour's requests, all counted |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let all = [of_lies(), of_numbers(), of_processes(), of_clients()].into_iter().flatten();
    let measured = all.filter(|it| it.name.contains(&only));
    let lines: Vec<_> = measured.map(|it| measure(&it, Duration::from_secs(seconds))).collect();
    assert!(!lines.is_empty());
}
