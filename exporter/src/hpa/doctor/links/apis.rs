//! The links behind the agents: who serves the metrics APIs, what Prometheus has on the long road, what the controller gets, and
//! what the HPA says of itself.

use serde_json::Value;

use super::{super::prometheus, CUSTOM, EXTERNAL, Over, Walk, Wanted};

/// The family that most metrics are made of.
const FAMILY: &str = "http_server_request_duration_seconds_count";
const CONTROLLER: &str = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";

impl Walk<'_> {
    /// Who serves the API, and whether the aggregation layer reaches it. Whether it is gopulse.
    pub(super) async fn api_service(&mut self, group: &str) -> Result<bool, Over> {
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

    pub(super) async fn pod_monitor(&mut self) -> Result<(), Over> {
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

    pub(super) async fn prometheus(&mut self, pods: &[Value]) -> Result<(), Over> {
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
    pub(super) async fn discovery(&mut self, group: &str, wanted: &Wanted, short: bool) -> Result<(), Over> {
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
    pub(super) async fn values(&mut self, group: &str, wanted: &Wanted, pods: &[Value]) -> Result<(), Over> {
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

    pub(super) async fn rights(&mut self, group: &str) -> Result<(), Over> {
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

    pub(super) fn conditions(&mut self, hpa: &Value) -> Result<(), Over> {
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
