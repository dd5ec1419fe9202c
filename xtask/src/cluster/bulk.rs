//! Very many objects at once: written into etcd as the API server stores them, which takes it seconds where creating them one by one
//! takes minutes. Knows nothing of what they are; nothing of them is checked, defaulted or admitted.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// Puts of one transaction: etcd's `--max-txn-ops`.
const AT_ONCE: usize = 128;

/// Writes objects by their keys below `/registry/`, such as `pods/NAMESPACE/NAME`, through etcd's JSON gateway (etcd,
/// Documentation/dev-guide/api_grpc_gateway). The API server reads JSON in its store as it does Protobuf.
pub(super) fn put(etcd: &str, objects: impl Iterator<Item = (String, Value)>) -> Result<()> {
    let mut puts = Vec::new();
    for (key, object) in objects {
        let (key, value) = (STANDARD.encode(format!("/registry/{key}")), STANDARD.encode(object.to_string()));
        puts.push(json!({"requestPut": {"key": key, "value": value}}));
        if puts.len() == AT_ONCE {
            transaction(etcd, &puts)?;
            puts.clear();
        }
    }
    if puts.is_empty() { Ok(()) } else { transaction(etcd, &puts) }
}

fn transaction(etcd: &str, puts: &[Value]) -> Result<()> {
    let body = json!({"success": puts}).to_string();
    let address = etcd.strip_prefix("http://").context("etcd is not spoken to in the clear")?;
    let mut stream = TcpStream::connect(address).with_context(|| format!("cannot connect to etcd at {address}"))?;
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    // HTTP/1.0: the answer ends with the connection and is not chunked.
    let head = format!(
        "POST /v3/kv/txn HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("etcd does not answer")?;
    if answer.split(' ').nth(1) != Some("200") || !answer.contains("\"succeeded\":true") {
        bail!("etcd refuses a transaction: {answer:.300}");
    }
    Ok(())
}
