//! Finding processes, and noticing that they are gone.

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, PoisonError},
    time::{Instant, SystemTime},
};

use exporter_ebpf::{http::goroutine_key_target, key::OfTarget as _};
use tracing::{debug, info, warn};

use super::{
    Agent, Message, PORT_LOOKS,
    blocked::Blocked,
    gone::Gone,
    links::GroupKey,
    replaced::Code,
    state::{Stage, State, Target},
};
use crate::{
    config::Selection,
    kubernetes::Placement,
    process::{self, Census, Process},
    target::{Feature, Features, Labels, Sites, inspect},
};

impl Agent {
    /// The net beneath the events. A full scan looks at every process; one between full scans only at those not seen before,
    /// and at targets that /proc no longer shows, and at nothing where no task has come or gone.
    pub(super) fn scan(&self, full: bool) {
        let ports_matter = !self.inner.config.select.listen_ports.is_empty();
        let census = Census::now();
        let same = census.is_some() && std::mem::replace(&mut self.state().census, census.clone()) == census;
        if same && !full && !ports_matter {
            self.bury();
            return;
        }
        let pids = match process::pids() {
            Ok(pids) => pids,
            Err(error) => {
                warn!(%error, "cannot read /proc: processes that start or end are seen by events alone");
                return;
            }
        };
        let present: HashSet<u32> = pids.iter().copied().collect();
        let to_look_at: Vec<u32> = {
            let mut state = self.state();
            state.unwanted.retain(|pid, _| present.contains(pid));
            state.contained.retain(&present);
            for waiting in state.recognising.values_mut() {
                waiting.of.retain(|pid, _| present.contains(pid));
            }
            state.passed.retain(&present);
            if full {
                // Their pods may have become known by a way that was missed.
                let unplaced = state.contained.unplaced.clone();
                state.unwanted.retain(|pid, _| !unplaced.contains(pid));
            }
            let vanished = state.by_pid.keys().copied().filter(|pid| !present.contains(pid));
            let seen =
                |pid: &u32| state.by_pid.contains_key(pid) || (!ports_matter && state.unwanted.contains_key(pid));
            vanished.chain(pids.into_iter().filter(|pid| full || !seen(pid))).collect()
        };
        for pid in to_look_at {
            self.look(pid);
        }
        self.bury();
        if full {
            self.forget_idle();
            self.forget_running();
            self.look_for_replaced();
            self.try_failed_again();
        }
    }

    /// Begins anew with targets that could not be attached to, ever less often: the limit that they ran into may be gone.
    fn try_failed_again(&self) {
        let due: Vec<(u32, Process)> = {
            let mut state = self.state();
            let again = |target: &mut Target| {
                target.is_due_again().then(|| {
                    target.stage = Stage::Preparing;
                    (target.id, target.process.clone())
                })
            };
            state.targets.values_mut().filter_map(again).collect()
        };
        for (id, process) in due {
            let known = self.state().known(&process);
            self.prepare(id, process, known);
        }
    }

    /// Looks at one process: new, changed, gone, or as before.
    pub(super) fn look(&self, pid: u32) {
        if pid == std::process::id() {
            return;
        }
        if self.cannot_be_wanted(pid) {
            return;
        }
        let found = Process::find(pid).ok();
        let known = self.state().of_pid(pid).map(|target| (target.id, target.process.id));
        match (found, known) {
            (Some(now), Some((_, before))) if now.id == before => self.keep(&now),
            (now, Some((id, before))) => {
                // An exec in place or a reused id: the labels may be the same, so the old series go at once.
                self.end(id, now.is_some());
                debug!(pid, ?before, "ended");
                if let Some(now) = now {
                    self.consider(now);
                }
            }
            (Some(now), None) => self.consider(now),
            (None, None) => {
                self.state().unwanted.insert(pid, None);
            }
        }
    }

