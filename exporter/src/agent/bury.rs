//! Forgets ended targets once their last figures were shown: what they counted goes into the totals of their container, and
//! everything that names them leaves the kernel's maps before another target can get their ids.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use exporter_ebpf::loss::Reason;

use super::{
    Agent,
    entries::Entries,
    ledger::{Good, Leaver, Retired},
    reading::Reading,
    registry::Target,
};
use crate::{kubernetes::Pods, target::Labels};

/// Time between two looks whether another has buried: that takes some milliseconds.
const PAUSE: Duration = Duration::from_millis(1);

/// The one who buries, until it is dropped.
struct One<'a>(&'a AtomicBool);

impl<'a> One<'a> {
    /// None while another does.
    fn of(burying: &'a AtomicBool) -> Option<Self> {
        (!burying.swap(true, Ordering::AcqRel)).then_some(Self(burying))
    }
}

impl Drop for One<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// How much longer than it took it rests after a burial, and within which bounds: processes may end at any rate, and each burial reads
/// all maps.
const REST: u32 = 30;
const RESTS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// The last burial.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buried {
    ended: Instant,
    took: Duration,
}

impl Buried {
    /// How long the next one waits.
    fn rest(self, now: Instant) -> Duration {
        (self.took * REST).clamp(RESTS.0, RESTS.1).saturating_sub(now.saturating_duration_since(self.ended))
    }
}

impl Agent {
    /// Forgets who is due, on another thread: it reads the kernel's maps.
    pub(super) fn bury_soon(&self) {
        if !self.someone_is_over() || self.inner.burial_is_planned.swap(true, Ordering::AcqRel) {
            return;
        }
        let agent = self.clone();
        let last = *self.inner.buried.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = last.map_or(Duration::ZERO, |last| last.rest(Instant::now()));
        tokio::spawn(async move {
            // Who ends meanwhile is buried with the others.
            tokio::time::sleep(rest).await;
            tokio::task::spawn_blocking(move || {
                // From here on another burial is needed: this one looks at the targets of now.
                agent.inner.burial_is_planned.store(false, Ordering::Release);
                let begun = Instant::now();
                if agent.bury_now() {
                    // What they took, and what the answers that told of them did.
                    crate::heap::give_back();
                }
                let buried = Buried { ended: Instant::now(), took: begun.elapsed() };
                *agent.inner.buried.lock().unwrap_or_else(PoisonError::into_inner) = Some(buried);
                // What could not be read, or was settled meanwhile.
                agent.bury_soon();
            });
        });
    }

    fn someone_is_over(&self) -> bool {
        let targets = self.state().targets.clone();
        !targets.over(Instant::now(), self.inner.scrapes.shown()).is_empty()
    }

    /// Forgets targets whose last figures were shown, with everything that names them; whether there were any. One thread at a time:
    /// others go on, since those figures are right until they are forgotten.
    pub(super) fn bury(&self) -> bool {
        let Some(_one) = One::of(&self.inner.burying) else { return false };
        self.bury_those_over().unwrap_or(false)
    }

    /// The same once nobody else does.
    fn bury_now(&self) -> bool {
        loop {
            if let Some(_one) = One::of(&self.inner.burying) {
                return self.bury_those_over().unwrap_or(false);
            }
            thread::sleep(PAUSE);
        }
    }

    /// Errors: a map cannot be read. All is read before anything is changed: they are buried later, and their ids are not given away.
    fn bury_those_over(&self) -> io::Result<bool> {
        let dead = self.state().targets.clone().over(Instant::now(), self.inner.scrapes.shown());
        if dead.is_empty() {
            return Ok(false);
        }
        let maps = self.inner.kernel.maps();
        let reading = self.reading();
        let entries = Entries::of(maps, &dead)?;
        let mut leavers: Vec<Leaver> = dead.iter().map(|id| Leaver { id: *id, totals: None }).collect();
        // Outside pods labels are never used again.
        if let Some(pods) = &self.inner.pods {
            let mut totals = self.totals(&reading, &dead, pods)?;
            for leaver in &mut leavers {
                leaver.totals = totals.remove(&leaver.id);
            }
        }
        // A request of theirs that was settled meanwhile: they are buried with it at the next time.
        let retired = self.ledger().retire(&reading.view, leavers);
        let Ok(retirement) = retired else { return Ok(false) };
        drop(reading);
        self.wait_for_readings(retirement);
        entries.remove(maps);
        self.routes().forget(&dead);
        {
            let mut ledger = self.ledger();
            // Only now: their ids are free from here on.
            self.state().forgotten(&dead);
            ledger.forgotten(&dead);
        }
        self.forget_pods();
        Ok(true)
    }

