//! `gopulse hpa simulate`: what an HPA would have done under a load. Knows nothing of a cluster.

mod calculator;
mod controller;
mod load;
mod plot;
mod show;
mod trace;
mod world;

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;

use self::{
    calculator::Time,
    controller::{Controller, Decision, Flags, Reading},
    load::{Load, Names},
    world::{Pace, Track, World},
};
use super::{
    known::Known,
    quantity::Milli,
    spec::{Goal, Hpa, Metric},
};

/// Options of `gopulse hpa simulate`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gopulse hpa simulate --hpa hpa.yaml --shape \
                        http_server_requests_per_second=steps:0=100,60=800,600=100\n\nValues of a load are those of the whole \
                        workload; of Pods and Resource metrics each ready pod gets its share.")]
#[expect(clippy::struct_excessive_bools, reason = "flags")]
pub(crate) struct SimulateArgs {
    /// The HPA (autoscaling/v2, YAML); `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    hpa: PathBuf,
    /// A recorded load: CSV with a column `seconds` (or `time`, as RFC 3339 has it) and one for each metric, named as in the HPA;
    /// or Prometheus' answer to a range query (JSON). METRIC= before it says which metric its only series is.
    #[arg(long = "load", value_name = "[METRIC=]FILE", required_unless_present = "shapes")]
    loads: Vec<String>,
    /// A made load: METRIC=steps:SECONDS=VALUE,..., METRIC=ramp:SECONDS=VALUE,... or METRIC=sine:LOW,HIGH,PERIOD_SECONDS
    #[arg(long = "shape", value_name = "METRIC=SHAPE")]
    shapes: Vec<String>,
    /// A metric whose value is a pod's own however many there are, as a latency.
    #[arg(long, value_name = "METRIC")]
    per_pod: Vec<String>,
    /// Over how long the metrics API measures a metric, by which it lags behind the load [default: of a shape what gopulse
    /// metrics-api takes, of a recorded load 0, since it shows what was measured]
    #[arg(long = "window", value_name = "METRIC=SECONDS")]
    windows: Vec<String>,
    /// Replicas at the start [default: minReplicas]. 0 is taken for somebody's having scaled it there by hand.
    #[arg(long, value_name = "N")]
    replicas: Option<i32>,
    /// How long to simulate, seconds [default: to the load's end and 10 minutes more]
    #[arg(long = "for", value_name = "SECONDS")]
    duration: Option<u32>,
    /// Print CSV, a line for each sync, instead of a plot.
    #[arg(long)]
    csv: bool,
    /// The controller's sync period, seconds.
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = clap::value_parser!(u32).range(1..=3600))]
    sync_period: u32,
    /// Seconds from a pod's creation until it runs.
    #[arg(long, value_name = "SECONDS", default_value = "2")]
    start_after: u32,
    /// Seconds from a pod's creation until it is ready.
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    ready_after: u32,
    /// Seconds from a pod's start until the metrics API knows it.
    #[arg(long, value_name = "SECONDS", default_value = "1")]
    metrics_after: u32,
    /// What each pod requests of the resource, for Resource metrics, as 500m.
    #[arg(long, value_name = "QUANTITY")]
    request: Option<String>,
    /// The controller's tolerance.
    #[arg(long, value_name = "FRACTION", default_value = "0.1")]
    tolerance: f64,
    /// The controller's downscale stabilisation window, seconds.
    #[arg(long, value_name = "SECONDS", default_value = "300")]
    downscale_stabilization: u32,
    /// Leave tolerances in the HPA's behavior unread, as Kubernetes does by default before 1.35.
    #[arg(long)]
    ignore_own_tolerances: bool,
    /// Wake also what somebody else has scaled to 0, as Kubernetes does before 1.37, which has no condition ScaledToZero.
    #[arg(long)]
    ignore_scaled_to_zero: bool,
    /// Print what the controller was shown and what it did, a JSON object for each sync.
    #[arg(long, hide = true)]
    trace: bool,
}