    /// The cheap answer for most processes that start on a busy node: one that is no target, and is not named.
    fn cannot_be_wanted(&self, pid: u32) -> bool {
        let select = &self.inner.config.select;
        if self.inner.pods.is_some() || select.all || !select.listen_ports.is_empty() || select.pids.contains(&pid) {
            return false;
        }
        let mut state = self.state();
        if state.by_pid.contains_key(&pid) {
            return false;
        }
        let named = process::executable(pid).is_ok_and(|executable| state.globs.matches(&executable));
        if !named {
            state.unwanted.insert(pid, None);
        }
        !named
    }

    /// The process is as it was. An `execve` of the same file looks the same where its stack's place is not random, or not
    /// told, but has taken the kernel's config with it.
    fn keep(&self, process: &Process) {
        let pid = process.id.pid;
        let missing = {
            let mut state = self.state();
            let maps = self.inner.kernel.maps();
            state.of_pid(pid).is_some_and(|target| {
                let told = if target.features.has(Feature::Http) {
                    maps.targets.get(pid).is_some()
                } else {
                    !target.features.watches() || maps.watched.get(&pid).is_some()
                };
                matches!(target.stage, Stage::Measured) && !told
            })
        };
        if missing {
            let id = self.state().of_pid(pid).map(|target| target.id);
            if let Some(id) = id {
                self.end(id, true);
            }
            self.consider(process.clone());
        }
    }

    /// A process that is no target: should it be one?
    fn consider(&self, process: Process) {
        let id = process.id;
        {
            let state = self.state();
            let ports_matter = !self.inner.config.select.listen_ports.is_empty();
            if state.unwanted.get(&id.pid) == Some(&Some(id)) && !ports_matter {
                return;
            }
        }
        if let Some(pods) = &self.inner.pods {
            self.place(pods, process);
            return;
        }
        let Some(wants) = self.wants(&process) else { return };
        if !wants {
            if self.inner.config.select.all {
                self.see_through_linker(&process);
            }
            let new = self.state().unwanted.insert(id.pid, Some(id)) != Some(Some(id));
            if new && !self.inner.config.select.listen_ports.is_empty() {
                for delay in PORT_LOOKS {
                    self.later(delay, Message::Look(id.pid));
                }
            }
            return;
        }
        self.adopt(process, None);
    }

    /// None where that is not known yet: then it is looked at again.
    fn wants(&self, process: &Process) -> Option<bool> {
        let select = &self.inner.config.select;
        if select.pids.contains(&process.id.pid) || self.state().globs.matches(&process.executable) {
            return Some(true);
        }
        if !select.all && select.listen_ports.is_empty() {
            return Some(false);
        }
        Some(self.is_go(process)? && (select.all || self.listens(process.id.pid)))
    }

    fn listens(&self, pid: u32) -> bool {
        self.inner.ports.lock().unwrap_or_else(PoisonError::into_inner).listens(pid)
    }

    pub(super) fn adopt(&self, process: Process, placement: Option<Arc<Placement>>) {
        let select = &self.inner.config.select;
        // Others of the same file are not wanted where processes are picked one by one.
        let one_by_one = placement.is_none() && !select.all && !self.state().globs.matches(&process.executable);
        // Checked before.
        let features = placement.as_ref().and_then(|it| it.features.as_ref()?.parse().ok());
        let budget = placement.as_ref().and_then(|it| super::pods::budget(it.budget.as_ref()?).ok());
        let owner: Arc<str> = process::owner(process.id.pid).into();
        let mut guard = self.state();
        let state: &mut State = &mut guard;
        state.unwanted.remove(&process.id.pid);
        let Some(id) = state.free_id(&owner) else {
            warn!(pid = process.id.pid, %owner, "not measured: as many targets as there can be, or as one pod or cgroup may have");
            return;
        };
        let known = state.known(&process);
        let target = Target {
            owner,
            id,
            labels: placement.as_deref().map_or_else(|| Labels::of_process(&process), Labels::of_placement),
            placement,
            process: process.clone(),
            stage: Stage::Preparing,
            inspection: None,
            features: features.unwrap_or(self.inner.config.features),
            budget: budget.unwrap_or(self.inner.config.budget),
            since: SystemTime::now(),
            found: Instant::now(),
            late: Target::ran_before(process.id.image.age_seconds()),
            group: GroupKey::alone(&process),
            code: Code::default(),
            others: !one_by_one,
            failures: 0,
            since_failure: 0,
            wants_mux: false,
            blocked: Blocked::default(),
            blocked_functions: std::collections::BTreeMap::new(),
        };
        state.end_namesakes(&target);
        state.targets.insert(id, target);
        state.by_pid.insert(process.id.pid, id);
        drop(guard);
        debug!(pid = process.id.pid, executable = %process.executable.display(), "selected");
        self.prepare(id, process, known);
    }

