//! From the kernel's series of requests to labelled ones, each label set once. Knows nothing of other figures.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    sync::Arc,
};

use exporter_ebpf::{
    http::{SeriesKey, SeriesValue, route_kind},
    method,
};

use super::state::{State, Target};
use crate::{
    kernel::{Maps, Usage},
    metrics::HttpSeries,
};

/// Series by what they show. The kernel side tells more apart than labels do: patterns that differ in their method alone,
/// methods that have one name.
#[derive(Default)]
struct Merged(BTreeMap<Shown, SeriesValue>);

/// The target that speaks for it, route, method, status.
type Shown = (u32, Option<Arc<str>>, &'static str, u16);

impl Merged {
    fn add(&mut self, target: u32, route: Option<Arc<str>>, method: u8, status: u16, value: &SeriesValue) {
        // An empty label is none (Prometheus' data model).
        let route = route.filter(|route| !route.is_empty());
        self.0.entry((target, route, method::label(method), status)).or_insert(SeriesValue::ZERO).add(value);
    }
}

/// Every label set with its counts, and the targets of which requests were seen that a mux may know more of. None where the
/// kernel's map cannot be read: a part of it would look as if counters had gone back.
pub(super) fn collect(
    maps: &Maps,
    state: &mut State,
    max_routes: u32,
    leaders: &HashMap<u32, u32>,
    usage: &mut Vec<Usage>,
) -> (Vec<HttpSeries>, Vec<u32>) {
    let counted = counted(maps, state, |_| true);
    usage.push(maps.series.usage(counted.as_ref().ok().map(|(_, entries)| *entries)));
    let Ok((raw, _)) = counted else { return (Vec::new(), Vec::new()) };
    let mut merged = Merged::default();
    let mut wants_mux = Vec::new();
    for (key, value) in &raw {
        let Some(target) = state.targets.get_mut(&key.target) else { continue };
        if !target.wants_mux && may_be_known_to_a_mux(key.route_kind, target) {
            target.wants_mux = true;
            wants_mux.push(key.target);
        }
        let route = state.route_label(key, maps, max_routes);
        let leader = leaders.get(&key.target).copied().unwrap_or(key.target);
        merged.add(leader, route, key.method, key.status, value);
    }
    drop(raw);
    for leader in leaders.values().collect::<BTreeSet<_>>() {
        let Some(retired) = state.targets.get(leader).and_then(|target| state.retired.get(&target.labels)) else {
            continue;
        };
        for ((route, method, status), value) in &retired.http {
            merged.add(*leader, route.clone(), *method, *status, value);
        }
    }
    let series = merged.0.into_iter().filter_map(|((id, route, method, status), value)| {
        Some(HttpSeries { target: state.targets.get(&id)?.labels.clone(), method, status, route, value })
    });
    (series.collect(), wants_mux)
}

/// Whether a route of this kind may be told by a mux that was given a copy of the request.
fn may_be_known_to_a_mux(kind: u8, target: &Target) -> bool {
    match kind {
        route_kind::PATH => true,
        route_kind::SUBTREE | route_kind::BELOW => target.inspection.as_ref().is_some_and(|it| it.nests_muxes),
        _ => false,
    }
}

/// Every series of these targets that has counted something, wherever it is: in the kernel's map, in a target's overflow series, or
/// in user space; and how many entries the kernel's map has. A key can come twice.
///
/// # Errors
/// The kernel's map cannot be read.
pub(super) fn counted(
    maps: &Maps,
    state: &State,
    of: impl Fn(u32) -> bool,
) -> io::Result<(Vec<(SeriesKey, SeriesValue)>, u64)> {
    // The kernel side makes an entry at a panic; the request may end otherwise.
    let counts = |key: &SeriesKey, value: &SeriesValue| of(key.target) && value.count() != 0;
    let (mut series, entries) = maps.series.read(|(all, entries): &mut (Vec<_>, u64), key, value| {
        *entries += 1;
        if counts(key, value) {
            all.push((*key, *value));
        }
    })?;
    let kept = |id: &u32| Some((SeriesKey::overflow(*id), maps.http_states.get(*id)?.overflow));
    series.extend(state.targets.keys().filter_map(kept).filter(|(key, value)| counts(key, value)));
    let settled = state.settled.iter().map(|(key, value)| (*key, *value));
    series.extend(settled.filter(|(key, value)| counts(key, value)));
    Ok((series, entries))
}

/// Requests that user space has counted in overflow series, by target. The kernel side tells of its own.
pub(super) fn past_the_limit(state: &State) -> impl Iterator<Item = (u32, u64)> {
    let overflow = state.settled.iter().filter(|(key, _)| key.route_kind == route_kind::SERIES_OVERFLOW);
    overflow.map(|(key, value)| (key.target, value.count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_series_have_the_same_labels_whatever_ids_there_are() {
        let value = SeriesValue { sum_ns: 1, ..SeriesValue::ZERO };
        let mut merged = Merged::default();
        for method in 0..=u8::MAX {
            for route in [None, Some("".into()), Some("/a".into())] {
                merged.add(1, route, method, 200, &value);
            }
        }
        let labels: BTreeSet<_> =
            merged.0.keys().map(|(_, route, method, _)| (route.as_deref().unwrap_or_default(), *method)).collect();
        assert_eq!(labels.len(), merged.0.len());
        assert_eq!(labels.len(), 2 * method::NAMES.len());
        assert_eq!(merged.0.values().map(|value| value.sum_ns).sum::<u64>(), 3 * 256);
    }
}
