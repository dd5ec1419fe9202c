//! What the doctor asks the API server, by path: objects as JSON, the kinds there are, and the metrics APIs.

use hyper::Request;
use kube::Client;
use serde_json::{Value, json};

/// The cluster.
pub(super) struct Cluster(Client);

/// Why there is no answer: a status (0 if there was none) and what was said.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) code: u16,
    pub(super) message: String,
}

/// A kind that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// `/apis/apps/v1`, `/api/v1`.
    pub(super) root: String,
    /// `apps/v1`, `v1`.
    pub(super) api_version: String,
    /// `deployments`.
    pub(super) plural: String,
    /// Whether it has a scale subresource.
    pub(super) scale: bool,
}

/// What a verb is asked for.
pub(super) struct Attributes<'a> {
    pub(super) group: &'a str,
    pub(super) namespace: &'a str,
    pub(super) resource: &'a str,
    pub(super) subresource: &'a str,
}

impl Cluster {
    /// That of the kubeconfig.
    pub(super) async fn new() -> Result<Self, String> {
        Ok(Self(crate::kubernetes::client().await.map_err(|error| error.to_string())?))
    }

    /// The answer to a path.
    pub(super) async fn raw(&self, path: &str) -> Result<Value, Trouble> {
        let wrong = |code, message| Trouble { code, message };
        let request = Request::get(path).body(Vec::new()).map_err(|error| wrong(0, error.to_string()))?;
        match self.0.request::<Value>(request).await {
            Ok(value) => Ok(value),
            Err(kube::Error::Api(status)) => Err(wrong(status.code, status.message.trim().to_owned())),
            Err(error) => Err(wrong(0, error.to_string())),
        }
    }

    /// The answer to a path; none if there is no such thing, of whatever form that is told: a kind that is not served is told by
    /// a text.
    pub(super) async fn get(&self, path: &str) -> Result<Option<Value>, Trouble> {
        match self.raw(path).await {
            Ok(value) => Ok(Some(value)),
            Err(Trouble { code: 404, .. }) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// The answer to a path, as text.
    pub(super) async fn text(&self, path: &str) -> Result<String, String> {
        let request = Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
        self.0.request_text(request).await.map_err(|error| error.to_string())
    }

    /// A kind of a group, in the version that the group prefers, or that has it: the HPA controller, too, goes by group and kind
    /// alone (`RESTMappings`).
    pub(super) async fn kind(&self, group: &str, kind: &str) -> Result<Option<Kind>, Trouble> {
        for (root, api_version) in self.versions(group).await? {
            if let Some(list) = self.get(&root).await?
                && let Some(found) = kind_of(&list, &root, &api_version, kind)
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Where there is a kind of this name; `apps/v1` before others.
    pub(super) async fn versions_with(&self, kind: &str) -> Result<Vec<String>, Trouble> {
        let groups = self.raw("/apis").await?;
        let groups = groups["groups"].as_array().cloned().unwrap_or_default();
        let names = groups.iter().filter_map(|it| it["name"].as_str());
        let mut found = Vec::new();
        for group in std::iter::once("").chain(names) {
            // An aggregated server that is away says nothing of the others.
            if let Ok(Some(kind)) = self.kind(group, kind).await {
                found.push(kind.api_version);
            }
        }
        found.sort_by_key(|it| (it != "apps/v1", it.clone()));
        Ok(found)
    }

    /// Roots and names of a group's versions, the preferred one first.
    async fn versions(&self, group: &str) -> Result<Vec<(String, String)>, Trouble> {
        if group.is_empty() {
            return Ok(vec![("/api/v1".to_owned(), "v1".to_owned())]);
        }
        let Some(answer) = self.get(&format!("/apis/{group}")).await? else { return Ok(Vec::new()) };
        let preferred = answer["preferredVersion"]["groupVersion"].as_str();
        let all = answer["versions"].as_array().cloned().unwrap_or_default();
        let others = all.iter().filter_map(|it| it["groupVersion"].as_str()).filter(|it| Some(*it) != preferred);
        Ok(preferred.into_iter().chain(others).map(|it| (format!("/apis/{it}"), it.to_owned())).collect())
    }

    /// Whether a user may get it.
    pub(super) async fn may(&self, user: &str, what: &Attributes<'_>) -> Result<bool, String> {
        let Attributes { group, namespace, resource, subresource } = what;
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {
                "user": user, "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
                "resourceAttributes": {
                    "group": group, "resource": resource, "subresource": subresource, "verb": "get", "namespace": namespace,
                },
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

/// A kind, out of an APIResourceList.
fn kind_of(list: &Value, root: &str, api_version: &str, kind: &str) -> Option<Kind> {
    let resources = list["resources"].as_array()?;
    let name = |it: &Value| it["name"].as_str().unwrap_or_default().to_owned();
    let plural = resources.iter().find(|it| it["kind"] == kind && !name(it).contains('/')).map(name)?;
    let scale = resources.iter().any(|it| name(it) == format!("{plural}/scale"));
    Some(Kind { root: root.to_owned(), api_version: api_version.to_owned(), plural, scale })
}

/// For a query: everything but letters, digits, `-`, `.`, `_` and `~` as `%XX`.
pub(super) fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_found_with_its_scale() {
        let list = json!({"resources": [
            {"name": "rollouts/status", "kind": "Rollout"}, {"name": "rollouts", "kind": "Rollout"},
            {"name": "rollouts/scale", "kind": "Scale"}, {"name": "experiments", "kind": "Experiment"},
        ]});
        let kind = |kind| kind_of(&list, "/apis/argoproj.io/v1alpha1", "argoproj.io/v1alpha1", kind);
        assert_eq!(kind("Rollout").map(|it| (it.plural, it.scale)), Some(("rollouts".to_owned(), true)));
        assert_eq!(kind("Experiment").map(|it| it.scale), Some(false));
        assert_eq!(kind("rollout"), None);
    }

    #[test]
    fn queries_are_escaped() {
        assert_eq!(escaped("a=b,c in (x)"), "a%3Db%2Cc%20in%20%28x%29");
    }
}
