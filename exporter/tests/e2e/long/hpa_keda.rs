//! KEDA itself, its operator and its metrics server, built from its published module, beside the metrics-api: ScaledObjects with our
//! external scaler scale Deployments 0 -> 1 -> n -> 0 under the real HPA controller, asked by KEDA (`external`) and told by us
//! (`external-push`).

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::support::stage::{RPS, Running, Stage};
use serde_json::{Value, json};
use xtask::{
    cluster::{self, Keda, Subject, free_port},
    util,
};

/// KEDA while it runs, and its APIService.
struct Installed {
    _operator: Running,
    _adapter: Running,
}

fn started(stage: &Stage, program: &Path, log: &str, arguments: &[String]) -> Running {
    let mut command = Command::new(program);
    command.args(arguments).env("KUBECONFIG", stage.plane.kubeconfig()).env("POD_NAMESPACE", "keda");
    command
        .env("WATCH_NAMESPACE", "")
        .env("KEDA_CLUSTER_OBJECT_NAMESPACE", "keda")
        .stdin(Stdio::null())
        .stdout(stage.log(log))
        .stderr(stage.log(log));
    let child: Child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    Running(child)
}

/// As its manifests install it; of the Services the aggregation layer reaches this machine, and the certificates are the test's.
fn install(stage: &Stage, keda: &Keda) -> Installed {
    let plane = &stage.plane;
    plane.apply("{apiVersion: v1, kind: Namespace, metadata: {name: keda}}").unwrap();
    for file in fs::read_dir(keda.manifests.join("crd/bases")).unwrap() {
        plane.apply(&fs::read_to_string(file.unwrap().path()).unwrap()).unwrap();
    }
    for file in ["role.yaml", "role_binding.yaml"] {
        plane.apply(&fs::read_to_string(keda.manifests.join("metrics-server").join(file)).unwrap()).unwrap();
    }
    plane
        .apply(
            "{apiVersion: v1, kind: Service, metadata: {name: keda-metrics-apiserver, namespace: keda}, spec: {type: ExternalName, \
             externalName: localhost}}",
        )
        .unwrap();
    let hosts = ["localhost", "keda-metrics-apiserver.keda.svc"];
    let subject = Subject { file: "keda", name: "keda", groups: &[], hosts: &hosts };
    let pair = plane.authority().issue(&subject).unwrap();
    let certificates = stage.directory.join("keda");
    fs::create_dir_all(&certificates).unwrap();
    fs::copy(&plane.authority().certificate, certificates.join("ca.crt")).unwrap();
    fs::copy(&pair.certificate, certificates.join("tls.crt")).unwrap();
    fs::copy(&pair.key, certificates.join("tls.key")).unwrap();
    let certificates = certificates.display().to_string();
    let [metrics, probes, service, own, secure] = [(); 5].map(|()| free_port().unwrap());
    let operator = [
        format!("--metrics-bind-address=127.0.0.1:{metrics}"),
        format!("--health-probe-bind-address=127.0.0.1:{probes}"),
        format!("--metrics-service-bind-address=127.0.0.1:{service}"),
        format!("--cert-dir={certificates}"),
        "--zap-log-level=debug".to_owned(),
    ];
    let operator = started(stage, &keda.operator, "keda-operator.log", &operator);
    let kubeconfig = plane.kubeconfig().display();
    let adapter = [
        format!("--port={own}"),
        format!("--secure-port={secure}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--metrics-service-address=localhost:{service}"),
        format!("--cert-dir={certificates}"),
        format!("--tls-cert-file={certificates}/tls.crt"),
        format!("--tls-private-key-file={certificates}/tls.key"),
        format!("--client-ca-file={certificates}/ca.crt"),
        format!("--lister-kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
    ];
    let adapter = started(stage, &keda.adapter, "keda-adapter.log", &adapter);
    let shipped = fs::read_to_string(keda.manifests.join("metrics-server/api_service.yaml")).unwrap();
    let mut apiservice: Value = serde_norway::from_str(&shipped).unwrap();
    let ca = util::output(Command::new("base64").arg("-w0").arg(&plane.authority().certificate)).unwrap();
    apiservice["spec"]["caBundle"] = json!(ca);
    apiservice["spec"]["service"]["port"] = json!(secure);
    plane.apply(&apiservice.to_string()).unwrap();
    Installed { _operator: operator, _adapter: adapter }
}

/// A Deployment that is not measured, with a target in its container's environment, and who scales it.
fn scaled(stage: &Stage, name: &str, kind: &str, polling_seconds: u32, metadata: &Value) {
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [
                    {"name": "app", "image": "none", "env": [{"name": "A_POD_TAKES", "value": "50"}]},
                ]},
            },
        },
    });
    stage.plane.apply(&deployment.to_string()).unwrap();
    let mut metadata = metadata.clone();
    metadata["scalerAddress"] = json!(format!("127.0.0.1:{}", stage.keda));
    metadata["metric"] = json!(RPS);
    let behavior = json!({"scaleDown": {"stabilizationWindowSeconds": 3}});
    let object = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "scaleTargetRef": {"name": name}, "pollingInterval": polling_seconds, "cooldownPeriod": 5,
            "minReplicaCount": 0, "maxReplicaCount": 8,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior}},
            "triggers": [{"type": kind, "metadata": metadata}],
        },
    });
    stage.plane.apply(&object.to_string()).unwrap();
}

