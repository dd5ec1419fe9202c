//! The cluster that the metrics-api is asked about: pods and Deployments as the API server stores them, and what the HPA controller
//! asks for each of its HPAs. Pure.

use serde_json::{Value, json};

/// How many of what there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fleet {
    pub(super) agents: usize,
    /// Of each agent.
    pub(super) pods: usize,
    /// Workloads, each with an HPA; its pods are at different agents.
    pub(super) hpas: usize,
    pub(super) namespaces: usize,
}

/// What an HPA's metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    Pods,
    PodsByRoute,
    Object,
    External,
}

impl Fleet {
    /// Pods of a workload, at least.
    pub(super) fn pods_of_each(&self) -> usize {
        self.agents * self.pods / self.hpas
    }

    /// The objects with their keys in the store. Pods are named as rehearsed agents name them.
    pub(super) fn objects(self) -> impl Iterator<Item = (String, Value)> {
        let pods = (0..self.agents * self.pods).map(move |number| self.pod(number));
        pods.chain((0..self.hpas).map(move |workload| self.deployment(workload)))
    }

    fn pod(self, number: usize) -> (String, Value) {
        let (namespace, app) = (self.namespace(number), format!("app-{}", number % self.hpas));
        let name = format!("pod-{}-{}", number / self.pods, number % self.pods);
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "namespace": namespace, "uid": format!("pod-{number}"), "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"app": app, "pod-template-hash": "6658cb9566", "app.kubernetes.io/part-of": "fleet"},
                "annotations": {"gopulse.io/enabled": "true"},
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{app}-6658cb9566"), "uid": app,
                    "controller": true,
                }],
            },
            "spec": {"containers": [{"name": "app", "image": "example.com/app"}]},
            "status": {"phase": "Running"},
        });
        (format!("pods/{namespace}/{name}"), object)
    }

    fn deployment(self, workload: usize) -> (String, Value) {
        let (namespace, name) = (self.namespace(workload), format!("app-{workload}"));
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {
                "name": name, "namespace": namespace, "uid": format!("deployment-{workload}"),
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {
                "replicas": self.pods_of_each(), "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {"containers": [{"name": "app", "image": "example.com/app"}]},
                },
            },
        });
        (format!("deployments/{namespace}/{name}"), object)
    }

    /// Of a pod or of a workload: there are as many workloads in each namespace.
    fn namespace(self, number: usize) -> String {
        format!("ns-{}", number % self.namespaces)
    }

    /// What the controller asks for an HPA: of its pods, of its Deployment, or of an External metric.
    pub(super) fn path(self, hpa: usize) -> String {
        const CUSTOM: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces";
        let (namespace, app) = (self.namespace(hpa), format!("app-{hpa}"));
        match Asks::of(hpa / self.namespaces) {
            Asks::Pods => {
                format!("{CUSTOM}/{namespace}/pods/*/http_server_requests_per_second?labelSelector=app%3D{app}")
            }
            Asks::PodsByRoute => format!(
                "{CUSTOM}/{namespace}/pods/*/http_server_request_duration_p99_milliseconds?labelSelector=app%3D{app}\
                 &metricLabelSelector=http_route%3Dx..route-1._7bid_7d"
            ),
            Asks::Object => format!("{CUSTOM}/{namespace}/deployments.apps/{app}/http_server_requests_per_second"),
            Asks::External => format!(
                "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/http_server_request_duration_p95_milliseconds\
                 ?labelSelector=deployment%3D{app}"
            ),
        }
    }

    /// The load generator's lines: every HPA once.
    pub(super) fn mix(self) -> String {
        let line = |hpa: usize| {
            let kind = Asks::of(hpa / self.namespaces).name();
            format!("GET {} 200 {kind} 1", self.path(hpa))
        };
        (0..self.hpas).map(line).collect::<Vec<_>>().join("\n")
    }
}

impl Asks {
    /// Half the HPAs have metrics of type Pods.
    fn of(number: usize) -> Self {
        [Self::Pods, Self::Object, Self::PodsByRoute, Self::External][number % 4]
    }

    fn name(self) -> &'static str {
        match self {
            Self::Pods => "Pods",
            Self::PodsByRoute => "Pods-with-metric-selector",
            Self::Object => "Object",
            Self::External => "External",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workloads_pods_are_in_its_namespace_at_different_agents() {
        let fleet = Fleet { agents: 10, pods: 20, hpas: 40, namespaces: 4 };
        let objects: Vec<(String, Value)> = fleet.objects().collect();
        let of_app = |app: &str| -> Vec<&str> {
            let pods = objects.iter().filter(|(_, it)| it["metadata"]["labels"]["app"] == app);
            pods.map(|(key, _)| key.as_str()).collect()
        };
        assert_eq!(
            of_app("app-6"),
            ["pods/ns-2/pod-0-6", "pods/ns-2/pod-2-6", "pods/ns-2/pod-4-6", "pods/ns-2/pod-6-6", "pods/ns-2/pod-8-6"]
        );
        assert_eq!(of_app("app-6").len(), fleet.pods_of_each());
        assert!(objects.iter().any(|(key, _)| key == "deployments/ns-2/app-6"));
        assert!(fleet.path(6).contains("namespaces/ns-2/deployments.apps/app-6/"), "{}", fleet.path(6));
        assert_eq!(fleet.mix().lines().count(), 40);
    }
}
