//! Probes on executables. Each process has a group of links of its own; processes of one file share a group where all of them
//! are wanted and the file keeps its content.

use std::{
    collections::{BTreeSet, hash_map::Entry},
    io::ErrorKind,
    sync::Arc,
};

use tracing::{info, warn};

use super::{
    Agent, Message,
    links::{Group, GroupKey, Leaving, Links, attach_all, detach_elsewhere, on_inspected, wait_for_leaving},
    state::{Stage, Target, Verdict},
    turns::Who,
};
use crate::{
    kernel::AttachError,
    process::{Process, is_lasting},
    target::{Change, Feature, Features, Inspection, PlannedProbe, Sites, inspect},
};

/// What reading an executable gave.
pub(super) struct Inspected {
    id: u32,
    process: Process,
    verdict: Verdict,
    /// Whether its probes may be shared with other processes of the file.
    shared: bool,
    /// See [`exporter_ebpf::wait::Watch::last_gc`].
    last_gc: u64,
    /// See [`exporter_ebpf::target::TargetConfig::literals_from`].
    literals: (u64, u64),
    holds: Holds,
    /// Functions that the process has changed in its memory.
    changes: BTreeSet<Change>,
}

/// For what a verdict holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    /// Every process of the file.
    OfFile,
    /// This process, for as long as it lives.
    OfProcess,
    /// This attempt.
    Now,
}

/// What came of attaching a group for a target.
pub(super) struct Attached {
    id: u32,
    key: GroupKey,
    /// Of the group that it was attached for.
    generation: Option<u64>,
    features: Features,
    links: Result<Links, AttachError>,
    /// Until this is taken over, nothing else is attached to the process.
    _underway: Option<Leaving>,
}

impl Agent {
    /// Reads a new target's executable, away from the event loop, unless what is in it is known.
    pub(super) fn prepare(&self, id: u32, process: Process, known: Option<Verdict>) {
        let sites = self.inner.config.bench_sites;
        let of_an_image = self.inner.pods.is_some();
        self.elsewhere(Who::of(&process), Some(id), move |agent| {
            // Another file may look like the one that was inspected.
            let known = known.filter(|verdict| match verdict {
                Ok(inspection) => process.hold(&inspection.code).is_ok(),
                Err(_) => true,
            });
            let (mut verdict, mut holds) =
                known.map_or_else(|| look_inside(&process, sites), |verdict| (verdict, Holds::OfFile));
            let mut changes = BTreeSet::new();
            match verdict.as_ref().map(|inspection| changes_in(inspection, &process)) {
                Ok(Ok(found)) => changes = found,
                Ok(Err(reason)) => (verdict, holds) = (Err(reason), Holds::Now),
                Err(_) => {}
            }
            crate::heap::give_back();
            let others = agent.state().targets.get(&id).is_some_and(|target| target.others);
            let shared = others && process.open().is_ok_and(|file| is_lasting(&process, &file, of_an_image));
            // Before the kernel side is told of the target: what is attached still would count for it.
            if verdict.is_ok() && !wait_for_leaving(&process) {
                let still =
                    "probes that were attached to it before are still being detached: the kernel waits for its memory";
                (verdict, holds) = (Err(still.into()), Holds::Now);
            }
            let runtime = verdict.as_ref().ok().and_then(|inspection| inspection.runtime.as_ref().ok());
            let last_gc = runtime.and_then(|plan| plan.last_gc_in(process.id.pid)).unwrap_or(0);
            let literals = verdict.as_ref().map_or((0, 0), |inspection| inspection.literals.in_process(process.id.pid));
            let shared = shared && changes.is_empty();
            let outcome = Inspected { id, process, verdict, shared, last_gc, literals, holds, changes };
            agent.send(Message::Inspected(Box::new(outcome)));
        });
    }

