//! Processes in containers: what becomes of them as more is known of their pods.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{Effect, Effects, Moment, Registry, Target};
use crate::{
    kubernetes::{Found, Placement},
    process::{ContainerId, Process},
    target::Labels,
};

/// Routes of one target that the kernel side tells apart where templates are to fold them.
const ROUTES_TO_FOLD: u32 = 1000;

/// Go processes in containers. Empty outside Kubernetes mode.
#[derive(Default)]
pub(super) struct Contained {
    by_container: HashMap<ContainerId, HashSet<u32>>,
    /// Those whose container is no known pod's, or that are in none.
    pub(super) unplaced: HashSet<u32>,
}

impl Contained {
    /// Forgets processes that are gone.
    pub(super) fn retain(&mut self, present: &HashSet<u32>) {
        self.unplaced.retain(|pid| present.contains(pid));
        self.by_container.retain(|_, pids| {
            pids.retain(|pid| present.contains(pid));
            !pids.is_empty()
        });
    }
}

/// What becomes of a Go process that is no target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::agent) enum Placed {
    /// Its pod wants it measured.
    Wanted(Arc<Placement>),
    /// Not now. Whether it is in no known pod for the first time.
    Unwanted { is_new: bool },
}

impl<L> Registry<L> {
    /// A Go process that is no target is in these containers. To be said before their pod is looked up, so that a change of the
    /// pod that comes right after finds the process.
    pub(in crate::agent) fn in_container(&mut self, pid: u32, containers: &[ContainerId]) {
        for id in containers {
            self.contained.by_container.entry(*id).or_default().insert(pid);
        }
    }

    /// This is known of the containers of a Go process that is no target.
    pub(in crate::agent) fn placed(&mut self, process: &Process, found: Found) -> Placed {
        let pid = process.id.pid;
        if let Found::Wanted(placement) = found {
            return Placed::Wanted(placement);
        }
        self.ignore(pid, Some(process.id));
        let is_new = if found == Found::Unknown {
            self.contained.unplaced.insert(pid)
        } else {
            self.contained.unplaced.remove(&pid);
            false
        };
        Placed::Unwanted { is_new }
    }

    /// A process that was not placed is to be looked at again.
    pub(in crate::agent) fn place_again(&mut self, pid: u32) -> Effects<L> {
        if !self.contained.unplaced.contains(&pid) {
            return Vec::new();
        }
        self.unwanted.remove(&pid);
        vec![Effect::Look(pid)]
    }

    /// Go processes that were seen in these containers.
    pub(in crate::agent) fn in_containers(&self, ids: &[ContainerId]) -> HashSet<u32> {
        ids.iter().filter_map(|id| self.contained.by_container.get(id)).flatten().copied().collect()
    }

    /// Something else is known of the containers of a process, which are found to be `found`. `contained`: whether it is in any.
    pub(in crate::agent) fn pod_changed(&mut self, pid: u32, found: Found, contained: bool, now: Moment) -> Effects<L> {
        let Some(target) = self.of_pid(pid) else {
            self.unwanted.remove(&pid);
            return vec![Effect::Look(pid)];
        };
        let (id, before, process) = (target.id, target.placement.clone(), target.process.id);
        match (before, found) {
            (Some(before), Found::Wanted(placement)) if is_same_measurement(&before, &placement) => {
                // What is said of the pod may be other.
                if let Some(target) = self.targets.get_mut(&id) {
                    target.placement = Some(placement);
                }
                Vec::new()
            }
            (_, Found::Wanted(_)) => {
                let mut effects = self.end(id, false, now);
                effects.push(Effect::Look(pid));
                effects
            }
            // It is ending, and exit's event is on its way.
            (_, Found::Unknown) if !contained => vec![Effect::Look(pid)],
            (_, found) => {
                let effects = self.end(id, false, now);
                self.ignore(pid, Some(process));
                if found == Found::Unknown {
                    self.contained.unplaced.insert(pid);
                }
                effects
            }
        }
    }
}

/// Whether a target can go on as it is.
fn is_same_measurement(before: &Placement, now: &Placement) -> bool {
    Labels::of_placement(before) == Labels::of_placement(now)
        && before.uid == now.uid
        && before.features == now.features
        && before.budget == now.budget
        && before.routes == now.routes
}

impl Target {
    /// Most routes that the kernel side tells apart.
    pub(super) fn max_routes(&self, configured: u32) -> u32 {
        let templates = self.placement.as_ref().is_some_and(|placement| !placement.routes.is_empty());
        if templates { configured.max(ROUTES_TO_FOLD) } else { configured }
    }
}
