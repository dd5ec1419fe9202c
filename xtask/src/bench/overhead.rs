//! `bench overhead`: CPU time that probes add to the measured process, per request, against no agent and against the same two
//! probes where tracers commonly place them. One service process lives through all of it; agents come and go.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::fixture::{Agent, Tools};
use super::poller::{self, Wanted};
use super::proc::{self, Cpus};
use super::programs::{self, Protocol};
use super::report::{Section, Table, number};
use super::stats::{Spread, differences};

/// Options of `bench overhead`.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub(super) struct Options {
    /// How many times each way is measured
    #[arg(long, default_value_t = 10)]
    pub(super) pairs: usize,
    /// hello, api, calls, work1ms, idle10k, pingpong or all
    #[arg(long, default_value = "all", value_parser = ["hello", "api", "calls", "work1ms", "idle10k", "pingpong", "all"])]
    pub(super) service: String,
    /// Connections of the load generator
    #[arg(long, default_value_t = 32)]
    pub(super) connections: usize,
    /// Another build of the agent, whose request probes are measured on hello in the same rounds
    #[arg(long, value_name = "FILE")]
    pub(super) against: Option<PathBuf>,
}

/// One service and its load.
struct Case {
    name: &'static str,
    kind: &'static str,
    requests: u64,
    /// Requests a second; 0 is as fast as the service answers.
    rate: u32,
    idle: usize,
    about: &'static str,
}

impl Case {
    /// Requests for some two seconds: the budget is looked at once a second.
    fn warm_up(&self) -> u64 {
        if self.rate == 0 { 2 * self.requests } else { 3 * u64::from(self.rate) }
    }
}

const CASES: [Case; 6] = [
    Case { name: "hello", kind: "hello", requests: 60_000, rate: 0, idle: 0, about: "only answers" },
    Case { name: "api", kind: "api", requests: 40_000, rate: 0, idle: 0, about: "20 routes with ids, JSON" },
    Case {
        name: "calls",
        kind: "calls",
        requests: 30_000,
        rate: 0,
        idle: 0,
        about: "asks another server of its own by http.Client: two requests are served and one is made",
    },
    Case {
        name: "work1ms",
        kind: "work1ms",
        requests: 1_500,
        rate: 700,
        idle: 0,
        about: "1 ms of CPU a request, 700 a second",
    },
    Case {
        name: "idle10k",
        kind: "hello",
        requests: 60_000,
        rate: 0,
        idle: 10_000,
        about: "hello, 10,000 idle connections",
    },
    Case {
        name: "pingpong",
        kind: "pingpong",
        requests: 40_000,
        rate: 0,
        idle: 0,
        about: "hello, 1,000 goroutines at ping-pong",
    },
];
/// The mix of the API: lists, single things, and things that do not exist.
const API: [&str; 8] = [
    "-mix",
    "GET /v1/users 200 /v1/users 1",
    "-mix",
    "GET /v1/orders/1000{n} 404 /v1/orders/{id} 1",
    "-mix",
    "GET /v1/items/7 200 /v1/items/{id} 4",
    "-mix",
    "GET /v1/carts/12 200 /v1/carts/{id} 4",
];

/// What the poller sends: `METHOD PATH STATUS ROUTE WEIGHT`, each line as often as its weight says.
fn wanted(kind: &str) -> Vec<Wanted> {
    if kind != "api" {
        return vec![Wanted { path: "/hello".into(), status: 200 }];
    }
    let lines = API.iter().filter(|line| **line != "-mix");
    let expanded = lines.filter_map(|line| {
        let [_, path, status, _, weight] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
        let wanted = Wanted { path: path.into(), status: status.parse().ok()? };
        Some(std::iter::repeat_n(wanted, weight.parse().ok()?))
    });
    expanded.flatten().collect()
}

/// What is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arm {
    /// As it comes: requests, the runtime's figures, pauses, and blocking within its budget.
    Gopulse,
    /// A request's two probes and no others.
    Requests,
    /// The same, and the two of a request that is made.
    Exchanges,
    /// The same two where tracers commonly place them.
    EntryRet,
    /// Programs that do nothing in the place of the two.
    Empty,
    /// A request's two probes, of another build of the agent.
    Against,
}

impl Arm {
    /// What hello is measured with, the last only if it is asked for; the other services with the first.
    const ALL: [Self; 5] = [Self::Gopulse, Self::Requests, Self::EntryRet, Self::Empty, Self::Against];

    /// The agent's flags.
    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Gopulse => &[],
            Self::Requests | Self::Against => &["--features", "http"],
            Self::Exchanges => &["--features", "http,http-client"],
            Self::EntryRet => &["--features", "http", "--bench-sites", "entry-ret"],
            Self::Empty => &["--features", "http", "--bench-sites", "empty"],
        }
    }
}

