//! A hit of a probe: whose it is, and whether it is a call. Knows nothing of what is measured.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, programs::ProbeContext};
use exporter_ebpf::{
    feature::Feature,
    probe::Probe,
    target::{TargetConfig, target_slot},
};

use super::{
    maps::{TARGET_SLOTS, TARGETS},
    memory::read,
    regs::Regs,
};

/// [`Probe::Nothing`]: what a hit costs before a program does anything, for `cargo xtask bench overhead`.
#[inline(always)]
pub(super) fn nothing(_: &ProbeContext) {}

/// A status that could not be read. A plain number, where an `Option`'s payload would be read undefined: the verifier minds.
pub(super) const UNREADABLE: u64 = u64::MAX;

#[inline(always)]
pub(super) fn word(base: u64, offset: u16) -> u64 {
    read::<u64>(base, offset).unwrap_or(UNREADABLE)
}

#[inline(always)]
fn pid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

#[inline(always)]
fn target(pid: u32) -> Option<&'static TargetConfig> {
    if let Some(slot) = TARGET_SLOTS.get(target_slot(pid))
        && slot.pid == pid
    {
        return Some(slot);
    }
    // SAFETY: user space replaces a value only to change limits; offsets of one process never change, so a torn read of a
    // value being replaced reads the same offsets.
    unsafe { TARGETS.get(&pid) }
}

/// The current process, if it is a target of which this is measured: a probe on a file is hit in all processes of the file.
#[inline(always)]
pub(super) fn measured(feature: Feature) -> Option<&'static TargetConfig> {
    let target = target(pid())?;
    if target.on & feature.bit() == 0 { None } else { Some(target) }
}

/// The target and the registers of a call; nothing where the probe's feature is not measured of the process, or it is no call yet (see
/// [`exporter_ebpf::probe::At::Check`]).
#[inline(always)]
pub(super) fn called(ctx: &ProbeContext, probe: Probe) -> Option<(&'static TargetConfig, Regs<'_>)> {
    let target = measured(probe.feature())?;
    let regs = Regs::of(ctx);
    if target.at_check & probe.check_bit() != 0 && regs.lower_or_same() {
        return None;
    }
    Some((target, regs))
}
