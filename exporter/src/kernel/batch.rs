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

/// Calls `each` for every entry of a hash map. Each entry that is neither added nor removed meanwhile is seen exactly once
/// (the kernel walks bucket by bucket, each under its lock).
///
/// # Errors
/// `EINVAL` where the kernel has no batch look-up for hash maps (before 5.6); then nothing has been handed over.
pub(super) fn for_each<K: Pod, V: Pod>(map: BorrowedFd<'_>, mut each: impl FnMut(&K, &V)) -> io::Result<()> {
    let mut keys: Vec<MaybeUninit<K>> = Vec::with_capacity(CHUNK);
    let mut values: Vec<MaybeUninit<V>> = Vec::with_capacity(CHUNK);
    // The cursor is opaque: a u32 for hash maps, but no longer than a key for any.
    let mut cursor = [0_u8; 64];
    let mut started = false;
    let mut room = CHUNK;
    loop {
        keys.reserve(room);
        values.reserve(room);
        let at = cursor.as_mut_ptr() as u64;
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
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut attr, size_of::<BatchAttr>()) };
        let error = io::Error::last_os_error();
        let done = match (result, error.raw_os_error()) {
            (0, _) => false,
            // The end of the map; what was found so far is in the buffers.
            (_, Some(libc::ENOENT)) => true,
            // One bucket holds more than there is room for.
            (_, Some(libc::ENOSPC)) if room < 1 << 20 => {
                room *= 2;
                continue;
            }
            _ => return Err(error),
        };
        started = true;
        for i in 0..(attr.count as usize).min(room) {
            // SAFETY: the kernel has filled `count` entries of each buffer, and any bytes are a value of a Pod type.
            let (key, value) =
                unsafe { (keys.as_ptr().add(i).cast::<K>().read(), values.as_ptr().add(i).cast::<V>().read()) };
            each(&key, &value);
        }
        if done {
            return Ok(());
        }
    }
}
