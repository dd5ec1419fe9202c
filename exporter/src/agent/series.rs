//! From the kernel's series to labelled ones, each label set once. Knows nothing of what a family's labels are, nor of other figures.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
};

use exporter_ebpf::{
    durations::Durations,
    http::route_kind,
    key::{Family, OfTarget as _, SeriesKey},
};
use instruments::{Known, LabelSet, describe};

use super::{
    blocked::{self, Raw},
    state::{State, Target},
};
use crate::{
    kernel::{Maps, Usage},
    metrics::Series,
};

/// Series by what they show. The kernel side tells more apart than labels do: patterns that differ in their method alone,
/// methods and reasons that have one name.
pub(super) type Merged<Whose> = BTreeMap<(Whose, Family, LabelSet), Durations>;

/// Every label set with its counts, and the targets of which requests were seen that a mux may know more of. None where the
/// kernel's map cannot be read: a part of it would look as if counters had gone back.
pub(super) fn collect(
    maps: &Maps,
    state: &mut State,
    max_routes: u32,
    leaders: &HashMap<u32, u32>,
    usage: &mut Vec<Usage>,
) -> (Vec<Series>, Vec<u32>) {
    let counted = counted(maps, state, |_| true);
    usage.extend(maps.series_usage(counted.as_ref().ok().map(|counted| counted.entries)));
    let Ok(Counted { series, .. }) = counted else { return (Vec::new(), Vec::new()) };
    let mut merged = Merged::<u32>::new();
    let mut wants_mux = Vec::new();
    for (key, value) in &series {
        let Some(target) = state.targets.get_mut(&key.target()) else { continue };
        if !target.wants_mux && may_be_known_to_a_mux(key, target) {
            target.wants_mux = true;
            wants_mux.push(key.target());
        }
        let Some((family, labels)) = labelled(state, key, maps, max_routes) else { continue };
        let leader = leaders.get(&key.target()).copied().unwrap_or(key.target());
        merged.entry((leader, family, labels)).or_insert(Durations::ZERO).add(value);
    }
    drop(series);
    for leader in leaders.values().collect::<BTreeSet<_>>() {
        let retired = state.targets.get(leader).and_then(|target| state.retired.get(&target.labels));
        for (family, of_family) in retired.iter().flat_map(|retired| &retired.series) {
            for (labels, value) in of_family {
                merged.entry((*leader, *family, labels.clone())).or_insert(Durations::ZERO).add(value);
            }
        }
    }
    let series = merged.into_iter().filter_map(|((id, family, labels), value)| {
        Some(Series { target: state.targets.get(&id)?.labels.clone(), family, labels, value })
    });
    (series.collect(), wants_mux)
}

/// The family of a series and its labels; none where the family is not known.
pub(super) fn labelled(state: &mut State, key: &SeriesKey, maps: &Maps, max_routes: u32) -> Option<(Family, LabelSet)> {
    let family = Family::of_number(key.family)?;
    let inspection = state.targets.get(&key.target()).and_then(|target| target.inspection.as_deref());
    let go_minor = inspection.map_or(0, |it| it.go_minor);
    let (text, second) = state.texts(key, maps, max_routes);
    let known = Known { text, second, go_minor };
    Some((family, describe(family).labels(key, &known)))
}

/// Whether a series may have a route that is told by a mux which was given a copy of the request.
fn may_be_known_to_a_mux(key: &SeriesKey, target: &Target) -> bool {
    if key.family != Family::HttpServer as u8 {
        return false;
    }
    match key.text_kind {
        route_kind::PATH => true,
        route_kind::SUBTREE | route_kind::BELOW => target.inspection.as_ref().is_some_and(|it| it.nests_muxes),
        _ => false,
    }
}

/// Series that have counted something.
pub(super) struct Counted {
    /// A key can come twice.
    pub(super) series: Vec<(SeriesKey, Durations)>,
    /// Entries of the kernel's map, by [`exporter_ebpf::share::Table`]: those whose texts come from outside, and the others.
    pub(super) entries: (u64, u64),
}

/// Every series of these targets that has counted something, wherever it is: in the kernel's map, in a target's overflow series, or
/// in user space; of blocking what it stands for.
///
/// # Errors
/// The kernel's map cannot be read.
pub(super) fn counted(maps: &Maps, state: &State, of: impl Fn(u32) -> bool) -> io::Result<Counted> {
    // The kernel side makes an entry at a panic; the request may end otherwise.
    let counts = |key: &SeriesKey, value: &Durations| of(key.target()) && value.count() != 0;
    let (mut series, entries) = maps.series.read(|(all, entries): &mut (Vec<_>, (u64, u64)), key, value| {
        *if Maps::is_bounded(key) { &mut entries.1 } else { &mut entries.0 } += 1;
        if counts(key, value) {
            all.push((*key, *value));
        }
    })?;
    for id in state.targets.keys().copied().filter(|id| of(*id)) {
        let unreadable = || io::Error::other("a target's overflow series cannot be read");
        let kept = maps.series_states.get(id).ok_or_else(unreadable)?;
        let overflow =
            Family::ALL.iter().map(|family| (SeriesKey::overflow(*family, id), kept.overflow[*family as usize]));
        series.extend(overflow.filter(|(key, value)| counts(key, value)));
    }
    let settled = state.settled.iter().map(|(key, value)| (*key, *value));
    series.extend(settled.filter(|(key, value)| counts(key, value)));
    let mut raw: HashMap<u32, Raw> = HashMap::new();
    series.retain(|(key, value)| {
        let is_blocking = key.family == Family::Blocking as u8;
        if is_blocking {
            raw.entry(key.target()).or_default().insert(blocked::number(key), *value);
        }
        !is_blocking
    });
    for target in state.targets.values().filter(|target| of(target.id)) {
        let shown = target.blocked.shown(raw.get(&target.id).unwrap_or(&Raw::new()));
        series.extend(shown.into_iter().map(|(number, value)| (blocked::key(target.id, number), value)));
    }
    Ok(Counted { series, entries })
}

/// What user space has counted in overflow series, by target. The kernel side tells of its own.
pub(super) fn past_the_limit(state: &State) -> impl Iterator<Item = (u32, u64)> {
    let overflow = state.settled.iter().filter(|(key, _)| key.is_overflow());
    overflow.map(|(key, value)| (key.target(), value.count()))
}
