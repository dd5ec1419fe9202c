//! What was counted, wherever it is: totals are what the kernel's maps have of the targets that are there, what user space has
//! settled, and what is retired of targets that are gone. Pure code: what was read of the maps goes in, and views come out, which
//! are added up without a lock. It knows no map, no file, no process and no clock.
//!
//! Who reads or changes a map on behalf of targets begins a reading and ends it. The order of things is right by these rules:
//! - A view is taken before the maps are read, and stays as it is: what is settled meanwhile is in the next one.
//! - Totals of a target become retired at one moment. Whoever has an older view counts its entries in the maps, and they leave the maps
//!   only when the last such reading has ended ([`Ledger::is_quiet`]); whoever has a newer one does not look at them.
//! - Only then is the target's id free, so that no entry is taken for another target's that has the id again.
//! - A read that failed, or that was overtaken by one that began later, replaces nothing.

mod known;
mod retired;
mod series;

pub(super) use self::{
    known::{Good, InFlight, Kept, Known, Read, Rows},
    retired::{Leaver, Retired, add_functions},
    series::{Losses, may_be_known_to_a_mux},
};

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use exporter_ebpf::{
    durations::Durations,
    key::target_of,
    key::{Family, OfTarget as _, SeriesKey},
};

use super::registry::{Stage, Target, Targets};
use crate::target::Labels;

/// Everything that is counted in user space, and the last good reads of what is counted in the kernel.
#[derive(Default)]
pub(super) struct Ledger {
    /// The number of the last reading, or of the last retirement.
    number: u64,
    /// Readings that have not ended, by number.
    under_way: BTreeSet<u64>,
    settled: HashMap<u32, Arc<Settled>>,
    /// What ended targets of containers counted that may come back.
    retired: Arc<AllRetired>,
    /// Targets whose totals are retired, while the maps still have entries of them.
    leaving: HashSet<u32>,
    known: Known,
}

/// What user space has counted of a target: requests that panicked, or were hijacked on another goroutine than their own. The kernel
/// side admitted each of these series to its map, or made it the target's overflow series, so that they are as limited as its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Settled {
    pub(super) series: HashMap<SeriesKey, Durations>,
    /// Starts of settled requests whose entries are still in the kernel's map, by goroutine key: an entry that is removed while its
    /// goroutine begins another request takes that one with it.
    requests: HashMap<u64, u64>,
}

/// Totals of containers.
type AllRetired = HashMap<Labels, Arc<Retired>>;

/// Settled requests by target.
pub(super) type AllSettled = HashMap<u32, Arc<Settled>>;

/// Whether a request is settled: its entry in the kernel's map is there until its goroutine is used again.
pub(super) fn is_settled(all: &AllSettled, goroutine: u64, start_ns: u64) -> bool {
    let of_target = all.get(&target_of(goroutine));
    of_target.is_some_and(|it| it.requests.get(&goroutine) == Some(&start_ns))
}

/// What the ledger had when a reading began, as it is taken under the lock.
pub(super) struct Begun {
    number: u64,
    targets: Targets,
    leaving: HashSet<u32>,
    settled: AllSettled,
    retired: Arc<AllRetired>,
}

/// The same, to be looked at.
#[derive(Debug, Default)]
pub(super) struct View {
    number: u64,
    /// The targets whose entries in the maps count.
    pub(super) targets: Targets,
    /// What is settled of them.
    pub(super) settled: AllSettled,
    /// What targets had counted before each, of the same container.
    pub(super) retired: HashMap<u32, Arc<Retired>>,
    /// Their ids.
    ids: Arc<HashSet<u32>>,
    /// Those that are measured, or were.
    measured: Arc<HashSet<u32>>,
}

/// What is to be retired has changed since it was added up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overtaken;

impl Ledger {
    /// Begins a reading of the maps that looks at no target but those that the reader knows: until it is ended by [`Self::end`], given
    /// its number, no id of a target that is there now is given to another.
    pub(super) fn enter(&mut self) -> u64 {
        self.number += 1;
        self.under_way.insert(self.number);
        self.number
    }

    /// Begins a reading of the maps, given the targets of now. It is to be ended by [`Self::end`].
    pub(super) fn begin(&mut self, targets: Targets) -> Begun {
        let number = self.enter();
        let (leaving, settled, retired) = (self.leaving.clone(), self.settled.clone(), Arc::clone(&self.retired));
        Begun { number, targets, leaving, settled, retired }
    }

    /// A reading has ended: nothing of it is looked at any more but what was made of it.
    pub(super) fn end(&mut self, number: u64) {
        self.under_way.remove(&number);
    }

    /// Whether all readings have ended that began before a retirement of this number.
    pub(super) fn is_quiet(&self, retirement: u64) -> bool {
        self.under_way.first().is_none_or(|first| *first > retirement)
    }

    /// Takes over what a reading gave, and says what is known by now: of each map the last good read.
    pub(super) fn know(&mut self, view: &View, read: Read, now: Instant) -> Known {
        self.known.take_over(view, read, now);
        self.known.clone()
    }

    /// Maps whose last read failed, and since when reads of them do: what is shown of them is as it was before.
    pub(super) fn unreadable(&self) -> Vec<(&'static str, Instant)> {
        self.known.states().filter_map(|(map, since)| Some((map, since?))).collect()
    }

