//! `gopulse metrics-api` behind a real kube-apiserver's aggregation layer, under the real HPA controller, with the rights that
//! the manifests give it. The agents are rehearsed: they tell what the test says, by the stream that real ones have; the pods
//! are real objects whose status the test writes.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpStream,
    process::{Command, Stdio},
    time::Instant,
};

use crate::support::stage::{CUSTOM, Look, RPS, SYNC, Stage, by_pods, hpa, quantity, values_of};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use xtask::{
    cluster::{Authority, Subject},
    go::{self, Service, Variant},
    util,
};

fn status_of(arguments: &[&str]) -> String {
    util::output(
        Command::new("curl").args(["-sk", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "10"]).args(arguments),
    )
    .unwrap_or_else(|error| panic!("{error:#}"))
}

/// Where values of the pods are.
fn pods_path(version: &str, rest: &str) -> String {
    format!("{CUSTOM}/{version}/namespaces/shop/{rest}/{RPS}")
}

/// More connections to the metrics-api than there are places, none of which gets to a request.
fn handshakes_that_do_not_end_lock_nobody_out(stage: &Stage) {
    let begun: Vec<_> = (0..600).map(|_| TcpStream::connect(("127.0.0.1", stage.port)).expect("it listens")).collect();
    assert_eq!(status_of(&[&direct(stage, "/livez")]), "200");
    assert_eq!(stage.values(&pods_path("v1beta2", "pods/*")).len(), 2, "nor the API server");
    drop(begun);
}

/// A path of the metrics-api itself, past the API server.
fn direct(stage: &Stage, path: &str) -> String {
    format!("https://127.0.0.1:{}{path}", stage.port)
}

#[test]
fn the_apis_are_served_and_the_hpa_scales_by_them() {
    let mut stage = Stage::set();
    every_form_is_served(&stage);
    front_proxies_alone_are_believed(&stage);
    kedas_own_client_is_answered(&stage);
    handshakes_that_do_not_end_lock_nobody_out(&stage);
    kedas_streams_end_with_the_replica(&mut stage);
    containers_that_come_back_bring_no_history(&stage);
    load_scales_the_deployment(&stage);
    restarts_are_no_reason_to_scale(&mut stage);
    a_dead_agents_pods_become_absent(&mut stage);
    a_part_of_a_total_scales_up_and_never_down(&mut stage);
    an_apiservice_of_others_is_left_alone(&stage);
}

/// Both versions, single, wildcard and by selector.
fn every_form_is_served(stage: &Stage) {
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
    // 15 s and what lies between two frames, which come late where the CPUs are busy.
    assert!(item["windowSeconds"].as_u64().unwrap() <= 20 && item["timestamp"].as_str().unwrap().ends_with('Z'));
    // kubectl leaves out resources with a slash, as all of custom.metrics.k8s.io are, whoever serves it.
    stage.plane.kubectl(&["api-resources", "--api-group=custom.metrics.k8s.io"]).unwrap();
    let resources = stage.plane.kubectl(&["api-resources", "--api-group=external.metrics.k8s.io"]).unwrap();
    assert!(resources.contains(RPS), "{resources}");
    for missing in [pods_path("v1beta2", "pods/nobody"), format!("{CUSTOM}/v1beta2/namespaces/shop/pods/*/no_such")] {
        assert!(stage.raw(&missing).unwrap_err().contains("NotFound"), "{missing}");
    }
    let open = |path: &str| status_of(&[&direct(stage, path)]);
    assert_eq!(open("/livez"), "200");
    // Once it has figures of some seconds.
    stage.until("it is ready", || (open("/readyz") == "200").then_some(()));
}

