//! Goroutines that block: one probe where each parks itself, one where the scheduler runs one again. `runtime.casgstatus`,
//! which sees every change of state, is left alone: it is hit 6 to 11 times for an HTTP request.

use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::ProbeContext};
use exporter_ebpf::{
    feature::Feature,
    key::address_key,
    loss::Reason,
    share::Table,
    wait::{BlockedAt, BlockedAtKey, Parked},
};

use super::{
    maps::{BPF_NOEXIST, add, add_one, add_time, lost},
    regs::Regs,
    series::{BLOCKING, observe},
    share,
    stack::stack,
    waits::{BLOCKED_AT, PARKED, WINDOWS, waiting},
};

/// `runtime.gopark(unlockf, lock, reason, ...)`, on the goroutine that parks: reason is RCX.
#[inline(always)]
pub(super) fn go_park(ctx: &ProbeContext) {
    let Some((target, state)) = waiting(Feature::Blocking) else { return };
    // SAFETY: from a map look-up; the same for the other counters here.
    unsafe { add(&raw mut (*state).parks, 1) };
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(window) = WINDOWS.get(target.id) else { return };
    if now < window.from_ns || now >= window.until_ns {
        return;
    }
    let regs = Regs::of(ctx);
    let mut parked = Parked { start_ns: now, reason: u32::from(regs.arg(2) as u8), stack: -1 };
    if now >= window.stacks_from_ns {
        parked.stack = stack(&regs, target.id);
        // SAFETY: as above.
        unsafe { add_one(&raw mut (*state).stacks) };
    }
    let key = address_key(target.id, regs.g());
    if let Some(entry) = PARKED.get_ptr_mut(&key) {
        // SAFETY: from a map look-up. A goroutine parks and runs in turns, and the scheduler orders the two.
        unsafe { *entry = parked };
        return;
    }
    if share::insert(Table::Parked, target.id, || PARKED.insert(&key, &parked, BPF_NOEXIST).is_ok()) {
        // SAFETY: as above.
        unsafe { add(&raw mut (*state).parked, 1) };
    } else {
        lost(target.id, Reason::ParkedFull);
    }
}

/// `runtime.execute(gp, ...)`, on g0: gp is RAX. It does not return: it is how every goroutine gets a thread.
#[inline(always)]
pub(super) fn go_run(ctx: &ProbeContext) {
    let Some((target, state)) = waiting(Feature::Blocking) else { return };
    // SAFETY: from a map look-up.
    unsafe { add(&raw mut (*state).runs, 1) };
    let key = address_key(target.id, Regs::of(ctx).arg(0));
    let Some(entry) = PARKED.get_ptr_mut(&key) else { return };
    // SAFETY: from a map look-up, as in `go_park`.
    let parked = unsafe { *entry };
    if parked.start_ns == 0 {
        return;
    }
    // SAFETY: as above.
    unsafe { (*entry).start_ns = 0 };
    // SAFETY: no preconditions.
    let duration_ns = unsafe { bpf_ktime_get_ns() }.saturating_sub(parked.start_ns);
    observe::<BLOCKING>(target.id, parked.reason as u16, duration_ns);
    // A stack of an earlier profile's has been forgotten, and its id may be another's.
    if parked.stack >= 0 && WINDOWS.get(target.id).is_some_and(|it| parked.start_ns >= it.stacks_from_ns) {
        blocked_at(target.id, &parked, duration_ns);
    }
}

#[inline(never)]
fn blocked_at(target: u32, parked: &Parked, duration_ns: u64) {
    let key = BlockedAtKey { target, stack: parked.stack as u32, reason: parked.reason, reserved: 0 };
    if BLOCKED_AT.get_ptr(&key).is_none() {
        let _ = BLOCKED_AT.insert(&key, &BlockedAt { count: 0, sum_ns: 0 }, BPF_NOEXIST);
    }
    match BLOCKED_AT.get_ptr_mut(&key) {
        // SAFETY: from a map look-up.
        Some(value) => unsafe {
            add(&raw mut (*value).count, 1);
            add_time(&raw mut (*value).sum_ns, duration_ns);
        },
        None => lost(target, Reason::StackLost),
    }
}
