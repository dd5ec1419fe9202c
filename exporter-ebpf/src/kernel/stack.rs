//! Stacks of goroutines, by the frame pointers that Go keeps (amd64 from Go 1.7 on, arm64 from 1.12). Knows nothing of why a
//! stack is wanted.
//!
//! `bpf_get_stackid` would do it in one call, but it gathers the addresses in a buffer that belongs to the CPU. Linux 7.2 keeps
//! other threads away until the addresses are stored (kernel/bpf/stackmap.c: `scoped_guard(preempt)`); on older kernels a thread
//! that preempts this one replaces them by its own.

use exporter_ebpf::{
    loss::Reason,
    wait::{MAX_FRAMES, Stack, stack_hash, stack_id},
};

use super::{
    maps::{BPF_NOEXIST, lost},
    memory::read,
    regs::Regs,
    waits::STACKS,
};

/// What is put into the map before the addresses are: too much for a program's own stack.
static EMPTY: Stack = Stack::EMPTY;

/// The id in [`STACKS`] of the current goroutine's stack, at the beginning of a function; negative where it could not be kept.
#[inline(never)]
pub(super) fn stack(regs: &Regs<'_>, target: u32) -> i32 {
    let (place, frame) = regs.place();
    let caller = regs.caller();
    let hash = hash_of(place, caller, frame);
    let id = stack_id(hash);
    if STACKS.get_ptr(&id).is_none()
        && STACKS.insert(&id, &EMPTY, BPF_NOEXIST).is_ok()
        && let Some(stack) = STACKS.get_ptr_mut(&id)
    {
        // This thread added it, so no other writes it.
        // SAFETY: from a look-up just above.
        unsafe { fill(stack, hash, place, caller, frame) };
        return id as i32;
    }
    if let Some(stack) = STACKS.get_ptr(&id) {
        // SAFETY: from a look-up just above. A hash of 0 is one that another thread is about to write.
        let kept = unsafe { (*stack).hash };
        if kept == hash || kept == 0 {
            return id as i32;
        }
    }
    lost(target, Reason::StackLost);
    -1
}

/// Calls `each` with the index and the value of each address, from the inside out. Frame pointers come from the program and are
/// hostile: a walk ends at one that cannot be read, and after [`MAX_FRAMES`] at the latest.
#[inline(always)]
fn walk(place: u64, caller: u64, mut frame: u64, mut each: impl FnMut(usize, u64)) {
    each(0, place);
    let mut address = caller;
    let mut i = 1;
    while i < MAX_FRAMES {
        if address == 0 {
            return;
        }
        each(i, address);
        // A frame: the pointer to the next one out, and the address that its function returns to.
        let [next, back] = read::<[u64; 2]>(frame, 0).unwrap_or([0; 2]);
        frame = next;
        address = back;
        i += 1;
    }
}

/// The hash of a stack. Global and with plain numbers for arguments, so that the verifier checks it once, by itself, and does not
/// follow each way out of the loop through the caller.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn hash_of(place: u64, caller: u64, frame: u64) -> u64 {
    let mut hash = 0;
    walk(place, caller, frame, |_, address| hash = stack_hash(hash, address));
    hash
}

/// Writes the addresses, by a second walk: the stack is the same, since its thread is in this program.
///
/// # Safety
/// The stack was looked up in this run of the program, by the thread that has added it.
#[inline(never)]
unsafe fn fill(stack: *mut Stack, hash: u64, place: u64, caller: u64, frame: u64) {
    // SAFETY: as the caller says, and `walk` gives indices below MAX_FRAMES.
    unsafe {
        (*stack).hash = hash;
        let addresses = (&raw mut (*stack).addresses).cast::<u64>();
        walk(place, caller, frame, |i, address| *addresses.add(i) = address);
    }
}
