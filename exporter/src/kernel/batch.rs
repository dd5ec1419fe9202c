//! Reading a whole hash map in few system calls. aya has no batch look-up, so this module speaks to `bpf(2)` itself: one of
//! the places where `unsafe` is allowed.
#![allow(unsafe_code)]

use std::{
    io,
    mem::{MaybeUninit, size_of},
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya::Pod;

const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
/// Entries asked for at once: 256 series are 48 KiB.
const CHUNK: usize = 256;
/// Entries asked for at most: no bucket is as full.
const MOST: usize = 1 << 20;

/// The `batch` member of `union bpf_attr` (include/uapi/linux/bpf.h, 5.6 on).
#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The opaque place of a walk: a u32 for hash maps, but no longer than a key for any.
type Cursor = [u8; 64];

/// What one look-up gave.
struct Found {
    /// Entries in the buffers.
    count: usize,
    /// The map has no more.
    last: bool,
}

/// Calls `each` for every entry of a hash map. Each entry that is neither added nor removed meanwhile is seen exactly once
/// (the kernel walks bucket by bucket, each under its lock).
///
/// # Errors
/// The kernel's: what was handed over by then is a part of the map.
pub(super) fn for_each<K: Pod, V: Pod>(map: BorrowedFd<'_>, each: impl FnMut(&K, &V)) -> io::Result<()> {
    walk(|cursor, started, keys, values| look_up(map, cursor, started, keys, values), each)
}

/// Looks up the entries behind the cursor, as many as there is room for, and moves it.
fn look_up<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    cursor: &mut Cursor,
    started: bool,
    keys: &mut [MaybeUninit<K>],
    values: &mut [MaybeUninit<V>],
) -> io::Result<Found> {
    let at = cursor.as_mut_ptr() as u64;
    let room = keys.len().min(values.len());
    let mut attr = BatchAttr {
        in_batch: if started { at } else { 0 },
        out_batch: at,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: room as u32,
        map_fd: map.as_raw_fd() as u32,
        ..BatchAttr::default()
    };
    // SAFETY: the attribute is of the kernel's layout and names buffers with room for `count` keys and values.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut attr, size_of::<BatchAttr>()) };
    let error = io::Error::last_os_error();
    let last = match (result, error.raw_os_error()) {
        (0, _) => false,
        // The end of the map; what was found so far is in the buffers.
        (_, Some(libc::ENOENT)) => true,
        _ => return Err(error),
    };
    Ok(Found { count: (attr.count as usize).min(room), last })
}

/// Goes over a map by look-ups, each of which fills the first `count` places of its buffers.
fn walk<K: Pod, V: Pod>(
    mut look_up: impl FnMut(&mut Cursor, bool, &mut [MaybeUninit<K>], &mut [MaybeUninit<V>]) -> io::Result<Found>,
    mut each: impl FnMut(&K, &V),
) -> io::Result<()> {
    let mut cursor = [0; 64];
    let mut started = false;
    let mut room = CHUNK;
    // Of zeros: any bytes are a value of a Pod type, so that not even a wrong count could show what was never written.
    let mut keys: Vec<MaybeUninit<K>> = Vec::new();
    let mut values: Vec<MaybeUninit<V>> = Vec::new();
    loop {
        keys.resize_with(room, MaybeUninit::zeroed);
        values.resize_with(room, MaybeUninit::zeroed);
        let found = match look_up(&mut cursor, started, &mut keys, &mut values) {
            Ok(found) => found,
            // One bucket holds more than there is room for.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && room < MOST => {
                room *= 2;
                continue;
            }
            Err(error) => return Err(error),
        };
        started = true;
        for (key, value) in keys.iter().zip(&values).take(found.count) {
            // SAFETY: initialised above, and any bytes are a value of a Pod type.
            unsafe { each(key.assume_init_ref(), value.assume_init_ref()) };
        }
        if found.last {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Numbers = [MaybeUninit<u64>];

    /// A kernel that hands over so many numbers with their squares, and what it says when asked for more than it likes.
    fn numbers(
        all: u64,
        mut odd: impl FnMut(u64, usize) -> Option<i32>,
    ) -> impl FnMut(&mut Cursor, bool, &mut Numbers, &mut Numbers) -> io::Result<Found> {
        move |cursor, started, keys, values| {
            let from = if started { u64::from_ne_bytes(*cursor.first_chunk().unwrap()) } else { 0 };
            if let Some(error) = odd(from, keys.len()) {
                return Err(io::Error::from_raw_os_error(error));
            }
            let until = all.min(from + keys.len() as u64);
            for (i, number) in (from..until).enumerate() {
                keys[i].write(number);
                values[i].write(number * number);
            }
            *cursor.first_chunk_mut().unwrap() = until.to_ne_bytes();
            Ok(Found { count: (until - from) as usize, last: until == all })
        }
    }

    #[test]
    fn every_entry_is_seen_once_and_a_full_bucket_gets_more_room() {
        let mut seen = Vec::new();
        walk(numbers(1000, |_, room| (room < 2 * CHUNK).then_some(libc::ENOSPC)), |key, value| {
            assert_eq!(key * key, *value);
            seen.push(*key);
        })
        .unwrap();
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn a_read_that_fails_in_the_middle_is_an_error_whatever_the_error_is() {
        for error in [libc::EFAULT, libc::ENOMEM, libc::EINVAL, libc::ENOSPC] {
            let mut seen = 0;
            let result = walk(numbers(1000, |from, _| (from >= 512).then_some(error)), |_, _| seen += 1);
            assert_eq!(result.unwrap_err().raw_os_error(), Some(error));
            assert_eq!(seen, 512, "what was handed over is a part");
        }
    }
}
