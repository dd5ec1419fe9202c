//! Reads the kernel's maps for the ledger, outside of every lock but a map's own. Knows nothing of what is made of them.

use std::{collections::HashMap, io, thread, time::Duration};

use exporter_ebpf::{
    durations::Durations,
    key::{Family, OfTarget as _, SeriesKey},
};

use super::{
    Agent,
    groups::{Group, GroupKey},
    hold::Guard,
    ledger::{InFlight, Kept, Ledger, Read, Rows, View},
};
use crate::kernel::Maps;

/// Time between two looks whether readings have ended: they take some milliseconds.
const PAUSE: Duration = Duration::from_millis(1);

/// A reading of the maps that is under way. Until it is dropped no target that was there when it began is forgotten, and no id of them
/// is given to another.
pub(super) struct UnderWay {
    agent: Agent,
    number: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.agent.ledger().end(self.number);
    }
}

/// A reading with what the ledger had when it began.
pub(super) struct Reading<'a> {
    agent: &'a Agent,
    _under_way: UnderWay,
    pub(super) view: View,
    /// How many sites each group of links had then.
    pub(super) sites: HashMap<GroupKey, usize>,
}

impl Agent {
    /// What is counted, for microseconds: no map is read while it is held. Whoever holds it may take the lock of the state, and not the
    /// other way round.
    #[track_caller]
    pub(super) fn ledger(&self) -> Guard<'_, Ledger> {
        self.inner.ledger.lock()
    }

    /// Begins a reading.
    pub(super) fn reading(&self) -> Reading<'_> {
        let (begun, sites) = {
            let mut ledger = self.ledger();
            // Under both locks: a target that is forgotten goes from both at one time.
            let state = self.state();
            let sites: Vec<_> = state.groups.iter().map(|(key, group)| (*key, Group::sites(group))).collect();
            (ledger.begin(state.targets.clone()), sites)
        };
        let under_way = UnderWay { agent: self.clone(), number: begun.number() };
        Reading { agent: self, _under_way: under_way, view: begun.view(), sites: sites.into_iter().collect() }
    }

    /// Begins a reading of entries of targets that the reader knows.
    pub(super) fn under_way(&self) -> UnderWay {
        let number = self.ledger().enter();
        UnderWay { agent: self.clone(), number }
    }

    /// Waits until all readings have ended that began before a retirement, see [`Ledger::is_quiet`].
    pub(super) fn wait_for_readings(&self, retirement: u64) {
        while !self.ledger().is_quiet(retirement) {
            thread::sleep(PAUSE);
        }
    }
}

impl Reading<'_> {
    /// Reads what is counted of all targets of the view.
    pub(super) fn read(&self) -> Read {
        let maps = self.agent.inner.kernel.maps();
        Read {
            series: self.rows(|_| true),
            in_flight: maps.in_flight.read(|seen: &mut InFlight, key, entry| {
                seen.add(&self.view.settled, *key, entry.start_ns, entry.open);
            }),
            lost: maps.losses(),
            kept: self.kept(|_| true),
        }
    }

    /// The series of some targets.
    ///
    /// # Errors
    /// The map of series cannot be read, or what is past a target's share of it.
    pub(super) fn rows(&self, of: impl Fn(u32) -> bool) -> io::Result<Rows> {
        let maps = self.agent.inner.kernel.maps();
        let mut rows = maps.series.read(|rows: &mut Rows, key: &SeriesKey, value: &Durations| {
            if of(key.target()) {
                rows.add(key, value, Maps::is_bounded(key));
            }
        })?;
        for id in self.view.targets.keys().copied().filter(|id| of(*id)) {
            let unreadable = || io::Error::other("a target's overflow series cannot be read");
            let state = maps.series_states.get(id).ok_or_else(unreadable)?;
            let overflow = Family::ALL.iter().map(|it| (SeriesKey::overflow(*it, id), state.overflow[*it as usize]));
            rows.series.extend(overflow.filter(|(_, value)| value.count() != 0));
        }
        // They are kept until the next.
        rows.series.shrink_to_fit();
        Ok(rows)
    }

    /// What the kernel side keeps besides of some targets.
    ///
    /// # Errors
    /// It cannot be read of one of them.
    pub(super) fn kept(&self, of: impl Fn(u32) -> bool) -> io::Result<Kept> {
        let states = &self.agent.inner.kernel.maps().wait_states;
        let unreadable = || io::Error::other("what the kernel side keeps of a target cannot be read");
        let ids = self.view.targets.keys().copied().filter(|id| of(*id));
        ids.map(|id| Ok((id, states.get(id).ok_or_else(unreadable)?))).collect()
    }
}
