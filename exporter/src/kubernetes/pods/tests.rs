use serde_json::json;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;
use crate::kubernetes::PolicySettings;
use crate::kubernetes::object;

const CHECKS: Checks = Checks { features: |_| Ok(()), budget: |_| Ok(()) };

fn id(n: u32) -> ContainerId {
    ContainerId::parse(&format!("{n:064x}")).unwrap()
}

fn pods(settings: &PolicySettings) -> Pods {
    let pods = Pods::new(settings, CHECKS).unwrap();
    pods.listed(&HashSet::new());
    pods.namespaces_listed(&HashSet::new());
    pods
}

fn pod(name: &str, annotations: &[(&str, &str)], ids: &[(&str, u32)]) -> object::Pod {
    let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
    let containers: Vec<_> = ids.iter().map(|(name, _)| json!({"name": name, "image": "shop:1"})).collect();
    let statuses: Vec<_> = ids
        .iter()
        .map(|(name, n)| json!({"name": name, "containerID": format!("containerd://{}", id(*n)), "state": {}}))
        .collect();
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "annotations": annotations,
                     "labels": {"app.kubernetes.io/name": "shop", "other": "x"}},
        "spec": {"containers": containers, "nodeName": "n"},
        "status": {"phase": "Running", "containerStatuses": statuses},
    }))
    .unwrap()
}

fn container(found: &Found) -> &str {
    match found {
        Found::Wanted(placement) => &placement.container,
        other => panic!("{other:?}"),
    }
}

const ON: (&str, &str) = ("gopulse.io/enabled", "true");

#[test]
fn a_pod_opts_in_and_out_and_goes() {
    let pods = pods(&PolicySettings::default());
    assert_eq!(pods.find(&[id(1)]), Found::Unknown);
    assert_eq!(pods.apply(&pod("a", &[], &[("app", 1)])).changed, [id(1)]);
    assert!(matches!(pods.find(&[id(1)]), Found::Refused(_)));
    assert_eq!(pods.apply(&pod("a", &[ON], &[("app", 1)])).changed, [id(1)]);
    assert_eq!(container(&pods.find(&[id(1)])), "app");
    // Nothing that matters changes.
    assert!(pods.apply(&pod("a", &[ON], &[("app", 1)])).changed.is_empty());
    assert_eq!(pods.delete("uid-a").changed, [id(1)]);
    assert_eq!(pods.find(&[id(1)]), Found::Unknown);
    assert!(pods.lock().containers.is_empty());
}

#[test]
fn the_innermost_known_container_counts() {
    let pods = pods(&PolicySettings::default());
    pods.apply(&pod("a", &[ON], &[("app", 1)]));
    // A container run in the pod's container, and a node that is a container itself.
    assert_eq!(container(&pods.find(&[id(9), id(1)])), "app");
    assert_eq!(container(&pods.find(&[id(1), id(9)])), "app");
}

#[test]
fn containers_can_be_named() {
    let pods = pods(&PolicySettings::default());
    pods.apply(&pod("a", &[ON, ("gopulse.io/containers", "app")], &[("app", 1), ("proxy", 2)]));
    assert_eq!(container(&pods.find(&[id(1)])), "app");
    assert!(matches!(pods.find(&[id(2)]), Found::Refused(_)));
    // A name that is wrong is told, and all are measured: the default stands.
    let effect = pods.apply(&pod("a", &[ON, ("gopulse.io/containers", "apps")], &[("app", 1), ("proxy", 2)]));
    assert_eq!(effect.changed, [id(2)]);
    assert_eq!(effect.told.unwrap().len(), 1);
    assert_eq!(pods.problems().len(), 1);
    // Told once.
    assert!(
        pods.apply(&pod("a", &[ON, ("gopulse.io/containers", "apps")], &[("app", 1), ("proxy", 2)])).told.is_none()
    );
}

