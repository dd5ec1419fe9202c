//! Who may read the metrics: bearer tokens, which the API server knows (TokenReview) and allows (SubjectAccessReview).

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use tracing::warn;

/// How long an answer holds: kube-rbac-proxy and kubelets keep theirs for 10 s to 2 min.
const KEPT: Duration = Duration::from_mins(1);
/// Answers kept; more tokens than this at one time are asked for again.
const MOST: usize = 256;

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Its owner may read this path.
    Granted,
    /// It is nobody's.
    Unknown,
    /// Its owner may not.
    Denied,
    /// The API server could not be asked.
    NotAsked,
}

/// Asks the API server, and remembers what it said.
pub(crate) struct Reviewer {
    client: Client,
    hasher: (RandomState, RandomState),
    answers: Mutex<HashMap<(u64, u64), (Instant, Access)>>,
}

impl Reviewer {
    /// Nothing is known yet.
    pub(crate) fn new(client: Client) -> Self {
        Self { client, hasher: (RandomState::new(), RandomState::new()), answers: Mutex::default() }
    }

    /// Whether the owner of this token may `GET` this path.
    pub(crate) async fn review(&self, token: &str, path: &str) -> Access {
        // By keyed hashes, so that tokens are not kept in memory.
        let key = (self.hasher.0.hash_one((token, path)), self.hasher.1.hash_one((token, path)));
        if let Some((at, access)) = self.lock().get(&key)
            && at.elapsed() < KEPT
        {
            return *access;
        }
        let access = match self.ask(token, path).await {
            Ok(access) => access,
            Err(error) => {
                warn!(%error, "a bearer token could not be checked");
                return Access::NotAsked;
            }
        };
        let mut answers = self.lock();
        if answers.len() >= MOST {
            answers.retain(|_, (at, _)| at.elapsed() < KEPT);
            if answers.len() >= MOST {
                answers.clear();
            }
        }
        answers.insert(key, (Instant::now(), access));
        access
    }

    async fn ask(&self, token: &str, path: &str) -> Result<Access, kube::Error> {
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token.to_owned()), ..TokenReviewSpec::default() },
            ..TokenReview::default()
        };
        let tokens: Api<TokenReview> = Api::all(self.client.clone());
        let status = tokens.create(&PostParams::default(), &review).await?.status.unwrap_or_default();
        let Some(user) = status.user.filter(|_| status.authenticated == Some(true)) else { return Ok(Access::Unknown) };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username,
                groups: user.groups,
                uid: user.uid,
                extra: user.extra,
                non_resource_attributes: Some(NonResourceAttributes {
                    path: Some(path.to_owned()),
                    verb: Some("get".into()),
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let access: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let allowed = access.create(&PostParams::default(), &review).await?.status.is_some_and(|status| status.allowed);
        Ok(if allowed { Access::Granted } else { Access::Denied })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(u64, u64), (Instant, Access)>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
