//! TLS and bearer tokens, against a real API server: who may read the metrics, and that a new certificate is taken up. kubectl is
//! the client: its `get --raw` sends a GET with a token over TLS to any server.

#[allow(unused_imports, reason = "the agent is started by hand here")]
use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::support::{agent::binary, eventually, http::free_port, must_be_root};
use xtask::cluster::{Authority, ControlPlane, Options, Subject};

const READERS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: monitoring}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: monitoring}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: stranger, namespace: monitoring}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: gopulse-metrics-reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: monitoring}]
";

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `kubectl get --raw PATH`: what it answers, or what kubectl says of the refusal.
fn get(
    plane: &ControlPlane,
    port: u16,
    authority: &Authority,
    token: Option<&str>,
    path: &str,
) -> Result<String, String> {
    let mut command = Command::new(plane.programs().join("kubectl"));
    command.env("KUBECONFIG", "/dev/null");
    command.arg(format!("--server=https://127.0.0.1:{port}"));
    command.arg(format!("--certificate-authority={}", authority.certificate.display()));
    match token {
        Some(token) => command.arg(format!("--token={token}")),
        // Without any credentials kubectl asks for a name; these are no bearer token either.
        None => command.args(["--username=nobody", "--password=none"]),
    };
    let output = command.args(["get", "--raw", path]).stdin(Stdio::null()).output().expect("kubectl runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn certificate(authority: &Authority, into: &Path) {
    let pair = authority
        .issue(&Subject { file: "agent", name: "agent", groups: &[], hosts: &["127.0.0.1"] })
        .expect("a certificate is issued");
    for (from, name) in [(&pair.certificate, "tls.crt"), (&pair.key, "tls.key")] {
        fs::copy(from, into.join(name)).expect("it is copied");
    }
}

#[test]
fn metrics_are_for_those_whom_the_api_server_allows_and_certificates_are_read_again() {
    must_be_root();
    let plane = ControlPlane::start(&Options::default()).expect("a control plane");
    let rbac = xtask::util::root().join("daemonset/components/tls/rbac.yaml");
    plane.kubectl(&["create", "namespace", "gopulse"]).expect("a namespace");
    plane.kubectl(&["create", "serviceaccount", "-n", "gopulse", "gopulse"]).expect("an account");
    plane.apply(&fs::read_to_string(rbac).expect("it is in the checkout")).expect("the shipped rights");
    plane.apply(READERS).expect("readers");
    let files = plane.directory().join("served");
    fs::create_dir_all(&files).expect("a directory");
    certificate(plane.authority(), &files);

    // With the rights that are shipped, and no others.
    let account = plane.kubeconfig_of_account("gopulse", "gopulse").expect("the agent's credentials");
    let port = free_port();
    let child = Command::new(binary())
        .args(["run", "--executable", "nothing-is-called-so"])
        .args(["--metrics-address", &format!("127.0.0.1:{port}"), "--require-token"])
        .arg(format!("--tls-certificate={}", files.join("tls.crt").display()))
        .arg(format!("--tls-key={}", files.join("tls.key").display()))
        .env("KUBECONFIG", account)
        .stdin(Stdio::null())
        .spawn()
        .expect("the agent starts");
    let _agent = Killed(child);
    eventually("the agent answers without a token where kubelets ask", || {
        get(&plane, port, plane.authority(), None, "/readyz").ok()
    });

    let reader = plane.token("monitoring", "reader").expect("a token");
    let stranger = plane.token("monitoring", "stranger").expect("a token");
    for path in ["/metrics", "/targets"] {
        let answer = |token| get(&plane, port, plane.authority(), token, path);
        let refused = answer(None).expect_err("no token");
        assert!(refused.contains("logged in"), "{path}: {refused}");
        let refused = answer(Some("nobodys")).expect_err("a token of nobody");
        assert!(refused.contains("logged in"), "{path}: {refused}");
        let refused = answer(Some(&stranger)).expect_err("a stranger's token");
        assert!(refused.to_lowercase().contains("forbidden"), "{path}: {refused}");
        answer(Some(&reader)).unwrap_or_else(|error| panic!("{path}: the reader is refused: {error}"));
    }
    let metrics = get(&plane, port, plane.authority(), Some(&reader), "/metrics").expect("the reader may");
    assert!(metrics.contains("exporter_build_info"), "{metrics}");

    // A key that is not the certificate's: the pair of before is kept.
    let key = fs::read(files.join("tls.key")).expect("it is there");
    fs::write(files.join("tls.key"), fs::read(plane.directory().join("ca.crt")).expect("it is there"))
        .expect("written");
    std::thread::sleep(std::time::Duration::from_secs(3));
    get(&plane, port, plane.authority(), None, "/healthz").expect("the certificate of before");
    fs::write(files.join("tls.key"), key).expect("written");

    certificate(plane.front_proxy(), &files);
    eventually("the new certificate is served", || get(&plane, port, plane.front_proxy(), None, "/healthz").ok());
    get(&plane, port, plane.authority(), None, "/healthz").expect_err("and the old one is not");
}
