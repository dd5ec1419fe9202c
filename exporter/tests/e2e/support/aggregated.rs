//! A stand-in for another vendor's aggregated API server, which an APIService can name: answers by path over TLS, one connection
//! a thread. Values and discovery are what the test says; the API server that asks it is real.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::{Value, json};
use xtask::cluster::{ControlPlane, Subject};

/// Starts one; its port. It lives as long as the test's process. What is not among the answers is a 404.
pub(crate) fn serve(plane: &ControlPlane, answers: BTreeMap<&'static str, Value>) -> u16 {
    let hosts = ["localhost"];
    let pair = plane.authority().issue(&Subject { file: "aggregated", name: "aggregated", groups: &[], hosts: &hosts });
    let pair = pair.expect("the authority issues certificates");
    let chain = CertificateDer::pem_file_iter(&pair.certificate).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (config, answers) = (Arc::new(config), Arc::new(answers));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (config, answers) = (config.clone(), answers.clone());
            thread::spawn(move || converse(stream, config, &answers));
        }
    });
    port
}

/// Answers the requests of a connection until it ends.
fn converse(stream: TcpStream, config: Arc<ServerConfig>, answers: &BTreeMap<&'static str, Value>) -> Option<()> {
    let mut stream = BufReader::new(StreamOwned::new(ServerConnection::new(config).ok()?, stream));
    loop {
        let mut first = String::new();
        if stream.read_line(&mut first).ok()? == 0 {
            return None;
        }
        let mut line = String::new();
        while stream.read_line(&mut line).ok()? > 2 {
            line.clear();
        }
        let path = first.split(' ').nth(1)?.split('?').next()?;
        let (status, body) = match answers.get(path) {
            Some(answer) => ("200 OK", answer.clone()),
            None => (
                "404 Not Found",
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
                    "message": "no such metric"}),
            ),
        };
        let body = body.to_string();
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.get_mut().write_all((head + &body).as_bytes()).ok()?;
        stream.get_mut().flush().ok()?;
    }
}
