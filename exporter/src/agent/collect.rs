//! From the kernel's maps to a snapshot.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    sync::atomic::Ordering,
    time::Instant,
};

use exporter_ebpf::loss::Reason;

use super::{
    Agent, Inner,
    ledger::{Known, Losses, Read, View, may_be_known_to_a_mux},
    reading::Reading,
    registry::Target,
    runtime::Wanted,
};
use crate::{
    kernel::{Maps, Usage},
    metrics::{AgentFigures, Lost, MapFigures, Snapshot, TargetFigures},
    target::Inspection,
};

pub(super) fn snapshot(agent: &Agent) -> Snapshot {
    let started = Instant::now();
    let inner = &*agent.inner;
    let buried = agent.bury();
    let (mut snapshot, more) = counted(agent);
    if buried {
        crate::heap::give_back();
    }
    for id in more.wants_mux {
        agent.attach_mux(id);
    }
    let (runtimes, (runtime_reads, runtime_read_seconds, walk_seconds)) = inner.runtimes.read(more.runtimes);
    snapshot.runtimes = runtimes;

    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let (cpu_seconds, resident_bytes) = own_usage();
    snapshot.agent = AgentFigures {
        attach_method: if inner.kernel.method() == crate::kernel::Method::PerfEvent {
            "perf-event"
        } else {
            "uprobe-multi"
        },
        events: vec![
            ("exec", count(&inner.exec_events)),
            ("exit", count(&inner.exit_events)),
            ("panic", count(&inner.panic_events)),
        ],
        runtime_reads,
        runtime_read_seconds,
        walk_seconds,
        scrapes: inner.scrapes.count(),
        collect_seconds: started.elapsed().as_secs_f64(),
        log_lines_dropped: crate::logging::dropped(),
        cpu_seconds,
        resident_bytes,
        kubernetes: inner.pods.as_ref().map(crate::kubernetes::Pods::figures),
        ..snapshot.agent
    };
    snapshot
}

/// What is to be done after a reading.
struct More {
    /// Targets of which requests were seen that a mux may know more of.
    wants_mux: BTreeSet<u32>,
    /// The runtimes to be read.
    runtimes: Vec<Wanted>,
}

/// What a reading of the kernel's maps gives. It is over before the runtimes are read, which may take a while.
fn counted(agent: &Agent) -> (Snapshot, More) {
    let inner = &*agent.inner;
    let involuntary = inner.run_queue.tells_involuntary();
    let reading = agent.reading();
    let (view, leaders) = (&reading.view, reading.view.leaders());
    let read_at = Instant::now();
    let read = reading.read();
    let sizes = Sizes::of(&read, inner.kernel.maps());
    let over = read.in_flight.as_ref().map(|seen| seen.over(&view.settled)).unwrap_or_default();
    let known = {
        let mut ledger = agent.ledger();
        ledger.forget_requests(&over);
        ledger.know(view, read, read_at)
    };
    let rows = known.series();
    let mut wants_mux = BTreeSet::new();
    let series = {
        let mut labeller = agent.labeller();
        view.series(rows, &leaders, |key, target| {
            if !target.wants_mux && may_be_known_to_a_mux(key, target) {
                wants_mux.insert(target.id);
            }
            labeller.label(key, target)
        })
    };
    let by_stage = by_stage(view);
    let measured = by_stage.get("measured").copied().unwrap_or(0);
    let agent = AgentFigures {
        probes: reading.sites.values().sum::<usize>() as u64,
        maps: sizes.usage(inner, measured).into_iter().map(map_figures).collect(),
        stale_maps: known.states().map(|(map, since)| (map, seconds_since(since))).collect(),
        targets: by_stage.into_iter().collect(),
        ..AgentFigures::default()
    };
    let snapshot = Snapshot {
        read_at: Some(rows.map_or(read_at, |rows| rows.at)),
        unsettled: view.unsettled(rows),
        series,
        targets: target_figures(inner, &reading, &known, &leaders, involuntary),
        lost: known.lost().map(|lost| named(view, view.losses(lost, &leaders))).unwrap_or_default(),
        agent,
        ..Snapshot::default()
    };
    let more = More { wants_mux, runtimes: super::runtime::wanted(&view.targets, &leaders) };
    (snapshot, more)
}

/// Targets by where they stand.
fn by_stage(view: &View) -> BTreeMap<&'static str, u64> {
    let names = ["preparing", "measured", "unsupported", "failed", "gone"];
    let mut by_stage: BTreeMap<&'static str, u64> = names.into_iter().map(|name| (name, 0)).collect();
    for target in view.targets.values() {
        *by_stage.entry(target.stage.name()).or_default() += 1;
    }
    by_stage
}

fn map_figures(usage: Usage) -> MapFigures {
    MapFigures {
        name: usage.map.to_lowercase(),
        entries: usage.entries,
        capacity: usage.capacity,
        bytes: usage.bytes,
        failed_reads: usage.failed_reads,
    }
}

