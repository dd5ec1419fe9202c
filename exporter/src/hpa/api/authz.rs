//! Who may ask: what the API server answers to a SubjectAccessReview, remembered for a few seconds.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::{Api, Client, api::PostParams};
use tracing::warn;

use super::{authn::User, follow::line};

/// As long as the API server's own webhook authoriser remembers a refusal; k8s.io/apiserver, options/authorization.go.
const KEPT: Duration = Duration::from_secs(10);
/// Answers kept.
const MOST: usize = 4096;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wish {
    /// A path that is no resource's.
    Path(String),
    /// A metric.
    Metric {
        /// `get`, or `list` where the path has no name.
        verb: &'static str,
        group: &'static str,
        version: String,
        namespace: String,
        /// Resource, name and subresource, as the path has them.
        resource: String,
        name: String,
        subresource: String,
    },
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Granted,
    Denied(String),
    /// The API server could not be asked.
    NotAsked,
}

/// Asks, and remembers.
pub(crate) struct Authorizer {
    client: Client,
    answers: Mutex<HashMap<(User, Wish), (Instant, Access)>>,
}

impl Authorizer {
    /// Nothing is known yet.
    pub(crate) fn new(client: Client) -> Self {
        Self { client, answers: Mutex::default() }
    }

    /// Whether a user may.
    pub(crate) async fn may(&self, user: &User, wish: &Wish) -> Access {
        // As in the API server; the aggregation layer looks by it whether this server is there.
        if user.groups.iter().any(|it| it == "system:masters") {
            return Access::Granted;
        }
        let key = (user.clone(), wish.clone());
        let known = self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some((at, access)) = known
            && at.elapsed() < KEPT
        {
            return access;
        }
        let access = self.ask(user, wish).await;
        if access != Access::NotAsked {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            if answers.len() >= MOST {
                answers.retain(|_, (at, _)| at.elapsed() < KEPT);
            }
            if answers.len() < MOST {
                answers.insert(key, (Instant::now(), access.clone()));
            }
        }
        access
    }

    async fn ask(&self, user: &User, wish: &Wish) -> Access {
        let some = |text: &String| Some(text.clone()).filter(|it| !it.is_empty());
        let mut spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()),
            ..SubjectAccessReviewSpec::default()
        };
        match wish {
            Wish::Path(path) => {
                spec.non_resource_attributes =
                    Some(NonResourceAttributes { path: Some(path.clone()), verb: Some("get".into()) });
            }
            Wish::Metric { verb, group, version, namespace, resource, name, subresource } => {
                spec.resource_attributes = Some(ResourceAttributes {
                    verb: Some((*verb).into()),
                    group: Some((*group).into()),
                    version: some(version),
                    namespace: some(namespace),
                    resource: some(resource),
                    name: some(name),
                    subresource: some(subresource),
                    ..ResourceAttributes::default()
                });
            }
        }
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        match api.create(&PostParams::default(), &review).await {
            Ok(review) => match review.status {
                Some(status) if status.allowed => Access::Granted,
                status => Access::Denied(status.and_then(|it| it.reason).unwrap_or_default()),
            },
            Err(error) => {
                warn!(error = line(&error), "a SubjectAccessReview failed");
                Access::NotAsked
            }
        }
    }
}
