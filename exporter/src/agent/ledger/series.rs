//! Adds up the series of a view: live, settled and retired. Knows nothing of what a family's labels are.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use exporter_ebpf::{
    durations::Durations,
    http::route_kind,
    key::{Family, OfTarget as _, SeriesKey},
    loss::{LostKey, Reason},
    span::Lane,
    wait::WaitState,
};
use instruments::LabelSet;

use super::{Good, InFlight, Kept, Retired, Rows, View, add_functions, retired::add_kept};
use crate::{
    agent::{
        blocked::{self, Raw},
        registry::Target,
    },
    metrics::Series,
    target::{Feature, Labels},
};

/// Series by what they show. The kernel side tells more apart than labels do: patterns that differ in their method alone,
/// methods and reasons that have one name.
type Merged = BTreeMap<(u32, Family, LabelSet), Durations>;

/// What was lost, by the target that speaks for its own, and by reason; 0 is no target.
pub(in crate::agent) type Losses = BTreeMap<(u32, u32), u64>;

impl View {
    /// Hands over every series of these targets that has counted something, wherever it is: in the kernel's map, in a target's overflow
    /// series, or in user space; of blocking what it stands for. A key can come twice. Not what is retired, which has labels already.
    pub(in crate::agent) fn each_series(
        &self,
        rows: Option<&Good<Rows>>,
        of: impl Fn(u32) -> bool,
        mut each: impl FnMut(&SeriesKey, &Target, &Durations),
    ) {
        let live = rows.iter().flat_map(|rows| rows.value.series.iter().filter(|(key, _)| rows.is_of(key.target())));
        let live = live.map(|(key, value)| (key, value));
        let settled = self.settled.values().flat_map(|it| &it.series);
        let mut raw: HashMap<u32, Raw> = HashMap::new();
        for (key, value) in live.chain(settled).filter(|(key, _)| of(key.target())) {
            let Some(target) = self.targets.get(&key.target()) else { continue };
            if key.family == Family::Blocking as u8 {
                raw.entry(target.id).or_default().insert(blocked::number(key), *value);
            } else {
                each(key, target, value);
            }
        }
        for target in self.targets.values().filter(|target| of(target.id)) {
            for (number, value) in target.blocked.shown(raw.get(&target.id).unwrap_or(&Raw::new())) {
                each(&blocked::key(target.id, number), target, &value);
            }
        }
    }

    /// Every label set with its counts, once, given the family and the labels of a series, where these are known.
    pub(in crate::agent) fn series(
        &self,
        rows: Option<&Good<Rows>>,
        leaders: &HashMap<u32, u32>,
        mut label: impl FnMut(&SeriesKey, &Target) -> Option<(Family, LabelSet)>,
    ) -> Vec<Series> {
        let mut merged = Merged::new();
        self.each_series(
            rows,
            |_| true,
            |key, target, value| {
                let leader = leaders.get(&target.id).copied().unwrap_or(target.id);
                if let Some((family, labels)) = label(key, target) {
                    merged.entry((leader, family, labels)).or_insert(Durations::ZERO).add(value);
                }
            },
        );
        for (leader, retired) in self.retired_of(leaders) {
            for (family, of_family) in &retired.series {
                for (labels, value) in of_family {
                    merged.entry((leader, *family, labels.clone())).or_insert(Durations::ZERO).add(value);
                }
            }
        }
        let series = merged.into_iter().filter_map(|((id, family, labels), value)| {
            Some(Series { target: self.targets.get(&id)?.labels.clone(), family, labels, value })
        });
        series.collect()
    }

    /// Labels of which it is not known what was counted when these rows were read: no target was measured then, or can be.
    pub(in crate::agent) fn unsettled(&self, rows: Option<&Good<Rows>>) -> HashSet<Labels> {
        let known = self.targets.values().filter(|it| rows.is_some_and(|rows| rows.has_measured(it.id)));
        let known: HashSet<&Labels> = known.map(|it| &it.labels).collect();
        let others = self.targets.values().map(|it| &it.labels).filter(|labels| !known.contains(labels));
        others.cloned().collect()
    }

