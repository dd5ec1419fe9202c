//! What the HPA scales: its kind, its replicas, and the pods that the scale's selector chooses. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use super::report::Look;

/// What is scaled.
#[derive(Clone, Debug, Default)]
pub(super) struct Workload {
    /// Group, kind and name, as the HPA has them.
    pub(super) group: String,
    pub(super) kind: String,
    pub(super) name: String,
    /// `spec.replicas` of the scale.
    pub(super) replicas: i64,
    /// `status.selector` of the scale.
    pub(super) selector: String,
    /// Labels of its pods.
    pub(super) labels: BTreeMap<String, String>,
    /// Pods that run and are not about to go.
    pub(super) running: Vec<Value>,
}

/// Who may bring it from 0 replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waker {
    /// Nobody: an HPA with `minReplicas` of 1 or more takes 0 for "switched off".
    Nobody,
    /// KEDA, whose HPAs have `minReplicas` 1 also where a `ScaledObject` goes to 0.
    Keda,
    /// The HPA itself, by `minReplicas` 0.
    Hpa,
    /// The HPA, had it brought it to 0 itself (Kubernetes 1.37 and later, condition `ScaledToZero`).
    NotByHand,
}

impl Waker {
    /// Of an HPA.
    pub(super) fn of(hpa: &Value, keda: bool) -> Self {
        let not_by_itself = hpa["status"]["conditions"]
            .as_array()
            .is_some_and(|all| all.iter().any(|it| it["type"] == "ScaledToZero" && it["status"] == "False"));
        match (keda, hpa["spec"]["minReplicas"] == 0) {
            (true, _) => Self::Keda,
            (false, false) => Self::Nobody,
            (false, true) if not_by_itself => Self::NotByHand,
            (false, true) => Self::Hpa,
        }
    }
}

/// What to write instead of a kind that is not there: `places` are the API versions that have one of the name.
pub(super) fn no_such_kind(kind: &str, api_version: &str, places: &[String]) -> String {
    let group = api_version.split_once('/').map_or("", |it| it.0);
    let shown = if group.is_empty() { "v1" } else { api_version };
    let upper: String = kind.chars().take(1).flat_map(char::to_uppercase).chain(kind.chars().skip(1)).collect();
    let advice = if let Some(place) = places.first() {
        format!("write apiVersion: {place} in spec.scaleTargetRef")
    } else if upper == kind {
        "is its CustomResourceDefinition installed?".to_owned()
    } else {
        format!("kinds are written as {upper}")
    };
    format!("there is no kind {kind} in {shown}: {advice}")
}

/// Whether a pod runs and stays.
pub(super) fn runs(pod: &Value) -> bool {
    pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null()
}

/// Names of the first few pods.
fn some(pods: &[&Value]) -> String {
    let names: Vec<&str> = pods.iter().take(3).filter_map(|it| it["metadata"]["name"].as_str()).collect();
    format!("{}{}", names.join(", "), if pods.len() > 3 { ", ..." } else { "" })
}

/// Judges the pods that the selector chooses; whether the HPA asks for values of each pod.
pub(super) fn judge(workload: &Workload, namespace: &str, pods: &[Value], waker: Waker, per_pod: bool) -> Look {
    let Workload { kind, name, replicas, selector, running, .. } = workload;
    if *replicas == 0 {
        return match waker {
            Waker::Nobody => Look::Broken(format!(
                "{kind} {name} has 0 replicas: an HPA does nothing until somebody scales it up (`kubectl scale --replicas=1`)"
            )),
            Waker::NotByHand => Look::Broken(format!(
                "{kind} {name} has 0 replicas, and its HPA's condition ScaledToZero says that somebody else scaled it there: it \
                 wakes only what it has scaled to 0 itself; scale it up by hand (`kubectl scale --replicas=1`)"
            )),
            Waker::Keda => Look::Whole(format!("{kind} {name}, 0 replicas: KEDA wakes it")),
            Waker::Hpa => Look::Whole(format!("{kind} {name}, 0 replicas: minReplicas is 0, so that the HPA wakes it")),
        };
    }
    if running.is_empty() {
        return Look::Broken(format!(
            "{kind} {name} has no running pods: see `kubectl describe pods -n {namespace} -l {selector}`"
        ));
    }
    let done: Vec<&Value> = pods.iter().filter(|it| it["status"]["phase"] == "Succeeded").collect();
    if per_pod && !done.is_empty() {
        return Look::Broken(format!(
            "{} Succeeded pods have the labels of {kind} {name} ({selector}), as {}: the HPA takes them for pods without a value \
             (kubernetes#141298) and does not scale down; delete them, and give such pods other labels",
            done.len(),
            some(&done)
        ));
    }
    Look::Whole(format!("{kind} {name}, {} running pods", running.len()))
}

