//! Routes of muxes that are given a part of the path: what was taken off, and the mux's pattern. Knows nothing of how such a
//! request is found.

use exporter_ebpf::{http::route_kind, key::SeriesKey, target::TargetConfig};

use super::{
    below::{count, subtree},
    memory::{GoString, read},
    request::{cut_off, packed, unpacked},
    route::past_the_limit,
    series::HTTP_SERVER,
    texts::{has_room, is_known, put_text},
};

/// Of a copy that a mux was given with a part of the path: the pattern that the mux has found for it, [`packed`]; 0 where the
/// outer pattern or the path tells it as well: a tree without names in it. Takes [`offsets`]. Global, as [`super::route::text_route`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn inner_pattern(inner: u64, offsets: u64) -> u64 {
    let pat = read::<u64>(unpacked(inner).ptr, (offsets >> 32) as u16).unwrap_or(0);
    let text = read::<GoString>(pat, (offsets >> 48) as u16).unwrap_or(GoString::EMPTY);
    if subtree(text.ptr, text.len) != 0 && count(text.ptr, text.len, b'{'.into()) == 0 {
        return 0;
    }
    packed(text)
}

/// Of the same: what was taken off the path, [`packed`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn inner_prefix(inner: u64, offsets: u64) -> u64 {
    let url = read::<u64>(unpacked(inner).ptr, offsets as u16).unwrap_or(0);
    let path = read::<u64>(url, (offsets >> 16) as u16).unwrap_or(0);
    packed(GoString { ptr: path.wrapping_sub(cut_off(inner)), len: cut_off(inner) })
}

/// For both of the above.
#[inline(always)]
pub(super) fn offsets(target: &TargetConfig) -> u64 {
    u64::from(target.request_url)
        | u64::from(target.url_path) << 16
        | u64::from(target.request_pat) << 32
        | u64::from(target.pattern_str) << 48
}

/// The route of a pattern with this hash joined to another.
#[inline(always)]
pub(super) fn route_of_both(before: u64, joined_to: u64, pattern: u64) -> u64 {
    (pattern ^ before.rotate_left(23) ^ joined_to).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

/// Makes the series of what stands before a pattern that of both, if there is room for it.
#[inline(never)]
pub(super) fn admit_joined(target: &TargetConfig, series: &mut SeriesKey, route: u64, joined_to: u64, inner: u64) {
    if u64::from(series.text_kind) != joined_to >> 32 {
        // What stands before it has found no room.
        return;
    }
    let key = SeriesKey { text: route, text_kind: route_kind::JOINED, ..*series };
    if !is_known(&key) {
        let text = unpacked(inner_pattern(inner, offsets(target)));
        if !has_room::<HTTP_SERVER>(target)
            || !put_text::<HTTP_SERVER>(&key, text.ptr, text.len, series.text, joined_to)
        {
            return past_the_limit(series);
        }
    }
    *series = key;
}
