//! What was counted in user space, with a view of the targets that it is of. Whoever adds up or forgets what the kernel's maps
//! have of targets holds its lock over the reads, so that no figure is seen twice or not at all while it moves from a map into
//! the totals here. The lock is never taken on the event loop, nor by what drives the life cycle of targets.

use std::{
    collections::HashMap,
    ops::{Deref, DerefMut},
    sync::{Arc, MutexGuard, PoisonError},
};

use exporter_ebpf::{
    durations::Durations,
    key::{Family, OfTarget as _, SeriesKey},
};

pub(super) use super::registry::Target;
use super::{
    Agent,
    groups::{Group, GroupKey},
    registry::Targets,
    retired::Retired,
    routes::{Routes, Templates, Texts},
};
use crate::{kernel::Maps, target::Labels};

/// Everything that is counted in user space.
#[derive(Default)]
pub(super) struct State {
    /// The targets as they were when the lock was taken by [`Agent::ledger`].
    pub(super) targets: Targets,
    /// How many sites each group of links had then.
    pub(super) sites: HashMap<GroupKey, usize>,
    /// Requests counted in user space: those that panicked, or were hijacked on another goroutine than their own. The kernel side
    /// admitted each of these series to its map, or made it the target's overflow series, so that they are as limited as its own.
    pub(super) settled: HashMap<SeriesKey, Durations>,
    /// Starts of settled requests whose entries are still in the kernel's map, by goroutine key: an entry that is removed while its
    /// goroutine begins another request takes that one with it.
    pub(super) settled_requests: HashMap<u64, u64>,
    pub(super) routes: Routes,
    /// What ended targets of containers counted that may come back.
    pub(super) retired: HashMap<Labels, Retired>,
}

impl State {
    /// For each target the one that speaks for it, see [`Targets::leaders`].
    pub(super) fn leaders(&self) -> HashMap<u32, u32> {
        self.targets.leaders()
    }

    /// The texts of a series.
    pub(super) fn texts(&mut self, series: &SeriesKey, maps: &Maps, max_routes: u32) -> Texts {
        let placement = self.targets.get(&series.target()).and_then(|target| target.placement.as_deref());
        let templates = placement.map_or(&[][..], |placement| &placement.routes);
        self.routes.label(series, maps, Templates { templates, max_routes })
    }

    /// Counts a request that user space has settled.
    pub(super) fn count(&mut self, series: &SeriesKey, duration_ns: u64) {
        let scale = Family::HttpServer.scale();
        self.settled.entry(*series).or_insert(Durations::ZERO).record(scale, duration_ns);
    }

    /// Takes over how the targets stand now. The totals of a pod whose name another pod has by now, as a StatefulSet gives it, are
    /// not that one's.
    fn see(&mut self, targets: Targets, sites: HashMap<GroupKey, usize>) {
        for target in targets.values().filter(|it| it.stage.is_live()) {
            let uid = target.placement.as_ref().map(|it| &it.uid);
            if uid.is_some_and(|uid| self.retired.get(&target.labels).is_some_and(|it| it.uid != *uid)) {
                self.retired.remove(&target.labels);
            }
        }
        (self.targets, self.sites) = (targets, sites);
    }
}

/// The lock with a view of the targets, which is given up with it.
pub(super) struct Ledger<'l>(MutexGuard<'l, State>);

impl Deref for Ledger<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

impl DerefMut for Ledger<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.0
    }
}

impl Drop for Ledger<'_> {
    fn drop(&mut self) {
        // A view that nobody reads would make every change to a target copy it.
        (self.0.targets, self.0.sites) = (Targets::default(), HashMap::new());
    }
}

impl Agent {
    /// What was counted, without a view of the targets. Waits for whoever reads the kernel's maps.
    pub(super) fn counted(&self) -> MutexGuard<'_, State> {
        self.inner.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was counted, and the targets of now. Waits for whoever reads the kernel's maps.
    pub(super) fn ledger(&self) -> Ledger<'_> {
        self.ledger_of(self.counted())
    }

    /// The same for who has the lock.
    pub(super) fn ledger_of<'l>(&self, mut counted: MutexGuard<'l, State>) -> Ledger<'l> {
        let (targets, sites) = {
            let state = self.state();
            let sites = state.groups.iter().map(|(key, group)| (*key, Group::sites(group))).collect();
            (state.targets.clone(), sites)
        };
        counted.see(targets, sites);
        Ledger(counted)
    }
}

#[cfg(test)]
mod tests;
