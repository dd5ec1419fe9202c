//! What the agent knows: targets, attachments, and what has been settled in user space. Plain data under one lock; nothing
//! here blocks.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Instant, SystemTime},
};

use exporter_ebpf::{
    durations::Durations,
    key::{Family, OfTarget as _, SeriesKey},
    share::may_take,
    target::MAX_TARGETS,
};

use tracing::warn;

use super::{
    blocked::Blocked,
    gone::{Gone, MOST_UNSEEN, Scrapes},
    links::{Group, GroupKey},
    passed::{AllPassed, Waiting},
    pods::Contained,
    replaced::Code,
    retired::Retired,
    routes::{Routes, Templates},
};
use crate::{
    config::Globs,
    kernel::Maps,
    kubernetes::Placement,
    process::{Census, FileId, Process, ProcessId},
    target::{Features, Inspection, Labels},
};

/// Where a target stands.
#[derive(Clone, Debug)]
pub(super) enum Stage {
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
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Measured => "measured",
            Self::Unsupported(_) => "unsupported",
            Self::Failed(_) => "failed",
            Self::Gone(_) => "gone",
        }
    }

    pub(super) fn is_live(&self) -> bool {
        !matches!(self, Self::Gone(_))
    }
}

/// A selected process.
#[derive(Debug)]
pub(super) struct Target {
    /// Whose process it is, see [`crate::process::owner`].
    pub(super) owner: Arc<str>,
    /// Its number in the kernel's maps.
    pub(super) id: u32,
    pub(super) process: Process,
    pub(super) labels: Labels,
    /// Where it is, in Kubernetes mode.
    pub(super) placement: Option<Arc<Placement>>,
    pub(super) stage: Stage,
    pub(super) inspection: Option<Arc<Inspection>>,
    /// What is to be measured of it.
    pub(super) features: Features,
    /// What the probes on blocking may cost it, a share of CPU time.
    pub(super) budget: f64,
    pub(super) since: SystemTime,
    /// The same by a clock that is never set.
    pub(super) found: Instant,
    /// It ran before: what it did then was not counted.
    pub(super) late: bool,
    pub(super) group: GroupKey,
    pub(super) code: Code,
    /// Whether other processes of its file are wanted too.
    pub(super) others: bool,
    /// How often attaching failed, and full scans since.
    pub(super) failures: u32,
    pub(super) since_failure: u32,
    /// Requests were seen whose route was not in the request the handler was given.
    pub(super) wants_mux: bool,
    /// How long its goroutines were blocked.
    pub(super) blocked: Blocked,
    /// Seconds that profiles have seen goroutines blocked, by function: a bounded number of them.
    pub(super) blocked_functions: BTreeMap<String, f64>,
}

/// What a look at an executable gave.
pub(super) type Verdict = Result<Arc<Inspection>, String>;

/// What kind of program an executable is.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Go,
    /// It is not Go, or cannot be measured, for this reason.
    Other(String),
}

/// Everything.
pub(super) struct State {
    pub(super) globs: Globs,
    pub(super) targets: BTreeMap<u32, Target>,
    /// Target by process id; the newest image of it.
    pub(super) by_pid: HashMap<u32, u32>,
    /// Processes that are not wanted, so that a scan need not ask again; without identity those that have no executable, as
    /// kernel threads.
    pub(super) unwanted: HashMap<u32, Option<ProcessId>>,
    /// What is in executables, for other processes of files that look the same: their code is compared before it is used.
    pub(super) inspections: HashMap<FileId, Arc<Inspection>>,
    /// Whether executables are Go, or why they are not measured: by their device too, since nothing is compared there.
    pub(super) kinds: HashMap<(FileId, u64), Kind>,
    /// Executables that are being looked at for that, and the processes that wait for it.
    pub(super) recognising: HashMap<(FileId, u64), Waiting>,
    pub(super) passed: AllPassed,
    pub(super) groups: HashMap<GroupKey, Group>,
    /// Requests counted in user space: those that panicked, or were hijacked on another goroutine than their own. The kernel side
    /// admitted each of these series to its map, or made it the target's overflow series, so that they are as limited as its own.
    pub(super) settled: HashMap<SeriesKey, Durations>,
    /// Starts of settled requests whose entries are still in the kernel's map, by goroutine key: an entry that is removed while its
    /// goroutine begins another request takes that one with it.
    pub(super) settled_requests: HashMap<u64, u64>,
    /// The tasks of the machine, just before the last scan.
    pub(super) census: Option<Census>,
    pub(super) routes: Routes,
    pub(super) contained: Contained,
    /// What ended targets of containers counted that may come back.
    pub(super) retired: HashMap<Labels, Retired>,
    next_id: u32,
}

/// Executables of which each is kept; more than this are inspected again when they come back.
const MAX_VERDICTS: usize = 4096;

