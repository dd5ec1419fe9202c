//! The processes that the kernel side measures: a hash map that has them all, and an array in front of it for most of them.
//! Knows nothing of what a target is.

use std::sync::{Mutex, PoisonError};

use aya::{
    Ebpf,
    maps::{Array, MapData, MapError},
};
use exporter_ebpf::target::{TARGET_SLOTS, TargetConfig, target_slot};
use tracing::warn;

use super::map::{Map, Usage};

/// Bytes that the kernel takes for the array.
const SLOT_BYTES: u64 = TARGET_SLOTS as u64 * (size_of::<TargetConfig>() as u64).next_multiple_of(8);

/// The maps `TARGETS` and `TARGET_SLOTS`.
pub(crate) struct Targets {
    all: Map<u32, TargetConfig>,
    slots: Mutex<Array<MapData, TargetConfig>>,
}

impl Targets {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, String> {
        let all = Map::take(ebpf, "TARGETS")?;
        let slots = ebpf.take_map("TARGET_SLOTS").ok_or("array TARGET_SLOTS is not in the object")?;
        let slots = Array::try_from(slots).map_err(|error| format!("map TARGET_SLOTS: {error}"))?;
        Ok(Self { all, slots: Mutex::new(slots) })
    }

    /// Measures a process from here on. Its slot is taken if it is free; otherwise its probes look in the hash map.
    pub(crate) fn insert(&self, config: &TargetConfig) -> Result<(), MapError> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        self.all.insert(&config.pid, config)?;
        let slot = target_slot(config.pid);
        let owner = slots.get(&slot, 0)?.pid;
        if owner != 0 && owner != config.pid {
            return Ok(());
        }
        // An array's value is not replaced at one moment: the process's id is what makes a slot count, so it comes last.
        slots.set(slot, &TargetConfig { pid: 0, ..*config }, 0)?;
        slots.set(slot, config, 0)?;
        // The process may have called `execve` meanwhile: the kernel side removes its entry first and then clears its slot,
        // so that of the two sides at least one sees what the other did.
        if self.all.get(&config.pid).is_none() {
            slots.set(slot, &TargetConfig { pid: 0, ..*config }, 0)?;
        }
        Ok(())
    }

    /// What the kernel side knows of a process.
    pub(crate) fn get(&self, pid: u32) -> Option<TargetConfig> {
        self.all.get(&pid)
    }

    /// Measures a process no longer.
    pub(crate) fn remove(&self, pid: u32) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        self.all.remove(&pid);
        let slot = target_slot(pid);
        let cleared = slots.get(&slot, 0).and_then(|config| {
            if config.pid == pid { slots.set(slot, &TargetConfig { pid: 0, ..config }, 0) } else { Ok(()) }
        });
        if let Err(error) = cleared {
            warn!(pid, %error, "cannot clear a slot of the measured processes");
        }
    }

    /// How full the hash map is, given how many entries it has.
    pub(crate) fn usage(&self, entries: u64) -> Usage {
        let usage = self.all.usage(Some(entries));
        Usage { bytes: usage.bytes + SLOT_BYTES, ..usage }
    }
}
