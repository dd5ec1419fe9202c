//! What is known of executables: which are Go, what is in them, and which processes wait until that is known.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Effect, Effects, Registry};
use crate::{
    process::{FileId, Process},
    target::Inspection,
};

/// What an inspection of an executable gave; why it cannot be measured.
pub(in crate::agent) type Verdict = Result<Arc<Inspection>, String>;

/// What kind of program an executable is.
#[derive(Clone, Debug)]
pub(in crate::agent) enum Kind {
    Go,
    /// It is not Go, or cannot be measured, for this reason.
    Other(String),
}

/// Whether an executable is Go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::agent) enum Recognition {
    Go,
    Other,
    /// It is not known yet: the process is looked at again once it is. `ask`: whether the caller has to find it out, and
    /// then to call [`Registry::recognised`].
    Unknown {
        ask: bool,
    },
}

/// Processes that wait until it is known whether their executable is Go.
#[derive(Debug)]
struct Waiting {
    since: Instant,
    of: BTreeMap<u32, Process>,
}

/// Executables of which each is kept; more than this are inspected again when they come back.
const MAX_VERDICTS: usize = 4096;

#[derive(Default)]
pub(in crate::agent) struct Files {
    /// What is in executables, for other processes of files that look the same: their code is compared before it is used.
    inspections: HashMap<FileId, Arc<Inspection>>,
    /// Whether executables are Go, or why they are not measured: by their device too, since nothing is compared there.
    kinds: HashMap<(FileId, u64), Kind>,
    waiting: HashMap<(FileId, u64), Waiting>,
}

impl Files {
    /// Whether a process's executable is Go; a process of which that is not known waits.
    pub(in crate::agent) fn recognise(&mut self, process: &Process, now: Instant) -> Recognition {
        let place = (process.file, process.device);
        if self.inspections.contains_key(&process.file) {
            return Recognition::Go;
        }
        match self.kinds.get(&place) {
            Some(Kind::Go) => return Recognition::Go,
            Some(Kind::Other(_)) => return Recognition::Other,
            None => {}
        }
        let (waiting, ask) = match self.waiting.entry(place) {
            Entry::Occupied(waiting) => (waiting.into_mut(), false),
            Entry::Vacant(slot) => (slot.insert(Waiting { since: now, of: BTreeMap::new() }), true),
        };
        waiting.of.insert(process.id.pid, process.clone());
        Recognition::Unknown { ask }
    }

    /// What is known of a process's executable.
    pub(in crate::agent) fn known(&self, process: &Process) -> Option<Verdict> {
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

    fn remember_kind(&mut self, process: &Process, kind: Kind) {
        if self.kinds.len() >= MAX_VERDICTS {
            self.kinds.clear();
        }
        self.kinds.insert((process.file, process.device), kind);
    }

    /// A file is not what was inspected.
    pub(super) fn forget(&mut self, file: &FileId) {
        self.inspections.remove(file);
    }

    /// Processes that waited this long by now, and how long.
    pub(in crate::agent) fn late(&self, now: Instant, patience: Duration) -> Vec<(Process, Duration)> {
        let waited = |it: &Waiting| now.saturating_duration_since(it.since);
        let late = self.waiting.values().filter(|it| waited(it) >= patience);
        late.flat_map(|it| it.of.values().map(move |process| (process.clone(), waited(it)))).collect()
    }

    /// Forgets processes that are gone, of those that wait.
    pub(super) fn retain_waiting(&mut self, is_there: impl Fn(u32) -> bool) {
        for waiting in self.waiting.values_mut() {
            waiting.of.retain(|pid, _| is_there(*pid));
        }
    }
}

impl<L> Registry<L> {
    /// It was found out of which kind an executable is, by this process; or why it never can be, if that is known.
    pub(in crate::agent) fn recognised(&mut self, process: &Process, kind: Result<Kind, Option<String>>) -> Effects<L> {
        let waiting = self.files.waiting.remove(&(process.file, process.device));
        let mut waiting = waiting.map(|waiting| waiting.of).unwrap_or_default();
        match kind {
            Ok(kind) => self.files.remember_kind(process, kind),
            // That it could not be read through one process, as through one that ended, says nothing of the file.
            Err(never) => {
                waiting.remove(&process.id.pid);
                self.ignore(process.id.pid, Some(process.id));
                if let Some(reason) = never {
                    self.passed.note(process, format!("cannot read the executable: {reason}"));
                }
            }
        }
        waiting.into_keys().map(Effect::Look).collect()
    }
}
