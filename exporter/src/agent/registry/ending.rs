//! From a target whose process ended to an id that is free again.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use super::{Effect, Effects, Log, Moment, Registry, Stage, Target, Targets};
use crate::{
    agent::gone::{Gone, MOST_UNSEEN},
    target::Labels,
};

impl<L> Registry<L> {
    /// A target's process is over. `at_once`: another process has its labels now, so that its figures need not stay.
    pub(in crate::agent) fn end(&mut self, id: u32, at_once: bool, now: Moment) -> Effects<L> {
        let Some(target) = self.targets.get_mut(&id).filter(|it| it.stage.is_live()) else { return Vec::new() };
        let gone = Gone::new(now.at, now.snapshots_begun);
        target.stage = Stage::Gone(if at_once { gone.replaced() } else { gone });
        let (pid, group) = (target.pid(), target.group);
        let log = Log::Ended(pid, target.executable());
        if self.by_pid.get(&pid) == Some(&id) {
            self.by_pid.remove(&pid);
        }
        let mut effects = vec![Effect::Log(log), Effect::Unconfigure { pid, id }];
        effects.extend(self.release(group, id));
        effects.push(Effect::UpdateRunQueue);
        if at_once {
            effects.push(Effect::Bury);
        }
        effects
    }

    /// The pod before of the same name, which a StatefulSet makes, is over at once: its series are not this one's.
    pub(super) fn end_namesakes(&mut self, new: &Target) {
        let Some(uid) = new.placement.as_ref().map(|it| &it.uid) else { return };
        let other = |it: &&Target| it.labels == new.labels && it.placement.as_ref().is_some_and(|it| it.uid != *uid);
        let others: Vec<u32> = self.targets.values().filter(other).map(|it| it.id).collect();
        for id in others {
            if let Some(Target { stage: Stage::Gone(gone), .. }) = self.targets.get_mut(&id) {
                *gone = gone.replaced();
            }
        }
    }

    /// Nothing has an entry of these ended targets any more: their ids are free.
    pub(in crate::agent) fn forgotten(&mut self, ids: &HashSet<u32>) {
        debug_assert!(ids.iter().all(|id| self.targets.get(id).is_none_or(|it| !it.stage.is_live())));
        self.targets.remove_all(ids);
    }
}

impl Targets {
    /// Ended targets whose figures need not stay, and those that ended first of too many. `shown`: the last snapshot that
    /// was shown.
    pub(in crate::agent) fn over(&self, now: Instant, shown: u64) -> HashSet<u32> {
        let mut over = HashSet::new();
        let mut waiting = Vec::new();
        for target in self.values() {
            match &target.stage {
                Stage::Gone(gone) if gone.is_over(now, shown) => drop(over.insert(target.id)),
                Stage::Gone(gone) => waiting.push((gone.at(), &*target.owner, target.id)),
                _ => {}
            }
        }
        over.extend(past_the_most(waiting, MOST_UNSEEN));
        over
    }

    /// Labels of targets that ended a while ago and that no other target has.
    pub(in crate::agent) fn stale(&self, now: Instant) -> HashSet<Labels> {
        let is_stale = |target: &&Target| matches!(&target.stage, Stage::Gone(gone) if gone.is_stale(now));
        let live: HashSet<&Labels> = self.values().filter(|it| !is_stale(it)).map(|it| &it.labels).collect();
        let stale = self.values().filter(is_stale).map(|it| &it.labels);
        stale.filter(|labels| !live.contains(labels)).cloned().collect()
    }
}

/// Of what waits (since when, whose, and its id) what is more than `most`: the first of those who have most waiting, so that nobody's
/// many cost another its few.
pub(super) fn past_the_most<'o>(mut waiting: Vec<(Instant, &'o str, u32)>, most: usize) -> Vec<u32> {
    waiting.sort_unstable();
    let mut of: HashMap<&'o str, usize> = HashMap::new();
    for (_, owner, _) in &waiting {
        *of.entry(owner).or_default() += 1;
    }
    let kept = |each: usize| of.values().map(|count| *count.min(&each)).sum::<usize>();
    // What each may keep; it is all, most often.
    let mut each = most;
    while each > 0 && kept(each) > most {
        each -= 1;
    }
    let past = waiting.into_iter().filter(|(_, owner, _)| {
        let Some(left) = of.get_mut(owner).filter(|left| **left > each) else { return false };
        *left -= 1;
        true
    });
    past.map(|(_, _, id)| id).collect()
}
