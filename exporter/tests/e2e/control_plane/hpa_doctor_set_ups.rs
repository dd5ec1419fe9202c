//! `gopulse hpa doctor` against many set-ups at one control plane, whole ones and such as are broken in one place: it must be content
//! with each whole one, which the HPA controller is, too, and name the broken link of each other.

mod objects;
mod others;

use std::{path::Path, process::Command, thread};

use self::{
    objects::{
        average, by_pods, definition, deployment, external, labels, object, pod, rollout, service, template, value,
    },
    others::{by_another_adapter, by_keda},
};
use crate::support::stage::{PATIENCE, RPS, Stage};
use serde_json::{Value, json};
use xtask::cluster::wait_for;

/// What the doctor is to say.
enum Right {
    /// Nothing is broken, and these words are somewhere.
    Content(&'static str),
    /// This link is, with these words.
    Broken(&'static str, &'static str),
}
use Right::{Broken, Content};

/// A workload with an HPA of its own.
struct SetUp {
    name: &'static str,
    /// The HPA's `scaleTargetRef`.
    target: Value,
    least: i32,
    metrics: Vec<Value>,
    /// What else there is.
    objects: Vec<Value>,
    right: Right,
}

impl SetUp {
    /// A Deployment of one pod that has opted in, and a Pods metric.
    fn new(name: &'static str, right: Right) -> Self {
        Self {
            name,
            target: json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name}),
            least: 1,
            metrics: vec![by_pods(&Value::Null)],
            objects: vec![deployment(name, 1, Some("true"))],
            right,
        }
    }

    fn target(mut self, api_version: &str, kind: &str) -> Self {
        self.target = json!({"apiVersion": api_version, "kind": kind, "name": self.name});
        self
    }

    fn metrics(mut self, metrics: &[Value]) -> Self {
        self.metrics = metrics.to_vec();
        self
    }

    fn least(mut self, least: i32) -> Self {
        self.least = least;
        self
    }

    fn objects(mut self, objects: &[Value]) -> Self {
        self.objects = objects.to_vec();
        self
    }

    fn and(mut self, object: Value) -> Self {
        self.objects.push(object);
        self
    }

    fn hpa(&self) -> Value {
        json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": self.name, "namespace": "shop"},
            "spec": {"scaleTargetRef": self.target, "minReplicas": self.least, "maxReplicas": 4, "metrics": self.metrics},
        })
    }

    fn fits(&self, report: &str, status: i32) -> bool {
        let broken = report.lines().find(|line| line.starts_with("BROKEN")).unwrap_or_default();
        match self.right {
            Content(words) => status == 0 && report.contains(words),
            Broken(link, words) => {
                status == 1 && broken.starts_with(&format!("BROKEN  {link}:")) && broken.contains(words)
            }
        }
    }
}

