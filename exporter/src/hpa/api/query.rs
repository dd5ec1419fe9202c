//! From a question to values: which pods, which of their figures, and whether enough is known. HTTP and gRPC ask here alike.

use std::{
    collections::{BTreeSet, HashMap},
    slice::from_ref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use thiserror::Error;

use super::{
    answer::{Described, Of},
    directory::Directory,
    evaluate::{Value, evaluate},
    objects::{Kind, ObjectError, Objects, Part, Path},
    selector::{Requirement, Selector, SelectorError, Test},
    store::{LabelSet, PodView, Store},
    table::{MAX_LISTED, Metric, Table},
    through::unknowable,
};
use crate::hpa::families;

/// Why there is no value.
#[derive(Debug, Error)]
pub(crate) enum NoValue {
    /// 404.
    #[error("no metric {0}: see /apis/custom.metrics.k8s.io/v1beta2 for those there are")]
    Metric(String),
    /// 400.
    #[error("{0}")]
    Selector(#[from] SelectorError),
    /// 404 or 500.
    #[error("{0}")]
    Object(#[from] ObjectError),
    /// 404.
    #[error("{what} is not known: {why}")]
    Unknown { what: String, why: &'static str },
    /// 404.
    #[error("{what} is not known: {why}")]
    Unknowable { what: String, why: String },
    /// 503.
    #[error(
        "{silent} of {all} pods of {what} are at agents that have been silent for 15 s: their share is not known, and a total \
         without it would be too small"
    )]
    Incomplete { what: String, silent: usize, all: usize },
}

/// All that an answer is made from.
pub(crate) struct Sources {
    pub(crate) table: Table,
    pub(crate) store: Arc<Mutex<Store>>,
    pub(crate) directory: Directory,
    pub(crate) objects: Objects,
}

/// Names of metrics.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    /// Those to be shown.
    pub(crate) names: Vec<String>,
    /// Templates that have more than are shown, with how many.
    pub(crate) cut: Vec<(String, usize)>,
}

/// Paths of two parts; none is all.
fn either(one: Option<Arc<[Path]>>, other: Option<Arc<[Path]>>) -> Option<Arc<[Path]>> {
    Some(one?.iter().chain(other?.iter()).cloned().collect())
}

/// What chooses a metric's figures: its name, and who asks.
fn of_figures(metric: &Metric, mut chosen: Vec<Requirement>, asked: Selector) -> Result<Selector, SelectorError> {
    let asked = asked.of_figures()?;
    if let Some(why) = metric.refuses(&asked) {
        return Err(SelectorError(format!("metric {}: {why}", metric.name)));
    }
    chosen.extend(asked.0);
    Ok(Selector(chosen))
}

impl Sources {
    /// A metric by its name, and what the name chooses of its figures.
    pub(crate) fn metric(&self, name: &str) -> Result<(&Metric, Vec<Requirement>), NoValue> {
        self.table.find(name).ok_or_else(|| NoValue::Metric(name.to_owned()))
    }

    /// Which metrics there are: of a name that stands for one of each route, those of the routes that are known.
    pub(crate) fn listed(&self) -> Listed {
        let store = self.store();
        let mut listed = Listed::default();
        for metric in self.table.iter() {
            if !metric.names.is_template() {
                listed.names.push(metric.name.clone());
                continue;
            }
            let name = |labels: &LabelSet| {
                let value = |name: &str| labels.0.iter().find(|(label, _)| **label == *name);
                metric.names.spelled(|name| value(name).map(|(_, value)| value.to_string()))
            };
            let names: BTreeSet<String> = store.label_sets().filter_map(name).collect();
            if names.len() > MAX_LISTED {
                listed.cut.push((metric.name.clone(), names.len()));
            }
            listed.names.extend(names.into_iter().take(MAX_LISTED));
        }
        listed
    }

    /// Values of objects. A wildcard gives those that have one, by name.
    pub(crate) async fn objects(
        &self,
        namespace: &str,
        of: &Of,
        metric: &str,
        pods: &str,
        figures: &str,
    ) -> Result<Vec<(Described, Value)>, NoValue> {
        let (metric, chosen) = self.metric(metric)?;
        let (pods, figures) = (Selector::parse(pods)?, of_figures(metric, chosen, Selector::parse(figures)?)?);
        let described = |kind: &str, api_version, name: &str| Described {
            kind: kind.to_owned(),
            api_version,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        match of {
            Of::Pods => {
                let mut names = self.directory.select(namespace, &pods);
                names.sort_unstable();
                let store = self.store();
                let now = Instant::now();
                let value = |name: &str| {
                    let view = store.pod(namespace, name, now).filter(|it| !it.silent)?;
                    if unknowable(metric, from_ref(&view), &figures).is_some() {
                        return None;
                    }
                    evaluate(metric, &[view], &figures)
                };
                let known = names.iter().filter_map(|name| Some((described("Pod", "v1".into(), name), value(name)?)));
                Ok(known.collect())
            }
            Of::Pod(name) => {
                let store = self.store();
                let unknown = |why| NoValue::Unknown { what: format!("pod {namespace}/{name}"), why };
                let view = store.pod(namespace, name, Instant::now()).ok_or_else(|| unknown("no agent measures it"))?;
                if view.silent {
                    return Err(unknown("its agent has been silent for 15 s"));
                }
                if let Some(why) = unknowable(metric, from_ref(&view), &figures) {
                    return Err(NoValue::Unknowable { what: format!("pod {namespace}/{name}"), why });
                }
                let value = evaluate(metric, &[view], &figures)
                    .ok_or_else(|| unknown("what this metric is made from is not measured of it, or not yet"))?;
                Ok(vec![(described("Pod", "v1".into(), name), value)])
            }
            Of::Object(kind, name) => {
                let parts = self.objects.parts(kind, namespace, name).await?;
                let what = format!("{} {namespace}/{name}", kind.names().3);
                let value = self.whole(namespace, &parts, metric, &figures, &what)?;
                Ok(vec![(described(kind.names().3, kind.api_version(), name), value)])
            }
            Of::Objects(kind) => Err(NoValue::Unknown {
                what: format!("{} with a wildcard", kind.names().0),
                why: "objects are asked for by name; pods alone by selector",
            }),
            Of::Namespace => {
                let parts = [Part { selector: Selector::default(), paths: None }];
                let value = self.whole(namespace, &parts, metric, &figures, &format!("namespace {namespace}"))?;
                let mut object = described("Namespace", "v1".into(), namespace);
                object.namespace.clear();
                Ok(vec![(object, value)])
            }
        }
    }

    /// An external metric: the selector's names of figures' labels choose figures, `deployment=x` and the like an object, others
    /// pods by their labels.
    pub(crate) async fn external(&self, namespace: &str, metric: &str, selector: &str) -> Result<Value, NoValue> {
        let (metric, chosen) = self.metric(metric)?;
        let labels = families::labels();
        let (mut figures, mut pods, mut object) = (Vec::new(), Vec::new(), None);
        for requirement in Selector::parse(selector)?.0 {
            match (Kind::of_key(&requirement.key), &requirement) {
                (Some(kind), Requirement { test: Test::In(names), .. }) if names.len() == 1 => {
                    object = Some((kind, names[0].clone()));
                }
                (Some(_), _) => {
                    return Err(SelectorError(format!("{} names one object, as {0}=shop", requirement.key)).into());
                }
                _ if labels.contains(requirement.key.as_str()) => figures.push(requirement),
                _ => pods.push(requirement),
            }
        }
        let (figures, pods) = (of_figures(metric, chosen, Selector(figures))?, Selector(pods));
        let parts = match object {
            Some((kind, name)) => self.objects.parts(&kind, namespace, &name).await?,
            None => [Part { selector: pods.clone(), paths: None }].into(),
        };
        let parts: Vec<Part> = parts
            .iter()
            .map(|part| {
                let requirements = part.selector.0.iter().chain(&pods.0).cloned().collect();
                Part { selector: Selector(requirements), paths: part.paths.clone() }
            })
            .collect();
        self.whole(namespace, &parts, metric, &figures, &format!("{selector:?} in namespace {namespace}"))
    }

    /// One value of all pods of these parts, from their merged figures.
    pub(crate) fn whole(
        &self,
        namespace: &str,
        parts: &[Part],
        metric: &Metric,
        figures: &Selector,
        what: &str,
    ) -> Result<Value, NoValue> {
        let now = Instant::now();
        let store = self.store();
        let mut views: Vec<PodView<'_>> = Vec::new();
        let mut silent = 0;
        let mut seen = HashMap::new();
        for part in parts {
            for name in self.directory.select(namespace, &part.selector) {
                // Two Services may choose one pod: what comes through either is counted once.
                if let Some(view) = seen.get(&name).and_then(|at: &usize| views.get_mut(*at)) {
                    view.paths = either(view.paths.take(), part.paths.clone());
                    continue;
                }
                match store.pod(namespace, &name, now) {
                    Some(view) if view.silent => silent += 1,
                    Some(view) => {
                        seen.insert(name, views.len());
                        views.push(PodView { paths: part.paths.clone(), ..view });
                    }
                    None => {}
                }
            }
        }
        if let Some(why) = unknowable(metric, &views, figures) {
            return Err(NoValue::Unknowable { what: what.to_owned(), why });
        }
        // What is missing of a total makes it too small, and the workload would be scaled down for it.
        if silent > 0 && metric.is_additive() {
            return Err(NoValue::Incomplete { what: what.to_owned(), silent, all: silent + views.len() });
        }
        let why = match (views.len(), silent) {
            (0, 0) => "none of its pods is measured",
            (0, _) => "the agents of its pods have been silent for 15 s",
            _ => "what this metric is made from is not measured of its pods, or not yet",
        };
        evaluate(metric, &views, figures).ok_or_else(|| NoValue::Unknown { what: what.to_owned(), why })
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
