//! HTTP: /metrics, /healthz, /readyz, /targets. Knows how to answer, not what: the agent is asked for figures. Slow, large and
//! many clients are bounded here: no client stands in another's way.

mod accept;
mod bind;
mod connection;
mod debug;
mod listen;
mod places;
mod render;
mod tls;
mod turnstile;

pub(crate) use self::{
    bind::bind,
    connection::{Answer, Watched},
    listen::listen,
    places::{Carries, Place, Places},
    tls::acceptor,
};

use std::{convert::Infallible, io, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, VARY, WWW_AUTHENTICATE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use self::render::Renderings;
use crate::{
    agent::Agent,
    hpa::{feed::Feed, wire},
    kubernetes::{Access, Reviewer},
    metrics, visible,
};

/// Request line and headers together, bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Paths that are asked for with a token where tokens are needed.
const GUARDED: [&str; 5] = ["/metrics", "/targets", "/debug/blocked", "/debug/lock", wire::PATH];
/// Paths that kubelets ask for.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];
/// Connections served at one time.
const CONNECTIONS: usize = 256;

type Body = BoxBody<Bytes, io::Error>;

/// Who is served, and how.
#[derive(Default)]
pub(crate) struct Protection {
    /// Plain HTTP without it.
    pub(crate) tls: Option<TlsAcceptor>,
    /// Everyone without it. It does not guard /healthz and /readyz, which kubelets ask for without a token.
    pub(crate) reviewer: Option<Reviewer>,
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: std::net::TcpListener, agent: Agent, protection: Protection) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let Protection { tls, reviewer } = protection;
    let server = Arc::new(Server { rendered: renderings(&agent), agent, reviewer, feed: Feed::default() });
    let never = listen(listener, Places::new(CONNECTIONS, Carries::Heads).in_turn(), move |stream, place| {
        let (server, tls) = (Arc::clone(&server), tls.clone());
        async move {
            match tls {
                None => connection(stream, server, &place).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => connection(stream, server, &place).await,
                    Err(error) => debug!(%error, "TLS"),
                },
            }
        }
    });
    match never.await {}
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, server: Arc<Server>, place: &Place) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, asked) = (Arc::clone(&server), place.activity.asked());
        async move {
            place.turn(PROBES.contains(&request.uri().path())).await;
            Ok::<_, Infallible>(server.answer(request, place.client).await.map(|body| Answer::new(body, asked)))
        }
    });
    let served = http1::Builder::new().max_buf_size(MAX_HEAD).serve_connection(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        debug!(%error, "connection");
    }
}

/// What is rendered for all who ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Rendered {
    Metrics(metrics::Format),
    Targets,
}

fn renderings(agent: &Agent) -> Renderings<Rendered> {
    let agent = agent.clone();
    Renderings::new(move |what, out| match what {
        Rendered::Metrics(format) => metrics::write(&Arc::new(agent.snapshot()), format, out),
        Rendered::Targets => {
            let json = serde_json::to_string_pretty(&agent.targets())?;
            writeln!(out, "{}", visible::json(&json))
        }
    })
}

struct Server {
    agent: Agent,
    reviewer: Option<Reviewer>,
    rendered: Renderings<Rendered>,
    /// The stream that the metrics-api listens to.
    feed: Feed,
}

impl Server {
    async fn answer(&self, request: Request<Incoming>, client: IpAddr) -> Response<Body> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served here\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        if let Some(refusal) = self.refusal(&request, client).await {
            return refusal;
        }
        match request.uri().path() {
            "/metrics" => self.metrics(&request).await,
            "/targets" => self.rendered(&request, Rendered::Targets, "application/json", "Accept-Encoding").await,
            wire::PATH if self.reviewer.is_none() => plain(
                StatusCode::FORBIDDEN,
                "the HPA's stream is served to owners of a bearer token alone: see --hpa-stream-address\n",
            ),
            wire::PATH if request.method() == Method::GET => self.stream(),
            "/debug/blocked" if request.method() != Method::GET => {
                let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "a profile is taken for GET alone\n");
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
                response
            }
            "/debug/blocked" => debug::blocked(&self.agent, request.uri().query().unwrap_or_default()).await,
            "/debug/lock" => debug::lock(&self.agent),
            "/healthz" => plain(StatusCode::OK, "ok\n"),
            "/readyz" => match self.agent.readiness() {
                Ok(None) => plain(StatusCode::OK, "ready\n"),
                Ok(Some(without)) => text(StatusCode::OK, format!("ready, but {without}\n")),
                Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            },
            "/" => plain(StatusCode::OK, "gopulse: see /metrics, /targets, /debug/blocked, /healthz, /readyz\n"),
            _ => plain(StatusCode::NOT_FOUND, "not found: see /metrics, /targets, /debug/blocked, /healthz, /readyz\n"),
        }
    }

    /// The answer to someone who may not have one.
    async fn refusal(&self, request: &Request<Incoming>, client: IpAddr) -> Option<Response<Body>> {
        let reviewer = self.reviewer.as_ref()?;
        let path = GUARDED.into_iter().find(|it| *it == request.uri().path())?;
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token =
            header.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let access = match token {
            Some((_, token)) => reviewer.review(token.trim(), path, client).await,
            None => Access::Unknown,
        };
        match access {
            Access::Granted => None,
            Access::Unknown => {
                let mut response = plain(StatusCode::UNAUTHORIZED, "a bearer token of this cluster is needed\n");
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                Some(response)
            }
            Access::Denied => Some(plain(
                StatusCode::FORBIDDEN,
                "the token's owner may not get this path (ClusterRole with nonResourceURLs, verb get)\n",
            )),
            Access::TooMany => Some(later("too many tokens that were not good\n", Duration::from_secs(1))),
            Access::NotAsked => Some(plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "the token could not be checked: the API server does not answer\n",
            )),
        }
    }

    async fn metrics(&self, request: &Request<Incoming>) -> Response<Body> {
        self.agent.scraped();
        let format = accept::format(request.headers());
        self.rendered(request, Rendered::Metrics(format), format.content_type(), "Accept, Accept-Encoding").await
    }

    async fn rendered(
        &self,
        request: &Request<Incoming>,
        what: Rendered,
        content_type: &'static str,
        vary: &'static str,
    ) -> Response<Body> {
        let Some(rendering) = self.rendered.get(what).await else {
            return plain(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made: see the log\n");
        };
        let gzip = accept::gzip(request.headers());
        let mut response = Response::new(rendering.body(gzip).boxed());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(VARY, HeaderValue::from_static(vary));
        if gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }

    fn stream(&self) -> Response<Body> {
        let agent = self.agent.clone();
        let mut response = Response::new(self.feed.listen(move || agent.figures()).boxed());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(wire::CONTENT_TYPE));
        response
    }
}

/// The answer to who has asked too often.
fn later(why: &'static str, wait: Duration) -> Response<Body> {
    let mut response = plain(StatusCode::TOO_MANY_REQUESTS, why);
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    self::text(status, text)
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = whole(status, text.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn whole(status: StatusCode, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(bytes).map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response
}
