//! TLS for the metrics, with a certificate that is read again when its files change: mounted Secrets and ACME clients replace
//! them while the agent runs.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
};
use tracing::{info, warn};

/// The files are looked at no more often than this, and only when a client connects.
const LOOK: Duration = Duration::from_secs(2);

/// An acceptor of TLS connections.
pub(crate) fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, String> {
    let files = Files { certificate: certificate.to_owned(), key: key.to_owned() };
    let changed = files.changed();
    let current = Current { certified: files.load()?, changed, looked: Instant::now() };
    let resolver = Reloading { files, current: Mutex::new(current) };
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn load(&self) -> Result<Arc<CertifiedKey>, String> {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect)
            .map_err(|error| format!("TLS certificate {certificate}: {error}"))?;
        if chain.is_empty() {
            return Err(format!("TLS certificate {certificate}: no certificate is in it"));
        }
        let der = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| format!("TLS key {key}: {error}"))?;
        let signing = ring::sign::any_supported_type(&der).map_err(|error| format!("TLS key {key}: {error}"))?;
        let certified = CertifiedKey::new(chain, signing);
        certified.keys_match().map_err(|error| format!("TLS key {key} is not that of {certificate}: {error}"))?;
        Ok(Arc::new(certified))
    }

    /// When they were written; a mounted Secret is replaced as a whole.
    fn changed(&self) -> [Option<SystemTime>; 2] {
        [&self.certificate, &self.key].map(|path| fs::metadata(path).and_then(|it| it.modified()).ok())
    }
}

#[derive(Debug)]
struct Current {
    certified: Arc<CertifiedKey>,
    changed: [Option<SystemTime>; 2],
    looked: Instant,
}

#[derive(Debug)]
struct Reloading {
    files: Files,
    current: Mutex<Current>,
}

impl ResolvesServerCert for Reloading {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= LOOK {
            current.looked = Instant::now();
            let changed = self.files.changed();
            if changed != current.changed {
                match self.files.load() {
                    Ok(certified) => {
                        info!(certificate = %self.files.certificate.display(), "the certificate was read again");
                        current.certified = certified;
                        current.changed = changed;
                    }
                    // Half written, or gone for a moment: the next look may find it whole.
                    Err(error) => warn!(error, "the certificate of before is kept"),
                }
            }
        }
        Some(current.certified.clone())
    }
}
