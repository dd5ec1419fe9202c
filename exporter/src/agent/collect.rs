//! From the kernel's maps to a snapshot.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    sync::atomic::Ordering,
    time::Instant,
};

use exporter_ebpf::{
    key::target_of,
    loss::Reason,
    span::{LANES, Lane},
};

use super::{
    Agent, Inner,
    state::{State, Target},
};
use crate::{
    kernel::{Kernel, Maps, Usage},
    metrics::{AgentFigures, Lost, MapFigures, Snapshot, TargetFigures},
    target::Inspection,
};

pub(super) fn snapshot(agent: &Agent) -> Snapshot {
    let started = Instant::now();
    let inner = &*agent.inner;
    let maps = inner.kernel.maps();
    let mut usage: Vec<Usage> = Vec::new();
    let involuntary = inner.run_queue.tells_involuntary();
    let mut guard = agent.ledger();
    let state = &mut *guard;
    let buried = agent.bury(state);

    let leaders = state.leaders();
    let (read_at, unsettled) = (Some(Instant::now()), state.targets.unsettled());
    let (series, wants_mux) = super::series::collect(maps, state, inner.config.max_routes, &leaders, &mut usage);
    let in_flight = in_flight(&inner.kernel, state).ok();
    usage.push(maps.in_flight.usage(in_flight.as_ref().map(|(_, entries)| *entries)));
    usage.push(maps.panics.usage(maps.panics.read(|count, _, _| *count += 1).ok()));
    usage.push(maps.hijacks.usage(maps.hijacks.read(|count, _, _| *count += 1).ok()));
    usage.push(maps.texts.usage(maps.texts.read(|count, _, _| *count += 1).ok()));

    usage.push(maps.parked.usage(Some(inner.parked_entries.load(Ordering::Relaxed))));
    let lost = lost(maps, state, &leaders);
    let targets = target_figures(inner, state, in_flight.as_ref().map(|(open, _)| open), &leaders, involuntary);
    let wanted = super::runtime::wanted(&state.targets, &leaders);
    let mut by_stage: BTreeMap<&'static str, u64> =
        ["preparing", "measured", "unsupported", "failed", "gone"].into_iter().map(|name| (name, 0)).collect();
    for target in state.targets.values() {
        *by_stage.entry(target.stage.name()).or_default() += 1;
    }
    let probes = state.sites.values().sum::<usize>() as u64;
    usage.push(maps.targets.usage(by_stage.get("measured").copied().unwrap_or(0)));
    drop(guard);
    if buried {
        crate::heap::give_back();
    }
    for id in wants_mux {
        agent.attach_mux(id);
    }
    let (runtimes, (runtime_reads, runtime_read_seconds, walk_seconds)) = inner.runtimes.read(wanted);

    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let (cpu_seconds, resident_bytes) = own_usage();
    Snapshot {
        read_at,
        unsettled,
        series,
        targets,
        runtimes,
        lost,
        agent: AgentFigures {
            attach_method: if inner.kernel.method() == crate::kernel::Method::PerfEvent {
                "perf-event"
            } else {
                "uprobe-multi"
            },
            targets: by_stage.into_iter().collect(),
            probes,
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
            maps: usage
                .into_iter()
                .map(|it| MapFigures {
                    name: it.map.to_lowercase(),
                    entries: it.entries,
                    capacity: it.capacity,
                    bytes: it.bytes,
                    failed_reads: it.failed_reads,
                })
                .collect(),
            log_lines_dropped: crate::logging::dropped(),
            cpu_seconds,
            resident_bytes,
            kubernetes: inner.pods.as_ref().map(crate::kubernetes::Pods::figures),
        },
    }
}

