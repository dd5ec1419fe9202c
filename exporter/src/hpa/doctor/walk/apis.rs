//! The metrics APIs of a walk: who serves them, and what they answer to the controller's questions.

use serde_json::Value;

use super::{
    super::{
        cluster::Trouble,
        conditions,
        report::Look,
        served::{self, CUSTOM, EXTERNAL, Owner, Served},
        values,
        wanted::{Source, Wanted},
        workload::Workload,
    },
    Over, Walk,
};

const CONTROLLER: &str = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";
/// Who asks has no right to it.
const REFUSED: [u16; 2] = [401, 403];

impl Walk<'_> {
    /// Who serves a group in the version that the controller asks, and whether the aggregation layer reaches it.
    pub(super) async fn served(&mut self, group: &'static str) -> Result<Served, Over> {
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
            // It is no part of any namespace, so that many may not read it; the values tell as well.
            if let Err(Trouble { code, message }) = &found
                && REFUSED.contains(code)
            {
                let served = Served::hidden(group, preferred.unwrap_or(version));
                self.note(LINK, Look::Passed(format!("you may not read it: {message}")))?;
                self.groups.insert(group, Some(served.clone()));
                return Ok(served);
            }
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

    /// Asks as the controller does. `measured_at` are the pods that gopulse makes the value of, as far as they are known.
    pub(super) async fn values(
        &mut self,
        hpa: &Value,
        workload: &Workload,
        wanted: &Wanted,
        served: &Served,
        measured_at: &[Value],
    ) -> Result<(), Over> {
        const LINK: &str = "values";
        let plural = self.plural(&wanted.object).await;
        let (path, what) = values::question(served, &self.args.namespace, wanted, &plural, &workload.selector);
        let name = &wanted.name;
        match self.cluster.raw(&path).await {
            Ok(list) => {
                let items = list["items"].as_array().cloned().unwrap_or_default();
                let look = match wanted.source {
                    Source::Pods => {
                        let missing = values::lacking(&items, &workload.running);
                        let missing = self.without_value(served, &missing, name).await;
                        values::of_pods(wanted, &items, workload.running.len(), &missing)
                    }
                    _ => values::figure(wanted, &items),
                };
                self.note(LINK, look)?;
                if wanted.source != Source::Pods && served.owner == Owner::Gopulse {
                    self.whole(wanted, served, measured_at).await?;
                }
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

    /// Whether a value is made of all pods: quantiles and shares are made of those that have figures, and of a total what is known
    /// is answered where that is enough to scale up.
    async fn whole(&mut self, wanted: &Wanted, served: &Served, pods: &[Value]) -> Result<(), Over> {
        if pods.is_empty() {
            return Ok(());
        }
        let Ok(group) = self.cluster.raw(&format!("/apis/{CUSTOM}")).await else { return Ok(()) };
        let version = group["preferredVersion"]["version"].as_str().unwrap_or("v1beta1");
        let (namespace, name) = (&self.args.namespace, &wanted.name);
        // Of whoever cannot read it, or of another adapter's, the value stands as it is.
        let path = format!("/apis/{CUSTOM}/{version}/namespaces/{namespace}/pods/*/{name}");
        let Ok(list) = self.cluster.raw(&path).await else { return Ok(()) };
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let lacking = values::lacking(&items, pods);
        // If none has one, there is no such value of a pod alone.
        if lacking.is_empty() || items.is_empty() {
            return Ok(());
        }
        let missing = self.without_value(served, &lacking, name).await;
        self.note("values", Look::Warned(values::in_part(wanted, pods.len(), &missing)))
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
        if served::may_have(owner, &list, name, &self.known) {
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
