//! The walk itself: what is asked of the cluster, in the order of the chain. It ends at the first link that is broken for all
//! metrics; each metric's own chain ends at its first.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    DoctorArgs,
    cluster::{Cluster, Trouble, escaped},
    conditions, keda, long_road,
    opt_in::{self, Said},
    report::{Finding, Look},
    resources,
    served::{self, CUSTOM, EXTERNAL, Owner, Served},
    values,
    wanted::{self, Known, Of, Source, Wanted},
    workload::{self, Waker, Workload},
};
use crate::hpa::spec::LabelSelector;

const CONTROLLER: &str = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";
const RPS: &str = "http_server_requests_per_second";
/// A path that cannot be read says that there is nothing to be said; these of them also that the caller has no right to it.
const REFUSED: [u16; 2] = [401, 403];

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
    /// Pods whose opt-in and agents have been looked at.
    seen: Vec<Vec<String>>,
}

/// Walks.
pub(super) async fn walk(cluster: &Cluster, args: &DoctorArgs) -> Vec<Finding> {
    let path = format!("/api/v1/namespaces/{}/configmaps/gopulse-metrics-api", args.agents_namespace);
    let table = cluster.get(&path).await.ok().flatten();
    let known = Known::of(table.as_ref().and_then(|it| it["data"]["metrics-api.yaml"].as_str()));
    let mut walk = Walk { cluster, args, known, findings: Vec::new(), groups: BTreeMap::new(), seen: Vec::new() };
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
            Of::Pods(selector) => selector.clone(),
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

    /// The chain of one metric.
    async fn metric(
        &mut self,
        hpa: &Value,
        workload: &Workload,
        wanted: &Wanted,
        subject: Subject,
        scaled_object: Option<&Value>,
    ) -> Result<(), Over> {
        // Of no pods there are no values, and the controller asks for none of each pod.
        if workload.replicas == 0 && wanted.source.per_pod() {
            return Ok(());
        }
        if wanted.source.is_resource() {
            let path = format!(
                "/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods?labelSelector={}",
                self.args.namespace,
                escaped(&workload.selector)
            );
            let look = match self.cluster.raw(&path).await {
                Ok(list) => {
                    let items = list["items"].as_array().cloned().unwrap_or_default();
                    resources::judge(wanted, &items, &workload.running)
                }
                Err(Trouble { code, message }) => resources::failed(wanted, code, &message),
            };
            return self.note("resource metrics", look);
        }
        let group = if wanted.source == Source::External { EXTERNAL } else { CUSTOM };
        let served = self.served(group).await?;
        let made = scaled_object.map_or(keda::Made::Other, |it| keda::made(it, &wanted.name, &self.known));
        let (asked, long) = match (&served.owner, made) {
            (Owner::Gopulse, _) => (Some(subject), false),
            (Owner::Keda, keda::Made::Scaler(asked)) => {
                let target = (workload.group.as_str(), workload.kind.as_str(), workload.name.as_str());
                (Some(self.subject(asked.of_what(target), workload).await), false)
            }
            (Owner::Keda, keda::Made::Prometheus) => (None, true),
            // Its names are those of the shipped rules.
            (Owner::Other(_), _) if self.known.has(&wanted.name) => (Some(subject), true),
            // What others serve is judged by its value alone.
            _ => (None, false),
        };
        if let Some(subject) = &asked {
            self.opted_in(&served, &subject.pods).await?;
            self.agents(&subject.pods).await?;
        }
        if long {
            let namespace = &self.args.agents_namespace;
            let path = format!("/apis/monitoring.coreos.com/v1/namespaces/{namespace}/podmonitors/gopulse");
            let look = match self.cluster.get(&path).await {
                Ok(monitor) => long_road::pod_monitor(monitor.as_ref(), namespace),
                Err(trouble) => Look::Passed(format!("it cannot be read: {}", trouble.message)),
            };
            self.note("PodMonitor", look)?;
            let pod = asked.as_ref().and_then(|it| it.pods.first()).or(workload.running.first());
            if let Some(pod) = pod.and_then(|it| it["metadata"]["name"].as_str()) {
                let base = self.args.prometheus.as_deref();
                let look = long_road::ask(base, &self.args.namespace, pod).await;
                self.note("Prometheus", look)?;
            }
        }
        self.values(hpa, workload, wanted, &served).await
    }

    /// Whether the pods are to be measured.
    async fn opted_in(&mut self, served: &Served, pods: &[Value]) -> Result<(), Over> {
        const LINK: &str = "opt-in";
        let names: Vec<String> =
            pods.iter().filter_map(|it| it["metadata"]["name"].as_str()).map(str::to_owned).collect();
        if pods.is_empty() || self.seen.contains(&names) {
            return Ok(());
        }
        let path = format!("/api/v1/namespaces/{}", self.args.namespace);
        let namespace = self.cluster.raw(&path).await;
        let namespace = self.read(LINK, &format!("namespace {}", self.args.namespace), namespace)?;
        let path = format!("/api/v1/namespaces/{}/configmaps/gopulse", self.args.agents_namespace);
        let config = self.cluster.get(&path).await.ok().flatten();
        let policy = opt_in::policy(config.as_ref().and_then(|it| it["data"]["gopulse.yaml"].as_str()));
        let mut by = "";
        for (pod, name) in pods.iter().zip(&names) {
            match opt_in::decide(policy.as_ref(), &namespace, pod) {
                Said::Yes(who) => by = who,
                Said::Nothing(_) if self.measured(served, name).await => by = "although none that can be read says so",
                Said::No(why) | Said::Nothing(why) => return self.broken(LINK, why),
            }
        }
        self.note(LINK, Look::Whole(format!("all {} pods, {by}", pods.len())))
    }

    /// Whether the metrics-api has figures of a pod.
    async fn measured(&self, served: &Served, pod: &str) -> bool {
        if served.owner != Owner::Gopulse {
            return false;
        }
        let Ok(Some(group)) = self.cluster.get(&format!("/apis/{CUSTOM}")).await else { return false };
        let version = group["preferredVersion"]["version"].as_str().unwrap_or("v1beta1");
        let path = format!("/apis/{CUSTOM}/{version}/namespaces/{}/pods/{pod}/{RPS}", self.args.namespace);
        self.cluster.raw(&path).await.is_ok()
    }

    /// Whether the agents of the pods' nodes have figures of them.
    async fn agents(&mut self, pods: &[Value]) -> Result<(), Over> {
        const LINK: &str = "node agent";
        let names: Vec<String> =
            pods.iter().filter_map(|it| it["metadata"]["name"].as_str()).map(str::to_owned).collect();
        if pods.is_empty() || self.seen.contains(&names) {
            return Ok(());
        }
        self.seen.push(names);
        let namespace = self.args.agents_namespace.clone();
        let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector=app.kubernetes.io%2Fname%3Dgopulse");
        let agents = match self.cluster.raw(&path).await {
            Ok(list) => list["items"].as_array().cloned().unwrap_or_default(),
            Err(Trouble { message, .. }) => {
                return self
                    .note(LINK, Look::Passed(format!("agents cannot be listed in namespace {namespace}: {message}")));
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
            if agent["status"]["containerStatuses"][0]["ready"] != true {
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
                    return self.note(
                        LINK,
                        Look::Passed(format!("agent {agent_name} cannot be asked through the API server: {error}")),
                    );
                }
            }
        }
        let look = if looked == 0 {
            Look::Passed("the pods are on no node".into())
        } else {
            Look::Whole(format!("figures of {looked} pods"))
        };
        self.note(LINK, look)
    }

    /// Who serves a group in the version that the controller asks, and whether the aggregation layer reaches it.
    async fn served(&mut self, group: &'static str) -> Result<Served, Over> {
        const LINK: &str = "APIService";
        if let Some(found) = self.groups.get(group) {
            return found.clone().ok_or(Over);
        }
        self.groups.insert(group, None);
        let known: &[&str] = if group == CUSTOM { &["v1beta2", "v1beta1"] } else { &["v1beta1"] };
        let preferred = self.cluster.get(&format!("/apis/{group}")).await.ok().flatten().unwrap_or_default();
        let preferred = preferred["preferredVersion"]["version"].as_str();
        let mut versions: Vec<&str> = known.to_vec();
        versions.sort_by_key(|it| Some(*it) != preferred);
        let mut all: Vec<(Served, Value)> = Vec::new();
        for version in versions {
            let name = format!("{version}.{group}");
            let found = self.cluster.get(&format!("/apis/apiregistration.k8s.io/v1/apiservices/{name}")).await;
            if let Some(service) = self.read(LINK, &name, found)? {
                all.push((Served::of(group, version, &service), service));
            }
        }
        let Some((served, service)) = all.first().cloned() else {
            return self.broken(LINK, format!("nobody serves {group}: there is no APIService for it; install daemonset/components/hpa, or prometheus-adapter"));
        };
        let now = match self.cluster.raw(&format!("/apis/{group}/{}", served.version)).await {
            Err(Trouble { code: 503, message }) => Some(message),
            _ => None,
        };
        let (namespace, name) = served::reference(&service);
        let behind = self.cluster.get(&format!("/api/v1/namespaces/{namespace}/services/{name}")).await.ok().flatten();
        if let Some(why) = served::unavailable(&service, now.as_deref(), behind.as_ref()) {
            return self.broken(LINK, format!("{} {why}", served.shown));
        }
        self.note(LINK, Look::Whole(served.shown.clone()))?;
        if let Some((other, _)) = all.iter().find(|(it, _)| it.owner != served.owner) {
            self.note(LINK, Look::Warned(format!(
                "{} is another server's, and the HPA controller asks one version of a group alone, {}: what the other has is out of HPAs' reach",
                other.shown, served.version
            )))?;
        }
        self.groups.insert(group, Some(served.clone()));
        Ok(served)
    }

    /// Asks as the controller does.
    async fn values(&mut self, hpa: &Value, workload: &Workload, wanted: &Wanted, served: &Served) -> Result<(), Over> {
        const LINK: &str = "values";
        let plural = self.plural(&wanted.object).await;
        let (path, what) = values::question(served, &self.args.namespace, wanted, &plural, &workload.selector);
        let name = &wanted.name;
        match self.cluster.raw(&path).await {
            Ok(list) => {
                let items = list["items"].as_array().cloned().unwrap_or_default();
                let look = match wanted.source {
                    Source::Pods => values::of_pods(wanted, &items, &workload.running),
                    _ => values::figure(wanted, &items),
                };
                self.note(LINK, look)?;
            }
            Err(Trouble { code, message }) if code == 0 || REFUSED.contains(&code) => {
                self.note(
                    LINK,
                    Look::Unknown(format!("you may not ask for {name}, or there is no answer ({code}): {message}")),
                )?;
            }
            Err(Trouble { code, message }) => {
                if let Some(why) = self.not_listed(wanted, served).await {
                    return self.broken("discovery", why);
                }
                return self.broken(LINK, format!("{name} has no value ({code}): {message}"));
            }
        }
        let group = served.group;
        let look = match self.cluster.may(CONTROLLER, &what).await {
            Ok(true) => Look::Whole(format!("{CONTROLLER} may get {group}")),
            // It has been given values: it speaks by another name here.
            Ok(false) if conditions::active(hpa) => {
                Look::Passed(format!("{CONTROLLER} may not get {group}, but the HPA has its metrics"))
            }
            Ok(false) => Look::Broken(format!(
                "{CONTROLLER} may not get {group}: bind a ClusterRole with apiGroups [{group}], resources [\"*\"], verbs [get, list] to it"
            )),
            Err(error) => Look::Passed(format!("you may not ask what others may: {error}")),
        };
        self.note("controller's rights", look)
    }

    /// A described object's resource with its group, as the controller writes it.
    async fn plural(&self, object: &Value) -> String {
        let text = |key: &str| object[key].as_str().unwrap_or_default();
        let group = text("apiVersion").split_once('/').map_or("", |it| it.0);
        let found =
            if text("kind").is_empty() { None } else { self.cluster.kind(group, text("kind")).await.ok().flatten() };
        let plural = found.map_or_else(|| format!("{}s", text("kind").to_lowercase()), |it| it.plural);
        if group.is_empty() { plural } else { format!("{plural}.{group}") }
    }

    /// Why a metric without a value is not to be had at all, if the server says which it has. The controller does not look there.
    async fn not_listed(&self, wanted: &Wanted, served: &Served) -> Option<String> {
        let Served { group, version, owner, .. } = served;
        let name = &wanted.name;
        if *owner == Owner::Keda {
            return self.known.has(name).then(|| format!(
                "{group} is KEDA's, which has the metrics of its ScaledObjects alone: make a ScaledObject for {name} (daemonset/hpa/keda-external.yaml), or ask for it by type Object"
            ));
        }
        let list = self.cluster.raw(&format!("/apis/{group}/{version}")).await.ok()?;
        if served::lists(&list, name) {
            return None;
        }
        for other in [CUSTOM, EXTERNAL] {
            for other_version in ["v1beta2", "v1beta1"] {
                if (other, other_version) == (*group, version) {
                    continue;
                }
                let there = self.cluster.raw(&format!("/apis/{other}/{other_version}")).await.unwrap_or_default();
                if !served::lists(&there, name) {
                    continue;
                }
                return Some(if other == *group {
                    format!(
                        "{group}/{version}, which the HPA controller asks, has no metric {name}: {other_version} has it, of another server. One group has room for one adapter: let gopulse metrics-api not register {group} (register in its configuration), and give its metrics by the other road"
                    )
                } else {
                    let instead = if other == EXTERNAL { "External" } else { "Pods or Object" };
                    format!(
                        "{group} has no metric {name}: {other} has it: the HPA asks by type {:?}, use type {instead}",
                        wanted.source
                    )
                });
            }
        }
        let advice = match owner {
            Owner::Gopulse => {
                "see `gopulse metrics-api --table` for the names there are, and metrics in its configuration"
            }
            Owner::Other(_) if self.known.has(name) => {
                "it is gopulse's, but the group belongs to another adapter: add the rule for it (daemonset/hpa/prometheus-adapter.yaml); new names take up to its --metrics-relist-interval"
            }
            _ => {
                "prometheus-adapter has no rule that makes it, or Prometheus no series for the rule; new names take up to its --metrics-relist-interval"
            }
        };
        Some(format!("{group} has no metric {name}: {advice}"))
    }
}
