//! Shares of the maps in which all targets have entries. A target may have a multiple of what is free, so that however many
//! programs fill a map, there is room for those that have little in it (the dynamic thresholds of shared buffers: A. K. Choudhury
//! and E. L. Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998). Knows nothing of what entries are.

use crate::target::MAX_TARGETS;

/// A map in which all targets have entries.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// `INFLIGHT`.
    InFlight = 0,
    /// `PANICS`.
    Panics = 1,
    /// `HIJACKS`.
    Hijacks = 2,
    /// `SERIES`, those series whose texts come from outside.
    Series = 3,
    /// `PARKED`.
    Parked = 4,
    /// `TASKS`.
    Tasks = 5,
    /// `SERIES`, the others.
    Waits = 6,
}

/// How many there are.
pub const TABLES: u32 = 7;

/// In place of a target's id: the counts of all targets together.
pub const ALL: u32 = MAX_TARGETS + 1;

/// Elements of `SHARES` and of `RETURNED`: one for each table and target, 0 among them, which calibration uses.
pub const SLOTS: u32 = TABLES * (ALL + 1);

/// The element of a table and a target.
#[inline(always)]
pub const fn slot(table: Table, target: u32) -> u32 {
    table as u32 * (ALL + 1) + target
}

/// Whether who has `held` of something may have one more where `room` more can be had: four fifths, where nobody else has any. Past it
/// something is not measured.
#[inline(always)]
pub const fn may_take(held: u64, room: u64) -> bool {
    held < room * 4
}

impl Table {
    /// Whether a target that has `held` entries may have one more where `room` more fit in.
    #[inline(always)]
    pub const fn may_take(self, held: u64, room: u64) -> bool {
        match self {
            // A program alone takes a quarter of the map, or all of a small one. Past it labels suffer, and no count.
            Self::Series => room > 0 && (held < 256 || held * 3 < room),
            _ => may_take(held, room),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What programs get of a map that each wants to have for itself, taking in turns.
    fn shares(table: Table, capacity: u64, programs: usize) -> Vec<u64> {
        let mut held = vec![0; programs];
        loop {
            let before: u64 = held.iter().sum();
            let mut room = capacity - before;
            for mine in &mut held {
                if table.may_take(*mine, room) {
                    *mine += 1;
                    room -= 1;
                }
            }
            if room == capacity - before {
                return held;
            }
        }
    }

    #[test]
    fn there_is_room_for_others_however_many_want_all() {
        assert_eq!(shares(Table::InFlight, 65_536, 1), [52_429]);
        assert_eq!(shares(Table::Series, 16_384, 1), [4096]);
        for programs in [2, 10, 100] {
            let held: u64 = shares(Table::InFlight, 65_536, programs).iter().sum();
            let free = 65_536 - held;
            assert!(free >= 65_536 / (4 * programs as u64 + 2), "{programs}: {free}");
            assert!(Table::InFlight.may_take(free, free), "one with little in it is let in");
        }
    }

    #[test]
    fn a_small_map_of_series_can_be_one_program_s() {
        assert!(Table::Series.may_take(15, 1));
        assert!(Table::Series.may_take(255, 1) && !Table::Series.may_take(256, 768));
    }

    #[test]
    fn a_full_map_has_room_for_nobody() {
        assert!(!Table::InFlight.may_take(0, 0) && !Table::Tasks.may_take(1, 0));
        // Its map has room for others' entries then.
        assert!(!Table::Series.may_take(0, 0) && !Table::Waits.may_take(0, 0));
    }

    #[test]
    fn each_table_and_target_has_an_element_of_its_own() {
        let tables =
            [Table::InFlight, Table::Panics, Table::Hijacks, Table::Series, Table::Parked, Table::Tasks, Table::Waits];
        assert_eq!(tables.len() as u32, TABLES);
        let slots: std::collections::BTreeSet<_> =
            tables.iter().flat_map(|table| (0..=ALL).map(|target| slot(*table, target))).collect();
        assert!(slots.into_iter().eq(0..SLOTS));
    }
}
