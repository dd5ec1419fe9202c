//! From a process that is seen to a target.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use exporter_ebpf::{share::may_take, target::MAX_TARGETS};

use super::{Effect, Effects, Log, Moment, Registry, Stage, Target, restless::Patience};
use crate::{
    agent::{blocked::Blocked, groups::GroupKey, replaced::Code},
    kubernetes::Placement,
    process::{Inode, Process, ProcessId},
    target::{Features, Labels},
};

/// A process that is wanted.
#[derive(Clone, Debug)]
pub(in crate::agent) struct Candidate {
    pub(in crate::agent) process: Process,
    /// Whose process it is, see [`crate::process::owner`].
    pub(in crate::agent) owner: Arc<str>,
    /// Where it is, in Kubernetes mode.
    pub(in crate::agent) placement: Option<Arc<Placement>>,
    /// What is to be measured of it.
    pub(in crate::agent) features: Features,
    /// What the probes on blocking may cost it, a share of CPU time.
    pub(in crate::agent) budget: f64,
    /// Whether other processes of its file are wanted too.
    pub(in crate::agent) others: bool,
    /// Whether it ran for a while before it was found.
    pub(in crate::agent) late: bool,
}

impl<L> Registry<L> {
    /// /proc was listed: forgets what is gone, and returns the processes to look at. A full scan looks at all.
    pub(in crate::agent) fn scanned(&mut self, pids: &[u32], full: bool) -> Vec<u32> {
        let present: HashSet<u32> = pids.iter().copied().collect();
        self.unwanted.retain(|pid, _| present.contains(pid));
        self.contained.retain(&present);
        self.files.retain_waiting(|pid| present.contains(&pid));
        self.passed.retain(&present);
        self.restless.retain(&present);
        if full {
            // Their pods may have become known by a way that was missed.
            let Self { unwanted, contained, .. } = self;
            unwanted.retain(|pid, _| !contained.unplaced.contains(pid));
        }
        let vanished = self.by_pid.keys().copied().filter(|pid| !present.contains(pid));
        let is_known =
            |pid: &u32| self.by_pid.contains_key(pid) || (!self.asks_again && self.unwanted.contains_key(pid));
        vanished.chain(pids.iter().copied().filter(|pid| full || !is_known(pid))).collect()
    }

    /// A process id was looked at: which process has it now, if any.
    pub(in crate::agent) fn seen(&mut self, pid: u32, found: Option<Process>, now: Moment) -> Effects<L> {
        let known = self.of_pid(pid).map(|target| (target.id, target.process.id));
        match (found, known) {
            (Some(found), Some((id, before))) if found.id == before => self.seen_again(id),
            (found, Some((id, _))) => {
                // An exec in place or a reused id: the labels may be the same, so the old series go at once.
                let mut effects = self.end(id, found.is_some(), now);
                effects.extend(found.and_then(|it| {
                    let patience = self.restless.executed(it.id, now.at);
                    self.consider_by(patience, it)
                }));
                effects
            }
            (Some(found), None) => {
                let patience = self.restless.runs(found.id, now.at);
                self.consider_by(patience, found).into_iter().collect()
            }
            (None, None) => {
                self.ignore(pid, None);
                Vec::new()
            }
        }
    }

    /// A target's process is as it was. An `execve` of the same file looks the same where its stack's place is not random, or
    /// not shown, but has removed the process from the kernel's maps.
    fn seen_again(&self, id: u32) -> Effects<L> {
        let measured = self.targets.get(&id).filter(|it| matches!(it.stage, Stage::Measured));
        let check = |it: &Target| Effect::CheckConfigured { id, pid: it.pid(), features: it.features };
        measured.map(check).into_iter().collect()
    }

    /// The kernel's maps have lost a target's process: it has called `execve`.
    pub(in crate::agent) fn unconfigured(&mut self, id: u32, now: Moment) -> Effects<L> {
        let Some(process) = self.targets.get(&id).map(|target| target.process.clone()) else { return Vec::new() };
        let mut effects = self.end(id, true, now);
        let patience = self.restless.executed(process.id, now.at);
        effects.extend(self.consider_by(patience, process));
        effects
    }

    /// A process that is no target: should it be one? None where that was asked before.
    fn consider(&self, process: Process) -> Option<Effect<L>> {
        let was_asked = self.unwanted.get(&process.id.pid) == Some(&Some(process.id));
        (!was_asked || self.asks_again).then(|| Effect::Consider(Box::new(process)))
    }

    /// The same of one that may execute one program after another.
    fn consider_by(&self, patience: Patience, process: Process) -> Option<Effect<L>> {
        match patience {
            Patience::Over => self.consider(process),
            Patience::Look => Some(Effect::LookLater(process.id.pid)),
            Patience::Wait => None,
        }
    }

    /// A wanted process becomes a target, if there is room for one more of its owner.
    pub(in crate::agent) fn adopt(&mut self, new: Candidate, now: Moment) -> Effects<L> {
        let Candidate { process, owner, placement, features, budget, others, late } = new;
        let pid = process.id.pid;
        self.unwanted.remove(&pid);
        self.contained.unplaced.remove(&pid);
        let Some(id) = self.free_id(&owner) else {
            return vec![Effect::Log(Log::NoRoom { pid, owner })];
        };
        let known = self.files.known(&process);
        let mut target = Target {
            owner,
            id,
            labels: placement.as_deref().map_or_else(|| Labels::of_process(&process), Labels::of_placement),
            placement,
            process: process.clone(),
            stage: Stage::Preparing,
            inspection: None,
            features,
            budget,
            since: now.wall,
            found: now.at,
            late,
            group: GroupKey::alone(&process),
            code: Code::default(),
            others,
            attempt: 0,
            failures: 0,
            since_failure: 0,
            wants_mux: false,
            blocked: Blocked::default(),
            blocked_functions: BTreeMap::new(),
        };
        self.end_namesakes(&target);
        let effects = vec![Effect::Log(Log::Selected(pid, process.executable)), target.inspect(known)];
        self.targets.insert(target);
        self.by_pid.insert(pid, id);
        effects
    }

    /// An id that no target has, if there is one for a process of this owner: none takes all of them. Ids are given round robin, so
    /// that one is not used again soon.
    fn free_id(&mut self, owner: &str) -> Option<u32> {
        let held = self.targets.values().filter(|target| &*target.owner == owner).count() as u64;
        let room = u64::from(MAX_TARGETS) - self.targets.len() as u64;
        if !may_take(held, room) {
            return None;
        }
        for _ in 0..MAX_TARGETS {
            let id = self.next_id;
            self.next_id = if id >= MAX_TARGETS { 1 } else { id + 1 };
            if !self.targets.contains_key(&id) {
                return Some(id);
            }
        }
        None
    }

    /// Every process but this one that is known to run a file, measured or not.
    pub(in crate::agent) fn running(&self, inode: Inode, but: ProcessId) -> HashSet<ProcessId> {
        let live = self.targets.values().filter(|it| it.stage.is_live()).map(|it| it.process.id);
        let unwanted = self.unwanted.values().flatten().copied();
        live.chain(unwanted).filter(|id| id.inode == inode && *id != but).collect()
    }
}
