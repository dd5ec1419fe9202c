//! What a program says of its own runtime by client_golang's collectors, and what gopulse reads of it from outside, held
//! against each other under load: the program is asked, then gopulse, then the program again, and what only grows must have
//! passed through gopulse's figure on its way.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    thread,
    time::Duration,
};

use crate::support::{Agent, eventually, must_be_root, service_of, start};
use xtask::{
    exposition::{self, Sample},
    go::Variant,
    service::{self, Running},
};

/// Releases that stand for all: the oldest; one before and one after pauses got their own histograms; the newest.
const SOME: [&str; 3] = ["1.17", "1.22", "1.27"];
/// Comparisons of one program.
const ROUNDS: usize = 24;
/// Longer than gopulse answers by what it read before.
const PAUSE: Duration = Duration::from_millis(110);

/// A series, without what names the target: bounds and quantiles as numbers, since 1e-7 can be written in several ways.
type Series = (String, Vec<(String, String)>);
type Values = BTreeMap<Series, f64>;

/// How a metric came out.
#[allow(clippy::struct_excessive_bools, reason = "each is a finding of its own")]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Verdict {
    /// Comparisons that said something.
    said: u32,
    /// Of them those that held.
    held: u32,
    /// The service has it, gopulse has not.
    missing: bool,
    /// The other way about.
    more: bool,
    /// Every comparison must hold, and not only nearly every one.
    exact: bool,
    /// Whether a gauge lay, under load, where the service's own figures lie.
    inside: bool,
}

impl Verdict {
    fn fails(&self) -> bool {
        let held = if self.exact { self.held == self.said } else { self.inside && self.held * 10 >= self.said * 8 };
        !self.more && !held
    }

    fn mark(&self) -> &'static str {
        match self {
            it if it.missing => "missing",
            it if it.more => "+",
            it if it.fails() => "WRONG",
            it if it.said == 0 => "moves",
            _ => "=",
        }
    }
}

fn values(text: &str, pid: Option<u32>) -> Values {
    let pid = pid.map(|pid| pid.to_string());
    let ours = |sample: &Sample| pid.as_deref().is_none_or(|pid| sample.label("instance_pid") == pid);
    let of_runtime = |name: &str| name.starts_with("go_") || name.starts_with("process_");
    exposition::parse(text)
        .into_iter()
        .filter(|sample| ours(sample) && of_runtime(&sample.name))
        .map(|sample| {
            let labels = sample.labels.into_iter().filter(|(name, _)| name != "instance_pid" && name != "executable");
            let labels = labels.map(|(name, value)| {
                let number = ["le", "quantile"].contains(&name.as_str()).then(|| value.parse::<f64>().ok()).flatten();
                (name, number.map_or(value, |number| format!("{number:?}")))
            });
            ((sample.name, labels.collect()), sample.value)
        })
        .collect()
}

/// Types by family, as the text says them.
fn types(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    lines.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

/// The family that a series belongs to.
fn family<'n>(name: &'n str, types: &BTreeMap<String, String>) -> &'n str {
    let suffixes = ["_bucket", "_sum", "_count"];
    let short = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
    short.filter(|short| types.contains_key(*short)).unwrap_or(name)
}

/// Figures that count few things, of which asking for them makes some: a connection, its goroutines, a thread.
fn slack(name: &str) -> f64 {
    let few = ["go_goroutines", "go_threads", "go_sched_goroutines_", "go_sched_threads_", "process_open_fds"];
    if few.iter().any(|start| name.starts_with(start)) { 6.0 } else { 0.0 }
}

fn near(one: f64, other: f64, slack: f64) -> bool {
    (one - other).abs() <= 0.05 * one.abs().max(other.abs()) + slack + 1e-9
}

struct Comparison {
    minor: u32,
    verdicts: BTreeMap<String, Verdict>,
    /// What the service itself said under load, least and most, and what gopulse did.
    ranges: BTreeMap<Series, [(f64, f64); 2]>,
    types: BTreeMap<String, String>,
    complaints: BTreeSet<String>,
}