/// One run of the load.
struct Run {
    /// CPU time of the service a request, microseconds.
    cpu_us: f64,
    /// Microseconds; of a service at a given rate alone.
    p99_us: f64,
    rate: f64,
}

/// Runs with something attached, each with the one without an agent beside it.
#[derive(Default)]
struct Pairs {
    without: Vec<Run>,
    with: Vec<Run>,
}

impl Pairs {
    /// What was added, pair by pair.
    fn added(&self, of: fn(&Run) -> f64) -> Vec<f64> {
        self.with.iter().zip(&self.without).map(|(with, without)| of(with) - of(without)).collect()
    }

    /// The same in percent.
    fn percent(&self, of: fn(&Run) -> f64) -> Vec<f64> {
        self.added(of).iter().zip(&self.without).map(|(added, without)| 100.0 * added / of(without)).collect()
    }
}

/// Measures.
pub(super) fn run(tools: &Tools, options: &Options) -> Result<Section> {
    let mut section = Section::new(
        "overhead",
        format!(
            "CPU time of the measured process (all threads, user and system, probes included; clock_getcpuclockid) a request, \
             {} connections over HTTP/1.1. The service has one CPU, the load and the agent the others; where the load is as fast as it goes, its \
             generator polls: one that sleeps is woken by the service, the oftener the slower that is. In each of {} rounds every way is run once, right after a run without an agent \
             or, in every other round, right before one; differences are those of such pairs. By default an agent measures blocking too, within its budget of 1 %; it has seen two seconds of \
             the load before it is measured. `entry/RET` are a request's two programs at the first byte and the RETs of the function that calls \
             the handler; the one at RET does less work than ours there (it finds no response writer), which is in its favour. \
             `empty` is programs that do nothing where ours are: what the kernel takes for two hits on this machine.",
            options.connections, options.pairs
        ),
    );
    let mut table = Table {
        title: "CPU time of the service, microseconds a request (medians), and requests a second".into(),
        columns: [
            "service",
            "what it does",
            "no agent",
            "gopulse",
            "its request probes alone",
            "entry/RET",
            "empty",
            "req/s no agent",
            "req/s gopulse",
        ]
        .map(Into::into)
        .to_vec(),
        rows: Vec::new(),
    };
    for case in CASES.iter().filter(|case| options.service == "all" || options.service == case.name) {
        crate::util::say(&format!("overhead: {}", case.name));
        table.rows.push(measure(tools, options, case, &mut section).with_context(|| case.name)?);
    }
    section.tables.push(table);
    for (title, kind, mix) in [("hello", "hello", &[][..]), ("api", "api", &API[..]), ("calls", "calls", &[][..])] {
        if options.service == "all" || options.service == title {
            let rows = programs::account(tools, kind, mix, Protocol::Http1)?;
            // Blocking is within a budget, and not of a request.
            let of_requests = rows.iter().filter(|row| row.name.starts_with("http") || row.name.starts_with("xnet"));
            let hits: f64 = of_requests.map(|row| row.hits).sum();
            if title == "hello" {
                section.limited("hello: probe hits a request", "hits", Spread::one(hits), 2.01);
            }
            let title = format!("Programs on {title}, from a run of its own with bpf_stats on");
            section.tables.push(programs::table(title, &rows));
        }
    }
    Ok(section)
}

