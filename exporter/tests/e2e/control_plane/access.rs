//! TLS and bearer tokens, against a real API server: who may read the metrics, and that a new certificate is taken up. kubectl is
//! the client: its `get --raw` sends a GET with a token over TLS to any server.

use std::{
    fs,
    io::Write as _,
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::support::{agent::binary, http::free_port, must_be_root, within};
use xtask::{
    cluster::{Authority, ControlPlane, Options, Subject},
    util,
};

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

/// How long the agent may take for what is to come, on a machine that others burn.
const PATIENCE: Duration = Duration::from_mins(2);

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

/// A control plane with the shipped rights, and with somebody who may read and somebody who may not.
fn plane_with_readers() -> ControlPlane {
    let plane = ControlPlane::start(&Options::default()).expect("a control plane");
    let rbac = xtask::util::root().join("daemonset/components/tls/rbac.yaml");
    plane.kubectl(&["create", "namespace", "gopulse"]).expect("a namespace");
    plane.kubectl(&["create", "serviceaccount", "-n", "gopulse", "gopulse"]).expect("an account");
    plane.apply(&fs::read_to_string(rbac).expect("it is in the checkout")).expect("the shipped rights");
    plane.apply(READERS).expect("readers");
    plane
}

/// The agent over TLS, with the rights that are shipped and no others; it logs to a file.
fn start(plane: &ControlPlane, files: &Path, port: u16, log: &Path) -> Killed {
    let account = plane.kubeconfig_of_account("gopulse", "gopulse").expect("the agent's credentials");
    let child = Command::new(binary())
        .args(["run", "--executable", "nothing-is-called-so"])
        .args(["--metrics-address", &format!("127.0.0.1:{port}"), "--require-token"])
        .arg(format!("--tls-certificate={}", files.join("tls.crt").display()))
        .arg(format!("--tls-key={}", files.join("tls.key").display()))
        .env("KUBECONFIG", account)
        .stdin(Stdio::null())
        .stderr(fs::File::create(log).expect("a file"))
        .spawn()
        .expect("the agent starts");
    let agent = Killed(child);
    within(PATIENCE, "the agent answers without a token where kubelets ask", || {
        get(plane, port, plane.authority(), None, "/readyz").ok()
    });
    agent
}

/// Tokens of nobody, each another one, and the reader's in between.
fn strangers_tokens_are_limited(plane: &ControlPlane, port: u16, reader: &str) {
    let status = |token: &str| {
        util::output(
            Command::new("curl").args(["-sk", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "20"]).args([
                "-H",
                &format!("Authorization: Bearer {token}"),
                &format!("https://127.0.0.1:{port}/metrics"),
            ]),
        )
        .expect("curl runs")
    };
    let refused = within(PATIENCE, "there are too many tokens of nobody", || {
        let refused: Vec<_> = (0..40).map(|i| status(&format!("nobodys-{i}"))).collect();
        assert!(refused.iter().all(|it| it == "401" || it == "429"), "{refused:?}");
        refused.iter().any(|it| it == "429").then_some(refused)
    });
    println!("    of 40 tokens of nobody {} were asked about", refused.iter().filter(|it| *it == "401").count());
    assert_eq!(status(reader), "200");
    get(plane, port, plane.authority(), Some(reader), "/targets").expect("the reader may");
}

/// More connections than there are places, none of which gets to a request.
fn handshakes_that_do_not_end_lock_nobody_out(plane: &ControlPlane, port: u16) {
    let begun: Vec<_> = (0..400)
        .map(|i| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the agent listens");
            // The head of a TLS record, of which nothing comes.
            let _ = stream.write_all(if i % 2 == 0 { b"\x16\x03\x01\x02\x00" } else { b"" });
            stream
        })
        .collect();
    get(plane, port, plane.authority(), None, "/healthz").expect("others are served");
    drop(begun);
}

#[test]
fn metrics_are_for_those_whom_the_api_server_allows_and_certificates_are_read_again() {
    must_be_root();
    let plane = plane_with_readers();
    let (files, log) = (plane.directory().join("served"), plane.directory().join("agent.log"));
    fs::create_dir_all(&files).expect("a directory");
    certificate(plane.authority(), &files);
    let port = free_port();
    let _agent = start(&plane, &files, port, &log);

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

    strangers_tokens_are_limited(&plane, port, &reader);
    handshakes_that_do_not_end_lock_nobody_out(&plane, port);

    // A key that is not the certificate's: the pair of before is kept. It looks when somebody connects.
    let key = fs::read(files.join("tls.key")).expect("it is there");
    fs::write(files.join("tls.key"), fs::read(plane.directory().join("ca.crt")).expect("it is there"))
        .expect("written");
    within(PATIENCE, "the agent says that it keeps the certificate of before", || {
        get(&plane, port, plane.authority(), None, "/healthz").expect("the certificate of before");
        let log = fs::read_to_string(&log).expect("its log");
        log.contains("the certificate of before is kept").then_some(())
    });
    get(&plane, port, plane.authority(), None, "/healthz").expect("the certificate of before");
    fs::write(files.join("tls.key"), key).expect("written");

    certificate(plane.front_proxy(), &files);
    within(PATIENCE, "the new certificate is served", || get(&plane, port, plane.front_proxy(), None, "/healthz").ok());
    get(&plane, port, plane.authority(), None, "/healthz").expect_err("and the old one is not");
}
