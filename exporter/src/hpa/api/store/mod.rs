//! What the agents have said, for as long as the table's longest window. Plain data; knows nothing of connections, of
//! Kubernetes' objects or of HTTP.
//!
//! A frame's time is the agent's clock's, which goes on where it was when it is set anew; whether an agent is silent is judged by
//! when its frames came, by our own.

mod series;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use thiserror::Error;

pub(crate) use self::series::{FamilyInfo, LabelSet, Series};
use super::objects::Path;
use crate::hpa::wire::{Container as WireContainer, Frame, Kind};

/// How long the last values of a silent agent stand.
pub(crate) const SILENCE: Duration = Duration::from_secs(15);
/// How long it is remembered which containers a silent agent had: their workloads' totals are known to be short until then.
pub(crate) const MEMORY: Duration = Duration::from_mins(5);
/// Most series of one agent: 250 targets at their limits.
const MAX_SERIES: usize = 200_000;
/// Most containers of one agent.
const MAX_CONTAINERS: usize = 10_000;
/// How late a frame may be without its window being cut.
const LATE_MS: u64 = 5_000;
/// Most buckets of a histogram.
const MAX_BUCKETS: usize = 1_000;

/// Everything.
#[derive(Debug)]
pub(crate) struct Store {
    kept: Kept,
    agents: HashMap<Arc<str>, Agent>,
    /// Who has a pod, by namespace and name: more than one agent while a pod of the same name moves.
    pods: HashMap<Box<str>, HashMap<Box<str>, Vec<Holder>>>,
    families: HashSet<Arc<FamilyInfo>>,
    labels: HashSet<LabelSet>,
}

/// For how long the figures of a family are kept: for the longest window that a metric has for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    /// Families that metrics are made of.
    pub(crate) families: HashMap<String, Duration>,
    /// Others.
    pub(crate) others: Duration,
}

impl Kept {
    /// Milliseconds; a little more than the window, so that its start is there when frames come late. 0: not at all.
    fn of(&self, family: &str) -> u64 {
        let kept = self.families.get(family).copied().unwrap_or(self.others).as_millis() as u64;
        if kept == 0 { 0 } else { kept + LATE_MS }
    }

    fn longest(&self) -> u64 {
        self.families.values().chain([&self.others]).max().map_or(0, |it| it.as_millis() as u64) + LATE_MS
    }
}

/// An agent that has a pod, and the pod's containers there.
#[derive(Debug)]
struct Holder {
    agent: Arc<str>,
    containers: Vec<Key>,
}

/// One agent.
#[derive(Debug)]
pub(crate) struct Agent {
    /// Times of its frames, milliseconds since 1970 by its clock as it was at first, the newest last.
    pub(crate) frames: VecDeque<u64>,
    /// By how many milliseconds its clock has been set back since.
    set_back: i64,
    /// When its last frame came.
    arrived: Instant,
    containers: HashMap<Key, Container>,
    /// Families, containers and series by the stream's own ids.
    family_ids: HashMap<u32, Arc<FamilyInfo>>,
    container_ids: HashMap<u32, Key>,
    series_ids: HashMap<u32, (Key, usize)>,
}

/// Namespace, pod and container.
type Key = Arc<(Box<str>, Box<str>, Box<str>)>;

/// A measured container.
#[derive(Debug)]
pub(crate) struct Container {
    key: Key,
    /// Since when its growth is known, by the agent's clock.
    since: u64,
    /// What is measured of it.
    families: Vec<Arc<FamilyInfo>>,
    series: Vec<Series>,
}

