//! Programs that drop or replace pages of their own code, by madvise(2) or by mapping them anew: the probes that were in them
//! are gone, without a word from the kernel. Noticed by a look at each site from time to time, told, and put right.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use exporter_ebpf::{
    http::{InFlight, PanicKey, TOLD},
    key::target_of,
    loss::Reason,
    span::{Lane, Span, is_in},
};
use tokio::runtime::Handle;
use tracing::warn;

use super::{
    Agent,
    follow::Message,
    links::{Reached, on_inspected},
    patience,
    registry::{Stage, Target},
    turns::Who,
};
use crate::{
    kernel::{Probe, Scope},
    process::{Process, is_probed},
    target::{Change, Inspection, PlannedProbe},
};

/// How long one target's memory is waited for before the next is looked at.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a look at a target's code needs, and by which group it was asked for.
struct Look {
    id: u32,
    generation: u64,
    process: Process,
    inspection: Arc<Inspection>,
    /// Program, and offset in the file, of each probe that should be there.
    sites: Vec<(Probe, u64)>,
    /// Whether they were seen in its memory before.
    seen: bool,
}

/// What became of a target's code.
#[derive(Clone, Debug, Default)]
pub(super) struct Code {
    /// How often it was found without the probes that are attached to it.
    pub(super) replaced: u32,
    /// Whether it is being looked at.
    looked_at: bool,
    /// Whether its probes were seen there.
    seen: bool,
    /// What the program has changed in its memory since probes were attached. They stay: what it kept of its code, to put it back
    /// some day, has the breakpoints in it, which end a program that nobody probes any more.
    pub(super) changes: BTreeSet<Change>,
}

impl Agent {
    /// Looks whether the probes of every target are still in its memory.
    pub(super) fn look_for_replaced(&self) {
        let ids: Vec<u32> = {
            let mut state = self.state();
            // One that is being looked at still is not asked again: its memory may never answer.
            let is_due = |it: &&Target| matches!(it.stage, Stage::Measured) && !it.code.looked_at;
            let due: Vec<u32> = state.targets.values().filter(is_due).map(|it| it.id).collect();
            for id in &due {
                if let Some(target) = state.targets.get_mut(id) {
                    target.code.looked_at = true;
                }
            }
            due
        };
        if ids.is_empty() {
            return;
        }
        // In no turn: one whose memory never answers would keep it.
        let (agent, runtime) = (self.clone(), Handle::current());
        tokio::task::spawn_blocking(move || {
            patience::each(ids, PATIENCE, None, move || {
                let (agent, runtime) = (agent.clone(), runtime.clone());
                move |id| {
                    let _runtime = runtime.enter();
                    agent.look_whether_replaced(id);
                }
            });
        });
    }

    fn look_whether_replaced(&self, id: u32) {
        let look = self.look_of(id);
        let there = look.as_ref().is_some_and(Look::are_there);
        let changes = look.as_ref().map(Look::changes).unwrap_or_default();
        let is_changed = !changes.is_empty();
        let looked = move |agent: &Self| {
            let Some(target) = agent.state().targets.share(id) else { return };
            if let Some(change) = changes.difference(&target.code.changes).next() {
                warn!(pid = target.process.id.pid, reason = change.reason, "what is measured by it is not whole");
            }
            if let Some(target) = agent.state().targets.get_mut(&id) {
                target.code.changes = changes;
                target.code.seen |= there;
                target.code.looked_at = false;
            }
        };
        // Nothing is put into code that is not the file's.
        match look.filter(|_| !there && !is_changed) {
            None => looked(self),
            Some(look) => self.elsewhere(Who::of(&look.process), Some(id), move |agent| {
                agent.put_back(&look);
                looked(agent);
            }),
        }
    }

    /// None where there is nothing that has to be there: probes on blocking come and go.
    fn look_of(&self, id: u32) -> Option<Look> {
        let state = self.state();
        let target = state.targets.get(&id).filter(|it| matches!(it.stage, Stage::Measured))?;
        let group = state.groups.get(&target.group).filter(|group| group.is_attached())?;
        let sites = group.links.iter().map(|(probe, offset, _)| (*probe, *offset)).collect();
        let (generation, seen) = (group.generation, target.code.seen);
        let inspection = target.inspection.clone()?;
        Some(Look { id, generation, process: target.process.clone(), inspection, sites, seen })
    }

    /// Lets the kernel write its breakpoints once more, for the links that are there: it does so for a process when a probe is
    /// attached to it, and leaves them there for the others when that one goes. What was in flight may have ended unseen.
    fn put_back(&self, look: &Look) {
        // What ended or was detached meanwhile has no probes either.
        let Some(now) = self.look_of(look.id).filter(|now| now.generation == look.generation) else { return };
        let kernel = &self.inner.kernel;
        let scope = Scope::Process(now.process.id.pid);
        let sites: Vec<&PlannedProbe> = now.inspection.probes.iter().filter(|it| now.has(it)).collect();
        let written = on_inspected(&Reached::alone(now.process.clone()), &now.inspection, &sites, |exe| {
            now.sites.iter().try_for_each(|(_, site)| kernel.attach(Probe::Nothing, exe, &[*site], scope).map(drop))
        });
        if let Err(error) = written {
            // That says nothing of its code, as where too many files are open: the next look tries again.
            warn!(pid = now.process.id.pid, %error, "it dropped pages of its code, and the probes in them cannot be put back yet");
            return;
        }
        let back = now.are_there();
        if !now.process.is_there() {
            return;
        }
        self.send(Message::CodeReplaced { id: look.id, back });
    }
}

impl Agent {
    /// Tells all requests in flight of a target as lost: each may have ended unseen.
    pub(super) fn lose_in_flight(&self, id: u32) {
        let maps = self.inner.kernel.maps();
        let served = maps.in_flight.read(|served: &mut Vec<(u64, Span)>, key, entry| {
            if target_of(*key) == id {
                served.push((*key, *entry));
            }
        });
        // Where it cannot be read, they stay in flight until their goroutines are used again, or gone.
        for (key, entry) in served.unwrap_or_default() {
            // A request that panicked is marked as told, and is so only once it is settled.
            let panic = PanicKey { goroutine: key, start_ns: entry.start_ns };
            let is_told = is_in(key, Lane::HttpServer) && InFlight::from(entry).outer & TOLD != 0;
            let is_served = entry.open != 0 && (!is_told || maps.panics.remove(&panic));
            // One that has not ended is not told again at its end.
            if is_served {
                let _ = maps.refused.insert(&key, &0);
            }
            if maps.in_flight.remove(&key) && is_served {
                maps.lose(id, Reason::EndNotSeen, 1);
            }
        }
    }
}

impl Look {
    fn has(&self, planned: &PlannedProbe) -> bool {
        self.sites.contains(&(planned.probe, planned.file_offset))
    }

    /// What was changed of the code that probes are in; nothing where that cannot be seen.
    fn changes(&self) -> BTreeSet<Change> {
        self.inspection.changes_in(&self.process, |it| self.has(it)).unwrap_or_default()
    }

    /// Whether all probes are in the process's memory.
    fn are_there(&self) -> bool {
        self.sites.iter().all(|(_, site)| match is_probed(&self.process, *site) {
            Ok(probed) => probed,
            // No part of the file is mapped as code there. Where none was ever found to be, that is no news.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => !self.seen || !self.process.is_there(),
            // It cannot be read: nothing speaks against it.
            Err(_) => true,
        })
    }
}
