//! What is known of the kernel's maps: of each the last read that was good. Knows nothing of how they are read.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::Arc,
    time::Instant,
};

use exporter_ebpf::{
    durations::Durations,
    key::{SeriesKey, target_of},
    loss::LostKey,
    span::LANES,
    wait::WaitState,
};

use super::{AllSettled, View, is_settled};

/// What one reading of the maps gave. A read that failed gives its error, and nothing of what it had seen by then.
pub(in crate::agent) struct Read {
    pub(in crate::agent) series: io::Result<Rows>,
    pub(in crate::agent) in_flight: io::Result<InFlight>,
    pub(in crate::agent) lost: io::Result<HashMap<LostKey, u64>>,
    pub(in crate::agent) kept: io::Result<Kept>,
}

/// What the kernel side keeps of each target besides, by id.
pub(in crate::agent) type Kept = HashMap<u32, WaitState>;

/// The series of the kernel side, those that are past a target's share included.
#[derive(Debug, Default)]
pub(in crate::agent) struct Rows {
    /// Those that have counted something; a key can come twice.
    pub(in crate::agent) series: Vec<(SeriesKey, Durations)>,
    /// Entries of the map: those whose texts come from outside, and the others.
    pub(in crate::agent) entries: (u64, u64),
}

impl Rows {
    /// Takes an entry; `is_bounded`: whether its texts are a program's or the runtime's own.
    pub(in crate::agent) fn add(&mut self, key: &SeriesKey, value: &Durations, is_bounded: bool) {
        *if is_bounded { &mut self.entries.1 } else { &mut self.entries.0 } += 1;
        // The kernel side makes an entry at a panic; the request may end otherwise.
        if value.count() != 0 {
            self.series.push((*key, *value));
        }
    }
}

/// The map of what goroutines are in the middle of.
#[derive(Debug, Default)]
pub(in crate::agent) struct InFlight {
    /// Open spans by target and lane.
    pub(in crate::agent) open: HashMap<(u32, u64), u64>,
    /// Entries, those of goroutines included that do nothing of the lane any more.
    pub(in crate::agent) entries: u64,
    /// Settled requests that have an entry.
    settled: HashSet<(u64, u64)>,
}

impl InFlight {
    /// Takes an entry; `open` is 0 where its goroutine is not doing it. A settled request is not in flight.
    pub(in crate::agent) fn add(&mut self, settled: &AllSettled, goroutine: u64, start_ns: u64, open: u64) {
        self.entries += 1;
        if open == 0 {
            return;
        }
        if is_settled(settled, goroutine, start_ns) {
            self.settled.insert((goroutine, start_ns));
        } else {
            *self.open.entry((target_of(goroutine), goroutine % LANES)).or_default() += 1;
        }
    }

    /// Settled requests that have no entry any more, of those that were settled before the map was read.
    pub(in crate::agent) fn over(&self, settled: &AllSettled) -> Vec<(u64, u64)> {
        let all = settled.values().flat_map(|it| &it.requests).map(|(goroutine, start_ns)| (*goroutine, *start_ns));
        all.filter(|request| !self.settled.contains(request)).collect()
    }
}

/// A read that was good, and of what.
#[derive(Debug)]
pub(in crate::agent) struct Good<T> {
    pub(in crate::agent) value: Arc<T>,
    /// When it began.
    pub(in crate::agent) at: Instant,
    number: u64,
    /// The targets that were there, less those that were forgotten since: what it has of others is nobody's.
    of: Arc<HashSet<u32>>,
    /// Those of them that were measured, or had been.
    measured: Arc<HashSet<u32>>,
}

impl<T> Good<T> {
    /// What a reading gave that is looked at at once, and kept by nobody.
    pub(in crate::agent) fn of(view: &View, value: T, at: Instant) -> Self {
        let (of, measured) = (Arc::clone(&view.ids), Arc::clone(&view.measured));
        Self { value: Arc::new(value), at, number: view.number, of, measured }
    }

