//! The two roads side by side in one cluster, at one step of load: agent -> metrics-api -> HPA (external.metrics.k8s.io), and
//! agent -> Prometheus -> prometheus-adapter with the shipped rules -> HPA (custom.metrics.k8s.io). Prometheus is Debian's,
//! scraping as the shipped PodMonitor says; the adapter is built from its published module. Then every rule's value, as the
//! adapter serves it, is held against the truth. `GOPULSE_HPA_SYNC_SECONDS` sets the controller's sync period (15).

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    agent::Scrape,
    cluster::{AGENT_NAMESPACE, Lab, NAMESPACE, Pod, overlay},
    prometheus::Prometheus,
    prometheus_adapter::{PrometheusAdapter, Setting},
    scratch,
    stage::quantity,
};
use serde_json::{Value, json};
use xtask::{
    cluster::{self, Options, free_port, wait_for},
    service::LoadReport,
    util,
};

const PATIENCE: Duration = Duration::from_mins(4);
const RPS: &str = "http_server_requests_per_second";
const FAST: &str = "http_server_requests_per_second_fast";
/// What the HPA scales up for: 50 wanted, and its tolerance of a tenth.
const SEEN: f64 = 55.0;
/// The shipped PodMonitor's interval, seconds.
const SCRAPE: u32 = 15;
/// The rules look back over a minute.
const LOAD: Duration = Duration::from_secs(130);

/// The adapter on this machine, with the shipped rules, and the APIServices that lead to it.
fn adapter(lab: &Lab, prometheus: &Prometheus) -> PrometheusAdapter {
    let plane = lab.cluster.plane();
    let directory = scratch("hpa-roads-adapter");
    let values = fs::read_to_string(util::root().join("daemonset/hpa/prometheus-adapter.yaml")).expect("it is there");
    let values: Value = serde_norway::from_str(&values).expect("it is YAML");
    let host = plane.server().trim_start_matches("https://").split(':').next().expect("it has a host").to_owned();
    let port = free_port().expect("there is one");
    let adapter = PrometheusAdapter::start(&Setting {
        plane,
        directory: &directory,
        namespace: AGENT_NAMESPACE,
        address: SocketAddr::new(host.parse().expect("an address"), port),
        prometheus: prometheus.address,
        // As the adapter's Helm chart makes its configuration of the values.
        config: json!({"rules": values["rules"]["custom"]}),
        relist: values["metricsRelistInterval"].as_str().expect("it is given"),
    });
    let ca = util::output(Command::new("base64").arg("-w0").arg(&plane.authority().certificate)).expect("coreutils");
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "prometheus-adapter", "namespace": AGENT_NAMESPACE},
            "spec": {"ports": [{"name": "https", "port": 443, "targetPort": port}]}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "prometheus-adapter", "namespace": AGENT_NAMESPACE,
                "labels": {"kubernetes.io/service-name": "prometheus-adapter"}},
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
            "endpoints": [{"addresses": [host], "conditions": {"ready": true}}]}),
    ];
    objects.extend(["v1beta1", "v1beta2"].map(|version| {
        json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": format!("{version}.custom.metrics.k8s.io")},
            "spec": {"group": "custom.metrics.k8s.io", "version": version, "caBundle": ca.trim(),
                "groupPriorityMinimum": 100, "versionPriority": 100,
                "service": {"namespace": AGENT_NAMESPACE, "name": "prometheus-adapter", "port": 443}}})
    }));
    for object in objects {
        lab.apply(&object.to_string());
    }
    adapter
}

fn hpa(of: &str, metric: &Value) -> String {
    json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": of, "namespace": NAMESPACE},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": of}, "minReplicas": 2, "maxReplicas": 6,
            "metrics": [metric], "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}}}})
    .to_string()
}

fn desired(lab: &Lab, hpa: &str) -> u64 {
    let hpa = lab.cluster.plane().get(&["hpa", hpa, "-n", NAMESPACE]).unwrap_or_default();
    hpa["status"]["desiredReplicas"].as_u64().unwrap_or(0)
}

/// Waits, and says what the cluster says where it is in vain.
fn until<T>(lab: &Lab, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    wait_for(what, PATIENCE, || Ok(ask())).unwrap_or_else(|error| {
        let say = |it: &[&str]| lab.cluster.plane().kubectl(it).unwrap_or_else(|error| format!("{error:#}"));
        let hpa = say(&["describe", "hpa", "-n", NAMESPACE]);
        let services = say(&["get", "apiservices", "-o", "yaml"]);
        let log = fs::read_to_string(scratch_file("hpa-roads-adapter/adapter.log")).unwrap_or_default();
        panic!("{error:#}\n{hpa}\n{services}\n{log}")
    })
}

