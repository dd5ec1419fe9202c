//! The walk itself: what is asked of the cluster, in the order of the chain. It ends at the first link that is broken for all
//! metrics; each metric's own chain ends at its first.

mod apis;
mod metric;

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    DoctorArgs,
    cluster::{Cluster, Trouble, escaped},
    conditions, keda,
    report::{Finding, Look},
    served::Served,
    wanted::{self, Of, Wanted},
    workload::{self, Waker, Workload},
};
use crate::hpa::{known::Known, spec::LabelSelector};

/// The walk is over: what ended it has been noted.
struct Over;

/// A metric with what it is measured at, if that can be told.
struct Subject {
    of: Of,
    pods: Vec<Value>,
}

struct Walk<'a> {
    cluster: &'a Cluster,
    args: &'a DoctorArgs,
    known: Known,
    findings: Vec<Finding>,
    /// Who serves a group; none if that is broken, and told.
    groups: BTreeMap<&'static str, Option<Served>>,
    /// Pods whose opt-in and agents have been looked at, and whether those are whole.
    seen: BTreeMap<Vec<String>, bool>,
}

/// Walks.
pub(super) async fn walk(cluster: &Cluster, args: &DoctorArgs) -> Vec<Finding> {
    let path = format!("/api/v1/namespaces/{}/configmaps/gopulse-metrics-api", args.agents_namespace);
    let table = cluster.get(&path).await.ok().flatten();
    let known = Known::of(table.as_ref().and_then(|it| it["data"]["metrics-api.yaml"].as_str()));
    let mut walk = Walk { cluster, args, known, findings: Vec::new(), groups: BTreeMap::new(), seen: BTreeMap::new() };
    let _ = walk.all().await;
    walk.findings
}