/// One sync.
#[derive(Debug)]
struct Step {
    now: Time,
    replicas: i32,
    ready: usize,
    /// The load, by metric; none where it was not to be had.
    loads: Vec<Option<f64>>,
    /// What of it is held against the target: a ready pod's share, or the figure.
    shares: Vec<Option<f64>>,
    /// Seconds until the next sync in which that was above the target, by metric.
    above: Vec<u32>,
    decision: Decision,
    /// What stabilisation made of what the metrics ask for.
    stabilized: Option<i32>,
}

/// A metric of the HPA, with its load.
struct Held<'a> {
    metric: Metric<'a>,
    track: Track,
    /// What a ready pod's share, or the figure, is to be at most.
    target: f64,
    /// What a pod requests of a resource whose target is a percentage of it.
    request: Option<f64>,
}

/// Runs it; what is to be printed, or what is wrong.
pub(crate) fn run(args: &SimulateArgs) -> Result<String, String> {
    let name = args.hpa.display();
    let text = if args.hpa.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        fs::read_to_string(&args.hpa)
    };
    let text = text.map_err(|error| format!("cannot read {name}: {error}"))?;
    let hpa = Hpa::parse(text.strip_prefix(load::MARK).unwrap_or(&text)).map_err(|error| format!("{name}: {error}"))?;
    let names = names(&hpa.metrics());
    let load = read_load(args, &names)?;
    let request =
        args.request.as_deref().map(Milli::parse).transpose().map_err(|error| format!("--request: {error}"))?;
    if !(0.0..1.0).contains(&args.tolerance) {
        return Err(format!("--tolerance is {}: it must be from 0 to less than 1", args.tolerance));
    }
    let held = held(args, &hpa, &names, &load, request)?;
    // A column that no metric has may be there for something else; a shape is made for a metric.
    let is_a_metric = |name: &str| names.iter().any(|it| it.all.iter().any(|it| it == name));
    if let Some(other) = load.names().find(|it| load.is_made(it) && !is_a_metric(it)) {
        return Err(format!("--shape: {other:?} is no metric of the HPA, which has: {}", shown(&names)));
    }
    let pace = Pace {
        start: ms(args.start_after.min(args.ready_after)),
        ready: ms(args.ready_after),
        metrics: ms(args.metrics_after),
        window: 15_000,
        request: request.map(|it| it.0),
    };
    let flags = Flags {
        tolerance: args.tolerance,
        downscale_stabilization: ms(args.downscale_stabilization),
        own_tolerances: !args.ignore_own_tolerances,
        to_zero_condition: !args.ignore_scaled_to_zero,
        ..Flags::default()
    };
    let end = args.duration.map_or(load.end() + 600_000, ms);
    let syncs = end / ms(args.sync_period);
    if syncs > MOST_SYNCS {
        return Err(format!("{syncs} syncs, of {MOST_SYNCS} at most: give --for SECONDS, or a longer --sync-period"));
    }
    if let Some(many) = args.replicas.filter(|it| *it > MOST_REPLICAS) {
        return Err(too_many(many));
    }
    let mut world = World::new(pace, args.replicas.unwrap_or(hpa.spec.min_replicas));
    let mut controller = Controller::new(flags);
    if args.replicas.is_none() && hpa.spec.min_replicas == 0 {
        controller = controller.having_scaled_to_zero();
    }
    let mut out = String::new();
    let mut steps = Vec::new();
    let mut now = 0;
    while now <= end {
        let pods = world.pods(now);
        let readings: Vec<_> = held.iter().map(|it| world.reading(&it.metric, &it.track, &load, now)).collect();
        let replicas = world.replicas();
        let decision = controller.sync(&hpa, now, replicas, &pods, &readings);
        if args.trace {
            out += &trace::line(now, replicas, &pods, &readings, &decision);
        }
        let failed = |index: usize| matches!(readings[index], Reading::Failed);
        let loads = held.iter().enumerate().map(|(index, it)| load.at(&it.track.name, now).filter(|_| !failed(index)));
        let loads: Vec<_> = loads.collect();
        let shares = held.iter().map(|it| it.share(&load, &world, now)).collect();
        if decision.desired > MOST_REPLICAS {
            return Err(format!("at {} s: {}", now / 1000, too_many(decision.desired)));
        }
        world.scale(decision.desired, now);
        let until = (now + ms(args.sync_period)).min(end);
        let above = held.iter().map(|it| it.seconds_above(&load, &world, now, until)).collect();
        let (ready, stabilized) = (world.ready(now), controller.stabilized());
        steps.push(Step { now, replicas, ready, loads, shares, above, decision, stabilized });
        now += ms(args.sync_period);
    }
    if args.trace {
        return Ok(out);
    }
    if args.csv { show::csv(&held, &steps) } else { Ok(show::picture(&hpa, &held, &steps, args.sync_period)) }
}

