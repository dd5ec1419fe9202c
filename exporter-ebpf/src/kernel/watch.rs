//! What the programs on waiting share: their maps, and who is watched.

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::map,
    maps::{Array, HashMap},
};
use exporter_ebpf::{
    feature::Feature,
    target::MAX_TARGETS,
    wait::{
        BlockedAt, BlockedAtKey, MAX_BLOCKED_AT, MAX_PARKED, MAX_STACKS, MAX_TASKS, Parked, Stack, Task, Watch,
        WatchState,
    },
};

/// Watched processes, by process id.
#[map]
pub(crate) static WATCHED: HashMap<u32, Watch> = HashMap::with_max_entries(MAX_TARGETS, 0);

/// What is kept of each, by target id.
#[map]
pub(crate) static WATCH_STATES: Array<WatchState> = Array::with_max_entries(MAX_TARGETS + 1, 0);

/// Goroutines that wait, or have waited.
#[map]
pub(crate) static PARKED: HashMap<u64, Parked> = HashMap::with_max_entries(MAX_PARKED, 0);

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