/// With gopulse serving both APIs.
fn by_gopulse() -> Vec<SetUp> {
    let rps_of = |of: &str| external(RPS, &json!({"service": of}), &average());
    let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}});
    let own = |name: &str, target: &Value| object(("apps/v1", "Deployment"), name, RPS, target);
    let codes =
        json!({"matchExpressions": [{"key": "http_response_status_code", "operator": "In", "values": ["500", "503"]}]});
    let daemons = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "daemons", "namespace": "shop"},
        "spec": {"selector": {"matchLabels": {"app": "daemons"}}, "template": template("daemons", Some("true"))}});
    let mut by_expression = deployment("by-expression", 1, Some("true"));
    by_expression["spec"]["selector"] =
        json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["by-expression"]}]});
    let stateful = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "stateful", "namespace": "shop"},
        "spec": {"serviceName": "stateful", "replicas": 1, "selector": {"matchLabels": {"app": "stateful"}},
            "template": template("stateful", Some("true"))}});
    let mut but_not = deployment("but-not", 1, Some("true"));
    but_not["spec"]["selector"]["matchExpressions"] =
        json!([{"key": "track", "operator": "NotIn", "values": ["canary"]}]);
    let of_a_container = json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "app",
        "target": {"type": "Utilization", "averageUtilization": 60}}});
    vec![
        SetUp::new("front", Content("1 running pods")).and(service("front", "front")),
        SetUp::new(
            "old-group",
            Broken("workload", "no kind Deployment in extensions/v1beta1: write apiVersion: apps/v1"),
        )
        .target("extensions/v1beta1", "Deployment"),
        SetUp::new("other-group", Broken("workload", "write apiVersion: apps/v1")).target("batch/v1", "Deployment"),
        // The controller goes by the group alone.
        SetUp::new("old-version", Content("1 running pods")).target("apps/v1beta2", "Deployment"),
        SetUp::new("lower-case", Broken("workload", "kinds are written as Deployment")).target("apps/v1", "deployment"),
        SetUp::new("no-definition", Broken("workload", "no kind Widget in example.com/v1"))
            .target("example.com/v1", "Widget"),
        SetUp::new("daemons", Broken("workload", "no scale subresource"))
            .target("apps/v1", "DaemonSet")
            .objects(&[daemons]),
        SetUp::new("roll", Content("Rollout roll, 1 running pods"))
            .target("argoproj.io/v1alpha1", "Rollout")
            .objects(&[rollout("roll", "app=roll"), pod("roll-1", "roll")]),
        SetUp::new("roll-all", Broken("workload", "has no selector"))
            .target("argoproj.io/v1alpha1", "Rollout")
            .objects(&[rollout("roll-all", "")]),
        SetUp::new("by-expression", Content("1 running pods")).objects(&[by_expression]),
        SetUp::new("at-zero", Broken("workload", "has 0 replicas")).objects(&[deployment("at-zero", 0, Some("true"))]),
        SetUp::new("woken", Content("HPA's conditions: "))
            .objects(&[deployment("woken", 0, Some("true"))])
            .least(0)
            .metrics(&[rps_of("front")]),
        SetUp::new("sleeper", Broken("HPA's metrics", "nothing wakes them"))
            .least(0)
            .metrics(&[own("sleeper", &average())]),
        SetUp::new("sleeper-by-service", Broken("HPA's metrics", "nothing wakes them"))
            .and(service("sleeper", "sleeper-by-service"))
            .least(0)
            .metrics(&[rps_of("sleeper")]),
        SetUp::new("sleeper-by-labels", Broken("HPA's metrics", "nothing wakes them")).least(0).metrics(&[external(
            RPS,
            &json!({"app": "sleeper-by-labels"}),
            &average(),
        )]),
        SetUp::new("done", Broken("workload", "Succeeded pods have the labels")).and(pod("done-1", "done")),
        // Nobody asks for each pod's value there.
        SetUp::new("done-object", Content("1 running pods"))
            .and(pod("done-2", "done-object"))
            .metrics(&[own("done-object", &average())]),
        SetUp::new("codes", Content("is 0 at every pod with the selector http_response_status_code in (500,503)"))
            .metrics(&[by_pods(&codes)]),
        SetUp::new("route", Broken("HPA's metrics", "is no label value"))
            .metrics(&[by_pods(&labels("http_route", "/items/{id}"))]),
        SetUp::new("reason", Broken("HPA's metrics", "is no label value")).metrics(&[external(
            "go_goroutines_waiting",
            &json!({"service": "front", "reason": "chan receive"}),
            &average(),
        )]),
        SetUp::new("method", Broken("HPA's metrics", "upper case"))
            .metrics(&[by_pods(&labels("http_request_method", "get"))]),
        SetUp::new("cpu", Broken("resource metrics", "nobody serves metrics.k8s.io"))
            .metrics(std::slice::from_ref(&cpu)),
        SetUp::new("cpu-too", Broken("resource metrics", "does not scale down")).metrics(&[by_pods(&Value::Null), cpu]),
        SetUp::new("total", Broken("HPA's metrics", "give target.type AverageValue"))
            .metrics(&[own("total", &value())]),
        SetUp::new("total-outside", Broken("HPA's metrics", "give target.type AverageValue")).metrics(&[external(
            RPS,
            &json!({"service": "front"}),
            &value(),
        )]),
        SetUp::new("outside", Content("is ")).metrics(&[rps_of("front")]),
        SetUp::new("stateful", Content("StatefulSet stateful, 1 running pods"))
            .target("apps/v1", "StatefulSet")
            .objects(&[stateful]),
        SetUp::new("but-not", Content("1 running pods")).objects(&[but_not]),
        SetUp::new("shared", Content("1 of these pods are not of Deployment shared, as shared-by-hand"))
            .and(pod("shared-by-hand", "shared")),
        // Its rollout is, once it has its pod: that keeps no HPA from scaling.
        SetUp::new("paused", Content("1 running pods")),
        SetUp::new("one-of-two", Broken("discovery", "has no metric queue_depth"))
            .metrics(&[by_pods(&Value::Null), object(("v1", "Service"), "front", "queue_depth", &value())]),
        SetUp::new("of-a-container", Broken("resource metrics", "nobody serves metrics.k8s.io"))
            .metrics(&[by_pods(&Value::Null), of_a_container]),
        SetUp::new("as-declared", Broken("values", "stands for several metrics")).metrics(&[object(
            ("v1", "Service"),
            "front",
            "http_server_requests_per_second:{http_route}",
            &average(),
        )]),
        // Its agent cannot be asked through the API server, as one that wants a token.
        SetUp::new("behind-tls", Content("figures of 1 pods, by the metrics-api")).objects(&behind_tls()),
        // Its pods have figures, whatever it is that says so.
        SetUp::new("by-default", Content("although none that can be read says so")).objects(&[deployment(
            "by-default",
            1,
            None,
        )]),
        SetUp::new("refused", Broken("opt-in", "\"false\"")).objects(&[deployment("refused", 1, Some("false"))]),
        SetUp::new("unknown", Broken("discovery", "has no metric queue_depth")).metrics(&[object(
            ("v1", "Service"),
            "front",
            "queue_depth",
            &value(),
        )]),
    ]
}

