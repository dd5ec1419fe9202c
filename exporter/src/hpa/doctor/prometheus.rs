//! What the doctor asks Prometheus: one instant query, over plain HTTP.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

use super::cluster::escaped;

/// The result's label sets.
pub(super) async fn query(base: &str, expression: &str) -> Result<Vec<Value>, String> {
    timeout(Duration::from_secs(10), ask(base, expression)).await.map_err(|_| "no answer within 10 s".to_owned())?
}

async fn ask(base: &str, expression: &str) -> Result<Vec<Value>, String> {
    let uri: Uri = base.parse().map_err(|error| format!("{base} is no URL: {error}"))?;
    if uri.scheme_str() != Some("http") {
        return Err(format!("{base}: give an http:// address, as `kubectl port-forward` makes one"));
    }
    let host = uri.host().ok_or_else(|| format!("{base} names no host"))?;
    let address = format!("{host}:{}", uri.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(&address).await.map_err(|error| format!("{address}: {error}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let path = format!("{}/api/v1/query?query={}", uri.path().trim_end_matches('/'), escaped(expression));
    let request =
        Request::get(path).header("host", address).body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    let answer: Value =
        serde_json::from_slice(&body).map_err(|error| format!("not an answer of Prometheus: {error}"))?;
    if answer["status"] != "success" {
        return Err(answer["error"].as_str().unwrap_or("it gives no reason").to_owned());
    }
    let results = answer["data"]["result"].as_array().cloned().unwrap_or_default();
    Ok(results.into_iter().map(|it| it["metric"].clone()).collect())
}
