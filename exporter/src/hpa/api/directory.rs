//! Which pods there are, their labels, whether they ask to be measured, and which of them run: pods of the whole cluster by their
//! metadata alone. Label sets are shared, since pods of a workload have the same. Knows nothing of figures.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, core::PartialObjectMeta, runtime::watcher, runtime::watcher::Event};

use super::{follow::follow, owner, selector::Selector};

/// A pod's labels.
pub(crate) type Labels = Arc<BTreeMap<String, String>>;

/// Whether a pod is to be measured, by its own word.
const ENABLED: &str = "gopulse.io/enabled";
/// For how long pods that are gone are remembered: what they counted is part of sums for as long as a window is, of which the
/// longest is as long.
pub(crate) const DEPARTED: Duration = Duration::from_mins(10);
/// Pods that are gone and remembered, of one namespace.
const MOST_DEPARTED: usize = 10_000;
/// How long a pod may run without figures before they are missed: an agent finds a process, and attaches, in a second or two.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// The pods. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Directory(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    synced: bool,
    pods: Pods,
    /// Of a list that is under way.
    listing: Option<Pods>,
    shared: HashSet<Labels>,
    departed: HashMap<Box<str>, Departed>,
    /// Those that run, and since when as far as is known.
    running: Running,
    listing_running: Option<Running>,
    running_synced: bool,
}

type Pods = HashMap<Box<str>, HashMap<Box<str>, Known>>;
/// Pods of a namespace that are gone, and since when.
type Departed = VecDeque<(Instant, Box<str>, Labels)>;
type Running = HashMap<Box<str>, HashMap<Box<str>, Run>>;

/// Since when a pod runs.
#[derive(Clone, Copy)]
struct Run {
    since: Instant,
    /// It was seen to begin, or made so lately that it cannot run for longer.
    seen: bool,
}

#[derive(Clone)]
struct Known {
    labels: Labels,
    /// `gopulse.io/enabled`, where it says something.
    enabled: Option<bool>,
}

/// A pod that a selector chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// Its name.
    pub(crate) name: Box<str>,
    /// Whether it asks to be measured; none where it says nothing.
    pub(crate) enabled: Option<bool>,
    /// Whether it runs, and for so long ([`GRACE`]) that figures of it are due.
    pub(crate) due: bool,
    /// For how long it runs; none where that is not known, for it ran before it was first seen.
    pub(crate) running: Option<Duration>,
}

impl Directory {
    /// Follows the cluster's pods for ever.
    pub(crate) async fn run(self, client: Client) {
        let api: Api<PartialObjectMeta<Pod>> = Api::all(client);
        let all = watcher::Config::default().any_semantic();
        // The phase is no part of the metadata, but may be asked for: a pod comes and goes as it begins and ends to run.
        let running = watcher::Config::default().any_semantic().fields("status.phase=Running");
        // A list of very many pods leaves much behind that is not needed again.
        let settle = |listed: bool| {
            if listed {
                crate::heap::give_back();
            }
        };
        let take = |event| {
            let listed = matches!(event, Event::InitDone);
            self.take(event);
            settle(listed);
        };
        let take_running = |event| {
            let listed = matches!(event, Event::InitDone);
            self.take_running(event);
            settle(listed);
        };
        tokio::join!(follow("pods", api.clone(), all, take), follow("running pods", api, running, take_running));
    }

    /// Whether the first lists are complete.
    pub(crate) fn is_synced(&self) -> bool {
        let inner = self.lock();
        inner.synced && inner.running_synced
    }

    /// How many pods there are.
    pub(crate) fn len(&self) -> usize {
        self.lock().pods.values().map(HashMap::len).sum()
    }

    /// Names of a namespace's pods whose labels fulfil a selector.
    pub(crate) fn select(&self, namespace: &str, selector: &Selector) -> Vec<Box<str>> {
        self.choose(namespace, selector).into_iter().map(|it| it.name).collect()
    }

    /// A namespace's pods whose labels fulfil a selector.
    pub(crate) fn choose(&self, namespace: &str, selector: &Selector) -> Vec<Chosen> {
        let inner = self.lock();
        let running = inner.running.get(namespace);
        let pods = inner.pods.get(namespace).into_iter().flatten();
        pods.filter(|(_, known)| matches(selector, &known.labels))
            .map(|(name, known)| {
                let run = running.and_then(|it| it.get(name));
                Chosen {
                    name: name.clone(),
                    enabled: known.enabled,
                    due: run.is_some_and(|it| it.since.elapsed() >= GRACE),
                    running: run.filter(|it| it.seen).map(|it| it.since.elapsed()),
                }
            })
            .collect()
    }

