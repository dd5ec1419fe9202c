//! Finds the node agents (a Service's EndpointSlices) and listens to each of them: one connection, one stream, begun anew after
//! a pause when it ends.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, StatusCode, header::AUTHORIZATION};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client,
    runtime::{watcher, watcher::Event},
};
use rustls::{ClientConfig, RootCertStore, crypto::CryptoProvider, pki_types::ServerName};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
    task::AbortHandle,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tracing::{debug, info, warn};

use super::{
    follow::{follow, line},
    store::{FrameError, Store},
};
use crate::hpa::wire::{self, WireError};

const CONNECT: Duration = Duration::from_secs(3);
/// An agent sends a frame a second; one that does not for so long is asked anew.
const FRAME: Duration = Duration::from_secs(5);
/// What is read at one time, bytes: a record of TLS. What a connection once needed for the whole of an agent it would keep, a
/// thousand times.
const READ: usize = 16 * 1024;
/// Pauses between attempts, the shortest and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));

/// An agent that was heard of for so long is news when it is not.
const STEADY: Duration = Duration::from_mins(1);
/// Errors of one agent that are told of before it is silent about them.
const MOST_TOLD: usize = 8;

/// Why an agent is not heard of, as far as the log says it: once for each reason, since the first (a certificate authority that
/// is not known yet) is often not the one that lasts.
#[derive(Default)]
struct Told(Vec<String>);

impl Told {
    fn is_news(&mut self, error: &str) -> bool {
        let news = self.0.len() < MOST_TOLD && !self.0.iter().any(|it| it == error);
        if news {
            self.0.push(error.to_owned());
        }
        news
    }
}

/// How an agent is spoken to.
pub(crate) struct Access {
    /// What its certificate is checked by; none: plain TCP.
    pub(crate) tls: watch::Receiver<Option<Arc<ClientConfig>>>,
    /// Whether TLS is wanted: until there is a configuration, nothing is sent.
    pub(crate) wants_tls: bool,
    /// The name that agents' certificates are for.
    pub(crate) server_name: String,
    /// A file with a bearer token, read anew for each connection: it is replaced while it is valid.
    pub(crate) token: Option<PathBuf>,
}

/// Where agents are found.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// Behind a Service without a cluster IP.
    Service { namespace: String, name: String },
    /// At these addresses.
    Addresses(Vec<String>),
}

#[derive(Debug, Error)]
enum ListenError {
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("{0}: no answer in time")]
    Late(&'static str),
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("it answers {0}{1}")]
    Status(StatusCode, &'static str),
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("the token cannot be read: {0}")]
    Token(String),
    #[error("the stream ended")]
    Ended,
}

/// Agents being listened to. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Agents {
    store: Arc<Mutex<Store>>,
    access: Arc<Access>,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    synced: bool,
    /// By node, or by address where the node is not known.
    listening: HashMap<Arc<str>, (String, AbortHandle)>,
    /// Since when.
    began: Option<Instant>,
}

impl Agents {
    /// Nobody is listened to yet.
    pub(crate) fn new(store: Arc<Mutex<Store>>, access: Access) -> Self {
        Self { store, access: Arc::new(access), known: Arc::default() }
    }

    /// Finds them for ever.
    pub(crate) async fn run(self, client: Option<Client>, found: Found) {
        match (found, client) {
            (Found::Service { namespace, name }, Some(client)) => self.watch(client, &namespace, &name).await,
            (Found::Addresses(addresses), _) => {
                let all = addresses.into_iter().map(|address| (Arc::from(address.as_str()), address)).collect();
                self.set(all);
                std::future::pending::<()>().await;
            }
            (Found::Service { .. }, None) => std::future::pending::<()>().await,
        }
    }

    /// How many agents there are to listen to.
    pub(crate) fn count(&self) -> usize {
        self.lock().listening.len()
    }

    /// Whether it is known which agents there are, and each was heard of or had time to be.
    pub(crate) fn is_ready(&self, patience: Duration) -> bool {
        let known = self.lock();
        if !known.synced {
            return false;
        }
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        known.began.is_some_and(|it| it.elapsed() >= patience)
            || known.listening.keys().all(|it| store.heard(it).is_some())
    }