/// Of what waits (since when, whose, and its id) what is more than `most`: the first of those who have most waiting, so that nobody's
/// many cost another its few.
fn past_the_most<'o>(mut waiting: Vec<(Instant, &'o str, u32)>, most: usize) -> Vec<u32> {
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

impl Target {
    /// Attaching failed. It is tried again; the log is told once.
    pub(super) fn failed(&mut self, reason: String) {
        if self.failures == 0 {
            let (pid, executable) = (self.process.id.pid, self.process.executable.display());
            warn!(pid, %executable, reason, "not measured: it is tried again");
        }
        self.failures = self.failures.saturating_add(1);
        self.since_failure = 0;
        self.stage = Stage::Failed(reason);
    }

    /// Whether it is to be tried again, asked at each full scan: after the 1st, the 2nd, the 4th, ... the 16th.
    pub(super) fn is_due_again(&mut self) -> bool {
        self.since_failure += 1;
        matches!(self.stage, Stage::Failed(_)) && self.since_failure >= 1 << (self.failures.clamp(1, 5) - 1)
    }
}

impl State {
    pub(super) fn new(globs: Globs) -> Self {
        Self {
            globs,
            targets: BTreeMap::new(),
            by_pid: HashMap::new(),
            unwanted: HashMap::new(),
            inspections: HashMap::new(),
            kinds: HashMap::new(),
            recognising: HashMap::new(),
            passed: AllPassed::default(),
            groups: HashMap::new(),
            settled: HashMap::new(),
            settled_requests: HashMap::new(),
            census: None,
            routes: Routes::default(),
            contained: Contained::default(),
            retired: HashMap::new(),
            next_id: 1,
        }
    }

    /// An id that no target has, if there is one for a process of this owner: none takes all of them. Ids are given round robin, so
    /// that one is not used again soon.
    pub(super) fn free_id(&mut self, owner: &str) -> Option<u32> {
        let held = self.targets.values().filter(|target| &*target.owner == owner).count() as u64;
        let room = u64::from(MAX_TARGETS) - self.targets.len() as u64;
        if !may_take(held, room) {
            return None;
        }
        for _ in 0..MAX_TARGETS {
            let id = self.next_id;
            self.next_id = if id >= MAX_TARGETS { 1 } else { id + 1 };
            if !self.targets.contains_key(&id) {
                return Some(id);
            }
        }
        None
    }

    /// The target that measures this process id now.
    pub(super) fn of_pid(&mut self, pid: u32) -> Option<&mut Target> {
        self.targets.get_mut(self.by_pid.get(&pid)?)
    }

    /// The `http_route` of a series; none if it has none.
    pub(super) fn route_label(&mut self, series: &SeriesKey, maps: &Maps, max_routes: u32) -> Option<Arc<str>> {
        let placement = self.targets.get(&series.target()).and_then(|target| target.placement.as_deref());
        let templates = placement.map_or(&[][..], |placement| &placement.routes);
        self.routes.label(series, maps, Templates { templates, max_routes })
    }

    /// What is known of a process's executable.
    pub(super) fn known(&self, process: &Process) -> Option<Verdict> {
        if let Some(inspection) = self.inspections.get(&process.file) {
            return Some(Ok(Arc::clone(inspection)));
        }
        match self.kinds.get(&(process.file, process.device))? {
            Kind::Go => None,
            Kind::Other(reason) => Some(Err(reason.clone())),
        }
    }

    pub(super) fn remember(&mut self, process: &Process, verdict: Verdict) {
        match verdict {
            Ok(inspection) => {
                if self.inspections.len() >= MAX_VERDICTS {
                    self.inspections.clear();
                }
                self.inspections.insert(process.file, inspection);
            }
            Err(reason) => self.remember_kind(process, Kind::Other(reason)),
        }
    }

    pub(super) fn remember_kind(&mut self, process: &Process, kind: Kind) {
        if self.kinds.len() >= MAX_VERDICTS {
            self.kinds.clear();
        }
        self.kinds.insert((process.file, process.device), kind);
    }

    /// Ended targets whose figures need not stay, and those that ended first of too many.
    pub(super) fn over(&self, now: Instant, scrapes: &Scrapes) -> HashSet<u32> {
        let mut over = HashSet::new();
        let mut waiting = Vec::new();
        for target in self.targets.values() {
            match &target.stage {
                Stage::Gone(gone) if gone.is_over(now, scrapes) => drop(over.insert(target.id)),
                Stage::Gone(gone) => waiting.push((gone.at(), &*target.owner, target.id)),
                _ => {}
            }
        }
        over.extend(past_the_most(waiting, MOST_UNSEEN));
        over
    }

    /// Labels of targets that ended a while ago and that no other target has.
    pub(super) fn stale(&self, now: Instant) -> HashSet<Labels> {
        let is_stale = |target: &&Target| matches!(&target.stage, Stage::Gone(gone) if gone.is_stale(now));
        let live: HashSet<&Labels> = self.targets.values().filter(|it| !is_stale(it)).map(|it| &it.labels).collect();
        let stale = self.targets.values().filter(is_stale).map(|it| &it.labels);
        stale.filter(|labels| !live.contains(labels)).cloned().collect()
    }

    /// Counts a request that user space has settled.
    pub(super) fn count(&mut self, series: &SeriesKey, duration_ns: u64) {
        let scale = Family::HttpServer.scale();
        self.settled.entry(*series).or_insert(Durations::ZERO).record(scale, duration_ns);
    }

    pub(super) fn take_groups(&mut self) -> Vec<Group> {
        self.groups.drain().map(|(_, group)| group).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_has_many_ended_processes_costs_others_nothing() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let few = [(at(1), "few", 1), (at(2), "few", 2)];
        let many = (0..10).map(|i| (at(i), "many", 100 + i as u32));
        let all: Vec<_> = few.into_iter().chain(many).collect();
        assert_eq!(past_the_most(all.clone(), 12), Vec::<u32>::new());
        assert_eq!(
            past_the_most(all.clone(), 5),
            [100, 101, 102, 103, 104, 105, 106],
            "the first of those who have most"
        );
        assert_eq!(past_the_most(all.clone(), 4).len(), 8);
        assert_eq!(past_the_most(all, 0).len(), 12);
    }
}
