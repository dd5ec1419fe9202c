//! One agent's part of the store: its frames' times, its containers, and what of them it tells now. Knows nothing of other agents.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use super::{
    FrameError, Key, LATE_MS, MAX_CONTAINERS, MAX_SERIES, SILENCE,
    container::{Container, Families, Naming, share},
    places::{Containers, Ids, Place},
    series::{FamilyInfo, Grown, Meaning, Series},
};
use crate::hpa::wire::{Container as WireContainer, Frame, Kind, Sample, Unmeasured};

/// How often series that are at rest are looked at for what is too old of them, milliseconds: others are whenever they change.
const SWEEP_MS: u64 = 10_000;
/// One agent.
#[derive(Debug)]
pub(crate) struct Agent {
    /// Times of its frames, milliseconds since 1970 by its clock as it was at first, the newest last.
    pub(crate) frames: VecDeque<u64>,
    /// By how many milliseconds its clock has been set back since.
    set_back: i64,
    /// When its last frame came.
    pub(super) arrived: Instant,
    /// How long before that anything came of any agent, milliseconds: what was before is not known.
    pub(crate) known_ms: u64,
    /// Which run of the agent tells; 0 where an agent does not say.
    run: u64,
    pub(super) containers: Containers,
    /// Pods without figures, by namespace and name; none where it has not said.
    unmeasured: Option<HashMap<Box<str>, Withouts>>,
    /// Families, containers and series by the stream's own ids.
    family_ids: HashMap<u32, Arc<FamilyInfo>>,
    container_ids: HashMap<u32, Key>,
    series_ids: Ids,
    /// Containers that made room for others.
    made_room: Vec<Key>,
    /// Families of the container named last: the next is likely to have the same.
    families: Families,
    /// When series were last looked at.
    swept: u64,
}

/// Why a pod has no figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Without {
    /// There is nothing to measure; otherwise it may do what is not counted.
    pub(crate) expected: bool,
    /// For people.
    pub(crate) reason: Arc<str>,
}

/// Of a namespace's pods.
type Withouts = HashMap<Box<str>, Without>;

