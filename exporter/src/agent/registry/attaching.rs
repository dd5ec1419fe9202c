//! From a target whose executable was read to one that is measured, and back where that fails.

use std::{collections::BTreeSet, sync::Arc};

use exporter_ebpf::facts::Facts;

use super::{Attach, Configure, Effect, Effects, Log, Moment, Registry, Stage, Target, Verdict};
use crate::{
    agent::groups::{GroupKey, Joined, Links, Missing},
    kernel::{AttachError, Link},
    process::Process,
    target::{Change, Inspection},
};

/// What reading an executable gave.
#[derive(Debug)]
pub(in crate::agent) struct Inspected {
    pub(in crate::agent) id: u32,
    /// Of [`Effect::Inspect`].
    pub(in crate::agent) attempt: u32,
    pub(in crate::agent) process: Process,
    pub(in crate::agent) verdict: Verdict,
    pub(in crate::agent) holds: Holds,
    /// Functions that the process has changed in its memory.
    pub(in crate::agent) changes: BTreeSet<Change>,
    /// Whether its probes may be shared with other processes of the file.
    pub(in crate::agent) may_share: bool,
    /// Whether the process was still there afterwards.
    pub(in crate::agent) is_there: bool,
    /// What the kernel side's instruments are told of it.
    pub(in crate::agent) facts: Facts,
    /// See [`exporter_ebpf::target::TargetConfig::literals_from`]: address and length.
    pub(in crate::agent) literals: (u64, u64),
}

/// For what a verdict holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::agent) enum Holds {
    /// Every process of the file.
    OfFile,
    /// This process, for as long as it lives.
    OfProcess,
    /// This attempt.
    Now,
}

/// What came of attaching links to a group.
pub(in crate::agent) struct Attached<L = Link> {
    /// The target through whose process they were attached.
    pub(in crate::agent) id: u32,
    pub(in crate::agent) key: GroupKey,
    pub(in crate::agent) missing: Missing,
    pub(in crate::agent) links: Result<Links<L>, AttachError>,
}

impl<L> Registry<L> {
    /// A target's executable was read: it goes into the kernel's maps, or is not measured. `max_routes`: as configured.
    pub(in crate::agent) fn inspected(&mut self, outcome: Inspected, max_routes: u32) -> Effects<L> {
        let Inspected { id, attempt, process, verdict, holds, changes, may_share, is_there, facts, literals } = outcome;
        if holds == Holds::OfFile {
            self.files.remember(&process, verdict.clone());
        }
        let awaits = |it: &&mut Target| it.process.id == process.id && it.awaits(attempt);
        let Some(target) = self.targets.get_mut(&id).filter(awaits) else { return Vec::new() };
        let mut regroup = Vec::new();
        if !changes.is_empty() {
            // Links on its file would get into it.
            target.others = false;
            regroup = self.groups.users(&GroupKey::shared(&process));
        }
        let whole = |it: Arc<Inspection>| if changes.is_empty() { it } else { Arc::new(it.without(&changes)) };
        let mut effects: Effects<L> = Vec::new();
        match verdict.map(whole) {
            Ok(inspection) if inspection.measures_something(target.features) => {
                target.inspection = Some(Arc::clone(&inspection));
                let mut config = inspection.config;
                (config.pid, config.id, config.on) = (process.id.pid, id, target.features.in_kernel());
                (config.literals_from, config.literals_len) = literals;
                config.max_routes = target.max_routes(max_routes);
                effects.push(Effect::Configure(Box::new(Configure { id, attempt, process, config, facts, may_share })));
            }
            Ok(inspection) => {
                effects.push(Effect::Log(target.unsupported(inspection.why_nothing())));
                target.inspection = Some(inspection);
            }
            Err(reason) if holds == Holds::Now && is_there => effects.extend(target.failed(reason).map(Effect::Log)),
            // It ended before it was read.
            Err(_) if holds == Holds::Now => effects.push(Effect::Look(process.id.pid)),
            Err(reason) => effects.push(Effect::Log(target.unsupported(reason))),
        }
        for id in regroup {
            effects.extend(self.regroup(id));
        }
        effects
    }

