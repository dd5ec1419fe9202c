//! The texts of series: those that a target has, and how many it may have. Knows nothing of what they say.

use exporter_ebpf::{
    key::{SeriesKey, SeriesState, TEXT, Text},
    route::MAX_PATH,
    target::TargetConfig,
};

use super::{
    maps::{BPF_NOEXIST, TEXTS, add},
    memory::{read_bytes, zero},
    series::state,
};

/// Whether the text of a series is one of its target's.
#[inline(never)]
pub(super) fn is_known(series: &SeriesKey) -> bool {
    TEXTS.get_ptr(&series.text_key()).is_some()
}

/// Whether a target may have another text of a family.
#[inline(always)]
pub(super) fn has_room<const FAMILY: u8>(target: &TargetConfig) -> bool {
    // SAFETY: from a map look-up; a race lets a few texts more in than the limit, as many as there are CPUs at most.
    let has = |state: *mut SeriesState| unsafe { (*state).texts[FAMILY as usize] };
    state(target.id).is_some_and(|state| has(state) < u64::from(target.max_routes))
}

/// Makes the text of a series one of its target's; false where there is no room in the map. By itself for its stack.
#[inline(never)]
pub(super) fn put_text<const FAMILY: u8>(series: &SeriesKey, text: u64, len: u64, parent: u64, slashes: u64) -> bool {
    // SAFETY: of one size, and any words are such a value. Word by word, see `Buffer`.
    let mut value = unsafe { core::mem::transmute::<[u64; size_of::<Text>() / 8], Text>([zero(); _]) };
    value.len = len as u32;
    value.parent = parent;
    value.slashes = slashes;
    value.read = read_bytes(text, len, &mut value.text).unwrap_or(0);
    put::<FAMILY>(series, &value)
}

/// The same of a text that was read.
#[inline(always)]
pub(super) fn put<const FAMILY: u8>(series: &SeriesKey, text: &Text) -> bool {
    let key = series.text_key();
    if TEXTS.insert(&key, text, BPF_NOEXIST).is_err() {
        // Another CPU may have been first.
        return TEXTS.get_ptr(&key).is_some();
    }
    if let Some(state) = state(series.target.into()) {
        // SAFETY: from a look-up just above.
        unsafe { add(&raw mut (*state).texts[FAMILY as usize], 1) };
    }
    true
}

const _: () = assert!(TEXT == MAX_PATH + 1, "both buffers are read with one mask");