    /// Counts a request that user space has settled, in a reading that began before its entry was taken from the kernel's map. With
    /// `request`, its goroutine and start, its entry in the map of requests in flight is still there. Whether it counts: nothing is
    /// counted of a target that the reading knows not.
    pub(super) fn settle(
        &mut self,
        view: &View,
        series: &SeriesKey,
        duration_ns: u64,
        request: Option<(u64, u64)>,
    ) -> bool {
        let id = series.target();
        if !view.targets.contains_key(&id) || self.leaving.contains(&id) {
            return false;
        }
        let settled = Arc::make_mut(self.settled.entry(id).or_default());
        let scale = Family::HttpServer.scale();
        settled.series.entry(*series).or_insert(Durations::ZERO).record(scale, duration_ns);
        settled.requests.extend(request);
        true
    }

    /// Settled requests of now.
    pub(super) fn settled(&self) -> AllSettled {
        self.settled.clone()
    }

    /// Whether this request is settled.
    pub(super) fn is_settled(&self, goroutine: u64, start_ns: u64) -> bool {
        is_settled(&self.settled, goroutine, start_ns)
    }

    /// Forgets settled requests, of a view, that the map of requests in flight had no more when it was read after that.
    pub(super) fn forget_requests(&mut self, over: &[(u64, u64)]) {
        for (goroutine, start_ns) in over {
            if let Some(settled) = self.settled.get_mut(&target_of(*goroutine))
                && settled.requests.get(goroutine) == Some(start_ns)
            {
                Arc::make_mut(settled).requests.remove(goroutine);
            }
        }
    }

    /// From now on the totals of these ended targets are retired, where they are to be kept, and their entries in the maps do not count.
    /// Gives the number that [`Self::is_quiet`] is asked with before these are removed.
    ///
    /// # Errors
    /// Requests of them were settled since `view`, of which `leavers` was made, or another has retired them: nothing has changed.
    pub(super) fn retire(&mut self, view: &View, leavers: Vec<Leaver>) -> Result<u64, Overtaken> {
        let as_viewed = |id: &u32| match (view.settled.get(id), self.settled.get(id)) {
            (Some(then), Some(now)) => then.series == now.series,
            (then, now) => then.is_none() && now.is_none(),
        };
        if !leavers.iter().all(|it| !self.leaving.contains(&it.id) && as_viewed(&it.id)) {
            return Err(Overtaken);
        }
        let retired = Arc::make_mut(&mut self.retired);
        for leaver in leavers {
            self.settled.remove(&leaver.id);
            self.leaving.insert(leaver.id);
            if let Some((labels, totals)) = leaver.totals {
                Arc::make_mut(retired.entry(labels).or_default()).join(totals);
            }
        }
        self.number += 1;
        Ok(self.number)
    }

    /// The maps have no entry of these targets any more: their ids are free.
    pub(super) fn forgotten(&mut self, ids: &HashSet<u32>) {
        self.leaving.retain(|id| !ids.contains(id));
        self.settled.retain(|id, _| !ids.contains(id));
        self.known.forget(ids);
    }

    /// Pods of which totals are kept.
    pub(super) fn pods(&self) -> HashSet<Arc<str>> {
        self.retired.values().map(|it| it.uid.clone()).collect()
    }

    /// Drops the totals of pods that are gone. Not while a target of theirs, by labels and pod, still lingers: its series would go back
    /// by what the targets before it had counted, and a rate over that would count the rest twice.
    pub(super) fn forget_pods(&mut self, gone: &HashSet<Arc<str>>, lingering: &HashSet<(Labels, Arc<str>)>) {
        let stays = |labels: &Labels, uid: &Arc<str>| lingering.contains(&(labels.clone(), uid.clone()));
        let retired = Arc::make_mut(&mut self.retired);
        retired.retain(|labels, retired| !gone.contains(&retired.uid) || stays(labels, &retired.uid));
    }
}

impl Begun {
    /// The reading's number.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// What counts of it.
    pub(super) fn view(self) -> View {
        let Self { number, mut targets, leaving, settled, retired } = self;
        let uid_of = |it: &Target| it.placement.as_ref().map(|placement| placement.uid.clone());
        // The next pod of a StatefulSet has the name of the one before, and counts anew. It is the one that was found last, where for a
        // moment both are there.
        let mut live: Vec<&Target> = targets.values().filter(|it| it.stage.is_live()).collect();
        live.sort_by_key(|it| it.found);
        let pods: HashMap<Labels, Option<Arc<str>>> =
            live.into_iter().map(|it| (it.labels.clone(), uid_of(it))).collect();
        let is_before =
            |it: &&Target| !it.stage.is_live() && pods.get(&it.labels).is_some_and(|pod| *pod != uid_of(it));
        let left_out: HashSet<u32> = targets.values().filter(is_before).map(|it| it.id).chain(leaving).collect();
        if !left_out.is_empty() {
            targets.remove_all(&left_out);
        }
        let before = |it: &Target| {
            let retired = retired.get(&it.labels)?;
            let pod = pods.get(&it.labels).cloned().unwrap_or_else(|| uid_of(it));
            (pod.as_ref() == Some(&retired.uid)).then(|| (it.id, Arc::clone(retired)))
        };
        let retired = targets.values().filter_map(before).collect();
        let measured = targets.values().filter(|it| matches!(it.stage, Stage::Measured | Stage::Gone(_)));
        let measured = Arc::new(measured.map(|it| it.id).collect());
        let ids = Arc::new(targets.keys().copied().collect());
        View { number, targets, settled, retired, ids, measured }
    }
}

impl View {
    /// For each target the one that speaks for it, see [`Targets::leaders`].
    pub(super) fn leaders(&self) -> HashMap<u32, u32> {
        self.targets.leaders()
    }

    /// Labels and pods of the targets.
    pub(super) fn pods(&self) -> HashSet<(Labels, Arc<str>)> {
        let pods = self.targets.values().filter_map(|it| Some((it.labels.clone(), it.placement.as_ref()?.uid.clone())));
        pods.collect()
    }
}

#[cfg(test)]
mod tests;