    /// Goes on with a target whose executable was read: tells the kernel side of it, and joins or founds its group.
    pub(super) fn inspected(&self, outcome: Inspected) {
        let mut guard = self.state();
        let state = &mut *guard;
        if outcome.holds == Holds::OfFile {
            state.remember(&outcome.process, outcome.verdict.clone());
        }
        let still = state.targets.get_mut(&outcome.id).filter(|target| target.process.id == outcome.process.id);
        let Some(target) = still.filter(|target| matches!(target.stage, Stage::Preparing)) else { return };
        let pid = outcome.process.id.pid;
        let executable = target.process.executable.display().to_string();
        let is_changed = !outcome.changes.is_empty();
        if is_changed {
            // Links on its file would get into it.
            target.others = false;
            let all = GroupKey::shared(&target.process);
            let sharing = state.groups.get(&all).map(|group| group.users.clone()).unwrap_or_default();
            for id in sharing {
                self.send(Message::Regroup(id));
            }
        }
        let verdict = outcome
            .verdict
            .map(|inspection| if is_changed { Arc::new(inspection.without(&outcome.changes)) } else { inspection });
        let inspection = match verdict {
            Ok(inspection) if inspection.measures_something(target.features) => inspection,
            Ok(inspection) => {
                let reason = inspection.why_nothing();
                info!(pid, executable, reason, "not measured");
                target.inspection = Some(inspection);
                target.stage = Stage::Unsupported(reason);
                return;
            }
            Err(reason) if outcome.holds == Holds::Now => {
                if target.process.is_there() {
                    return target.failed(reason);
                }
                drop(guard);
                // It ended before it was read.
                return self.look(pid);
            }
            Err(reason) => {
                info!(pid, executable, reason, "not measured");
                target.stage = Stage::Unsupported(reason);
                return;
            }
        };
        let mut config = inspection.config;
        config.pid = pid;
        config.id = outcome.id;
        (config.literals_from, config.literals_len) = outcome.literals;
        config.max_routes = super::pods::max_routes(target, self.inner.config.max_routes);
        target.inspection = Some(inspection.clone());
        let told = if target.features.has(Feature::Http) {
            let targets = &self.inner.kernel.maps().targets;
            targets.insert(&config).map_err(|error| format!("the map of targets: {error}"))
        } else {
            // A probe that another process of the file asked for finds nothing of this one.
            Ok(())
        };
        if let Err(reason) = told.and_then(|()| self.watch(target, outcome.last_gc)) {
            target.failed(reason);
            return;
        }
        let process = target.process.clone();
        let features = target.features;
        let all = GroupKey::shared(&process);
        // Files of one identity, but not of one code, share nothing.
        let same = |group: &Group| group.code == inspection.code;
        let key =
            if outcome.shared && state.groups.get(&all).is_none_or(same) { all } else { GroupKey::alone(&process) };
        target.group = key;
        match state.groups.entry(key) {
            Entry::Occupied(mut group) => {
                let group = group.get_mut();
                group.users.insert(outcome.id);
                if group.attached && group.features.union(features) == group.features {
                    measured(target);
                    self.send(Message::Verify(outcome.id));
                    group.joined.notify_one();
                    drop(guard);
                    self.measure_blocking(key);
                    self.see_to_run_queue();
                } else if group.attached {
                    group.attached = false;
                    let (features, had) = (features.union(group.features), group.features);
                    drop(guard);
                    self.attach(outcome.id, key, inspection, process, features, had);
                }
            }
            Entry::Vacant(slot) => {
                slot.insert(Group::founded_by(outcome.id, inspection.code.clone()));
                drop(guard);
                self.attach(outcome.id, key, inspection, process, features, Features::NONE);
            }
        }
    }

    /// Attaches what `features` ask for and is not there yet.
    fn attach(
        &self,
        id: u32,
        key: GroupKey,
        inspection: Arc<Inspection>,
        process: Process,
        features: Features,
        had: Features,
    ) {
        let underway = Leaving::underway(key);
        let generation = self.state().groups.get(&key).map(|group| group.generation);
        self.elsewhere(Who::of(&process), Some(id), move |agent| {
            // What blocks is attached when the budget allows.
            let wanted = |it: &PlannedProbe| {
                let feature = it.feature();
                features.has(feature) && !had.has(feature) && feature != Feature::Blocking
            };
            let reached = agent.reached(key, process);
            let links = attach_all(&agent.inner.kernel, &inspection, &reached, key, wanted);
            let outcome = Attached { id, key, generation, features, links, _underway: underway };
            agent.send(Message::Attached(Box::new(outcome)));
        });
    }