/// Nobody without a certificate of the front proxy is believed, whatever the headers say.
fn front_proxies_alone_are_believed(stage: &Stage) {
    let url = direct(stage, &pods_path("v1beta2", "pods/*"));
    let forged = ["-H", "X-Remote-User: system:admin", "-H", "X-Remote-Group: system:masters"];
    let jane = ["-H", "X-Remote-User: jane"];
    let shown = |authority: &Authority, file: &str, name: &str, groups: &[&str], headers: &[&str], url: &str| {
        let pair = authority.issue(&Subject { file, name, groups, hosts: &[] }).unwrap();
        let (certificate, key) = (pair.certificate.display().to_string(), pair.key.display().to_string());
        status_of(&[&["--cert", &certificate, "--key", &key], headers, &[url]].concat())
    };
    assert_eq!(status_of(&[&url]), "401");
    assert_eq!(status_of(&[&forged[..], &[&url]].concat()), "401", "forged headers without a certificate");
    let (clients, proxies) = (stage.plane.authority(), stage.plane.front_proxy());
    let stranger = shown(clients, "stranger", "front-proxy-client", &["system:masters"], &forged, &url);
    assert_eq!(stranger, "401", "forged headers with a certificate of another authority");
    assert_eq!(shown(proxies, "other-name", "kubelet", &[], &forged, &url), "401", "a name that is not allowed");
    // As the front proxy itself: a user without the right, then with it.
    let proxy = |headers: &[&str], url: &str| shown(proxies, "proxy", "front-proxy-client", &[], headers, url);
    assert_eq!(proxy(&jane, &url), "403", "a user without the right");
    assert_eq!(proxy(&forged, &url), "200", "system:masters, said by the front proxy");
    let denied = stage.plane.kubectl(&["get", "--raw", &pods_path("v1beta2", "pods/*"), "--as", "jane"]).unwrap_err();
    assert!(format!("{denied:#}").contains("Forbidden"), "{denied:#}");
    assert_eq!(proxy(&jane, &direct(stage, "/openapi/v2")), "200", "which paths there are is no secret");
    assert_eq!(status_of(&[&direct(stage, "/openapi/v2")]), "401");
}

/// What KEDA's own client is told of a trigger, each method asked once; or why it is told nothing.
fn by_kedas_client(stage: &Stage, metadata: &str, arguments: &[&str]) -> Result<Value, String> {
    let told = util::output(kedas_client(stage, metadata).args(arguments)).map_err(|error| format!("{error:#}"))?;
    Ok(serde_json::from_str(&told).unwrap())
}

/// KEDA's own client, and what it asks about.
fn kedas_client(stage: &Stage, metadata: &str) -> Command {
    let keda = Service { name: "keda".to_owned(), go: "1.26".to_owned(), variant: Variant::Static };
    let keda = go::build(&keda).unwrap_or_else(|error| panic!("the client does not build: {error:#}"));
    let mut command = Command::new(keda);
    command.args(["-address", &format!("127.0.0.1:{}", stage.keda), "-namespace", "shop"]);
    command.args(["-metadata", &format!("metric={RPS};{metadata}")]);
    command
}

/// A replica that is asked to end ends KEDA's streams and says that it goes: none is cut.
fn kedas_streams_end_with_the_replica(stage: &mut Stage) {
    let mut command = kedas_client(stage, "selector=deployment=shop;target=50");
    let mut client = command.arg("-wait").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some("held"));
    let mut api = stage.api.take().unwrap();
    kill(Pid::from_raw(api.0.id() as i32), Signal::SIGTERM).unwrap();
    let ends: Vec<String> = lines.collect();
    assert_eq!(ends, ["StreamIsActive: EOF", "StreamMetricSpec: EOF"]);
    assert!(client.wait().unwrap().success() && api.0.wait().unwrap().success());
    stage.start_api();
    stage.until("served again", || (stage.values(&pods_path("v1beta2", "pods/*")).len() == 2).then_some(()));
}

