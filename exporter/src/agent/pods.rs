//! Processes in pods: which containers a process is in and what their pod asks for goes to the registry.

use std::time::Duration;

use tracing::debug;

use super::{Agent, follow::Message, registry::Placed};
use crate::{
    kubernetes::{Checks, Pods},
    process::{self, ContainerId, Process},
    target::Features,
};

/// How long after its first sight a process in no container is looked at again: a runtime moves it after its start, or its
/// cgroup could not be read.
const CONTAINER_LOOKS: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(300), Duration::from_secs(2)];

/// Containers that change at one time when a list is read, and hardly otherwise.
const MANY: usize = 16;

/// What of a pod's annotations is for other stations to read.
pub(crate) const CHECKS: Checks = Checks {
    features: |text| text.parse::<Features>().map(drop).map_err(|error| error.to_string()),
    budget: |text| budget(text).map(drop),
};

/// A share of CPU time, as `0.01` or `1%`.
pub(super) fn budget(text: &str) -> Result<f64, String> {
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |number| (number.trim(), 0.01));
    let share = number.parse::<f64>().ok().map(|number| number * scale);
    share.filter(|share| (0.0001..=1.0).contains(share)).ok_or_else(|| {
        let shown: String = text.chars().take(20).collect();
        format!("{shown:?} is no budget: it must be a share of CPU time from 0.0001 to 1, or from 0.01% to 100%")
    })
}

impl Agent {
    /// A process that is no target: is it in a pod that wants to be measured?
    pub(super) fn place(&self, pods: &Pods, process: Process) {
        let id = process.id;
        let Some(go) = self.is_go(&process) else { return };
        if !go {
            self.see_through_linker(&process);
            self.state().ignore(id.pid, Some(id));
            return;
        }
        let containers = process::containers_of(id.pid);
        self.state().in_container(id.pid, &containers);
        let found = pods.find(&containers);
        let placed = self.state().placed(&process, found);
        match placed {
            Placed::Wanted(placement) => self.adopt(process, Some(placement)),
            Placed::Unwanted { is_new } if is_new && containers.is_empty() => {
                for delay in CONTAINER_LOOKS {
                    self.later(delay, Message::Place(id.pid));
                }
            }
            Placed::Unwanted { .. } => {}
        }
    }

    /// Something else is known of these containers now.
    pub(super) fn containers_changed(&self, ids: &[ContainerId]) {
        let Some(pods) = &self.inner.pods else { return };
        let pids = self.state().in_containers(ids);
        debug!(containers = ids.len(), processes = pids.len(), "pods changed");
        for pid in pids {
            let containers = process::containers_of(pid);
            let (found, now) = (pods.find(&containers), self.moment());
            let effects = self.state().pod_changed(pid, found, !containers.is_empty(), now);
            self.act(effects);
        }
        self.forget_pods_soon();
        if ids.len() > MANY {
            // Reading a whole list takes memory that is not needed again for long.
            crate::heap::give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_shares_or_percentages() {
        for (text, share) in [("0.01", 0.01), ("1%", 0.01), ("2.5 %", 0.025), ("100%", 1.0), ("1", 1.0)] {
            assert!((budget(text).unwrap() - share).abs() < 1e-12, "{text}");
        }
        for text in ["", "%", "0", "101%", "2", "-1%", "NaN", "inf", "1%%", "one", &"9".repeat(100_000)] {
            let error = budget(text).unwrap_err();
            assert!(error.contains("0.01% to 100%") && error.len() < 200, "{error}");
        }
    }
}