    /// The kernel's maps have a target's process, or refused it: the target joins a group of links.
    pub(in crate::agent) fn configured(&mut self, configure: Configure, result: Result<(), String>) -> Effects<L> {
        let Configure { id, attempt, process, may_share, .. } = configure;
        let awaits = |it: &&mut Target| it.process.id == process.id && it.awaits(attempt);
        let unconfigure = Effect::Unconfigure { pid: process.id.pid, id };
        let Some(target) = self.targets.get_mut(&id).filter(awaits) else { return vec![unconfigure] };
        if let Err(reason) = result {
            let log = target.failed(reason).map(Effect::Log);
            return log.into_iter().chain([unconfigure]).collect();
        }
        let Some(inspection) = target.inspection.clone() else { return vec![unconfigure] };
        let key = self.groups.key_of(&process, may_share, &inspection.code);
        target.group = key;
        match self.groups.join(key, id, target.features, &inspection.code) {
            Joined::Pending => Vec::new(),
            Joined::Missing(missing) => {
                vec![Effect::Attach(Box::new(Attach { id, key, missing, inspection, process }))]
            }
            Joined::Complete => {
                let mut effects: Effects<L> = target.measured().map(Effect::Log).into_iter().collect();
                effects.extend(self.verification(id));
                effects.extend([Effect::Joined(key), Effect::MeasureBlocking(key), Effect::UpdateRunQueue]);
                effects
            }
        }
    }

    /// Links were attached to a group, or could not be.
    pub(in crate::agent) fn attached(&mut self, outcome: Attached<L>, now: Moment) -> Effects<L> {
        let Attached { id, key, missing, links } = outcome;
        if !self.groups.is_pending(&key, missing.generation) {
            // Its users ended meanwhile.
            return detach(key, links.unwrap_or_default()).into_iter().collect();
        }
        match links {
            Ok(links) => self.complete(key, missing, links),
            Err(error @ (AttachError::Gone { .. } | AttachError::Swapped(_))) => {
                let pid = self.targets.get(&id).map(Target::pid);
                let swapped = matches!(error, AttachError::Swapped(_));
                if swapped {
                    self.files.forget(&key.file);
                }
                let mut effects = self.go_on_without(id, key);
                if swapped {
                    // What was inspected is not what runs, also where the identity is the same as before.
                    effects.push(Effect::Log(Log::Swapped { pid, error: error.to_string() }));
                    effects.extend(self.end(id, true, now));
                }
                effects.extend(pid.map(Effect::Look));
                effects
            }
            Err(AttachError::Patched(reason)) if key.pid.is_none() => {
                // Each by itself, so that nothing gets into the one that is not what was inspected.
                let mut effects = vec![Effect::Log(Log::SplitUp(reason))];
                for id in self.groups.users(&key) {
                    effects.extend(self.regroup(id));
                }
                effects
            }
            Err(error) => self.attaching_failed(key, &error),
        }
    }

    /// A group has the links that were missing. Its users are measured, but those that joined meanwhile and ask for more.
    fn complete(&mut self, key: GroupKey, missing: Missing, links: Links<L>) -> Effects<L> {
        let group = match self.groups.attached(&key, missing.generation, missing.features, links) {
            Ok(group) => group,
            Err(links) => return detach(key, links).into_iter().collect(),
        };
        let mut effects: Effects<L> = Vec::new();
        let (mut measured, mut more) = (Vec::new(), None);
        for &id in &group.users {
            let Some(target) = self.targets.get_mut(&id) else { continue };
            let all = missing.features.union(target.features);
            if all == missing.features {
                effects.extend(target.measured().map(Effect::Log));
                measured.push(id);
            } else if let Some(inspection) = target.inspection.clone() {
                more = Some((id, inspection, target.process.clone(), target.features));
            }
        }
        let more = more.and_then(|(id, inspection, process, features)| {
            let missing = group.extend(features)?;
            Some(Effect::Attach(Box::new(Attach { id, key, missing, inspection, process })))
        });
        for id in measured {
            effects.extend(self.verification(id));
        }
        effects.push(Effect::Joined(key));
        match more {
            Some(attach) => effects.push(attach),
            None => effects.extend([Effect::MeasureBlocking(key), Effect::UpdateRunQueue]),
        }
        effects
    }

