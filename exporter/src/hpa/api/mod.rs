//! `gopulse metrics-api`: the custom and external metrics APIs, served from the agents' own figures. Shares with the agent the
//! types on the wire between them, and nothing else.

mod agents;
mod answer;
mod apiservice;
mod authn;
mod authz;
mod bound;
mod certs;
mod config;
mod directory;
mod each;
mod evaluate;
mod follow;
mod keda;
mod objects;
mod openapi;
mod owner;
mod query;
mod registration;
mod remembered;
mod selector;
mod service;
mod spelling;
mod store;
mod table;
mod through;
mod total;
mod trust;
mod upkeep;

#[cfg(test)]
pub(crate) use self::objects::Kind;
pub(crate) use self::{
    bound::without_index,
    config::{Config, MetricsApiArgs},
    spelling::encode,
    table::{Metric, Table},
};

use std::{
    collections::HashSet,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustls::crypto::{CryptoProvider, ring};
use tokio::{net::TcpListener, sync::watch};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, error, info, warn};

use self::{
    agents::{Access, Agents, Found},
    authn::Authenticator,
    authz::Authorizer,
    bound::Bounds,
    directory::Directory,
    objects::Objects,
    query::Sources,
    registration::{Registration, Status},
    service::Service,
    store::Store,
    upkeep::{LOOK, Serving, keep_agents_certificate, keep_certificates},
};

/// How long agents are waited for before this server says that it is ready without them.
const AGENTS: Duration = Duration::from_secs(10);
/// What figures there must be before it says that it is ready: a rate over less is mostly chance.
const FIGURES: Duration = Duration::from_secs(3);
/// For how long a replica that is to end answers those who have not heard of it yet: kube-proxies and API servers.
const LAME_DUCK: Duration = Duration::from_secs(3);
/// For how long its connections may then end what they have begun, having said that nothing more is taken.
const FAREWELL: Duration = Duration::from_secs(1);
/// Where a pod finds its service account's token.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Runs until it fails, or is asked to end.
pub(crate) async fn run(config: Config, ended: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let provider = Arc::new(ring::default_provider());
    let client = crate::kubernetes::client().await.map_err(|error| error.to_string())?;
    let table = config.table().map_err(|error| error.to_string())?;
    let store = Arc::new(Mutex::new(Store::new(table.kept())));
    let directory = Directory::default();
    let authenticator = Authenticator::new(provider.clone());

    let (agents_tls, agents_tls_now) = watch::channel(None);
    let server_name =
        config.agents.server_name.clone().unwrap_or(format!("{}.{}.svc", config.agents.service, config.namespace));
    let token =
        config.agents.token_file.clone().or_else(|| Some(TOKEN.into()).filter(|it: &std::path::PathBuf| it.exists()));
    let access = Access { tls: agents_tls_now, wants_tls: config.agents.tls, server_name, token };
    let agents = Agents::new(store.clone(), access);
    let (ending, status) = (Arc::new(AtomicBool::new(false)), Status::default());
    let (close, closing) = watch::channel(false);
    let serving = Arc::new(Serving::default());
    let listener = listen(config.address, "--address")?;
    let tls = service::acceptor(serving.clone(), &provider).map_err(|error| format!("TLS: {error}"))?;
    let sources = Arc::new(Sources {
        table,
        list_values: config.list_values,
        store: store.clone(),
        directory: directory.clone(),
        objects: Objects::new(client.clone()),
        bounds: Bounds::new(client.clone()),
    });
    let ready = Ready {
        agents: agents.clone(),
        directory: directory.clone(),
        authenticator: authenticator.clone(),
        store: store.clone(),
        serving: serving.clone(),
        authentication: config.authentication,
        ending: ending.clone(),
    };
    let not_ready = Box::new(move || ready.not());
    let access = config.authentication.then(|| (authenticator.clone(), Authorizer::new(client.clone())));
    let service = Arc::new(Service { sources: sources.clone(), access, status: status.clone(), not_ready });
    let keda = keda_listener(&config, &serving, &provider)?;
    let keda = async {
        match keda {
            Some((listener, tls)) => keda::serve(listener, tls, sources.clone(), closing.clone()).await,
            None => std::future::pending().await,
        }
    };
    info!(version = env!("CARGO_PKG_VERSION"), address = %config.address, metrics = service.sources.table.iter().count(), "serving");

    let mut registration = Registration::new(&config, client.clone(), status);
    let parts = async {
        tokio::select! {
            () = directory.run(client.clone()) => {}
            () = authenticator.run(client.clone()) => {}
            () = agents.run(Some(client.clone()), found(&config)) => {}
            () = keep_agents_certificate(&config, &client, &provider, &agents_tls) => {}
            () = clean(&sources) => {}
            never = service::serve(listener, tls, service, closing.clone()) => match never {},
            never = keda => match never {},
        }
        Err("a part of it ended".to_owned())
    };
    let mut parts = pin!(parts);
    tokio::select! {
        failed = &mut parts => return failed,
        () = keep_certificates(&config, &client, &provider, &serving, &mut registration) => {}
        ended = ended => ended?,
    }
    info!("asked to end");
    ending.store(true, Ordering::Relaxed);
    let leave = async {
        registration.withdraw().await;
        tokio::time::sleep(LAME_DUCK).await;
        let _ = close.send(true);
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        failed = &mut parts => failed,
        () = leave => Ok(()),
    }
}

