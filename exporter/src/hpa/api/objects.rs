//! Objects that stand for pods: workloads and Services by their selectors, Ingresses by the Services and paths of their rules.
//! Asked of the API server when somebody scales on them, and remembered for a moment.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::Value;
use thiserror::Error;

use super::selector::Selector;

/// How long an answer holds.
const KEPT: Duration = Duration::from_secs(10);
/// Answers kept.
const MOST: usize = 4096;

/// A kind of object that metrics are served of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Deployment,
    StatefulSet,
    ReplicaSet,
    DaemonSet,
    Service,
    Ingress,
}

impl Kind {
    /// Every kind.
    pub(crate) const ALL: [Self; 6] =
        [Self::Deployment, Self::StatefulSet, Self::ReplicaSet, Self::DaemonSet, Self::Service, Self::Ingress];

    /// Resource with group, as paths have it; group, version and kind.
    pub(crate) const fn names(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::Deployment => ("deployments.apps", "apps", "v1", "Deployment"),
            Self::StatefulSet => ("statefulsets.apps", "apps", "v1", "StatefulSet"),
            Self::ReplicaSet => ("replicasets.apps", "apps", "v1", "ReplicaSet"),
            Self::DaemonSet => ("daemonsets.apps", "apps", "v1", "DaemonSet"),
            Self::Service => ("services", "", "v1", "Service"),
            Self::Ingress => ("ingresses.networking.k8s.io", "networking.k8s.io", "v1", "Ingress"),
        }
    }

    /// `apps/v1`, `v1`.
    pub(crate) fn api_version(self) -> String {
        let (_, group, version, _) = self.names();
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
    }

    /// By a path's resource; `deployments` is taken for `deployments.apps`.
    pub(crate) fn of_resource(resource: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| {
            let (name, ..) = kind.names();
            name == resource || name.split('.').next() == Some(resource)
        })
    }
}

/// Pods that an object stands for; of an Ingress' part, the requests that it sends there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Which pods.
    pub(crate) selector: Selector,
    /// Which of their requests; none: all.
    pub(crate) paths: Option<Arc<[Path]>>,
}

/// A path of an Ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    path: String,
    exact: bool,
}

