//! User space's side of the shares that targets have of common maps, see [`exporter_ebpf::share`]: it counts what user space
//! removes. The kernel side counts the rest.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use aya::Ebpf;
use exporter_ebpf::share::{ALL, Table, slot};

use super::map::Elements;

/// The array `RETURNED`: what was removed, by element.
pub(super) struct Shares {
    array: Elements<u64>,
    counts: Mutex<HashMap<u32, u64>>,
}

impl Shares {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, String> {
        Ok(Self { array: Elements::take(ebpf, "RETURNED")?, counts: Mutex::default() })
    }

    /// Says how many entries fit into a table. Before that it takes none.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn open(&self, table: Table, capacity: u64) -> Result<(), String> {
        self.add(slot(table, ALL), capacity).map_err(|error| format!("array RETURNED: {error}"))
    }

    /// Entries of these targets were removed: an id for each.
    pub(super) fn give_back(&self, table: Table, targets: impl IntoIterator<Item = u32>) {
        let mut of: HashMap<u32, u64> = HashMap::new();
        for target in targets {
            *of.entry(target).or_default() += 1;
        }
        let all = of.values().sum::<u64>();
        of.insert(ALL, all);
        for (target, count) in of.into_iter().filter(|(_, count)| *count > 0) {
            // Should it fail, the target has that much less from here on; the next time says all of it again.
            let _ = self.add(slot(table, target), count);
        }
    }

    fn add(&self, slot: u32, more: u64) -> Result<(), aya::maps::MapError> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(slot).or_default();
        *count += more;
        self.array.set(slot, count)
    }
}
