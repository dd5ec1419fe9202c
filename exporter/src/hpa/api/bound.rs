//! Whether a total that lacks some pods' share may be answered all the same: it is a lower bound, and each HPA that asks for it must
//! ask for at least as many pods as there are because of it, so that it can scale up by it and never down. Knows HPAs, and
//! nothing of where values come from.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, MetricIdentifier, MetricTarget,
};
use kube::{
    Api, Client,
    api::ListParams,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use tracing::warn;

use super::{follow::line, objects::Kind, selector::Selector};
use crate::hpa::quantity::Milli;

/// How long an answer of the API server holds: a decision of the controller changes it.
const KEPT: Duration = Duration::from_secs(2);
/// How long it holds that a workload is scaled to 0: asked only while it has no pods.
const KEPT_ZERO: Duration = Duration::from_secs(5);
/// Namespaces whose HPAs are remembered, and workloads without pods.
const MOST: usize = 1024;
/// Where KEDA says which ScaledObject an HPA's metric is of.
const SCALED_OBJECT: &str = "scaledobject.keda.sh/name";

/// What a total was asked for as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A metric of an object, of the figures that a selector chooses.
    Object { kind: String, name: String, metric: String, figures: Selector },
    /// An external metric.
    External { metric: String, selector: Selector },
    /// By KEDA, for a ScaledObject, as a metric of this name.
    Keda { object: String, metric: String },
}

/// An HPA's metric: what it wants of it, and of how many pods.
#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    asked: Asked,
    target: Target,
    replicas: i32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    /// For the whole.
    Value(Milli),
    /// For each pod.
    Average(Milli),
}

/// Kind, namespace and name.
type Name = (String, String, String);

/// What a namespace's HPAs want, and when they said so.
type Known = (Instant, Arc<[Wanted]>);

/// Asks for HPAs, and remembers.
pub(crate) struct Bounds {
    client: Client,
    known: Mutex<HashMap<String, Known>>,
    told: Mutex<bool>,
    /// Whether workloads are scaled to 0, by kind, namespace and name.
    at_zero: Mutex<HashMap<Name, (Instant, bool)>>,
}

impl Bounds {
    /// Nothing is known yet.
    pub(crate) fn new(client: Client) -> Self {
        Self { client, known: Mutex::default(), told: Mutex::default(), at_zero: Mutex::default() }
    }

    /// Whether a workload is scaled to 0, so that it has no pods because it is to have none. `resource` says how it is asked for.
    pub(crate) async fn is_at_zero(
        &self,
        (kind, namespace, name): (&str, &str, &str),
        resource: impl Future<Output = Option<ApiResource>>,
    ) -> bool {
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        let known = self.at_zero.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
        if let Some((at, is)) = known
            && at.elapsed() < KEPT_ZERO
        {
            return is;
        }
        let Some(resource) = resource.await else { return false };
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        // Not every workload may be read, nor has every one this field.
        let object = api.get_opt(name).await.ok().flatten();
        let replicas = object.and_then(|it| it.data.pointer("/spec/replicas")?.as_i64());
        let is = match replicas {
            Some(replicas) => replicas == 0,
            // A scale of 0 leaves the field out (`omitempty`).
            None => {
                api.get_scale(name).await.is_ok_and(|scale| scale.spec.and_then(|it| it.replicas).unwrap_or(0) == 0)
            }
        };
        let mut at_zero = self.at_zero.lock().unwrap_or_else(PoisonError::into_inner);
        if at_zero.len() >= MOST {
            at_zero.retain(|_, (at, _)| at.elapsed() < KEPT_ZERO);
        }
        at_zero.insert(key, (Instant::now(), is));
        is
    }

    /// Whether a total that is at least so much makes no HPA that asks for it want fewer pods than there are.
    pub(crate) async fn suffices(&self, namespace: &str, asked: &Asked, value: f64) -> bool {
        suffices(&self.wanted(namespace).await, asked, value)
    }

    async fn wanted(&self, namespace: &str) -> Arc<[Wanted]> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(namespace).cloned();
        if let Some((at, wanted)) = known
            && at.elapsed() < KEPT
        {
            return wanted;
        }
        let api: Api<HorizontalPodAutoscaler> = Api::namespaced(self.client.clone(), namespace);
        let wanted: Arc<[Wanted]> = match api.list(&ListParams::default().limit(1000)).await {
            Ok(list) => list.items.iter().flat_map(of_hpa).collect(),
            Err(error) => {
                let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                if !std::mem::replace(&mut *told, true) {
                    warn!(
                        namespace,
                        error = line(&error),
                        "HPAs cannot be read: totals that lack a pod are refused also where what is known is enough to scale up"
                    );
                }
                Arc::from([])
            }
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.retain(|_, (at, _)| at.elapsed() < KEPT);
        }
        known.insert(namespace.to_owned(), (Instant::now(), wanted.clone()));
        wanted
    }
}

