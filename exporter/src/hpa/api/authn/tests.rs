use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use super::*;

struct Ca(Issuer<'static, KeyPair>, String);

fn ca() -> Ca {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    Ca(Issuer::new(params, key), pem)
}

impl Ca {
    fn client(&self, name: &str) -> Vec<CertificateDer<'static>> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        vec![params.signed_by(&KeyPair::generate().unwrap(), &self.0).unwrap().der().clone()]
    }
}

fn configured(ca: &Ca, names: &str) -> BTreeMap<String, String> {
    [
        ("requestheader-client-ca-file", ca.1.as_str()),
        ("requestheader-allowed-names", names),
        ("requestheader-username-headers", "[\"X-Remote-User\"]"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("x-remote-user", "jane".parse().unwrap());
    headers.append("x-remote-group", "dev".parse().unwrap());
    headers.append("x-remote-group", "ops".parse().unwrap());
    headers.insert("x-remote-extra-example.com%2fscope", "a".parse().unwrap());
    headers
}

#[test]
fn headers_are_believed_with_a_certificate_of_the_ca_and_an_allowed_name_alone() {
    let authenticator = Authenticator::new(Arc::new(rustls::crypto::ring::default_provider()));
    let (proxy, other) = (ca(), ca());
    let ask = |certificates: &[CertificateDer<'static>]| authenticator.user(Some(certificates), &headers());
    assert_eq!(ask(&proxy.client("front-proxy-client")), Err(Unknown::NotConfigured));
    authenticator.take(&configured(&proxy, "[\"front-proxy-client\"]"));
    let user = ask(&proxy.client("front-proxy-client")).unwrap();
    assert_eq!((user.name.as_str(), user.groups.join(" ")), ("jane", "dev ops system:authenticated".into()));
    assert_eq!(user.extra, [("example.com/scope".to_owned(), vec!["a".to_owned()])].into());
    assert_eq!(ask(&proxy.client("kubelet")), Err(Unknown::Name("kubelet".into())));
    assert!(matches!(ask(&other.client("front-proxy-client")), Err(Unknown::Untrusted(_))));
    // One that was found good is, for as long as the ConfigMap says the same, and no other is for it.
    let good = proxy.client("front-proxy-client");
    assert!(ask(&good).is_ok() && ask(&good).is_ok());
    assert!(matches!(ask(&other.client("front-proxy-client")), Err(Unknown::Untrusted(_))));
    assert_eq!(authenticator.user(None, &headers()), Err(Unknown::NoCertificate));
    let nobody = authenticator.user(Some(&proxy.client("front-proxy-client")), &HeaderMap::new());
    assert_eq!(nobody, Err(Unknown::NoUser));
    // The CA is rotated; what is not usable changes nothing.
    authenticator.take(&configured(&other, "[]"));
    authenticator.take(&BTreeMap::new());
    assert!(ask(&other.client("anyone")).is_ok());
    assert!(matches!(ask(&good), Err(Unknown::Untrusted(_))));
    assert!(matches!(ask(&proxy.client("front-proxy-client")), Err(Unknown::Untrusted(_))));
}
