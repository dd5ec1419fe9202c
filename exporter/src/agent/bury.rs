//! Forgets ended targets once their last figures were shown: what they counted goes into the totals of their container, and
//! everything that names them leaves the kernel's maps before another target can get their ids.

use std::{
    sync::{PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use exporter_ebpf::{http::goroutine_key_target, key::OfTarget as _};

use super::{Agent, entries::Entries, state::State};

/// How much longer than it took it rests after a burial, and within which bounds: processes may end at any rate, and each burial reads
/// all maps.
const REST: u32 = 30;
const RESTS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

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
    /// Forgets who is due, on another thread: it reads the kernel's maps, and waits for scrapes that do. One at a time.
    pub(super) fn bury_soon(&self) {
        if !self.someone_is_over() || self.inner.burying.swap(true, Ordering::AcqRel) {
            return;
        }
        let agent = self.clone();
        let last = *self.inner.buried.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = last.map_or(Duration::ZERO, |last| last.rest(Instant::now()));
        tokio::spawn(async move {
            // Who ends meanwhile is buried with the others.
            tokio::time::sleep(rest).await;
            tokio::task::spawn_blocking(move || {
                let counted = agent.counted();
                // From here on another thread is needed: this one looks at the targets of now. Only one waits for the lock.
                agent.inner.burying.store(false, Ordering::Release);
                let begun = Instant::now();
                let any = agent.bury(&mut agent.ledger_of(counted));
                if any {
                    // What they took, and what the answers that told of them did.
                    crate::heap::give_back();
                }
                let buried = Buried { ended: Instant::now(), took: begun.elapsed() };
                *agent.inner.buried.lock().unwrap_or_else(PoisonError::into_inner) = Some(buried);
            });
        });
    }

    fn someone_is_over(&self) -> bool {
        let targets = self.state().targets.clone();
        !targets.over(Instant::now(), self.inner.scrapes.shown()).is_empty()
    }

    /// Forgets targets whose last figures were shown, with everything that names them; whether there were any.
    pub(super) fn bury(&self, ledger: &mut State) -> bool {
        let dead = ledger.targets.over(Instant::now(), self.inner.scrapes.shown());
        if dead.is_empty() {
            return false;
        }
        // All is read before anything is changed: what could not be read now is buried later, and its id is not given away.
        let maps = self.inner.kernel.maps();
        let Ok(entries) = Entries::of(maps, &dead) else { return false };
        // Outside pods labels are never used again.
        if let Some(pods) = &self.inner.pods
            && ledger.retire(&dead, &self.inner.kernel, self.inner.config.max_routes, pods).is_err()
        {
            return false;
        }
        ledger.targets.remove_all(&dead);
        if let Some(pods) = &self.inner.pods {
            ledger.forget_retired(pods);
        }
        ledger.settled.retain(|key, _| !dead.contains(&key.target()));
        ledger.settled_requests.retain(|key, _| !dead.contains(&goroutine_key_target(*key)));
        ledger.routes.forget(&dead);
        entries.remove(maps);
        // Only now: their ids are free from here on.
        self.state().forgotten(&dead);
        true
    }

    /// Drops the totals of pods that are gone, on another thread.
    pub(super) fn forget_pods_soon(&self) {
        let agent = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Some(pods) = &agent.inner.pods {
                agent.ledger().forget_retired(pods);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_burial_it_rests() {
        let (ended, ms) = (Instant::now(), Duration::from_millis);
        let rest = |took, after| Buried { ended, took }.rest(ended + after);
        assert_eq!(rest(ms(1), ms(0)), ms(200));
        assert_eq!(rest(ms(20), ms(0)), ms(600));
        assert_eq!(rest(ms(20), ms(450)), ms(150));
        assert_eq!(rest(ms(20), ms(601)), Duration::ZERO);
        assert_eq!(rest(Duration::from_mins(1), ms(0)), Duration::from_secs(5));
    }
}
