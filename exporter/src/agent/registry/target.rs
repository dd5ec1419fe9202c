//! One target, where it stands, and the table of all.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Index,
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime},
};

use super::Log;
use crate::{
    agent::{blocked::Blocked, gone::Gone, groups::GroupKey, replaced::Code},
    kubernetes::Placement,
    process::Process,
    target::{Feature, Features, Inspection, Labels},
};

/// Where a target stands.
#[derive(Clone, Debug)]
pub(in crate::agent) enum Stage {
    /// Its executable is being read, or probes attached.
    Preparing,
    /// Measured.
    Measured,
    /// Cannot be measured; nothing is attached.
    Unsupported(String),
    /// Should be measurable, but attaching failed.
    Failed(String),
    /// Ended; its series stay for a moment.
    Gone(Gone),
}

impl Stage {
    pub(in crate::agent) fn name(&self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Measured => "measured",
            Self::Unsupported(_) => "unsupported",
            Self::Failed(_) => "failed",
            Self::Gone(_) => "gone",
        }
    }

    pub(in crate::agent) fn is_live(&self) -> bool {
        !matches!(self, Self::Gone(_))
    }
}

/// A selected process.
#[derive(Clone, Debug)]
pub(in crate::agent) struct Target {
    /// Whose process it is, see [`crate::process::owner`].
    pub(in crate::agent) owner: Arc<str>,
    /// Its number in the kernel's maps.
    pub(in crate::agent) id: u32,
    pub(in crate::agent) process: Process,
    pub(in crate::agent) labels: Labels,
    /// Where it is, in Kubernetes mode.
    pub(in crate::agent) placement: Option<Arc<Placement>>,
    pub(in crate::agent) stage: Stage,
    pub(in crate::agent) inspection: Option<Arc<Inspection>>,
    /// What is to be measured of it.
    pub(in crate::agent) features: Features,
    /// What the probes on blocking may cost it, a share of CPU time.
    pub(in crate::agent) budget: f64,
    pub(in crate::agent) since: SystemTime,
    /// The same by a clock that is never set.
    pub(in crate::agent) found: Instant,
    /// It ran before: what it did then was not counted.
    pub(in crate::agent) late: bool,
    pub(in crate::agent) group: GroupKey,
    pub(in crate::agent) code: Code,
    /// Whether other processes of its file are wanted too.
    pub(in crate::agent) others: bool,
    /// How often its executable was to be read.
    pub(super) attempt: u32,
    /// How often attaching failed, and full scans since.
    pub(super) failures: u32,
    pub(super) since_failure: u32,
    /// Requests were seen whose route was not in the request the handler was given.
    pub(in crate::agent) wants_mux: bool,
    /// How long its goroutines were blocked.
    pub(in crate::agent) blocked: Blocked,
    /// Seconds that profiles have seen goroutines blocked, by function: a bounded number of them.
    pub(in crate::agent) blocked_functions: BTreeMap<String, f64>,
}

impl Target {
    /// Whether a feature is asked for that can be measured of it.
    pub(in crate::agent) fn measures(&self, feature: Feature) -> bool {
        let can = |it: &Arc<Inspection>| it.measures_something(Features::NONE.with(feature));
        self.features.has(feature) && self.inspection.as_ref().is_some_and(can)
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id.pid
    }

    pub(super) fn executable(&self) -> PathBuf {
        self.process.executable.clone()
    }

    /// Measuring it failed, and is tried again. What to log: one line, however often it fails.
    pub(super) fn failed(&mut self, reason: String) -> Option<Log> {
        let first = self.failures == 0;
        let log = first.then(|| Log::Failed { pid: self.pid(), executable: self.executable(), reason: reason.clone() });
        self.failures = self.failures.saturating_add(1);
        self.since_failure = 0;
        self.stage = Stage::Failed(reason);
        log
    }

    /// A full scan has passed; whether measuring it is to be tried again: after the 1st, the 2nd, the 4th, ... the 16th.
    pub(super) fn is_due_again(&mut self) -> bool {
        self.since_failure += 1;
        matches!(self.stage, Stage::Failed(_)) && self.since_failure >= 1 << (self.failures.clamp(1, 5) - 1)
    }

    /// All its links are in place. What to log, where it was not measured before.
    pub(super) fn measured(&mut self) -> Option<Log> {
        if !matches!(self.stage, Stage::Preparing) {
            return None;
        }
        self.failures = 0;
        self.stage = Stage::Measured;
        let go = self.inspection.as_ref().map(|it| it.go_version.clone());
        Some(Log::Measured { pid: self.pid(), executable: self.executable(), go })
    }
}

/// Targets by id. A clone is cheap and stays as it is, whatever becomes of the targets: a view to read without the lock.
#[derive(Clone, Debug, Default)]
pub(in crate::agent) struct Targets(BTreeMap<u32, Arc<Target>>);

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as those of the maps of the standard library")]
impl Targets {
    pub(in crate::agent) fn get(&self, id: &u32) -> Option<&Target> {
        self.0.get(id).map(|target| &**target)
    }

    /// A target to change: views keep it as it was.
    pub(in crate::agent) fn get_mut(&mut self, id: &u32) -> Option<&mut Target> {
        self.0.get_mut(id).map(Arc::make_mut)
    }

    /// A target to read without the lock.
    pub(in crate::agent) fn share(&self, id: u32) -> Option<Arc<Target>> {
        self.0.get(&id).cloned()
    }

    pub(in crate::agent) fn values(&self) -> impl Iterator<Item = &Target> {
        self.0.values().map(|target| &**target)
    }

    pub(in crate::agent) fn keys(&self) -> impl Iterator<Item = &u32> {
        self.0.keys()
    }

    pub(in crate::agent) fn contains_key(&self, id: &u32) -> bool {
        self.0.contains_key(id)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn insert(&mut self, target: Target) {
        self.0.insert(target.id, Arc::new(target));
    }

    /// Forgets these.
    pub(in crate::agent) fn remove_all(&mut self, ids: &HashSet<u32>) {
        self.0.retain(|id, _| !ids.contains(id));
    }
}

impl Index<&u32> for Targets {
    type Output = Target;

    fn index(&self, id: &u32) -> &Target {
        &self.0[id]
    }
}
