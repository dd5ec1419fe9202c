//! Whose a pod is, as labels that no pod can have itself, so that a selector chooses by them: the selectors of two workloads may
//! overlap, and then labels alone count one's pods with the other's. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::selector::{Requirement, Test};

/// `ReplicaSet/shop-5f6d`; empty without a controller. No label's name begins with a slash.
const CONTROLLER: &str = "/controller";
/// The workload above a ReplicaSet: `Deployment/shop`. Else as the controller; empty where it is not known.
const WORKLOAD: &str = "/workload";

/// The longest name (apimachinery, pkg/util/validation: `DNS1123SubdomainMaxLength`).
const MOST: usize = 253;

/// Adds whose a pod with these labels is.
pub(crate) fn label(labels: &mut BTreeMap<String, String>, owners: &[OwnerReference]) {
    let controller = owners.iter().find(|it| it.controller == Some(true));
    let shown = |kind: &str, name: &str| format!("{kind}/{name}");
    let workload = controller.and_then(|it| {
        if it.kind != "ReplicaSet" {
            return Some(shown(&it.kind, &it.name));
        }
        // A Deployment's ReplicaSet is named after it and the template's hash, cut to fit (k8s.io/kubernetes, pkg/controller/
        // deployment/sync.go), as is that of a Rollout of Argo (rollout/sync.go).
        if it.name.len() >= MOST {
            return None;
        }
        let above = |kind: &str, label: &str| {
            Some(shown(kind, it.name.strip_suffix(labels.get(label)?.as_str())?.strip_suffix('-')?))
        };
        above("Rollout", "rollouts-pod-template-hash").or_else(|| above("Deployment", "pod-template-hash"))
    });
    let controller = controller.map(|it| shown(&it.kind, &it.name));
    labels.insert(CONTROLLER.to_owned(), controller.unwrap_or_default());
    labels.insert(WORKLOAD.to_owned(), workload.unwrap_or_default());
}

/// That a pod is this workload's, or nothing is known of whose it is.
pub(crate) fn is_of(kind: &str, name: &str) -> Option<Requirement> {
    let key = match kind {
        "Deployment" | "Rollout" => WORKLOAD,
        "ReplicaSet" | "StatefulSet" | "DaemonSet" | "ReplicationController" => CONTROLLER,
        // Others may own their pods by way of anything.
        _ => return None,
    };
    Some(Requirement { key: key.to_owned(), test: Test::In(vec![format!("{kind}/{name}"), String::new()]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a pod with this controller and template hash is of a workload.
    fn is(controller: Option<(&str, &str)>, hash: Option<(&str, &str)>, kind: &str, name: &str) -> bool {
        let owner = |(kind, name): (&str, &str)| OwnerReference {
            kind: kind.into(),
            name: name.into(),
            controller: Some(true),
            ..OwnerReference::default()
        };
        let owners: Vec<_> = controller.map(owner).into_iter().collect();
        let mut labels = hash.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect();
        label(&mut labels, &owners);
        let requirement = is_of(kind, name).unwrap();
        crate::hpa::api::selector::Selector(vec![requirement]).matches(|key| labels.get(key).map(String::as_str))
    }

    #[test]
    fn a_pod_is_its_controllers_and_that_of_a_replica_set_the_workloads_above() {
        let hash = Some(("pod-template-hash", "5f6d"));
        let of_deployment = Some(("ReplicaSet", "shop-v2-5f6d"));
        assert!(is(of_deployment, hash, "Deployment", "shop-v2"));
        assert!(!is(of_deployment, hash, "Deployment", "shop") && !is(of_deployment, hash, "Rollout", "shop-v2"));
        assert!(
            is(of_deployment, hash, "ReplicaSet", "shop-v2-5f6d") && !is(of_deployment, hash, "StatefulSet", "shop-v2")
        );
        let rollout = Some(("rollouts-pod-template-hash", "77"));
        assert!(is(Some(("ReplicaSet", "shop-77")), rollout, "Rollout", "shop"));
        assert!(!is(Some(("ReplicaSet", "shop-77")), rollout, "Deployment", "shop"));
        assert!(is(Some(("StatefulSet", "db")), None, "StatefulSet", "db"));
        assert!(!is(Some(("StatefulSet", "db")), None, "Deployment", "db"));
    }

    #[test]
    fn what_nobody_says_a_pod_is_it_may_be() {
        assert!(is(None, None, "Deployment", "shop") && is(None, None, "StatefulSet", "db"));
        assert!(is(Some(("ReplicaSet", "by-hand")), None, "Deployment", "shop"));
        assert_eq!(is_of("CloneSet", "shop"), None);
        // The name of the Deployment was cut.
        let cut = format!("{}-5f6d", "d".repeat(248));
        let hash = Some(("pod-template-hash", "5f6d"));
        assert!(is(Some(("ReplicaSet", &cut)), hash, "Deployment", &"d".repeat(253)));
    }
}
