//! HTTP: /metrics, /healthz, /readyz, /targets. Knows how to answer, not what: the agent is asked for figures. Slow, large and
//! many clients are bounded here.

mod accept;
mod body;
mod debug;
mod tls;

pub(crate) use self::tls::acceptor;

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY, WWW_AUTHENTICATE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use crate::{
    agent::Agent,
    hpa::{feed::Feed, wire},
    kubernetes::{Access, Reviewer},
    metrics,
};

/// Connections served at one time; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// Request line and headers together, bytes.
const MAX_HEAD: usize = 16 * 1024;
/// How long a client may take to send its request's head, also on a connection kept alive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one request may take in all, a slow reader included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Scrapes rendered at one time. Each holds a snapshot (1 MB for 5,000 series) and some chunks; a client that stalls takes one
/// place for as long as a request may take.
const SCRAPES: usize = 4;

type Body = BoxBody<Bytes, io::Error>;

/// Listens; the error names the address and what to do.
pub(crate) fn bind(address: SocketAddr) -> Result<std::net::TcpListener, String> {
    let listener = std::net::TcpListener::bind(address);
    // `[::]` is all addresses, of both families; where the kernel has no IPv6 it is those of the other.
    let listener = match listener {
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) && address.ip().is_unspecified() => {
            std::net::TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, address.port()))
        }
        other => other,
    };
    let listener = listener.map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "something else, perhaps another gopulse, listens there: choose another with --metrics-address"
            }
            io::ErrorKind::PermissionDenied => "ports below 1024 need root: choose another with --metrics-address",
            io::ErrorKind::AddrNotAvailable => {
                "this machine has no such address: choose another with --metrics-address"
            }
            _ => "choose another with --metrics-address",
        };
        format!("cannot listen on {address}: {error}; {advice}")
    })?;
    listener.set_nonblocking(true).map_err(|error| format!("cannot listen on {address}: {error}"))?;
    Ok(listener)
}

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
    let rendering = Arc::new(Semaphore::new(SCRAPES));
    let server = Arc::new(Server { agent, reviewer, rendering, feed: Feed::default() });
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or the client is gone already: neither ends the server.
                debug!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let server = Arc::clone(&server);
        let tls = tls.clone();
        tokio::spawn(async move {
            let result = match tls {
                None => connection(stream, server).await,
                Some(tls) => match tokio::time::timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, server).await,
                    Ok(Err(error)) => {
                        debug!(%error, "TLS");
                        Ok(())
                    }
                    Err(_) => Ok(()),
                },
            };
            if let Err(error) = result {
                debug!(%error, "connection");
            }
            drop(place);
        });
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, server: Arc<Server>) -> hyper::Result<()> {
    let service = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(server.answer(request).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

struct Server {
    agent: Agent,
    reviewer: Option<Reviewer>,
    /// A few scrapes are rendered at a time, so that many do not multiply their memory.
    rendering: Arc<Semaphore>,
    /// The stream that the metrics-api listens to.
    feed: Feed,
}

impl Server {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served here\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        if let Some(refusal) = self.refusal(&request).await {
            return refusal;
        }
        match request.uri().path() {
            "/metrics" => self.metrics(&request).await,
            "/targets" => self.targets().await,
            wire::PATH if self.reviewer.is_none() => plain(
                StatusCode::FORBIDDEN,
                "the HPA's stream is served to owners of a bearer token alone: see --hpa-stream-address\n",
            ),
            wire::PATH if request.method() == Method::GET => self.stream(),
            "/debug/blocked" => debug::blocked(&self.agent, request.uri().query().unwrap_or_default()).await,
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
    async fn refusal(&self, request: &Request<Incoming>) -> Option<Response<Body>> {
        let reviewer = self.reviewer.as_ref()?;
        let path = request.uri().path();
        if matches!(path, "/" | "/healthz" | "/readyz") {
            return None;
        }
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token =
            header.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let access = match token {
            Some((_, token)) => reviewer.review(token.trim(), path).await,
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
            Access::NotAsked => Some(plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "the token could not be checked: the API server does not answer\n",
            )),
        }
    }

    async fn metrics(&self, request: &Request<Incoming>) -> Response<Body> {
        let format = accept::format(request.headers());
        let gzip = accept::gzip(request.headers());
        let Ok(permit) = Arc::clone(&self.rendering).acquire_owned().await else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n");
        };
        let agent = self.agent.clone();
        let (sink, body) = body::channel(REQUEST_TIMEOUT);
        tokio::task::spawn_blocking(move || {
            let snapshot = Arc::new(agent.snapshot());
            if let Err(error) = body::write(sink, gzip, |out| metrics::write(&snapshot, format, out)) {
                debug!(%error, "a scrape was not read to its end");
            }
            drop(permit);
        });
        let mut response = Response::new(body.boxed());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
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

    async fn targets(&self) -> Response<Body> {
        let agent = self.agent.clone();
        let json = tokio::task::spawn_blocking(move || serde_json::to_vec_pretty(&agent.targets())).await;
        match json {
            Ok(Ok(mut json)) => {
                json.push(b'\n');
                let mut response = whole(StatusCode::OK, json.into());
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
            _ => plain(StatusCode::INTERNAL_SERVER_ERROR, "the list of targets could not be made\n"),
        }
    }
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