    /// A target's process is over.
    pub(super) fn end(&self, id: u32, at_once: bool) {
        let (pid, group) = {
            let mut state = self.state();
            let Some(target) = state.targets.get_mut(&id) else { return };
            if matches!(target.stage, Stage::Gone(_)) {
                return;
            }
            let gone = Gone::now(&self.inner.scrapes);
            target.stage = Stage::Gone(if at_once { gone.replaced() } else { gone });
            let (pid, group) = (target.process.id.pid, target.group);
            info!(pid, executable = %target.process.executable.display(), "ended");
            state.by_pid.remove(&pid);
            (pid, group)
        };
        self.forget_config(pid, id);
        self.release(group, id);
        self.see_to_run_queue();
        if at_once {
            self.bury();
        }
    }

    /// Removes targets whose last figures were shown, with everything that names them.
    pub(super) fn bury(&self) {
        let mut guard = self.state();
        let state = &mut *guard;
        let dead = state.over(Instant::now(), &self.inner.scrapes);
        if dead.is_empty() {
            return;
        }
        // All is read before anything is changed: what could not be read now is buried later, and its id is not given away.
        let maps = self.inner.kernel.maps();
        let Ok(entries) = super::entries::Entries::of(maps, &dead) else { return };
        // Outside pods labels are never used again.
        if let Some(pods) = &self.inner.pods
            && state.retire(&dead, &self.inner.kernel, self.inner.config.max_routes, pods).is_err()
        {
            return;
        }
        state.targets.retain(|id, _| !dead.contains(id));
        if let Some(pods) = &self.inner.pods {
            state.forget_retired(pods);
        }
        state.settled.retain(|key, _| !dead.contains(&key.target()));
        state.settled_requests.retain(|key, _| !dead.contains(&goroutine_key_target(*key)));
        state.routes.forget(&dead);
        entries.remove(maps);
        drop(guard);
        // What they took, and what the answers that told of them did.
        crate::heap::give_back();
    }
}

/// Checks processes that were named by id, before anything starts: each must be there, and where nothing else is selected, one
/// of them at least must be measurable.
pub(crate) fn check_pids(select: &Selection, features: Features) -> Result<(), String> {
    let mut first_refusal = None;
    let mut measurable = 0;
    for &pid in &select.pids {
        if !Path::new(&format!("/proc/{pid}")).exists() {
            return Err(format!("there is no process {pid}: it has ended, or the number is wrong (see `ps -ef`)"));
        }
        match measurable_process(pid, features) {
            Ok(()) => measurable += 1,
            Err(reason) => {
                first_refusal = first_refusal.or(Some(format!("process {pid} cannot be measured: {reason}")));
            }
        }
    }
    let only_pids = select.executables.is_empty() && select.listen_ports.is_empty() && !select.all;
    match first_refusal {
        Some(refusal) if only_pids && measurable == 0 => Err(refusal),
        _ => Ok(()),
    }
}

fn measurable_process(pid: u32, features: Features) -> Result<(), String> {
    let process = Process::find(pid).map_err(|error| format!("its executable cannot be found: {error}"))?;
    let file = process.open().map_err(|error| format!("its executable cannot be read: {error}"))?;
    let inspection = inspect(file, Sites::Chosen).map_err(|error| {
        let hint = if process.is_linker() {
            ". That is the dynamic linker: start the program itself and not through it"
        } else {
            ""
        };
        format!("{}: {error}{hint}", crate::visible::lines(&process.executable.display().to_string()))
    })?;
    if inspection.measures_something(features) { Ok(()) } else { Err(inspection.why_nothing()) }
}