/// What is to be said of pods that the selector takes and that are another's. The controller goes by labels alone; only of these
/// kinds it is known how their pods' owners are called.
pub(super) fn others(workload: &Workload) -> Option<String> {
    let Workload { group, kind, name, selector, running, .. } = workload;
    let owned = |pod: &&Value| {
        let owners = pod["metadata"]["ownerReferences"].as_array();
        let controller = owners.and_then(|all| all.iter().find(|it| it["controller"] == true));
        let Some(controller) = controller else { return false };
        let (of, its_name) = (controller["kind"].as_str(), controller["name"].as_str().unwrap_or_default());
        if kind == "Deployment" {
            let hash = its_name.strip_prefix(name.as_str()).and_then(|it| it.strip_prefix('-'));
            of == Some("ReplicaSet") && hash.is_some_and(|it| !it.contains('-'))
        } else {
            of == Some(kind.as_str()) && its_name == name
        }
    };
    let known = group == "apps" && matches!(kind.as_str(), "Deployment" | "StatefulSet" | "ReplicaSet");
    let others: Vec<&Value> = running.iter().filter(|it| known && !owned(it)).collect();
    (!others.is_empty()).then(|| {
        format!(
            "{} of these pods are not of {kind} {name}, as {}: the HPA counts all that its selector ({selector}) takes; give each \
             workload labels of its own",
            others.len(),
            some(&others)
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pods(phases: &[&str]) -> Vec<Value> {
        let pod = |(index, phase): (usize, &&str)| json!({"metadata": {"name": format!("p{index}")}, "status": {"phase": phase}});
        phases.iter().enumerate().map(pod).collect()
    }

    fn look(replicas: i64, phases: &[&str], waker: Waker, per_pod: bool) -> Look {
        let pods = pods(phases);
        let running = pods.iter().filter(|it| runs(it)).cloned().collect();
        let workload =
            Workload { kind: "Deployment".into(), name: "shop".into(), replicas, running, ..Workload::default() };
        judge(&workload, "shop", &pods, waker, per_pod)
    }

    #[test]
    fn none_to_scale_is_broken_only_where_nobody_wakes_it() {
        let broken = |look: Look, words: &str| matches!(look, Look::Broken(text) if text.contains(words));
        assert!(broken(look(0, &[], Waker::Nobody, true), "has 0 replicas"));
        assert!(broken(look(0, &[], Waker::NotByHand, true), "ScaledToZero"));
        assert!(matches!(look(0, &[], Waker::Keda, true), Look::Whole(_)));
        assert!(matches!(look(0, &[], Waker::Hpa, true), Look::Whole(_)));
        assert!(broken(look(2, &["Pending", "Pending"], Waker::Nobody, true), "has no running pods"));
        let hpa = |min: i64, to_zero: &str| json!({"spec": {"minReplicas": min}, "status": {"conditions": [{"type": "ScaledToZero", "status": to_zero}]}});
        assert_eq!(Waker::of(&hpa(0, "True"), false), Waker::Hpa);
        assert_eq!(Waker::of(&hpa(0, "False"), false), Waker::NotByHand);
        assert_eq!(Waker::of(&hpa(1, "False"), false), Waker::Nobody);
        assert_eq!(Waker::of(&json!({"spec": {"minReplicas": 0}}), false), Waker::Hpa);
    }

    #[test]
    fn succeeded_pods_pin_an_hpa_that_asks_for_each_pods_value() {
        let phases = ["Running", "Succeeded", "Succeeded", "Failed"];
        assert!(
            matches!(look(1, &phases, Waker::Nobody, true), Look::Broken(text) if text.contains("2 Succeeded pods") && text.contains("p1, p2"))
        );
        assert_eq!(look(1, &phases, Waker::Nobody, false), Look::Whole("Deployment shop, 1 running pods".into()));
        assert_eq!(
            look(1, &["Running", "Failed"], Waker::Nobody, true),
            Look::Whole("Deployment shop, 1 running pods".into())
        );
    }

    #[test]
    fn pods_of_others_that_the_selector_takes_are_named() {
        let pod = |name: &str, of: Option<(&str, &str)>| {
            let owners = of.map(|(kind, name)| json!([{"kind": kind, "name": name, "controller": true}]));
            json!({"metadata": {"name": name, "ownerReferences": owners}})
        };
        let told = |group: &str, kind: &str, running: Vec<Value>| {
            let (group, kind, name) = (group.to_owned(), kind.to_owned(), "shop".to_owned());
            others(&Workload { group, kind, name, selector: "app=shop".into(), running, ..Workload::default() })
        };
        let own = || pod("shop-5f-a", Some(("ReplicaSet", "shop-5f")));
        let of_another = || pod("shop-canary-5f-a", Some(("ReplicaSet", "shop-canary-5f")));
        assert_eq!(told("apps", "Deployment", vec![own()]), None);
        let said = told("apps", "Deployment", vec![own(), of_another(), pod("by-hand", None)]).unwrap();
        assert!(said.starts_with("2 of these pods") && said.contains("as shop-canary-5f-a, by-hand: "), "{said}");
        assert_eq!(told("apps", "StatefulSet", vec![pod("shop-0", Some(("StatefulSet", "shop")))]), None);
        assert_eq!(told("argoproj.io", "Rollout", vec![of_another()]), None, "whose they are is not known");
    }

    #[test]
    fn a_kind_that_is_not_there_is_told_with_what_to_write() {
        let apps = ["apps/v1".to_owned()];
        assert_eq!(
            no_such_kind("Deployment", "extensions/v1beta1", &apps),
            "there is no kind Deployment in extensions/v1beta1: write apiVersion: apps/v1 in spec.scaleTargetRef"
        );
        assert!(no_such_kind("Deployment", "", &apps).contains("no kind Deployment in v1"));
        assert!(no_such_kind("deployment", "apps/v1", &[]).contains("kinds are written as Deployment"));
        assert!(no_such_kind("Rollout", "argoproj.io/v1alpha1", &[]).contains("CustomResourceDefinition"));
    }
}