/// All who ask for it must be content, and somebody must ask.
fn suffices(wanted: &[Wanted], asked: &Asked, value: f64) -> bool {
    let mut who = wanted.iter().filter(|it| is_same(&it.asked, asked)).peekable();
    let value = i128::from(Milli::of(value).0);
    who.peek().is_some()
        && who.all(|it| match it.target {
            Target::Value(target) => value >= i128::from(target.0),
            Target::Average(target) => value >= i128::from(target.0) * i128::from(it.replicas),
        })
}

fn is_same(a: &Asked, b: &Asked) -> bool {
    let same = |a: &Selector, b: &Selector| a.0.len() == b.0.len() && a.0.iter().all(|it| b.0.contains(it));
    match (a, b) {
        (
            Asked::Object { kind, name, metric, figures },
            Asked::Object { kind: other_kind, name: other, metric: other_metric, figures: other_figures },
        ) => (kind, name, metric) == (other_kind, other, other_metric) && same(figures, other_figures),
        (Asked::External { metric, selector }, Asked::External { metric: other_metric, selector: other }) => {
            metric == other_metric && same(selector, other)
        }
        _ => a == b,
    }
}

fn of_hpa(hpa: &HorizontalPodAutoscaler) -> Vec<Wanted> {
    let (Some(spec), Some(status)) = (&hpa.spec, &hpa.status) else { return Vec::new() };
    // What it has decided may not be done yet.
    let replicas = status.desired_replicas.max(status.current_replicas.unwrap_or(0));
    let metrics = spec.metrics.iter().flatten().filter_map(|metric| {
        if let Some(object) = &metric.object {
            let figures = selector_of(&object.metric)?;
            let described = &object.described_object;
            let asked = Asked::Object {
                kind: kind_of(described),
                name: described.name.clone(),
                metric: object.metric.name.clone(),
                figures,
            };
            return Some((asked, target_of(&object.target)?));
        }
        let external = metric.external.as_ref()?;
        let selector = external.metric.selector.as_ref();
        let scaled = selector.and_then(|it| it.match_labels.as_ref()?.get(SCALED_OBJECT));
        let asked = if let Some(object) = scaled {
            Asked::Keda { object: object.clone(), metric: without_index(&external.metric.name).to_owned() }
        } else {
            Asked::External { metric: external.metric.name.clone(), selector: selector_of(&external.metric)? }
        };
        Some((asked, target_of(&external.target)?))
    });
    metrics.map(|(asked, target)| Wanted { asked, target, replicas }).collect()
}

/// The described object's kind as it is answered for: one that is known by its scale alone goes by its resource.
fn kind_of(described: &CrossVersionObjectReference) -> String {
    let group = described.api_version.as_deref().and_then(|it| it.split_once('/')).map_or("", |(group, _)| group);
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "", &described.kind)).plural;
    let resource = if group.is_empty() { resource } else { format!("{resource}.{group}") };
    match Kind::of_resource(&resource) {
        Kind::Scaled(_) if group.is_empty() => described.kind.clone(),
        kind => kind.names().3.to_owned(),
    }
}

/// KEDA numbers the metrics of a ScaledObject: `s0-http_server_requests_per_second`.
pub(crate) fn without_index(metric: &str) -> &str {
    let rest = metric.strip_prefix('s').and_then(|rest| rest.split_once('-'));
    rest.filter(|(number, _)| !number.is_empty() && number.bytes().all(|it| it.is_ascii_digit()))
        .map_or(metric, |(_, name)| name)
}

fn selector_of(metric: &MetricIdentifier) -> Option<Selector> {
    let Some(selector) = &metric.selector else { return Some(Selector::default()) };
    let expressions: Vec<_> = selector.match_expressions.iter().flatten().collect();
    let expressions: Vec<(String, String, Vec<String>)> = expressions
        .into_iter()
        .map(|it| (it.key.clone(), it.operator.clone(), it.values.clone().unwrap_or_default()))
        .collect();
    Selector::of_parts(selector.match_labels.as_ref(), &expressions).ok()
}

fn target_of(target: &MetricTarget) -> Option<Target> {
    let value = |quantity: &Option<k8s_openapi::apimachinery::pkg::api::resource::Quantity>| {
        Milli::parse(&quantity.as_ref()?.0).ok()
    };
    value(&target.value).map(Target::Value).or_else(|| value(&target.average_value).map(Target::Average))
}

#[cfg(test)]
mod tests;
