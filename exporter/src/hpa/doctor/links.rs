//! The links of the chain, in the order of a walk. The walk ends at the first that is broken: what lies behind it cannot be
//! judged.

mod apis;

use serde_json::Value;

use super::{DoctorArgs, Look, cluster::Cluster};

const CUSTOM: &str = "custom.metrics.k8s.io";
const EXTERNAL: &str = "external.metrics.k8s.io";

type Links = Vec<(&'static str, Look)>;

/// What was found so far.
struct Walk<'a> {
    cluster: &'a Cluster,
    args: &'a DoctorArgs,
    links: Links,
}

/// A metric of the HPA.
struct Wanted {
    kind: String,
    name: String,
    selector: String,
    object: Value,
}

/// Walks.
pub(super) async fn walk(cluster: &Cluster, args: &DoctorArgs) -> Links {
    let mut walk = Walk { cluster, args, links: Vec::new() };
    // What ends it early has been noted as broken.
    let _ = walk.all().await;
    walk.links
}

/// The walk is over.
struct Over;

impl Walk<'_> {
    fn whole(&mut self, link: &'static str, text: impl Into<String>) {
        self.links.push((link, Look::Whole(text.into())));
    }

    fn passed(&mut self, link: &'static str, text: impl Into<String>) {
        self.links.push((link, Look::Passed(text.into())));
    }

    fn broken<T>(&mut self, link: &'static str, text: impl Into<String>) -> Result<T, Over> {
        self.links.push((link, Look::Broken(text.into())));
        Err(Over)
    }

    fn read<T>(&mut self, link: &'static str, result: Result<T, String>) -> Result<T, Over> {
        result.or_else(|error| self.broken(link, error))
    }

    async fn all(&mut self) -> Result<(), Over> {
        let hpa = self.hpa().await?;
        let pods = self.pods(&hpa).await?;
        let metrics = self.metrics(&hpa)?;
        self.opted_in(&pods).await?;
        self.agents(&pods).await?;
        for wanted in metrics {
            let group = if wanted.kind == "External" { EXTERNAL } else { CUSTOM };
            let short = self.api_service(group).await?;
            if !short {
                self.pod_monitor().await?;
                self.prometheus(&pods).await?;
            }
            self.discovery(group, &wanted, short).await?;
            self.values(group, &wanted, &pods).await?;
            self.rights(group).await?;
        }
        self.conditions(&hpa)
    }

    async fn hpa(&mut self) -> Result<Value, Over> {
        const LINK: &str = "HPA";
        let (namespace, name) = (&self.args.namespace, &self.args.name);
        let found = self.cluster.get(("autoscaling", "v2", "HorizontalPodAutoscaler"), Some(namespace), name).await;
        match self.read(LINK, found)? {
            Some(hpa) => {
                self.whole(LINK, format!("{namespace}/{name}"));
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

    /// The pods that it scales.
    async fn pods(&mut self, hpa: &Value) -> Result<Vec<Value>, Over> {
        const LINK: &str = "workload";
        let target = &hpa["spec"]["scaleTargetRef"];
        let text = |key: &str| target[key].as_str().unwrap_or_default().to_owned();
        let (kind, name, api_version) = (text("kind"), text("name"), text("apiVersion"));
        let namespace = self.args.namespace.clone();
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let found = self.cluster.get((group, version, &kind), Some(&namespace), &name).await;
        let Some(object) = self.read(LINK, found)? else {
            return self.broken(LINK, format!("there is no {kind} {name} in namespace {namespace}: an HPA scales what is in its own namespace (spec.scaleTargetRef)"));
        };
        let labels =
            object.pointer("/spec/selector/matchLabels").and_then(Value::as_object).cloned().unwrap_or_default();
        let selector: Vec<String> =
            labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
        let path = format!(
            "/api/v1/namespaces/{namespace}/pods?labelSelector={}",
            selector.join(",").replace('=', "%3D").replace(',', "%2C")
        );
        let list =
            self.cluster.raw(&path).await.map_err(|(_, message)| format!("its pods cannot be listed: {message}"));
        let list = self.read(LINK, list)?;
        let pods = list["items"].as_array().cloned().unwrap_or_default();
        if object["spec"]["replicas"] == 0 {
            return self.broken(LINK, format!("{kind} {name} has 0 replicas: an HPA does nothing until somebody scales it up (`kubectl scale --replicas=1`)"));
        }
        let running: Vec<Value> = pods
            .into_iter()
            .filter(|it| it["status"]["phase"] == "Running" && it["metadata"]["deletionTimestamp"].is_null())
            .collect();
        if running.is_empty() {
            return self.broken(
                LINK,
                format!(
                    "{kind} {name} has no running pods: see `kubectl describe pods -n {namespace} -l {}`",
                    selector.join(",")
                ),
            );
        }
        self.whole(LINK, format!("{kind} {name}, {} running pods", running.len()));
        Ok(running)
    }

    /// The metrics that are asked of the metrics APIs, and whether each makes sense.
    fn metrics(&mut self, hpa: &Value) -> Result<Vec<Wanted>, Over> {
        const LINK: &str = "HPA's metrics";
        let mut wanted = Vec::new();
        for metric in hpa["spec"]["metrics"].as_array().into_iter().flatten() {
            let kind = metric["type"].as_str().unwrap_or_default().to_owned();
            let source = &metric[match kind.as_str() {
                "Pods" => "pods",
                "Object" => "object",
                "External" => "external",
                _ => continue,
            }];
            let name = source["metric"]["name"].as_str().unwrap_or_default().to_owned();
            let target = &source["target"];
            let per_second =
                name.ends_with("_per_second") || name.ends_with("_active_requests") || name.ends_with("_waiting");
            if name.ends_with("_seconds") || name.ends_with("_seconds_bucket") {
                return self.broken(LINK, format!("{name} is the name of a histogram: an HPA needs one figure, as http_server_request_duration_p99_milliseconds or http_server_requests_per_second"));
            }
            if kind != "Pods" && !per_second && !target["averageValue"].is_null() {
                return self.broken(LINK, format!("{name} is no total, but its target is an averageValue, which divides it by the number of pods: give target.type Value"));
            }
            let selector = source["metric"]["selector"]["matchLabels"].as_object().cloned().unwrap_or_default();
            let selector: Vec<String> =
                selector.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
            wanted.push(Wanted { kind, name, selector: selector.join(","), object: source["describedObject"].clone() });
        }
        if wanted.is_empty() {
            return self.broken(
                LINK,
                "it scales on CPU or memory alone, which the metrics-server serves and gopulse has no part in",
            );
        }
        let names: Vec<String> = wanted.iter().map(|it| format!("{} ({})", it.name, it.kind)).collect();
        self.whole(LINK, names.join(", "));
        Ok(wanted)
    }

    /// Whether the pods are to be measured.
    async fn opted_in(&mut self, pods: &[Value]) -> Result<(), Over> {
        const LINK: &str = "opt-in";
        const KEY: &str = "gopulse.io/enabled";
        let namespace = self.args.namespace.clone();
        let object = self.cluster.get(("", "v1", "Namespace"), None, &namespace).await;
        let object = self.read(LINK, object)?.unwrap_or_default();
        let by_namespace = object["metadata"]["annotations"][KEY].as_str() == Some("true");
        for pod in pods {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            match pod["metadata"]["annotations"][KEY].as_str() {
                Some("true") => {}
                None if by_namespace => {}
                other => {
                    let said = other.map_or_else(|| "lacks".to_owned(), |it| format!("has {it:?} as"));
                    return self.broken(LINK, format!("pod {name} {said} the annotation {KEY}: set it to \"true\" in the pod template's metadata.annotations, or on the namespace"));
                }
            }
        }
        self.whole(LINK, format!("all {} pods, by annotation", pods.len()));
        Ok(())
    }

    /// Whether the agents of the pods' nodes have figures of them.
    async fn agents(&mut self, pods: &[Value]) -> Result<(), Over> {
        const LINK: &str = "node agent";
        let namespace = self.args.agents_namespace.clone();
        let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector=app.kubernetes.io%2Fname%3Dgopulse");
        let agents = match self.cluster.raw(&path).await {
            Ok(list) => list["items"].as_array().cloned().unwrap_or_default(),
            Err((_, message)) => {
                self.passed(LINK, format!("agents cannot be listed in namespace {namespace}: {message}"));
                return Ok(());
            }
        };
        let mut looked = 0;
        for pod in pods {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let Some(node) = pod["spec"]["nodeName"].as_str() else { continue };
            let agent = agents.iter().find(|it| it["spec"]["nodeName"].as_str() == Some(node));
            let Some(agent) = agent else {
                return self.broken(LINK, format!("there is no agent on node {node}, where pod {name} runs: see `kubectl get pods -n {namespace} -o wide`, taints and the DaemonSet's nodeSelector"));
            };
            let agent_name = agent["metadata"]["name"].as_str().unwrap_or_default();
            let ready = agent["status"]["containerStatuses"][0]["ready"] == true;
            if !ready {
                return self.broken(
                    LINK,
                    format!(
                        "agent {agent_name} on node {node} is not ready: see `kubectl logs -n {namespace} {agent_name}`"
                    ),
                );
            }
            let path = format!("/api/v1/namespaces/{namespace}/pods/{agent_name}:9464/proxy/metrics");
            match self.cluster.text(&path).await {
                Ok(text) if text.contains(&format!("pod=\"{name}\"")) => looked += 1,
                Ok(_) => {
                    return self.broken(LINK, format!("agent {agent_name} has no figures of pod {name}: /targets of the agent says why (`kubectl get --raw /api/v1/namespaces/{namespace}/pods/{agent_name}:9464/proxy/targets`)"));
                }
                Err(error) => {
                    self.passed(LINK, format!("agent {agent_name} cannot be asked through the API server: {error}"));
                    return Ok(());
                }
            }
        }
        if looked == 0 {
            self.passed(LINK, "the pods are on no node");
        } else {
            self.whole(LINK, format!("figures of {looked} pods"));
        }
        Ok(())
    }
}
