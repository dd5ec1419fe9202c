//! The long road's queries: every rule of `daemonset/hpa/prometheus-adapter.yaml` and every trigger of `keda-prometheus.yaml` is
//! run by Prometheus' own engine over series as the agent exposes them, and its result held against what they were made to be.

use std::{collections::BTreeMap, fmt::Write as _, fs, process::Command};

use crate::support::{prometheus::have_prometheus, scratch};
use serde_json::Value;
use xtask::util;

/// Of two pods, the second with a tenth of the first's figures: what each metric is to be at the first.
const TRUTH: [(&str, f64, f64); 11] = [
    ("http_server_active_requests", 7.0, 0.7),
    ("http_server_requests_per_second", 20.0, 2.0),
    // 90 % in the bucket from 10 to 25 ms, 10 % in that from 50 to 75 ms.
    ("http_server_request_duration_p95_milliseconds", 62.5, 62.5),
    ("http_server_request_duration_p99_milliseconds", 72.5, 72.5),
    ("rpc_server_active_calls", 3.0, 0.3),
    ("rpc_server_requests_per_second", 8.0, 0.8),
    ("rpc_server_call_duration_p99_milliseconds", 72.5, 72.5),
    ("go_goroutines_waiting", 40.0, 4.0),
    ("go_sched_latency_p99_milliseconds", 0.99, 0.99),
    ("go_runqueue_latency_p99_milliseconds", 1.98, 1.98),
    ("go_gc_cpu_percent", 25.0, 25.0),
];

/// Triggers of KEDA, by name: of both pods together.
const TRIGGERS: [(&str, f64); 6] =
    [("requests", 22.0), ("active", 7.7), ("p99", 72.5), ("waiting", 33.0), ("runqueue", 1.98), ("gc", 25.0)];

fn series() -> String {
    let mut out = String::new();
    for (pod, share) in [("shop-a", 1.0), ("shop-b", 0.1)] {
        let mut add = |name: &str, labels: &str, growth: f64, value: f64| {
            let labels = format!("namespace=\"default\",pod=\"{pod}\",container=\"app\"{labels}");
            let _ = writeln!(
                out,
                "  - series: '{name}{{{labels}}}'\n    values: '{}+{}x40'",
                value * share,
                growth * share
            );
        };
        add("http_server_active_requests", "", 0.0, 7.0);
        // Probes are no requests that a workload is to grow for.
        for (route, requests) in [("/a", 5.0), ("/b", 15.0), ("/healthz", 30.0)] {
            let route = format!(",http_route=\"{route}\"");
            let growth = requests * 15.0;
            for (le, cumulative) in [("0.01", 0.0), ("0.025", 0.9), ("0.05", 0.9), ("0.075", 1.0), ("+Inf", 1.0)] {
                let labels = format!("{route},le=\"{le}\"");
                add("http_server_request_duration_seconds_bucket", &labels, growth * cumulative, 0.0);
            }
            add("http_server_request_duration_seconds_count", &route, growth, 0.0);
        }
        add("rpc_server_active_calls", "", 0.0, 3.0);
        add("rpc_server_call_duration_seconds_count", "", 8.0 * 15.0, 0.0);
        for (le, cumulative) in [("0.01", 0.0), ("0.025", 0.9), ("0.05", 0.9), ("0.075", 1.0), ("+Inf", 1.0)] {
            let labels = format!(",le=\"{le}\"");
            add("rpc_server_call_duration_seconds_bucket", &labels, 8.0 * 15.0 * cumulative, 0.0);
        }
        for (reason, count) in [("semacquire", 30.0), ("chan receive", 10.0)] {
            add("go_goroutines_waiting", &format!(",reason=\"{reason}\""), 0.0, count);
        }
        for (name, bound) in
            [("go_sched_latencies_seconds_bucket", "0.001"), ("go_runqueue_latency_seconds_bucket", "0.002")]
        {
            add(name, &format!(",le=\"{bound}\""), 150.0, 0.0);
            add(name, ",le=\"+Inf\"", 150.0, 0.0);
        }
        add("go_cpu_classes_gc_total_cpu_seconds_total", "", 1.5, 0.0);
        add("process_cpu_seconds_total", "", 6.0, 0.0);
    }
    out
}

fn yaml(name: &str) -> Value {
    let path = util::root().join("daemonset/hpa").join(name);
    let text = fs::read_to_string(path).unwrap();
    serde_norway::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn every_rule_and_trigger_gives_the_truth() {
    have_prometheus();
    let mut tests = String::new();
    let mut expect = |query: &str, samples: &[(String, f64)]| {
        let _ = writeln!(tests, "  - expr: {}\n    eval_time: 8m\n    exp_samples:", Value::from(query));
        for (labels, value) in samples {
            let _ = writeln!(tests, "    - {{labels: {}, value: {value}}}", Value::from(labels.as_str()));
        }
    };
    let truth: BTreeMap<&str, (f64, f64)> =
        TRUTH.iter().map(|(name, first, second)| (*name, (*first, *second))).collect();
    let adapter = yaml("prometheus-adapter.yaml");
    let rules = adapter["rules"]["custom"].as_array().unwrap();
    assert_eq!(rules.len(), TRUTH.len(), "every rule has its truth here");
    for rule in rules {
        let name = rule["name"]["as"].as_str().unwrap();
        let series = rule["seriesQuery"].as_str().unwrap().split('{').next().unwrap();
        // As prometheus-adapter fills it in for pods of a namespace (pkg/naming/metrics_query.go).
        let query = rule["metricsQuery"].as_str().unwrap();
        let query = query.replace("<<.Series>>", series).replace("<<.GroupBy>>", "pod");
        let query = query.replace("<<.LabelMatchers>>", "namespace=\"default\",pod=~\"shop-a|shop-b\"");
        let (first, second) = truth.get(name).unwrap_or_else(|| panic!("{name} has no truth here"));
        // Floating point: rounded to a millionth on both sides.
        let rounded = |query: &str| format!("round({query}, 0.000001)");
        expect(&rounded(&query), &[("{pod=\"shop-a\"}".to_owned(), *first), ("{pod=\"shop-b\"}".to_owned(), *second)]);
    }
    let keda = yaml("keda-prometheus.yaml");
    let triggers = keda["spec"]["triggers"].as_array().unwrap();
    assert_eq!(triggers.len(), TRIGGERS.len(), "every trigger has its truth here");
    for trigger in triggers {
        let name = trigger["name"].as_str().unwrap();
        let query = trigger["metadata"]["query"].as_str().unwrap();
        let (_, value) =
            TRIGGERS.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name} has no truth here"));
        expect(&format!("round({query}, 0.000001)"), &[("{}".to_owned(), *value)]);
    }
    let file = scratch("hpa-rules").join("test.yaml");
    let text = format!(
        "rule_files: []\nevaluation_interval: 15s\ntests:\n- interval: 15s\n  input_series:\n{}  promql_expr_test:\n{tests}",
        series()
    );
    fs::write(&file, text).unwrap();
    let said = util::output(Command::new("promtool").args(["test", "rules"]).arg(&file))
        .unwrap_or_else(|error| panic!("{error:#}"));
    println!("{} rules and {} triggers: {said}", rules.len(), triggers.len());
}
