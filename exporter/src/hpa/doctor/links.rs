//! The links of the chain, in the order of a walk. The walk ends at the first that is broken: what lies behind it cannot be
//! judged.

use serde_json::Value;

use super::{DoctorArgs, Look, cluster::Cluster, prometheus};

/// The family that most metrics are made of.
const FAMILY: &str = "http_server_request_duration_seconds_count";
const CUSTOM: &str = "custom.metrics.k8s.io";
const EXTERNAL: &str = "external.metrics.k8s.io";
const CONTROLLER: &str = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";

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

    /// Who serves the API, and whether the aggregation layer reaches it. Whether it is gopulse.
    async fn api_service(&mut self, group: &str) -> Result<bool, Over> {
        const LINK: &str = "APIService";
        let versions: &[&str] = if group == CUSTOM { &["v1beta2", "v1beta1"] } else { &["v1beta1"] };
        for version in versions {
            let name = format!("{version}.{group}");
            let found = self.cluster.get(("apiregistration.k8s.io", "v1", "APIService"), None, &name).await;
            let Some(service) = self.read(LINK, found)? else { continue };
            let reference = &service["spec"]["service"];
            let (namespace, of) =
                (reference["namespace"].as_str().unwrap_or_default(), reference["name"].as_str().unwrap_or_default());
            let shown = format!("{name} (Service {namespace}/{of})");
            let short = of.contains("gopulse");
            let conditions = service["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let available = conditions.iter().find(|it| it["type"] == "Available");
            let said = |key: &str| available.and_then(|it| it[key].as_str()).unwrap_or_default().to_owned();
            let (mut reason, mut message) = (said("reason"), said("message"));
            if available.is_some_and(|it| it["status"] == "True") {
                // The condition may be of before: the API server is asked to pass a question on.
                let Err((503, now)) = self.cluster.raw(&format!("/apis/{group}/{version}")).await else {
                    self.whole(LINK, shown);
                    return Ok(short);
                };
                (reason, message) = ("although its condition says so".to_owned(), now);
            }
            let advice = if message.contains("x509") || message.contains("certificate") {
                "its caBundle is not that of the server's certificate; gopulse metrics-api writes it itself, if its ServiceAccount may patch apiservices (see its log)".to_owned()
            } else if reason == "ServiceNotFound" || message.contains("not found") {
                format!(
                    "there is no Service {of} in namespace {namespace}: the server is gone, or was installed elsewhere; remove the APIService or install it again"
                )
            } else if reason == "MissingEndpoints" || reason == "EndpointsNotFound" {
                format!("the Service has no ready pods: see `kubectl get pods -n {namespace}`")
            } else {
                "the control plane cannot reach the Service's pods: a firewall or NetworkPolicy between the API server and port 6443, or the server does not answer".to_owned()
            };
            return self.broken(LINK, format!("{shown} is not available: {reason} {message}: {advice}"));
        }
        self.broken(LINK, format!("nobody serves {group}: there is no APIService for it; install daemonset/components/hpa, or prometheus-adapter"))
    }

    async fn pod_monitor(&mut self) -> Result<(), Over> {
        const LINK: &str = "PodMonitor";
        let namespace = self.args.agents_namespace.clone();
        let found = self.cluster.get(("monitoring.coreos.com", "v1", "PodMonitor"), Some(&namespace), "gopulse").await;
        match self.read(LINK, found)? {
            None => self.passed(LINK, format!("there is no PodMonitor gopulse in namespace {namespace}: Prometheus is told of the agents in another way")),
            Some(monitor) => {
                let endpoints = monitor["spec"]["podMetricsEndpoints"].as_array().cloned().unwrap_or_default();
                if endpoints.iter().any(|it| it["honorLabels"] != true) {
                    return self.broken(LINK, format!("{namespace}/gopulse does not set honorLabels: true: Prometheus then writes the agent's namespace and pod over the measured one's, and renames those to exported_namespace and exported_pod"));
                }
                self.whole(LINK, format!("{namespace}/gopulse, honorLabels on"));
            }
        }
        Ok(())
    }

    async fn prometheus(&mut self, pods: &[Value]) -> Result<(), Over> {
        const LINK: &str = "Prometheus";
        let Some(base) = self.args.prometheus.clone() else {
            self.passed(LINK, "give --prometheus to have it asked");
            return Ok(());
        };
        let namespace = self.args.namespace.clone();
        let pod = pods.first().and_then(|it| it["metadata"]["name"].as_str()).unwrap_or_default().to_owned();
        let query = |labels: String| {
            let base = base.clone();
            async move { prometheus::query(&base, &format!("{FAMILY}{{{labels}}}")).await }
        };
        let right = query(format!("namespace=\"{namespace}\",pod=\"{pod}\"")).await;
        if !self.read(LINK, right)?.is_empty() {
            self.whole(LINK, format!("has {FAMILY} of pod {pod}"));
            return Ok(());
        }
        let renamed = query(format!("exported_pod=\"{pod}\"")).await;
        if !self.read(LINK, renamed)?.is_empty() {
            return self.broken(LINK, "it has the series under exported_namespace and exported_pod: honorLabels is off where the agents are scraped; set honorLabels: true");
        }
        let elsewhere = query(format!("pod=\"{pod}\"")).await;
        if let Some(labels) = self.read(LINK, elsewhere)?.first() {
            return self.broken(LINK, format!("it has the series of pod {pod}, but with namespace {}: a relabelling writes another namespace over it", labels["namespace"]));
        }
        let any = query(String::new()).await;
        if self.read(LINK, any)?.is_empty() {
            return self.broken(LINK, format!("it has no series {FAMILY} at all: the agents are not scraped (see its Status, Targets), or the pods have had no request yet"));
        }
        self.broken(LINK, format!("it has series of other pods, but none with the label pod=\"{pod}\": the labels namespace, pod and container must not be dropped when scraping"))
    }

    /// Whether the server knows the metric, for what the HPA asks it of.
    async fn discovery(&mut self, group: &str, wanted: &Wanted, short: bool) -> Result<(), Over> {
        const LINK: &str = "discovery";
        let mut known = Vec::new();
        let versions: &[&str] = if group == CUSTOM { &["v1beta2", "v1beta1"] } else { &["v1beta1"] };
        let mut answer = Err((0, String::new()));
        for version in versions {
            answer = self.cluster.raw(&format!("/apis/{group}/{version}")).await;
            if answer.is_ok() {
                break;
            }
        }
        let list =
            self.read(LINK, answer.map_err(|(code, message)| format!("{group} does not answer ({code}): {message}")))?;
        for resource in list["resources"].as_array().into_iter().flatten() {
            let name = resource["name"].as_str().unwrap_or_default();
            let (of, metric) = name.split_once('/').unwrap_or(("", name));
            if metric == wanted.name {
                known.push(of.to_owned());
            }
        }
        if known.is_empty() {
            let other = if group == CUSTOM { EXTERNAL } else { CUSTOM };
            let there = self.cluster.raw(&format!("/apis/{other}/v1beta1")).await.unwrap_or_default();
            let in_other = there["resources"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|it| it["name"].as_str().is_some_and(|it| it.rsplit('/').next() == Some(&wanted.name)));
            let advice = if in_other {
                format!(
                    "{other} has it: the HPA asks by type {}, use type {}",
                    wanted.kind,
                    if group == CUSTOM { "External" } else { "Pods or Object" }
                )
            } else if short {
                "see `gopulse metrics-api --table` for the names there are, and metrics in its configuration".to_owned()
            } else {
                "prometheus-adapter has no rule that makes it, or Prometheus no series for the rule; new names take up to its --metrics-relist-interval".to_owned()
            };
            return self.broken(LINK, format!("{group} has no metric {}: {advice}", wanted.name));
        }
        self.whole(LINK, format!("{} is there", wanted.name));
        Ok(())
    }

    /// Asks as the controller does.
    async fn values(&mut self, group: &str, wanted: &Wanted, pods: &[Value]) -> Result<(), Over> {
        const LINK: &str = "values";
        let namespace = self.args.namespace.clone();
        let selector = wanted
            .selector
            .replace('=', "%3D")
            .replace(',', "%2C")
            .replace('/', "%2F")
            .replace('{', "%7B")
            .replace('}', "%7D")
            .replace(' ', "%20");
        let version = if group == CUSTOM && self.cluster.raw(&format!("/apis/{CUSTOM}/v1beta2")).await.is_ok() {
            "v1beta2"
        } else {
            "v1beta1"
        };
        let name = &wanted.name;
        let path = match wanted.kind.as_str() {
            "External" => format!("/apis/{group}/{version}/namespaces/{namespace}/{name}?labelSelector={selector}"),
            "Object" => {
                let kind = wanted.object["kind"].as_str().unwrap_or_default().to_lowercase();
                let object = wanted.object["name"].as_str().unwrap_or_default();
                let of_group = wanted.object["apiVersion"]
                    .as_str()
                    .unwrap_or_default()
                    .split_once('/')
                    .map_or(String::new(), |(group, _)| format!(".{group}"));
                let plural = if kind.ends_with('s') { format!("{kind}es") } else { format!("{kind}s") };
                format!(
                    "/apis/{group}/{version}/namespaces/{namespace}/{plural}{of_group}/{object}/{name}?metricLabelSelector={selector}"
                )
            }
            _ => format!("/apis/{group}/{version}/namespaces/{namespace}/pods/*/{name}?metricLabelSelector={selector}"),
        };
        let list = match self.cluster.raw(&path).await {
            Ok(list) => list,
            Err((403, message)) => return self.broken(LINK, format!("you may not ask: {message}")),
            Err((code, message)) => return self.broken(LINK, format!("{name} has no value ({code}): {message}")),
        };
        let items = list["items"].as_array().cloned().unwrap_or_default();
        if wanted.kind != "Pods" {
            if items.len() != 1 && wanted.kind == "Object" || items.is_empty() {
                return self.broken(LINK, format!("{name} has {} values where one is needed", items.len()));
            }
            self.whole(LINK, format!("{name} is {}", items[0]["value"].as_str().unwrap_or_default()));
            return Ok(());
        }
        let names: Vec<&str> = items.iter().filter_map(|it| it["describedObject"]["name"].as_str()).collect();
        let missing: Vec<&str> =
            pods.iter().filter_map(|it| it["metadata"]["name"].as_str()).filter(|name| !names.contains(name)).collect();
        if !missing.is_empty() {
            return self.broken(LINK, format!("{} of {} pods have no value of {name}, as {}: not measured, or their agent has been silent for 15 s; the HPA takes them for idle when scaling up and for full when scaling down", missing.len(), pods.len(), missing[0]));
        }
        let zero = items.iter().all(|it| it["value"] == "0");
        if zero && !wanted.selector.is_empty() {
            return self.broken(LINK, format!("{name} is 0 at every pod with the selector {}: no figures have these labels (metric.selector of the HPA), or there are no such requests", wanted.selector));
        }
        let shown: Vec<&str> = items.iter().filter_map(|it| it["value"].as_str()).take(5).collect();
        self.whole(
            LINK,
            format!(
                "{name} of {} pods: {}{}",
                items.len(),
                shown.join(", "),
                if items.len() > 5 { ", ..." } else { "" }
            ),
        );
        Ok(())
    }

    async fn rights(&mut self, group: &str) -> Result<(), Over> {
        const LINK: &str = "controller's rights";
        match self.cluster.may(CONTROLLER, group, &self.args.namespace, "get").await {
            Ok(true) => self.whole(LINK, format!("{CONTROLLER} may get {group}")),
            Ok(false) => {
                return self.broken(LINK, format!("{CONTROLLER} may not get {group}: bind a ClusterRole with apiGroups [{group}], resources [\"*\"], verbs [get, list] to it"));
            }
            Err(error) => self.passed(LINK, format!("you may not ask what others may: {error}")),
        }
        Ok(())
    }

    fn conditions(&mut self, hpa: &Value) -> Result<(), Over> {
        const LINK: &str = "HPA's conditions";
        let conditions = hpa["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let of = |kind: &str| conditions.iter().find(|it| it["type"] == kind);
        for kind in ["AbleToScale", "ScalingActive"] {
            if let Some(condition) = of(kind).filter(|it| it["status"] == "False") {
                let text = |key: &str| condition[key].as_str().unwrap_or_default();
                return self.broken(LINK, format!("{kind} is False: {}: {}", text("reason"), text("message")));
            }
        }
        if conditions.is_empty() {
            return self
                .broken(LINK, "it has none: the controller has not looked at it; is kube-controller-manager running?");
        }
        let limited = of("ScalingLimited").filter(|it| it["status"] == "True");
        let text = limited.map_or_else(
            || "able to scale and active".to_owned(),
            |it| format!("active, but limited: {}", it["message"].as_str().unwrap_or_default()),
        );
        self.whole(LINK, text);
        Ok(())
    }
}
