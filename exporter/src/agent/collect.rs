//! From the kernel's maps to a snapshot.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    fs,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Instant,
};

use exporter_ebpf::{
    http::{SeriesValue, goroutine_key_target, route_kind},
    loss::Reason,
    method,
};

use super::{
    Agent, Inner,
    state::{State, Target},
};
use crate::{
    kernel::{Kernel, Maps, Usage},
    metrics::{AgentFigures, HttpSeries, Lost, MapFigures, Snapshot, TargetFigures},
    target::Inspection,
};

/// Series that show the same labels are one: two patterns may differ in their method alone.
type Merged = BTreeMap<(u32, Option<Arc<str>>, u8, u16), SeriesValue>;

pub(super) fn snapshot(agent: &Agent) -> Snapshot {
    let started = Instant::now();
    agent.bury();
    let inner = &*agent.inner;
    let maps = inner.kernel.maps();
    let mut usage: Vec<Usage> = Vec::new();
    let involuntary = {
        let links = inner.scheduler.lock().unwrap_or_else(PoisonError::into_inner);
        links.as_ref().is_some_and(|links| links.tells_involuntary)
    };
    let mut guard = agent.state();
    let state = &mut *guard;

    let (raw, entries) = super::series::counted(maps, state, |_| true);
    usage.push(maps.series.usage(entries));
    let leaders = state.leaders();
    let mut merged = Merged::new();
    let mut wants_mux = Vec::new();
    for (key, value) in &raw {
        let Some(target) = state.targets.get_mut(&key.target) else { continue };
        if key.route_kind == route_kind::PATH && !target.wants_mux {
            target.wants_mux = true;
            wants_mux.push(key.target);
        }
        let route = state.route_label(key, maps, inner.config.max_routes);
        let leader = leaders.get(&key.target).copied().unwrap_or(key.target);
        match merged.entry((leader, route, key.method, key.status)) {
            Entry::Vacant(slot) => {
                slot.insert(*value);
            }
            Entry::Occupied(mut slot) => slot.get_mut().add(value),
        }
    }
    drop(raw);
    for leader in leaders.values().collect::<BTreeSet<_>>() {
        let Some(retired) = state.targets.get(leader).and_then(|target| state.retired.get(&target.labels)) else {
            continue;
        };
        for ((route, method, status), value) in &retired.http {
            merged.entry((*leader, route.clone(), *method, *status)).or_insert(SeriesValue::ZERO).add(value);
        }
    }

    let (active, in_flight) = active_requests(&inner.kernel, state);
    let mut panicked = 0;
    maps.panics.for_each(|_, _| panicked += 1);
    usage.push(maps.in_flight.usage(in_flight));
    usage.push(maps.panics.usage(panicked));
    let mut routes = 0;
    maps.routes.for_each(|_, _| routes += 1);
    usage.push(maps.routes.usage(routes));

    usage.push(maps.parked.usage(inner.parked_entries.load(Ordering::Relaxed)));
    let waits = super::waits::collect(&inner.kernel, state, &leaders, &mut usage);

    let lost = lost(maps, state, &leaders);

    let http = merged
        .into_iter()
        .filter_map(|((id, route, method, status), value)| {
            Some(HttpSeries {
                target: state.targets.get(&id)?.labels.clone(),
                method: method::NAMES.get(usize::from(method)).copied().unwrap_or(method::NAMES[0]),
                status,
                route,
                value,
            })
        })
        .collect();
    let targets = target_figures(inner, state, &active, &leaders, involuntary);
    let wanted = super::runtime::wanted(state, &leaders);
    let mut by_stage: BTreeMap<&'static str, u64> =
        ["preparing", "measured", "unsupported", "failed", "gone"].into_iter().map(|name| (name, 0)).collect();
    for target in state.targets.values() {
        *by_stage.entry(target.stage.name()).or_default() += 1;
    }
    let probes = state.groups.values().map(super::links::Group::sites).sum::<usize>() as u64;
    usage.push(maps.targets.usage(by_stage.get("measured").copied().unwrap_or(0)));
    drop(guard);
    for id in wants_mux {
        agent.attach_mux(id);
    }
    let (runtimes, (runtime_reads, runtime_read_seconds, walk_seconds)) = {
        let mut known = inner.runtimes.lock().unwrap_or_else(PoisonError::into_inner);
        (known.read(wanted), known.account())
    };

    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let (cpu_seconds, resident_bytes) = own_usage();
    Snapshot {
        http,
        waits,
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
            scrapes: count(&inner.scrapes),
            collect_seconds: started.elapsed().as_secs_f64(),
            maps: usage
                .into_iter()
                .map(|it| MapFigures {
                    name: it.map.to_lowercase(),
                    entries: it.entries,
                    capacity: it.capacity,
                    bytes: it.bytes,
                })
                .collect(),
            cpu_seconds,
            resident_bytes,
            kubernetes: inner.pods.as_ref().map(crate::kubernetes::Pods::figures),
        },
    }
}

/// What was lost, by target and reason, with what ended targets of the same labels lost.
fn lost(maps: &Maps, state: &State, leaders: &HashMap<u32, u32>) -> Vec<Lost> {
    let mut counts: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    maps.lost.for_each(|key, count| {
        let leader = leaders.get(&key.target).copied();
        if let Some(target) = leader.or((key.target == 0).then_some(0)) {
            *counts.entry((target, key.reason)).or_default() += count;
        }
    });
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
    active: &HashMap<u32, u64>,
    leaders: &HashMap<u32, u32>,
    involuntary: bool,
) -> Vec<TargetFigures> {
    let mut active_of: HashMap<u32, u64> = HashMap::new();
    for (id, count) in active {
        *active_of.entry(leaders.get(id).copied().unwrap_or(*id)).or_default() += count;
    }
    let kept = super::waits::kept(&inner.kernel, state, leaders);
    let leading = state.targets.values().filter(|target| leaders.get(&target.id) == Some(&target.id));
    let measured = leading.filter_map(|target| Some((target, target.inspection.as_deref()?)));
    measured
        .map(|(target, inspection)| {
            let kept = kept.get(&target.id).copied().unwrap_or_default();
            TargetFigures {
                target: target.labels.clone(),
                active_requests: active_of.get(&target.id).copied().unwrap_or(0),
                probes: state.groups.get(&target.group).map_or(0, super::links::Group::sites),
                info: info(inner, target, inspection),
                probe_figures: super::waits::probe_figures(inner, target, &kept),
                blocked_functions: super::profile::blocked_functions(state, target, leaders),
                scheduler: super::waits::scheduler_figures(target, &kept, involuntary),
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

/// Requests in flight by target, and entries in the map. A settled request's entry stays until its goroutine is used again.
fn active_requests(kernel: &Kernel, state: &mut State) -> (HashMap<u32, u64>, u64) {
    let mut active: HashMap<u32, u64> = HashMap::new();
    let mut entries = 0;
    let mut still_settled = HashMap::new();
    kernel.maps().in_flight.for_each(|key, entry| {
        entries += 1;
        if entry.writer == 0 {
            return;
        }
        if state.settled_requests.get(key) == Some(&entry.start_ns) {
            still_settled.insert(*key, entry.start_ns);
        } else {
            *active.entry(goroutine_key_target(*key)).or_default() += 1;
        }
    });
    state.settled_requests = still_settled;
    (active, entries)
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