    async fn watch(&self, client: Client, namespace: &str, name: &str) {
        let api: Api<EndpointSlice> = Api::namespaced(client, namespace);
        let config = watcher::Config::default().labels(&format!("kubernetes.io/service-name={name}"));
        let mut slices: BTreeMap<String, EndpointSlice> = BTreeMap::new();
        let mut synced = false;
        follow("endpointslices", api, config, |event| {
            match event {
                // What is known stands until the list is complete.
                Event::Init => {
                    synced = false;
                    slices.clear();
                }
                Event::InitApply(slice) | Event::Apply(slice) => {
                    slices.insert(slice.metadata.name.clone().unwrap_or_default(), slice);
                }
                Event::Delete(slice) => {
                    slices.remove(&slice.metadata.name.unwrap_or_default());
                }
                Event::InitDone => synced = true,
            }
            if synced {
                self.set(slices.values().flat_map(addresses).collect());
            }
        })
        .await;
    }

    /// These are the agents now: those that are new are listened to, those that are not there no longer.
    fn set(&self, found: BTreeMap<Arc<str>, String>) {
        let mut known = self.lock();
        known.synced = true;
        known.began.get_or_insert_with(Instant::now);
        known.listening.retain(|node, (address, task)| {
            let stays = found.get(node) == Some(address);
            if !stays {
                task.abort();
            }
            stays
        });
        for (node, address) in found {
            let agents = self.clone();
            let (name, to) = (node.clone(), address.clone());
            known.listening.entry(node).or_insert_with(|| {
                let task = tokio::spawn(async move { agents.listen(&name, &to).await }).abort_handle();
                (address, task)
            });
        }
    }

