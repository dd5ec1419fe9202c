//! Typed access to the maps.

use std::{
    collections::{self, HashSet},
    io,
    sync::{Arc, Mutex, PoisonError},
};

use aya::Ebpf;
use exporter_ebpf::{
    durations::Durations,
    facts::Facts,
    http::{Hijacked, HttpState, PanicKey, Panicked, Routed},
    key::{Family, MAX_WAITS, OfTarget as _, SeriesKey, SeriesState, Text, TextKey, target_of},
    loss::{LostKey, Reason},
    share::Table,
    span::Span,
    wait::{BlockedAt, BlockedAtKey, Parked, Stack, Task, WaitState, Window},
};

use super::{
    map::{Elements, Map, Usage},
    shares::Shares,
    targets::Targets,
};

/// The maps that user space reads and writes.
pub(crate) struct Maps {
    /// Measured processes.
    pub(crate) targets: Targets,
    /// What each target's instruments are told of it.
    pub(crate) facts: Elements<Facts>,
    /// What goroutines are in the middle of.
    pub(crate) in_flight: Map<u64, Span>,
    /// Those that found no room there.
    pub(crate) refused: Map<u64, u64>,
    /// Panicked requests.
    pub(crate) panics: Map<PanicKey, Panicked>,
    /// Hijacks on other goroutines than the request's.
    pub(crate) hijacks: Map<u64, Hijacked>,
    /// Requests that muxes were given.
    pub(crate) routed: Map<u64, Routed>,
    /// Counts and durations, of all families.
    pub(crate) series: Map<SeriesKey, Durations>,
    /// What the kernel side keeps of each target's series beside them.
    pub(crate) series_states: Elements<SeriesState>,
    /// Series' texts.
    pub(crate) texts: Map<TextKey, Text>,
    /// What the kernel side keeps of each target's requests beside.
    pub(crate) http_states: Elements<HttpState>,
    /// Kinds of events that were told and not looked at yet.
    pub(crate) pending: Elements<u32>,
    /// What the kernel side has lost.
    pub(crate) lost: Map<LostKey, u64>,
    /// What user space has: the kernel side adds to its own at any time, so that nobody else can.
    told: Mutex<collections::HashMap<LostKey, u64>>,
    /// When each target's parking goroutines are measured.
    pub(crate) windows: Elements<Window>,
    /// What the kernel side keeps of each target's waits beside their series.
    pub(crate) wait_states: Elements<WaitState>,
    /// Goroutines that wait or have waited.
    pub(crate) parked: Map<u64, Parked>,
    /// Threads of targets whose run queue is measured. To remove some: [`Self::forget_threads`].
    pub(crate) tasks: Map<u64, Task>,
    /// Waits that ended, by stack.
    pub(crate) blocked_at: Map<BlockedAtKey, BlockedAt>,
    /// Stacks, by id.
    pub(crate) stacks: Map<u32, Stack>,
    shares: Arc<Shares>,
}

impl Maps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, String> {
        let shares = Arc::new(Shares::take(ebpf)?);
        let tasks: Map<u64, Task> = Map::take(ebpf, "TASKS")?;
        shares.open(Table::Tasks, tasks.capacity())?;
        let series: Map<SeriesKey, Durations> = Map::take(ebpf, "SERIES")?;
        shares.open(Table::Series, series.capacity().saturating_sub(MAX_WAITS.into()))?;
        shares.open(Table::Waits, MAX_WAITS.into())?;
        let series = series.given_back(&shares, |key| (table_of(key), key.target()));
        Ok(Self {
            targets: Targets::take(ebpf)?,
            facts: Elements::take(ebpf, "FACTS")?,
            in_flight: Map::take(ebpf, "INFLIGHT")?
                .shared(&shares, Table::InFlight, |key| (Table::InFlight, target_of(*key)))?,
            refused: Map::take(ebpf, "REFUSED")?,
            panics: Map::take(ebpf, "PANICS")?
                .shared(&shares, Table::Panics, |key: &PanicKey| (Table::Panics, target_of(key.goroutine)))?,
            hijacks: Map::take(ebpf, "HIJACKS")?
                .shared(&shares, Table::Hijacks, |key| (Table::Hijacks, target_of(*key)))?,
            routed: Map::take(ebpf, "ROUTED")?,
            series,
            series_states: Elements::take(ebpf, "SERIES_STATES")?,
            texts: Map::take(ebpf, "TEXTS")?,
            http_states: Elements::take(ebpf, "HTTP_STATES")?,
            pending: Elements::take(ebpf, "PENDING")?,
            lost: Map::take(ebpf, "LOST")?,
            told: Mutex::default(),
            windows: Elements::take(ebpf, "WINDOWS")?,
            wait_states: Elements::take(ebpf, "WAIT_STATES")?,
            parked: Map::take(ebpf, "PARKED")?
                .shared(&shares, Table::Parked, |key| (Table::Parked, target_of(*key)))?,
            tasks,
            blocked_at: Map::take(ebpf, "BLOCKED_AT")?,
            stacks: Map::take(ebpf, "STACKS")?,
            shares,
        })
    }
}

impl Maps {
    /// Removes threads, each with the target that it was seen to be of.
    pub(crate) fn forget_threads(&self, threads: &[(u64, u32)]) {
        let removed = threads.iter().filter(|(address, _)| self.tasks.remove(address));
        self.shares.give_back(Table::Tasks, removed.map(|(_, target)| *target));
    }

    /// Whether a series is of those whose texts are a program's or the runtime's own, which no client can add to.
    pub(crate) fn is_bounded(key: &SeriesKey) -> bool {
        table_of(key) == Table::Waits
    }

    /// How full the map of series is, given how many entries were just seen: of series whose texts come from outside, and of the
    /// others, which have room of their own in it.
    pub(crate) fn series_usage(&self, entries: Option<(u64, u64)>) -> [Usage; 2] {
        let all = self.series.usage(None);
        let waits = u64::from(MAX_WAITS);
        let part = |map, entries, capacity: u64| {
            let bytes = all.bytes / all.capacity.max(1) * capacity;
            Usage { map, entries, capacity, bytes, failed_reads: all.failed_reads }
        };
        [
            part("SERIES", entries.map(|(open, _)| open), all.capacity.saturating_sub(waits)),
            part("WAITS", entries.map(|(_, bounded)| bounded), waits),
        ]
    }

    /// Adds to what a target lost.
    pub(crate) fn lose(&self, target: u32, reason: Reason, more: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let count = told.entry(LostKey { target, reason: reason as u32 }).or_default();
        *count = count.saturating_add(more);
    }

    /// What was lost, whoever tells.
    ///
    /// # Errors
    /// The kernel's map cannot be read.
    pub(crate) fn losses(&self) -> io::Result<collections::HashMap<LostKey, u64>> {
        let mut all =
            self.lost.read(|all: &mut collections::HashMap<_, _>, key, count| _ = all.insert(*key, *count))?;
        for (key, count) in &*self.told.lock().unwrap_or_else(PoisonError::into_inner) {
            *all.entry(*key).or_default() += count;
        }
        Ok(all)
    }

    /// Forgets what user space has told of these targets.
    pub(crate) fn forget_told(&self, targets: &HashSet<u32>) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| !targets.contains(&key.target));
    }
}

/// Of which table a series takes room. A family that is not known takes none of what others have.
fn table_of(key: &SeriesKey) -> Table {
    Family::of_number(key.family).map_or(Table::Waits, Family::table)
}
