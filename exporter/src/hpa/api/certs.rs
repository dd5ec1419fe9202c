//! The serving certificate: given as files, or made here and shared by the replicas through a Secret. Each has a CA of its own,
//! whose key is thrown away; the Secret's `ca.crt` has the CA before it too, so that replicas may change one after another.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, api::PostParams};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use thiserror::Error;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::trust::certificates;

/// A certificate with its key, and what clients are to trust, all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    /// The certificate, those between after it.
    pub(crate) certificate: String,
    /// Its key.
    pub(crate) key: String,
    /// What it is to be checked by; of files none.
    pub(crate) ca: Option<String>,
}

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Given, and read again when they change.
    Files {
        certificate: PathBuf,
        key: PathBuf,
        /// Written to the APIServices; none leaves their caBundle to whoever made them.
        ca: Option<PathBuf>,
    },
    /// Made here and kept in a Secret.
    Secret { namespace: String, name: String, service: String, lifetime: Duration },
}

/// Why there is none.
#[derive(Debug, Error)]
pub(crate) enum CertificateError {
    #[error("cannot read {path}: {error}")]
    File { path: String, error: std::io::Error },
    #[error("{what}: {error}")]
    Unusable { what: &'static str, error: String },
    #[error("Secret {name}: {error}")]
    Secret { name: String, error: String },
}

#[allow(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn unusable(what: &'static str, error: impl ToString) -> CertificateError {
    CertificateError::Unusable { what, error: error.to_string() }
}

impl Source {
    /// The pair of now. Of a Secret: a new one is made where there is none, or it is due, unless another replica is faster.
    pub(crate) async fn pair(&self, client: &Client) -> Result<Pair, CertificateError> {
        match self {
            Self::Files { certificate, key, ca } => {
                let read = |path: &PathBuf| {
                    std::fs::read_to_string(path)
                        .map_err(|error| CertificateError::File { path: path.display().to_string(), error })
                };
                Ok(Pair { certificate: read(certificate)?, key: read(key)?, ca: ca.as_ref().map(read).transpose()? })
            }
            Self::Secret { namespace, name, service, lifetime } => {
                let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
                let failed = |error: kube::Error| CertificateError::Secret {
                    name: format!("{namespace}/{name}"),
                    error: super::follow::line(&error),
                };
                // A conflict means that another replica has just written it: what it wrote is taken.
                for _ in 0..5 {
                    let known = api.get_opt(name).await.map_err(failed)?;
                    let before = known.as_ref().and_then(pair_of);
                    if let Some(pair) = before.as_ref().filter(|pair| !is_due(pair)) {
                        return Ok(pair.clone());
                    }
                    let mut pair = make(service, namespace, *lifetime)?;
                    if let Some(old) = before.as_ref().and_then(|it| it.ca.as_deref()).and_then(first_certificate) {
                        pair.ca = pair.ca.map(|ca| ca + &old);
                    }
                    let secret = secret_of(namespace, name, &pair, known.as_ref());
                    let written = if known.is_some() {
                        api.replace(name, &PostParams::default(), &secret).await
                    } else {
                        api.create(&PostParams::default(), &secret).await
                    };
                    match written {
                        Ok(_) => return Ok(pair),
                        Err(kube::Error::Api(status)) if status.code == 409 => {}
                        Err(error) => return Err(failed(error)),
                    }
                }
                Err(CertificateError::Secret {
                    name: format!("{namespace}/{name}"),
                    error: "others keep writing it".into(),
                })
            }
        }
    }
}

/// What rustls serves.
pub(crate) fn certified(pair: &Pair, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, CertificateError> {
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable("the certificate", error))?;
    if chain.is_empty() {
        return Err(unusable("the certificate", "the file has none"));
    }
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(|error| unusable("the key", error))?;
    let certified =
        CertifiedKey::from_der(chain, key, provider).map_err(|error| unusable("certificate and key", error))?;
    Ok(Arc::new(certified))
}

