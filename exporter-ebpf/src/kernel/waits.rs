//! What the programs on waiting share: their maps, and whose waits are measured.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap},
};
use exporter_ebpf::{
    feature::Feature,
    target::{MAX_TARGETS, TargetConfig},
    wait::{
        BlockedAt, BlockedAtKey, MAX_BLOCKED_AT, MAX_PARKED, MAX_STACKS, MAX_TASKS, Parked, Stack, Task, WaitState,
        Window,
    },
};

use super::hit::measured;

/// When goroutines that park are measured, by target id.
#[map]
pub(crate) static WINDOWS: Array<Window> = Array::with_max_entries(MAX_TARGETS + 1, 0);

/// What is kept of each target's waits, by its id.
#[map]
pub(crate) static WAIT_STATES: Array<WaitState> = Array::with_max_entries(MAX_TARGETS + 1, 0);

/// Goroutines that wait, or have waited.
#[map]
pub(crate) static PARKED: HashMap<u64, Parked> = HashMap::with_max_entries(MAX_PARKED, 0);

/// Threads of targets whose run queue is measured.
#[map]
pub(crate) static TASKS: HashMap<u64, Task> = HashMap::with_max_entries(MAX_TASKS, 0);

/// Stacks of goroutines that block, while somebody asks for them.
#[map]
pub(crate) static STACKS: HashMap<u32, Stack> = HashMap::with_max_entries(MAX_STACKS, 0);

/// Waits that ended, by stack.
#[map]
pub(crate) static BLOCKED_AT: HashMap<BlockedAtKey, BlockedAt> = HashMap::with_max_entries(MAX_BLOCKED_AT, 0);

/// The current process, if it is a target whose waits of this kind are measured, and what is kept of them.
#[inline(always)]
pub(crate) fn waiting(feature: Feature) -> Option<(&'static TargetConfig, *mut WaitState)> {
    let target = measured(feature)?;
    Some((target, WAIT_STATES.get_ptr_mut(target.id)?))
}
