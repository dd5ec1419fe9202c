//! One map of the kernel side: entries and elements by their types, read as a whole or not at all. Knows nothing of what they are.

use std::{
    collections, io,
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, MapData, MapError},
};
use exporter_ebpf::share::Table;
use tracing::warn;

use super::{batch, shares::Shares};

/// How full a map is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// The map's name.
    pub(crate) map: &'static str,
    /// Entries in it; none where it could not be read.
    pub(crate) entries: Option<u64>,
    /// Entries it can hold.
    pub(crate) capacity: u64,
    /// Bytes of kernel memory that its entries can take, all of them reserved at load (keys, values and the kernel's 48-byte
    /// element header, rounded to 8; plus 16 bytes a hash bucket).
    pub(crate) bytes: u64,
    /// Reads of it that failed.
    pub(crate) failed_reads: u64,
}

/// A hash map of the kernel side.
pub(crate) struct Map<K: Pod, V: Pod> {
    name: &'static str,
    capacity: u64,
    /// For batches, which aya does not offer.
    fd: OwnedFd,
    failed_reads: AtomicU64,
    inner: Mutex<HashMap<MapData, K, V>>,
    share: Option<Share<K>>,
}

/// That targets share a map: of which table an entry takes room, and whose it is.
struct Share<K> {
    shares: Arc<Shares>,
    of: fn(&K) -> (Table, u32),
}

impl<K> Share<K> {
    /// These entries are there no more.
    fn give_back(&self, removed: impl Iterator<Item = K>) {
        let mut of: collections::HashMap<u32, (Table, Vec<u32>)> = collections::HashMap::new();
        for key in removed {
            let (table, target) = (self.of)(&key);
            of.entry(table as u32).or_insert((table, Vec::new())).1.push(target);
        }
        for (table, targets) in of.into_values() {
            self.shares.give_back(table, targets);
        }
    }
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
        Ok(Self { name, capacity, fd, failed_reads: AtomicU64::new(0), inner: Mutex::new(map), share: None })
    }

    /// The same map, of which targets have shares by this table.
    pub(super) fn shared(self, shares: &Arc<Shares>, table: Table, of: fn(&K) -> (Table, u32)) -> Result<Self, String> {
        shares.open(table, self.capacity)?;
        Ok(self.given_back(shares, of))
    }

    /// The same map, where whatever user space removes is given back to the table and the target that `of` names.
    pub(super) fn given_back(self, shares: &Arc<Shares>, of: fn(&K) -> (Table, u32)) -> Self {
        Self { share: Some(Share { shares: shares.clone(), of }), ..self }
    }

    /// Removes these entries, and gives back those that were there.
    fn remove_each(&self, keys: impl Iterator<Item = K>) {
        let removed = keys.filter(|key| self.lock().remove(key).is_ok());
        match &self.share {
            Some(share) => share.give_back(removed),
            None => removed.for_each(drop),
        }
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
        let removed = self.lock().remove(key).is_ok();
        if removed && let Some(share) = &self.share {
            share.give_back(std::iter::once(*key));
        }
        removed
    }

    /// Reads an entry.
    pub(crate) fn get(&self, key: &K) -> Option<V> {
        self.lock().get(key, 0).ok()
    }

    /// Makes something of all entries: of every one that is neither added nor removed meanwhile, once.
    ///
    /// # Errors
    /// The kernel's. What a part of the entries gave is dropped: it must not be taken for all.
    pub(crate) fn read<T: Default>(&self, mut each: impl FnMut(&mut T, &K, &V)) -> io::Result<T> {
        let _one_at_a_time = self.lock();
        let mut all = T::default();
        match batch::for_each(self.fd.as_fd(), |key, value| each(&mut all, key, value)) {
            Ok(()) => Ok(all),
            Err(error) => {
                self.failed_reads.fetch_add(1, Ordering::Relaxed);
                warn!(map = self.name, %error, "cannot read a kernel map");
                Err(error)
            }
        }
    }

    /// The keys of some entries.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn keys(&self, which: impl Fn(&K) -> bool) -> io::Result<Vec<K>> {
        self.read(|keys: &mut Vec<K>, key, _| {
            if which(key) {
                keys.push(*key);
            }
        })
    }

    /// Removes entries.
    pub(crate) fn remove_all<'k>(&self, keys: impl IntoIterator<Item = &'k K>)
    where
        K: 'k,
    {
        self.remove_each(keys.into_iter().copied());
    }

    /// Removes those entries whose value is `still` so.
    pub(crate) fn remove_where(&self, keys: impl IntoIterator<Item = K>, still: impl Fn(&K, &V) -> bool) {
        let is_still = |key: &K| self.get(key).is_some_and(|value| still(key, &value));
        self.remove_each(keys.into_iter().filter(is_still));
    }

    /// Entries it can hold.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// How full it is, given how many entries were just seen, if they could be read.
    pub(crate) fn usage(&self, entries: Option<u64>) -> Usage {
        let element = 48 + (size_of::<K>() as u64).next_multiple_of(8) + (size_of::<V>() as u64).next_multiple_of(8);
        let bytes = self.capacity * element + self.capacity.next_power_of_two() * 16;
        let failed_reads = self.failed_reads.load(Ordering::Relaxed);
        Usage { map: self.name, entries, capacity: self.capacity, bytes, failed_reads }
    }
}

/// An array of the kernel side, whose elements user space resets and reads.
pub(crate) struct Elements<V: Pod>(Mutex<Array<MapData, V>>);

impl<V: Pod> Elements<V> {
    pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, String> {
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

    /// Changes an element to what `to` makes of it; whether it has. Of several who do, each sees what the one before has written.
    pub(crate) fn change(&self, index: u32, to: impl FnOnce(V) -> V) -> bool {
        let mut array = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        array.get(&index, 0).and_then(|old| array.set(index, &to(old), 0)).is_ok()
    }
}