    /// Takes over a group's links.
    pub(super) fn attached(&self, outcome: Attached) {
        let Attached { id, key, generation, features, links, _underway } = outcome;
        let mut guard = self.state();
        let state = &mut *guard;
        let of_it = |group: &&mut Group| !group.attached && Some(group.generation) == generation;
        let Some(group) = state.groups.get_mut(&key).filter(of_it) else {
            // Its users ended meanwhile.
            drop(guard);
            detach_elsewhere(key, links.unwrap_or_default());
            return;
        };
        match links {
            Ok(links) => {
                group.links.extend(links);
                group.attached = true;
                group.features = features;
                let mut more = None;
                for id in &group.users {
                    let Some(target) = state.targets.get_mut(id) else { continue };
                    let all = group.features.union(target.features);
                    if all == group.features {
                        measured(target);
                        self.send(Message::Verify(target.id));
                    } else if let Some(inspection) = target.inspection.clone() {
                        // It came while the group was being attached, and asks for more.
                        more = Some((*id, inspection, target.process.clone(), all));
                    }
                }
                group.joined.notify_one();
                if let Some((id, inspection, process, all)) = more {
                    group.attached = false;
                    drop(guard);
                    self.attach(id, key, inspection, process, all, features);
                } else {
                    drop(guard);
                    self.measure_blocking(key);
                    self.see_to_run_queue();
                }
            }
            Err(error @ (AttachError::Gone { .. } | AttachError::Swapped(_))) => {
                // The process through which it was attached ended, or runs what was not inspected; another of the group takes
                // its place.
                let swapped = matches!(error, AttachError::Swapped(_));
                if swapped {
                    state.inspections.remove(&key.file);
                }
                group.users.remove(&id);
                let next = group.users.iter().find_map(|id| {
                    let target = state.targets.get(id)?;
                    Some((*id, target.inspection.clone()?, target.process.clone(), target.features))
                });
                let had = group.features;
                let pid = state.targets.get(&id).map(|target| target.process.id.pid);
                let over = if next.is_none() { state.groups.remove(&key) } else { None };
                drop(guard);
                detach_elsewhere(key, over.map(Group::into_links).unwrap_or_default());
                if let Some((id, inspection, process, features)) = next {
                    self.attach(id, key, inspection, process, features.union(had), had);
                }
                if swapped {
                    // Also where the identity is the same as before: what was inspected is not what runs.
                    warn!(pid, %error, "inspected once more");
                    self.end(id, true);
                }
                if let Some(pid) = pid {
                    self.look(pid);
                }
            }
            Err(AttachError::Patched(reason)) if key.pid.is_none() => {
                // Each by itself, so that nothing gets into the one that is not what was inspected.
                let users = group.users.clone();
                drop(guard);
                warn!(reason, "probes on a file are in all of its processes: each has its own");
                for id in users {
                    self.regroup(id);
                }
            }
            Err(error) => {
                let (users, links) = state
                    .groups
                    .remove(&key)
                    .map(|mut group| (std::mem::take(&mut group.users), group.into_links()))
                    .unwrap_or_default();
                detach_elsewhere(key, links);
                let mut failed = Vec::new();
                for id in users {
                    let Some(target) = state.targets.get_mut(&id) else { continue };
                    target.failed(error.to_string());
                    failed.push((target.process.id.pid, id));
                }
                drop(guard);
                for (pid, id) in failed {
                    self.forget_config(pid, id);
                }
            }
        }
    }

    /// Attaches the ServeMux probe of a target whose middleware copies requests.
    pub(super) fn attach_mux(&self, id: u32) {
        let who = self.state().targets.get(&id).map(|target| Who::of(&target.process));
        let Some(who) = who else { return };
        self.elsewhere(who, None, move |agent| {
            let found = {
                let state = agent.state();
                state.targets.get(&id).and_then(|target| {
                    let key = target.group;
                    let planned = target.inspection.as_ref()?.probes.iter().find(|it| it.on_demand)?.clone();
                    let wanted = state.groups.get(&key).is_some_and(|group| !group.has(&planned));
                    let inspection = target.inspection.clone()?;
                    wanted.then(|| (key, planned, target.process.clone(), inspection))
                })
            };
            let Some((key, planned, process, inspection)) = found else { return };
            let reached = agent.reached(key, process);
            let kernel = &agent.inner.kernel;
            let attached = on_inspected(&reached, &inspection, &[&planned], |exe| {
                kernel.attach(planned.probe, exe, &[planned.file_offset], key.scope())
            });
            match attached {
                Err(error) => warn!(%error, "the ServeMux probe is off: routes are folded from paths"),
                Ok(link) => {
                    info!(function = planned.function, "attached: requests are copied before they are routed");
                    let mut state = agent.state();
                    match state.groups.get_mut(&key) {
                        Some(group) if !group.has(&planned) => {
                            group.links.push((planned.probe, planned.file_offset, link));
                        }
                        _ => drop(link),
                    }
                }
            }
        });
    }