impl Comparison {
    /// Under load what only grows is compared; with the service at rest, gauges. Under load those move by themselves, as the heap
    /// does between collections: there they must lie where the service's own lie over all rounds.
    fn round(&mut self, load: bool, before: &Values, read: &Values, after: &Values) {
        for (series @ (name, labels), first) in before {
            let family = family(name, &self.types).to_owned();
            let kind = self.types.get(&family).cloned().unwrap_or_default();
            let verdict = self.verdicts.entry(family.clone()).or_default();
            let Some(last) = after.get(series) else { continue };
            let Some(ours) = read.get(series) else {
                verdict.missing = true;
                self.complaints.insert(format!("{name}{labels:?} is missing"));
                continue;
            };
            // Until Go 1.18 a span's objects were counted as allocated beforehand, and the rest taken back at a collection.
            let allocated = ["_allocs_", "_mallocs_", "_memstats_alloc_bytes_total"];
            let goes_back = self.minor < 19 && allocated.iter().any(|part| name.contains(part));
            let exactly = kind != "gauge" || family.ends_with("last_gc_time_seconds");
            verdict.exact = exactly;
            let grown = if goes_back { 10_000.0 + 0.01 * last } else { 1e-9 * last.abs() };
            if !exactly && load {
                let range = self.ranges.entry(series.clone()).or_insert([(f64::MAX, f64::MIN); 2]);
                for (who, value) in [(0, first), (0, last), (1, ours)] {
                    let (least, most) = range[who];
                    range[who] = (least.min(*value), most.max(*value));
                }
                continue;
            }
            let (said, held) = if kind == "summary" && labels.iter().any(|(name, _)| name == "quantile") {
                // A collection between the two moves the quantiles; what is between them cannot be said then.
                let count = (format!("{family}_count"), Vec::new());
                (before.get(&count) == after.get(&count), (first - ours).abs() < 1e-12)
            } else if exactly {
                (true, *ours >= first - grown && *ours <= last + grown)
            } else {
                let slack = slack(name);
                (near(*first, *last, slack), near(*first, *ours, slack) || near(*last, *ours, slack))
            };
            verdict.said += u32::from(said);
            verdict.held += u32::from(said && held);
            if said && !held {
                self.complaints.insert(format!("{name}{labels:?}: {first}, gopulse {ours}, {last}"));
            }
        }
        for (name, _) in read.keys().filter(|series| !before.contains_key(*series)) {
            let family = family(name, &self.types).to_owned();
            self.verdicts.entry(family).or_insert(Verdict { more: true, ..Verdict::default() });
        }
    }

    /// Holds gopulse's gauges under load against the range of the service's.
    fn finish(&mut self) {
        for verdict in self.verdicts.values_mut() {
            verdict.inside = true;
        }
        for ((name, labels), [(least, most), ours]) in &self.ranges {
            // A dozen looks do not see the whole range: this is for figures that are far off.
            let room = 0.25 * most.abs() + 2.0 * (most - least) + slack(name);
            if ours.0 < least - room || ours.1 > most + room {
                self.verdicts.entry(family(name, &self.types).to_owned()).or_default().inside = false;
                self.complaints.insert(format!("{name}{labels:?}: {least} to {most}, gopulse {ours:?}, under load"));
            }
        }
    }
}

/// What the program can say that the runtime does not keep in figures of its own.
fn not_kept(name: &str) -> bool {
    // One counter for each GODEBUG setting, in tables of package internal/godebug; the second has always been 0.
    name.starts_with("go_godebug_") || name == "go_memstats_lookups_total"
}

fn minor(version: &str) -> u32 {
    version.split('.').nth(1).expect("a version").parse().expect("a number")
}

fn ask(address: SocketAddr) -> String {
    service::get(address, "/metrics").expect("/metrics answers")
}

fn truth(version: &str, arguments: &[&str]) -> Running {
    let quiet = ["-https", "-", "-h2c", "-", "-admin", "-"];
    start(&service_of("truth", version, Variant::Strip), &[&quiet, arguments].concat())
}

