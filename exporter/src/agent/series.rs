//! What was counted of HTTP requests, wherever it is: in the kernel's map, in a target's overflow series, or in user space.
//! Knows nothing of labels.

use exporter_ebpf::http::{SeriesKey, SeriesValue, route_kind};

use super::state::State;
use crate::kernel::Maps;

/// Every series of these targets that has counted something, and how many entries the kernel's map has. A key can come twice.
pub(super) fn counted(maps: &Maps, state: &State, of: impl Fn(u32) -> bool) -> (Vec<(SeriesKey, SeriesValue)>, u64) {
    let (mut series, mut entries) = (Vec::new(), 0);
    // The kernel side makes an entry at a panic; the request may end otherwise.
    let mut take = |key: SeriesKey, value: SeriesValue| {
        if of(key.target) && value.count() != 0 {
            series.push((key, value));
        }
    };
    maps.series.for_each(|key, value| {
        entries += 1;
        take(*key, *value);
    });
    for id in state.targets.keys() {
        if let Some(kept) = maps.http_states.get(*id) {
            take(SeriesKey::overflow(*id), kept.overflow);
        }
    }
    for (key, value) in &state.settled {
        take(*key, *value);
    }
    (series, entries)
}

/// Requests that user space has counted in overflow series, by target. The kernel side tells of its own.
pub(super) fn past_the_limit(state: &State) -> impl Iterator<Item = (u32, u64)> {
    let overflow = state.settled.iter().filter(|(key, _)| key.route_kind == route_kind::SERIES_OVERFLOW);
    overflow.map(|(key, value)| (key.target, value.count()))
}