fn replicas(stage: &Stage, name: &str) -> u64 {
    let deployment = stage.until("the Deployment", || stage.plane.get(&["deployment", name, "-n", "shop"]).ok());
    deployment["spec"]["replicas"].as_u64().unwrap()
}

/// A condition of a ScaledObject: its status and its reason.
fn condition(stage: &Stage, name: &str, kind: &str) -> (String, String) {
    let object = stage.plane.get(&["scaledobject", name, "-n", "shop"]).unwrap();
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.into_iter().find(|it| it["type"] == kind).unwrap_or_default();
    let part = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    (part("status"), part("reason"))
}

fn logged(stage: &Stage, words: &str) -> usize {
    let log = fs::read_to_string(stage.directory.join("keda-operator.log")).unwrap_or_default();
    log.lines().filter(|line| line.contains(words)).count()
}

#[test]
fn kedas_operator_scales_from_zero_to_many_and_back_by_our_scaler() {
    let keda = cluster::keda().unwrap_or_else(|error| panic!("no KEDA: {error:#}"));
    let mut stage = Stage::without_api();
    stage.set_load(0.0);
    let _installed = install(&stage, &keda);
    stage.start_api();
    stage.says("external.metrics.k8s.io is not served from here", 1, 0);
    stage.says("custom.metrics.k8s.io is served from here", 1, 0);

    let asked = json!({"selector": "deployment=shop", "targetFromEnv": "A_POD_TAKES", "activation": "10"});
    let told = json!({"selector": "deployment=shop", "target": "50", "activationThreshold": "10"});
    scaled(&stage, "asked", "external", 1, &asked);
    // Whoever is only told cannot wait for KEDA's next question.
    scaled(&stage, "told", "external-push", 3600, &told);
    // Its own pods, of which there are none.
    scaled(&stage, "own", "external", 1, &json!({"selector": "deployment=own", "target": "50"}));
    idle(&stage);
    load_wakes_and_scales(&stage);
    what_is_not_known_changes_nothing(&mut stage);
    without_load_it_sleeps(&stage);
    assert_eq!(logged(&stage, "StreamMetricSpec not implemented"), 0);
}

fn is(stage: &Stage, name: &str, wanted: u64) {
    stage.until(&format!("{name} has {wanted} replicas"), || (replicas(stage, name) == wanted).then_some(()));
}

/// Nothing to do, and nothing wrong: also of a workload without pods that is asked for its own.
fn idle(stage: &Stage) {
    for name in ["asked", "told", "own"] {
        stage.until(&format!("{name} is looked at"), || {
            let [ready, active] = ["Ready", "Active"].map(|kind| condition(stage, name, kind));
            assert_ne!(ready.1, "TriggerError", "{name}");
            assert_ne!(active.0, "True", "{name}");
            // Of what it looks at once an hour, KEDA may not say so before.
            (ready.0 == "True" && (active.0 == "False" || name == "told")).then_some(())
        });
        assert_eq!(replicas(stage, name), 0, "{name}");
    }
}

fn load_wakes_and_scales(stage: &Stage) {
    stage.set_load(45.0);
    for name in ["asked", "told"] {
        is(stage, name, 1);
    }
    stage.set_load(290.0);
    for name in ["asked", "told"] {
        is(stage, name, 6);
    }
    assert_eq!(replicas(stage, "own"), 0);
    // Whoever scales it to 0 by hand is not heard of; that there is something to do is told again.
    stage.plane.kubectl(&["scale", "deployment", "told", "-n", "shop", "--replicas=0"]).unwrap();
    is(stage, "told", 6);
    let hpa = stage.plane.get(&["hpa", "keda-hpa-told", "-n", "shop"]).unwrap();
    assert_eq!(hpa["spec"]["metrics"][0]["external"]["target"]["averageValue"], "50", "{hpa}");
}

/// An agent is dead: its pods' share is not known, so that KEDA is told nothing, and keeps what there is.
fn what_is_not_known_changes_nothing(stage: &mut Stage) {
    stage.agents.truncate(1);
    stage.until("KEDA knows that it is not known", || {
        let ready = condition(stage, "asked", "Ready");
        (ready == ("False".to_owned(), "TriggerError".to_owned())).then_some(())
    });
    stage.set_load(0.0);
    // Longer than the cooldown period, and than several looks.
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(20) {
        for name in ["asked", "told"] {
            assert_eq!(replicas(stage, name), 6, "{name}");
        }
        thread::sleep(Duration::from_secs(1));
    }
    stage.agents.clear();
    stage.addresses.clear();
    for number in 0..2 {
        stage.start_agent(number);
    }
    // They have other addresses now. KEDA's streams end with the metrics-api, and are opened anew.
    stage.api = None;
    stage.start_api();
}

fn without_load_it_sleeps(stage: &Stage) {
    is(stage, "asked", 0);
    // Asleep it is put when it is asked for, which is in an hour.
    is(stage, "told", 1);
    let soon = json!({"spec": {"pollingInterval": 1}}).to_string();
    stage.plane.kubectl(&["patch", "scaledobject", "told", "-n", "shop", "--type=merge", "-p", &soon]).unwrap();
    is(stage, "told", 0);
}
