//! Objects that stand for pods: workloads and Services by their selectors, whatever has a scale subresource by that, Ingresses and
//! routes of the Gateway API by the Services and paths of their rules. Asked of the API server when somebody scales on them, and
//! remembered for a moment.

mod routing;
mod senders;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use kube::{
    Api, Client,
    api::ListParams,
    core::{ApiResource, DynamicObject, GroupVersionKind},
    discovery,
};
use serde_json::Value;
use thiserror::Error;

pub(crate) use self::routing::{Path, Takes};
use super::{
    owner,
    remembered::{Memory, Remembered},
    selector::Selector,
};

/// How long an answer holds; one that selects pods is good for as long again while it is asked for anew.
const KEPT: Duration = Duration::from_secs(10);

/// A kind of object that metrics are served of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Deployment,
    StatefulSet,
    ReplicaSet,
    DaemonSet,
    Service,
    Ingress,
    HttpRoute,
    GrpcRoute,
    Gateway,
    /// Whatever has a scale subresource, by its resource with its group, as `rollouts.argoproj.io`.
    Scaled(String),
}

impl Kind {
    /// Those that are known by name.
    pub(crate) const ALL: [Self; 9] = [
        Self::Deployment,
        Self::StatefulSet,
        Self::ReplicaSet,
        Self::DaemonSet,
        Self::Service,
        Self::Ingress,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::Gateway,
    ];

    /// Resource with group, as paths have it; group, version and kind. Of one that is known by its scale alone the resource is
    /// all that is.
    pub(crate) fn names(&self) -> (&str, &str, &str, &str) {
        match self {
            Self::Deployment => ("deployments.apps", "apps", "v1", "Deployment"),
            Self::StatefulSet => ("statefulsets.apps", "apps", "v1", "StatefulSet"),
            Self::ReplicaSet => ("replicasets.apps", "apps", "v1", "ReplicaSet"),
            Self::DaemonSet => ("daemonsets.apps", "apps", "v1", "DaemonSet"),
            Self::Service => ("services", "", "v1", "Service"),
            Self::Ingress => ("ingresses.networking.k8s.io", "networking.k8s.io", "v1", "Ingress"),
            Self::HttpRoute => ("httproutes.gateway.networking.k8s.io", "gateway.networking.k8s.io", "v1", "HTTPRoute"),
            Self::GrpcRoute => ("grpcroutes.gateway.networking.k8s.io", "gateway.networking.k8s.io", "v1", "GRPCRoute"),
            Self::Gateway => ("gateways.gateway.networking.k8s.io", "gateway.networking.k8s.io", "v1", "Gateway"),
            Self::Scaled(resource) => (resource, resource.split_once('.').map_or("", |(_, group)| group), "", resource),
        }
    }

    /// `apps/v1`, `v1`; the group alone where the version is not known.
    pub(crate) fn api_version(&self) -> String {
        match self.names() {
            (_, "", version, _) => version.to_owned(),
            (_, group, "", _) => group.to_owned(),
            (_, group, version, _) => format!("{group}/{version}"),
        }
    }

    /// By a path's resource; `deployments` is taken for `deployments.apps`. What is not known by name may have a scale.
    pub(crate) fn of_resource(resource: &str) -> Self {
        let known = Self::ALL.into_iter().find(|kind| {
            let (name, ..) = kind.names();
            name == resource || name.split('.').next() == Some(resource)
        });
        known.unwrap_or_else(|| Self::Scaled(resource.to_owned()))
    }

    /// By the key of an External metric's selector.
    pub(crate) fn of_key(key: &str) -> Option<Self> {
        Some(match key {
            "deployment" => Self::Deployment,
            "statefulset" => Self::StatefulSet,
            "replicaset" => Self::ReplicaSet,
            "daemonset" => Self::DaemonSet,
            "service" => Self::Service,
            "ingress" => Self::Ingress,
            "httproute" => Self::HttpRoute,
            "grpcroute" => Self::GrpcRoute,
            "gateway" => Self::Gateway,
            "rollout" => Self::Scaled("rollouts.argoproj.io".to_owned()),
            _ => return None,
        })
    }

    fn resource(&self) -> ApiResource {
        let (_, group, version, kind) = self.names();
        ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
    }
}

/// Pods that an object stands for; of what sends requests to them, the requests that it sends there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// Which pods.
    pub(crate) selector: Selector,
    /// Which of their requests; none: all.
    pub(crate) paths: Option<Arc<[Path]>>,
}

