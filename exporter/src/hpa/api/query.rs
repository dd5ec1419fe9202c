//! From a question to values: which pods, which of their figures, and whether enough is known. HTTP and gRPC ask here alike.

use std::{
    collections::BTreeSet,
    slice::from_ref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use thiserror::Error;

use super::{
    answer::{Described, Of},
    bound::{Asked, Bounds},
    directory::Directory,
    each::each,
    evaluate::{Value, evaluate},
    objects::{Kind, ObjectError, Objects, Part},
    selector::{Requirement, Selector, SelectorError, Test},
    store::{Account, LabelSet, Store},
    table::{MAX_LISTED, Metric, Table},
    through::unknowable,
    total::{Incomplete, NoPods, Total, whole},
};
use crate::hpa::families;

/// Pods of a Service that went within this time are about to be replaced, as far as is known.
const LATELY: Duration = Duration::from_mins(2);

/// An object of the API. A namespace is in none.
fn described(kind: &str, api_version: String, namespace: &str, name: &str) -> Described {
    Described { kind: kind.to_owned(), api_version, namespace: namespace.to_owned(), name: name.to_owned() }
}

/// The key that chooses a host's rules of an Ingress.
const HOST: &str = "host";

/// Why there is no value.
#[derive(Debug, Error)]
pub(crate) enum NoValue {
    /// 404.
    #[error("no metric {0}: see /apis/custom.metrics.k8s.io/v1beta2 for those there are")]
    Metric(String),
    /// 404.
    #[error(
        "{name} stands for several metrics, one of each value; in namespace {namespace} there are {}",
        shown(names)
    )]
    Several { name: String, namespace: String, names: BTreeSet<String> },
    /// 400.
    #[error("{0}")]
    Selector(#[from] SelectorError),
    /// 404 or 500.
    #[error("{0}")]
    Object(#[from] ObjectError),
    /// 404.
    #[error("{what} is not known: {why}")]
    Unknown { what: String, why: String },
    /// 503.
    #[error("{0}")]
    Incomplete(Box<Incomplete>),
}

fn shown(names: &BTreeSet<String>) -> String {
    let some: Vec<&str> = names.iter().take(MAX_LISTED).map(String::as_str).collect();
    match (some.is_empty(), names.len().saturating_sub(MAX_LISTED)) {
        (true, _) => "none yet".to_owned(),
        (_, 0) => some.join(", "),
        (_, more) => format!("{}, and {more} more", some.join(", ")),
    }
}

/// All that an answer is made from.
pub(crate) struct Sources {
    pub(crate) table: Table,
    /// Whether metrics of values, as routes, are listed for everybody.
    pub(crate) list_values: bool,
    pub(crate) store: Arc<Mutex<Store>>,
    pub(crate) directory: Directory,
    pub(crate) objects: Objects,
    pub(crate) bounds: Bounds,
}

/// Names of metrics.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    /// Those to be shown.
    pub(crate) names: Vec<String>,
    /// Templates that have more than are shown, with how many.
    pub(crate) cut: Vec<(String, usize)>,
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

/// The host whose rules of an Ingress are meant, taken out of what chooses figures: none of those has it as a label. It is not
/// spelled: a host is a label's value as it is, and `x.example` would be read as a spelling.
fn host_of(kind: &Kind, chosen: &mut Selector) -> Result<Option<String>, SelectorError> {
    let index = chosen.0.iter().position(|it| it.key == HOST).filter(|_| *kind == Kind::Ingress);
    let Some(index) = index else { return Ok(None) };
    match &chosen.0.remove(index).test {
        Test::In(hosts) if hosts.len() == 1 => Ok(Some(hosts[0].to_ascii_lowercase())),
        _ => Err(SelectorError(format!("{HOST} names one host, as {HOST}=shop.example"))),
    }
}

/// The name that a template has for the series of these labels.
fn spelled(metric: &Metric, labels: &LabelSet) -> Option<String> {
    let value = |name: &str| labels.0.iter().find(|(label, _)| **label == *name);
    metric.names.spelled(|name| value(name).map(|(_, value)| value.to_string()))
}

impl Sources {
    /// A metric by its name, and what the name chooses of its figures.
    pub(crate) fn metric(&self, namespace: &str, name: &str) -> Result<(&Metric, Vec<Requirement>), NoValue> {
        if let Some(template) = self.table.template(name) {
            return Err(self.several(namespace, template));
        }
        self.table.find(name).ok_or_else(|| NoValue::Metric(name.to_owned()))
    }

    /// Which metrics there are: of a name that stands for one of each route, those of the routes that are known. Everybody in the
    /// cluster may read this list, so that they are in it only where the configuration says so.
    pub(crate) fn listed(&self) -> Listed {
        let store = self.store();
        let mut listed = Listed::default();
        for metric in self.table.iter() {
            if !metric.names.is_template() {
                listed.names.push(metric.name.clone());
                continue;
            }
            if !self.list_values {
                continue;
            }
            let names: BTreeSet<String> = store.label_sets().filter_map(|it| spelled(metric, it)).collect();
            if names.len() > MAX_LISTED {
                listed.cut.push((metric.name.clone(), names.len()));
            }
            listed.names.extend(names.into_iter().take(MAX_LISTED));
        }
        listed
    }

    /// Which metrics a name stands for that is asked for as it is declared, `rps:{http_route}`: those of this namespace's routes.
    fn several(&self, namespace: &str, metric: &Metric) -> NoValue {
        let store = self.store();
        let now = Instant::now();
        let mut names = BTreeSet::new();
        for pod in self.directory.select(namespace, &Selector::default()) {
            let Some(view) = store.pod(namespace, &pod, now) else { continue };
            for call in metric.expression.calls() {
                let series = view.containers.iter().flat_map(|it| it.series(&call.family));
                names.extend(series.filter_map(|it| spelled(metric, &it.labels)));
            }
        }
        NoValue::Several { name: metric.name.clone(), namespace: namespace.to_owned(), names }
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
        // As an HPA has it: by its own name, also where that stands for one of several, and as its selector is spelled.
        let (asked_name, asked_figures) = (metric, Selector::parse(figures)?);
        let (metric, chosen) = self.metric(namespace, metric)?;
        let mut by_figures = asked_figures.clone();
        let host = match of {
            Of::Object(kind, _) => host_of(kind, &mut by_figures)?,
            _ => None,
        };
        let (pods, figures) = (Selector::parse(pods)?, of_figures(metric, chosen, by_figures)?);
        let of_object = |kind: &str, name: &str| Asked::Object {
            kind: kind.to_owned(),
            name: name.to_owned(),
            metric: asked_name.to_owned(),
            figures: asked_figures.clone(),
        };
        match of {
            Of::Pods => {
                let asked = (namespace, &pods, &figures);
                let values = each(&self.store(), &self.directory, metric, asked, Instant::now());
                let described = |name: &str| described("Pod", "v1".to_owned(), namespace, name);
                Ok(values.into_iter().map(|(name, value)| (described(&name), value)).collect())
            }
            Of::Pod(name) => {
                let value = self.pod(namespace, name, metric, &figures)?;
                Ok(vec![(described("Pod", "v1".to_owned(), namespace, name), value)])
            }
            Of::Object(kind, name) => {
                let parts = self.objects.parts(kind, namespace, name, host.as_deref()).await?;
                let what = format!("{} {namespace}/{name}", kind.names().3);
                let none = self.without_pods(kind, namespace, name, &parts).await;
                let value =
                    self.whole(metric, &Total { namespace, parts: &parts, figures: &figures, what: &what, none });
                let value = self.bounded(namespace, &of_object(kind.names().3, name), value).await?;
                Ok(vec![(described(kind.names().3, kind.api_version(), namespace, name), value)])
            }
            Of::Objects(kind) => Err(NoValue::Unknown {
                what: format!("{} with a wildcard", kind.names().0),
                why: "objects are asked for by name; pods alone by selector".to_owned(),
            }),
            Of::Namespace => {
                let parts = [Part { selector: Selector::default(), paths: None }];
                let what = format!("namespace {namespace}");
                let value = self.whole(
                    metric,
                    &Total { namespace, parts: &parts, figures: &figures, what: &what, none: NoPods::Unknown },
                );
                let value = self.bounded(namespace, &of_object("Namespace", namespace), value).await?;
                Ok(vec![(described("Namespace", "v1".to_owned(), "", namespace), value)])
            }
        }
    }

    fn pod(&self, namespace: &str, name: &str, metric: &Metric, figures: &Selector) -> Result<Value, NoValue> {
        let store = self.store();
        let unknown = |why: &str| unknown_because(&format!("pod {namespace}/{name}"), why.to_owned());
        let now = Instant::now();
        let Some(view) = store.pod(namespace, name, now) else {
            return Err(match store.account(namespace, name, now) {
                Account::Told(without) => unknown(&format!("its agent says: {}", without.reason)),
                Account::Unheard | Account::Unknowable => unknown("no agent measures it"),
            });
        };
        if view.silent {
            return Err(unknown("its agent has been silent for 15 s"));
        }
        if let Some(why) = unknowable(metric, from_ref(&view), figures) {
            return Err(NoValue::Unknown { what: format!("pod {namespace}/{name}"), why });
        }
        evaluate(metric, &[view], figures)
            .ok_or_else(|| unknown("what this metric is made from is not measured of it, or not yet"))
    }

    /// An external metric: the selector's names of figures' labels choose figures, `deployment=x` and the like an object, others
    /// pods by their labels.
    pub(crate) async fn external(&self, namespace: &str, metric: &str, selector: &str) -> Result<Value, NoValue> {
        let asked = Asked::External { metric: metric.to_owned(), selector: Selector::parse(selector)? };
        let value = self.selected(namespace, metric, selector).await;
        self.bounded(namespace, &asked, value).await
    }

    /// The same for KEDA, which says which ScaledObject it asks for.
    pub(crate) async fn scaled(
        &self,
        (namespace, object): (&str, &str),
        metric: &str,
        selector: &str,
    ) -> Result<Value, NoValue> {
        let asked = Asked::Keda { object: object.to_owned(), metric: metric.to_owned() };
        let value = self.selected(namespace, metric, selector).await;
        self.bounded(namespace, &asked, value).await
    }

    /// A value, or the part of it that is known where that is enough.
    async fn bounded(&self, namespace: &str, asked: &Asked, value: Result<Value, NoValue>) -> Result<Value, NoValue> {
        match value {
            Err(NoValue::Incomplete(incomplete)) => match incomplete.at_least {
                Some(part) if self.bounds.suffices(namespace, asked, part.value).await => Ok(part),
                _ => Err(NoValue::Incomplete(incomplete)),
            },
            value => value,
        }
    }

    /// What an object's total is if no pods belong to it. That a workload has none is as it should be where it is scaled to 0, and
    /// otherwise for the moment: one that replaces all its pods at once is as busy as before. Of what sends requests to pods it
    /// is known that there were none for a while.
    async fn without_pods(&self, kind: &Kind, namespace: &str, name: &str, parts: &[Part]) -> NoPods {
        let has_pods = |part: &Part| !self.directory.select(namespace, &part.selector).is_empty();
        if parts.iter().any(has_pods) {
            return NoPods::Unknown;
        }
        let had_pods = |part: &Part| !self.directory.departed(namespace, &part.selector, LATELY).is_empty();
        let idle = match kind {
            Kind::Service | Kind::Ingress | Kind::HttpRoute | Kind::GrpcRoute | Kind::Gateway => {
                !parts.iter().any(had_pods)
            }
            _ => {
                let resource = async { self.objects.resource(kind, namespace, name).await.ok() };
                self.bounds.is_at_zero((kind.names().3, namespace, name), resource).await
            }
        };
        if idle { NoPods::Zero } else { NoPods::Unknown }
    }

    /// The whole of an external metric, and never a part of it.
    pub(crate) async fn selected(&self, namespace: &str, metric: &str, selector: &str) -> Result<Value, NoValue> {
        let (metric, chosen) = self.metric(namespace, metric)?;
        let labels = families::labels();
        let (mut figures, mut pods, mut object) = (Vec::new(), Vec::new(), None);
        for requirement in Selector::parse(selector)?.0 {
            match (Kind::of_key(&requirement.key), &requirement) {
                (Some(kind), Requirement { test: Test::In(names), .. }) if names.len() == 1 => {
                    if object.replace((kind, names[0].clone())).is_some() {
                        return Err(SelectorError("it names two objects, of which one can be meant".to_owned()).into());
                    }
                }
                (Some(_), _) => {
                    return Err(SelectorError(format!("{} names one object, as {0}=shop", requirement.key)).into());
                }
                _ if labels.contains(requirement.key.as_str()) => figures.push(requirement),
                _ => pods.push(requirement),
            }
        }
        let (figures, mut pods) = (of_figures(metric, chosen, Selector(figures))?, Selector(pods));
        let mut none = NoPods::Unknown;
        let parts = match object {
            Some((kind, name)) => {
                let host = host_of(&kind, &mut pods)?;
                let parts = self.objects.parts(&kind, namespace, &name, host.as_deref()).await?;
                none = self.without_pods(&kind, namespace, &name, &parts).await;
                parts
            }
            None => [Part { selector: pods.clone(), paths: None }].into(),
        };
        let parts: Vec<Part> = parts
            .iter()
            .map(|part| {
                let requirements = part.selector.0.iter().chain(&pods.0).cloned().collect();
                Part { selector: Selector(requirements), paths: part.paths.clone() }
            })
            .collect();
        let what = format!("{selector:?} in namespace {namespace}");
        self.whole(metric, &Total { namespace, parts: &parts, figures: &figures, what: &what, none })
    }

    fn whole(&self, metric: &Metric, asked: &Total<'_>) -> Result<Value, NoValue> {
        whole(&self.store(), &self.directory, metric, asked, Instant::now())
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn unknown_because(what: &str, why: String) -> NoValue {
    NoValue::Unknown { what: what.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_chosen_of_an_ingress_alone_and_as_it_is() {
        let of = |kind: Kind, text: &str| {
            let mut selector = Selector::parse(text).unwrap();
            let host = host_of(&kind, &mut selector).map_err(|error| error.to_string())?;
            Ok::<_, String>((host, selector.0.len()))
        };
        assert_eq!(of(Kind::Ingress, "host=x.Example,http_request_method=GET"), Ok((Some("x.example".to_owned()), 1)));
        assert_eq!(of(Kind::Ingress, "http_request_method=GET"), Ok((None, 1)));
        assert_eq!(
            of(Kind::Service, "host=a.example"),
            Ok((None, 1)),
            "that is a label of figures, which there is not"
        );
        for wrong in ["host!=a.example", "host", "host in (a, b)"] {
            assert!(of(Kind::Ingress, wrong).unwrap_err().contains("names one host"), "{wrong}");
        }
    }
}
