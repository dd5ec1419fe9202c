//! One value of all pods of an object: which of them must have figures, which have none and why, and what that makes of a total.
//! Pure; knows nothing of who asks.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use thiserror::Error;

use super::{
    directory::{Chosen, DEPARTED, Directory},
    evaluate::{Value, evaluate_whole, is_partial, is_too_young},
    objects::{Part, Path},
    query::{NoValue, unknown_because},
    selector::Selector,
    store::{Account, Past, PodView, Store},
    table::Metric,
    through::unknowable,
};
use crate::hpa::quantity::Milli;

/// What is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Total<'a> {
    pub(crate) namespace: &'a str,
    /// Which pods, and which of their requests.
    pub(crate) parts: &'a [Part],
    /// Which of their figures.
    pub(crate) figures: &'a Selector,
    /// Its name, for people.
    pub(crate) what: &'a str,
    /// What to answer without any pod.
    pub(crate) none: NoPods,
}

/// A total that some pods' share is missing of.
#[derive(Debug, Error)]
#[error(
    "{} of {all} pods of {what} have no figures: {}{}. Their share is not known, and a total without it would be too small; it is \
     {}. Annotate pods that are not to count with \
     gopulse.io/enabled: \"false\"",
    missing.len(),
    missing.iter().take(3).map(|(pod, why)| format!("{pod} ({why})")).collect::<Vec<_>>().join(", "),
    if missing.len() > 3 { ", ..." } else { "" },
    match at_least {
        Some(it) => format!("at least {}, and answered where that is enough to scale up", Milli::of(it.value)),
        None => "not known how much".to_owned(),
    },
)]
pub(crate) struct Incomplete {
    what: String,
    all: usize,
    /// Pods and why they have no figures.
    missing: Vec<(Box<str>, String)>,
    /// What is known.
    pub(super) at_least: Option<Value>,
}

impl Incomplete {
    /// Whether what is known is more than this.
    pub(crate) fn is_above(&self, value: f64) -> bool {
        self.at_least.is_some_and(|it| it.value > value)
    }
}

/// What to answer of an object that no pods belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPods {
    /// That nothing is done: it is scaled to 0, and known to be there.
    Zero,
    /// That nothing is known: the selector may be mistaken.
    Unknown,
}

/// One value of all pods of these parts, from their merged figures.
pub(crate) fn whole(
    store: &Store,
    directory: &Directory,
    metric: &Metric,
    asked: &Total<'_>,
    now: Instant,
) -> Result<Value, NoValue> {
    let Total { namespace, parts, figures, what, none } = *asked;
    let mut joined = Joined::of(store, directory, metric, namespace, figures, now);
    for part in parts {
        for pod in directory.choose(namespace, &part.selector) {
            joined.add_pod(pod, part);
        }
        joined.add_departed(part);
    }
    let Joined { views, past, missing, seen, departed, .. } = joined;
    let all = seen.len();
    if let Some(why) = unknowable(metric, &views, figures) {
        return Err(unknown_because(what, why));
    }
    let value = evaluate_whole(metric, &views, &past, figures);
    // What is missing of a total makes it too small, and the workload would be scaled down for it.
    if !missing.is_empty() && metric.is_additive() {
        let at_least = value.filter(|_| metric.bounds_from_below());
        let incomplete = Incomplete { what: what.to_owned(), all: all + departed, missing, at_least };
        return Err(NoValue::Incomplete(Box::new(incomplete)));
    }
    if all == 0 && none == NoPods::Zero && directory.is_synced() {
        return metric
            .expression
            .evaluate(0, &mut |_, _| Some(0.0))
            .map(zero)
            .ok_or_else(|| unknown_because(what, "it has no pods".to_owned()));
    }
    let why = match (views.len(), missing.first()) {
        (0, Some((pod, why))) => format!("pod {pod} has no figures: {why}"),
        (0, None) => "none of its pods is measured".to_owned(),
        _ => "what this metric is made from is not measured of its pods, or not yet".to_owned(),
    };
    value.ok_or_else(|| unknown_because(what, why))
}

/// The figures of all pods of an object, as its parts are gone through.
struct Joined<'s> {
    store: &'s Store,
    directory: &'s Directory,
    metric: &'s Metric,
    namespace: &'s str,
    figures: &'s Selector,
    now: Instant,
    views: Vec<PodView<'s>>,
    past: Vec<Past<'s>>,
    /// Pods and why they have no figures.
    missing: Vec<(Box<str>, String)>,
    seen: HashMap<Box<str>, At>,
    gone: HashMap<Box<str>, usize>,
    /// Of a namespace in which a pod that says nothing is measured, all are that say nothing.
    by_default: Option<bool>,
    /// Pods that are gone and of which something is missing.
    departed: usize,
}