impl Walk<'_> {
    /// Notes what a link came to; over if it is broken or cannot be looked at.
    fn note(&mut self, link: &'static str, look: Look) -> Result<(), Over> {
        let over = matches!(look, Look::Broken(_) | Look::Unknown(_));
        self.findings.push((link, look));
        if over { Err(Over) } else { Ok(()) }
    }

    fn broken<T>(&mut self, link: &'static str, text: String) -> Result<T, Over> {
        self.findings.push((link, Look::Broken(text)));
        Err(Over)
    }

    /// What was read, or the trouble noted.
    fn read<T>(&mut self, link: &'static str, what: &str, result: Result<T, Trouble>) -> Result<T, Over> {
        result.map_err(|Trouble { code, message }| {
            self.findings.push((link, Look::Unknown(format!("{what} cannot be read ({code}): {message}"))));
            Over
        })
    }

    async fn all(&mut self) -> Result<(), Over> {
        const METRICS: &str = "HPA's metrics";
        let hpa = self.hpa().await?;
        let metrics = Wanted::all(&hpa);
        let per_pod = metrics.as_ref().is_ok_and(|all| all.iter().any(|it| it.source.per_pod()));
        let keda = keda::name_of(&hpa);
        let waker = Waker::of(&hpa, keda.is_some());
        let workload = self.workload(&hpa, waker, per_pod).await?;
        let metrics = match metrics {
            Ok(metrics) => metrics,
            Err(error) => return self.broken(METRICS, error),
        };
        let target = (workload.group.clone(), workload.kind.clone(), workload.name.clone());
        let target = (target.0.as_str(), target.1.as_str(), target.2.as_str());
        let mut all = Vec::new();
        for wanted in metrics {
            let of = self.subject(wanted.of_what(target), &workload).await;
            all.push((wanted, of));
        }
        self.metrics(&hpa, &all, waker)?;
        let scaled_object = match &keda {
            Some(name) => self.scaled_object(name, target).await?,
            None => None,
        };
        let mut over = false;
        for (wanted, of) in all {
            over |= self.metric(&hpa, &workload, &wanted, of, scaled_object.as_ref()).await.is_err();
        }
        if over {
            return Err(Over);
        }
        self.note("HPA's conditions", conditions::judge(&hpa, workload.replicas, waker))
    }

    async fn hpa(&mut self) -> Result<Value, Over> {
        const LINK: &str = "HPA";
        let (namespace, name) = (&self.args.namespace, &self.args.name);
        let path = format!("/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers/{name}");
        let found = self.cluster.get(&path).await;
        match self.read(LINK, &format!("{namespace}/{name}"), found)? {
            Some(hpa) => {
                self.note(LINK, Look::Whole(format!("{namespace}/{name}")))?;
                Ok(hpa)
            }
            None => self.broken(
                LINK,
                format!(
                    "there is no HPA {name} in namespace {namespace}: see `kubectl get hpa -A`, and give --namespace"
                ),
            ),
        }
    }

    /// What it scales, as the controller finds it: by group and kind, through the scale subresource and its selector.
    async fn workload(&mut self, hpa: &Value, waker: Waker, per_pod: bool) -> Result<Workload, Over> {
        const LINK: &str = "workload";
        let target = &hpa["spec"]["scaleTargetRef"];
        let text = |key: &str| target[key].as_str().unwrap_or_default().to_owned();
        let (kind, name, api_version) = (text("kind"), text("name"), text("apiVersion"));
        let namespace = self.args.namespace.clone();
        let group = api_version.split_once('/').map_or("", |it| it.0).to_owned();
        // Who may not read it is told by what follows.
        let of_namespace = self.cluster.raw(&format!("/api/v1/namespaces/{namespace}")).await.unwrap_or_default();
        if of_namespace["status"]["phase"] == "Terminating" {
            return self.broken(LINK, format!("namespace {namespace} is being deleted: no pod can be made in it"));
        }
        let found = self.cluster.kind(&group, &kind).await;
        let Some(found) = self.read(LINK, &format!("the kinds of {api_version}"), found)? else {
            let places = self.cluster.versions_with(&kind).await.unwrap_or_default();
            return self.broken(LINK, workload::no_such_kind(&kind, &api_version, &places));
        };
        if !found.scale {
            return self.broken(LINK, format!("kind {kind} has no scale subresource: an HPA cannot scale it"));
        }
        let path = format!("{}/namespaces/{namespace}/{}/{name}", found.root, found.plural);
        let scale = self.cluster.get(&format!("{path}/scale")).await;
        let (replicas, selector) = match scale {
            Ok(Some(scale)) => {
                let selector = scale["status"]["selector"].as_str().unwrap_or_default().to_owned();
                (scale["spec"]["replicas"].as_i64().unwrap_or(0), selector)
            }
            Ok(None) => {
                return self.broken(LINK, format!("there is no {kind} {name} in namespace {namespace}: an HPA scales what is in its own namespace (spec.scaleTargetRef)"));
            }
            // Who may not read the scale may often read the object.
            Err(trouble) => {
                let object = self.cluster.get(&path).await.ok().flatten();
                let object = self.read(LINK, &format!("the scale of {kind} {name}"), object.ok_or(trouble))?;
                let selector = LabelSelector::of(&object["spec"]["selector"]).unwrap_or_default();
                (object["spec"]["replicas"].as_i64().unwrap_or(1), selector.to_string())
            }
        };
        if selector.is_empty() {
            return self.broken(LINK, format!("the scale of {kind} {name} has no selector (status.selector), without which the HPA does not scale it: see its controller's log and the CustomResourceDefinition's labelSelectorPath"));
        }
        let pods = self.pods(&selector).await;
        let pods = self.read(LINK, &format!("the pods of {kind} {name}"), pods)?;
        let running: Vec<Value> = pods.iter().filter(|it| workload::runs(it)).cloned().collect();
        let labels = match running.first() {
            Some(pod) => pod["metadata"]["labels"].clone(),
            None => self.cluster.raw(&path).await.unwrap_or_default()["spec"]["template"]["metadata"]["labels"].clone(),
        };
        let labels = serde_json::from_value(labels).unwrap_or_default();
        let workload = Workload { group, kind, name, replicas, selector, labels, running };
        self.note(LINK, workload::judge(&workload, &namespace, &pods, waker, per_pod))?;
        if let Some(others) = workload::others(&workload) {
            self.note(LINK, Look::Warned(others))?;
        }
        Ok(workload)
    }

    async fn pods(&self, selector: &str) -> Result<Vec<Value>, Trouble> {
        let path = format!("/api/v1/namespaces/{}/pods?labelSelector={}", self.args.namespace, escaped(selector));
        Ok(self.cluster.raw(&path).await?["items"].as_array().cloned().unwrap_or_default())
    }

    /// The pods that a metric is measured at. What cannot be read is left out: it is no link of its own.
    async fn subject(&self, of: Of, workload: &Workload) -> Subject {
        let none = |of: Of| Subject { of, pods: Vec::new() };
        let selector = match &of {
            Of::Own => return Subject { of, pods: workload.running.clone() },
            Of::Unknown => return none(of),
            Of::Pods(selector) if selector.is_within(&workload.labels) => {
                return Subject { of: Of::Own, pods: workload.running.clone() };
            }
            Of::Pods(selector) => selector.to_string(),
            Of::Object(group, kind, name) => {
                let Ok(Some(found)) = self.cluster.kind(group, kind).await else { return none(of) };
                let path = format!("{}/namespaces/{}/{}/{name}", found.root, self.args.namespace, found.plural);
                if kind == "Service" {
                    let service = self.cluster.raw(&path).await.unwrap_or_default();
                    let labels = serde_json::json!({"matchLabels": service["spec"]["selector"]});
                    let selector = LabelSelector::of(&labels).unwrap_or_default();
                    if selector.is_within(&workload.labels) {
                        return Subject { of: Of::Own, pods: workload.running.clone() };
                    }
                    selector.to_string()
                } else if found.scale {
                    let scale = self.cluster.raw(&format!("{path}/scale")).await.unwrap_or_default();
                    scale["status"]["selector"].as_str().unwrap_or_default().to_owned()
                } else {
                    String::new()
                }
            }
        };
        if selector.is_empty() {
            return none(of);
        }
        let pods = self.pods(&selector).await.unwrap_or_default();
        Subject { of, pods: pods.into_iter().filter(workload::runs).collect() }
    }

    /// Whether the metrics make sense.
    fn metrics(&mut self, hpa: &Value, all: &[(Wanted, Subject)], waker: Waker) -> Result<(), Over> {
        const LINK: &str = "HPA's metrics";
        let mut wrong: Vec<String> = all.iter().filter_map(|(it, _)| wanted::wrong(it, &self.known)).collect();
        if waker != Waker::Keda && hpa["spec"]["minReplicas"] == 0 {
            let of: Vec<_> = all.iter().map(|(it, subject)| (it.clone(), subject.of.clone())).collect();
            wrong.extend(wanted::sleeps_for_ever(&of, &self.known));
        }
        if !wrong.is_empty() {
            self.findings.extend(wrong.into_iter().map(|it| (LINK, Look::Broken(it))));
            return Err(Over);
        }
        let names: Vec<String> = all.iter().map(|(it, _)| it.title()).collect();
        let others = all.iter().all(|(it, _)| it.source.is_resource());
        let note = if others { ": of metrics-server, gopulse has no part in it" } else { "" };
        self.note(LINK, Look::Whole(names.join(", ") + note))
    }

    async fn scaled_object(&mut self, name: &str, target: (&str, &str, &str)) -> Result<Option<Value>, Over> {
        const LINK: &str = "ScaledObject";
        let path = format!("/apis/keda.sh/v1alpha1/namespaces/{}/scaledobjects/{name}", self.args.namespace);
        match self.cluster.get(&path).await {
            Ok(Some(object)) => {
                let look = keda::judge(&object, target, &self.known);
                self.note(LINK, look)?;
                Ok(Some(object))
            }
            Ok(None) => {
                self.note(LINK, Look::Passed(format!("there is no ScaledObject {name}, of which the HPA is made")))?;
                Ok(None)
            }
            Err(trouble) => {
                self.note(LINK, Look::Passed(format!("{name} cannot be read: {}", trouble.message)))?;
                Ok(None)
            }
        }
    }
}
