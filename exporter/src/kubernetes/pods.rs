//! The pods of this node as they are known now: which container is whose, and whether it is measured. Kept small: a few hundred
//! bytes a pod, and of namespaces those alone that say something.

mod read;
mod told;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{
    annotations::{Asked, Checks},
    placement::{AskedPod, Found, Placement, PodProblems, WatchFigures},
    policy::{Policy, Verdict},
    workload::Workload,
};
use crate::process::ContainerId;

/// Containers, by the id that a process's cgroup names.
pub(crate) type Change = Vec<ContainerId>;

/// One of the two watches.
#[derive(Debug, Default)]
pub(super) struct WatchState {
    /// Whether the first list is complete.
    pub(super) synced: bool,
    /// Since when it cannot be watched, and why; none while it can.
    pub(super) down: Option<(Instant, String)>,
    /// When it failed last.
    pub(super) failed: Option<Instant>,
    /// Failures so far.
    pub(super) errors: u64,
}

#[derive(Debug)]
struct Pod {
    namespace: Arc<str>,
    name: Arc<str>,
    asked: Asked,
    routes: Arc<[String]>,
    workload: Option<Arc<Workload>>,
    labels: Arc<[(&'static str, String)]>,
    /// Names and images.
    containers: Vec<(Arc<str>, Arc<str>)>,
    /// Ids, with the container's place above.
    ids: Vec<(ContainerId, usize)>,
    problems: Arc<[String]>,
}

#[derive(Debug, Default)]
struct Namespace {
    enabled: Option<bool>,
    problems: Arc<[String]>,
}

#[derive(Default)]
struct Inner {
    pods: HashMap<Arc<str>, Pod>,
    /// Uid and place of a container by its id.
    containers: HashMap<ContainerId, (Arc<str>, usize)>,
    /// Those that say something.
    namespaces: BTreeMap<String, Namespace>,
    pods_watch: WatchState,
    namespaces_watch: WatchState,
    events_written: u64,
    events_failed: u64,
}

/// The pods. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pods {
    policy: Arc<Policy>,
    checks: Checks,
    default: bool,
    /// Chosen labels: the pod's name for it, and the metric's.
    chosen: Arc<[(String, &'static str)]>,
    inner: Arc<Mutex<Inner>>,
}

/// The watched resources, as metrics name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watched {
    Pods,
    Namespaces,
}

/// What applying a change asks the caller to do.
#[derive(Debug, Default)]
pub(super) struct Effect {
    /// Containers that are to be looked at again.
    pub(super) changed: Change,
    /// Problems to be told at the pod, if they are new.
    pub(super) told: Option<Arc<[String]>>,
}

impl Pods {
    /// None is known yet.
    pub(crate) fn new(settings: &super::PolicySettings, checks: Checks) -> Result<Self, String> {
        // As many as the configuration names, for the life of the process.
        let chosen = settings.pod_labels.iter().map(|label| (label.clone(), &*metric_label(label).leak()));
        let chosen: Vec<(String, &'static str)> = chosen.collect();
        for (i, (label, name)) in chosen.iter().enumerate() {
            // One series cannot have a label twice.
            if let Some((other, _)) = chosen[..i].iter().find(|(_, other)| other == name) {
                return Err(format!("pod_labels: {other} and {label} would both be shown as {name}"));
            }
        }
        Ok(Self {
            policy: Arc::new(Policy::new(settings)?),
            checks,
            default: settings.default,
            chosen: chosen.into(),
            inner: Arc::default(),
        })
    }

    /// What is known of the first of these containers that is known.
    pub(crate) fn find(&self, ids: &[ContainerId]) -> Found {
        let inner = self.lock();
        ids.iter().map(|id| self.look_up(&inner, id)).find(|found| *found != Found::Unknown).unwrap_or(Found::Unknown)
    }

    /// Whether this pod is there, as far as is known.
    pub(crate) fn knows(&self, uid: &str) -> bool {
        self.lock().pods.contains_key(uid)
    }

    /// Why the pods of this node are not known; none if they are.
    pub(crate) fn not_ready(&self) -> Option<String> {
        let inner = self.lock();
        let why = |watch: &WatchState| watch.down.as_ref().map_or_else(String::new, |(_, error)| format!(": {error}"));
        if !inner.pods_watch.synced {
            return Some(format!("the pods of this node are not known yet{}", why(&inner.pods_watch)));
        }
        (!self.namespaces_known(&inner))
            .then(|| format!("the namespaces are not known yet{}", why(&inner.namespaces_watch)))
    }

    /// What is being done without; none if nothing is.
    pub(crate) fn degraded(&self) -> Option<String> {
        let inner = self.lock();
        let watches = [("pods", &inner.pods_watch), ("namespaces", &inner.namespaces_watch)];
        let down = watches.iter().find_map(|(name, watch)| watch.down.as_ref().map(|down| (name, down)));
        down.map(|(name, (since, error))| {
            format!("{name} cannot be watched since {} s: {error}; what is known stands", since.elapsed().as_secs())
        })
    }

    /// Figures for the metrics.
    pub(crate) fn figures(&self) -> WatchFigures {
        let inner = self.lock();
        let of = |name, watch: &WatchState| (name, watch.synced && watch.down.is_none(), watch.errors);
        WatchFigures {
            pods: inner.pods.len() as u64,
            watches: vec![of("pods", &inner.pods_watch), of("namespaces", &inner.namespaces_watch)],
            events: vec![("written", inner.events_written), ("failed", inner.events_failed)],
        }
    }

    /// Pods that ask to be measured, or are to be; none while it is not known which those are.
    pub(crate) fn asked(&self) -> Option<Vec<AskedPod>> {
        if self.not_ready().is_some() {
            return None;
        }
        let inner = self.lock();
        let asked = inner.pods.values().filter_map(|pod| {
            let of_namespace = inner.namespaces.get(&*pod.namespace).and_then(|it| it.enabled);
            let refused = match self.policy.decide(&pod.namespace, pod.asked.enabled, of_namespace) {
                Verdict::Yes => None,
                Verdict::No(reason) if pod.asked.enabled == Some(true) => Some(reason),
                Verdict::No(_) => return None,
            };
            Some(AskedPod { namespace: pod.namespace.clone(), name: pod.name.clone(), refused })
        });
        Some(asked.collect())
    }

    /// Every pod and namespace whose annotations have a mistake.
    pub(crate) fn problems(&self) -> Vec<PodProblems> {
        let inner = self.lock();
        let of_namespaces =
            inner.namespaces.iter().filter(|(_, it)| !it.problems.is_empty()).map(|(name, it)| PodProblems {
                namespace: name.clone(),
                pod: None,
                state: "annotation_refused",
                problems: it.problems.to_vec(),
            });
        let of_pods = inner.pods.values().filter(|it| !it.problems.is_empty()).map(|it| PodProblems {
            namespace: it.namespace.to_string(),
            pod: Some(it.name.to_string()),
            state: "annotation_refused",
            problems: it.problems.to_vec(),
        });
        of_namespaces.chain(of_pods).collect()
    }

    /// Notes how a watch does.
    pub(super) fn watch<T>(&self, watched: Watched, act: impl FnOnce(&mut WatchState) -> T) -> T {
        let mut inner = self.lock();
        act(match watched {
            Watched::Pods => &mut inner.pods_watch,
            Watched::Namespaces => &mut inner.namespaces_watch,
        })
    }

    /// Counts an Event.
    pub(super) fn count_event(&self, written: bool) {
        let mut inner = self.lock();
        if written {
            inner.events_written += 1;
        } else {
            inner.events_failed += 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a namespace that is not known says nothing. Without the right to watch namespaces they never are; a pod that has
    /// not said so is then not measured, unless it is by default: its namespace may refuse.
    fn namespaces_known(&self, inner: &Inner) -> bool {
        inner.namespaces_watch.synced || (!self.default && inner.namespaces_watch.errors > 0)
    }

    fn look_up(&self, inner: &Inner, id: &ContainerId) -> Found {
        let Some((uid, place)) = inner.containers.get(id).filter(|_| inner.pods_watch.synced) else {
            return Found::Unknown;
        };
        let Some(pod) = inner.pods.get(uid).filter(|_| self.namespaces_known(inner)) else { return Found::Unknown };
        let of_namespace = inner.namespaces.get(&*pod.namespace).and_then(|it| it.enabled);
        if let Verdict::No(reason) = self.policy.decide(&pod.namespace, pod.asked.enabled, of_namespace) {
            return Found::Refused(reason);
        }
        let Some((container, image)) = pod.containers.get(*place) else { return Found::Unknown };
        if pod.asked.containers.as_ref().is_some_and(|names| !names.iter().any(|name| **name == **container)) {
            return Found::Refused("its pod's annotation names other containers");
        }
        Found::Wanted(Arc::new(Placement {
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            uid: uid.clone(),
            container: container.clone(),
            image: image.clone(),
            workload: pod.workload.clone(),
            labels: pod.labels.clone(),
            features: pod.asked.features.clone(),
            budget: pod.asked.budget.clone(),
            routes: pod.routes.clone(),
        }))
    }

    /// Makes a change; of these containers, those that are something else after it.
    fn changes(&self, inner: &mut Inner, ids: HashSet<ContainerId>, act: impl FnOnce(&mut Inner)) -> Change {
        let before: Vec<(ContainerId, Found)> = ids.into_iter().map(|id| (id, self.look_up(inner, &id))).collect();
        act(inner);
        before.into_iter().filter(|(id, found)| self.look_up(inner, id) != *found).map(|(id, _)| id).collect()
    }
}

fn forget(inner: &mut Inner, uid: &str) {
    if let Some(pod) = inner.pods.remove(uid) {
        for (id, _) in pod.ids {
            inner.containers.remove(&id);
        }
    }
}

/// `app.kubernetes.io/name` as `label_app_kubernetes_io_name`, as kube-state-metrics has it.
fn metric_label(label: &str) -> String {
    let tail = label.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '_' });
    "label_".chars().chain(tail).collect()
}

#[cfg(test)]
mod tests;