fn scratch_file(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Values by pod, as the adapter serves them.
fn long(lab: &Lab, metric: &str) -> BTreeMap<String, f64> {
    let path =
        format!("/apis/custom.metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/pods/*/{metric}?labelSelector=app%3Dlong");
    let text = lab.cluster.plane().kubectl(&["get", "--raw", &path]).unwrap_or_default();
    let list: Value = serde_json::from_str(&text).unwrap_or_default();
    let items = list["items"].as_array().into_iter().flatten();
    items
        .map(|it| (it["describedObject"]["name"].as_str().unwrap_or_default().to_owned(), quantity(&it["value"])))
        .collect()
}

/// The Deployment's value, as the metrics-api serves it.
fn short(lab: &Lab, metric: &str) -> Option<f64> {
    let path = format!(
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/{metric}?labelSelector=deployment%3Dshort"
    );
    let list: Value = serde_json::from_str(&lab.cluster.plane().kubectl(&["get", "--raw", &path]).ok()?).ok()?;
    Some(quantity(&list["items"][0]["value"]))
}

/// Nine in ten are short, and the longest tenth lies evenly over the bucket from 75 to 100 ms, so that a quantile within it is a
/// matter of counting and not of luck.
fn load(pod: &Pod) -> thread::JoinHandle<LoadReport> {
    let address = pod.address();
    thread::spawn(move || {
        let slow = (0..10).map(|i| format!("GET /sleep?ms={} 200 /sleep 1", 76.0 + 2.5 * f64::from(i)));
        let mix: Vec<String> = std::iter::once("GET /sleep?ms=4 200 /sleep 90".to_owned()).chain(slow).collect();
        let mix: Vec<&str> = mix.iter().map(String::as_str).collect();
        let duration = format!("{}s", LOAD.as_secs());
        crate::support::load(&["-address", &address, "-rate", "100", "-duration", &duration, "-c", "16"], &mix)
    })
}

/// Growth of a pod's counters between two scrapes, and of its buckets by upper bound.
struct Growth<'s>(&'s Scrape, &'s Scrape, &'s str);

impl Growth<'_> {
    fn sum(&self, name: &str) -> f64 {
        let of = |scrape: &Scrape| -> f64 {
            scrape.samples.iter().filter(|it| it.name == name && it.label("pod") == self.2).map(|it| it.value).sum()
        };
        of(self.1) - of(self.0)
    }

    /// Upper bounds of a histogram's buckets, and how many more are in them and those below.
    fn buckets(&self, name: &str) -> Vec<(f64, f64)> {
        let name = format!("{name}_bucket");
        let of = |scrape: &Scrape| {
            let mut buckets: BTreeMap<u64, f64> = BTreeMap::new();
            for sample in scrape.samples.iter().filter(|it| it.name == name && it.label("pod") == self.2) {
                // In nanoseconds, so that bounds can be compared.
                let bound = sample.label("le").parse::<f64>().map_or(u64::MAX, |it| (it * 1e9) as u64);
                *buckets.entry(bound).or_default() += sample.value;
            }
            buckets
        };
        let (before, after) = (of(self.0), of(self.1));
        let grown = after.iter().map(|(bound, count)| (*bound, count - before.get(bound).unwrap_or(&0.0)));
        grown.map(|(bound, count)| (bound as f64 / 1e9, count)).collect()
    }

    /// The bounds of the bucket that holds a quantile, and the quantile as it lies evenly between them.
    fn quantile(&self, name: &str, quantile: f64) -> (f64, f64, f64) {
        let grown = self.buckets(name);
        let rank = quantile * grown.last().map_or(0.0, |(_, count)| *count);
        let index = grown.partition_point(|(_, count)| *count < rank);
        let upper = grown.get(index).copied().unwrap_or((f64::INFINITY, rank));
        let lower = index.checked_sub(1).map_or((0.0, 0.0), |before| grown[before]);
        let share = if upper.1 > lower.1 { (rank - lower.1) / (upper.1 - lower.1) } else { 1.0 };
        (lower.0, upper.0, lower.0 + share * (upper.0 - lower.0))
    }
}

