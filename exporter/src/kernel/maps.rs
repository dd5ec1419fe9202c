//! Typed access to the maps.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Mutex, PoisonError},
};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, MapData, MapError},
};
use exporter_ebpf::{
    http::{HttpState, InFlight, PanicKey, Panicked, RouteKey, RouteText, SeriesKey, SeriesValue},
    loss::LostKey,
    wait::{BlockedAt, BlockedAtKey, Parked, Stack, Task, WaitKey, WaitValue, Watch, WatchState},
};
use tracing::warn;

use super::{batch, targets::Targets};

/// How full a map is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// The map's name.
    pub(crate) map: &'static str,
    /// Entries in it.
    pub(crate) entries: u64,
    /// Entries it can hold.
    pub(crate) capacity: u64,
    /// Bytes of kernel memory that its entries can take, all of them reserved at load (keys, values and the kernel's 48-byte
    /// element header, rounded to 8; plus 16 bytes a hash bucket).
    pub(crate) bytes: u64,
}

/// The maps that user space reads and writes.
pub(crate) struct Maps {
    /// Measured processes.
    pub(crate) targets: Targets,
    /// Requests in flight.
    pub(crate) in_flight: Map<u64, InFlight>,
    /// Goroutines whose request found no room.
    pub(crate) refused: Map<u64, u64>,
    /// Panicked requests.
    pub(crate) panics: Map<PanicKey, Panicked>,
    /// Counts and durations.
    pub(crate) series: Map<SeriesKey, SeriesValue>,
    /// Routes' texts.
    pub(crate) routes: Map<RouteKey, RouteText>,
    /// What the kernel side keeps of each target beside.
    pub(crate) http_states: Elements<HttpState>,
    /// Kinds of events that were told and not looked at yet.
    pub(crate) pending: Elements<u32>,
    /// What was lost.
    pub(crate) lost: Map<LostKey, u64>,
    /// Processes whose waits are measured.
    pub(crate) watched: Map<u32, Watch>,
    /// What the kernel side keeps of each.
    pub(crate) watch_states: Elements<WatchState>,
    /// Goroutines that wait or have waited.
    pub(crate) parked: Map<u64, Parked>,
    /// Waits that ended.
    pub(crate) waits: Map<WaitKey, WaitValue>,
    /// Threads of watched processes.
    pub(crate) tasks: Map<u64, Task>,
    /// Waits that ended, by stack.
    pub(crate) blocked_at: Map<BlockedAtKey, BlockedAt>,
    /// Stacks, by id.
    pub(crate) stacks: Map<u32, Stack>,
}

impl Maps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, String> {
        Ok(Self {
            targets: Targets::take(ebpf)?,
            in_flight: Map::take(ebpf, "INFLIGHT")?,
            refused: Map::take(ebpf, "REFUSED")?,
            panics: Map::take(ebpf, "PANICS")?,
            series: Map::take(ebpf, "SERIES")?,
            routes: Map::take(ebpf, "ROUTES")?,
            http_states: Elements::take(ebpf, "HTTP_STATES")?,
            pending: Elements::take(ebpf, "PENDING")?,
            lost: Map::take(ebpf, "LOST")?,
            watched: Map::take(ebpf, "WATCHED")?,
            watch_states: Elements::take(ebpf, "WATCH_STATES")?,
            parked: Map::take(ebpf, "PARKED")?,
            waits: Map::take(ebpf, "WAITS")?,
            tasks: Map::take(ebpf, "TASKS")?,
            blocked_at: Map::take(ebpf, "BLOCKED_AT")?,
            stacks: Map::take(ebpf, "STACKS")?,
        })
    }
}

/// A hash map of the kernel side.
pub(crate) struct Map<K: Pod, V: Pod> {
    name: &'static str,
    capacity: u64,
    /// For batches, which aya does not offer.
    fd: OwnedFd,
    inner: Mutex<HashMap<MapData, K, V>>,
}

impl<K: Pod, V: Pod> Map<K, V> {
    pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, String> {
        let Some(map) = ebpf.take_map(name) else {
            return Err(format!("hash map {name} is not in the object"));
        };
        let (aya::maps::Map::HashMap(data) | aya::maps::Map::LruHashMap(data)) = &map else {
            return Err(format!("map {name} is no hash map"));
        };
        let capacity = data.info().map_or(0, |info| u64::from(info.max_entries()));
        let fd = data.fd().as_fd().try_clone_to_owned().map_err(|error| format!("map {name}: {error}"))?;
        let map: HashMap<MapData, K, V> = map.try_into().map_err(|error: MapError| format!("map {name}: {error}"))?;
        Ok(Self { name, capacity, fd, inner: Mutex::new(map) })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<MapData, K, V>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an entry.
    pub(crate) fn insert(&self, key: &K, value: &V) -> Result<(), MapError> {
        self.lock().insert(key, value, 0)
    }

    /// Removes an entry; whether it was there. Of several removers one is told so.
    pub(crate) fn remove(&self, key: &K) -> bool {
        self.lock().remove(key).is_ok()
    }

    /// Reads an entry.
    pub(crate) fn get(&self, key: &K) -> Option<V> {
        self.lock().get(key, 0).ok()
    }

    /// Calls `each` for every entry: in batches, or one by one where the kernel has no batches.
    pub(crate) fn for_each(&self, mut each: impl FnMut(&K, &V)) {
        let map = self.lock();
        let result = batch::for_each(self.fd.as_fd(), &mut each);
        match result {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                for (key, value) in map.iter().flatten() {
                    each(&key, &value);
                }
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Removes every entry that `gone` names.
    pub(crate) fn retain(&self, mut keep: impl FnMut(&K) -> bool) {
        let mut gone = Vec::new();
        self.for_each(|key, _| {
            if !keep(key) {
                gone.push(*key);
            }
        });
        for key in gone {
            self.remove(&key);
        }
    }

    /// Entries it can hold.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// How full it is, given how many entries were just seen.
    pub(crate) fn usage(&self, entries: u64) -> Usage {
        let element = 48 + (size_of::<K>() as u64).next_multiple_of(8) + (size_of::<V>() as u64).next_multiple_of(8);
        let bytes = self.capacity * element + self.capacity.next_power_of_two() * 16;
        Usage { map: self.name, entries, capacity: self.capacity, bytes }
    }

    fn failed(&self, error: &io::Error) {
        warn!(map = self.name, %error, "cannot read a kernel map");
    }
}

/// An array of the kernel side, whose elements user space resets and reads.
pub(crate) struct Elements<V: Pod>(Mutex<Array<MapData, V>>);

impl<V: Pod> Elements<V> {
    fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, String> {
        let map = ebpf.take_map(name).ok_or_else(|| format!("array {name} is not in the object"))?;
        let array = map.try_into().map_err(|error: MapError| format!("map {name}: {error}"))?;
        Ok(Self(Mutex::new(array)))
    }

    /// Reads an element.
    pub(crate) fn get(&self, index: u32) -> Option<V> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&index, 0).ok()
    }

    /// Writes an element.
    pub(crate) fn set(&self, index: u32, value: &V) -> Result<(), MapError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).set(index, value, 0)
    }
}
