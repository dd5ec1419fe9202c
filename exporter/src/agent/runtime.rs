//! Reads the targets' runtimes at a scrape: each target again once what is known of it is older than a moment, walks over
//! goroutines as time allows. Any read may never return: it is done without a lock, on a thread that the scrape can do without.

mod known;

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{debug, warn};

pub(super) use self::known::Account;
use self::known::{Kept, Known, Slot, Walk};
use super::{
    patience,
    registry::{Stage, Targets},
};
use crate::{
    metrics::RuntimeFigures,
    process::{Networks, Process},
    runtime::{Outcome, Plan, Reader, Scratch},
    target::{Feature, Labels},
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
/// How long a scrape waits for one target's memory. On an idle machine a read takes a tenth of a millisecond. With those
/// that come after it, which have half as long, an answer stays below a second where 40 programs do their worst.
const PATIENCE: Duration = Duration::from_millis(300);
/// A scrape begins no read after so much time: Prometheus waits ten seconds.
const READS_OF_A_SCRAPE: Duration = Duration::from_secs(4);
/// So many times as long as a read took that the scrape did not wait for, the target is not read again.
const SLOW_REST: u32 = 20;

/// What is kept of the targets' runtimes between scrapes.
#[derive(Default)]
pub(super) struct Runtimes {
    /// Scrapes read one after another, so that they share what is read; each for a bounded time.
    turn: Mutex<()>,
    /// Never held over a read.
    kept: Arc<Mutex<Kept>>,
}

/// A target whose runtime is asked for.
#[derive(Clone)]
pub(super) struct Wanted {
    id: u32,
    process: Process,
    labels: Labels,
    plan: Option<Arc<Plan>>,
}

/// The targets whose runtimes are asked for. Of several processes under the same labels, as in one container, one is read: the
/// one that leads the others, since gauges of several make no sense as one.
pub(super) fn wanted(targets: &Targets, leaders: &HashMap<u32, u32>) -> Vec<Wanted> {
    let leading = targets.values().filter(|target| leaders.get(&target.id) == Some(&target.id));
    let measured = leading.filter(|target| matches!(target.stage, Stage::Measured));
    measured
        .filter(|target| target.features.has(Feature::Runtime))
        .map(|target| Wanted {
            id: target.id,
            process: target.process.clone(),
            labels: target.labels.clone(),
            plan: target.inspection.as_ref().and_then(|it| it.runtime.clone().ok()),
        })
        .collect()
}

impl Runtimes {
    /// The figures of now, or of a moment ago. A target whose memory does not answer has none.
    pub(super) fn read(&self, wanted: Vec<Wanted>) -> (Vec<RuntimeFigures>, Account) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        let fresh = begun.checked_sub(FRESH).unwrap_or(begun);
        self.read_all(&wanted, fresh, begun + READS_OF_A_SCRAPE);
        self.kept().read_time += begun.elapsed();
        self.walk(&wanted, fresh);
        let now = Instant::now();
        let kept = self.kept();
        let figures = wanted.into_iter().filter_map(|it| {
            let known = kept.known.get(&it.id).filter(|known| known.is_read_since(fresh))?;
            let (_, reading) = known.read.as_ref()?;
            Some(RuntimeFigures {
                target: it.labels,
                go_version: it.plan.map(|plan| Arc::clone(&plan.version)),
                reading: Arc::clone(reading),
                goroutines: known.walk.as_ref().map(|walk| Arc::clone(&walk.found)),
                walk_age_seconds: known.walk.as_ref().map_or(0.0, |walk| (now - walk.at).as_secs_f64()),
            })
        });
        (figures.collect(), kept.account())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        lock(&self.kept)
    }

    /// Reads those of whom nothing is known that is fresh enough.
    fn read_all(&self, wanted: &[Wanted], fresh: Instant, until: Instant) {
        let mut kept = self.kept();
        let ids: HashSet<u32> = wanted.iter().map(|it| it.id).collect();
        kept.known.retain(|id, _| ids.contains(id));
        let mut stale = Vec::new();
        for it in wanted {
            let known = kept.known.entry(it.id).or_insert_with(|| Known::of(it.process.clone()));
            if known.process.id != it.process.id {
                *known = Known::of(it.process.clone());
            }
            if !known.is_read_since(fresh) && !known.is_away() {
                stale.push(it.clone());
            }
        }
        drop(kept);
        let asked = stale.clone();
        let kept = Arc::clone(&self.kept);
        let left = patience::each(stale, PATIENCE, Some(until), move || {
            let (kept, mut networks) = (Arc::clone(&kept), Networks::default());
            move |it| read_one(&kept, &it, &mut networks)
        });
        if left > 0 {
            self.tell_left(&asked);
        }
    }

    fn tell_left(&self, asked: &[Wanted]) {
        let mut kept = self.kept();
        for it in asked {
            if kept.of(it).is_some_and(|known| known.is_away()) {
                kept.reads[Outcome::Slow as usize] += 1;
                let pid = it.process.id.pid;
                warn!(pid, "its memory does not answer: there are no figures of its runtime until it does");
            }
        }
    }

    /// Walks over the goroutines of those targets whose turn it is.
    fn walk(&self, wanted: &[Wanted], fresh: Instant) {
        let begun = Instant::now();
        let mut due: Vec<(Option<Instant>, Wanted)> = {
            let mut kept = self.kept();
            let due = wanted.iter().filter_map(|it| {
                let known = kept.of(it).filter(|known| known.is_read_since(fresh))?;
                let rest = |walk: &Walk| WALK_INTERVAL.max(walk.took * WALK_REST);
                let is_due = known.walk.as_ref().is_none_or(|walk| walk.at.elapsed() >= rest(walk));
                is_due.then(|| (known.walk.as_ref().map(|walk| walk.at), it.clone()))
            });
            due.collect()
        };
        due.sort_unstable_by_key(|(last, it)| (*last, it.id));
        let due: Vec<Wanted> = due.into_iter().map(|(_, it)| it).collect();
        let asked = due.clone();
        let kept = Arc::clone(&self.kept);
        let left = patience::each(due, PATIENCE, Some(begun + WALKS_OF_A_SCRAPE), move || {
            let (kept, mut scratch) = (Arc::clone(&kept), Scratch::default());
            move |it| walk_one(&kept, &it, &mut scratch)
        });
        if left > 0 {
            self.tell_left(&asked);
        }
        self.kept().walk_time += begun.elapsed();
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads one target, without a lock.
fn read_one(kept: &Mutex<Kept>, wanted: &Wanted, networks: &mut Networks) {
    let pid = wanted.process.id.pid;
    let Some((reader, begin)) = lock(kept).of(wanted).map(|known| (known.take(), known.begin())) else { return };
    let reader = match reader {
        Some(reader) => Ok(reader),
        None if begin => Reader::open(&wanted.process, wanted.plan.clone()),
        None => return,
    };
    match reader {
        Ok(mut reader) => {
            let (outcome, reading) = reader.read(networks);
            let mut kept = lock(kept);
            kept.reads[outcome as usize] += 1;
            let Some(known) = kept.of(wanted) else { return };
            if outcome == Outcome::Gone {
                debug!(pid, "ended, or became another, before it was read");
            }
            let counts = known.put_back(reader) && outcome != Outcome::Gone;
            known.read = counts.then(|| (Instant::now(), Arc::new(reading)));
            if !counts {
                known.walk = None;
            }
        }
        Err(error) => {
            debug!(pid, %error, "its runtime cannot be read");
            let outcome = if error.kind() == io::ErrorKind::NotFound { Outcome::Gone } else { Outcome::Unreadable };
            let mut kept = lock(kept);
            kept.reads[outcome as usize] += 1;
            if let Some(known) = kept.of(wanted) {
                known.reader = Slot::None(Instant::now() + AGAIN);
            }
        }
    }
}

/// Walks over the goroutines of one target, without a lock.
fn walk_one(kept: &Mutex<Kept>, wanted: &Wanted, scratch: &mut Scratch) {
    let Some(reader) = lock(kept).of(wanted).and_then(Known::take) else { return };
    let at = Instant::now();
    let found = reader.goroutines(scratch);
    let mut kept = lock(kept);
    let Some(known) = kept.of(wanted) else { return };
    let in_time = known.put_back(reader);
    known.walk = found.filter(|_| in_time).map(|found| Walk { at, took: at.elapsed(), found: Arc::new(found) });
}

#[cfg(test)]
mod tests;
