//! What the simulation prints: a picture with a line for each decision, or CSV.

use std::fmt::Write as _;

use super::{Held, Step, plot};
use crate::hpa::spec::{Goal, Hpa};

/// A line for each sync.
pub(super) fn csv(held: &[Held<'_>], steps: &[Step]) -> Result<String, String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut header = vec!["seconds".to_owned()];
    header.extend(held.iter().map(|it| it.track.name.clone()));
    header.extend(["replicas", "ready", "proposed", "desired", "reason", "stabilized", "failed"].map(str::to_owned));
    header.extend(held.iter().map(|it| format!("{}_against_target", it.track.name)));
    let number = |value: Option<String>| value.unwrap_or_default();
    let rows = steps.iter().map(|step| {
        let mut row = vec![(step.now / 1000).to_string()];
        row.extend(step.loads.iter().map(|load| number(load.map(|it| it.to_string()))));
        let failed = held.iter().zip(&step.loads).filter(|(_, load)| load.is_none());
        row.extend([
            step.replicas.to_string(),
            step.ready.to_string(),
            number(step.decision.proposed.map(|it| it.to_string())),
            step.decision.desired.to_string(),
            step.decision.reason.to_owned(),
            number(step.stabilized.map(|it| it.to_string())),
            failed.map(|(it, _)| it.track.name.as_str()).collect::<Vec<_>>().join(" "),
        ]);
        row.extend(step.shares.iter().map(|share| number(share.map(|it| format!("{it:.3}")))));
        row
    });
    for row in std::iter::once(header).chain(rows) {
        writer.write_record(row).map_err(|error| error.to_string())?;
    }
    let bytes = writer.into_inner().map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| error.to_string())
}

/// For the terminal.
pub(super) fn picture(hpa: &Hpa, held: &[Held<'_>], steps: &[Step], period: u32) -> String {
    let width = std::env::var("COLUMNS").ok().and_then(|it| it.parse().ok()).unwrap_or(80_usize).clamp(40, 240) - 16;
    let mut out = String::new();
    for (index, it) in held.iter().enumerate() {
        let loads: Vec<_> = steps.iter().map(|step| step.loads[index]).collect();
        let away: Vec<bool> = loads.iter().map(Option::is_none).collect();
        let most = loads.iter().flatten().fold(0.0, |most: f64, it| most.max(*it));
        let shares: Vec<_> = steps.iter().map(|step| step.shares[index]).collect();
        let against = format!("{} against its target of {}", it.unit(), number(it.target));
        if matches!(it.metric.goal, Goal::Value(_)) {
            out += &plot::chart(&it.title(), &loads, Some(it.target), width, 6);
        } else {
            out += &plot::chart(&it.title(), &loads, None, width, 4);
        }
        out += &plot::marks(&away, most, width, "it was not to be had");
        // The load itself, of a figure or of a pod's own value, is what is held against the target.
        if !matches!(it.metric.goal, Goal::Value(_)) && shares.iter().any(Option::is_some) {
            out += &plot::chart(&against, &shares, Some(it.target), width, 6);
        }
    }
    let desired: Vec<_> = steps.iter().map(|step| Some(f64::from(step.decision.desired))).collect();
    let most = desired.iter().flatten().fold(0.0, |most: f64, it| most.max(*it));
    let target = &hpa.spec.scale_target_ref;
    let (least, most_allowed) = (hpa.spec.min_replicas, hpa.spec.max_replicas);
    let limits = format!(
        "replicas of {} {} by {} (from {least} to {most_allowed})",
        target.kind, target.name, hpa.metadata.name
    );
    out += &plot::chart(&limits, &desired, None, width, 8);
    out += &plot::axis(most, steps.last().map_or(0.0, |step| step.now as f64 / 1e3), width);
    out += &decisions(held, steps);
    out + &summary(held, steps, period)
}

/// A line for each change of the replicas, and for each metric that fails or is back.
fn decisions(held: &[Held<'_>], steps: &[Step]) -> String {
    let mut out = String::new();
    let mut failing = vec![false; held.len()];
    for step in steps {
        let (decision, seconds) = (&step.decision, step.now / 1000);
        for ((it, load), failing) in held.iter().zip(&step.loads).zip(&mut failing) {
            if *failing != load.is_none() {
                *failing = load.is_none();
                let name = &it.track.name;
                let _ = if *failing {
                    let rule = "not to be had: no scaling down until it is back";
                    writeln!(out, "{seconds:>6} s  {name}: {rule}")
                } else {
                    writeln!(out, "{seconds:>6} s  {name}: to be had again")
                };
            }
        }
        if decision.desired != step.replicas {
            let asked = decision.proposed.map_or_else(|| "nothing".to_owned(), |it| it.to_string());
            let _ = write!(
                out,
                "{seconds:>6} s  {:>4} -> {:<4} metrics ask for {asked}, {}",
                step.replicas, decision.desired, decision.reason
            );
            if let Some(error) = &decision.failed {
                let _ = write!(out, " ({error})");
            }
            out.push('\n');
        }
    }
    out
}

/// What it comes to: pods, and how long the load was above the targets.
fn summary(held: &[Held<'_>], steps: &[Step], period: u32) -> String {
    let desired = || steps.iter().flat_map(|it| [it.replicas, it.decision.desired]);
    // The last sync is the end.
    let lived = &steps[..steps.len().saturating_sub(1)];
    let hours = lived.iter().map(|it| f64::from(it.decision.desired)).sum::<f64>() * f64::from(period) / 3600.0;
    let (least, most) = (desired().min().unwrap_or(0), desired().max().unwrap_or(0));
    let mut out = format!("summary: {least} to {most} replicas, {hours:.2} pod-hours\n");
    for (index, it) in held.iter().enumerate() {
        let above: u32 = steps.iter().map(|step| step.above[index]).sum();
        let peak = steps.iter().filter_map(|step| step.shares[index]).fold(0.0, f64::max);
        let (unit, target) = (it.unit(), number(it.target));
        if steps.iter().any(|step| step.shares[index].is_some()) {
            let _ =
                writeln!(out, "summary: {unit} above its target of {target} for {above} s, at most {}", number(peak));
        }
        let away = steps.iter().filter(|step| step.loads[index].is_none()).count();
        if away > 0 {
            let _ = writeln!(out, "summary: {} was not to be had at {away} of {} syncs", it.track.name, steps.len());
        }
    }
    out
}

impl Held<'_> {
    fn title(&self) -> String {
        let name = &self.track.name;
        match self.metric.object.filter(|_| !name.contains(" of ")) {
            Some(object) => format!("{name} of {} {}", object.kind, object.name),
            None => name.clone(),
        }
    }

    /// What is held against the target.
    fn unit(&self) -> String {
        let name = &self.track.name;
        match self.metric.goal {
            Goal::Value(_) => name.clone(),
            Goal::AverageValue(_) => format!("{name} of each ready pod"),
            Goal::Utilization(_) => format!("{name} of each ready pod, per cent of its request,"),
        }
    }
}

fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