    /// What targets that are about to be forgotten have counted, where their pod is still there or another target shows the same
    /// series.
    fn totals(
        &self,
        reading: &Reading<'_>,
        dead: &HashSet<u32>,
        pods: &Pods,
    ) -> io::Result<HashMap<u32, (Labels, Retired)>> {
        let view = &reading.view;
        let outlived: HashSet<&Labels> =
            view.targets.values().filter(|it| !dead.contains(&it.id)).map(|it| &it.labels).collect();
        let keep = |target: &Target| {
            let uid = &target.placement.as_ref()?.uid;
            (pods.knows(uid) || outlived.contains(&target.labels)).then(|| {
                let functions = target.blocked_functions.clone();
                let (found, counted) = (Some(target.found), Some(target.found()));
                let new = Retired {
                    uid: Arc::clone(uid),
                    found,
                    counted,
                    blocked_functions: functions,
                    ..Retired::default()
                };
                (target.id, (target.labels.clone(), new))
            })
        };
        let leaving = view.targets.values().filter(|it| dead.contains(&it.id));
        let mut totals: HashMap<u32, (Labels, Retired)> = leaving.filter_map(keep).collect();
        if totals.is_empty() {
            return Ok(totals);
        }
        let rows = Good::of(view, reading.rows(|id| totals.contains_key(&id))?, Instant::now());
        let lost = self.inner.kernel.maps().losses()?;
        for (id, kept) in reading.kept(|id| totals.contains_key(&id))? {
            if let Some((_, retired)) = totals.get_mut(&id) {
                retired.kept = kept;
            }
        }
        for (key, count) in lost {
            if let Some((_, retired)) = totals.get_mut(&key.target) {
                retired.lose(key.reason, count);
            }
        }
        let leaves: HashSet<u32> = totals.keys().copied().collect();
        let mut labeller = self.labeller();
        view.each_series(
            Some(&rows),
            |id| leaves.contains(&id),
            |key, target, value| {
                if let Some((family, labels)) = labeller.label(key, target)
                    && let Some((_, retired)) = totals.get_mut(&target.id)
                {
                    retired.add(family, labels, value);
                }
            },
        );
        drop(labeller);
        for (id, settled) in &view.settled {
            let overflow = settled.past_the_limit();
            if let Some((_, retired)) = totals.get_mut(id).filter(|_| overflow > 0) {
                retired.lose(Reason::SeriesOverflow as u32, overflow);
            }
        }
        Ok(totals)
    }

    /// Drops the totals of pods that are gone, on another thread.
    pub(super) fn forget_pods_soon(&self) {
        let agent = self.clone();
        tokio::task::spawn_blocking(move || agent.forget_pods());
    }

    fn forget_pods(&self) {
        let Some(pods) = &self.inner.pods else { return };
        let kept = self.ledger().pods();
        let gone: HashSet<Arc<str>> = kept.into_iter().filter(|uid| !pods.knows(uid)).collect();
        if !gone.is_empty() {
            let lingering = self.reading().view.pods();
            self.ledger().forget_pods(&gone, &lingering);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_burial_it_rests() {
        let (ended, ms) = (Instant::now(), Duration::from_millis);
        let rest = |took, after| Buried { ended, took }.rest(ended + after);
        assert_eq!(rest(ms(1), ms(0)), ms(500));
        assert_eq!(rest(ms(20), ms(0)), ms(600));
        assert_eq!(rest(ms(20), ms(450)), ms(150));
        assert_eq!(rest(ms(20), ms(601)), Duration::ZERO);
        assert_eq!(rest(Duration::from_mins(1), ms(0)), Duration::from_secs(5));
    }
}
