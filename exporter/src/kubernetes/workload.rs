//! The workload that a pod belongs to: its controller, or the controller's controller where the names tell. No right to read
//! ReplicaSets or Jobs is needed for it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// Label of a Deployment's pods; their ReplicaSet is called `DEPLOYMENT-HASH` with the same hash (kubernetes,
/// pkg/controller/deployment/sync.go).
const POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// The same of an Argo Rollout's pods (argo-rollouts, pkg/apis/rollouts/v1alpha1/types.go, `DefaultRolloutUniqueLabelKey`).
const ROLLOUTS_POD_TEMPLATE_HASH: &str = "rollouts-pod-template-hash";
/// A CronJob's Job is called `CRONJOB-MINUTES`, the minutes since 1970 of its scheduled time (kubernetes,
/// pkg/controller/cronjob/utils.go, `getJobName`). A Job may be late by its starting deadline; nobody sets more than this.
const LATEST_START_MINUTES: i64 = 366 * 24 * 60;

/// What runs a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    /// `Deployment`, `StatefulSet`, `DaemonSet`, `CronJob`, `Job`, `ReplicaSet`, `Rollout`, or whatever owns it.
    pub(crate) kind: String,
    /// Its name.
    pub(crate) name: String,
}

impl Workload {
    /// The workload of a pod; none of a pod that nothing controls.
    pub(super) fn of(pod: &ObjectMeta) -> Option<Self> {
        let owners = pod.owner_references.as_deref().unwrap_or_default();
        let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
        let (kind, name) = above(owner, pod).unwrap_or((owner.kind.as_str(), owner.name.as_str()));
        Some(Self { kind: kind.to_owned(), name: name.to_owned() })
    }
}

/// What controls the controller.
fn above<'o>(owner: &'o OwnerReference, pod: &ObjectMeta) -> Option<(&'static str, &'o str)> {
    match owner.kind.as_str() {
        "ReplicaSet" => {
            let hash = |label| pod.labels.as_ref().and_then(|labels| labels.get(label));
            let name = |hash: &String| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-');
            // A Rollout's pods carry the first label too where a Deployment was taken over.
            if let Some(name) = hash(ROLLOUTS_POD_TEMPLATE_HASH).and_then(name) {
                return Some(("Rollout", name));
            }
            hash(POD_TEMPLATE_HASH).and_then(name).map(|name| ("Deployment", name))
        }
        "Job" => {
            let (name, minutes) = owner.name.rsplit_once('-')?;
            let created = pod.creation_timestamp.as_ref()?.0.as_second() / 60;
            let minutes: i64 = minutes.parse().ok()?;
            (created - LATEST_START_MINUTES..=created + 1).contains(&minutes).then_some(("CronJob", name))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(owner: &str, labels: &[(&str, &str)]) -> ObjectMeta {
        let (kind, name) = owner.split_once('/').unwrap();
        let labels: serde_json::Map<String, serde_json::Value> =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        serde_json::from_value(serde_json::json!({
            "name": "p", "creationTimestamp": "2026-11-23T17:00:00Z", "labels": labels,
            "ownerReferences": [{"apiVersion": "v1", "kind": kind, "name": name, "uid": "u", "controller": true}],
        }))
        .unwrap()
    }

    #[test]
    fn the_owner_is_resolved_by_names() {
        let deployment = [("pod-template-hash", "6658cb9566")];
        let rollout = [("rollouts-pod-template-hash", "6658cb9566")];
        // 2026-11-23T17:00:00Z is minute 29924220 since 1970.
        for (owner, labels, workload) in [
            ("ReplicaSet/shop-6658cb9566", &deployment[..], "Deployment/shop"),
            ("ReplicaSet/shop-v2-6658cb9566", &deployment[..], "Deployment/shop-v2"),
            ("ReplicaSet/shop-6658cb9566", &rollout[..], "Rollout/shop"),
            ("ReplicaSet/shop-6658cb9566", &[], "ReplicaSet/shop-6658cb9566"),
            ("ReplicaSet/by-hand", &deployment[..], "ReplicaSet/by-hand"),
            ("ReplicaSet/6658cb9566", &deployment[..], "ReplicaSet/6658cb9566"),
            ("StatefulSet/db", &[], "StatefulSet/db"),
            ("DaemonSet/node-agent", &[], "DaemonSet/node-agent"),
            ("Job/report-29924220", &[], "CronJob/report"),
            ("Job/report-29924100", &[], "CronJob/report"),
            ("Job/report-29999999", &[], "Job/report-29999999"),
            ("Job/import-2026", &[], "Job/import-2026"),
            ("Job/import", &[], "Job/import"),
            ("Kueue/queue", &[], "Kueue/queue"),
        ] {
            let found = Workload::of(&pod(owner, labels)).unwrap();
            assert_eq!(format!("{}/{}", found.kind, found.name), workload, "{owner}");
        }
        assert_eq!(Workload::of(&ObjectMeta::default()), None);
    }
}
