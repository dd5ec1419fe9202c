//! What is kept of the targets' runtimes between scrapes: who has a reader, and what was read last.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{PATIENCE, SLOW_REST, Wanted};
use crate::{
    process::Process,
    runtime::{Goroutines, Outcome, Reader, Reading},
};

/// What is known of the runtimes, and what it took.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) known: BTreeMap<u32, Known>,
    pub(super) reads: [u64; Outcome::ALL.len()],
    pub(super) read_time: Duration,
    pub(super) walk_time: Duration,
}

/// Reads by outcome, and the seconds that reads and walks took.
pub(in crate::agent) type Account = (Vec<(&'static str, u64)>, f64, f64);

/// One target.
pub(super) struct Known {
    pub(super) process: Process,
    pub(super) reader: Slot,
    pub(super) read: Option<(Instant, Arc<Reading>)>,
    pub(super) walk: Option<Walk>,
}

/// Where a target's reader is.
pub(super) enum Slot {
    /// There is none before this time.
    None(Instant),
    Here(Reader),
    /// Not used before this time: the last read took too long.
    Resting(Reader, Instant),
    /// With a thread that reads, since this time.
    Away(Instant),
}

/// A walk over its goroutines.
pub(super) struct Walk {
    pub(super) at: Instant,
    pub(super) took: Duration,
    pub(super) found: Arc<Goroutines>,
}

impl Known {
    pub(super) fn of(process: Process) -> Self {
        Self { process, reader: Slot::None(Instant::now()), read: None, walk: None }
    }

    /// Whether it was read at this time, or later.
    pub(super) fn is_read_since(&self, since: Instant) -> bool {
        self.read.as_ref().is_some_and(|(at, _)| *at >= since)
    }

    /// Takes the reader out, to use it without a lock; none where there is none, or it is not the time.
    pub(super) fn take(&mut self) -> Option<Reader> {
        let now = Instant::now();
        let ready = match &self.reader {
            Slot::Here(_) => true,
            Slot::Resting(_, until) => now >= *until,
            Slot::None(_) | Slot::Away(_) => false,
        };
        if !ready {
            return None;
        }
        match std::mem::replace(&mut self.reader, Slot::Away(now)) {
            Slot::Here(reader) | Slot::Resting(reader, _) => Some(reader),
            Slot::None(_) | Slot::Away(_) => None,
        }
    }

    /// Whether it is to be begun with, and by the caller alone.
    pub(super) fn begin(&mut self) -> bool {
        let now = Instant::now();
        let due = matches!(self.reader, Slot::None(again) if now >= again);
        if due {
            self.reader = Slot::Away(now);
        }
        due
    }

    pub(super) fn is_away(&self) -> bool {
        matches!(self.reader, Slot::Away(_))
    }

    /// Puts the reader back after what it took this time to read; whether what it found is in time.
    pub(super) fn put_back(&mut self, reader: Reader) -> bool {
        let Slot::Away(since) = self.reader else { return false };
        let took = since.elapsed();
        let in_time = took < PATIENCE;
        self.reader =
            if in_time { Slot::Here(reader) } else { Slot::Resting(reader, Instant::now() + took * SLOW_REST) };
        in_time
    }
}

impl Kept {
    /// What is known of a process, if it is still the one that is meant.
    pub(super) fn of(&mut self, wanted: &Wanted) -> Option<&mut Known> {
        self.known.get_mut(&wanted.id).filter(|known| known.process.id == wanted.process.id)
    }

    pub(super) fn account(&self) -> Account {
        let reads = Outcome::ALL.iter().map(|outcome| (outcome.label(), self.reads[*outcome as usize])).collect();
        (reads, self.read_time.as_secs_f64(), self.walk_time.as_secs_f64())
    }
}