/// A Deployment on a node whose agent is ready, and answers nobody.
fn behind_tls() -> [Value; 3] {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    let labels = json!({"app.kubernetes.io/name": "gopulse"});
    let agent = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": AGENT, "namespace": "gopulse", "labels": labels},
        "spec": {"nodeName": "n1", "containers": [{"name": "gopulse", "image": "none"}]}});
    let mut deployment = deployment("behind-tls", 1, Some("true"));
    deployment["spec"]["template"]["spec"]["nodeName"] = json!("n1");
    [node, agent, deployment]
}

const AGENT: &str = "gopulse-n1";

/// Runs the doctor: its report and end status.
fn doctor(kubeconfig: &Path, arguments: &[&str]) -> (String, i32) {
    let mut command = Command::new(crate::support::agent::binary());
    command.args(["hpa", "doctor", "--namespace", "shop"]).args(arguments).env("KUBECONFIG", kubeconfig);
    let output = command.output().expect("it starts");
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code().unwrap_or(-1))
}

fn apply(stage: &Stage, objects: &[Value]) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    stage.plane.apply(&list.to_string()).unwrap_or_else(|error| panic!("{error:#}"));
}

/// Makes the set-ups, and asks until the doctor is right about each: conditions come after a moment.
fn are_told(stage: &Stage, set_ups: &[SetUp]) {
    make(stage, set_ups);
    look(stage, set_ups);
}

fn make(stage: &Stage, set_ups: &[SetUp]) {
    let of = |it: &SetUp| it.objects.iter().cloned().chain([it.hpa()]).collect::<Vec<_>>();
    apply(stage, &set_ups.iter().flat_map(of).collect::<Vec<_>>());
}

fn look(stage: &Stage, set_ups: &[SetUp]) {
    let mut left: Vec<&SetUp> = set_ups.iter().collect();
    let mut last = String::new();
    let all = wait_for("the doctor is right about every set-up", PATIENCE, || {
        last.clear();
        let ask = |it: &&SetUp| doctor(stage.plane.kubeconfig(), &[it.name]);
        let mut reports = Vec::new();
        for some in left.chunks(4) {
            reports.extend(thread::scope(|scope| {
                let running: Vec<_> = some.iter().map(|it| scope.spawn(move || ask(it))).collect();
                running.into_iter().map(|it| it.join().unwrap()).collect::<Vec<_>>()
            }));
        }
        let mut reports = reports.into_iter();
        left.retain(|set_up| {
            let (report, status) = reports.next().unwrap();
            let fits = set_up.fits(&report, status);
            if !fits {
                last += &["== ", set_up.name, "\n", &report].concat();
            }
            !fits
        });
        Ok(left.is_empty().then_some(()))
    });
    all.unwrap_or_else(|error| panic!("{error:#}, but it said\n{last}"));
}