    /// Names of pods that were there so long ago at most, and are not; of the last [`DEPARTED`] all that are remembered.
    pub(crate) fn departed(&self, namespace: &str, selector: &Selector, within: Duration) -> Vec<Box<str>> {
        let inner = self.lock();
        let there = inner.pods.get(namespace);
        let lately = inner.departed.get(namespace).into_iter().flatten().filter(|(at, ..)| at.elapsed() < within);
        let mut names: Vec<Box<str>> = lately
            .filter(|(_, name, labels)| matches(selector, labels) && there.is_none_or(|it| !it.contains_key(name)))
            .map(|(_, name, _)| name.clone())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whether there is such a pod.
    pub(crate) fn has(&self, namespace: &str, pod: &str) -> bool {
        self.lock().pods.get(namespace).is_some_and(|it| it.contains_key(pod))
    }

    /// Names of a namespace's pods that do not say whether they are to be measured.
    pub(crate) fn silent_on_it(&self, namespace: &str) -> Vec<Box<str>> {
        let inner = self.lock();
        let pods = inner.pods.get(namespace).into_iter().flatten();
        pods.filter(|(_, known)| known.enabled.is_none()).map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn take(&self, event: Event<PartialObjectMeta<Pod>>) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        match event {
            Event::Init => inner.listing = Some(Pods::new()),
            Event::InitApply(pod) | Event::Apply(pod) => inner.put(pod),
            Event::InitDone => {
                let listed = inner.listing.take().unwrap_or_default();
                // Those that went while nobody could watch are in no list.
                for (namespace, pods) in std::mem::replace(&mut inner.pods, listed) {
                    for (name, known) in pods {
                        if !inner.pods.get(&namespace).is_some_and(|it| it.contains_key(&name)) {
                            inner.depart(&namespace, &name, known.labels);
                        }
                    }
                }
                inner.shared.retain(|it| Arc::strong_count(it) > 1);
                inner.synced = true;
            }
            Event::Delete(pod) => {
                let (Some(namespace), Some(name)) = (pod.metadata.namespace, pod.metadata.name) else { return };
                if let Some(known) = inner.remove(&namespace, &name) {
                    inner.depart(&namespace, &name, known.labels);
                }
            }
        }
    }

    pub(super) fn take_running(&self, event: Event<PartialObjectMeta<Pod>>) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let named = |pod: &PartialObjectMeta<Pod>| {
            Some((pod.metadata.namespace.as_deref()?.into(), pod.metadata.name.as_deref()?.into()))
        };
        match event {
            Event::Init => inner.listing_running = Some(Running::new()),
            Event::InitApply(pod) | Event::Apply(pod) => {
                let Some((namespace, name)) = named(&pod) else { return };
                let (namespace, name): (Box<str>, Box<str>) = (namespace, name);
                let known = inner.running.get(&namespace).and_then(|it| it.get(&name)).copied();
                // One that is listed may run since long; it cannot since before it was made.
                let run = known.unwrap_or_else(|| {
                    let listed = inner.listing_running.is_some();
                    let age = if listed { age(&pod).unwrap_or(GRACE) } else { Duration::ZERO };
                    let since = Instant::now().checked_sub(age.min(GRACE)).unwrap_or_else(Instant::now);
                    Run { since, seen: age < GRACE }
                });
                let into = inner.listing_running.as_mut().unwrap_or(&mut inner.running);
                into.entry(namespace).or_default().insert(name, run);
            }
            Event::InitDone => {
                inner.running = inner.listing_running.take().unwrap_or_default();
                inner.running_synced = true;
            }
            Event::Delete(pod) => {
                let Some((namespace, name)) = named(&pod) else { return };
                let (namespace, name): (Box<str>, Box<str>) = (namespace, name);
                let from = inner.listing_running.as_mut().unwrap_or(&mut inner.running);
                if let Some(of_namespace) = from.get_mut(&namespace) {
                    of_namespace.remove(&name);
                    if of_namespace.is_empty() {
                        from.remove(&namespace);
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn matches(selector: &Selector, labels: &Labels) -> bool {
    selector.matches(|name| labels.get(name).map(String::as_str))
}

/// How long ago a pod was made, by the clocks of the API server and of this machine.
fn age(pod: &PartialObjectMeta<Pod>) -> Option<Duration> {
    let made = SystemTime::from(pod.metadata.creation_timestamp.as_ref()?.0);
    Some(SystemTime::now().duration_since(made).unwrap_or_default())
}

impl Inner {
    fn put(&mut self, pod: PartialObjectMeta<Pod>) {
        let going = pod.metadata.deletion_timestamp.is_some();
        let (Some(namespace), Some(name)) = (pod.metadata.namespace, pod.metadata.name) else { return };
        let mut labels = pod.metadata.labels.unwrap_or_default();
        owner::label(&mut labels, pod.metadata.owner_references.as_deref().unwrap_or_default());
        let labels = Arc::new(labels);
        let labels = self.shared.get(&labels).cloned().unwrap_or_else(|| {
            self.shared.insert(labels.clone());
            labels
        });
        // Being deleted: it gets no more requests, and is not to hold others back. What it does until it has ended is counted.
        if going {
            let was_there = self.remove(&namespace, &name).is_some();
            let remembered = self.departed.get(namespace.as_str()).is_some_and(|it| it.iter().any(|it| *it.1 == *name));
            if was_there || !remembered {
                self.depart(&namespace, &name, labels);
            }
            return;
        }
        let enabled = pod.metadata.annotations.as_ref().and_then(|it| it.get(ENABLED)?.trim().parse().ok());
        let pods = self.listing.as_mut().unwrap_or(&mut self.pods);
        pods.entry(namespace.into()).or_default().insert(name.into(), Known { labels, enabled });
    }

    fn remove(&mut self, namespace: &str, name: &str) -> Option<Known> {
        let pods = self.listing.as_mut().unwrap_or(&mut self.pods);
        let of_namespace = pods.get_mut(namespace)?;
        let removed = of_namespace.remove(name);
        if of_namespace.is_empty() {
            pods.remove(namespace);
        }
        removed
    }

    /// A pod is gone, or going.
    fn depart(&mut self, namespace: &str, name: &str, labels: Labels) {
        let now = Instant::now();
        self.departed.retain(|_, departed| {
            while departed.front().is_some_and(|(at, ..)| now.duration_since(*at) >= DEPARTED) {
                departed.pop_front();
            }
            !departed.is_empty()
        });
        let departed = self.departed.entry(namespace.into()).or_default();
        departed.push_back((now, name.into(), labels));
        while departed.len() > MOST_DEPARTED {
            departed.pop_front();
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