fn measure(tools: &Tools, options: &Options, case: &Case, section: &mut Section) -> Result<Vec<String>> {
    let copied = tools.copy(&tools.bench, case.name)?;
    // Each on a CPU of its own: where they share, a service that takes longer also waits, wakes and searches for work at other
    // times, and that is more than what is to be seen.
    proc::pin(Cpus::First)?;
    let service = copied.start(case.kind);
    proc::pin(Cpus::Others)?;
    let service = service?;
    let address = service.address("http")?;
    let _idle = idle_connections(address, case.idle)?;
    let against = options.against.as_ref().map(|agent| tools.with_agent(agent));
    let arms = match case.name {
        "hello" if against.is_some() => &Arm::ALL[..],
        "hello" => &Arm::ALL[..4],
        "calls" => &[Arm::Gopulse, Arm::Exchanges],
        _ => &Arm::ALL[..1],
    };
    let one = |arm: Option<Arm>, beside: Arm| -> Result<Run> {
        let name = copied.name();
        let select = ["--executable", name.as_str()];
        let _agent = match arm {
            None => None,
            Some(arm) => {
                let tools = if arm == Arm::Against { against.as_ref().unwrap_or(tools) } else { tools };
                Some(Agent::measuring(tools, &[&select, arm.flags()].concat(), 1)?)
            }
        };
        let load = |n: u64| -> Result<(f64, f64)> {
            if case.rate == 0 {
                let rate = poller::run(address, &wanted(case.kind), options.connections, n)?;
                return Ok((rate, f64::NAN));
            }
            let (n, c, rate) = (n.to_string(), options.connections.to_string(), case.rate.to_string());
            let report = tools.load(address, &["-n", &n, "-c", &c, "-rate", &rate])?;
            Ok((report.rate, report.p99 * 1e6))
        };
        // Before the load there was nothing to be budgeted; what counts is what an agent costs that has been there for a while.
        if beside == Arm::Gopulse {
            load(case.warm_up())?;
        }
        let before = proc::cpu_ns(service.pid())?;
        let (rate, p99_us) = load(case.requests)?;
        let used = proc::cpu_ns(service.pid())? - before;
        Ok(Run { cpu_us: used as f64 / 1e3 / case.requests as f64, p99_us, rate })
    };
    one(None, Arm::Gopulse)?;
    let mut all: Vec<Pairs> = arms.iter().map(|_| Pairs::default()).collect();
    for round in 0..options.pairs {
        for (arm, pairs) in arms.iter().zip(&mut all) {
            if round % 2 == 0 {
                pairs.without.push(one(None, *arm)?);
            }
            pairs.with.push(one(Some(*arm), *arm)?);
            if round % 2 == 1 {
                pairs.without.push(one(None, *arm)?);
            }
        }
    }
    proc::pin(Cpus::All)?;
    figures(case, &all, section);
    let median = |runs: Vec<&Run>, of: fn(&Run) -> f64| {
        let values: Vec<f64> = runs.into_iter().map(of).collect();
        if values.is_empty() { String::new() } else { number(Spread::of(&values).median) }
    };
    let without = || all.iter().flat_map(|pairs| &pairs.without).collect::<Vec<_>>();
    let with = |arm: usize| all.get(arm).into_iter().flat_map(|pairs| &pairs.with).collect::<Vec<_>>();
    let cpu_us = |run: &Run| run.cpu_us;
    Ok(vec![
        case.name.to_owned(),
        case.about.to_owned(),
        median(without(), cpu_us),
        median(with(0), cpu_us),
        median(with(1), cpu_us),
        median(with(2), cpu_us),
        median(with(3), cpu_us),
        median(without(), |run| run.rate),
        median(with(0), |run| run.rate),
    ])
}

fn figures(case: &Case, all: &[Pairs], section: &mut Section) {
    let name = case.name;
    let added: Vec<Vec<f64>> = all.iter().map(|pairs| pairs.added(|run| run.cpu_us)).collect();
    let what = format!("{name}: added CPU time a request");
    if let [as_it_comes, ours, theirs, empty, against @ ..] = &added[..] {
        section.limited(what, "us", Spread::of(as_it_comes), 2.5);
        section.limited("hello: added by the request probes alone", "us", Spread::of(ours), 2.5);
        let ratio: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        section.figure("hello: added by empty programs there", "us", Spread::of(empty));
        section.figure("hello: our programs' part of it", "us", Spread::of(&differences(ours, empty)));
        section.figure("hello: added by the same at entry/RET", "us", Spread::of(theirs));
        section.limited("hello: added, as a fraction of entry/RET", "", Spread::of(&ratio), 0.25);
        for against in against {
            section.figure("hello: added by the request probes of the other build", "us", Spread::of(against));
            let ratio: Vec<f64> = ours.iter().zip(against).map(|(ours, against)| ours / against).collect();
            section.figure("hello: ours, as a fraction of the other build's", "", Spread::of(&ratio));
        }
    } else {
        section.figure(what, "us", Spread::of(&added[0]));
        for exchanges in &added[1..] {
            section.figure("calls: added by the probes on two served and one made", "us", Spread::of(exchanges));
        }
    }
    let what = format!("{name}: added CPU time");
    let percent = Spread::of(&all[0].percent(|run| run.cpu_us));
    if name == "work1ms" {
        section.limited(what, "%", percent, 0.5);
        let change = Spread::of(&all[0].percent(|run| run.p99_us));
        section.figure("work1ms: change of the p99", "%", change);
        let spans = change.low <= 0.0 && change.high >= 0.0 || change.median <= 0.0;
        let verdict =
            if spans { "no measurable change: the quartiles span zero or lie below it" } else { "a change that shows" };
        section.note(format!("p99 of work1ms: {verdict}."));
    } else {
        section.figure(what, "%", percent);
    }
}

/// Opens connections, each of which has had one answer and waits for its next request.
fn idle_connections(address: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    (0..count)
        .map(|i| {
            let mut stream = TcpStream::connect(address).with_context(|| format!("idle connection {i}"))?;
            stream.write_all(b"GET /hello HTTP/1.1\r\nHost: bench\r\n\r\n")?;
            let mut answer = [0; 512];
            stream.read(&mut answer).with_context(|| format!("idle connection {i}"))?;
            Ok(stream)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_is_sent_by_weight() {
        let api = wanted("api");
        assert_eq!(api.len(), 10);
        assert_eq!(api.iter().filter(|wanted| wanted.status == 404).count(), 1);
        assert_eq!(wanted("hello").len(), 1);
    }
}
