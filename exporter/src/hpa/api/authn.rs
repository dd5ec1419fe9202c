//! Who asks: the aggregation layer's front proxy says so in headers, on connections whose client certificate chains to the
//! request-header CA of the ConfigMap kube-system/extension-apiserver-authentication. On any other connection such headers are
//! nobody's word. The ConfigMap is watched, and each request is checked against what it says now.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use hyper::HeaderMap;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    runtime::{watcher, watcher::Event},
};
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, UnixTime, pem::PemObject as _},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use thiserror::Error;
use tracing::{error, info};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::follow::follow;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";
/// The group of everyone who is known.
const AUTHENTICATED: &str = "system:authenticated";

/// A user, as the API server knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct User {
    /// Name.
    pub(crate) name: String,
    /// Groups.
    pub(crate) groups: Vec<String>,
    /// What else an authenticator said.
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

/// Why nobody is known to ask. Said to the caller in general words, and to the log in these.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum Unknown {
    #[error("no client certificate")]
    NoCertificate,
    #[error("the client certificate does not chain to the request-header CA: {0}")]
    Untrusted(String),
    #[error("the client certificate's common name {0:?} is not among the request-header's allowed names")]
    Name(String),
    #[error("no user in the request's headers")]
    NoUser,
    #[error("the request-header CA is not known yet (ConfigMap {NAMESPACE}/{NAME})")]
    NotConfigured,
}

/// What the ConfigMap says.
#[derive(Debug, Default)]
struct RequestHeader {
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    names: Vec<String>,
    users: Vec<String>,
    groups: Vec<String>,
    extras: Vec<String>,
}

/// How long it holds that a certificate is good: a verification takes as long as a good part of an answer.
const CHECKED: Duration = Duration::from_secs(5);

/// A certificate with those between it and the CA, found good by what the ConfigMap said, and when.
struct Checked {
    by: Arc<RequestHeader>,
    certificates: Vec<CertificateDer<'static>>,
    at: Instant,
}

/// The check. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Authenticator {
    header: Arc<Mutex<Arc<RequestHeader>>>,
    /// The API servers have one certificate each.
    checked: Arc<Mutex<Option<Checked>>>,
    provider: Arc<CryptoProvider>,
}

impl Authenticator {
    /// Nobody is known until the ConfigMap is.
    pub(crate) fn new(provider: Arc<CryptoProvider>) -> Self {
        Self { header: Arc::default(), checked: Arc::default(), provider }
    }

    /// Follows the ConfigMap for ever.
    pub(crate) async fn run(self, client: Client) {
        let api: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
        let config = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
        follow(NAME, api, config, |event| match event {
            Event::Apply(map) | Event::InitApply(map) => self.take(&map.data.unwrap_or_default()),
            Event::Delete(_) => error!("ConfigMap {NAMESPACE}/{NAME} is gone: what it said last stands"),
            Event::Init | Event::InitDone => {}
        })
        .await;
    }

    /// Whether somebody can be known.
    pub(crate) fn is_ready(&self) -> bool {
        self.header().verifier.is_some()
    }

    /// Takes the ConfigMap's data. What is not usable leaves what was known before.
    pub(crate) fn take(&self, data: &BTreeMap<String, String>) {
        match RequestHeader::read(data, &self.provider) {
            Ok(header) => {
                info!(names = header.names.join(","), "request-header CA taken");
                *self.header.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(header);
            }
            Err(error) => error!(error, "ConfigMap {NAMESPACE}/{NAME} is not usable: what it said before stands"),
        }
    }

    /// Who asks, on a connection with these client certificates.
    pub(crate) fn user(
        &self,
        certificates: Option<&[CertificateDer<'static>]>,
        headers: &HeaderMap,
    ) -> Result<User, Unknown> {
        let header = self.header();
        let verifier = header.verifier.as_ref().ok_or(Unknown::NotConfigured)?;
        let certificates = certificates.unwrap_or_default();
        let (leaf, between) = certificates.split_first().ok_or(Unknown::NoCertificate)?;
        if !self.is_checked(&header, certificates) {
            verifier
                .verify_client_cert(leaf, between, UnixTime::now())
                .map_err(|error| Unknown::Untrusted(error.to_string()))?;
            if !header.names.is_empty() {
                let name = common_name(leaf).unwrap_or_default();
                if !header.names.contains(&name) {
                    return Err(Unknown::Name(name));
                }
            }
            let checked = Checked { by: header.clone(), certificates: certificates.to_vec(), at: Instant::now() };
            *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = Some(checked);
        }
        header.user(headers)
    }

    fn is_checked(&self, by: &Arc<RequestHeader>, certificates: &[CertificateDer<'static>]) -> bool {
        let checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        checked
            .as_ref()
            .is_some_and(|it| Arc::ptr_eq(&it.by, by) && it.at.elapsed() < CHECKED && it.certificates == certificates)
    }

    fn header(&self) -> Arc<RequestHeader> {
        self.header.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl RequestHeader {
    fn read(data: &BTreeMap<String, String>, provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        let ca = data.get("requestheader-client-ca-file").ok_or("it has no requestheader-client-ca-file")?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            let certificate = certificate.map_err(|error| format!("requestheader-client-ca-file: {error}"))?;
            roots.add(certificate).map_err(|error| format!("requestheader-client-ca-file: {error}"))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
            .build()
            .map_err(|error| format!("requestheader-client-ca-file: {error}"))?;
        let list = |key: &str, default: &[&str]| {
            let Some(text) = data.get(key).filter(|it| !it.trim().is_empty()) else {
                return Ok(default.iter().map(|it| (*it).to_owned()).collect());
            };
            serde_json::from_str::<Vec<String>>(text).map_err(|error| format!("{key}: {error}"))
        };
        let lower = |names: Vec<String>| names.into_iter().map(|it| it.to_ascii_lowercase()).collect();
        Ok(Self {
            verifier: Some(verifier),
            names: list("requestheader-allowed-names", &[])?,
            users: lower(list("requestheader-username-headers", &["X-Remote-User"])?),
            groups: lower(list("requestheader-group-headers", &["X-Remote-Group"])?),
            extras: lower(list("requestheader-extra-headers-prefix", &["X-Remote-Extra-"])?),
        })
    }

    fn user(&self, headers: &HeaderMap) -> Result<User, Unknown> {
        let values = |name: &String| {
            headers.get_all(name).iter().filter_map(|it| Some(it.to_str().ok()?.to_owned())).collect::<Vec<_>>()
        };
        let name = self.users.iter().flat_map(values).find(|it| !it.is_empty()).ok_or(Unknown::NoUser)?;
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (header, value) in headers {
            let key = self.extras.iter().find_map(|prefix| header.as_str().strip_prefix(prefix.as_str()));
            if let (Some(key), Ok(value)) = (key, value.to_str()) {
                extra.entry(super::answer::percent_decoded(key)).or_default().push(value.to_owned());
            }
        }
        let mut groups: Vec<String> = self.groups.iter().flat_map(values).collect();
        // As the API server's own authenticators add it (k8s.io/apiserver, authentication/group).
        if name != "system:anonymous" && !groups.iter().any(|it| it == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Ok(User { name, groups, extra })
    }
}

fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    Some(name.as_str().ok()?.to_owned())
}

/// Takes any client certificate, and none, in the handshake: whether it is good for anything is said to each request, as 401,
/// and by what is trusted then. That the client has the certificate's key is checked here.
#[derive(Debug)]
pub(crate) struct AnyClient(pub(crate) Arc<CryptoProvider>);

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