#[test]
fn a_restarted_container_is_known_by_both_ids() {
    let pods = pods(&PolicySettings::default());
    let mut restarted = pod("a", &[ON], &[("app", 2)]);
    restarted.status.containers[0].last_state.terminated =
        Some(object::Terminated { container_id: Some(format!("containerd://{}", id(1))) });
    pods.apply(&pod("a", &[ON], &[("app", 1)]));
    assert_eq!(pods.apply(&restarted).changed, [id(2)]);
    assert_eq!(container(&pods.find(&[id(1)])), "app");
    assert_eq!(container(&pods.find(&[id(2)])), "app");
}

#[test]
fn a_namespace_gives_a_default_that_a_pod_can_refuse() {
    let pods = pods(&PolicySettings::default());
    pods.apply(&pod("a", &[], &[("app", 1)]));
    pods.apply(&pod("b", &[("gopulse.io/enabled", "false")], &[("app", 2)]));
    let metadata = |value: &str| ObjectMeta {
        annotations: Some([("gopulse.io/enabled".to_owned(), value.to_owned())].into()),
        ..ObjectMeta::default()
    };
    assert_eq!(pods.namespace("shop", Some(&metadata("true"))).changed, [id(1)]);
    assert_eq!(pods.namespace("shop", Some(&metadata("yes"))).told.unwrap().len(), 1);
    assert!(matches!(pods.find(&[id(1)]), Found::Refused(_)));
    pods.namespace("shop", Some(&metadata("true")));
    assert_eq!(pods.namespaces_listed(&HashSet::new()).changed, [id(1)]);
    assert!(pods.lock().namespaces.is_empty());
}

#[test]
fn nothing_is_decided_before_pods_and_namespaces_are_known() {
    let pods = Pods::new(&PolicySettings { default: true, ..PolicySettings::default() }, CHECKS).unwrap();
    pods.apply(&pod("a", &[ON], &[("app", 1)]));
    assert_eq!(pods.find(&[id(1)]), Found::Unknown);
    pods.listed(&["uid-a".to_owned()].into());
    assert_eq!(pods.find(&[id(1)]), Found::Unknown);
    assert!(pods.not_ready().unwrap().contains("namespaces"));
    assert_eq!(pods.namespaces_listed(&HashSet::new()).changed, [id(1)]);
    assert_eq!(container(&pods.find(&[id(1)])), "app");
    assert_eq!(pods.not_ready(), None);
}

#[test]
fn chosen_labels_have_the_names_that_kube_state_metrics_gives_them() {
    let pods = pods(&PolicySettings {
        pod_labels: vec!["app.kubernetes.io/name".into(), "absent".into()],
        ..PolicySettings::default()
    });
    pods.apply(&pod("a", &[ON], &[("app", 1)]));
    let Found::Wanted(placement) = pods.find(&[id(1)]) else { panic!() };
    assert_eq!(*placement.labels, [("label_app_kubernetes_io_name", "shop".to_owned())]);
}

#[test]
fn two_chosen_labels_of_one_name_are_refused() {
    let labels =
        |labels: [&str; 2]| PolicySettings { pod_labels: labels.map(Into::into).into(), ..PolicySettings::default() };
    let refusal = Pods::new(&labels(["app.kubernetes.io/name", "app-kubernetes-io/name"]), CHECKS).err();
    assert_eq!(
        refusal.as_deref(),
        Some(
            "pod_labels: app.kubernetes.io/name and app-kubernetes-io/name would both be shown as \
             label_app_kubernetes_io_name"
        )
    );
    assert!(Pods::new(&labels(["app", "app2"]), CHECKS).is_ok());
}

#[test]
fn a_new_list_ends_what_is_not_in_it() {
    let pods = pods(&PolicySettings::default());
    pods.apply(&pod("a", &[ON], &[("app", 1)]));
    pods.apply(&pod("b", &[ON], &[("app", 2)]));
    assert_eq!(pods.listed(&["uid-b".to_owned()].into()).changed, [id(1)]);
    assert_eq!(pods.figures().pods, 1);
}
