//! Probes on executables. A probe belongs to a file, not to a process: processes of one file share a group of links where
//! all of them are wanted, and have one each otherwise.

use std::{collections::HashSet, path::Path, thread};

use tracing::{debug, info, warn};

use super::{
    Agent, Message,
    state::{Stage, Verdict},
};
use crate::{
    kernel::{AttachError, Kernel, Link, Probe, Scope},
    process::{FileId, Process, ProcessId},
    target::{Inspection, PlannedProbe, Sites, inspect},
};

/// What a group of links is attached to: a file, and one process of it or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct GroupKey {
    pub(super) file: FileId,
    pub(super) pid: Option<u32>,
}

impl GroupKey {
    fn scope(&self) -> Scope {
        self.pid.map_or(Scope::File, Scope::Process)
    }
}

/// Attached sites: which program, at which file offset.
type Links = Vec<(Probe, u64, Link)>;

/// Links that live and die together.
#[derive(Default)]
pub(super) struct Group {
    links: Links,
    /// Ids of the targets that use it.
    pub(super) users: HashSet<u32>,
}

impl Group {
    /// Whether this very site is attached.
    pub(super) fn has(&self, planned: &PlannedProbe) -> bool {
        self.links.iter().any(|(probe, offset, _)| *probe == planned.probe && *offset == planned.file_offset)
    }

    /// Sites attached.
    pub(super) fn sites(&self) -> usize {
        self.links.len()
    }
}

/// What came of preparing a target.
pub(super) struct Outcome {
    pub(super) id: u32,
    pub(super) process: ProcessId,
    pub(super) verdict: Verdict,
    /// The group and links, if anything was to be attached.
    pub(super) attached: Result<Option<(GroupKey, Links)>, AttachError>,
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Outcome").field("id", &self.id).field("process", &self.process).finish_non_exhaustive()
    }
}

impl Agent {
    /// Reads the executable (unless it is known) and attaches, away from the event loop. `have_group` says that the group is
    /// there already.
    pub(super) fn prepare(&self, id: u32, process: Process, known: Option<Verdict>, key: GroupKey, have_group: bool) {
        let agent = self.clone();
        let max_routes = self.inner.config.max_routes;
        let sites = self.inner.config.bench_sites;
        tokio::task::spawn_blocking(move || {
            let kernel = &agent.inner.kernel;
            let verdict = known.unwrap_or_else(|| look_inside(&process, sites));
            let attached = match &verdict {
                Ok(inspection) if inspection.measures_something() => {
                    let mut config = inspection.config;
                    config.id = id;
                    config.max_routes = max_routes;
                    match kernel.maps().targets.insert(&process.id.pid, &config) {
                        Err(error) => Err(AttachError::Refused {
                            probe: Probe::HttpStart,
                            reason: format!("the map of targets: {error}"),
                        }),
                        Ok(()) if have_group => Ok(None),
                        Ok(()) => attach_all(kernel, inspection, &process.exe(), key.scope(), false)
                            .map(|links| Some((key, links))),
                    }
                }
                _ => Ok(None),
            };
            crate::heap::give_back();
            let outcome = Outcome { id, process: process.id, verdict, attached };
            if agent.inner.messages.send(Message::Attached(Box::new(outcome))).is_err() {
                debug!("the agent ended while a target was prepared");
            }
        });
    }

