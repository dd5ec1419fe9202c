//! What the programs on waiting share: their maps, who is watched, and how a wait is counted.

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::map,
    maps::{Array, HashMap},
};
use exporter_ebpf::{
    feature::Feature,
    loss::Reason,
    target::MAX_TARGETS,
    wait::{
        BUCKETS, BlockedAt, BlockedAtKey, MAX_BLOCKED_AT, MAX_PARKED, MAX_STACKS, MAX_TASKS, MAX_WAITS, Parked, Stack,
        Task, WaitKey, WaitValue, Watch, WatchState, bucket,
    },
};

use super::maps::{BPF_NOEXIST, add, add_time, lost};

/// Watched processes, by process id.
#[map]
pub(crate) static WATCHED: HashMap<u32, Watch> = HashMap::with_max_entries(MAX_TARGETS, 0);

/// What is kept of each, by target id.
#[map]
pub(crate) static WATCH_STATES: Array<WatchState> = Array::with_max_entries(MAX_TARGETS + 1, 0);

/// Goroutines that wait, or have waited.
#[map]
pub(crate) static PARKED: HashMap<u64, Parked> = HashMap::with_max_entries(MAX_PARKED, 0);

/// Waits that ended.
#[map]
pub(crate) static WAITS: HashMap<WaitKey, WaitValue> = HashMap::with_max_entries(MAX_WAITS, 0);

/// Threads of watched processes.
#[map]
pub(crate) static TASKS: HashMap<u64, Task> = HashMap::with_max_entries(MAX_TASKS, 0);

/// Stacks of goroutines that block, while somebody asks for them.
#[map]
pub(crate) static STACKS: HashMap<u32, Stack> = HashMap::with_max_entries(MAX_STACKS, 0);

/// Waits that ended, by stack.
#[map]
pub(crate) static BLOCKED_AT: HashMap<BlockedAtKey, BlockedAt> = HashMap::with_max_entries(MAX_BLOCKED_AT, 0);

/// What user space wants of the current process, if it asks for this feature, and what is kept of it.
#[inline(always)]
pub(crate) fn watched(feature: Feature) -> Option<(&'static Watch, *mut WatchState)> {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // SAFETY: user space replaces a value only to change what is on, or the window of time; a torn read of those is a wait more or
    // less at the window's edge. The target's id never changes for a process.
    let watch = unsafe { WATCHED.get(&pid) }?;
    if watch.on & feature.bit() == 0 {
        return None;
    }
    Some((watch, WATCH_STATES.get_ptr_mut(watch.target)?))
}

/// Counts one wait.
#[inline(always)]
pub(crate) fn waited(target: u32, kind: u16, reason: u16, duration_ns: u64) {
    let key = WaitKey { target, kind, reason };
    match WAITS.get_ptr_mut(&key) {
        Some(value) => record(value, duration_ns),
        None => first(&key, duration_ns),
    }
}

#[inline(always)]
fn record(value: *mut WaitValue, duration_ns: u64) {
    let index = bucket(duration_ns);
    // SAFETY: from a map look-up; the comparison shows the verifier that the index is inside.
    unsafe {
        if index < BUCKETS {
            add((&raw mut (*value).buckets).cast::<u64>().add(index), 1);
        }
        add_time(&raw mut (*value).sum_ns, duration_ns);
    }
}

#[inline(never)]
fn first(key: &WaitKey, duration_ns: u64) {
    let _ = WAITS.insert(key, &WaitValue::ZERO, BPF_NOEXIST);
    match WAITS.get_ptr_mut(key) {
        Some(value) => record(value, duration_ns),
        None => lost(key.target, Reason::WaitsFull),
    }
}