impl<'s> Joined<'s> {
    fn of(
        store: &'s Store,
        directory: &'s Directory,
        metric: &'s Metric,
        namespace: &'s str,
        figures: &'s Selector,
        now: Instant,
    ) -> Self {
        let (views, past, missing) = (Vec::new(), Vec::new(), Vec::new());
        let (seen, gone, by_default, departed) = (HashMap::new(), HashMap::new(), None, 0);
        Self {
            store,
            directory,
            metric,
            namespace,
            figures,
            now,
            views,
            past,
            missing,
            seen,
            gone,
            by_default,
            departed,
        }
    }

    /// A pod that is there.
    fn add_pod(&mut self, pod: Chosen, part: &Part) {
        let (store, namespace, now) = (self.store, self.namespace, self.now);
        // Two Services may choose one pod: what comes through either is counted once.
        if let Some(at) = self.seen.get(&pod.name) {
            at.also(part.paths.as_ref(), &mut self.views, &mut self.past);
            return;
        }
        if let Some(view) = store.pod(namespace, &pod.name, now) {
            let view = view.running_for(pod.running, now);
            if view.silent {
                self.miss(pod.name, "its agent has been silent for 15 s");
            } else if pod.due && is_too_young(self.metric, &view, self.figures) {
                self.miss(pod.name, "its figures begin just now");
            } else {
                self.seen.insert(pod.name, At::View(self.views.len()));
                self.views.push(PodView { paths: part.paths.clone(), ..view });
            }
            return;
        }
        self.seen.insert(pod.name.clone(), At::Past(self.past.len()));
        self.past.push(Past { paths: part.paths.clone(), ..store.past(namespace, &pod.name, now) });
        if pod.due
            && pod.enabled.unwrap_or_else(|| self.measured_by_default())
            && let Some(why) = why_missing(store, namespace, &pod, now)
        {
            self.missing.push((pod.name, why));
        }
    }

    fn miss(&mut self, pod: Box<str>, why: &str) {
        self.seen.insert(pod.clone(), At::Missing);
        self.missing.push((pod, why.to_owned()));
    }

    fn measured_by_default(&mut self) -> bool {
        let (store, namespace, now) = (self.store, self.namespace, self.now);
        let silent = || self.directory.silent_on_it(namespace);
        *self.by_default.get_or_insert_with(|| silent().iter().any(|name| store.pod(namespace, name, now).is_some()))
    }

    /// Pods of a part that are gone.
    fn add_departed(&mut self, part: &Part) {
        let (store, namespace, now) = (self.store, self.namespace, self.now);
        for name in self.directory.departed(namespace, &part.selector, DEPARTED) {
            if let Some(at) = self.gone.get(&name) {
                At::Past(*at).also(part.paths.as_ref(), &mut self.views, &mut self.past);
                continue;
            }
            self.gone.insert(name.clone(), self.past.len());
            self.past.push(Past { paths: part.paths.clone(), ..store.past(namespace, &name, now) });
        }
        // What served within the window is part of it, and others have begun to take its place.
        for name in self.directory.departed(namespace, &part.selector, self.metric.window) {
            if self.missing.iter().any(|(known, _)| *known == name) {
                continue;
            }
            let why = if store.is_silent(namespace, &name, now) {
                "it is gone, and its agent was silent before"
            } else if is_partial(self.metric, &store.past(namespace, &name, now), self.figures) {
                "it is gone, and was counted for a part of the last seconds"
            } else {
                continue;
            };
            self.departed += 1;
            self.missing.push((name, why.to_owned()));
        }
    }
}

/// Where a pod's figures are among those that are joined.
enum At {
    View(usize),
    Past(usize),
    Missing,
}

impl At {
    /// Adds what comes through another part's paths.
    fn also(&self, paths: Option<&Arc<[Path]>>, views: &mut [PodView<'_>], past: &mut [Past<'_>]) {
        let known = match self {
            Self::View(at) => &mut views[*at].paths,
            Self::Past(at) => &mut past[*at].paths,
            Self::Missing => return,
        };
        *known = either(known.take(), paths.cloned());
    }
}

/// Paths of two parts; none is all.
fn either(one: Option<Arc<[Path]>>, other: Option<Arc<[Path]>>) -> Option<Arc<[Path]>> {
    Some(one?.iter().chain(other?.iter()).cloned().collect())
}

/// A value of now, without any pod.
fn zero(value: f64) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Value { value, at_ms: now.as_millis() as u64, window_seconds: 1 }
}

/// Why a pod that is to be measured has no figures; none where that is as it should be, or nobody could tell.
fn why_missing(store: &Store, namespace: &str, pod: &Chosen, now: Instant) -> Option<String> {
    match store.account(namespace, &pod.name, now) {
        Account::Told(without) => (!without.expected).then(|| format!("its agent says: {}", without.reason)),
        Account::Unheard => Some("no agent tells of it: its node's is not heard of, or it has none".to_owned()),
        Account::Unknowable => None,
    }
}

#[cfg(test)]
pub(super) mod tests;
