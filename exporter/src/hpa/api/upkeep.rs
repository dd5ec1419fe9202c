//! Keeps certificates right: the one that is served with what the APIServices say of it, and what is trusted of the agents'. Whom
//! clients trust changes before what is served does, and goes on trusting what was served before.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::{Api, Client, runtime::watcher};
use rustls::{
    crypto::CryptoProvider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::sync::{Notify, watch};
use tracing::{error, info};

use super::{
    agents,
    certs::{self, Pair, Source},
    config::Config,
    follow::follow,
    registration::Registration,
    trust::Trust,
};

/// How often certificates and APIServices are looked at, if nothing is heard of a change.
pub(super) const LOOK: Duration = Duration::from_secs(10);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(2);
/// Between hearing of a change of an APIService and looking: several come at one time.
const GATHER: Duration = Duration::from_millis(500);
/// Between telling the aggregation layer of a new CA and serving by it.
const SETTLE: Duration = Duration::from_secs(3);

/// The certificate that is served now.
#[derive(Debug, Default)]
pub(super) struct Serving(Mutex<Option<Arc<CertifiedKey>>>);

impl Serving {
    pub(super) fn has(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn set(&self, certified: Arc<CertifiedKey>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(certified);
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Keeps the serving certificate, and the APIServices, right, for ever.
pub(super) async fn keep_certificates(
    config: &Config,
    client: &Client,
    provider: &CryptoProvider,
    serving: &Serving,
    registration: &mut Registration,
) {
    let source = match (&config.certificate.certificate_file, &config.certificate.key_file) {
        (Some(certificate), Some(key)) => {
            Source::Files { certificate: certificate.clone(), key: key.clone(), ca: config.certificate.ca_file.clone() }
        }
        _ => Source::Secret {
            namespace: config.namespace.clone(),
            name: config.certificate.secret.clone(),
            service: config.service.clone(),
            lifetime: Duration::from_secs(config.certificate.lifetime_seconds),
        },
    };
    let changed = Notify::new();
    let api: Api<APIService> = Api::all(client.clone());
    let kept = !registration.is_off();
    let apiservices = async {
        if kept {
            follow("APIServices", api, watcher::Config::default().any_semantic(), |_| changed.notify_one()).await;
        }
    };
    let looks = async {
        let mut served: Option<Pair> = None;
        loop {
            let pause = match source.pair(client).await {
                Ok(pair) => look(&pair, &mut served, provider, serving, registration).await,
                Err(error) => {
                    error!(%error, "no certificate is to be had");
                    AGAIN
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = changed.notified() => tokio::time::sleep(GATHER).await,
            }
        }
    };
    tokio::join!(apiservices, looks);
}

/// Has a pair trusted, and then serves by it. How long to wait before the next look.
async fn look(
    pair: &Pair,
    served: &mut Option<Pair>,
    provider: &CryptoProvider,
    serving: &Serving,
    registration: &mut Registration,
) -> Duration {
    let is_new = served.as_ref() != Some(pair);
    let certified = match certs::certified(pair, provider) {
        Ok(certified) => certified,
        Err(error) => {
            error!(%error, "the certificate of before is kept");
            return AGAIN;
        }
    };
    // What is served until then has to be trusted, too.
    let before = served.as_ref().filter(|_| is_new).and_then(|it| it.ca.as_deref()).unwrap_or_default();
    let ca = pair.ca.as_ref().map(|ca| format!("{ca}\n{before}"));
    let looked = registration.look(ca.as_deref()).await;
    if is_new {
        if let Some(old) = served {
            if !looked.trusted && ca.is_some() && certs::is_valid(&old.certificate) {
                // Nobody would trust the new one.
                return AGAIN;
            }
            tokio::time::sleep(SETTLE).await;
        }
        serving.set(certified);
        info!("a certificate is served that was not before");
        *served = Some(pair.clone());
    }
    if looked.done { LOOK } else { AGAIN }
}

/// Keeps the agents' certificate, and what is trusted of it, right.
pub(super) async fn keep_agents_certificate(
    config: &Config,
    client: &Client,
    provider: &Arc<CryptoProvider>,
    trusted: &watch::Sender<Option<Arc<rustls::ClientConfig>>>,
) {
    if !config.agents.tls {
        return std::future::pending().await;
    }
    let source = Source::Secret {
        namespace: config.namespace.clone(),
        name: config.agents.secret.clone(),
        service: config.agents.service.clone(),
        lifetime: Duration::from_secs(config.certificate.lifetime_seconds),
    };
    let mut trust = Trust::default();
    let mut known = String::new();
    loop {
        let ca = match &config.agents.ca_file {
            Some(path) => std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display())),
            None => {
                source.pair(client).await.map(|pair| pair.ca.unwrap_or_default()).map_err(|error| error.to_string())
            }
        };
        let ca = ca.and_then(|ca| {
            // Agents serve by the certificate of before until their kubelet has given them the new one.
            let ca = trust.publish(&ca, [], Instant::now()).ok_or("there is no certificate in it")?;
            if ca != known {
                trusted.send_replace(Some(agents::trusting(&ca, provider)?));
                known = ca;
            }
            Ok(())
        });
        if let Err(error) = ca {
            error!(error, "the agents' certificate authority is not to be had");
        }
        tokio::time::sleep(LOOK).await;
    }
}