/// What was lost, by target and reason, with what ended targets of the same labels lost. Nothing where the map cannot be read.
fn lost(maps: &Maps, state: &State, leaders: &HashMap<u32, u32>) -> Vec<Lost> {
    let Ok(losses) = maps.losses() else { return Vec::new() };
    let mut counts: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    for (key, count) in losses {
        let leader = leaders.get(&key.target).copied();
        if let Some(target) = leader.or((key.target == 0).then_some(0)) {
            *counts.entry((target, key.reason)).or_default() += count;
        }
    }
    for (target, count) in super::series::past_the_limit(state) {
        if let Some(leader) = leaders.get(&target) {
            *counts.entry((*leader, Reason::SeriesOverflow as u32)).or_default() += count;
        }
    }
    for leader in leaders.values().collect::<BTreeSet<_>>() {
        let Some(retired) = state.targets.get(leader).and_then(|target| state.retired.get(&target.labels)) else {
            continue;
        };
        for (reason, count) in &retired.lost {
            *counts.entry((*leader, *reason)).or_default() += count;
        }
    }
    counts
        .into_iter()
        .filter_map(|((target, number), count)| {
            let reason = Reason::ALL.iter().find(|reason| **reason as u32 == number)?;
            let target = state.targets.get(&target).map(|target| target.labels.clone());
            Some(Lost { target, reason: reason.label(), count })
        })
        .collect()
}

fn target_figures(
    inner: &Inner,
    state: &State,
    open: Option<&OpenSpans>,
    leaders: &HashMap<u32, u32>,
    involuntary: bool,
) -> Vec<TargetFigures> {
    let kept = super::waits::kept(&inner.kernel, state, leaders);
    let leading = state.targets.values().filter(|target| leaders.get(&target.id) == Some(&target.id));
    let measured = leading.filter_map(|target| Some((target, target.inspection.as_deref()?)));
    measured
        .map(|(target, inspection)| {
            let kept = kept.get(&target.id);
            TargetFigures {
                target: target.labels.clone(),
                open: open.map(|open| under_way(target, open, leaders)).unwrap_or_default(),
                probes: state.sites.get(&target.group).copied().unwrap_or(0),
                info: info(inner, target, inspection),
                probe_figures: kept.map(|kept| super::waits::probe_figures(inner, target, kept)).unwrap_or_default(),
                blocked_functions: super::profile::blocked_functions(state, target, leaders),
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

/// Spans that are open, by target and lane.
type OpenSpans = HashMap<(u32, u64), u64>;

/// Those, and entries in the map. A settled request's entry stays until its goroutine is used again.
fn in_flight(kernel: &Kernel, state: &mut State) -> io::Result<(OpenSpans, u64)> {
    type Seen = (OpenSpans, u64, HashMap<u64, u64>);
    let settled = &state.settled_requests;
    let (open, entries, still_settled) = kernel.maps().in_flight.read(|seen: &mut Seen, key, entry| {
        let (open, entries, still_settled) = seen;
        *entries += 1;
        if entry.open == 0 {
            return;
        }
        if settled.get(key) == Some(&entry.start_ns) {
            still_settled.insert(*key, entry.start_ns);
        } else {
            *open.entry((target_of(*key), *key % LANES)).or_default() += 1;
        }
    })?;
    state.settled_requests = still_settled;
    Ok((open, entries))
}

/// What is under way of the targets that this one speaks for, by metric.
fn under_way(target: &Target, open: &OpenSpans, leaders: &HashMap<u32, u32>) -> Vec<(&'static str, u64)> {
    let mine = |id: u32| leaders.get(&id).copied().unwrap_or(id) == target.id;
    let count = |lanes: &[Lane]| {
        let is_one = |lane: u64| lanes.iter().any(|it| *it as u64 == lane);
        open.iter().filter(|((id, lane), _)| mine(*id) && is_one(*lane)).map(|(_, count)| count).sum()
    };
    let measured = instruments::ALL.into_iter().filter(|it| target.measures(it.feature));
    measured.flat_map(|it| it.open).map(|it| (it.desc.name, count(it.lanes))).collect()
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
