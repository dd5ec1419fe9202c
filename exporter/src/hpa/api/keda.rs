//! The same figures for KEDA: its external scaler, over gRPC (kedacore/keda v2.21.0, pkg/scalers/externalscaler/
//! externalscaler.proto). A ScaledObject names a metric, a target and what to look at in its trigger's metadata.

mod trigger;

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt::Display,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{Request as HttpRequest, body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_rustls::TlsAcceptor;
use tonic::{
    Code, Request, Response, Status,
    codegen::tokio_stream::{Stream, wrappers::ReceiverStream},
    server::{Grpc, ServerStreamingService, UnaryService},
};
use tonic_prost::ProstCodec;
use tracing::debug;

use self::trigger::Trigger;
use super::{
    query::{NoValue, Sources},
    service::ends,
};
use crate::serve::{Answer, Carries, Place, Places, listen};

const SERVICE: &str = "/externalscaler.ExternalScaler/";
/// Connections at one time: KEDA's operator holds one for each address and way of TLS that its triggers name.
const CONNECTIONS: usize = 1024;
/// Streams of one connection at one time. All triggers with one `scalerAddress` share a connection, one of type `external-push` holds
/// two streams for good, and where no more are to be had, every other call waits for one of them to end.
const STREAMS: u32 = 16_384;
/// How often a stream looks whether something has become active.
const LOOK: Duration = Duration::from_secs(1);

/// How often a stream says again that something is active: KEDA drops what it is told while it cannot scale, as before it has named an
/// HPA's metrics, and the workload may be scaled to 0 by others. So often it asks by default, too.
const AGAIN: Duration = Duration::from_secs(30);

#[derive(Clone, PartialEq, Eq, Message)]
struct ScaledObjectRef {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(map = "string, string", tag = "3")]
    scaler_metadata: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct IsActiveResponse {
    #[prost(bool, tag = "1")]
    result: bool,
}

#[derive(Clone, PartialEq, Message)]
struct GetMetricSpecResponse {
    #[prost(message, repeated, tag = "1")]
    metric_specs: Vec<MetricSpec>,
}

#[derive(Clone, PartialEq, Message)]
struct MetricSpec {
    #[prost(string, tag = "1")]
    metric_name: String,
    /// Deprecated there; read by KEDA before 2.16.
    #[prost(int64, tag = "2")]
    target_size: i64,
    #[prost(double, tag = "3")]
    target_size_float: f64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct GetMetricsRequest {
    #[prost(message, optional, tag = "1")]
    scaled_object_ref: Option<ScaledObjectRef>,
    #[prost(string, tag = "2")]
    metric_name: String,
}

#[derive(Clone, PartialEq, Message)]
struct GetMetricsResponse {
    #[prost(message, repeated, tag = "1")]
    metric_values: Vec<MetricValue>,
}

#[derive(Clone, PartialEq, Message)]
#[expect(clippy::struct_field_names, reason = "as the .proto names them")]
struct MetricValue {
    #[prost(string, tag = "1")]
    metric_name: String,
    #[prost(int64, tag = "2")]
    metric_value: i64,
    #[prost(double, tag = "3")]
    metric_value_float: f64,
}

/// Whether a stream says something: what is new, and from time to time that there still is something to do. The other need not be
/// repeated, since KEDA asks before it scales to 0.
fn is_to_tell(told: Option<(bool, Duration)>, active: bool) -> bool {
    told.is_none_or(|(before, ago)| before != active || active && ago >= AGAIN)
}

fn invalid(error: impl Display) -> Status {
    Status::invalid_argument(error.to_string())
}

/// The scaler. Cheap to clone.
#[derive(Clone)]
struct Scaler {
    sources: Arc<Sources>,
    /// Its streams are to end: this replica does.
    closing: watch::Receiver<bool>,
}

impl Scaler {
    /// Whether there is anything to do: as the value says, and an error where there is none, as it is when the value is asked for.
    /// What is known of a part may be enough for an HPA (`Sources::scaled`), and still says nothing about the rest being idle.
    async fn active(&self, object: &ScaledObjectRef) -> Result<bool, Status> {
        let trigger = Trigger::of(&object.scaler_metadata).map_err(invalid)?;
        match self.sources.selected(&object.namespace, &trigger.metric, &trigger.selector).await {
            Ok(value) => Ok(value.value > trigger.activation),
            // The rest can only add to it.
            Err(NoValue::Incomplete(part)) if part.is_above(trigger.activation) => Ok(true),
            Err(error) => Err(status(&error)),
        }
    }

    /// Waits, unless this replica ends meanwhile. Whether it does not.
    async fn goes_on(&self, wait: impl Future<Output = ()>) -> bool {
        let mut closing = self.closing.clone();
        tokio::select! {
            () = wait => true,
            () = ends(&mut closing) => false,
        }
    }

    async fn tell_active(self, request: Request<ScaledObjectRef>) -> Result<Response<IsActiveResponse>, Status> {
        Ok(Response::new(IsActiveResponse { result: self.active(request.get_ref()).await? }))
    }

    async fn stream_is_active(
        self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<ReceiverStream<Result<IsActiveResponse, Status>>>, Status> {
        let object = request.into_inner();
        let mut told = match self.active(&object).await {
            Ok(active) => Some((active, Instant::now())),
            // What is asked for wrongly stays wrong. What cannot be told now is told when it can.
            Err(error) if error.code() == Code::InvalidArgument => return Err(error),
            Err(_) => None,
        };
        let (sender, receiver) = mpsc::channel(4);
        if let Some((result, _)) = told {
            let _ = sender.send(Ok(IsActiveResponse { result })).await;
        }
        tokio::spawn(async move {
            while !sender.is_closed() && self.goes_on(tokio::time::sleep(LOOK)).await {
                let Ok(result) = self.active(&object).await else { continue };
                if is_to_tell(told.map(|(before, at)| (before, at.elapsed())), result) {
                    if sender.send(Ok(IsActiveResponse { result })).await.is_err() {
                        return;
                    }
                    told = Some((result, Instant::now()));
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    fn spec(&self, object: &ScaledObjectRef) -> Result<GetMetricSpecResponse, Status> {
        let trigger = Trigger::of(&object.scaler_metadata).map_err(invalid)?;
        self.sources.metric(&object.namespace, &trigger.metric).map_err(invalid)?;
        let spec = MetricSpec {
            metric_name: trigger.metric,
            target_size: trigger.target.ceil() as i64,
            target_size_float: trigger.target,
        };
        Ok(GetMetricSpecResponse { metric_specs: vec![spec] })
    }

    #[expect(clippy::unused_async, reason = "a method like the others")]
    async fn metric_spec(self, request: Request<ScaledObjectRef>) -> Result<Response<GetMetricSpecResponse>, Status> {
        Ok(Response::new(self.spec(request.get_ref())?))
    }

    /// What to hold, at once, as KEDA wants it; it is the trigger's, and changes with it alone, when KEDA asks anew. The stream stays
    /// open as long as the client's, since KEDA opens another 2 s after the end of one.
    async fn stream_metric_spec(
        self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<ReceiverStream<Result<GetMetricSpecResponse, Status>>>, Status> {
        let spec = self.spec(request.get_ref())?;
        let (sender, receiver) = mpsc::channel(1);
        let _ = sender.send(Ok(spec)).await;
        tokio::spawn(async move { self.goes_on(sender.closed()).await });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn metrics(self, request: Request<GetMetricsRequest>) -> Result<Response<GetMetricsResponse>, Status> {
        let request = request.into_inner();
        let object = request.scaled_object_ref.ok_or_else(|| invalid("the request names no ScaledObject"))?;
        let trigger = Trigger::of(&object.scaler_metadata).map_err(invalid)?;
        let scaled = (object.namespace.as_str(), object.name.as_str());
        // Of a workload that has no pods, 0: nothing is done, and nothing is wrong.
        let value = self
            .sources
            .scaled(scaled, &trigger.metric, &trigger.selector)
            .await
            .map_err(|error| status(&error))?
            .value;
        let value = MetricValue {
            metric_name: request.metric_name,
            // Read by KEDA before 2.16, which knows whole numbers alone: cut, as values are.
            metric_value: value as i64,
            metric_value_float: value,
        };
        Ok(Response::new(GetMetricsResponse { metric_values: vec![value] }))
    }
}

fn status(error: &NoValue) -> Status {
    match error {
        NoValue::Metric(_) | NoValue::Several { .. } | NoValue::Selector(_) => invalid(error),
        NoValue::Object(_) | NoValue::Unknown { .. } => Status::not_found(error.to_string()),
        NoValue::Incomplete(_) => Status::unavailable(error.to_string()),
    }
}

type Boxed<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

/// A method that answers once.
struct Unary<F>(F);

impl<A, B, F, O> UnaryService<A> for Unary<F>
where
    B: 'static,
    F: FnMut(Request<A>) -> O,
    O: Future<Output = Result<Response<B>, Status>> + Send + 'static,
{
    type Response = B;
    type Future = Boxed<B>;

    fn call(&mut self, request: Request<A>) -> Self::Future {
        Box::pin((self.0)(request))
    }
}

/// A method that goes on answering.
struct Streaming<F>(F);

impl<A, B, S, F, O> ServerStreamingService<A> for Streaming<F>
where
    B: 'static,
    S: Stream<Item = Result<B, Status>> + Send + 'static,
    F: FnMut(Request<A>) -> O,
    O: Future<Output = Result<Response<S>, Status>> + Send + 'static,
{
    type Response = B;
    type ResponseStream = S;
    type Future = Boxed<S>;

    fn call(&mut self, request: Request<A>) -> Self::Future {
        Box::pin((self.0)(request))
    }
}

async fn answer(scaler: Scaler, request: HttpRequest<Incoming>) -> hyper::Response<tonic::body::Body> {
    let method = request.uri().path().strip_prefix(SERVICE).unwrap_or("").to_owned();
    match method.as_str() {
        "IsActive" => Grpc::new(ProstCodec::default()).unary(Unary(|it| scaler.clone().tell_active(it)), request).await,
        "StreamIsActive" => {
            let method = Streaming(|it| scaler.clone().stream_is_active(it));
            Grpc::new(ProstCodec::default()).server_streaming(method, request).await
        }
        "GetMetricSpec" => {
            Grpc::new(ProstCodec::default()).unary(Unary(|it| scaler.clone().metric_spec(it)), request).await
        }
        "GetMetrics" => Grpc::new(ProstCodec::default()).unary(Unary(|it| scaler.clone().metrics(it)), request).await,
        "StreamMetricSpec" => {
            let method = Streaming(|it| scaler.clone().stream_metric_spec(it));
            Grpc::new(ProstCodec::default()).server_streaming(method, request).await
        }
        _ => Status::unimplemented("").into_http(),
    }
}

/// Serves until it is dropped; over TLS where there is an acceptor. Once it is `closing`, streams end, and clients are told to go
/// elsewhere.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    sources: Arc<Sources>,
    closing: watch::Receiver<bool>,
) -> Infallible {
    let places = Places::new(CONNECTIONS, Carries::Streams);
    let serve = move |stream, place: Place| {
        let (scaler, tls) = (Scaler { sources: sources.clone(), closing: closing.clone() }, tls.clone());
        async move {
            match tls {
                None => connection(stream, &place, scaler).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => connection(stream, &place, scaler).await,
                    Err(error) => debug!(%error, "TLS"),
                },
            }
        }
    };
    listen(listener, places, serve).await
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, place: &Place, scaler: Scaler) {
    place.activity.ready();
    let mut closing = scaler.closing.clone();
    let activity = Arc::clone(&place.activity);
    let service = service_fn(move |request| {
        let (scaler, asked) = (scaler.clone(), activity.asked());
        async move { Ok::<_, Infallible>(answer(scaler, request).await.map(|body| Answer::new(body, asked))) }
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).max_concurrent_streams(STREAMS).keep_alive_interval(Duration::from_secs(30));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = ends(&mut closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "gRPC connection");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_says_what_is_new_and_repeats_what_is_to_be_done() {
        let ago = |told: bool, seconds: u64| Some((told, Duration::from_secs(seconds)));
        assert!(is_to_tell(None, false) && is_to_tell(ago(true, 0), false) && is_to_tell(ago(false, 0), true));
        assert!(!is_to_tell(ago(true, 29), true) && is_to_tell(ago(true, 30), true));
        assert!(!is_to_tell(ago(false, 3600), false));
    }
}
