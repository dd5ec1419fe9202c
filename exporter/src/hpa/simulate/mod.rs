//! `gopulse hpa simulate`: what an HPA would have done under a load. Knows nothing of a cluster.

mod calculator;
mod controller;
mod load;
mod plot;
mod trace;
mod world;

use std::{fmt::Write as _, fs, path::PathBuf};

use clap::Args;

use self::{
    calculator::Time,
    controller::{Controller, Decision, Flags},
    load::Load,
    world::{Pace, World},
};
use super::{
    quantity::Milli,
    spec::{Hpa, Metric},
};

/// Options of `gopulse hpa simulate`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gopulse hpa simulate --hpa hpa.yaml --shape \
                        http_server_requests_per_second=steps:0=100,60=800,600=100\n\nValues of a load are those of the whole \
                        workload; of Pods and Resource metrics each ready pod gets its share.")]
pub(crate) struct SimulateArgs {
    /// The HPA (autoscaling/v2, YAML); `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    hpa: PathBuf,
    /// A recorded load: CSV with a column `seconds` and one for each metric, named as in the HPA.
    #[arg(long, value_name = "FILE", required_unless_present = "shapes")]
    load: Option<PathBuf>,
    /// A made load: METRIC=steps:SECONDS=VALUE,..., METRIC=ramp:SECONDS=VALUE,... or METRIC=sine:LOW,HIGH,PERIOD_SECONDS
    #[arg(long = "shape", value_name = "METRIC=SHAPE")]
    shapes: Vec<String>,
    /// A metric whose value is a pod's own however many there are, as a latency.
    #[arg(long, value_name = "METRIC")]
    per_pod: Vec<String>,
    /// Replicas at the start [default: minReplicas]
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
    loads: Vec<Option<f64>>,
    decision: Decision,
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
    let hpa = Hpa::parse(&text).map_err(|error| format!("{name}: {error}"))?;
    let load = read_load(args)?;
    for metric in hpa.metrics() {
        if !load.has(metric.name) {
            let names: Vec<_> = load.names().collect();
            return Err(format!("the HPA scales on {}, but the load has only: {}", metric.name, names.join(", ")));
        }
    }
    let request =
        args.request.as_deref().map(Milli::parse).transpose().map_err(|error| format!("--request: {error}"))?;
    if !(0.0..1.0).contains(&args.tolerance) {
        return Err(format!("--tolerance is {}: it must be from 0 to less than 1", args.tolerance));
    }
    let ms = |seconds: u32| i64::from(seconds) * 1000;
    let pace = Pace {
        start: ms(args.start_after.min(args.ready_after)),
        ready: ms(args.ready_after),
        metrics: ms(args.metrics_after),
        window: 15_000,
        request: request.map(|it| it.0),
        per_pod: args.per_pod.clone(),
    };
    let flags = Flags {
        tolerance: args.tolerance,
        downscale_stabilization: ms(args.downscale_stabilization),
        own_tolerances: !args.ignore_own_tolerances,
        ..Flags::default()
    };
    let end = args.duration.map_or(load.end() + 600_000, ms);
    let mut world = World::new(pace, args.replicas.unwrap_or(hpa.spec.min_replicas));
    let mut controller = Controller::new(flags);
    let mut out = String::new();
    let mut steps = Vec::new();
    let mut now = 0;
    while now <= end {
        let pods = world.pods(now);
        let metrics = hpa.metrics();
        let readings: Vec<_> = metrics.iter().map(|metric| world.reading(metric, &load, now)).collect();
        let replicas = world.replicas();
        let decision = controller.sync(&hpa, now, replicas, &pods, &readings);
        if args.trace {
            out += &trace::line(now, replicas, &pods, &readings, &decision);
        }
        let loads = metrics.iter().map(|metric| load.at(metric.name, now)).collect();
        world.scale(decision.desired, now);
        steps.push(Step { now, replicas, ready: world.ready(now), loads, decision });
        now += ms(args.sync_period);
    }
    if args.trace {
        return Ok(out);
    }
    Ok(if args.csv { csv(&hpa, &steps)? } else { plot(&hpa, &steps) })
}

fn read_load(args: &SimulateArgs) -> Result<Load, String> {
    let mut load = Load::default();
    if let Some(path) = &args.load {
        let name = path.display();
        let file = fs::File::open(path).map_err(|error| format!("cannot read {name}: {error}"))?;
        load.record(file).map_err(|error| format!("{name}: {error}"))?;
    }
    for shape in &args.shapes {
        load.shape(shape).map_err(|error| format!("--shape: {error}"))?;
    }
    Ok(load)
}

fn csv(hpa: &Hpa, steps: &[Step]) -> Result<String, String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut header = vec!["seconds".to_owned()];
    header.extend(hpa.metrics().iter().map(|metric| metric.name.to_owned()));
    header.extend(["replicas", "ready", "proposed", "desired", "reason"].map(str::to_owned));
    let number = |value: Option<String>| value.unwrap_or_default();
    let rows = steps.iter().map(|step| {
        let mut row = vec![(step.now / 1000).to_string()];
        row.extend(step.loads.iter().map(|load| number(load.map(|it| it.to_string()))));
        row.extend([
            step.replicas.to_string(),
            step.ready.to_string(),
            number(step.decision.proposed.map(|it| it.to_string())),
            step.decision.desired.to_string(),
            step.decision.reason.to_owned(),
        ]);
        row
    });
    for row in std::iter::once(header).chain(rows) {
        writer.write_record(row).map_err(|error| error.to_string())?;
    }
    let bytes = writer.into_inner().map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| error.to_string())
}

fn plot(hpa: &Hpa, steps: &[Step]) -> String {
    let width = std::env::var("COLUMNS").ok().and_then(|it| it.parse().ok()).unwrap_or(80_usize).clamp(40, 240) - 16;
    let mut out = String::new();
    for (index, metric) in hpa.metrics().iter().enumerate() {
        let values: Vec<_> = steps.iter().map(|step| step.loads[index]).collect();
        out += &plot::chart(&title(metric), &values, width, 4);
    }
    let desired: Vec<_> = steps.iter().map(|step| Some(f64::from(step.decision.desired))).collect();
    let most = desired.iter().flatten().fold(0.0, |most: f64, it| most.max(*it));
    let target = &hpa.spec.scale_target_ref;
    let (least, most_allowed) = (hpa.spec.min_replicas, hpa.spec.max_replicas);
    let limits = format!(
        "replicas of {} {} by {} (from {least} to {most_allowed})",
        target.kind, target.name, hpa.metadata.name
    );
    out += &plot::chart(&limits, &desired, width, 8);
    out += &plot::axis(most, steps.last().map_or(0.0, |step| step.now as f64 / 1e3), width);
    let mut before = None;
    for step in steps {
        let decision = &step.decision;
        let shown = (decision.desired != step.replicas) || before.is_some_and(|it| it != decision.reason);
        if shown {
            let asked = decision.proposed.map_or_else(|| "nothing".to_owned(), |it| it.to_string());
            let _ = write!(
                out,
                "{:>6} s  {:>4} -> {:<4} metrics ask for {asked}, {}",
                step.now / 1000,
                step.replicas,
                decision.desired,
                decision.reason
            );
            if let Some(error) = &decision.failed {
                let _ = write!(out, " ({error})");
            }
            out.push('\n');
        }
        before = Some(decision.reason);
    }
    out
}

fn title(metric: &Metric<'_>) -> String {
    match metric.object {
        Some(object) => format!("{} of {} {}", metric.name, object.kind, object.name),
        None => metric.name.to_owned(),
    }
}

#[cfg(test)]
mod tests;