/// Why an object gives no pods.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum ObjectError {
    #[error("there is no {kind} {name} in namespace {namespace}")]
    NotFound { kind: String, namespace: String, name: String },
    #[error("{kind} {namespace}/{name} selects no pods: it has no selector")]
    NoSelector { kind: String, namespace: String, name: String },
    /// It sends requests, but which of those that pods count is not known.
    #[error("{kind} {namespace}/{name} does not tell what comes through it: {why}; ask for the Service instead")]
    Unknowable { kind: String, namespace: String, name: String, why: String },
    #[error(
        "{resource} has no scale subresource, or is not there: metrics are served of pods, namespaces, {}, and of whatever has a \
         scale subresource (as rollouts.argoproj.io)",
        known()
    )]
    NoKind { resource: String },
    #[error("{kind} {namespace}/{name} cannot be read: {error}")]
    Unreadable { kind: String, namespace: String, name: String, error: String },
}

fn known() -> String {
    let names: Vec<String> = Kind::ALL.iter().map(|it| it.names().0.to_owned()).collect();
    names.join(", ")
}

/// Kind, namespace and name, and the host whose rules are meant.
type Key = (Kind, String, String, Option<String>);
type Answer = Result<Arc<[Part]>, ObjectError>;

/// Asks, and remembers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Objects {
    client: Client,
    answers: Arc<Remembered<Key, Answer>>,
}

impl Objects {
    /// Nothing is known yet.
    pub(crate) fn new(client: Client) -> Self {
        Self { client, answers: Arc::new(Remembered::new(KEPT)) }
    }

    /// The pods of an object; of an Ingress those behind one host's rules, if one is given. While the API server cannot be asked,
    /// what is known stands.
    pub(crate) async fn parts(&self, kind: &Kind, namespace: &str, name: &str, host: Option<&str>) -> Answer {
        let key = (kind.clone(), namespace.to_owned(), name.to_owned(), host.map(str::to_owned));
        let known = match self.answers.look(&key, Instant::now()) {
            Memory::Fresh(answer) => return answer,
            Memory::Due(Ok(parts)) => {
                let asking = self.clone();
                tokio::spawn(async move { asking.ask_anew(key).await });
                return Ok(parts);
            }
            Memory::Due(answer) | Memory::Old(answer) => Some(answer),
            Memory::Nothing => None,
        };
        match (self.ask_anew(key).await, known) {
            (Err(ObjectError::Unreadable { .. }), Some(Ok(parts))) => Ok(parts),
            (answer, _) => answer,
        }
    }

    async fn ask_anew(&self, key: Key) -> Answer {
        let answer = self.ask(&key.0, &key.1, &key.2, key.3.as_deref()).await;
        // What is known stands while nobody can be asked.
        if !matches!(answer, Err(ObjectError::Unreadable { .. })) {
            self.answers.note(key, answer.clone(), Instant::now());
        }
        answer
    }

    async fn ask(&self, kind: &Kind, namespace: &str, name: &str, host: Option<&str>) -> Answer {
        let asked = Asked { kind, namespace, name };
        match kind {
            Kind::Scaled(resource) => self.scaled(resource, &asked).await,
            Kind::Ingress | Kind::HttpRoute | Kind::GrpcRoute => self.through(host, &asked).await,
            Kind::Gateway => self.through_gateway(&asked).await,
            _ => {
                let object = self.get(kind, namespace, name).await?;
                let selector = selector_of(kind, &object.data).ok_or_else(|| asked.no_selector())?;
                Ok([asked.own(selector)].into())
            }
        }
    }

    /// How the API server is asked for objects of a kind.
    pub(crate) async fn resource(&self, kind: &Kind, namespace: &str, name: &str) -> Result<ApiResource, ObjectError> {
        match kind {
            Kind::Scaled(resource) => self.scalable(resource, &Asked { kind, namespace, name }).await,
            _ => Ok(kind.resource()),
        }
    }

    /// A kind with a scale subresource, by its resource with its group.
    async fn scalable(&self, resource: &str, asked: &Asked<'_>) -> Result<ApiResource, ObjectError> {
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        let no_kind = || ObjectError::NoKind { resource: resource.to_owned() };
        let found = match discovery::group(&self.client, group).await {
            Ok(found) => found,
            Err(kube::Error::Discovery(_)) => return Err(no_kind()),
            Err(error) if is_absent(&error) => return Err(no_kind()),
            Err(error) => return Err(asked.unreadable(&error)),
        };
        let has_scale = |capabilities: &discovery::ApiCapabilities| {
            capabilities.subresources.iter().any(|(sub, _)| sub.plural == "scale")
        };
        let resources = found.resources_by_stability();
        let known = resources.iter().find(|(it, capabilities)| it.plural == plural && has_scale(capabilities));
        known.map(|(resource, _)| resource.clone()).ok_or_else(no_kind)
    }