    /// On overlayfs one identity may stand for two files: where a container's layers are file systems of their own, mounted for
    /// each container from one image, they agree in all that `stat` tells. So it is looked at whether the probes that a target
    /// shares are in its memory.
    pub(super) fn verify(&self, id: u32) {
        let (process, offset) = {
            let state = self.state();
            let Some(target) = state.targets.get(&id).filter(|it| matches!(it.stage, Stage::Measured)) else { return };
            let shared =
                target.group.pid.is_none() && state.groups.get(&target.group).is_some_and(|it| it.users.len() > 1);
            if target.process.id.inode.device != 0 || !shared {
                return;
            }
            let probes = target.inspection.as_ref().map_or(&[][..], |it| &it.probes);
            let asked_for = |it: &&PlannedProbe| !it.on_demand && target.features.has(it.feature());
            let Some(site) = probes.iter().find(asked_for) else { return };
            (target.process.clone(), site.file_offset)
        };
        self.elsewhere(Who::of(&process), None, move |agent| {
            // Where it cannot be seen, nothing speaks against it.
            if !crate::process::is_probed(&process, offset).unwrap_or(true) {
                agent.send(Message::Regroup(id));
            }
        });
    }

    /// Gives a target an inspection and probes of its own.
    pub(super) fn regroup(&self, id: u32) {
        // Its verdict is not that of the others.
        let (before, process) = {
            let mut state = self.state();
            let has_probes = |it: &&mut Target| matches!(it.stage, Stage::Measured | Stage::Preparing);
            let Some(target) = state.targets.get_mut(&id).filter(has_probes) else { return };
            info!(pid = target.process.id.pid, "inspected by itself, for probes of its own");
            let before = std::mem::replace(&mut target.group, GroupKey::alone(&target.process));
            target.stage = Stage::Preparing;
            target.others = false;
            (before, target.process.clone())
        };
        self.release(before, id);
        self.prepare(id, process, None);
    }

    /// Lets a target's use of its group go; the last user detaches.
    pub(super) fn release(&self, key: GroupKey, id: u32) {
        let group = {
            let mut state = self.state();
            let Some(group) = state.groups.get_mut(&key) else { return };
            group.users.remove(&id);
            if !group.users.is_empty() {
                return;
            }
            state.groups.remove(&key)
        };
        if let Some(group) = group {
            detach_elsewhere(key, group.into_links());
        }
    }

    /// Takes a process's config from the kernel side, if it is still this target's.
    pub(super) fn forget_config(&self, pid: u32, id: u32) {
        let targets = &self.inner.kernel.maps().targets;
        if targets.get(pid).is_some_and(|config| config.id == id) {
            targets.remove(pid);
        }
        self.unwatch(pid, id);
    }
}

fn measured(target: &mut Target) {
    if matches!(target.stage, Stage::Preparing) {
        target.failures = 0;
        let go = target.inspection.as_ref().map(|it| it.go_version.as_str());
        info!(pid = target.process.id.pid, executable = %target.process.executable.display(), go, "measured");
        target.stage = Stage::Measured;
    }
}

/// What the process has changed of the code that is to be probed; why that cannot be told now.
fn changes_in(inspection: &Inspection, process: &Process) -> Result<BTreeSet<Change>, String> {
    let changes = inspection.changes_in(process, |_| true).map_err(|error| match error.kind() {
        ErrorKind::NotFound => "the process ended".into(),
        _ => format!("its code cannot be compared with its file's: {error}"),
    })?;
    // Soon it is changed, or as it was.
    changes.iter().find(|it| it.is_writable).map_or(Ok(()), |change| Err(change.reason.clone()))?;
    Ok(changes)
}

/// What is in the executable, and for what that holds.
fn look_inside(process: &Process, sites: Sites) -> (Verdict, Holds) {
    let unreadable = |error: std::io::Error| {
        let holds = if error.kind() == std::io::ErrorKind::Unsupported { Holds::OfProcess } else { Holds::Now };
        (Err(format!("cannot read the executable: {error}")), holds)
    };
    let (file, again) = match process.open().and_then(|file| Ok((file.try_clone()?, file))) {
        Ok(opened) => opened,
        Err(error) => return unreadable(error),
    };
    match inspect(file, sites) {
        Ok(mut inspection) => {
            if let Err(error) = inspection.remember_code(&again) {
                return unreadable(error);
            }
            // These are for people; kept for many executables they would be most of the agent's memory.
            inspection.modules = Vec::new();
            inspection.settings = Vec::new();
            (Ok(Arc::new(inspection)), Holds::OfFile)
        }
        Err(error) => (Err(error.to_string()), Holds::OfFile),
    }
}