/// Why a frame is not taken; the stream is to be begun anew.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum FrameError {
    #[error("the stream's first frame is not marked as the first")]
    NotFirst,
    #[error("frame names {what} {id}, which is not known")]
    Unknown { what: &'static str, id: u32 },
    #[error("more than {most} {what}")]
    TooMany { what: &'static str, most: usize },
    #[error("family {0:?} is malformed")]
    Family(String),
}

impl Store {
    /// Nothing is known yet.
    pub(crate) fn new(kept: Kept) -> Self {
        Self { kept, agents: HashMap::new(), pods: HashMap::new(), families: HashSet::new(), labels: HashSet::new() }
    }

    /// Takes a frame of an agent.
    pub(crate) fn apply(&mut self, agent: &Arc<str>, frame: &Frame, now: Instant) -> Result<(), FrameError> {
        let longest = self.kept.longest();
        let fresh = !self.agents.contains_key(agent);
        if fresh && !frame.first {
            return Err(FrameError::NotFirst);
        }
        let state = self.agents.entry(agent.clone()).or_insert_with(|| Agent::new(now));
        let mut unsaid = if frame.first { state.begin() } else { HashSet::new() };
        let last = state.frames.back().copied();
        let at = state.time_of(frame, now);

        for family in &frame.families {
            let kept = self.kept.of(&family.name);
            let info = FamilyInfo::of(family, kept).ok_or_else(|| FrameError::Family(family.name.clone()))?;
            state.family_ids.insert(family.id, shared(&mut self.families, info));
        }
        for wire in &frame.containers {
            let key = state.name(wire, last.unwrap_or(at), at)?;
            unsaid.remove(&key);
            let holders = self.pods.entry(key.0.clone()).or_default().entry(key.1.clone()).or_default();
            match holders.iter_mut().find(|it| it.agent == *agent) {
                Some(holder) if holder.containers.contains(&key) => {}
                Some(holder) => holder.containers.push(key),
                None => holders.push(Holder { agent: agent.clone(), containers: vec![key] }),
            }
        }
        for wire in &frame.series {
            let pairs: Vec<(Box<str>, Box<str>)> =
                wire.labels.chunks_exact(2).map(|pair| (pair[0].as_str().into(), pair[1].as_str().into())).collect();
            let labels = shared_labels(&mut self.labels, pairs);
            state.name_series(wire.id, wire.container, wire.family, labels)?;
        }
        for sample in &frame.samples {
            let Some((key, index)) = state.series_ids.get(&sample.series) else {
                return Err(FrameError::Unknown { what: "series", id: sample.series });
            };
            let Some(container) = state.containers.get_mut(key) else { continue };
            let (since, series) = (container.since, &mut container.series[*index]);
            series.apply(sample, at, since < at);
        }
        let gone: Vec<Key> = frame.gone.iter().filter_map(|id| state.container_ids.remove(id)).chain(unsaid).collect();
        for key in &gone {
            state.containers.remove(key);
        }
        if !gone.is_empty() {
            state.series_ids.retain(|_, (key, _)| state.containers.contains_key(key));
        }
        state.frames.push_back(at);
        state.arrived = now;
        state.expire(at, longest);
        for key in gone {
            self.forget(agent, &key);
        }
        Ok(())
    }

    /// Forgets agents that have been silent for long, and what nothing refers to any more.
    pub(crate) fn clean(&mut self, now: Instant) {
        let old: Vec<Arc<str>> = self
            .agents
            .iter()
            .filter(|(_, agent)| now.duration_since(agent.arrived) > MEMORY)
            .map(|(name, _)| name.clone())
            .collect();
        for name in old {
            let Some(agent) = self.agents.remove(&name) else { continue };
            for key in agent.containers.keys() {
                self.forget(&name, key);
            }
        }
        self.labels.retain(|it| Arc::strong_count(&it.0) > 1);
        self.families.retain(|it| Arc::strong_count(it) > 1);
    }

    /// Agents heard of within [`SILENCE`].
    pub(crate) fn live_agents(&self, now: Instant) -> usize {
        self.agents.values().filter(|agent| !agent.is_silent(now)).count()
    }

    /// When an agent was last heard of.
    pub(crate) fn heard(&self, agent: &str) -> Option<Instant> {
        self.agents.get(agent).map(|it| it.arrived)
    }

    /// How many seconds of figures there are of the agent that has the most.
    pub(crate) fn span(&self) -> Duration {
        let span = |agent: &Agent| Some(agent.frames.back()? - agent.frames.front()?);
        Duration::from_millis(self.agents.values().filter_map(span).max().unwrap_or(0))
    }

    /// Containers and series known.
    pub(crate) fn size(&self) -> (usize, usize) {
        let containers = self.agents.values().flat_map(|agent| agent.containers.values());
        containers.fold((0, 0), |(count, series), it| (count + 1, series + it.series.len()))
    }

    /// Every label set of some series.
    pub(crate) fn label_sets(&self) -> impl Iterator<Item = &LabelSet> {
        self.labels.iter()
    }

    /// Families known, by name.
    pub(crate) fn family_kinds(&self) -> impl Iterator<Item = (&str, Kind)> {
        self.families.iter().map(|it| (&*it.name, it.kind))
    }

    /// A pod's containers, at the agent that was heard of last. Whether that agent is silent is said beside.
    pub(crate) fn pod(&self, namespace: &str, pod: &str, now: Instant) -> Option<PodView<'_>> {
        let holders = self.pods.get(namespace)?.get(pod)?;
        let known = holders.iter().filter_map(|it| Some((it, self.agents.get(&it.agent)?)));
        let (holder, agent) = known.max_by_key(|(_, agent)| agent.arrived)?;
        let containers: Vec<_> = holder.containers.iter().filter_map(|key| agent.containers.get(key)).collect();
        (!containers.is_empty()).then(|| PodView { agent, containers, silent: agent.is_silent(now), paths: None })
    }

    fn forget(&mut self, agent: &Arc<str>, key: &Key) {
        let Some(pods) = self.pods.get_mut(&key.0) else { return };
        if let Some(holders) = pods.get_mut(&key.1) {
            for holder in holders.iter_mut().filter(|it| it.agent == *agent) {
                holder.containers.retain(|it| it != key);
            }
            holders.retain(|it| !it.containers.is_empty());
            if holders.is_empty() {
                pods.remove(&key.1);
            }
        }
        if pods.is_empty() {
            self.pods.remove(&key.0);
        }
    }
}

