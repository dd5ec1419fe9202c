//! What the doctor asks the API server: objects as JSON, and paths of the metrics APIs.

use hyper::Request;
use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};

/// The cluster.
pub(crate) struct Cluster(Client);

impl Cluster {
    /// That of the kubeconfig.
    pub(crate) async fn new() -> Result<Self, String> {
        Ok(Self(crate::kubernetes::client().await.map_err(|error| error.to_string())?))
    }

    /// An object; none if there is none, or no such kind.
    pub(crate) async fn get(
        &self,
        gvk: (&str, &str, &str),
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Value>, String> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(gvk.0, gvk.1, gvk.2));
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.0.clone(), namespace, &resource),
            None => Api::all_with(self.0.clone(), &resource),
        };
        match api.get_opt(name).await {
            Ok(object) => Ok(object.map(|it| serde_json::to_value(it).unwrap_or_default())),
            Err(error) => Err(format!("{} {name} cannot be read: {error}", gvk.2)),
        }
    }

    /// The answer to a path, or the status and its message.
    pub(crate) async fn raw(&self, path: &str) -> Result<Value, (u16, String)> {
        let request = Request::get(path).body(Vec::new()).map_err(|error| (0, error.to_string()))?;
        match self.0.request::<Value>(request).await {
            Ok(value) => Ok(value),
            Err(kube::Error::Api(status)) => Err((status.code, status.message.clone())),
            Err(error) => Err((0, error.to_string())),
        }
    }

    /// The answer to a path, as text.
    pub(crate) async fn text(&self, path: &str) -> Result<String, String> {
        let request = Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
        self.0.request_text(request).await.map_err(|error| error.to_string())
    }

    /// Whether a user may get a metric.
    pub(crate) async fn may(&self, user: &str, group: &str, namespace: &str, verb: &str) -> Result<bool, String> {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {
                "user": user, "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
                "resourceAttributes": {"group": group, "resource": "pods", "verb": verb, "namespace": namespace},
            },
        });
        let body = serde_json::to_vec(&review).unwrap_or_default();
        let request = Request::post("/apis/authorization.k8s.io/v1/subjectaccessreviews")
            .header("content-type", "application/json")
            .body(body)
            .map_err(|error| error.to_string())?;
        let answer: Value = self.0.request(request).await.map_err(|error| error.to_string())?;
        Ok(answer["status"]["allowed"] == true)
    }
}
