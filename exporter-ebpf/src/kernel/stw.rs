//! Stop-the-world pauses, by the runtime's own clock: when the stop began, and what `startTheWorldWithSema` returns as its end.
//! Both run on the thread that stopped the world, and one at a time can. Until Go 1.21 the end of a collection's second pause is
//! what the runtime has written into `memstats.last_gc_nanotime`.

use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::ProbeContext};
use exporter_ebpf::{feature::Feature, loss::Reason, wait::WaitState};

use super::{
    maps::{FACTS, add, lost},
    memory,
    regs::Regs,
    series::{STW, observe},
    waits::waiting,
};

/// Pauses longer than this are no pauses but a register that is not what it should be.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// `runtime.stopTheWorldWithSema(reason stwReason)` (Go 1.21; without an argument before).
#[inline(always)]
pub(super) fn stw_stop(ctx: &ProbeContext) {
    stop(ctx, 0);
}

/// The same up to Go 1.20, where what is in the register is no reason.
#[inline(always)]
pub(super) fn stw_stop_bare(ctx: &ProbeContext) {
    stop(ctx, u64::MAX);
}

#[inline(always)]
fn stop(ctx: &ProbeContext, without_reason: u64) {
    let Some((_, state)) = waiting(Feature::Stw) else { return };
    // SAFETY: no preconditions. The runtime's nanotime is CLOCK_MONOTONIC too.
    let now = unsafe { bpf_ktime_get_ns() };
    let reason = if without_reason == 0 { Regs::of(ctx).arg(0) & 0xff } else { 0 };
    // SAFETY: from a map look-up.
    unsafe { begin(state, now, reason) };
}

/// `runtime.startTheWorldWithSema(now int64, w worldStop) int64` (Go 1.22 on): the record of the stop begins with its
/// reason, RBX, and its start, RCX.
#[inline(always)]
pub(super) fn stw_start(ctx: &ProbeContext) {
    let Some((_, state)) = waiting(Feature::Stw) else { return };
    let regs = Regs::of(ctx);
    // SAFETY: from a map look-up.
    unsafe { begin(state, regs.arg(2), regs.arg(1) & 0xff) };
}

/// Notes when and why a stop began.
///
/// # Safety
/// The state was looked up in this run of the program.
#[inline(always)]
unsafe fn begin(state: *mut WaitState, at_ns: u64, reason: u64) {
    // SAFETY: as the caller says; one thread at a time has stopped the world.
    unsafe {
        add(&raw mut (*state).stops, 1);
        (*state).stop_reason = reason as u32;
        (*state).stop_ns = at_ns;
    }
}

/// Its RETs: the end is what it returns, RAX.
#[inline(always)]
pub(super) fn stw_end(ctx: &ProbeContext) {
    let Some((target, state)) = waiting(Feature::Stw) else { return };
    // SAFETY: as in `begin`.
    let (start_ns, reason) = unsafe {
        add(&raw mut (*state).stops, 1);
        let start_ns = (*state).stop_ns;
        (*state).stop_ns = 0;
        (start_ns, u64::from((*state).stop_reason))
    };
    if start_ns == 0 {
        // It was under way when the probes were attached.
        return;
    }
    let started_ns = Regs::of(ctx).arg(0);
    // Not in this pause: it is another's end, or another kind of pause.
    let end_ns = match FACTS.get(target.id).map_or(0, |facts| facts.last_gc) {
        0 => started_ns,
        address => memory::read(address, 0).filter(|end| (start_ns..started_ns).contains(end)).unwrap_or(started_ns),
    };
    let duration_ns = end_ns.wrapping_sub(start_ns);
    if duration_ns > LONGEST_NS {
        lost(target.id, Reason::Unreadable);
        return;
    }
    observe::<STW>(target.id, reason as u16, duration_ns);
}