    /// The process through which links were to be attached ended, or runs what was not inspected; another of the group takes
    /// its place.
    fn go_on_without(&mut self, id: u32, key: GroupKey) -> Effects<L> {
        let mut effects: Effects<L> = Vec::new();
        let left = self.groups.leave(&key, id);
        effects.extend(left.and_then(|links| detach(key, links)));
        let Some(group) = self.groups.get(&key) else { return effects };
        let next = self.groups.users(&key).into_iter().find_map(|id| {
            let target = self.targets.get(&id)?;
            Some((target, target.inspection.clone()?))
        });
        if let Some((target, inspection)) = next {
            let had = group.features();
            let missing = Missing { generation: group.generation, features: had.union(target.features), had };
            let process = target.process.clone();
            effects.push(Effect::Attach(Box::new(Attach { id: target.id, key, missing, inspection, process })));
        } else {
            let (_, links) = self.groups.dissolve(&key);
            effects.extend(detach(key, links));
        }
        effects
    }

    /// The kernel refused: no user of the group is measured.
    fn attaching_failed(&mut self, key: GroupKey, error: &AttachError) -> Effects<L> {
        let (users, links) = self.groups.dissolve(&key);
        let mut effects: Effects<L> = detach(key, links).into_iter().collect();
        for id in users {
            let Some(target) = self.targets.get_mut(&id) else { continue };
            effects.extend(target.failed(error.to_string()).map(Effect::Log));
            effects.push(Effect::Unconfigure { pid: target.pid(), id });
        }
        effects
    }

    /// A full scan has passed: begins anew with targets that could not be attached to, ever less often, since the limit that they
    /// ran into may be gone.
    pub(in crate::agent) fn try_again(&mut self) -> Effects<L> {
        let failed = self.targets.values().filter(|it| matches!(it.stage, Stage::Failed(_))).map(|it| it.id);
        let failed: Vec<u32> = failed.collect();
        let mut effects = Vec::new();
        for id in failed {
            let Some(target) = self.targets.get_mut(&id) else { continue };
            if target.is_due_again() {
                effects.push(target.inspect(self.files.known(&target.process)));
            }
        }
        effects
    }
}

/// Links that nobody uses, if there are any.
pub(super) fn detach<L>(key: GroupKey, links: Links<L>) -> Option<Effect<L>> {
    (!links.is_empty()).then_some(Effect::Detach(key, links))
}

impl Target {
    /// Its executable is to be read, from the beginning: what comes of an earlier attempt counts no more.
    pub(super) fn inspect<L>(&mut self, known: Option<Verdict>) -> Effect<L> {
        self.stage = Stage::Preparing;
        self.attempt += 1;
        Effect::Inspect { id: self.id, attempt: self.attempt, process: Box::new(self.process.clone()), known }
    }

    /// Whether it waits for what comes of this attempt.
    fn awaits(&self, attempt: u32) -> bool {
        matches!(self.stage, Stage::Preparing) && self.attempt == attempt
    }

    /// It cannot be measured. What to log.
    fn unsupported(&mut self, reason: String) -> Log {
        self.stage = Stage::Unsupported(reason.clone());
        Log::NotMeasured { pid: self.pid(), executable: self.executable(), reason }
    }
}