fn kedas_own_client_is_answered(stage: &Stage) {
    // All triggers of one address share a connection, and those of type external-push hold two streams of it for good.
    let many = ["-streams", "150"];
    let told = by_kedas_client(stage, "selector=deployment=shop;target=50", &many).unwrap();
    assert_eq!(
        (&told["active"], &told["stream_active"], &told["spec_name"]),
        (&json!(true), &json!(true), &json!(RPS))
    );
    assert_eq!(
        (told["target"].as_f64(), &told["old_target"], &told["value_name"]),
        (Some(50.0), &json!(50), &json!(RPS))
    );
    assert!((70.0..90.0).contains(&told["value"].as_f64().unwrap()), "{told}");
    assert_eq!(told["stream_spec"], true, "as GetMetricSpec has it");
    // Scaled to 0: nothing to do, and nothing wrong.
    stage.plane.kubectl(&["create", "deployment", "idle", "--image=none", "--replicas=0", "-n", "shop"]).unwrap();
    let told = by_kedas_client(stage, "selector=deployment=idle;target=50", &[]).unwrap();
    assert_eq!(
        (&told["active"], &told["stream_active"], told["value"].as_f64()),
        (&json!(false), &json!(false), Some(0.0))
    );
}

/// Containers crash and come back after a pause, with counts that go on where they were: no more requests than before.
fn containers_that_come_back_bring_no_history(stage: &Stage) {
    stage.plane.apply(&hpa(&by_pods())).unwrap();
    stage.settle(2);
    let values = || stage.values(&pods_path("v1beta2", "pods/*"));
    stage.load.lock().unwrap().away = true;
    stage.until("no pod has a value", || values().is_empty().then_some(()));
    // Once they have run for so long that figures are due.
    stage.until("the total is refused", || {
        let total = stage.raw(&pods_path("v1beta2", "deployments.apps/shop")).unwrap_err();
        total.contains("2 of 2 pods of Deployment shop/shop have no figures").then_some(())
    });
    stage.load.lock().unwrap().away = false;
    stage.until("both pods have values", || {
        let values = values();
        assert!(values.values().all(|it| *it < 60.0), "40 a second each, and no more: {values:?}");
        (values.len() == 2).then_some(())
    });
    stage.looked(2, Look::Decided, "nothing is done that was not before", |desired| desired == 2);
    assert!(values().values().all(|it| *it < 60.0));
}

/// From 80 requests a second to 300, where 50 a pod are wanted.
fn load_scales_the_deployment(stage: &Stage) {
    stage.plane.apply(&hpa(&by_pods())).unwrap();
    stage.settle(2);
    stage.set_load(300.0);
    let step = Instant::now();
    stage.until("scaled up", || (stage.desired() > 2).then_some(()));
    println!(
        "from the load step to more desired replicas: {:.1} s, at a sync period of {SYNC:?}",
        step.elapsed().as_secs_f64()
    );
    stage.until("6 or 7 replicas of 50 each", || (6..=7).contains(&stage.desired()).then_some(()));
    let described = stage.plane.kubectl(&["describe", "hpa", "shop", "-n", "shop"]).unwrap();
    assert!(!described.contains("<unknown>") && described.contains(RPS), "{described}");
    let listed = stage.plane.kubectl(&["get", "hpa", "-n", "shop"]).unwrap();
    assert!(!listed.contains("<unknown>"), "{listed}");
}

