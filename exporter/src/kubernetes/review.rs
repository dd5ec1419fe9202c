//! Who may read the metrics: bearer tokens, which the API server knows (TokenReview) and allows (SubjectAccessReview).

use std::{
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use tokio::{sync::Semaphore, time::timeout};
use tracing::warn;

use super::answers::{Answers, Asking};

/// Questions to the API server at one time about tokens that are not known; those about known ones do not wait behind them.
const STRANGERS: usize = 4;
/// About tokens that were good before.
const FAMILIARS: usize = 2;
/// For an answer, waiting included.
const PATIENCE: Duration = Duration::from_secs(5);

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
    /// The client has tried too many tokens that were not good.
    TooMany,
}

/// Asks the API server, and remembers what it said.
pub(crate) struct Reviewer {
    client: Client,
    hasher: (RandomState, RandomState),
    answers: Mutex<Answers>,
    strangers: Semaphore,
    familiars: Semaphore,
}

impl Reviewer {
    /// Nothing is known yet.
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            hasher: (RandomState::new(), RandomState::new()),
            answers: Mutex::default(),
            strangers: Semaphore::new(STRANGERS),
            familiars: Semaphore::new(FAMILIARS),
        }
    }

    /// Whether the owner of this token may `GET` this path; who asks with it.
    pub(crate) async fn review(&self, token: &str, path: &'static str, client: IpAddr) -> Access {
        // By keyed hashes, so that tokens are not kept in memory.
        let key = (self.hasher.0.hash_one((token, path)), self.hasher.1.hash_one((token, path)));
        let now = Instant::now();
        let asking = {
            let mut answers = self.lock();
            if let Some(access) = answers.known(key, now) {
                return access;
            }
            answers.ask(key, client, now)
        };
        let turns = match asking {
            Asking::Again => &self.familiars,
            Asking::Anew => &self.strangers,
            Asking::TooMany => return Access::TooMany,
        };
        let answer = timeout(PATIENCE, async {
            let _turn = turns.acquire().await;
            self.ask(token, path).await
        });
        let access = match answer.await {
            Ok(Ok(access)) => access,
            Ok(Err(error)) => {
                warn!(%error, "a bearer token could not be checked");
                return Access::NotAsked;
            }
            Err(_) => {
                warn!("a bearer token could not be checked: the API server takes too long");
                return Access::NotAsked;
            }
        };
        self.lock().keep(key, client, asking, access, Instant::now());
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

    fn lock(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