    /// Whatever has a scale subresource says by it which pods it counts.
    async fn scaled(&self, resource: &str, asked: &Asked<'_>) -> Answer {
        let resource = self.scalable(resource, asked).await?;
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), asked.namespace, &resource);
        let scale = match api.get_scale(asked.name).await {
            Ok(scale) => scale,
            Err(error) if is_absent(&error) => return Err(asked.not_found()),
            Err(error) => return Err(asked.unreadable(&error)),
        };
        let selector = scale.status.and_then(|it| it.selector).unwrap_or_default();
        let mut selector = Selector::parse(&selector).map_err(|_| asked.no_selector())?;
        if selector.0.is_empty() {
            return Err(asked.no_selector());
        }
        selector.0.extend(owner::is_of(&resource.kind, asked.name));
        Ok([Part { selector, paths: None }].into())
    }

    async fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Result<DynamicObject, ObjectError> {
        let asked = Asked { kind, namespace, name };
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &kind.resource());
        match api.get(name).await {
            Ok(object) => Ok(object),
            Err(error) if is_absent(&error) => Err(asked.not_found()),
            Err(error) => Err(asked.unreadable(&error)),
        }
    }

    /// Of a kind that the cluster does not have, none.
    async fn list(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        asked: &Asked<'_>,
    ) -> Result<Vec<DynamicObject>, ObjectError> {
        let resource = kind.resource();
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        match api.list(&ListParams::default()).await {
            Ok(list) => Ok(list.items),
            Err(error) if is_absent(&error) => Ok(Vec::new()),
            Err(error) => Err(asked.unreadable(&error)),
        }
    }
}

/// 404 with whatever body: a kind that is not there is answered in plain text.
fn is_absent(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// What is asked about.
struct Asked<'a> {
    kind: &'a Kind,
    namespace: &'a str,
    name: &'a str,
}

impl Asked<'_> {
    fn names(&self) -> (String, String, String) {
        (self.kind.names().3.to_owned(), self.namespace.to_owned(), self.name.to_owned())
    }

    /// Pods of a selector, as far as they are not known to be others'.
    fn own(&self, mut selector: Selector) -> Part {
        selector.0.extend(owner::is_of(self.kind.names().3, self.name));
        Part { selector, paths: None }
    }

    fn not_found(&self) -> ObjectError {
        let (kind, namespace, name) = self.names();
        ObjectError::NotFound { kind, namespace, name }
    }

    fn no_selector(&self) -> ObjectError {
        let (kind, namespace, name) = self.names();
        ObjectError::NoSelector { kind, namespace, name }
    }

    fn unknowable(&self, why: String) -> ObjectError {
        let (kind, namespace, name) = self.names();
        ObjectError::Unknowable { kind, namespace, name, why }
    }

    fn unreadable(&self, error: &kube::Error) -> ObjectError {
        let (kind, namespace, name) = self.names();
        ObjectError::Unreadable { kind, namespace, name, error: super::follow::line(error) }
    }
}

fn selector_of(kind: &Kind, object: &Value) -> Option<Selector> {
    let selector = object.pointer("/spec/selector")?;
    let labels = |value: &Value| serde_json::from_value::<BTreeMap<String, String>>(value.clone()).ok();
    let selector = if *kind == Kind::Service {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn resources_are_known_with_and_without_their_group() {
        assert_eq!(Kind::of_resource("deployments.apps"), Kind::Deployment);
        assert_eq!(Kind::of_resource("services"), Kind::Service);
        assert_eq!(Kind::of_resource("ingresses"), Kind::Ingress);
        assert_eq!(Kind::of_resource("httproutes"), Kind::HttpRoute);
        let rollouts = Kind::of_resource("rollouts.argoproj.io");
        assert_eq!(rollouts, Kind::Scaled("rollouts.argoproj.io".into()));
        assert_eq!((rollouts.names().1, rollouts.api_version().as_str()), ("argoproj.io", "argoproj.io"));
        assert_eq!(Kind::of_key("rollout"), Some(rollouts));
        assert_eq!(Kind::of_key("app"), None);
    }

    #[test]
    fn a_kind_that_there_is_not_is_told_with_those_there_are() {
        let told = ObjectError::NoKind { resource: "queues.example.com".into() }.to_string();
        for kind in
            ["queues.example.com has no scale", "deployments.apps, ", "httproutes.gateway", "rollouts.argoproj.io"]
        {
            assert!(told.contains(kind), "{told}");
        }
    }

    #[test]
    fn selectors_of_workloads_and_services() {
        let deployment = json!({"spec": {"selector": {"matchLabels": {"app": "shop"},
            "matchExpressions": [{"key": "canary", "operator": "DoesNotExist"}]}}});
        let selector = selector_of(&Kind::Deployment, &deployment).unwrap();
        assert_eq!(selector, Selector::parse("app=shop,!canary").unwrap());
        let service = json!({"spec": {"selector": {"app": "shop"}}});
        assert_eq!(selector_of(&Kind::Service, &service).unwrap(), Selector::parse("app=shop").unwrap());
        assert_eq!(selector_of(&Kind::Service, &json!({"spec": {}})), None);
        assert_eq!(selector_of(&Kind::Service, &json!({"spec": {"selector": {}}})), None);
    }
}
