//! Forgets ended targets once their last figures were shown: what they counted goes into the totals of their container, and
//! everything that names them leaves the kernel's maps before another target can get their ids.

use std::{sync::atomic::Ordering, time::Instant};

use exporter_ebpf::key::{OfTarget as _, target_of};

use super::{Agent, entries::Entries, state::State};

impl Agent {
    /// Forgets who is due, on another thread: it reads the kernel's maps, and waits for scrapes that do. One at a time.
    pub(super) fn bury_soon(&self) {
        if !self.someone_is_over() || self.inner.burying.swap(true, Ordering::AcqRel) {
            return;
        }
        let agent = self.clone();
        tokio::task::spawn_blocking(move || {
            let counted = agent.counted();
            // From here on another thread is needed: this one looks at the targets of now. Only one waits for the lock.
            agent.inner.burying.store(false, Ordering::Release);
            let any = agent.bury(&mut agent.ledger_of(counted));
            if any {
                // What they took, and what the answers that told of them did.
                crate::heap::give_back();
            }
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
        ledger.settled_requests.retain(|key, _| !dead.contains(&target_of(*key)));
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
