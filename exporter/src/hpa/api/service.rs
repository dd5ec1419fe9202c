//! HTTP: who asks, whether they may, and the answer. Connections are TLS's, with or without a client certificate.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ACCEPT, CONTENT_TYPE, HeaderValue},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::{ServerConfig, crypto::CryptoProvider, pki_types::CertificateDer, server::ResolvesServerCert};
use serde_json::Value as Json;
use tokio::{net::TcpListener, sync::watch};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::{
    answer::{self, CUSTOM, EXTERNAL, Of, Question},
    authn::{AnyClient, Authenticator, Unknown},
    authz::{Access, Authorizer, Wish},
    objects::ObjectError,
    openapi,
    query::{NoValue, Sources},
    registration::Status,
};
use crate::serve::{Answer, Carries, Place, Places, Watched, listen};

/// Connections at one time. The API servers hold a few each.
const CONNECTIONS: usize = 256;
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_HEAD: usize = 64 * 1024;

/// What a request is answered from.
pub(crate) struct Service {
    pub(crate) sources: Arc<Sources>,
    /// None: whoever connects may read everything. Only where nobody else can connect.
    pub(crate) access: Option<(Authenticator, Authorizer)>,
    /// Whose the APIs' groups are.
    pub(crate) status: Status,
    /// Why it is not ready; none if it is.
    pub(crate) not_ready: Box<dyn Fn() -> Option<String> + Send + Sync>,
}

/// TLS that asks for a client certificate and takes any.
pub(crate) fn acceptor(
    certificate: Arc<dyn ResolvesServerCert>,
    provider: &Arc<CryptoProvider>,
) -> Result<TlsAcceptor, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(AnyClient(provider.clone())))
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves until it is dropped; once it is `closing`, clients are told to go elsewhere.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    service: Arc<Service>,
    closing: watch::Receiver<bool>,
) -> Infallible {
    let places = Places::new(CONNECTIONS, Carries::Streams);
    let serve = move |stream, place| connection(stream, place, tls.clone(), service.clone(), closing.clone());
    listen(listener, places, serve).await
}

async fn connection(
    stream: Watched,
    place: Place,
    tls: TlsAcceptor,
    service: Arc<Service>,
    mut closing: watch::Receiver<bool>,
) {
    let stream = match tls.accept(stream).await {
        Ok(stream) => stream,
        Err(error) => return debug!(%error, "TLS"),
    };
    place.activity.ready();
    let activity = Arc::clone(&place.activity);
    let certificates: Option<Arc<[CertificateDer<'static>]>> = stream.get_ref().1.peer_certificates().map(Into::into);
    let answer = service_fn(move |request: Request<Incoming>| {
        let (service, certificates, asked) = (service.clone(), certificates.clone(), activity.asked());
        async move {
            let answer = service.answer(&request, certificates.as_deref()).await;
            Ok::<_, Infallible>(answer.map(|body| Answer::new(body, asked)))
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(100).max_header_list_size(MAX_HEAD as u32);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), answer));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = ends(&mut closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(error, "connection");
    }
}

/// Waits until this replica ends.
pub(super) async fn ends(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|it| *it).await;
}