/// The metrics-api, its certificate and the API server, each replaced under the controller.
fn restarts_are_no_reason_to_scale(stage: &mut Stage) {
    let served = |stage: &Stage, what: &str| {
        stage.until(what, || (!stage.values(&pods_path("v1beta2", "pods/*")).is_empty()).then_some(()));
    };
    let before = stage.desired();
    let not_less = |desired: u64| desired >= before;
    stage.api = None;
    stage.looked(3, Look::Failed, "without metrics nothing changes", |desired| desired == before);
    stage.start_api();
    served(stage, "served again");
    stage.looked(3, Look::Decided, "a young rate is no reason to scale down", not_less);

    let bundle = || {
        let service = stage.plane.get(&["apiservice", "v1beta2.custom.metrics.k8s.io"]).unwrap();
        service["spec"]["caBundle"].as_str().unwrap_or_default().to_owned()
    };
    let old = bundle();
    let renewed = "a certificate is served that was not before";
    let certificates = stage.said(renewed);
    stage.plane.kubectl(&["delete", "secret", "gopulse-metrics-api-tls", "-n", "gopulse"]).unwrap();
    // Whom the API server trusts and what is served change one after the other, and at no moment is it asked in vain.
    let mut looks_left = 10;
    stage.until("a new certificate is served", || {
        let asked = stage.raw(&pods_path("v1beta2", "pods/*"));
        assert!(asked.is_ok(), "while the certificate changes: {asked:?}");
        looks_left -= u32::from(stage.said(renewed) > certificates);
        (looks_left == 0).then_some(())
    });
    let new = bundle();
    assert!(new != old && new.len() > old.len(), "the authority before is trusted beside the new one for a while");
    stage.looked(2, Look::Decided, "a new certificate is no reason to scale down", not_less);

    let lost = "cannot be watched: what is known stands";
    let losses = stage.said(lost);
    stage.plane.stop_api_server().unwrap();
    stage.says(lost, 1, losses);
    stage.plane.start_api_server().unwrap();
    served(stage, "served after the API server's restart");
    stage.looked(2, Look::Decided, "a restart is no reason to scale down", not_less);
}

/// The pods' last values stand for 15 s, then they are absent, never 0.
fn a_dead_agents_pods_become_absent(stage: &mut Stage) {
    let before = stage.desired();
    let everyone = stage.values(&pods_path("v1beta2", "pods/*")).len();
    stage.agents.truncate(1);
    let killed = Instant::now();
    let mut oldest = 0;
    stage.until("the pods of the dead agent are absent", || {
        let list = stage.raw(&pods_path("v1beta2", "pods/*")).ok()?;
        let values = values_of(&list);
        assert!(values.values().all(|it| *it > 20.0), "never 0: {values:?}");
        oldest = oldest.max(lag(&list));
        (values.len() < everyone).then_some(())
    });
    println!(
        "a dead agent's pods are absent after {:.1} s; their values were {oldest} s older than the others'",
        killed.elapsed().as_secs_f64()
    );
    // Of 15 s; asked now and then, and frames come late where the CPUs are busy.
    assert!((8..=30).contains(&oldest), "the values stood for {oldest} s");
    let total = stage.raw(&pods_path("v1beta2", "deployments.apps/shop")).unwrap_err();
    assert!(total.contains("silent"), "a total that lacks pods is no total: {total}");
    stage.looked(3, Look::Decided, "missing pods are no reason to scale down", |desired| desired >= before);
}