    /// What was lost, whoever tells, with what ended targets of the same container lost.
    pub(in crate::agent) fn losses(&self, lost: &Good<HashMap<LostKey, u64>>, leaders: &HashMap<u32, u32>) -> Losses {
        let mut counts = Losses::new();
        let past_the_limit = self.settled.iter().map(|(id, settled)| {
            let key = LostKey { target: *id, reason: Reason::SeriesOverflow as u32 };
            (key, settled.past_the_limit())
        });
        let live = lost.value.iter().filter(|(key, _)| key.target == 0 || lost.is_of(key.target));
        for (key, count) in
            live.map(|(key, count)| (*key, *count)).chain(past_the_limit.filter(|(_, count)| *count > 0))
        {
            let leader = leaders.get(&key.target).copied();
            if let Some(target) = leader.or((key.target == 0).then_some(0)) {
                *counts.entry((target, key.reason)).or_default() += count;
            }
        }
        for (leader, retired) in self.retired_of(leaders) {
            for (reason, count) in &retired.lost {
                *counts.entry((leader, *reason)).or_default() += count;
            }
        }
        counts
    }

    /// What the kernel side has counted besides of targets that are shown as one, by the one that speaks for them; nothing of those of
    /// whom not all is known.
    pub(in crate::agent) fn kept(&self, kept: &Good<Kept>, leaders: &HashMap<u32, u32>) -> HashMap<u32, WaitState> {
        let mut sums: HashMap<u32, WaitState> = HashMap::new();
        let mut unknown = Vec::new();
        for (id, leader) in leaders {
            match kept.value.get(id).filter(|_| kept.is_of(*id)) {
                Some(more) => add_kept(sums.entry(*leader).or_default(), more),
                None => unknown.push(leader),
            }
        }
        for leader in unknown {
            sums.remove(leader);
        }
        for (leader, sum) in &mut sums {
            if let Some(retired) = self.retired.get(leader) {
                add_kept(sum, &retired.kept);
            }
        }
        sums
    }

    /// The functions at which profiles saw goroutines of a container blocked, those of its ended processes included.
    pub(in crate::agent) fn blocked_functions(&self, leader: u32, leaders: &HashMap<u32, u32>) -> Vec<(String, f64)> {
        let mut sums = self.retired.get(&leader).map(|it| it.blocked_functions.clone()).unwrap_or_default();
        for target in self.targets.values().filter(|target| leaders.get(&target.id) == Some(&leader)) {
            add_functions(&mut sums, target.blocked_functions.iter().map(|(name, seconds)| (name.as_str(), *seconds)));
        }
        sums.into_iter().collect()
    }

    fn retired_of<'v>(&'v self, leaders: &HashMap<u32, u32>) -> impl Iterator<Item = (u32, &'v Arc<Retired>)> {
        let leaders: BTreeSet<u32> = leaders.values().copied().collect();
        leaders.into_iter().filter_map(|leader| Some((leader, self.retired.get(&leader)?)))
    }
}

impl Good<InFlight> {
    /// Open spans of these lanes, by the target that speaks for others; nothing of those of whom not all is known.
    pub(in crate::agent) fn active(&self, leaders: &HashMap<u32, u32>, lanes: &[Lane]) -> HashMap<u32, u64> {
        let of = |id: u32| -> u64 { lanes.iter().filter_map(|lane| self.value.open.get(&(id, *lane as u64))).sum() };
        let mut active: HashMap<u32, u64> = leaders.values().map(|leader| (*leader, 0)).collect();
        for (id, leader) in leaders {
            if let Some(sum) = active.get_mut(leader) {
                *sum += of(*id);
            }
        }
        for (_, leader) in leaders.iter().filter(|(id, _)| !self.is_of(**id)) {
            active.remove(leader);
        }
        active
    }

    /// The same of each instrument, with its metric.
    pub(in crate::agent) fn open(
        &self,
        leaders: &HashMap<u32, u32>,
    ) -> Vec<(Feature, &'static str, HashMap<u32, u64>)> {
        let opens = instruments::ALL.into_iter().flat_map(|it| it.open.iter().map(|open| (it.feature, open)));
        opens.map(|(feature, open)| (feature, open.desc.name, self.active(leaders, open.lanes))).collect()
    }
}

impl super::Settled {
    /// What user space has counted in overflow series. The kernel side tells of its own.
    pub(in crate::agent) fn past_the_limit(&self) -> u64 {
        self.series.iter().filter(|(key, _)| key.is_overflow()).map(|(_, value)| value.count()).sum()
    }
}

/// Whether a series may have a route that is told by a mux which was given a copy of the request.
pub(in crate::agent) fn may_be_known_to_a_mux(key: &SeriesKey, target: &Target) -> bool {
    if key.family != Family::HttpServer as u8 {
        return false;
    }
    match key.text_kind {
        route_kind::PATH => true,
        route_kind::SUBTREE | route_kind::BELOW => target.inspection.as_ref().is_some_and(|it| it.nests_muxes),
        _ => false,
    }
}