/// A certificate authority, and a certificate by it. The authority's key ends here.
pub(super) fn make(service: &str, namespace: &str, lifetime: Duration) -> Result<Pair, CertificateError> {
    let wrong = |error: rcgen::Error| unusable("making a certificate", error);
    let now = SystemTime::now();
    // Clocks of nodes differ.
    let (from, to) = (now - Duration::from_mins(5), now + lifetime);
    let mut authority = CertificateParams::new(Vec::new()).map_err(wrong)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    // A name of its own, so that clients that hold two do not mix them up.
    let serial = now.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_millis());
    authority.distinguished_name.push(DnType::CommonName, format!("{service} CA {serial}"));
    (authority.not_before, authority.not_after) = (from.into(), to.into());
    let authority_key = KeyPair::generate().map_err(wrong)?;
    let ca = authority.self_signed(&authority_key).map_err(wrong)?.pem();

    let names = ["", ".svc", ".svc.cluster.local"].map(|end| format!("{service}.{namespace}{end}"));
    let names: Vec<String> = std::iter::once(service.to_owned()).chain(names).collect();
    let mut params = CertificateParams::new(names).map_err(wrong)?;
    params.distinguished_name.push(DnType::CommonName, format!("{service}.{namespace}.svc"));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (params.not_before, params.not_after) = (from.into(), to.into());
    let key = KeyPair::generate().map_err(wrong)?;
    let issuer = Issuer::new(authority, authority_key);
    let certificate = params.signed_by(&key, &issuer).map_err(wrong)?.pem();
    Ok(Pair { certificate, key: key.serialize_pem(), ca: Some(ca) })
}

/// Whether two thirds of its life are over, or it makes no sense.
fn is_due(pair: &Pair) -> bool {
    let Some((from, to)) = validity(&pair.certificate) else { return true };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs() as i64);
    pair.key.is_empty()
        || pair.ca.as_deref().is_none_or(str::is_empty)
        || now < from
        || now >= from + (to - from) * 2 / 3
}

/// The first certificate's validity, seconds since 1970.
fn validity(pem: &str) -> Option<(i64, i64)> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    let validity = certificate.validity();
    Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// Whether the first certificate has not ended.
pub(super) fn is_valid(pem: &str) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs() as i64);
    validity(pem).is_some_and(|(_, to)| now < to)
}

/// The first of several certificates, if it is still valid.
fn first_certificate(pem: &str) -> Option<String> {
    certificates(pem).into_iter().next().filter(|it| is_valid(it))
}

fn pair_of(secret: &Secret) -> Option<Pair> {
    let data = secret.data.as_ref()?;
    let text = |key: &str| String::from_utf8(data.get(key)?.0.clone()).ok();
    Some(Pair { certificate: text("tls.crt")?, key: text("tls.key")?, ca: text("ca.crt") })
}

fn secret_of(namespace: &str, name: &str, pair: &Pair, known: Option<&Secret>) -> Secret {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let mut data = vec![("tls.crt".to_owned(), bytes(&pair.certificate)), ("tls.key".to_owned(), bytes(&pair.key))];
    data.extend(pair.ca.as_ref().map(|ca| ("ca.crt".to_owned(), bytes(ca))));
    let metadata = known.map_or_else(
        || ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some([("app.kubernetes.io/managed-by".to_owned(), "gopulse-metrics-api".to_owned())].into()),
            ..ObjectMeta::default()
        },
        // With its resourceVersion, so that it is written only over what was read.
        |secret| ObjectMeta { managed_fields: None, ..secret.metadata.clone() },
    );
    Secret {
        metadata,
        data: Some(data.into_iter().collect()),
        type_: known.map_or(Some("kubernetes.io/tls".to_owned()), |secret| secret.type_.clone()),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_pair_serves_its_names_and_is_due_after_two_thirds() {
        let provider = rustls::crypto::ring::default_provider();
        let pair = make("api", "gopulse", Duration::from_hours(1)).unwrap();
        let certified = certified(&pair, &provider).unwrap();
        let name = "api.gopulse.svc".try_into().unwrap();
        let certificate = rustls::server::ParsedCertificate::try_from(certified.end_entity_cert().unwrap()).unwrap();
        rustls::client::verify_server_name(&certificate, &name).unwrap();
        assert!(!is_due(&pair));
        assert!(is_due(&make("api", "gopulse", Duration::from_mins(1)).unwrap()), "200 of 360 s are over");
        assert!(is_due(&Pair { certificate: String::new(), ..pair }));
    }

    #[test]
    fn a_pair_survives_the_secret_and_the_ca_before_is_kept_once() {
        let old = make("api", "gopulse", Duration::from_hours(1)).unwrap();
        assert_eq!(pair_of(&secret_of("gopulse", "tls", &old, None)).unwrap(), old);
        let ca = old.ca.unwrap();
        let two = make("api", "gopulse", Duration::from_hours(1)).unwrap().ca.unwrap() + &ca;
        let kept = first_certificate(&two).unwrap();
        assert_eq!(kept.matches("BEGIN").count(), 1);
        assert_ne!(kept, ca);
        assert_eq!(first_certificate("nothing"), None);
    }
}