    /// Takes over what was prepared.
    pub(super) fn attached(&self, outcome: Outcome) {
        let mut guard = self.state();
        let state = &mut *guard;
        state.remember(outcome.process.file, outcome.verdict.clone());
        let still = state
            .targets
            .get_mut(&outcome.id)
            .filter(|target| target.process.id == outcome.process && matches!(target.stage, Stage::Preparing));
        let Some(target) = still else {
            // It ended meanwhile: what was attached is let go.
            drop(guard);
            self.forget_config(outcome.process.pid, outcome.id);
            if let Ok(Some((_, links))) = outcome.attached {
                detach_elsewhere(links);
            }
            return;
        };
        let pid = outcome.process.pid;
        let executable = target.process.executable.display().to_string();
        let inspection = match outcome.verdict {
            Ok(inspection) => inspection,
            Err(reason) => {
                info!(pid, executable, reason, "not measured");
                target.stage = Stage::Unsupported(reason);
                return;
            }
        };
        target.inspection = Some(inspection.clone());
        if !inspection.measures_something() {
            let reason = inspection.why_nothing();
            info!(pid, executable, reason, "not measured");
            target.stage = Stage::Unsupported(reason);
            return;
        }
        match outcome.attached {
            Err(AttachError::Gone { .. }) => {
                drop(guard);
                self.look(pid);
            }
            Err(error) => {
                warn!(pid, executable, %error, "not measured");
                target.stage = Stage::Failed(error.to_string());
                drop(guard);
                self.forget_config(pid, outcome.id);
            }
            Ok(links) => {
                info!(pid, executable, go = inspection.go_version, "measured");
                target.stage = Stage::Measured;
                let Some(key) = target.group else { return };
                if let Some((key, links)) = links {
                    let group = state.groups.entry(key).or_default();
                    if group.links.is_empty() {
                        group.links = links;
                    } else {
                        // Two processes of one file were prepared at once.
                        detach_elsewhere(links);
                    }
                }
                if let Some(group) = state.groups.get_mut(&key) {
                    group.users.insert(outcome.id);
                }
            }
        }
    }

    /// Attaches the ServeMux probe of a target whose middleware copies requests.
    pub(super) fn attach_mux(&self, id: u32) {
        let agent = self.clone();
        tokio::task::spawn_blocking(move || {
            let found = {
                let state = agent.state();
                state.targets.get(&id).and_then(|target| {
                    let key = target.group?;
                    let planned = target.inspection.as_ref()?.probes.iter().find(|it| it.on_demand)?.clone();
                    let wanted = state.groups.get(&key).is_some_and(|group| !group.has(&planned));
                    wanted.then(|| (key, planned, target.process.exe()))
                })
            };
            let Some((key, planned, exe)) = found else { return };
            match agent.inner.kernel.attach(planned.probe, &exe, &[planned.file_offset], key.scope()) {
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
            detach_elsewhere(group.links);
        }
    }

    /// Takes a process's config from the kernel side, if it is still this target's.
    pub(super) fn forget_config(&self, pid: u32, id: u32) {
        let targets = &self.inner.kernel.maps().targets;
        if targets.get(&pid).is_some_and(|config| config.id == id) {
            targets.remove(&pid);
        }
    }
}

fn look_inside(process: &Process, sites: Sites) -> Verdict {
    let file = process.open().map_err(|error| format!("cannot read the executable: {error}"))?;
    let mut inspection = inspect(file, sites).map_err(|error| error.to_string())?;
    // These are for people; kept for many executables they would be most of the agent's memory.
    inspection.modules = Vec::new();
    inspection.settings = Vec::new();
    Ok(std::sync::Arc::new(inspection))
}

fn attach_all(
    kernel: &Kernel,
    inspection: &Inspection,
    exe: &Path,
    scope: Scope,
    on_demand: bool,
) -> Result<Links, AttachError> {
    let mut links = Vec::new();
    // Ends before starts: a start without its end would be in flight for ever.
    let mut planned: Vec<_> = inspection.probes.iter().filter(|it| it.on_demand == on_demand).collect();
    planned.sort_by_key(|it| matches!(it.probe, Probe::HttpStart | Probe::XnetStart));
    for it in planned {
        match kernel.attach(it.probe, exe, &[it.file_offset], scope) {
            Ok(link) => links.push((it.probe, it.file_offset, link)),
            Err(error) => {
                detach_elsewhere(links);
                return Err(error);
            }
        }
    }
    Ok(links)
}

/// Detaching blocks: it is done on a thread of its own.
fn detach_elsewhere(links: Links) {
    if !links.is_empty() {
        thread::spawn(move || drop(links));
    }
}

/// Detaches many groups at once: the kernel waits for each link alone, and the waits overlap.
pub(super) fn detach_in_parallel(groups: Vec<Group>) {
    const THREADS: usize = 32;
    let mut shares: Vec<Vec<Link>> = (0..THREADS).map(|_| Vec::new()).collect();
    for (i, (_, _, link)) in groups.into_iter().flat_map(|group| group.links).enumerate() {
        shares[i % THREADS].push(link);
    }
    let threads: Vec<_> =
        shares.into_iter().filter(|share| !share.is_empty()).map(|share| thread::spawn(move || drop(share))).collect();
    for thread in threads {
        let _ = thread.join();
    }
}