fn compare(version: &str) -> Comparison {
    let running = truth(version, &[]);
    let pid = running.pid();
    let address = running.address("http").expect("it listens");
    let agent = Agent::measuring(pid, &["--features", "runtime"]);
    let own = types(&ask(address)).into_iter().chain(types(&ask(agent.address)));
    let own: Vec<_> = own.filter(|(name, _)| !not_kept(name)).collect();
    let mut comparison = Comparison {
        minor: minor(version),
        verdicts: BTreeMap::new(),
        ranges: BTreeMap::new(),
        types: BTreeMap::new(),
        complaints: BTreeSet::new(),
    };
    for (name, kind) in own {
        let known = comparison.types.entry(name.clone()).or_insert_with(|| kind.clone());
        assert_eq!(*known, kind, "{name} is of another type");
    }
    for round in 0..ROUNDS {
        let load = round < ROUNDS / 2;
        service::get(address, if load { "/busy" } else { "/still" }).expect("it answers");
        thread::sleep(PAUSE);
        let kept = |values: Values| -> Values { values.into_iter().filter(|((name, _), _)| !not_kept(name)).collect() };
        let before = kept(values(&ask(address), None));
        let read = values(&ask(agent.address), Some(pid));
        let after = kept(values(&ask(address), None));
        comparison.round(load, &before, &read, &after);
    }
    comparison.finish();
    service::get(address, "/busy").expect("it answers");
    check_reasons(&agent, pid, version);
    agent.stop();
    comparison
}

/// The service starts so many goroutines for each of these reasons.
fn check_reasons(agent: &Agent, pid: u32, version: &str) {
    let minor = minor(version);
    let mut wanted = vec![("chan receive", 200.0), ("chan send", 3.0), ("sync.Cond.Wait", 3.0), ("sleep", 3.0)];
    wanted.extend([("select (no cases)", 3.0)]);
    match minor {
        ..20 => wanted.push(("semacquire", 9.0)),
        20..24 => wanted.extend([("sync.Mutex.Lock", 3.0), ("sync.RWMutex.RLock", 3.0), ("semacquire", 3.0)]),
        _ => {
            wanted.extend([("sync.Mutex.Lock", 3.0), ("sync.RWMutex.RLock", 3.0), ("sync.WaitGroup.Wait", 3.0)]);
        }
    }
    let pid = pid.to_string();
    eventually(&format!("Go {version}: goroutines wait for {wanted:?}"), || {
        let scrape = agent.scrape();
        let found = |name: &str, reason: &str| {
            let mut of = scrape.samples.iter().filter(|it| it.name == name && it.label("instance_pid") == pid);
            of.find(|it| it.label("reason") == reason).map(|it| it.value)
        };
        // The service holds one mutex more than it waits for, for ever; it collects all the time, so all are seen waiting.
        let enough = |(reason, count): &(&str, f64)| {
            found("go_goroutines_waiting", reason).is_some_and(|have| have >= *count && have < *count + 60.0)
                && found("go_goroutines_waiting_oldest_seconds", reason).is_some_and(|age| age > 0.0 && age < 600.0)
        };
        wanted.iter().all(enough).then_some(())
    });
}

#[test]
fn counters_are_those_of_client_golang() {
    compared(&SOME);
}

/// Compares these Go releases, prints a table, and fails where a figure is not the program's own.
pub(crate) fn compared(releases: &[&str]) {
    must_be_root();
    let all: Vec<(String, Comparison)> =
        releases.iter().map(|version| ((*version).to_owned(), compare(version))).collect();
    let names: BTreeSet<&String> = all.iter().flat_map(|(_, comparison)| comparison.verdicts.keys()).collect();
    println!(
        "\n`=` the same; `+` gopulse alone has it; `moves`: a gauge that never stood still; empty: not kept by that Go\n"
    );
    let heads: Vec<String> = all.iter().map(|(version, _)| format!("{version:>7}")).collect();
    println!("| {:<55} | {} |\n|{}|{}", "metric", heads.join(" | "), "-".repeat(57), "---------|".repeat(all.len()));
    for name in names {
        let marks: Vec<String> = all
            .iter()
            .map(|(_, comparison)| format!("{:>7}", comparison.verdicts.get(name).map_or("", Verdict::mark)))
            .collect();
        println!("| {name:<55} | {} |", marks.join(" | "));
    }
    let mut wrong = Vec::new();
    for (version, comparison) in &all {
        let failing = comparison.verdicts.iter().filter(|(_, it)| it.fails() || it.missing && minor(version) >= 22);
        let failing: Vec<&String> = failing.map(|(name, _)| name).collect();
        if !failing.is_empty() {
            let about = |line: &&String| failing.iter().any(|name| line.starts_with(name.as_str()));
            let complaints: Vec<&String> = comparison.complaints.iter().filter(about).take(40).collect();
            wrong.push(format!("Go {version}: {failing:?}\n{complaints:#?}"));
        }
        let compared = comparison.verdicts.values().filter(|verdict| verdict.said > 0).count();
        assert!(compared > 50, "Go {version}: only {compared} metrics could be compared");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
