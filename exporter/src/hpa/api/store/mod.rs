//! What the agents have said, for as long as the table's longest window. Plain data; knows nothing of connections, of
//! Kubernetes' objects or of HTTP.
//!
//! A frame's time is the agent's clock's, which goes on where it was when it is set anew; whether an agent is silent is judged by
//! when its frames came, by our own.

mod agent;
mod container;
mod history;
mod places;
mod series;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use thiserror::Error;

pub(crate) use self::{
    agent::{Agent, Without},
    container::Container,
    series::{FamilyInfo, LabelSet, Series},
};
use self::{container::Naming, series::Meaning};
use super::objects::Path;
use crate::hpa::wire::{Frame, Kind};

/// How long the last values of a silent agent stand.
pub(crate) const SILENCE: Duration = Duration::from_secs(15);
/// How long the counts of a silent agent are remembered, to be gone on with when it is heard again.
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
    pods: HashMap<Arc<str>, HashMap<Arc<str>, Vec<Holder>>>,
    /// Names of namespaces and containers: very many pods have the same.
    names: HashSet<Arc<str>>,
    families: HashSet<Arc<FamilyInfo>>,
    labels: HashSet<LabelSet>,
    /// What there are series of, by the addresses of family and labels.
    meanings: HashMap<(usize, usize), Arc<Meaning>>,
    /// When the first frame of all came.
    began: Option<Instant>,
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

/// Namespace, pod and container.
type Key = Arc<(Arc<str>, Arc<str>, Arc<str>)>;

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
        Self {
            kept,
            agents: HashMap::new(),
            pods: HashMap::new(),
            names: HashSet::new(),
            families: HashSet::new(),
            labels: HashSet::new(),
            meanings: HashMap::new(),
            began: None,
        }
    }

    /// Takes a frame of an agent.
    pub(crate) fn apply(&mut self, agent: &Arc<str>, frame: &Frame, now: Instant) -> Result<(), FrameError> {
        let longest = self.kept.longest();
        let fresh = !self.agents.contains_key(agent);
        if fresh && !frame.first {
            return Err(FrameError::NotFirst);
        }
        let began = *self.began.get_or_insert(now);
        let state = self.agents.entry(agent.clone()).or_insert_with(|| Agent::new(now));
        let last = state.frames.back().copied();
        let at = state.time_of(frame, now);
        let anew = frame.first && state.begin(frame.run, at);
        for family in &frame.families {
            let kept = self.kept.of(&family.name);
            let info = FamilyInfo::of(family, kept).ok_or_else(|| FrameError::Family(family.name.clone()))?;
            state.name_family(family.id, shared(&mut self.families, info));
        }
        let naming = Naming { last, at, unix_ms: frame.unix_ms, first: frame.first, longest };
        for wire in &frame.containers {
            let names = (shared_name(&mut self.names, &wire.namespace), shared_name(&mut self.names, &wire.container));
            let key = state.name(wire, names, &naming)?;
            let holders = self.pods.entry(key.0.clone()).or_default().entry(key.1.clone()).or_default();
            match holders.iter_mut().find(|it| it.agent == *agent) {
                Some(holder) if holder.containers.contains(&key) => {}
                Some(holder) => holder.containers.push(key),
                None => {
                    // Most pods have one, and a list takes room for four unless told.
                    holders.reserve_exact(1);
                    holders.push(Holder { agent: agent.clone(), containers: vec![key] });
                }
            }
        }
        for wire in &frame.series {
            let pairs: Vec<(Box<str>, Box<str>)> =
                wire.labels.chunks_exact(2).map(|pair| (pair[0].as_str().into(), pair[1].as_str().into())).collect();
            let labels = shared_labels(&mut self.labels, pairs);
            let family = state.family(wire.family)?.clone();
            let addresses = (Arc::as_ptr(&family).addr(), labels.0.as_ptr().addr());
            let meaning = self.meanings.entry(addresses).or_insert_with(|| Arc::new(Meaning { family, labels }));
            state.name_series(wire.id, wire.container, meaning.clone())?;
        }
        state.named_series(frame.first);
        state.samples(&frame.samples, at, anew)?;
        state.leave(frame, at);
        if let Some(unmeasured) = &frame.unmeasured {
            state.set_unmeasured(unmeasured);
        }
        state.frames.push_back(at);
        state.arrived = now;
        state.known_ms = now.saturating_duration_since(began).as_millis() as u64;
        state.expire(at, longest);
        Ok(())
    }

    /// Forgets agents that have been silent for long, containers that are gone, if their pod is, and what nothing refers to any
    /// more.
    pub(crate) fn clean(&mut self, now: Instant, is_there: impl Fn(&str, &str) -> bool) {
        let longest = self.kept.longest();
        let old = |agent: &Agent| now.duration_since(agent.arrived) > MEMORY;
        let mut gone: Vec<(Arc<str>, Vec<Key>)> = Vec::new();
        for (name, agent) in self.agents.extract_if(|_, agent| old(agent)) {
            gone.push((name, agent.containers.values().map(|it| it.key.clone()).collect()));
        }
        for (name, agent) in &mut self.agents {
            let newest = agent.frames.back().copied().unwrap_or(0);
            let forgotten = agent.forget(|key, container| {
                let past = container.gone.is_some_and(|gone| newest.saturating_sub(gone) > longest);
                past && !is_there(&key.0, &key.1)
            });
            if !forgotten.is_empty() {
                gone.push((name.clone(), forgotten));
            }
        }
        // Of those alone: looking through all pods would keep everybody waiting who asks meanwhile.
        for (agent, keys) in gone {
            for key in keys {
                self.release(&agent, &key);
            }
        }
        self.meanings.retain(|_, it| Arc::strong_count(it) > 1);
        self.labels.retain(|it| Arc::strong_count(&it.0) > 1);
        self.families.retain(|it| Arc::strong_count(it) > 1);
        self.names.retain(|it| Arc::strong_count(it) > 1);
    }

    /// An agent does not have this container any more.
    fn release(&mut self, agent: &Arc<str>, key: &Key) {
        // It may have come back meanwhile.
        if self.agents.get(agent).is_some_and(|it| it.containers.contains_key(key)) {
            return;
        }
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

    /// Containers and series that are told of.
    pub(crate) fn size(&self) -> (usize, usize) {
        let containers =
            self.agents.values().flat_map(|agent| agent.containers.values()).filter(|it| it.gone.is_none());
        containers.fold((0, 0), |(count, series), it| (count + 1, series + it.told_series()))
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
        let live = holders.iter().filter_map(|it| {
            let agent = self.agents.get(&it.agent)?;
            let live = |key: &Key| agent.containers.get(key).filter(|it| it.gone.is_none());
            let containers: Vec<_> = it.containers.iter().filter_map(live).collect();
            (!containers.is_empty()).then_some((agent, containers))
        });
        let (agent, containers) = live.max_by_key(|(agent, _)| agent.arrived)?;
        let past = self.all_of(holders, now).filter(|(_, it)| it.gone.is_some()).collect();
        Some(PodView { agent, containers, past, silent: agent.is_silent(now), paths: None, life_ms: None })
    }

    /// What was counted of a pod that is no object's any more, or without figures: also of containers that still run, for one
    /// that is being deleted goes on until what it has begun is done.
    pub(crate) fn past(&self, namespace: &str, pod: &str, now: Instant) -> Past<'_> {
        let holders = self.pods.get(namespace).and_then(|pods| pods.get(pod));
        Past { containers: holders.map_or(Vec::new(), |it| self.all_of(it, now).collect()), paths: None }
    }

    /// Whether a pod was last told of by an agent that has been silent since, as running.
    pub(crate) fn is_silent(&self, namespace: &str, pod: &str, now: Instant) -> bool {
        self.pod(namespace, pod, now).is_some_and(|it| it.silent)
    }

    /// The containers of a pod at agents that are heard of, gone or not.
    fn all_of<'s>(&'s self, holders: &'s [Holder], now: Instant) -> impl Iterator<Item = (&'s Agent, &'s Container)> {
        let of_agents = holders.iter().filter_map(|it| Some((it, self.agents.get(&it.agent)?)));
        let heard = of_agents.filter(move |(_, agent)| !agent.is_silent(now));
        heard.flat_map(|(it, agent)| {
            it.containers.iter().filter_map(move |key| Some((agent, agent.containers.get(key)?)))
        })
    }

    /// What agents say of a pod without figures.
    pub(crate) fn account(&self, namespace: &str, pod: &str, now: Instant) -> Account<'_> {
        let live = || self.agents.values().filter(|agent| !agent.is_silent(now));
        if let Some(without) = live().find_map(|agent| agent.without(namespace, pod)) {
            return Account::Told(without);
        }
        if live().all(Agent::tells_unmeasured) { Account::Unheard } else { Account::Unknowable }
    }
}