    /// Another part of the same reading.
    fn with<U>(&self, value: U) -> Good<U> {
        let (of, measured) = (Arc::clone(&self.of), Arc::clone(&self.measured));
        Good { value: Arc::new(value), at: self.at, number: self.number, of, measured }
    }

    /// Whether it tells something of this target.
    pub(in crate::agent) fn is_of(&self, id: u32) -> bool {
        self.of.contains(&id)
    }

    /// Whether this target was measured when it began.
    pub(in crate::agent) fn has_measured(&self, id: u32) -> bool {
        self.of.contains(&id) && self.measured.contains(&id)
    }
}

impl<T> Clone for Good<T> {
    fn clone(&self) -> Self {
        let (value, of, measured) = (Arc::clone(&self.value), Arc::clone(&self.of), Arc::clone(&self.measured));
        Self { value, of, measured, ..*self }
    }
}

/// What is known of one map.
#[derive(Debug)]
struct Part<T> {
    last: Option<Good<T>>,
    /// The number of the last read, good or not.
    number: u64,
    failing_since: Option<Instant>,
}

impl<T> Default for Part<T> {
    fn default() -> Self {
        Self { last: None, number: 0, failing_since: None }
    }
}

impl<T> Clone for Part<T> {
    fn clone(&self) -> Self {
        Self { last: self.last.clone(), ..*self }
    }
}

impl<T> Part<T> {
    /// Takes a read over, unless another has that began later.
    fn take_over(&mut self, read: io::Result<T>, good: &Good<()>) {
        if self.number >= good.number {
            return;
        }
        self.number = good.number;
        if let Ok(value) = read {
            self.failing_since = None;
            self.last = Some(good.with(value));
        } else {
            self.failing_since.get_or_insert(good.at);
        }
    }

    fn forget(&mut self, ids: &HashSet<u32>) {
        if let Some(last) = &mut self.last
            && ids.iter().any(|id| last.of.contains(id))
        {
            last.of = Arc::new(last.of.difference(ids).copied().collect());
        }
    }
}

/// What is known of all of them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(in crate::agent) struct Known {
    series: Part<Rows>,
    in_flight: Part<InFlight>,
    lost: Part<HashMap<LostKey, u64>>,
    kept: Part<Kept>,
}

impl Known {
    pub(super) fn take_over(&mut self, view: &View, read: Read, at: Instant) {
        let good = Good::of(view, (), at);
        self.series.take_over(read.series, &good);
        self.in_flight.take_over(read.in_flight, &good);
        self.lost.take_over(read.lost, &good);
        self.kept.take_over(read.kept, &good);
    }

    pub(super) fn forget(&mut self, ids: &HashSet<u32>) {
        self.series.forget(ids);
        self.in_flight.forget(ids);
        self.lost.forget(ids);
        self.kept.forget(ids);
    }

    /// The series; none where the map could never be read.
    pub(in crate::agent) fn series(&self) -> Option<&Good<Rows>> {
        self.series.last.as_ref()
    }

    /// Requests in flight.
    pub(in crate::agent) fn in_flight(&self) -> Option<&Good<InFlight>> {
        self.in_flight.last.as_ref()
    }

    /// What was lost, whoever tells.
    pub(in crate::agent) fn lost(&self) -> Option<&Good<HashMap<LostKey, u64>>> {
        self.lost.last.as_ref()
    }

    /// What is kept of targets besides.
    pub(in crate::agent) fn kept(&self) -> Option<&Good<Kept>> {
        self.kept.last.as_ref()
    }

    /// Each map by the kernel's name for it in lower case, and since when it cannot be read, if so.
    pub(in crate::agent) fn states(&self) -> impl Iterator<Item = (&'static str, Option<Instant>)> + use<> {
        let states = [
            ("series", self.series.failing_since),
            ("inflight", self.in_flight.failing_since),
            ("lost", self.lost.failing_since),
            ("wait_states", self.kept.failing_since),
        ];
        states.into_iter()
    }
}
