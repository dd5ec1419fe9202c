//! A cluster's certificates and keys: an authority for the API server and its clients, one for the aggregation layer, and
//! the key that signs service account tokens.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Who a certificate is for.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The file name without its ending.
    pub file: &'a str,
    /// The common name, which is a client's user name.
    pub name: &'a str,
    /// The organizations, which are a client's groups.
    pub groups: &'a [&'a str],
    /// The DNS names and addresses of a server.
    pub hosts: &'a [&'a str],
}

/// A certificate and its key, as files in PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: PathBuf,
    /// Its own certificate, a file in PEM.
    pub certificate: PathBuf,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Authority").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new one, whose files lie in that directory.
    pub fn create(directory: &Path, name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = directory.join(format!("{name}.crt"));
        fs::write(&certificate, params.self_signed(&key)?.pem())?;
        Ok(Self { issuer: Issuer::new(params, key), directory: directory.to_owned(), certificate })
    }

    /// A certificate for both sides of TLS.
    pub fn issue(&self, subject: &Subject<'_>) -> Result<Pair> {
        let hosts: Vec<String> = subject.hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts)
            .with_context(|| format!("a certificate cannot name these hosts: {:?}", subject.hosts))?;
        params.distinguished_name = distinguished(subject.name, subject.groups);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let pair = Pair {
            certificate: self.directory.join(format!("{}.crt", subject.file)),
            key: self.directory.join(format!("{}.key", subject.file)),
        };
        fs::write(&pair.certificate, params.signed_by(&key, &self.issuer)?.pem())?;
        fs::write(&pair.key, key.serialize_pem())?;
        Ok(pair)
    }
}

/// Makes a key alone, and its public half, for tokens.
pub(super) fn signing_key(directory: &Path) -> Result<Pair> {
    let key = KeyPair::generate()?;
    let pair = Pair { certificate: directory.join("service-account.pub"), key: directory.join("service-account.key") };
    fs::write(&pair.key, key.serialize_pem())?;
    fs::write(&pair.certificate, key.public_key_pem())?;
    Ok(pair)
}

fn distinguished(name: &str, groups: &[&str]) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    for &group in groups {
        distinguished.push(DnType::OrganizationName, group);
    }
    distinguished.push(DnType::CommonName, name);
    distinguished
}