/// What agents say of a pod without figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Account<'s> {
    /// The agent of its node says why.
    Told(&'s Without),
    /// No agent says anything: its own is not heard of, or there is none.
    Unheard,
    /// There are agents, of versions before this one, that do not tell.
    Unknowable,
}

/// What was counted of containers that are gone.
#[derive(Debug, Default)]
pub(crate) struct Past<'s> {
    /// With their agents.
    pub(crate) containers: Vec<(&'s Agent, &'s Container)>,
    /// Which of its requests are meant; none: all.
    pub(crate) paths: Option<Arc<[Path]>>,
}

/// A pod's figures.
#[derive(Debug)]
pub(crate) struct PodView<'s> {
    /// Whose.
    pub(crate) agent: &'s Agent,
    /// Its measured containers.
    pub(crate) containers: Vec<&'s Container>,
    /// Those that were, and are gone: what they counted within a window is part of it.
    pub(crate) past: Vec<(&'s Agent, &'s Container)>,
    /// Whether nothing was heard of it for [`SILENCE`].
    pub(crate) silent: bool,
    /// Which of its requests are meant; none: all.
    pub(crate) paths: Option<Arc<[Path]>>,
    /// For how long it ran when its newest figures came, milliseconds; none where that is not known.
    pub(crate) life_ms: Option<u64>,
}

impl PodView<'_> {
    /// With what is known of how long it runs now.
    pub(crate) fn running_for(self, running: Option<Duration>, now: Instant) -> Self {
        let late = now.saturating_duration_since(self.agent.arrived);
        Self { life_ms: running.map(|it| it.saturating_sub(late).as_millis() as u64), ..self }
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

fn shared_name(known: &mut HashSet<Arc<str>>, name: &str) -> Arc<str> {
    if let Some(known) = known.get(name) {
        return known.clone();
    }
    let name: Arc<str> = name.into();
    known.insert(name.clone());
    name
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