/// How many entries maps have; none where that could not be read.
struct Sizes {
    series: Option<(u64, u64)>,
    in_flight: Option<u64>,
    panics: Option<u64>,
    hijacks: Option<u64>,
    texts: Option<u64>,
}

impl Sizes {
    fn of(read: &Read, maps: &Maps) -> Self {
        Self {
            series: read.series.as_ref().ok().map(|rows| rows.entries),
            in_flight: read.in_flight.as_ref().ok().map(|seen| seen.entries),
            panics: maps.panics.read(|count, _, _| *count += 1).ok(),
            hijacks: maps.hijacks.read(|count, _, _| *count += 1).ok(),
            texts: maps.texts.read(|count, _, _| *count += 1).ok(),
        }
    }

    fn usage(&self, inner: &Inner, measured: u64) -> Vec<Usage> {
        let maps = inner.kernel.maps();
        let mut usage = maps.series_usage(self.series).to_vec();
        usage.push(maps.in_flight.usage(self.in_flight));
        usage.push(maps.panics.usage(self.panics));
        usage.push(maps.hijacks.usage(self.hijacks));
        usage.push(maps.texts.usage(self.texts));
        usage.push(maps.parked.usage(Some(inner.parked_entries.load(Ordering::Relaxed))));
        usage.push(maps.targets.usage(measured));
        usage
    }
}

/// 0 where there is no such time.
fn seconds_since(at: Option<Instant>) -> f64 {
    at.map_or(0.0, |at| at.elapsed().as_secs_f64())
}

/// Losses, with the names of their targets and reasons.
fn named(view: &View, losses: Losses) -> Vec<Lost> {
    let named = losses.into_iter().filter_map(|((target, number), count)| {
        let reason = Reason::ALL.iter().find(|reason| **reason as u32 == number)?;
        let target = view.targets.get(&target).map(|target| target.labels.clone());
        Some(Lost { target, reason: reason.label(), count })
    });
    named.collect()
}

fn target_figures(
    inner: &Inner,
    reading: &Reading<'_>,
    known: &Known,
    leaders: &HashMap<u32, u32>,
    involuntary: bool,
) -> Vec<TargetFigures> {
    let view = &reading.view;
    let open = known.in_flight().map(|seen| seen.open(leaders)).unwrap_or_default();
    let kept = known.kept().map(|kept| view.kept(kept, leaders)).unwrap_or_default();
    let leading = view.targets.values().filter(|target| leaders.get(&target.id) == Some(&target.id));
    let measured = leading.filter_map(|target| Some((target, target.inspection.as_deref()?)));
    measured
        .map(|(target, inspection)| {
            let kept = kept.get(&target.id);
            TargetFigures {
                target: target.labels.clone(),
                open: open
                    .iter()
                    .filter(|(feature, ..)| target.measures(*feature))
                    .filter_map(|(_, name, of)| Some((*name, *of.get(&target.id)?)))
                    .collect(),
                probes: reading.sites.get(&target.group).copied().unwrap_or(0),
                info: info(inner, target, inspection),
                probe_figures: kept.map(|kept| super::waits::probe_figures(inner, target, kept)).unwrap_or_default(),
                blocked_functions: view.blocked_functions(target.id, leaders),
                run_queue: kept.and_then(|kept| super::waits::run_queue_figures(target, kept, involuntary)),
            }
        })
        .collect()
}

/// Labels of `go_target_info`.
fn info(inner: &Inner, target: &Target, inspection: &Inspection) -> Vec<(&'static str, String)> {
    let mut info = vec![
        ("go_version", inspection.go_version.clone()),
        ("main_module", inspection.main_module.clone()),
        ("main_version", inspection.main_version.clone()),
        ("executable_path", target.process.executable.display().to_string()),
        ("functions_from", inspection.functions_from.clone()),
        ("layouts_from", inspection.layouts_from.clone()),
    ];
    if let Some(placement) = target.placement.as_deref() {
        let workload = placement.workload.as_deref();
        info.extend([
            ("node", inner.config.kubernetes.node_name.clone().unwrap_or_default()),
            ("workload", workload.map_or_else(|| placement.pod.to_string(), |it| it.name.clone())),
            ("workload_kind", workload.map_or_else(|| "Pod".to_owned(), |it| it.kind.clone())),
            ("image", placement.image.to_string()),
        ]);
        info.extend(placement.labels.iter().cloned());
    }
    info
}

/// CPU seconds and resident bytes of this process.
fn own_usage() -> (Option<f64>, Option<u64>) {
    let stat = procfs::process::Process::myself().and_then(|me| me.stat()).ok();
    let cpu = stat.map(|stat| (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64);
    let resident = fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok())
        .map(|pages| pages * procfs::page_size());
    (cpu, resident)
}