impl Agent {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            frames: VecDeque::new(),
            set_back: 0,
            arrived: now,
            known_ms: 0,
            run: 0,
            containers: Containers::default(),
            unmeasured: None,
            family_ids: HashMap::new(),
            container_ids: HashMap::new(),
            series_ids: Ids::default(),
            made_room: Vec::new(),
            families: Families::default(),
            swept: 0,
        }
    }

    pub(super) fn is_silent(&self, now: Instant) -> bool {
        now.duration_since(self.arrived) > SILENCE
    }

    /// Whether it tells, or will tell, which pods have no figures.
    pub(super) fn tells_unmeasured(&self) -> bool {
        self.run != 0
    }

    /// Why a pod has no figures, if it is one of this agent's.
    pub(super) fn without(&self, namespace: &str, pod: &str) -> Option<&Without> {
        self.unmeasured.as_ref()?.get(namespace)?.get(pod)
    }

    pub(super) fn set_unmeasured(&mut self, told: &Unmeasured) {
        let mut pods: HashMap<Box<str>, Withouts> = HashMap::new();
        for it in told.pods.iter().take(MAX_CONTAINERS) {
            let without = Without { expected: it.expected, reason: it.reason.as_str().into() };
            pods.entry(it.namespace.as_str().into()).or_default().insert(it.pod.as_str().into(), without);
        }
        self.unmeasured = Some(pods);
    }

    /// A frame's time. Rates are over these times, so where the clock was set in between it is the time by our own clock that has
    /// passed: frames may come late together, but no time goes back, and none is far from ours when another run of the agent begins
    /// a stream. Within a run its clock is one: what it read before it stood still is late, and says nothing of the clock.
    pub(super) fn time_of(&mut self, frame: &Frame, now: Instant) -> u64 {
        let Some(last) = self.frames.back().copied() else { return frame.unix_ms };
        let at = frame.unix_ms.wrapping_add_signed(self.set_back);
        let awaited = last.saturating_add(now.duration_since(self.arrived).as_millis() as u64);
        let same_run = frame.first && frame.run != 0 && frame.run == self.run;
        if same_run || at >= last && !(frame.first && at.abs_diff(awaited) > LATE_MS) {
            return at.max(last.saturating_add(1));
        }
        self.set_back = awaited.wrapping_sub(frame.unix_ms).cast_signed();
        awaited.max(last.saturating_add(1))
    }

    /// A new stream begins: its ids are its own. What was known stays, to be gone on with where it is named again, if it is the
    /// same run of the agent that tells. Whether counts that are smaller now have grown from 0.
    pub(super) fn begin(&mut self, run: u64, at: u64) -> bool {
        self.family_ids.clear();
        self.container_ids.clear();
        self.series_ids.clear();
        self.unmeasured = None;
        let first = self.frames.is_empty();
        let other = !first && run != self.run;
        self.run = run;
        for container in self.containers.values_mut() {
            if other {
                container.leave(at, true);
            }
            container.series.iter_mut().for_each(Series::await_name);
        }
        // Agents that do not tell their run may have been started anew.
        run == 0 && !first
    }

    pub(super) fn name_family(&mut self, id: u32, info: Arc<FamilyInfo>) {
        self.family_ids.insert(id, info);
    }

    /// A container is named; `namespace` and `container` are its own, as others share them.
    pub(super) fn name(
        &mut self,
        wire: &WireContainer,
        (namespace, container): (Arc<str>, Arc<str>),
        naming: &Naming,
    ) -> Result<Key, FrameError> {
        let family = |id: &u32| self.family_ids.get(id).cloned().ok_or(FrameError::Unknown { what: "family", id: *id });
        let families = wire.families.iter().map(family).collect::<Result<Vec<_>, _>>()?;
        let key: Key = Arc::new((namespace, wire.pod.as_str().into(), container));
        let age = naming.unix_ms.saturating_sub(wire.counted_since_ms);
        let counted_since = (wire.counted_since_ms != 0).then(|| naming.at.saturating_sub(age));
        // Its counts are from 0 since then, and its first sample is growth, if that is not long before. Otherwise what it did
        // before it was first told is not known.
        let gap = naming.at - naming.last.unwrap_or(naming.at);
        let from_nothing = counted_since.filter(|_| wire.from_start && age <= naming.longest && age <= gap + LATE_MS);
        let from_nothing = from_nothing.map(|it| it.min(naming.at.saturating_sub(1)));
        let from_start = from_nothing.is_some();
        let since = from_nothing.unwrap_or(naming.at);
        let known = self.containers.get_mut(&key).filter(|known| known.goes_on(wire, counted_since, naming));
        let key = if let Some(known) = known {
            known.measured(&families, naming.at, &mut self.families);
            if known.counted_since_ms < wire.counted_since_ms {
                // Something was missed in between, or it is another of the same name.
                (known.since, known.from_start) = (since, from_start);
            }
            known.counted_since_ms = wire.counted_since_ms;
            known.key.clone()
        } else {
            self.make_room(&key)?;
            let families = families.into_iter().map(|family| (family, since)).collect();
            let families = share(&mut self.families, families);
            let container = Container {
                key: key.clone(),
                since,
                from_start,
                counted_since_ms: wire.counted_since_ms,
                gone: None,
                over: false,
                families,
                series: Vec::new(),
                places: None,
            };
            self.containers.insert(container);
            key
        };
        self.container_ids.insert(wire.id, key.clone());
        Ok(key)
    }

    /// Forgets a container that is gone for one that comes, where there are too many.
    fn make_room(&mut self, key: &Key) -> Result<(), FrameError> {
        if self.containers.len() < MAX_CONTAINERS || self.containers.contains_key(key) {
            return Ok(());
        }
        let gone = self.containers.values().filter_map(|it| Some((it.gone?, it.key.clone())));
        let (_, oldest) =
            gone.min_by_key(|(at, _)| *at).ok_or(FrameError::TooMany { what: "containers", most: MAX_CONTAINERS })?;
        self.containers.remove(&oldest);
        self.made_room.push(oldest);
        Ok(())
    }

    /// Forgets containers, and says which are forgotten since this was last asked.
    pub(super) fn forget(&mut self, old: impl Fn(&Key, &Container) -> bool) -> Vec<Key> {
        let mut forgotten = std::mem::take(&mut self.made_room);
        forgotten.extend(self.containers.forget(old));
        forgotten
    }

    /// A family by the stream's id.
    pub(super) fn family(&self, id: u32) -> Result<&Arc<FamilyInfo>, FrameError> {
        self.family_ids.get(&id).ok_or(FrameError::Unknown { what: "family", id })
    }

    pub(super) fn name_series(&mut self, id: u32, container: u32, meaning: Arc<Meaning>) -> Result<(), FrameError> {
        let unknown = FrameError::Unknown { what: "container", id: container };
        let place = self.container_ids.get(&container).and_then(|key| self.containers.place(key));
        let Some((slot, held)) = place.and_then(|it| Some((it, self.containers.at_mut(it)?))) else {
            return Err(unknown);
        };
        if self.series_ids.len() >= MAX_SERIES || held.series.len() >= MAX_SERIES {
            return Err(FrameError::TooMany { what: "series", most: MAX_SERIES });
        }
        let index = held.place(&meaning);
        match held.series.get_mut(index) {
            Some(known) => known.name(),
            None => held.series.push(Series::new(meaning)),
        }
        self.series_ids.insert(id, Place { container: slot, series: index as u32 });
        Ok(())
    }

    /// All series of a frame are named.
    pub(super) fn named_series(&mut self, first: bool) {
        self.series_ids.settle();
        if first {
            // Few come later.
            self.containers.values_mut().for_each(|it| it.series.shrink_to_fit());
        }
    }

    /// Takes samples; those of a frame are mostly in the order of their series.
    pub(super) fn samples(&mut self, samples: &[Sample], at: u64, anew: bool) -> Result<(), FrameError> {
        let mut near = 0;
        for sample in samples {
            let Some(place) = self.series_ids.find(sample.series, &mut near) else {
                return Err(FrameError::Unknown { what: "series", id: sample.series });
            };
            let Some(container) = self.containers.at_mut(place.container) else { continue };
            let Some(series) = container.series.get(place.series as usize) else { continue };
            // Asked of few: whether a first value has grown from nothing.
            let from_nothing = series.is_new() && container.since(&series.family.name).is_some_and(|since| since < at);
            if let Some(series) = container.series.get_mut(place.series as usize) {
                series.apply(sample, at, Grown { from_nothing, anew });
            }
        }
        Ok(())
    }

    /// Takes note of what is not there any more.
    pub(super) fn leave(&mut self, frame: &Frame, at: u64) {
        for id in &frame.gone_series {
            let Some(place) = self.series_ids.remove(*id) else { continue };
            let container = self.containers.at_mut(place.container);
            if let Some(series) = container.and_then(|it| it.series.get_mut(place.series as usize)) {
                series.end(at);
            }
        }
        let mut left = false;
        for key in frame.gone.iter().filter_map(|id| self.container_ids.remove(id)) {
            left = true;
            if let Some(container) = self.containers.get_mut(&key) {
                container.leave(at, false);
            }
        }
        if frame.first {
            let named: std::collections::HashSet<&Key> = self.container_ids.values().collect();
            for container in self.containers.values_mut() {
                if !named.contains(&container.key) {
                    container.leave(at, false);
                    continue;
                }
                let unnamed = container.series.iter_mut().filter(|it| !it.is_told() && it.family.kind == Kind::Gauge);
                unnamed.for_each(|it| it.end(at));
            }
        }
        if left {
            let containers = &self.containers;
            self.series_ids.retain(|it| containers.at(it.container).is_some_and(|it| it.gone.is_none()));
        }
    }

    /// Drops what is too old at `at`, but for the newest frame before: it is where the longest window begins.
    pub(super) fn expire(&mut self, at: u64, longest: u64) {
        let cutoff = at.saturating_sub(longest);
        while self.frames.len() > 2 && self.frames[1] < cutoff {
            self.frames.pop_front();
        }
        if at.saturating_sub(self.swept) < SWEEP_MS {
            return;
        }
        self.swept = at;
        for container in self.containers.values_mut() {
            container.series.iter_mut().for_each(|it| it.expire(at.saturating_sub(it.family.kept_ms)));
        }
    }

    /// The newest frame that is not after `at`.
    pub(crate) fn frame_at(&self, at: u64) -> Option<u64> {
        let after = self.frames.partition_point(|it| *it <= at);
        self.frames.get(after.checked_sub(1)?).copied()
    }
}
