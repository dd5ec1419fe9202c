//! Processes in pods: which container a process is in, what its pod asks for, and what becomes of it when that changes.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tracing::debug;

use super::{
    Agent, Message,
    state::{Stage, State, Target},
};
use crate::{
    kubernetes::{Checks, Found, Placement, Pods},
    process::{self, ContainerId, Process},
    target::{Features, Labels},
};

/// Routes of one target that the kernel side tells apart where templates are to fold them.
const ROUTES_TO_FOLD: u32 = 1000;
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

/// What is known of processes in containers. Empty outside Kubernetes mode.
#[derive(Default)]
pub(super) struct Contained {
    /// Go processes by container.
    by_container: HashMap<ContainerId, HashSet<u32>>,
    /// Go processes whose container is no known pod's, or that are in none.
    pub(super) unplaced: HashSet<u32>,
}

impl Contained {
    fn note(&mut self, pid: u32, ids: &[ContainerId]) {
        for id in ids {
            self.by_container.entry(*id).or_default().insert(pid);
        }
    }

    /// Forgets processes that are gone.
    pub(super) fn retain(&mut self, present: &HashSet<u32>) {
        self.unplaced.retain(|pid| present.contains(pid));
        self.by_container.retain(|_, pids| {
            pids.retain(|pid| present.contains(pid));
            !pids.is_empty()
        });
    }

    fn of(&self, ids: &[ContainerId]) -> HashSet<u32> {
        ids.iter().filter_map(|id| self.by_container.get(id)).flatten().copied().collect()
    }
}

impl Agent {
    /// A process that is no target: is it in a pod that wants to be measured?
    pub(super) fn place(&self, pods: &Pods, process: Process) {
        let id = process.id;
        let Some(go) = self.is_go(&process) else { return };
        if !go {
            self.see_through_linker(&process);
            self.state().unwanted.insert(id.pid, Some(id));
            return;
        }
        let containers = process::containers_of(id.pid);
        let found = {
            let mut state = self.state();
            state.contained.note(id.pid, &containers);
            // Under the lock: a change that comes now finds the process noted.
            pods.find(&containers)
        };
        if let Found::Wanted(placement) = found {
            self.state().contained.unplaced.remove(&id.pid);
            self.adopt(process, Some(placement));
            return;
        }
        let new = {
            let mut state = self.state();
            state.unwanted.insert(id.pid, Some(id));
            if found == Found::Unknown {
                state.contained.unplaced.insert(id.pid)
            } else {
                state.contained.unplaced.remove(&id.pid);
                false
            }
        };
        if new && containers.is_empty() {
            for delay in CONTAINER_LOOKS {
                self.later(delay, Message::Place(id.pid));
            }
        }
    }

    /// Looks again at a process that was not placed.
    pub(super) fn place_again(&self, pid: u32) {
        let unplaced = {
            let mut state = self.state();
            let unplaced = state.contained.unplaced.contains(&pid);
            if unplaced {
                state.unwanted.remove(&pid);
            }
            unplaced
        };
        if unplaced {
            self.look(pid);
        }
    }

    /// Something else is known of these containers now.
    pub(super) fn containers_changed(&self, ids: &[ContainerId]) {
        let Some(pods) = &self.inner.pods else { return };
        let pids = self.state().contained.of(ids);
        debug!(containers = ids.len(), processes = pids.len(), "pods changed");
        for pid in pids {
            let known = self.state().of_pid(pid).map(|target| (target.id, target.placement.clone()));
            let Some((id, before)) = known else {
                self.state().unwanted.remove(&pid);
                self.look(pid);
                continue;
            };
            match (before, pods.find(&process::containers_of(pid))) {
                (Some(before), Found::Wanted(now)) if same_measurement(&before, &now) => self.replace(id, now),
                (_, Found::Wanted(_)) => {
                    self.end(id, false);
                    self.look(pid);
                }
                // It is ending, and exit's event is on its way.
                (_, Found::Unknown) if process::containers_of(pid).is_empty() => self.look(pid),
                (_, found) => {
                    debug!(pid, ?found, "no longer wanted");
                    let process = self.state().of_pid(pid).map(|target| target.process.id);
                    self.end(id, false);
                    let mut state = self.state();
                    state.unwanted.insert(pid, process);
                    if found == Found::Unknown {
                        state.contained.unplaced.insert(pid);
                    }
                }
            }
        }
        self.state().forget_retired(pods);
        if ids.len() > MANY {
            // Reading a whole list takes memory that is not needed again for long.
            crate::heap::give_back();
        }
    }

    /// The measurement stands; what is told of the pod may be other.
    fn replace(&self, id: u32, placement: Arc<Placement>) {
        if let Some(target) = self.state().targets.get_mut(&id) {
            target.placement = Some(placement);
        }
    }
}

/// Whether a target can go on as it is.
fn same_measurement(before: &Placement, now: &Placement) -> bool {
    Labels::of_placement(before) == Labels::of_placement(now)
        && before.uid == now.uid
        && before.features == now.features
        && before.budget == now.budget
        && before.routes == now.routes
}

/// Most routes that the kernel side tells apart.
pub(super) fn max_routes(target: &Target, configured: u32) -> u32 {
    let templates = target.placement.as_ref().is_some_and(|placement| !placement.routes.is_empty());
    if templates { configured.max(ROUTES_TO_FOLD) } else { configured }
}

impl State {
    /// The pod before of the same name, which a StatefulSet makes, is over at once: its series are not this one's.
    pub(super) fn end_namesakes(&mut self, new: &Target) {
        let Some(uid) = new.placement.as_ref().map(|it| &it.uid) else { return };
        for target in self.targets.values_mut().filter(|target| target.labels == new.labels) {
            if target.placement.as_ref().is_some_and(|it| it.uid != *uid)
                && let Stage::Gone(gone) = &mut target.stage
            {
                *gone = gone.replaced();
            }
        }
        if self.retired.get(&new.labels).is_some_and(|retired| retired.uid != *uid) {
            self.retired.remove(&new.labels);
        }
    }

    /// For each target the one that speaks for it: of those with the same labels the oldest that lives. A container may hold
    /// several processes, its own and what is run in it for a moment, and the one before a restart lingers; its series must be
    /// there once.
    pub(super) fn leaders(&self) -> HashMap<u32, u32> {
        let mut leader: HashMap<&Labels, &Target> = HashMap::new();
        for target in self.targets.values() {
            let best = leader.entry(&target.labels).or_insert(target);
            let better = match (target.stage.is_live(), best.stage.is_live()) {
                (true, true) => target.since < best.since,
                (false, false) => target.since > best.since,
                (lives, _) => lives,
            };
            if better {
                *best = target;
            }
        }
        self.targets.values().map(|target| (target.id, leader[&target.labels].id)).collect()
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
