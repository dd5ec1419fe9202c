//! Reads the targets' runtimes at a scrape: each target again once what is known of it is older than a moment, walks over
//! goroutines as time allows.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::debug;

use super::state::{Stage, State};
use crate::{
    metrics::RuntimeFigures,
    process::{Networks, Process},
    runtime::{Goroutines, Outcome, Plan, Reader, Reading, Scratch},
    target::{Labels, Measure},
};

/// How old a reading may be and still answer: scrapes by several Prometheus servers share one.
const FRESH: Duration = Duration::from_millis(100);
/// How long after a process could not be begun with it is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// Least time between two walks over the goroutines of one target.
const WALK_INTERVAL: Duration = Duration::from_secs(1);
/// So many times as long as a walk took no other follows: walks take two percent of a core at most, for each target.
const WALK_REST: u32 = 50;
/// A scrape begins no walk after so much time with walks; those whose last is oldest come first.
const WALKS_OF_A_SCRAPE: Duration = Duration::from_millis(50);

/// What is kept of the targets' runtimes between scrapes.
#[derive(Default)]
pub(super) struct Runtimes {
    known: BTreeMap<u32, Known>,
    scratch: Scratch,
    reads: [u64; Outcome::ALL.len()],
    read_time: Duration,
    walk_time: Duration,
}

/// One target.
struct Known {
    process: Process,
    reader: Result<Reader, Instant>,
    read: Option<(Instant, Arc<Reading>)>,
    walk: Option<Walk>,
}

struct Walk {
    at: Instant,
    took: Duration,
    found: Arc<Goroutines>,
}

/// A target whose runtime is asked for.
pub(super) struct Wanted {
    id: u32,
    process: Process,
    labels: Labels,
    plan: Option<Arc<Plan>>,
}

/// The targets whose runtimes are asked for. Of several processes under the same labels, as in one container, one is read: the
/// one that leads the others, since gauges of several make no sense as one.
pub(super) fn wanted(state: &State, leaders: &HashMap<u32, u32>) -> Vec<Wanted> {
    let leading = state.targets.values().filter(|target| leaders.get(&target.id) == Some(&target.id));
    let measured = leading.filter(|target| matches!(target.stage, Stage::Measured));
    measured
        .filter(|target| target.features.has(Measure::Runtime))
        .map(|target| Wanted {
            id: target.id,
            process: target.process.clone(),
            labels: target.labels.clone(),
            plan: target.inspection.as_ref().and_then(|it| it.runtime.clone().ok()),
        })
        .collect()
}

impl Runtimes {
    /// The figures of now, or of a moment ago.
    pub(super) fn read(&mut self, wanted: Vec<Wanted>) -> Vec<RuntimeFigures> {
        let begun = Instant::now();
        let ids: HashSet<u32> = wanted.iter().map(|it| it.id).collect();
        self.known.retain(|id, _| ids.contains(id));
        let mut networks = Networks::default();
        for it in &wanted {
            self.read_one(it, &mut networks);
        }
        self.read_time += begun.elapsed();
        self.walk();
        let now = Instant::now();
        wanted
            .into_iter()
            .filter_map(|it| {
                let known = self.known.get(&it.id)?;
                let (_, reading) = known.read.as_ref()?;
                Some(RuntimeFigures {
                    target: it.labels,
                    go_version: it.plan.map(|plan| Arc::clone(&plan.version)),
                    reading: Arc::clone(reading),
                    goroutines: known.walk.as_ref().map(|walk| Arc::clone(&walk.found)),
                    walk_age_seconds: known.walk.as_ref().map_or(0.0, |walk| (now - walk.at).as_secs_f64()),
                })
            })
            .collect()
    }

    /// Reads by outcome, and the seconds that reads and walks took.
    pub(super) fn account(&self) -> (Vec<(&'static str, u64)>, f64, f64) {
        let reads = Outcome::ALL.iter().map(|outcome| (outcome.label(), self.reads[*outcome as usize])).collect();
        (reads, self.read_time.as_secs_f64(), self.walk_time.as_secs_f64())
    }

    fn read_one(&mut self, wanted: &Wanted, networks: &mut Networks) {
        let pid = wanted.process.id.pid;
        let open = || {
            let opened = Reader::open(&wanted.process, wanted.plan.clone());
            opened.map_err(|error| {
                debug!(pid, %error, "its runtime cannot be read");
                (Instant::now() + AGAIN, error)
            })
        };
        let known = match self.known.entry(wanted.id) {
            std::collections::btree_map::Entry::Occupied(slot) => slot.into_mut(),
            std::collections::btree_map::Entry::Vacant(slot) => slot.insert(Known {
                process: wanted.process.clone(),
                reader: Err(Instant::now()),
                read: None,
                walk: None,
            }),
        };
        if known.process.id != wanted.process.id {
            *known = Known { process: wanted.process.clone(), reader: Err(Instant::now()), read: None, walk: None };
        }
        if known.read.as_ref().is_some_and(|(at, _)| at.elapsed() < FRESH) {
            return;
        }
        if known.reader.as_ref().is_err_and(|again| Instant::now() >= *again) {
            known.reader = open().map_err(|(again, error)| {
                let outcome = if error.kind() == io::ErrorKind::NotFound { Outcome::Gone } else { Outcome::Unreadable };
                self.reads[outcome as usize] += 1;
                again
            });
        }
        let Ok(reader) = &mut known.reader else { return };
        let (outcome, reading) = reader.read(networks);
        self.reads[outcome as usize] += 1;
        match outcome {
            Outcome::Gone => {
                debug!(pid, "ended, or became another, before it was read");
                known.read = None;
                known.walk = None;
            }
            _ => known.read = Some((Instant::now(), Arc::new(reading))),
        }
    }

    /// Walks over the goroutines of those targets whose turn it is.
    fn walk(&mut self) {
        let begun = Instant::now();
        let mut due: Vec<(Option<Instant>, u32)> = self
            .known
            .iter()
            .filter(|(_, known)| known.read.is_some())
            .filter(|(_, known)| {
                let rest = |walk: &Walk| WALK_INTERVAL.max(walk.took * WALK_REST);
                known.walk.as_ref().is_none_or(|walk| walk.at.elapsed() >= rest(walk))
            })
            .map(|(id, known)| (known.walk.as_ref().map(|walk| walk.at), *id))
            .collect();
        due.sort_unstable();
        for (_, id) in due {
            if begun.elapsed() >= WALKS_OF_A_SCRAPE {
                break;
            }
            let Some(known) = self.known.get_mut(&id) else { continue };
            let Ok(reader) = &known.reader else { continue };
            let at = Instant::now();
            known.walk = reader.goroutines(&mut self.scratch).map(|found| Walk {
                at,
                took: at.elapsed(),
                found: Arc::new(found),
            });
        }
        self.walk_time += begun.elapsed();
    }
}