#[test]
fn the_long_road_scales_too_and_its_rules_give_the_truth() {
    let sync = std::env::var("GOPULSE_HPA_SYNC_SECONDS").ok().and_then(|it| it.parse().ok()).unwrap_or(15);
    let sync = Duration::from_secs(sync);
    cluster::prometheus_adapter().unwrap_or_else(|error| panic!("no prometheus-adapter: {error:#}"));
    let options = Options { autoscaler_period: sync, aggregator_routing: true, ..Options::default() };
    // The custom metrics API is the adapter's, the external one ours; and the scheduler's figures are wanted, which are off by
    // default.
    let patches = [
        json!({"target": {"kind": "ConfigMap", "name": "gopulse-metrics-api"}, "patch": json!([{"op": "replace",
            "path": "/data/metrics-api.yaml", "value": "register: {custom: false, external: true}\n"}]).to_string()}),
        json!({"target": {"kind": "DaemonSet", "name": "gopulse"}, "patch": json!([{"op": "add",
            "path": "/spec/template/spec/containers/0/args/-", "value": "--features=all"}]).to_string()}),
    ];
    let lab = Lab::start_with(&options, &overlay(&["hpa"], &patches));
    let prometheus = Prometheus::start(&scratch("hpa-roads-prometheus"), lab.agent, SCRAPE);
    let mut pods = lab.deploy("short", 2, &[("gopulse.io/enabled", "true")]);
    let long_pods = lab.deploy("long", 2, &[("gopulse.io/enabled", "true")]);
    pods.extend(long_pods.clone());
    lab.wait_measured(&pods);
    // On this road a series is there once something was counted, and the adapter learns of it at its next look.
    for pod in &pods {
        crate::support::load(&["-address", &pod.address(), "-n", "1"], &["GET /hello 200 /hello 1"]);
    }
    until(&lab, "Prometheus has a rate of each pod", || {
        let query = format!("count(rate(http_server_request_duration_seconds_count{{namespace=\"{NAMESPACE}\"}}[1m]))");
        prometheus.query(&query).filter(|it| *it >= 4.0)
    });
    let _adapter = adapter(&lab, &prometheus);
    until(&lab, "the adapter serves both pods", || (long(&lab, RPS).len() == 2).then_some(()));
    until(&lab, "the metrics-api serves the Deployment", || short(&lab, FAST));
    let target = json!({"type": "AverageValue", "averageValue": "50"});
    lab.apply(&hpa("long", &json!({"type": "Pods", "pods": {"metric": {"name": RPS}, "target": target}})));
    lab.apply(&hpa(
        "short",
        &json!({"type": "External", "external": {"metric": {"name": FAST, "selector": {"matchLabels": {"deployment": "short"}}},
            "target": target}}),
    ));
    for name in ["short", "long"] {
        until(&lab, "both HPAs have looked and want 2", || (desired(&lab, name) == 2).then_some(()));
        let described = lab.kubectl(&["describe", "hpa", name, "-n", NAMESPACE]);
        assert!(described.contains("ValidMetricFound"), "{described}");
    }

    // The load generator is built before the clock runs. 100 requests a second at each of two, where 50 are wanted: four pods.
    crate::support::service("load");
    let start = lab.scrape();
    let begun = Instant::now();
    let loads: Vec<_> = pods.iter().map(load).collect();
    let lab_ = &lab;
    let after =
        |what: &str, seen: &dyn Fn() -> bool| until(lab_, what, || seen().then(|| begun.elapsed().as_secs_f64()));
    let times = thread::scope(|scope| {
        let after = &after;
        [
            scope.spawn(move || {
                after("the short road shows the step", &|| short(lab_, FAST).is_some_and(|it| it > 2.0 * SEEN))
            }),
            scope.spawn(move || after("the HPA scales by the short road", &|| desired(lab_, "short") > 2)),
            scope.spawn(move || {
                after("the long road shows the step", &|| {
                    let values = long(lab_, RPS);
                    values.len() >= 2 && values.values().sum::<f64>() / values.len() as f64 > SEEN
                })
            }),
            scope.spawn(move || after("the HPA scales by the long road", &|| desired(lab_, "long") > 2)),
        ]
        .map(|it| it.join().expect("it comes to pass"))
    });
    let [short_shows, short_scales, long_shows, long_scales] = times;
    println!("from the step of load, at a sync period of {sync:?} and a scrape interval of {SCRAPE} s:");
    println!("short road: shown by the metrics-api after {short_shows:.1} s, scaled after {short_scales:.1} s");
    println!("long road:  shown by prometheus-adapter after {long_shows:.1} s, scaled after {long_scales:.1} s");
    assert!(short_shows < long_shows, "the short road is there to show a step before the long one does");

    // Every rule against the truth, at one of the pods under load, over the minute that the rules look back: until the newest
    // scrape, which is up to one interval old.
    let pod = &long_pods[0];
    thread::sleep(Duration::from_secs(35).saturating_sub(begun.elapsed()));
    let from = Instant::now();
    let before = lab.scrape();
    // Requests that stay until all has been looked at.
    let address = pod.address();
    let held = thread::spawn(move || {
        crate::support::load(
            &["-address", &address, "-n", "8", "-c", "8", "-timeout", "60s"],
            &["GET /sleep?ms=50000 200 /sleep 1"],
        )
    });
    thread::sleep(Duration::from_secs(22).saturating_sub(from.elapsed()));
    let middle = lab.scrape();
    let active = long(&lab, "http_server_active_requests");
    let waiting = long(&lab, "go_goroutines_waiting");
    assert!(!held.is_finished(), "the held requests are still there");
    thread::sleep(Duration::from_secs(46).saturating_sub(from.elapsed()));
    let now = lab.scrape();
    assert!(begun.elapsed() < LOAD, "the load has ended before the rules were looked at");
    let growth = Growth(&before, &now, &pod.name);
    let of = |metric: &str| long(&lab, metric).get(&pod.name).copied().unwrap_or(f64::NAN);
    // Those that are held, and of 100 a second as many as there are at a time: more where they wait for a CPU.
    let (.., slowest) = growth.quantile("http_server_request_duration_seconds", 0.99);
    let in_flight = (8.0, 8.0 + (100.0 * slowest).max(6.0));
    let mut told = vec![
        ("http_server_active_requests", active.get(&pod.name).copied().unwrap_or(f64::NAN), in_flight),
        ("go_goroutines_waiting", waiting.get(&pod.name).copied().unwrap_or(f64::NAN), {
            let samples = middle.samples.iter();
            let truth: f64 = samples
                .filter(|it| it.name == "go_goroutines_waiting" && it.label("pod") == pod.name)
                .map(|it| it.value)
                .sum();
            (0.8 * truth, 1.2 * truth)
        }),
        (RPS, of(RPS), (97.0, 103.0)),
    ];
    for (metric, family, quantile) in [
        ("go_sched_latency_p99_milliseconds", "go_sched_latencies_seconds", 0.99),
        ("go_runqueue_latency_p99_milliseconds", "go_runqueue_latency_seconds", 0.99),
    ] {
        let (lower, upper, _) = growth.quantile(family, quantile);
        // The windows are not the same: what lies near a bound may be in the next bucket.
        told.push((metric, of(metric), (lower * 1e3 / 2.0, upper * 1e3 * 2.0)));
    }
    // The runtime counts a collection at its end, and as long as it took: the rule's minute may have one more, of those since the
    // load began.
    let (collecting, used) = ("go_cpu_classes_gc_total_cpu_seconds_total", growth.sum("process_cpu_seconds_total"));
    let gc = 100.0 * growth.sum(collecting) / used;
    let with_earlier = 100.0 * Growth(&start, &now, &pod.name).sum(collecting) / used;
    told.push(("go_gc_cpu_percent", of("go_gc_cpu_percent"), (gc / 2.0 - 0.5, with_earlier.max(gc) * 2.0 + 0.5)));
    let (p95, p99) =
        (of("http_server_request_duration_p95_milliseconds"), of("http_server_request_duration_p99_milliseconds"));
    // Of 100 requests, 90 take 4 ms, and ten 76 to 98.5 ms, 2.5 ms apart: the service's own doing, where it has a CPU whenever it
    // wants one. Where others burn the machine its requests wait, and what the agent counted meanwhile is the truth. What the load
    // generator saw has the wait of its four processes for a CPU in it, and is printed beside.
    for (metric, value, quantile, own) in [
        ("http_server_request_duration_p95_milliseconds", p95, 0.95, 87.25),
        ("http_server_request_duration_p99_milliseconds", p99, 0.99, 98.5),
    ] {
        let (lower, upper, counted) = growth.quantile("http_server_request_duration_seconds", quantile);
        let counted = counted * 1e3;
        let waits = (counted / own - 1.0).abs() >= 0.1;
        told.push((
            metric,
            value,
            if waits {
                (lower * 1e3 / 2.0, upper * 1e3 * 2.0)
            } else {
                (0.9 * own.min(counted), 1.1 * own.max(counted))
            },
        ));
    }
    let reports: Vec<LoadReport> = loads.into_iter().map(|it| it.join().expect("the load ends")).collect();
    println!("p99 as the load generator saw it: {:.1} ms", 1e3 * reports[2].p99);
    held.join().expect("they are answered");
    println!("by prometheus-adapter, of pod {}:", pod.name);
    for (metric, value, (least, most)) in &told {
        println!("{metric:<48} {value:>9.3}   truth {least:.3} to {most:.3}");
    }
    for (metric, value, (least, most)) in told {
        assert!((least..=most).contains(&value), "{metric} is {value}, and should be {least} to {most}");
    }
}
