//! Who may ask: what the API server answers to a SubjectAccessReview, remembered for a few seconds.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::{Api, Client, api::PostParams};
use tracing::warn;

use super::{
    authn::User,
    follow::line,
    remembered::{Memory, Remembered},
};

/// As long as API servers of others do (k8s.io/apiserver, options/authorization.go); a right that was given is good for as long
/// again while it is asked for anew.
const KEPT: Duration = Duration::from_secs(10);

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

/// Asks, and remembers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Authorizer {
    client: Client,
    answers: Arc<Remembered<(User, Wish), Access>>,
}

impl Authorizer {
    /// Nothing is known yet.
    pub(crate) fn new(client: Client) -> Self {
        Self { client, answers: Arc::new(Remembered::new(KEPT)) }
    }

    /// Whether a user may.
    pub(crate) async fn may(&self, user: &User, wish: &Wish) -> Access {
        // As in the API server; the aggregation layer looks by it whether this server is there.
        if user.groups.iter().any(|it| it == "system:masters") {
            return Access::Granted;
        }
        let key = (user.clone(), wish.clone());
        match self.answers.look(&key, Instant::now()) {
            Memory::Fresh(access) => access,
            Memory::Due(Access::Granted) => {
                let asking = self.clone();
                tokio::spawn(async move { asking.ask_anew(key).await });
                Access::Granted
            }
            _ => self.ask_anew(key).await,
        }
    }

    async fn ask_anew(&self, key: (User, Wish)) -> Access {
        let access = self.ask(&key.0, &key.1).await;
        if access != Access::NotAsked {
            self.answers.note(key, access.clone(), Instant::now());
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
