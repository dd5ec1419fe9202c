//! Series: each is counted here, whatever its family. Knows nothing of what a key's text, code and verb stand for.

use exporter_ebpf::{
    durations::{BUCKETS, Durations, Scale},
    key::{Family, SeriesKey, SeriesState},
    loss::Reason,
};

use super::{
    maps::{BPF_NOEXIST, SERIES, SERIES_STATES, add, add_time, lost},
    share,
};

/// [`Family::HttpServer`].
pub(super) const HTTP_SERVER: u8 = Family::HttpServer as u8;
/// [`Family::HttpClient`].
pub(super) const HTTP_CLIENT: u8 = Family::HttpClient as u8;
/// [`Family::GrpcServer`].
pub(super) const GRPC_SERVER: u8 = Family::GrpcServer as u8;
/// [`Family::Blocking`].
pub(super) const BLOCKING: u8 = Family::Blocking as u8;
/// [`Family::Stw`].
pub(super) const STW: u8 = Family::Stw as u8;
/// [`Family::RunQueue`].
pub(super) const RUN_QUEUE: u8 = Family::RunQueue as u8;

/// Counts one of a family that has no texts.
#[inline(always)]
pub(super) fn observe<const FAMILY: u8>(target: u32, code: u16, duration_ns: u64) {
    let mut key = SeriesKey::of(const { Family::ALL[FAMILY as usize] }, target, code);
    if !counted::<FAMILY>(&key, duration_ns) {
        admit::<FAMILY>(&mut key);
        count::<FAMILY>(&key, duration_ns);
    }
}

/// Counts one of a series that has its entry; false where it has none.
#[inline(always)]
pub(super) fn counted<const FAMILY: u8>(key: &SeriesKey, duration_ns: u64) -> bool {
    let Some(value) = SERIES.get_ptr_mut(key) else { return false };
    // SAFETY: from a look-up just above.
    unsafe { record(value, const { Family::ALL[FAMILY as usize].scale() }, duration_ns) };
    true
}

/// Whether a series has its entry.
#[inline(always)]
pub(super) fn is_admitted(key: &SeriesKey) -> bool {
    SERIES.get_ptr(key).is_some()
}

/// Makes sure that a series has its entry. Past the target's share it becomes the target's overflow series.
#[inline(never)]
pub(super) fn admit<const FAMILY: u8>(series: &mut SeriesKey) {
    let family = const { Family::ALL[FAMILY as usize] };
    if is_admitted(series) {
        return;
    }
    let target = u32::from(series.target);
    let insert = || SERIES.insert(series, &Durations::ZERO, BPF_NOEXIST).is_ok();
    // Another CPU may have been first.
    if !share::insert(family.table(), target, insert) && !is_admitted(series) {
        *series = SeriesKey::overflow(family, target);
    }
}

/// Counts one of a series that was admitted.
#[inline(never)]
pub(super) fn count<const FAMILY: u8>(key: &SeriesKey, duration_ns: u64) {
    if counted::<FAMILY>(key, duration_ns) {
        return;
    }
    let target = u32::from(key.target);
    if let Some(state) = state(target) {
        // SAFETY: from a look-up just above.
        unsafe {
            let overflow = &raw mut (*state).overflow[FAMILY as usize];
            record(overflow, const { Family::ALL[FAMILY as usize].scale() }, duration_ns);
        }
        lost(target, Reason::SeriesOverflow);
    }
}

/// What is kept of a target's series beside them.
#[inline(always)]
pub(super) fn state(target: u32) -> Option<*mut SeriesState> {
    SERIES_STATES.get_ptr_mut(target)
}

/// Adds one to a histogram.
///
/// # Safety
/// As [`add`].
#[inline(always)]
unsafe fn record(value: *mut Durations, scale: &Scale, duration_ns: u64) {
    let index = scale.bucket(duration_ns);
    // SAFETY: as the caller says; `bucket` never exceeds the array, and the mask shows it to the verifier: with 32 slots the
    // access would pass the end, so it is compared as well.
    unsafe {
        if index < BUCKETS {
            add((&raw mut (*value).buckets).cast::<u64>().add(index), 1);
        }
        add_time(&raw mut (*value).sum_ns, duration_ns);
    }
}
