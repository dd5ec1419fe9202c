//! The chain of one metric: whose it is, whether the pods that it is measured at are measured, and what comes of it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    super::{
        agents::{self, has_figures, name_of},
        cluster::{Trouble, escaped},
        keda, long_road,
        opt_in::{self, Said},
        report::Look,
        resources,
        served::{CUSTOM, EXTERNAL, Owner, Served},
        values::Missing,
        wanted::{Source, Wanted},
        workload::Workload,
    },
    Over, Subject, Walk,
};

/// A metric that gopulse has of every pod that it measures.
const RPS: &str = "http_server_requests_per_second";

impl Walk<'_> {
    /// The chain of one metric.
    pub(super) async fn metric(
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
            (Owner::Hidden, _) if self.known.has(&wanted.name) => (Some(subject), false),
            // What others serve is judged by its value alone.
            _ => (None, false),
        };
        if let Some(subject) = &asked {
            self.measurable(&served, &subject.pods).await?;
        }
        let pods_of_it = asked.as_ref().map_or_else(Vec::new, |it| it.pods.clone());
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
        self.values(hpa, workload, wanted, &served, &pods_of_it).await
    }

    /// Whether pods are to be measured, and are. What was told of them for another metric is not told again.
    async fn measurable(&mut self, served: &Served, pods: &[Value]) -> Result<(), Over> {
        if pods.is_empty() {
            return Ok(());
        }
        let names: Vec<String> =
            pods.iter().filter_map(|it| it["metadata"]["name"].as_str()).map(str::to_owned).collect();
        match self.seen.get(&names) {
            Some(true) => return Ok(()),
            Some(false) => return Err(Over),
            None => {}
        }
        self.seen.insert(names.clone(), false);
        self.opted_in(served, pods).await?;
        self.agents(served, pods).await?;
        self.seen.insert(names, true);
        Ok(())
    }

    /// Whether the pods are to be measured.
    async fn opted_in(&mut self, served: &Served, pods: &[Value]) -> Result<(), Over> {
        const LINK: &str = "opt-in";
        let name_of = self.args.namespace.clone();
        // Who may not read it may often read the pods, which may say it themselves.
        let namespace = self.cluster.raw(&format!("/api/v1/namespaces/{name_of}")).await;
        let hidden = namespace.is_err();
        let namespace = namespace.unwrap_or_default();
        let path = format!("/api/v1/namespaces/{}/configmaps/gopulse", self.args.agents_namespace);
        let config = self.cluster.get(&path).await.ok().flatten();
        let policy = opt_in::policy(config.as_ref().and_then(|it| it["data"]["gopulse.yaml"].as_str()));
        let mut by = "";
        for pod in pods {
            match opt_in::decide(policy.as_ref(), &name_of, &namespace, pod) {
                Said::Yes(who) => by = who,
                Said::Nothing(_) if self.measured(served, pod).await => by = "although none that can be read says so",
                Said::Nothing(why) if hidden => {
                    let text = format!("{why}; the namespace cannot be read");
                    return self.note(LINK, Look::Unknown(text));
                }
                Said::No(why) | Said::Nothing(why) => return self.broken(LINK, why),
            }
        }
        self.note(LINK, Look::Whole(format!("all {} pods, {by}", pods.len())))
    }

    /// Whether the metrics-api, or the agent of its node, has figures of a pod.
    async fn measured(&self, served: &Served, pod: &Value) -> bool {
        if served.owner == Owner::Gopulse {
            return self.asked_of(pod, RPS).await.is_ok();
        }
        let agents = self.agents_pods().await.unwrap_or_default();
        match agents::of_node(&agents, pod) {
            Some(agent) => {
                let text = self.agent_text(name_of(agent)).await;
                text.is_ok_and(|text| has_figures(&text, &self.args.namespace, name_of(pod)))
            }
            None => false,
        }
    }

    /// What gopulse's metrics-api answers of one pod, or why it has nothing.
    async fn asked_of(&self, pod: &Value, metric: &str) -> Result<Value, Trouble> {
        let group = self.cluster.raw(&format!("/apis/{CUSTOM}")).await?;
        let version = group["preferredVersion"]["version"].as_str().unwrap_or("v1beta1");
        let (namespace, name) = (&self.args.namespace, name_of(pod));
        let path = format!("/apis/{CUSTOM}/{version}/namespaces/{namespace}/pods/{name}/{metric}");
        self.cluster.raw(&path).await
    }

    /// Those of these pods that have no value of a metric, each with what gopulse's metrics-api says of it: the list of all
    /// leaves them out without a word. Of more than a few it says enough of the first.
    pub(super) async fn without_value(&self, served: &Served, pods: &[&Value], metric: &str) -> Vec<Missing> {
        let mut missing = Vec::new();
        for (index, pod) in pods.iter().enumerate() {
            let asks = served.owner == Owner::Gopulse && index < 3;
            let why = if asks { self.asked_of(pod, metric).await.err() } else { None };
            let why = why.map(|it| it.message);
            missing.push(Missing { pod: name_of(pod).to_owned(), why });
        }
        missing
    }

    async fn agents_pods(&self) -> Result<Vec<Value>, Trouble> {
        let namespace = &self.args.agents_namespace;
        let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector=app.kubernetes.io%2Fname%3Dgopulse");
        Ok(self.cluster.raw(&path).await?["items"].as_array().cloned().unwrap_or_default())
    }

    async fn agent_text(&self, agent: &str) -> Result<String, String> {
        let namespace = &self.args.agents_namespace;
        self.cluster.text(&format!("/api/v1/namespaces/{namespace}/pods/{agent}:9464/proxy/metrics")).await
    }

    /// Whether the agents of the pods' nodes have figures of them.
    async fn agents(&mut self, served: &Served, pods: &[Value]) -> Result<(), Over> {
        const LINK: &str = "node agent";
        let namespace = self.args.agents_namespace.clone();
        let agents = match self.agents_pods().await {
            Ok(agents) => agents,
            Err(Trouble { message, .. }) => {
                let text = format!("agents cannot be listed in namespace {namespace}: {message}");
                return self.note(LINK, Look::Passed(text));
            }
        };
        let mut texts: BTreeMap<String, Result<String, String>> = BTreeMap::new();
        let (mut looked, mut by) = (0, "");
        // One that is not ready, as a container between its crash and its next start, has no figures for a while.
        for pod in pods.iter().filter(|it| agents::is_ready(it) != Some(false)) {
            let name = name_of(pod);
            let Some(node) = pod["spec"]["nodeName"].as_str() else { continue };
            let Some(agent) = agents::of_node(&agents, pod) else {
                return self.broken(LINK, format!("there is no agent on node {node}, where pod {name} runs: see `kubectl get pods -n {namespace} -o wide`, taints and the DaemonSet's nodeSelector"));
            };
            let agent_name = name_of(agent).to_owned();
            if agents::is_ready(agent) != Some(true) {
                return self.broken(
                    LINK,
                    format!(
                        "agent {agent_name} on node {node} is not ready: see `kubectl logs -n {namespace} {agent_name}`"
                    ),
                );
            }
            if !texts.contains_key(&agent_name) {
                let text = self.agent_text(&agent_name).await;
                texts.insert(agent_name.clone(), text);
            }
            match &texts[&agent_name] {
                Ok(text) if has_figures(text, &self.args.namespace, name) => looked += 1,
                Ok(_) => {
                    let said = self.without_value(served, &[pod], RPS).await.pop().and_then(|it| it.why);
                    let said = said.map_or_else(String::new, |it| format!(" ({it})"));
                    return self.broken(LINK, format!("agent {agent_name} has no figures of pod {name}{said}: /targets of the agent says why (`kubectl get --raw /api/v1/namespaces/{namespace}/pods/{agent_name}:9464/proxy/targets`); a program that cannot be measured keeps its workload's totals from being known until its pods are annotated with gopulse.io/enabled: \"false\""));
                }
                // As where it serves over TLS and wants a token: the API server passes none on.
                Err(error) => {
                    let asks = served.owner == Owner::Gopulse;
                    let told = if asks { Some(self.asked_of(pod, RPS).await.map(drop)) } else { None };
                    let told = told.map(|told| told.map_err(|Trouble { code, message }| (code, message)));
                    match agents::by_metrics_api(&agent_name, name, error, told) {
                        None => (looked, by) = (looked + 1, ", by the metrics-api"),
                        Some(look) => return self.note(LINK, look),
                    }
                }
            }
        }
        let look = if looked == 0 {
            Look::Passed("no pod is on a node and ready".into())
        } else {
            Look::Whole(format!("figures of {looked} pods{by}"))
        };
        self.note(LINK, look)
    }
}