/// A pod's figures.
#[derive(Debug)]
pub(crate) struct PodView<'s> {
    /// Whose.
    pub(crate) agent: &'s Agent,
    /// Its measured containers.
    pub(crate) containers: Vec<&'s Container>,
    /// Whether nothing was heard of it for [`SILENCE`].
    pub(crate) silent: bool,
    /// Which of its requests are meant; none: all.
    pub(crate) paths: Option<Arc<[Path]>>,
}

impl Container {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.key.2
    }

    /// Since when its growth is known.
    pub(crate) fn since(&self) -> u64 {
        self.since
    }

    /// Whether a family is measured of it.
    pub(crate) fn has(&self, family: &str) -> bool {
        self.families.iter().any(|it| *it.name == *family)
    }

    /// Its series of a family.
    pub(crate) fn series<'c>(&'c self, family: &'c str) -> impl Iterator<Item = &'c Series> {
        self.series.iter().filter(move |it| *it.family.name == *family)
    }
}

impl Agent {
    fn new(now: Instant) -> Self {
        Self {
            frames: VecDeque::new(),
            set_back: 0,
            arrived: now,
            containers: HashMap::new(),
            family_ids: HashMap::new(),
            container_ids: HashMap::new(),
            series_ids: HashMap::new(),
        }
    }

    fn is_silent(&self, now: Instant) -> bool {
        now.duration_since(self.arrived) > SILENCE
    }

