//! `gopulse metrics-api` behind a real kube-apiserver's aggregation layer, under the real HPA controller, with the rights that
//! the manifests give it. The agents are rehearsed: they tell what the test says, by the stream that real ones have; the pods
//! are real objects whose status the test writes.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::support::stage::{CUSTOM, RPS, SYNC, Stage, by_pods, hpa, quantity};
use serde_json::{Value, json};
use xtask::{
    cluster::Subject,
    go::{self, Service, Variant},
    util,
};

fn status_of(arguments: &[&str]) -> String {
    util::output(
        Command::new("curl").args(["-sk", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "10"]).args(arguments),
    )
    .unwrap_or_else(|error| panic!("{error:#}"))
}

#[test]
fn the_apis_are_served_and_the_hpa_scales_by_them() {
    let mut stage = Stage::set();
    let pods_path = |version: &str, rest: &str| format!("{CUSTOM}/{version}/namespaces/shop/{rest}/{RPS}");

    // Both versions, single, wildcard and by selector.
    let all = stage.until("both pods have values", || {
        let values = stage.values(&pods_path("v1beta2", "pods/*"));
        (values.len() == 2 && values.values().all(|it| (35.0..45.0).contains(it))).then_some(values)
    });
    let some_pod = all.keys().next().unwrap().clone();
    for version in ["v1beta1", "v1beta2"] {
        let discovery = stage.raw(&format!("{CUSTOM}/{version}")).unwrap();
        assert!(discovery["resources"].as_array().unwrap().iter().any(|it| it["name"] == format!("pods/{RPS}")));
        let list = stage.raw(&format!("{}?labelSelector=app%3Dshop", pods_path(version, "pods/*"))).unwrap();
        assert_eq!((list["kind"].as_str(), list["items"].as_array().unwrap().len()), (Some("MetricValueList"), 2));
        let single = stage.values(&pods_path(version, &format!("pods/{some_pod}")));
        assert_eq!(single.len(), 1);
        assert!(stage.values(&format!("{}?labelSelector=app%3Dother", pods_path(version, "pods/*"))).is_empty());
        let whole = stage.values(&pods_path(version, "deployments.apps/shop"))["shop"];
        assert!((70.0..90.0).contains(&whole), "{whole} requests a second of the Deployment");
        let space = stage.values(&format!("{CUSTOM}/{version}/namespaces/shop/metrics/{RPS}"))["shop"];
        assert!((70.0..90.0).contains(&space), "{space} requests a second of the namespace");
    }
    let p99 = stage.values(&format!(
        "{CUSTOM}/v1beta2/namespaces/shop/deployments.apps/shop/http_server_request_duration_p99_milliseconds"
    ))["shop"];
    assert!((10.0..=25.0).contains(&p99), "p99 of 20 ms in a bucket from 10 to 25 ms is {p99} ms");
    let by_route = |route: &str| {
        let selector = format!("metricLabelSelector=http_route%3D{route}");
        stage.values(&format!("{}?{selector}", pods_path("v1beta2", "pods/*")))
    };
    assert!(by_route("%2Fitems%2F%7Bid%7D").values().all(|it| *it > 30.0));
    assert!(by_route("%2Fother").values().all(|it| *it == 0.0), "measured, and nothing of it: 0");
    let external = stage
        .raw(&format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/{RPS}?labelSelector=deployment%3Dshop"));
    assert!((70.0..90.0).contains(&quantity(&external.unwrap()["items"][0]["value"])));
    let item = &stage.raw(&pods_path("v1beta2", "pods/*")).unwrap()["items"][0];
    assert!(item["windowSeconds"].as_u64().unwrap() <= 16 && item["timestamp"].as_str().unwrap().ends_with('Z'));
    // kubectl leaves out resources with a slash, as all of custom.metrics.k8s.io are, whoever serves it.
    stage.plane.kubectl(&["api-resources", "--api-group=custom.metrics.k8s.io"]).unwrap();
    let resources = stage.plane.kubectl(&["api-resources", "--api-group=external.metrics.k8s.io"]).unwrap();
    assert!(resources.contains(RPS), "{resources}");
    for missing in [pods_path("v1beta2", "pods/nobody"), format!("{CUSTOM}/v1beta2/namespaces/shop/pods/*/no_such")] {
        assert!(stage.raw(&missing).unwrap_err().contains("NotFound"), "{missing}");
    }

    // Nobody without a certificate of the front proxy is believed, whatever the headers say.
    let direct = format!("https://127.0.0.1:{}{}", stage.port, pods_path("v1beta2", "pods/*"));
    let forged = ["-H", "X-Remote-User: system:admin", "-H", "X-Remote-Group: system:masters"];
    assert_eq!(status_of(&[&direct]), "401");
    assert_eq!(status_of(&[&forged[..], &[&direct]].concat()), "401", "forged headers without a certificate");
    let stranger = stage.plane.authority().issue(&Subject {
        file: "stranger",
        name: "front-proxy-client",
        groups: &["system:masters"],
        hosts: &[],
    });
    let stranger = stranger.unwrap();
    let (certificate, key) = (stranger.certificate.display().to_string(), stranger.key.display().to_string());
    let with = [&["--cert", &certificate, "--key", &key][..], &forged, &[&direct]].concat();
    assert_eq!(status_of(&with), "401", "forged headers with a certificate of another authority");
    let other = stage
        .plane
        .front_proxy()
        .issue(&Subject { file: "other-name", name: "kubelet", groups: &[], hosts: &[] })
        .unwrap();
    let (certificate, key) = (other.certificate.display().to_string(), other.key.display().to_string());
    let with = [&["--cert", &certificate, "--key", &key][..], &forged, &[&direct]].concat();
    assert_eq!(status_of(&with), "401", "a name that is not allowed");
    // As the front proxy itself: a user without the right, then with it.
    let proxy = stage
        .plane
        .front_proxy()
        .issue(&Subject { file: "proxy", name: "front-proxy-client", groups: &[], hosts: &[] })
        .unwrap();
    let (certificate, key) = (proxy.certificate.display().to_string(), proxy.key.display().to_string());
    let jane = ["-H", "X-Remote-User: jane"];
    let with = [&["--cert", &certificate, "--key", &key][..], &jane, &[&direct]].concat();
    assert_eq!(status_of(&with), "403", "a user without the right");
    let with = [&["--cert", &certificate, "--key", &key][..], &forged, &[&direct]].concat();
    assert_eq!(status_of(&with), "200", "system:masters, said by the front proxy");
    let denied = stage.plane.kubectl(&["get", "--raw", &pods_path("v1beta2", "pods/*"), "--as", "jane"]).unwrap_err();
    assert!(format!("{denied:#}").contains("Forbidden"), "{denied:#}");
    let open = |path: &str| status_of(&[&format!("https://127.0.0.1:{}{path}", stage.port)]);
    assert_eq!(open("/livez"), "200");
    // Once it has figures of some seconds.
    stage.until("it is ready", || (open("/readyz") == "200").then_some(()));
    let openapi = format!("https://127.0.0.1:{}/openapi/v2", stage.port);
    assert_eq!(status_of(&[&["--cert", &certificate, "--key", &key][..], &jane, &[&openapi]].concat()), "404");

    // KEDA's own client.
    let keda = Service { name: "keda".to_owned(), go: "1.26".to_owned(), variant: Variant::Static };
    let keda = go::build(&keda).unwrap_or_else(|error| panic!("the client does not build: {error:#}"));
    let mut command = Command::new(keda);
    command.args(["-address", &format!("127.0.0.1:{}", stage.keda), "-namespace", "shop"]);
    command.args(["-metadata", &format!("metric={RPS};selector=deployment=shop;target=50")]);
    let told: Value =
        serde_json::from_str(&util::output(&mut command).unwrap_or_else(|error| panic!("{error:#}"))).unwrap();
    assert_eq!(
        (&told["active"], &told["stream_active"], &told["spec_name"]),
        (&json!(true), &json!(true), &json!(RPS))
    );
    assert_eq!(
        (told["target"].as_f64(), &told["old_target"], &told["value_name"]),
        (Some(50.0), &json!(50), &json!(RPS))
    );
    assert!((70.0..90.0).contains(&told["value"].as_f64().unwrap()), "{told}");
    assert!(told["stream_spec"].as_str().unwrap().contains("Unimplemented"), "{told}");

    // Scaled up and down.
    stage.plane.apply(&hpa(&by_pods())).unwrap();
    stage.settle(2);
    stage.set_load(300.0);
    let step = Instant::now();
    stage.until("scaled up", || (stage.desired() > 2).then_some(()));
    let reaction = step.elapsed();
    println!(
        "from the load step to more desired replicas: {:.1} s, at a sync period of {SYNC:?}",
        reaction.as_secs_f64()
    );
    stage.until("6 or 7 replicas of 50 each", || (6..=7).contains(&stage.desired()).then_some(()));
    let described = stage.plane.kubectl(&["describe", "hpa", "shop", "-n", "shop"]).unwrap();
    assert!(!described.contains("<unknown>") && described.contains(RPS), "{described}");
    let listed = stage.plane.kubectl(&["get", "hpa", "-n", "shop"]).unwrap();
    assert!(!listed.contains("<unknown>"), "{listed}");

    // The metrics-api killed and started again: nothing is decided meanwhile.
    let before = stage.desired();
    stage.api = None;
    thread::sleep(SYNC * 3);
    assert_eq!(stage.desired(), before, "without metrics nothing changes");
    stage.start_api();
    stage.until("served again", || (!stage.values(&pods_path("v1beta2", "pods/*")).is_empty()).then_some(()));
    thread::sleep(SYNC * 3);
    assert!(stage.desired() >= before, "a young rate is no reason to scale down");

    // The certificate replaced under it.
    let bundle = || {
        let service = stage.plane.get(&["apiservice", "v1beta2.custom.metrics.k8s.io"]).unwrap();
        service["spec"]["caBundle"].as_str().unwrap_or_default().to_owned()
    };
    let old = bundle();
    stage.plane.kubectl(&["delete", "secret", "gopulse-metrics-api-tls", "-n", "gopulse"]).unwrap();
    stage.until("a new caBundle", || (bundle() != old).then_some(()));
    stage.until("served by the new certificate", || {
        (!stage.values(&pods_path("v1beta2", "pods/*")).is_empty()).then_some(())
    });
    assert!(stage.desired() >= before, "a new certificate is no reason to scale down");

    // The API server started again.
    stage.plane.stop_api_server().unwrap();
    thread::sleep(Duration::from_secs(3));
    stage.plane.start_api_server().unwrap();
    stage.until("served after the API server's restart", || {
        (!stage.values(&pods_path("v1beta2", "pods/*")).is_empty()).then_some(())
    });
    thread::sleep(SYNC * 2);
    assert!(stage.desired() >= before, "a restart is no reason to scale down");

    // One agent killed: its pods' last values stand for 15 s, then they are absent, never 0.
    let everyone = stage.values(&pods_path("v1beta2", "pods/*")).len();
    stage.agents.truncate(1);
    let killed = Instant::now();
    let gone = stage.until("the pods of the dead agent are absent", || {
        let values = stage.values(&pods_path("v1beta2", "pods/*"));
        assert!(values.values().all(|it| *it > 20.0), "never 0: {values:?}");
        (values.len() < everyone).then(|| killed.elapsed())
    });
    println!("a dead agent's pods are absent after {:.1} s", gone.as_secs_f64());
    assert!(gone > Duration::from_secs(13), "too early: {gone:?}");
    let total = stage.raw(&pods_path("v1beta2", "deployments.apps/shop")).unwrap_err();
    assert!(total.contains("silent"), "a total that lacks pods is no total: {total}");
    thread::sleep(SYNC * 3);
    assert!(stage.desired() >= before, "missing pods are no reason to scale down");
    // Somebody else's APIService is left alone.
    let mut taken = stage.plane.get(&["apiservice", "v1beta1.external.metrics.k8s.io"]).unwrap();
    taken["spec"]["service"] = json!({"name": "keda-operator-metrics-apiserver", "namespace": "keda", "port": 443});
    taken["spec"]["caBundle"] = json!("S0VEQQ==");
    taken["metadata"] = json!({"name": "v1beta1.external.metrics.k8s.io"});
    stage.plane.apply(&taken.to_string()).unwrap();
    thread::sleep(Duration::from_secs(13));
    let left = stage.plane.get(&["apiservice", "v1beta1.external.metrics.k8s.io"]).unwrap();
    assert_eq!(
        (&left["spec"]["caBundle"], &left["spec"]["service"]["namespace"]),
        (&json!("S0VEQQ=="), &json!("keda"))
    );
    let log = fs::read_to_string(stage.directory.join("metrics-api.log")).unwrap();
    assert!(log.contains("belongs to Service keda/keda-operator-metrics-apiserver"), "it is said in the log");
}