/// Where the agents are found.
fn found(config: &Config) -> Found {
    if config.agents.addresses.is_empty() {
        Found::Service { namespace: config.namespace.clone(), name: config.agents.service.clone() }
    } else {
        Found::Addresses(config.agents.addresses.clone())
    }
}

/// Where KEDA is listened for, if it is.
fn keda_listener(
    config: &Config,
    serving: &Arc<Serving>,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<(TcpListener, Option<TlsAcceptor>)>, String> {
    let Some(address) = config.keda_address else { return Ok(None) };
    let tls = || service::acceptor(serving.clone(), provider).map_err(|error| format!("TLS: {error}"));
    Ok(Some((listen(address, "keda_address")?, config.keda_tls.then(tls).transpose()?)))
}

/// What this server needs before it says that it is ready.
struct Ready {
    agents: Agents,
    directory: Directory,
    authenticator: Authenticator,
    store: Arc<Mutex<Store>>,
    serving: Arc<Serving>,
    /// Whether it asks who asks.
    authentication: bool,
    ending: Arc<AtomicBool>,
}

impl Ready {
    /// Why it is not; none if it is.
    fn not(&self) -> Option<String> {
        let span = || self.store.lock().unwrap_or_else(PoisonError::into_inner).span();
        let reasons = [
            (self.ending.load(Ordering::Relaxed), "this replica ends"),
            (!self.serving.has(), "there is no certificate yet"),
            (self.authentication && !self.authenticator.is_ready(), "the request-header CA is not known yet"),
            (!self.directory.is_synced(), "the pods are not known yet"),
            (!self.agents.is_ready(AGENTS), "the agents have not all been heard of yet"),
            (self.agents.count() > 0 && span() < FIGURES, "there are no figures of the last seconds yet"),
        ];
        reasons.iter().find(|(so, _)| *so).map(|(_, reason)| (*reason).to_owned())
    }
}

fn listen(address: SocketAddr, setting: &str) -> Result<TcpListener, String> {
    let listener = crate::serve::bind(address).map_err(|error| error.replace("--metrics-address", setting))?;
    TcpListener::from_std(listener).map_err(|error| format!("cannot listen on {address}: {error}"))
}

/// Forgets what is old, and says what cannot work.
async fn clean(sources: &Sources) {
    let mut told = false;
    let mut misused = HashSet::new();
    let mut cut = HashSet::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let mut store = sources.store.lock().unwrap_or_else(PoisonError::into_inner);
        store.clean(Instant::now(), |namespace, pod| sources.directory.has(namespace, pod));
        let live = store.live_agents(Instant::now());
        // Nobody waits for answers while all series are counted, but for who wants to see them.
        let size = tracing::enabled!(tracing::Level::DEBUG).then(|| store.size());
        for metric in sources.table.iter() {
            let misuse = store.family_kinds().find_map(|(family, kind)| metric.misuse(family, kind));
            if let Some(misuse) = misuse.filter(|_| misused.insert(metric.name.clone())) {
                error!(metric = metric.name, "{misuse}: it will be 0");
            }
        }
        drop(store);
        for (name, count) in sources.listed().cut {
            if cut.insert(name.clone()) {
                warn!(metric = name, names = count, listed = table::MAX_LISTED, "not all are listed; all are served");
            }
        }
        if let Some((containers, series)) = size {
            debug!(agents = live, containers, series, pods = sources.directory.len(), "known");
        }
        let none = live == 0;
        if none && !told {
            warn!("no agent is heard of: metrics of pods are missing, not 0");
        }
        told = none;
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! What the feed's tests need of the store.

    use std::{
        sync::Arc,
        time::{Duration, Instant},
    };

    use super::{
        evaluate::evaluate,
        selector::Selector,
        store::{Kept, Store},
        table::{Entry, Smoothing, Table},
    };
    use crate::hpa::wire::Frame;

    /// What one agent has told.
    pub(crate) struct Known(Store);

    impl Known {
        pub(crate) fn new() -> Self {
            Self(Store::new(Kept { others: Duration::from_secs(30), ..Kept::default() }))
        }

        pub(crate) fn apply(&mut self, frame: &Frame, now: Instant) {
            let mut pending = bytes::BytesMut::from(&frame.to_bytes()[..]);
            let frame = crate::hpa::wire::next_frame(&mut pending).unwrap().unwrap();
            self.0.apply(&Arc::from("node"), &frame, now).unwrap();
        }

        /// An expression's value of a pod of namespace `shop`, over 15 s.
        pub(crate) fn ask(&self, expression: &str, pod: &str, now: Instant) -> Option<f64> {
            self.ask_of("shop", expression, pod, now)
        }

        /// The same of any namespace.
        pub(crate) fn ask_of(&self, namespace: &str, expression: &str, pod: &str, now: Instant) -> Option<f64> {
            let entry = Entry {
                expression: expression.into(),
                window_seconds: 15.0,
                smoothing: Smoothing::None,
                help: String::new(),
            };
            let table = Table::new(&[("m".to_owned(), entry)].into()).unwrap();
            let view = self.0.pod(namespace, pod, now)?;
            evaluate(table.get("m")?, &[view], &Selector::default()).map(|it| it.value)
        }
    }
}