impl Path {
    /// Whether requests of a route come through it. A route that is not known comes through `/` alone.
    pub(crate) fn takes(&self, route: &str) -> bool {
        let path = self.path.trim_end_matches('/');
        if self.exact {
            return route == self.path;
        }
        path.is_empty() || route.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Why an object gives no pods.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum ObjectError {
    #[error("there is no {kind} {name} in namespace {namespace}")]
    NotFound { kind: &'static str, namespace: String, name: String },
    #[error("{kind} {namespace}/{name} selects no pods: it has no selector")]
    NoSelector { kind: &'static str, namespace: String, name: String },
    #[error("{kind} {namespace}/{name} cannot be read: {error}")]
    Unreadable { kind: &'static str, namespace: String, name: String, error: String },
}

type Key = (Kind, String, String);
type Answer = Result<Arc<[Part]>, ObjectError>;

/// Asks, and remembers.
pub(crate) struct Objects {
    client: Client,
    answers: Mutex<HashMap<Key, (Instant, Answer)>>,
}

impl Objects {
    /// Nothing is known yet.
    pub(crate) fn new(client: Client) -> Self {
        Self { client, answers: Mutex::default() }
    }

    /// The pods of an object. While the API server cannot be asked, what is known stands.
    pub(crate) async fn parts(&self, kind: Kind, namespace: &str, name: &str) -> Answer {
        let key = (kind, namespace.to_owned(), name.to_owned());
        let known = self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some((at, answer)) = &known
            && at.elapsed() < KEPT
        {
            return answer.clone();
        }
        let answer = self.ask(kind, namespace, name).await;
        if let (Err(ObjectError::Unreadable { .. }), Some((_, Ok(parts)))) = (&answer, known) {
            return Ok(parts);
        }
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= MOST {
            answers.retain(|_, (at, _)| at.elapsed() < KEPT);
        }
        if answers.len() < MOST {
            answers.insert(key, (Instant::now(), answer.clone()));
        }
        answer
    }

    async fn ask(&self, kind: Kind, namespace: &str, name: &str) -> Answer {
        let object = self.get(kind, namespace, name).await?;
        let part = |selector| Part { selector, paths: None };
        let missing =
            || ObjectError::NoSelector { kind: kind.names().3, namespace: namespace.to_owned(), name: name.to_owned() };
        match kind {
            Kind::Ingress => {
                let mut parts = Vec::new();
                for (service, paths) in services_of(&object) {
                    match self.get(Kind::Service, namespace, &service).await {
                        // A rule may name a Service that is not there (yet).
                        Err(ObjectError::NotFound { .. }) => {}
                        Err(error) => return Err(error),
                        Ok(service) => {
                            let selector = selector_of(Kind::Service, &service);
                            parts.extend(selector.map(|selector| Part { selector, paths: Some(paths.into()) }));
                        }
                    }
                }
                if parts.is_empty() { Err(missing()) } else { Ok(parts.into()) }
            }
            _ => selector_of(kind, &object).map(|selector| [part(selector)].into()).ok_or_else(missing),
        }
    }

    async fn get(&self, kind: Kind, namespace: &str, name: &str) -> Result<Value, ObjectError> {
        let (_, group, version, object_kind) = kind.names();
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, object_kind));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        match api.get_opt(&name).await {
            Ok(Some(object)) => Ok(object.data),
            Ok(None) => Err(ObjectError::NotFound { kind: object_kind, namespace, name }),
            Err(error) => {
                Err(ObjectError::Unreadable { kind: object_kind, namespace, name, error: super::follow::line(&error) })
            }
        }
    }
}

fn selector_of(kind: Kind, object: &Value) -> Option<Selector> {
    let selector = object.pointer("/spec/selector")?;
    let labels = |value: &Value| serde_json::from_value::<BTreeMap<String, String>>(value.clone()).ok();
    let selector = if kind == Kind::Service {
        Selector::of_parts(Some(&labels(selector)?), &[])
    } else {
        #[derive(serde::Deserialize)]
        struct Expression {
            key: String,
            operator: String,
            #[serde(default)]
            values: Vec<String>,
        }
        let expressions = selector.get("matchExpressions").cloned().unwrap_or(Value::Array(Vec::new()));
        let expressions: Vec<Expression> = serde_json::from_value(expressions).ok()?;
        let expressions: Vec<_> = expressions.into_iter().map(|it| (it.key, it.operator, it.values)).collect();
        let equal = selector.get("matchLabels").and_then(labels);
        Selector::of_parts(equal.as_ref(), &expressions)
    };
    // An empty selector would be every pod of the namespace.
    selector.ok().filter(|it| !it.0.is_empty())
}

/// Services that an Ingress sends requests to, with the paths that go there.
fn services_of(ingress: &Value) -> BTreeMap<String, Vec<Path>> {
    let mut services: BTreeMap<String, Vec<Path>> = BTreeMap::new();
    let name = |backend: &Value| Some(backend.pointer("/service/name")?.as_str()?.to_owned());
    let spec = ingress.get("spec").unwrap_or(&Value::Null);
    if let Some(service) = spec.get("defaultBackend").and_then(name) {
        services.entry(service).or_default().push(Path { path: "/".into(), exact: false });
    }
    let rules = spec.get("rules").and_then(Value::as_array).into_iter().flatten();
    for path in rules.filter_map(|rule| rule.pointer("/http/paths")?.as_array()).flatten() {
        let Some(service) = path.get("backend").and_then(name) else { continue };
        let exact = path.get("pathType").and_then(Value::as_str) == Some("Exact");
        let path = path.get("path").and_then(Value::as_str).unwrap_or("/").to_owned();
        services.entry(service).or_default().push(Path { path, exact });
    }
    services
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn resources_are_known_with_and_without_their_group() {
        assert_eq!(Kind::of_resource("deployments.apps"), Some(Kind::Deployment));
        assert_eq!(Kind::of_resource("services"), Some(Kind::Service));
        assert_eq!(Kind::of_resource("ingresses"), Some(Kind::Ingress));
        assert_eq!(Kind::of_resource("nodes"), None);
    }

    #[test]
    fn selectors_of_workloads_and_services() {
        let deployment = json!({"spec": {"selector": {"matchLabels": {"app": "shop"},
            "matchExpressions": [{"key": "canary", "operator": "DoesNotExist"}]}}});
        let selector = selector_of(Kind::Deployment, &deployment).unwrap();
        assert_eq!(selector, Selector::parse("app=shop,!canary").unwrap());
        let service = json!({"spec": {"selector": {"app": "shop"}}});
        assert_eq!(selector_of(Kind::Service, &service).unwrap(), Selector::parse("app=shop").unwrap());
        assert_eq!(selector_of(Kind::Service, &json!({"spec": {}})), None);
        assert_eq!(selector_of(Kind::Service, &json!({"spec": {"selector": {}}})), None);
    }

    #[test]
    fn an_ingress_sends_by_path() {
        let backend = |name: &str| json!({"service": {"name": name, "port": {"number": 80}}});
        let ingress = json!({"spec": {
            "defaultBackend": backend("web"),
            "rules": [{"http": {"paths": [
                {"path": "/api", "pathType": "Prefix", "backend": backend("api")},
                {"path": "/login", "pathType": "Exact", "backend": backend("web")},
            ]}}],
        }});
        let services = services_of(&ingress);
        assert_eq!(services.len(), 2);
        let takes = |service: &str, route: &str| services[service].iter().any(|path| path.takes(route));
        assert!(takes("api", "/api") && takes("api", "/api/items/{id}") && !takes("api", "/apis") && !takes("api", ""));
        assert!(takes("web", "/anything") && takes("web", ""));
        assert!(!Path { path: "/login".into(), exact: true }.takes("/login/x"));
    }
}
