//! Keys and values of the maps behind goroutine blocking, stops of the world and waits in the run queue.

/// Most goroutines over all targets that have been blocked under probes (the default of the `PARKED` map).
pub const MAX_PARKED: u32 = 131_072;
/// Most threads over all targets whose run queue latency is measured (the size of the `TASKS` map).
pub const MAX_TASKS: u32 = 32_768;
/// Most distinct stacks at one time (the size of the `STACKS` map).
pub const MAX_STACKS: u32 = 4_096;
/// Frames of a stack at most; those further out are left away.
pub const MAX_FRAMES: usize = 127;
/// Most pairs of stack and wait reason at one time (the size of the `BLOCKED_AT` map).
pub const MAX_BLOCKED_AT: u32 = 8_192;

/// Element of the `WINDOWS` array, by target id: when goroutines that park are measured. Written by user space alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Goroutines that park from here on are measured, `CLOCK_MONOTONIC` nanoseconds.
    pub from_ns: u64,
    /// Those that park from here on are not.
    pub until_ns: u64,
    /// Of those that park from here on stacks are taken, and counted when the wait ends; `u64::MAX`: of none.
    pub stacks_from_ns: u64,
}

impl Window {
    /// None is open.
    pub const CLOSED: Self = Self { from_ns: u64::MAX, until_ns: u64::MAX, stacks_from_ns: u64::MAX };
}

/// Element of the `WAIT_STATES` array, by target id: what the kernel side keeps of a target's waits beside their series.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitState {
    /// Hits at `gopark`.
    pub parks: u64,
    /// Hits at `execute`.
    pub runs: u64,
    /// Hits of the stop-the-world probes.
    pub stops: u64,
    /// Runs of the scheduler's tracepoints that had to do with it.
    pub switches: u64,
    /// Threads that lost their CPU while they could run.
    pub involuntary: u64,
    /// When the stop-the-world pause under way began, by the target's `nanotime`; 0 if there is none. Only one goroutine can
    /// stop the world (runtime/proc.go: worldsema).
    pub stop_ns: u64,
    /// Why.
    pub stop_reason: u32,
    /// Stacks taken at `gopark`, modulo 2^32: with it a target's state stays the 64 bytes of a cache line.
    pub stacks: u32,
    /// Goroutines of it in `PARKED`, blocked or not.
    pub parked: u64,
}

/// Value of `PARKED`, keyed by [`crate::key::address_key`]. An entry stays for the goroutine's next wait.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked {
    /// When it parked, `CLOCK_MONOTONIC` nanoseconds; 0 while it runs.
    pub start_ns: u64,
    /// Why: the runtime's number.
    pub reason: u32,
    /// The id of its stack; negative where none was taken.
    pub stack: i32,
}

/// Value of `TASKS`, keyed by the address of the kernel's `task_struct`, which is used for nothing but telling threads apart.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Since when it could run without running, `CLOCK_MONOTONIC` nanoseconds; 0 while it runs or sleeps.
    pub runnable_ns: u64,
    /// The target's id.
    pub target: u32,
    /// Always zero.
    pub reserved: u32,
}

/// Value of `STACKS`, keyed by [`stack_id`] of its hash.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stack {
    /// [`stack_hash`] of its addresses; 0 until the thread that adds the stack has begun to write it.
    pub hash: u64,
    /// Where the goroutine is, then the return addresses from the inside out; 0 behind the last.
    pub addresses: [u64; MAX_FRAMES],
}

impl Stack {
    /// None yet.
    pub const EMPTY: Self = Self { hash: 0, addresses: [0; MAX_FRAMES] };
}

/// The hash of a stack's addresses up to this one, given that of those before it (0 before the first).
#[inline(always)]
pub fn stack_hash(before: u64, address: u64) -> u64 {
    // Never 0, which stands for no stack yet.
    ((before ^ address).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (before >> 29)) | 1
}

/// The id of a stack by its hash: the upper bits, and never negative as an `i32`.
#[inline(always)]
pub fn stack_id(hash: u64) -> u32 {
    (hash >> 33) as u32
}

/// Key of `BLOCKED_AT`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockedAtKey {
    /// The target's id.
    pub target: u32,
    /// The stack's id in `STACKS`.
    pub stack: u32,
    /// The runtime's number for why.
    pub reason: u32,
    /// Always zero.
    pub reserved: u32,
}

/// Value of `BLOCKED_AT`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockedAt {
    /// Waits that ended.
    pub count: u64,
    /// How long they were, nanoseconds; see [`crate::durations::grows`].
    pub sum_ns: u64,
}

const _: () = assert!(
    size_of::<Window>() == 24
        && size_of::<Parked>() == 16
        && size_of::<Task>() == 16
        && size_of::<WaitState>() == 64
        && size_of::<BlockedAtKey>() == 16
        && size_of::<Stack>() == 1024
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_that_differ_anywhere_have_other_hashes() {
        let hash = |addresses: &[u64]| addresses.iter().fold(0, |hash, &address| stack_hash(hash, address));
        let mut hashes = std::collections::BTreeSet::new();
        let mut ids = std::collections::BTreeSet::new();
        let mut stacks = 0;
        for leaf in 0..64_u64 {
            for middle in 0..64_u64 {
                let inner = [0x46_0000 + leaf * 5, 0x47_0000 + middle * 5, 0x48_0000];
                for stack in [&inner[..], &inner[..2], &[inner[1], inner[0], inner[2]]] {
                    stacks += 1;
                    hashes.insert(hash(stack));
                    ids.insert(stack_id(hash(stack)));
                }
            }
        }
        assert_eq!(hashes.len(), stacks);
        // Of 12,288 stacks in 2^31 ids, 0.04 pairs share one.
        assert!(ids.len() + 2 >= stacks, "{} ids of {stacks} stacks", ids.len());
        assert!(ids.iter().all(|&id| i32::try_from(id).is_ok()));
        assert_ne!(hash(&[0]), 0);
    }
}
