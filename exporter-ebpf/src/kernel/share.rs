//! Shares of the maps in which all targets have entries, see [`exporter_ebpf::share`]. Knows nothing of what entries are.

use aya_ebpf::{macros::map, maps::Array};
use exporter_ebpf::share::{ALL, SLOTS, Table, slot};

use super::maps::add;

/// Entries that targets have taken, less those that the kernel side has removed, by [`slot`].
#[map]
static SHARES: Array<u64> = Array::with_max_entries(SLOTS, 0);

/// Entries that user space has removed, by [`slot`]; of all together, the map's size besides. Written by user space alone.
#[map]
static RETURNED: Array<u64> = Array::with_max_entries(SLOTS, 0);

/// Whether a target may have one more entry; then it is counted as having it. Threads that ask at one moment may go past a share by
/// as many as there are of them.
#[inline(never)]
fn take(table: Table, target: u32) -> bool {
    let (Some(mine), Some(all)) = (SHARES.get_ptr_mut(slot(table, target)), SHARES.get_ptr_mut(slot(table, ALL)))
    else {
        return false;
    };
    let (Some(returned), Some(all_returned)) = (RETURNED.get(slot(table, target)), RETURNED.get(slot(table, ALL)))
    else {
        return false;
    };
    // SAFETY: from look-ups just above; a word is read whole.
    let (held, room) = unsafe { ((*mine).wrapping_sub(*returned), all_returned.wrapping_sub(*all)) };
    // Both are off by a few while others count.
    let may = table.may_take((held as i64).max(0) as u64, (room as i64).max(0) as u64);
    if may {
        // SAFETY: from look-ups just above.
        unsafe {
            add(mine, 1);
            add(all, 1);
        }
    }
    may
}

/// Inserts an entry of a target that may have one more; whether it is there.
#[inline(always)]
pub(crate) fn insert(table: Table, target: u32, insert: impl FnOnce() -> bool) -> bool {
    if !take(table, target) {
        return false;
    }
    let inserted = insert();
    if !inserted {
        give_back(table, target);
    }
    inserted
}

/// An entry that the kernel side has removed.
#[inline(never)]
pub(crate) fn give_back(table: Table, target: u32) {
    for slot in [slot(table, target), slot(table, ALL)] {
        if let Some(count) = SHARES.get_ptr_mut(slot) {
            // SAFETY: from a look-up just above.
            unsafe { add(count, u64::MAX) };
        }
    }
}