    /// A frame's time. Rates are over these times, so where the clock was set in between it is the time by our own clock that has
    /// passed: frames may come late together, but no time goes back, and none is far from ours when a stream begins.
    fn time_of(&mut self, frame: &Frame, now: Instant) -> u64 {
        let Some(last) = self.frames.back().copied() else { return frame.unix_ms };
        let at = frame.unix_ms.wrapping_add_signed(self.set_back);
        let awaited = last.saturating_add(now.duration_since(self.arrived).as_millis() as u64);
        if at >= last && !(frame.first && at.abs_diff(awaited) > LATE_MS) {
            return at.max(last.saturating_add(1));
        }
        self.set_back = awaited.wrapping_sub(frame.unix_ms).cast_signed();
        awaited.max(last.saturating_add(1))
    }

    /// A new stream begins: its ids are its own. What was known stays, to be gone on with where it is named again.
    fn begin(&mut self) -> HashSet<Key> {
        self.family_ids.clear();
        self.container_ids.clear();
        self.series_ids.clear();
        self.containers.keys().cloned().collect()
    }

    /// A container is named. `before` is the time of the last frame that did not have it; where there is none, its growth is
    /// known from now on.
    fn name(&mut self, wire: &WireContainer, before: u64, at: u64) -> Result<Key, FrameError> {
        let family = |id: &u32| self.family_ids.get(id).cloned().ok_or(FrameError::Unknown { what: "family", id: *id });
        let families = wire.families.iter().map(family).collect::<Result<Vec<_>, _>>()?;
        let text = |text: &String| text.as_str().into();
        let key: Key = Arc::new((text(&wire.namespace), text(&wire.pod), text(&wire.container)));
        let held = self.containers.len();
        let key = match self.containers.get_mut(&key) {
            Some(known) => {
                known.families = families;
                known.key.clone()
            }
            None if held >= MAX_CONTAINERS => {
                return Err(FrameError::TooMany { what: "containers", most: MAX_CONTAINERS });
            }
            None => {
                let since = if self.frames.is_empty() { at } else { before };
                let container = Container { key: key.clone(), since, families, series: Vec::new() };
                self.containers.insert(key.clone(), container);
                key
            }
        };
        self.container_ids.insert(wire.id, key.clone());
        Ok(key)
    }

    fn name_series(&mut self, id: u32, container: u32, family: u32, labels: LabelSet) -> Result<(), FrameError> {
        let unknown = |what, id| FrameError::Unknown { what, id };
        let key = self.container_ids.get(&container).ok_or(unknown("container", container))?.clone();
        let family = self.family_ids.get(&family).ok_or(unknown("family", family))?;
        let held = self.containers.get_mut(&key).ok_or(unknown("container", container))?;
        let known = held.series.iter().position(|it| it.labels == labels && Arc::ptr_eq(&it.family, family));
        let index = known.unwrap_or_else(|| {
            held.series.push(Series::new(family.clone(), labels));
            held.series.len() - 1
        });
        if self.series_ids.len() >= MAX_SERIES {
            return Err(FrameError::TooMany { what: "series", most: MAX_SERIES });
        }
        self.series_ids.insert(id, (key, index));
        Ok(())
    }

    /// Drops what is too old at `at`, but for the newest frame before: it is where the longest window begins.
    fn expire(&mut self, at: u64, longest: u64) {
        let cutoff = at.saturating_sub(longest);
        while self.frames.len() > 2 && self.frames[1] < cutoff {
            self.frames.pop_front();
        }
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

fn shared(known: &mut HashSet<Arc<FamilyInfo>>, info: FamilyInfo) -> Arc<FamilyInfo> {
    if let Some(known) = known.get(&info) {
        return known.clone();
    }
    let info = Arc::new(info);
    known.insert(info.clone());
    info
}

fn shared_labels(known: &mut HashSet<LabelSet>, pairs: Vec<(Box<str>, Box<str>)>) -> LabelSet {
    let labels = LabelSet(pairs.into());
    if let Some(known) = known.get(&labels) {
        return known.clone();
    }
    known.insert(labels.clone());
    labels
}

#[cfg(test)]
mod tests;
