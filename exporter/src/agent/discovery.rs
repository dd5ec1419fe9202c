//! Finding processes, and noticing that they are gone: what /proc shows goes to the registry.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use tracing::warn;

use super::{Agent, follow::Message, registry::Candidate};
use crate::{
    kubernetes::Placement,
    process::{self, Census, Process},
};

/// How long after its first sight a process is looked at again for a listening port.
const PORT_LOOKS: [Duration; 4] =
    [Duration::from_millis(30), Duration::from_millis(100), Duration::from_millis(300), Duration::from_secs(1)];
/// How long a process may have run before it was found and still count as counted from its start: finding it takes as long as the
/// kubelet takes to tell of its container.
const PROMPT_SECONDS: f64 = 5.0;

impl Agent {
    /// The net beneath the events. A full scan looks at every process; one between full scans only at those not seen before,
    /// and at targets that /proc no longer shows, and at nothing where no task has come or gone.
    pub(super) fn scan(&self, full: bool) {
        let ports_matter = !self.inner.config.select.listen_ports.is_empty();
        let census = Census::now();
        let before = {
            let mut last = self.inner.census.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *last, census.clone())
        };
        if census.is_some() && before == census && !full && !ports_matter {
            self.bury_soon();
            return;
        }
        let pids = match process::pids() {
            Ok(pids) => pids,
            Err(error) => {
                warn!(%error, "cannot read /proc: processes that start or end are seen by events alone");
                return;
            }
        };
        let to_look_at = self.state().scanned(&pids, full);
        for pid in to_look_at {
            self.look(pid);
        }
        self.bury_soon();
        if full {
            self.forget_idle();
            self.forget_running();
            self.look_for_replaced();
            let effects = self.state().try_again();
            self.act(effects);
        }
    }

    /// Looks at one process: new, changed, gone, or as before.
    pub(super) fn look(&self, pid: u32) {
        if pid == std::process::id() || self.cannot_be_wanted(pid) {
            return;
        }
        let (found, now) = (Process::find(pid).ok(), self.moment());
        let effects = self.state().seen(pid, found, now);
        self.act(effects);
    }

    /// The cheap answer for most processes that start on a busy node: one that is no target, and is not named.
    fn cannot_be_wanted(&self, pid: u32) -> bool {
        let select = &self.inner.config.select;
        if self.inner.pods.is_some() || select.all || !select.listen_ports.is_empty() || select.pids.contains(&pid) {
            return false;
        }
        if self.state().of_pid(pid).is_some() {
            return false;
        }
        let named = process::executable(pid).is_ok_and(|executable| self.inner.globs.matches(&executable));
        if !named {
            self.state().ignore(pid, None);
        }
        !named
    }

    /// A process that is no target: should it be one?
    pub(super) fn consider(&self, process: Process) {
        let id = process.id;
        if let Some(pods) = &self.inner.pods {
            self.place(pods, process);
            return;
        }
        let Some(wants) = self.wants(&process) else { return };
        if wants {
            self.adopt(process, None);
            return;
        }
        if self.inner.config.select.all {
            self.see_through_linker(&process);
        }
        let is_new = self.state().ignore(id.pid, Some(id));
        if is_new && !self.inner.config.select.listen_ports.is_empty() {
            for delay in PORT_LOOKS {
                self.later(delay, Message::Look(id.pid));
            }
        }
    }

    /// None where that is not known yet: then it is looked at again.
    fn wants(&self, process: &Process) -> Option<bool> {
        let select = &self.inner.config.select;
        if select.pids.contains(&process.id.pid) || self.inner.globs.matches(&process.executable) {
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

    /// A wanted process becomes a target.
    pub(super) fn adopt(&self, process: Process, placement: Option<Arc<Placement>>) {
        let config = &self.inner.config;
        // Checked before.
        let features = placement.as_ref().and_then(|it| it.features.as_ref()?.parse().ok());
        let budget = placement.as_ref().and_then(|it| super::pods::budget(it.budget.as_ref()?).ok());
        // Others of the same file are not wanted where processes are picked one by one.
        let others = placement.is_some() || config.select.all || self.inner.globs.matches(&process.executable);
        let new = Candidate {
            owner: process::owner(process.id.pid).into(),
            placement,
            features: features.unwrap_or(config.features),
            budget: budget.unwrap_or(config.budget),
            others,
            late: ran_before(process.id.image.age_seconds()),
            process,
        };
        let now = self.moment();
        let effects = self.state().adopt(new, now);
        self.act(effects);
    }
}

/// Whether a process ran before it was found: what it did then was not counted.
fn ran_before(age_seconds: Option<f64>) -> bool {
    age_seconds.is_none_or(|age| age > PROMPT_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::ran_before;

    #[test]
    fn a_process_that_was_found_late_ran_before() {
        assert!(ran_before(None) && ran_before(Some(60.0)) && !ran_before(Some(0.5)));
    }
}