/// With an agent dead, and the metrics-api started anew beside it: what is known of half the pods is no reason to scale down, and is
/// one to scale up where it is enough.
fn a_part_of_a_total_scales_up_and_never_down(stage: &mut Stage) {
    let described = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"});
    let target = json!({"type": "AverageValue", "averageValue": "50"});
    // A name that stands for one of several metrics: what an HPA asks for is found by it as well.
    let name = format!("{RPS}:x..items._7bid_7d");
    let metric = json!({"describedObject": described, "metric": {"name": name}, "target": target});
    stage.plane.apply(&hpa(&json!({"type": "Object", "object": metric}))).unwrap();
    let before = stage.desired();
    stage.api = None;
    stage.start_api();
    stage.until("values of the living agent's pods", || {
        (!stage.values(&pods_path("v1beta2", "pods/*")).is_empty()).then_some(())
    });
    stage.looked(2, Look::Failed, "a part is no reason to scale down", |desired| desired == before);
    let total = stage.raw(&pods_path("v1beta2", "deployments.apps/shop")).unwrap_err();
    assert!(total.contains("have no figures") && total.contains("at least"), "{total}");
    // KEDA's HPA may have the part, since it is enough for its target; that the rest is idle, nobody can say.
    let labels = json!({"scaledobject.keda.sh/name": "shop"});
    let metric = json!({"name": format!("s0-{RPS}"), "selector": {"matchLabels": labels}});
    let little = json!({"type": "AverageValue", "averageValue": "1"});
    let keda = hpa(&json!({"type": "External", "external": {"metric": metric, "target": little}}));
    stage.plane.apply(&keda.replacen("\"name\":\"shop\"", "\"name\":\"keda-hpa-shop\"", 1)).unwrap();
    stage.until("of KEDA's HPA it is known how many pods there are", || {
        let hpa = stage.plane.get(&["hpa", "keda-hpa-shop", "-n", "shop"]).ok()?;
        hpa["status"]["currentReplicas"].as_u64().filter(|it| *it > 0)
    });
    let ask = |activation: &str| {
        by_kedas_client(stage, &format!("selector=deployment=shop;target=1;activation={activation}"), &[])
    };
    stage.until("the part is given out", || ask("1").ok());
    let told = ask("1000").unwrap_err();
    assert!(told.contains("IsActive") && told.contains("have no figures"), "{told}");
    stage.plane.kubectl(&["delete", "hpa", "keda-hpa-shop", "-n", "shop"]).unwrap();
    stage.set_load(2000.0);
    stage.until("scaled up by a part", || (stage.desired() > before).then_some(()));
    stage.looked(2, Look::Decided, "and not down again", |desired| desired > before);
}

/// By how many seconds the oldest value of a list is older than the newest: by the time that each says itself, so that it does
/// not matter how long the answer took.
fn lag(list: &Value) -> u64 {
    let stamps = list["items"].as_array().into_iter().flatten().filter_map(|item| item["timestamp"].as_str());
    let seconds: Vec<u64> = stamps
        .map(|stamp| {
            let time = &stamp[stamp.find('T').expect("a date and a time") + 1..];
            let parts = time.trim_end_matches('Z').split(':').map(|part| part.parse::<u64>().expect("a number"));
            parts.fold(0, |sum, part| 60 * sum + part)
        })
        .collect();
    let (Some(first), Some(last)) = (seconds.iter().min(), seconds.iter().max()) else { return 0 };
    // Over midnight the older has the greater number.
    (last - first).min(86_400 - (last - first))
}

fn an_apiservice_of_others_is_left_alone(stage: &Stage) {
    let mut taken = stage.plane.get(&["apiservice", "v1beta1.external.metrics.k8s.io"]).unwrap();
    taken["spec"]["service"] = json!({"name": "keda-operator-metrics-apiserver", "namespace": "keda", "port": 443});
    taken["spec"]["caBundle"] = json!("S0VEQQ==");
    taken["metadata"] = json!({"name": "v1beta1.external.metrics.k8s.io"});
    stage.plane.apply(&taken.to_string()).unwrap();
    stage.says("belongs to Service keda/keda-operator-metrics-apiserver", 1, 0);
    let looks = "the APIServices were looked at";
    for touched in 0..2 {
        let before = stage.said(looks);
        let change = format!("touched={touched}");
        stage
            .plane
            .kubectl(&["annotate", "--overwrite", "apiservice", "v1beta1.external.metrics.k8s.io", &change])
            .unwrap();
        stage.says(looks, 1, before);
    }
    assert_eq!(stage.said("belongs to"), 1, "once, and not at every look");
    let left = stage.plane.get(&["apiservice", "v1beta1.external.metrics.k8s.io"]).unwrap();
    assert_eq!(
        (&left["spec"]["caBundle"], &left["spec"]["service"]["namespace"]),
        (&json!("S0VEQQ=="), &json!("keda"))
    );
}