#[test]
fn whole_set_ups_are_told_from_broken_ones() {
    let mut stage = Stage::set();
    stage.load.lock().unwrap().everywhere = true;
    let scale = json!({"scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector"}});
    apply(&stage, &[definition("argoproj.io", "Rollout", &scale)]);
    stage.until("Rollouts can be made", || stage.plane.kubectl(&["get", "rollouts", "-A"]).ok().map(drop));
    // From here on the metrics-api leaves the APIServices as they are.
    stage.until("the APIs are there", || {
        let external = stage.raw("/apis/external.metrics.k8s.io/v1beta1").ok();
        external.filter(|_| {
            !stage.values(&format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/*/{RPS}")).is_empty()
        })
    });
    stage.api = None;
    stage.start_api_with(false);
    make(&stage, &by_gopulse());
    let ready =
        json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}).to_string();
    stage.plane.kubectl(&["patch", "pod", AGENT, "-n", "gopulse", "--subresource", "status", "-p", &ready]).unwrap();
    for name in ["done-1", "done-2"] {
        let done = json!({"status": {"phase": "Succeeded"}}).to_string();
        stage.until("the pod has succeeded", || {
            let pod = stage.plane.get(&["pod", name, "-n", "shop"]).ok()?;
            let patch = ["patch", "pod", name, "-n", "shop", "--subresource", "status", "-p", &done];
            (pod["status"]["phase"] == "Running").then(|| stage.plane.kubectl(&patch).unwrap())
        });
    }
    stage.until("the rollout can be paused", || {
        let ready = stage.plane.get(&["deployment", "paused", "-n", "shop"]).ok()?["status"]["readyReplicas"] == 1;
        ready.then(|| stage.plane.kubectl(&["rollout", "pause", "deployment/paused", "-n", "shop"]).unwrap())
    });
    look(&stage, &by_gopulse());
    two_hpas_of_one_workload(&stage);
    the_agents_configuration(&stage);
    who_may_not_look(&stage);
    by_keda(&stage);
    by_another_adapter(&stage);
}

fn two_hpas_of_one_workload(stage: &Stage) {
    let second = SetUp::new("front-too", Broken("HPA's conditions", "AmbiguousSelector"));
    let second = SetUp { target: json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "front"}), ..second };
    are_told(stage, &[second]);
    stage.plane.kubectl(&["delete", "hpa", "front-too", "-n", "shop"]).unwrap();
}

/// `kubernetes` in the ConfigMap of the agents.
fn the_agents_configuration(stage: &Stage) {
    let config = |kubernetes: &str| {
        let text = format!("log_level: info\nkubernetes: {kubernetes}\n");
        apply(
            stage,
            &[json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "gopulse", "namespace": "gopulse"},
            "data": {"gopulse.yaml": text}})],
        );
    };
    config("{default: true}");
    look(stage, &[SetUp::new("by-default", Content("by the agents' configuration, kubernetes.default"))]);
    look(stage, &[SetUp::new("refused", Broken("opt-in", "\"false\""))]);
    config("{deny_namespaces: ['sh*']}");
    look(stage, &[SetUp::new("front", Broken("opt-in", "denies its namespace"))]);
    config("{allow_namespaces: [shop]}");
    look(stage, &[SetUp::new("front", Content("by annotation"))]);
}

/// End status and JSON, for programs.
fn who_may_not_look(stage: &Stage) {
    let nobody = stage.plane.kubeconfig_for("nobody", "nobody", &[]).unwrap();
    let (report, status) = doctor(&nobody, &["front"]);
    assert!(status == 2 && report.starts_with("?       HPA:"), "{status} {report}");
    // Who may read a namespace alone is told what can be told from there.
    let subject = json!([{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "tenant"}]);
    let bind = |name: &str| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": format!("tenant-{name}"),
            "namespace": "shop"}, "subjects": subject,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}})
    };
    let metrics = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "custom-metrics"},
        "rules": [{"apiGroups": ["custom.metrics.k8s.io"], "resources": ["*"], "verbs": ["get"]}]});
    apply(stage, &[metrics, bind("view"), bind("custom-metrics")]);
    let tenant = stage.plane.kubeconfig_for("tenant", "tenant", &[]).unwrap();
    stage.until("the tenant has its rights", || {
        let (report, status) = doctor(&tenant, &["front"]);
        (status == 0 && report.contains("-       APIService: you may not read it")).then_some(())
    });
    let (report, status) = doctor(&tenant, &["outside"]);
    assert!(status == 2 && report.contains("?       values: you may not ask"), "{status} {report}");
    let away = stage.directory.join("away.kubeconfig");
    let text = std::fs::read_to_string(stage.plane.kubeconfig()).unwrap();
    std::fs::write(&away, text.replace(stage.plane.server(), "https://127.0.0.1:1")).unwrap();
    assert_eq!(doctor(&away, &["front"]).1, 2);
    for (name, verdict, status) in [("front", "content", 0), ("at-zero", "broken", 1)] {
        let (report, ended) = doctor(stage.plane.kubeconfig(), &[name, "--json"]);
        let report: Value = serde_json::from_str(&report).unwrap_or_else(|error| panic!("{error}: {report}"));
        assert_eq!((report["verdict"].as_str(), ended), (Some(verdict), status), "{report:#}");
        assert_eq!(report["hpa"], format!("shop/{name}"));
        assert!(report["links"].as_array().unwrap().iter().all(|it| it["text"].is_string() && it["state"].is_string()));
    }
}
