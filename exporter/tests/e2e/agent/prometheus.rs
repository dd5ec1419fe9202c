//! A real Prometheus server scrapes the agent and answers what its users ask.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use crate::support::{
    Agent, eventually,
    http::{exchange, request},
    load, must_be_root,
    prometheus::{Prometheus, have_prometheus},
    scratch, service, start,
};
use xtask::{exposition, service::get};

/// Latencies that the service makes itself: nine in ten are short, and the longest tenth lies between 76 and 98.5 ms, evenly
/// over the bucket from 75 to 100 ms, so that the quantile within it is a matter of counting and not of luck.
fn mix() -> Vec<String> {
    let slow = (0..10).map(|i| format!("GET /sleep?ms={} 200 /sleep 1", 76.0 + 2.5 * f64::from(i)));
    std::iter::once("GET /sleep?ms=4 200 /sleep 90".to_owned()).chain(slow).collect()
}

/// Whatever clients send, no two series have the same labels: Prometheus would drop one, and the OpenMetrics parser the scrape.
#[test]
fn no_series_is_there_twice() {
    must_be_root();
    let running = start(&service("hello"), &[]);
    let agent = Agent::measuring(running.pid(), &[]);
    let address = running.address("http").expect("it listens");
    let methods = ["GET", "PRI", "PROPFIND", "get", "X"];
    for method in methods {
        request(address, method, "/hello");
    }
    eventually("all are counted", || (agent.scrape().total(running.pid()) == methods.len() as u64).then_some(()));
    for accept in ["text/plain", "application/openmetrics-text;version=1.0.0"] {
        let answer =
            exchange(agent.address, &format!("GET /metrics HTTP/1.0\r\nHost: test\r\nAccept: {accept}\r\n\r\n"));
        let (_, text) = answer.split_once("\r\n\r\n").expect("it is HTTP");
        let mut seen = BTreeSet::new();
        for sample in exposition::parse(text) {
            let new = seen.insert((sample.name.clone(), sample.labels.clone()));
            assert!(new, "{accept}: {sample:?} is there twice");
        }
        assert!(seen.len() > 100, "{accept}: {}", seen.len());
    }
}

#[test]
fn quantiles_that_prometheus_computes() {
    must_be_root();
    let running = start(&service("counted"), &[]);
    let agent = Agent::measuring(running.pid(), &[]);
    let prometheus = Prometheus::start(&scratch("prometheus"), agent.address, 1);
    let address = running.address("http").expect("it listens").to_string();
    let lines = mix();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let report = load(&["-address", &address, "-duration", "25s", "-rate", "300", "-c", "64"], &lines);
    let series = "http_server_request_duration_seconds_bucket{http_route=\"/sleep\"}";
    let quantile = |q: f64| {
        let expression = format!("histogram_quantile({q}, sum by (le) (rate({series}[20s])))");
        prometheus.query(&expression).expect("the series are there")
    };
    let p99 = quantile(0.99);
    println!(
        "p99: {:.2} ms by Prometheus, {:.2} ms by the load generator ({:+.2}%), {} requests",
        1e3 * p99,
        1e3 * report.p99,
        100.0 * (p99 / report.p99 - 1.0),
        report.total
    );
    assert!((p99 / report.p99 - 1.0).abs() < 0.1);
    let total = prometheus.query("sum(http_server_request_duration_seconds_count)").expect("it is there");
    eventually("Prometheus has every request", || {
        (prometheus.query("sum(http_server_request_duration_seconds_count)")? as u64 == report.total).then_some(total)
    });
    let targets = prometheus.api("/api/v1/targets");
    let target = &targets["activeTargets"][0];
    assert_eq!((&target["health"], &target["lastError"]), (&"up".into(), &"".into()), "{target}");
    // Prometheus knows a metric's type from what it read: OpenMetrics, which it asks for first.
    let metadata = prometheus.api("/api/v1/metadata?metric=http_server_request_duration_seconds");
    assert_eq!(metadata["http_server_request_duration_seconds"][0]["type"], "histogram", "{metadata}");
    let log = fs::read_to_string(scratch_log()).expect("Prometheus writes a log");
    assert!(!log.contains("level=error") && !log.contains("level=warn"), "{log}");
    agent.stop();
}

fn scratch_log() -> std::path::PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("prometheus/prometheus.log")
}

#[test]
fn promtool_finds_nothing() {
    must_be_root();
    have_prometheus();
    let running = start(&service("counted"), &[]);
    let agent = Agent::measuring(running.pid(), &[]);
    let address = running.address("http").expect("it listens").to_string();
    load(&["-address", &address, "-n", "1000"], &["GET /hello 200 /hello 9", "GET /fail 500 /fail 1"]);
    let text = get(agent.address, "/metrics").expect("/metrics answers");
    assert!(text.contains("http_server_request_duration_seconds_bucket"));
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    promtool.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("promtool reads");
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), said.as_str()), (Some(0), ""));
    println!("promtool check metrics: nothing found in {} lines", text.lines().count());
    agent.stop();
}

#[test]
fn formats_are_negotiated() {
    must_be_root();
    let running = start(&service("hello"), &[]);
    let agent = Agent::measuring(running.pid(), &[]);
    let ask = |accept: &str| {
        let head = format!("GET /metrics HTTP/1.1\r\nHost: test\r\n{accept}Connection: close\r\n\r\n");
        exchange(agent.address, &head).to_lowercase()
    };
    let open = ask("Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5\r\n");
    assert!(open.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{open}");
    assert!(open.contains("# eof\n"), "{open}");
    for accept in ["", "Accept: text/plain;version=0.0.4\r\n", "Accept: image/png\r\n"] {
        let text = ask(accept);
        assert!(text.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{text}");
        assert!(!text.contains("# eof"));
    }
    assert!(ask("Accept-Encoding: gzip\r\n").contains("content-encoding: gzip"));
    agent.stop();
}