/// A month of syncs 5 s apart.
const MOST_SYNCS: i64 = 520_000;
/// As many pods as a cluster of Kubernetes is made for.
const MOST_REPLICAS: i32 = 150_000;

fn too_many(replicas: i32) -> String {
    format!("{replicas} replicas, of {MOST_REPLICAS} at most: is the target meant so, and maxReplicas?")
}

/// Milliseconds.
fn ms(seconds: u32) -> i64 {
    i64::from(seconds) * 1000
}

impl Held<'_> {
    /// What is held against the target at a time, if the metric is to be had.
    fn share(&self, load: &Load, world: &World, at: Time) -> Option<f64> {
        let value = load.at(&self.track.name, at)?;
        let each = if self.track.own { value } else { value / world.ready(at).max(1) as f64 };
        match self.metric.goal {
            Goal::Value(_) => Some(value),
            Goal::AverageValue(_) => Some(each),
            Goal::Utilization(_) => Some(each / self.request? * 100.0),
        }
    }

    /// Of how many seconds that begin in a time it was above the target. What it was while it was not to be had is not known.
    fn seconds_above(&self, load: &Load, world: &World, from: Time, to: Time) -> u32 {
        let above = |at: &Time| self.share(load, world, *at).is_some_and(|it| it > self.target * (1.0 + 1e-9));
        (from..to).step_by(1000).filter(above).count() as u32
    }
}

/// What the HPA's metrics may be called in a load: by their names alone where those are different, else with what differs.
fn names(metrics: &[Metric<'_>]) -> Vec<Names> {
    let forms = |metric: &Metric<'_>| {
        let name = metric.name.to_owned();
        let selector = metric.selector.filter(|it| !it.is_empty());
        let chosen = selector.map_or_else(|| name.clone(), |it| format!("{name}{{{it}}}"));
        let of = metric.object.map_or_else(|| chosen.clone(), |it| format!("{chosen} of {} {}", it.kind, it.name));
        let typed = format!("{of} ({:?})", metric.source);
        let matchers = selector.and_then(super::spec::LabelSelector::as_matchers);
        let as_query = matchers.map_or_else(|| chosen.clone(), |it| format!("{name}{it}"));
        vec![name, chosen, of, typed, as_query]
    };
    let all: Vec<Vec<String>> = metrics.iter().map(forms).collect();
    let own = |index: usize| {
        let others = || all.iter().enumerate().filter(move |(other, _)| *other != index).flat_map(|(_, it)| it);
        let mut own: Vec<String> = all[index].iter().filter(|form| !others().any(|it| it == *form)).cloned().collect();
        own.dedup();
        // Metrics that are the same in all share their load.
        if own.is_empty() { vec![all[index][3].clone(), all[index][0].clone()] } else { own }
    };
    let labels = |metric: &Metric<'_>| {
        let equal = metric.selector.map(super::spec::LabelSelector::equal).unwrap_or_default();
        equal
            .into_iter()
            .map(|(key, values)| (key.to_owned(), values.into_iter().map(str::to_owned).collect()))
            .collect()
    };
    metrics
        .iter()
        .enumerate()
        .map(|(index, metric)| Names { metric: metric.name.to_owned(), all: own(index), labels: labels(metric) })
        .collect()
}