    async fn listen(&self, node: &Arc<str>, address: &str) {
        let mut pause = PAUSES.0;
        let mut told = Told::default();
        loop {
            let begun = Instant::now();
            let mut heard = false;
            let Err(error) = self.stream(node, address, &mut heard).await;
            if heard {
                pause = PAUSES.0;
            }
            if heard && begun.elapsed() >= STEADY {
                told = Told::default();
            }
            let error = line(&error);
            if told.is_news(&error) {
                warn!(agent = %node, address, error, "not listened to; tried again");
            } else {
                debug!(agent = %node, address, error, "not listened to");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn stream(
        &self,
        node: &Arc<str>,
        address: &str,
        heard: &mut bool,
    ) -> Result<std::convert::Infallible, ListenError> {
        let stream =
            timeout(CONNECT, TcpStream::connect(address)).await.map_err(|_| ListenError::Late("connecting"))?;
        let stream = stream.map_err(ListenError::Connect)?;
        let _ = stream.set_nodelay(true);
        if !self.access.wants_tls {
            return self.frames(node, address, stream, heard).await;
        }
        let config = self.access.tls.borrow().clone();
        let Some(config) = config else { return Err(ListenError::Late("the agents' certificate authority")) };
        let name = ServerName::try_from(self.access.server_name.clone())
            .map_err(|error| ListenError::Tls(std::io::Error::other(error)))?;
        let stream = timeout(CONNECT, TlsConnector::from(config).connect(name, stream))
            .await
            .map_err(|_| ListenError::Late("TLS"))?
            .map_err(ListenError::Tls)?;
        self.frames(node, address, stream, heard).await
    }

    async fn frames(
        &self,
        node: &Arc<str>,
        address: &str,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        heard: &mut bool,
    ) -> Result<std::convert::Infallible, ListenError> {
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .read_buf_exact_size(Some(READ))
            .handshake(TokioIo::new(stream))
            .await?;
        // Ends with this function: the connection is its own task, and `sender` the last that holds it.
        let connection = Aborted(tokio::spawn(connection).abort_handle());
        let mut request = Request::get(wire::PATH).header("host", address);
        if let Some(path) = &self.access.token {
            let token = std::fs::read_to_string(path)
                .map_err(|error| ListenError::Token(format!("{}: {error}", path.display())))?;
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.trim()));
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| ListenError::Token(error.to_string()))?;
        let response =
            timeout(FRAME, sender.send_request(request)).await.map_err(|_| ListenError::Late("the request"))??;
        if response.status() != StatusCode::OK {
            return Err(ListenError::Status(
                response.status(),
                match response.status() {
                    StatusCode::UNAUTHORIZED => ": it asks for a token, or does not know this one",
                    StatusCode::FORBIDDEN => {
                        ": this service account may not get /hpa/v1/stream (ClusterRole, nonResourceURLs)"
                    }
                    StatusCode::NOT_FOUND => ": it is an agent of a version without the stream, or no agent",
                    _ => "",
                },
            ));
        }
        let mut body = response.into_body();
        let mut pending = BytesMut::new();
        loop {
            let data = timeout(FRAME, body.frame()).await.map_err(|_| ListenError::Late("the next frame"))?;
            let Some(data) = data else { break };
            if let Ok(data) = data?.into_data() {
                pending.extend_from_slice(&data);
            }
            while let Some(frame) = wire::next_frame(&mut pending)? {
                let now = Instant::now();
                self.store.lock().unwrap_or_else(PoisonError::into_inner).apply(node, &frame, now)?;
                if !std::mem::replace(heard, true) {
                    info!(agent = %node, address, "listened to");
                }
            }
            if pending.is_empty() {
                // The first frame is many times as long as those after it.
                pending = BytesMut::new();
            }
        }
        drop(connection);
        Err(ListenError::Ended)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a task with itself.
struct Aborted(AbortHandle);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is trusted by a CA in PEM.
pub(crate) fn trusting(ca: &str, provider: &Arc<CryptoProvider>) -> Result<Arc<ClientConfig>, String> {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};

    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("no certificate is in it".to_owned());
    }
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A slice's addresses by node. An agent that is going is listened to until another of its node is there.
fn addresses(slice: &EndpointSlice) -> impl Iterator<Item = (Arc<str>, String)> + '_ {
    let port = slice.ports.iter().flatten().find_map(|port| port.port);
    let mut endpoints: Vec<_> = slice.endpoints.iter().collect();
    // The last of a node wins: those that are ready after those that are not.
    endpoints.sort_by_key(|it| {
        let conditions = it.conditions.as_ref();
        let terminating = conditions.and_then(|it| it.terminating) == Some(true);
        (!terminating, conditions.and_then(|it| it.ready) != Some(false))
    });
    endpoints.into_iter().filter_map(move |endpoint| {
        let host = endpoint.addresses.first()?;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let address = format!("{host}:{}", port?);
        Some((endpoint.node_name.as_deref().unwrap_or(&address).into(), address))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_told_once() {
        let mut told = Told::default();
        let told: Vec<bool> = ["TLS", "401", "TLS", "401", "403"].into_iter().map(|it| told.is_news(it)).collect();
        assert_eq!(told, [true, true, false, false, true]);
    }

    #[test]
    fn an_agent_that_goes_gives_way_to_the_next_of_its_node() {
        let slice: EndpointSlice = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "s"}, "addressType": "IPv4", "ports": [{"port": 9464}],
            "endpoints": [
                {"addresses": ["10.0.0.2"], "nodeName": "n1", "conditions": {"ready": true}},
                {"addresses": ["10.0.0.1"], "nodeName": "n1", "conditions": {"ready": false, "terminating": true}},
                {"addresses": ["fd00::1"], "nodeName": "n2", "conditions": {"ready": false}},
                {"addresses": ["10.0.0.9"], "conditions": {}},
            ],
        }))
        .unwrap();
        let found: BTreeMap<Arc<str>, String> = addresses(&slice).collect();
        let shown: Vec<_> = found.iter().map(|(node, address)| format!("{node}={address}")).collect();
        assert_eq!(shown, ["10.0.0.9:9464=10.0.0.9:9464", "n1=10.0.0.2:9464", "n2=[fd00::1]:9464"]);
    }
}
