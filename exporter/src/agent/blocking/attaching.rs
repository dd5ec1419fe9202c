//! Attaches and detaches the probes of one group. Knows nothing of when that is due.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::warn;

use super::{AGAIN, ATTACHING, Driver};
use crate::{
    agent::{
        Agent,
        groups::{GroupKey, Site},
        lease::Lease,
        links::{attach_each, detach_elsewhere, on_a_small_thread},
        turns::Who,
    },
    kernel::AttachError,
    process::Process,
    target::{Feature, Inspection, PlannedProbe},
};

impl Driver {
    /// Attaches; where that fails, waits.
    pub(super) async fn attach(&mut self) -> Option<Lease<Site>> {
        let found = {
            let state = self.agent.state();
            let group = state.groups.get(&self.key);
            group.and_then(|group| {
                group.users.iter().find_map(|id| {
                    let target = state.targets.get(id)?;
                    Some((target.inspection.clone()?, target.process.clone(), Who::of_target(target)))
                })
            })
        };
        let Some((inspection, process, who)) = found else {
            sleep(Duration::from_secs(1)).await;
            return None;
        };
        let (agent, key) = (self.agent.clone(), self.key);
        let lease = self.agent.inner.turns.take(who, None, move || held(&agent, &inspection, process, key)).await;
        let lease = match lease {
            Some(Ok(lease)) => lease,
            // That process has ended, and soon is no user any more: another is asked then. Or there was no thread.
            Some(Err(AttachError::Gone { .. })) | None => {
                sleep(Duration::from_secs(1)).await;
                return None;
            }
            Some(Err(error)) => {
                warn!(%error, "blocking is not measured");
                // It would be asked again and again of a program that changes itself.
                self.given_up = matches!(error, AttachError::Patched(_));
                let reason = error.to_string();
                if let Some(group) = self.agent.state().groups.get_mut(&self.key) {
                    group.blocking_error = Some(reason);
                }
                if !self.given_up {
                    sleep(AGAIN).await;
                }
                return None;
            }
        };
        let is_there = match self.agent.state().groups.get_mut(&self.key) {
            Some(group) if group.generation == self.generation => {
                group.blocking = Some(lease.clone());
                group.blocking_error = None;
                true
            }
            _ => false,
        };
        if !is_there {
            detach_elsewhere(self.key, lease.take().unwrap_or_default());
        }
        is_there.then_some(lease)
    }

    /// Detaches; whether the probes were attached until then.
    pub(super) async fn detach(&mut self, lease: &Lease<Site>) -> bool {
        let links = lease.take();
        let were_attached = links.is_some();
        // On a thread of its own: it may never end, and those that answer scrapes are not without number.
        let (done, detached) = tokio::sync::oneshot::channel::<()>();
        let detach = move || {
            drop(links);
            drop(done);
        };
        if on_a_small_thread(detach).is_ok() {
            let _ = detached.await;
        }
        if let Some(group) = self.agent.state().groups.get_mut(&self.key)
            && group.generation == self.generation
        {
            group.blocking = None;
        }
        were_attached
    }
}

/// Attaches: from the moment when it is attached each probe comes off by itself, unless this task sees to it.
fn held(agent: &Agent, inspection: &Inspection, process: Process, key: GroupKey) -> Result<Lease<Site>, AttachError> {
    let reached = agent.reached(key, process);
    let until = Instant::now() + ATTACHING;
    let lease = agent.inner.leases.grant(until, move |links| detach_elsewhere(key, links));
    let wanted = |it: &PlannedProbe| it.feature() == Feature::Blocking;
    let keep = |site| {
        let too_late = |(probe, ..): Site| AttachError::Refused { probe, reason: "the kernel took too long".into() };
        lease.add(site).map_err(too_late)
    };
    match attach_each(&agent.inner.kernel, inspection, &reached, key, wanted, keep) {
        Ok(()) => Ok(lease),
        Err(error) => {
            detach_elsewhere(key, lease.take().unwrap_or_default());
            Err(error)
        }
    }
}