/// The HPA's metrics with their loads.
fn held<'a>(
    args: &SimulateArgs,
    hpa: &'a Hpa,
    names: &[Names],
    load: &Load,
    request: Option<Milli>,
) -> Result<Vec<Held<'a>>, String> {
    let mut windows = Vec::new();
    for text in &args.windows {
        let given = text.rsplit_once('=').and_then(|(metric, seconds)| Some((metric, seconds.parse::<u32>().ok()?)));
        windows.push(given.ok_or_else(|| format!("--window {text}: give METRIC=SECONDS"))?);
    }
    let known: Vec<&String> = names.iter().flat_map(|it| &it.all).collect();
    let given = windows.iter().map(|it| it.0).chain(args.per_pod.iter().map(String::as_str));
    if let Some(other) = given.into_iter().find(|it| !known.iter().any(|name| name == it)) {
        return Err(format!("{other} is no metric of the HPA, which has: {}", shown(names)));
    }
    let table = Known::of(None);
    let of = |(metric, names): (Metric<'a>, &Names)| {
        let Some(name) = load.called(names) else {
            let there: Vec<_> = load.names().collect();
            return Err(format!("the HPA scales on {}, but the load has only: {}", names.all[0], there.join(", ")));
        };
        let given = windows.iter().find(|(it, _)| names.all.iter().any(|name| name == it)).map(|it| ms(it.1));
        let of_table = || table.window(metric.name).map_or(0, |it| it.as_millis() as i64);
        let default = if load.is_made(name) { of_table() } else { 0 };
        let own = args.per_pod.iter().any(|it| names.all.contains(it));
        let track = Track { name: name.to_owned(), window: given.unwrap_or(default), own };
        if matches!(metric.goal, Goal::Utilization(_)) && request.is_none() {
            return Err(format!(
                "{name}: the target is a percentage of what pods request: give --request QUANTITY, as 500m; without requests the \
                 controller has no such metric"
            ));
        }
        let target = match metric.goal {
            Goal::Value(it) | Goal::AverageValue(it) => it.0 as f64 / 1e3,
            Goal::Utilization(percent) => f64::from(percent),
        };
        Ok(Held { metric, track, target, request: request.map(|it| it.0 as f64 / 1e3) })
    };
    hpa.metrics().into_iter().zip(names).map(of).collect()
}

fn shown(names: &[Names]) -> String {
    names.iter().map(|it| it.all[0].as_str()).collect::<Vec<_>>().join(", ")
}

fn read_load(args: &SimulateArgs, names: &[Names]) -> Result<Load, String> {
    let mut load = Load::default();
    for given in &args.loads {
        // A file's name may have an equals sign as well.
        let split = given.rsplit_once('=').filter(|_| !Path::new(given).exists());
        let (metric, path) = split.map_or((None, given.as_str()), |(metric, path)| (Some(metric), path));
        if let Some(metric) = metric.filter(|it| !names.iter().any(|names| names.all.iter().any(|name| name == it))) {
            return Err(format!("--load {given}: {metric} is no metric of the HPA, which has: {}", shown(names)));
        }
        let file = fs::File::open(path).map_err(|error| format!("cannot read {path}: {error}"))?;
        load.record(file, names, metric).map_err(|error| format!("{path}: {error}"))?;
    }
    for shape in &args.shapes {
        load.shape(shape).map_err(|error| format!("--shape: {error}"))?;
    }
    Ok(load)
}

#[cfg(test)]
mod tests;