impl Service {
    async fn answer(
        &self,
        request: &Request<Incoming>,
        certificates: Option<&[CertificateDer<'static>]>,
    ) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        match path {
            "/livez" | "/healthz" => return plain(StatusCode::OK, "ok\n".into()),
            "/readyz" => {
                // As of the API server: more on request.
                let verbose = request.uri().query().is_some_and(|it| it.split('&').any(|it| it.starts_with("verbose")));
                let more = if verbose { self.status.text() } else { String::new() };
                return match (self.not_ready)() {
                    None => plain(StatusCode::OK, format!("ok\n{more}")),
                    Some(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n{more}")),
                };
            }
            _ => {}
        }
        let question = Question::of(path);
        if let Err(refusal) = self.admit(request, certificates, &question).await {
            return refusal;
        }
        if request.method() != Method::GET {
            return failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "only GET is served here");
        }
        if let Some(document) = openapi::document(path, &self.status.served()) {
            return json(StatusCode::OK, &document);
        }
        // The aggregation layer asks for aggregated discovery first, and takes the plain one after any refusal.
        let aggregated =
            request.headers().get_all(ACCEPT).iter().any(|it| it.as_bytes().windows(9).any(|it| it == b"Discovery"));
        match question {
            Question::Groups if aggregated => {
                failure(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", "no aggregated discovery")
            }
            Question::Groups => json(StatusCode::OK, &answer::groups()),
            Question::Group(group) => json(StatusCode::OK, &answer::group(group)),
            Question::Resources { group, version } => {
                json(StatusCode::OK, &answer::resources(group, version, &self.sources.listed().names))
            }
            Question::Objects { version, namespace, of, metric } => {
                let parameters = answer::parameters(request.uri().query().unwrap_or(""));
                let parameter = |name: &str| parameters.get(name).map_or("", String::as_str);
                let (pods, figures) = (parameter("labelSelector"), parameter("metricLabelSelector"));
                match self.sources.objects(&namespace, &of, &metric, pods, figures).await {
                    Ok(values) => {
                        let selector = super::selector::Selector::parse(figures).unwrap_or_default();
                        json(StatusCode::OK, &answer::values(version, &metric, &selector, values.into_iter()))
                    }
                    Err(error) => refused(&error),
                }
            }
            Question::External { version, namespace, metric } => {
                let parameters = answer::parameters(request.uri().query().unwrap_or(""));
                let selector = parameters.get("labelSelector").map_or("", String::as_str);
                match self.sources.external(&namespace, &metric, selector).await {
                    Ok(value) => {
                        let selector = super::selector::Selector::parse(selector).unwrap_or_default();
                        json(StatusCode::OK, &answer::external(version, &metric, &selector, Some(value)))
                    }
                    Err(error) => refused(&error),
                }
            }
            Question::Unknown => {
                failure(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
            }
        }
    }

    /// Whether this may be asked, by whom it is asked.
    async fn admit(
        &self,
        request: &Request<Incoming>,
        certificates: Option<&[CertificateDer<'static>]>,
        question: &Question,
    ) -> Result<(), Response<Full<Bytes>>> {
        let Some((authenticator, authorizer)) = &self.access else { return Ok(()) };
        let user = authenticator.user(certificates, request.headers()).map_err(|error| {
            debug!(%error, path = request.uri().path(), "not authenticated");
            match error {
                Unknown::NotConfigured => {
                    failure(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", &error.to_string())
                }
                _ => failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized"),
            }
        })?;
        let path = request.uri().path();
        // Says no more than that the APIs are here. The aggregation layer asks as a user whom few clusters give rights to.
        if path == "/openapi" || path.starts_with("/openapi/") {
            return Ok(());
        }
        let wish = wish(question, path);
        match authorizer.may(&user, &wish).await {
            Access::Granted => Ok(()),
            Access::Denied(reason) => {
                let message = format!(
                    "User {:?} may not get {path}{}{reason}",
                    user.name,
                    if reason.is_empty() { "" } else { ": " }
                );
                Err(failure(StatusCode::FORBIDDEN, "Forbidden", &message))
            }
            Access::NotAsked => Err(failure(
                StatusCode::SERVICE_UNAVAILABLE,
                "ServiceUnavailable",
                "the API server could not be asked whether this is allowed",
            )),
        }
    }
}

/// As the API server reads such paths (k8s.io/apiserver, pkg/endpoints/request/requestinfo.go).
fn wish(question: &Question, path: &str) -> Wish {
    match question {
        Question::Objects { version, namespace, of, metric } => {
            let (resource, name) = match of {
                Of::Pods => ("pods", "*"),
                Of::Pod(name) => ("pods", name.as_str()),
                Of::Object(kind, name) => (kind.names().0, name.as_str()),
                Of::Objects(kind) => (kind.names().0, "*"),
                Of::Namespace => ("metrics", metric.as_str()),
            };
            Wish::Metric {
                verb: "get",
                group: CUSTOM,
                version: (*version).to_owned(),
                namespace: namespace.clone(),
                resource: resource.to_owned(),
                name: name.to_owned(),
                subresource: if *of == Of::Namespace { String::new() } else { metric.clone() },
            }
        }
        Question::External { version, namespace, metric } => Wish::Metric {
            verb: "list",
            group: EXTERNAL,
            version: (*version).to_owned(),
            namespace: namespace.clone(),
            resource: metric.clone(),
            name: String::new(),
            subresource: String::new(),
        },
        _ => Wish::Path(path.to_owned()),
    }
}

fn refused(error: &NoValue) -> Response<Full<Bytes>> {
    let (status, reason) = match error {
        NoValue::Selector(_) => (StatusCode::BAD_REQUEST, "BadRequest"),
        NoValue::Incomplete(_) => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
        NoValue::Object(ObjectError::Unreadable { .. }) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        NoValue::Metric(_) | NoValue::Several { .. } | NoValue::Object(_) | NoValue::Unknown { .. } => {
            (StatusCode::NOT_FOUND, "NotFound")
        }
    };
    failure(status, reason, &error.to_string())
}

fn failure(status: StatusCode, reason: &str, message: &str) -> Response<Full<Bytes>> {
    json(status, &answer::failure(status.as_u16(), reason, message))
}

fn json(status: StatusCode, value: &Json) -> Response<Full<Bytes>> {
    respond(status, "application/json", value.to_string())
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", text)
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
