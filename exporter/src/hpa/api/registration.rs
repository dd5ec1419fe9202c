//! Looks at the APIServices and does what is decided about them; says once whose a group is, and again when that changes. Decides
//! nothing itself.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Namespace, rbac::v1::ClusterRole},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use tracing::{debug, error, info, warn};

use super::{
    apiservice::{Backend, GROUPS, Plan, Standing, Step, VERSIONS, Wanted},
    config::{Config, Keep, Register},
    follow::line,
    trust::Trust,
};

/// For how long a group that another had stays free for it: tools that replace an object delete it first.
const VACANT: Duration = Duration::from_secs(5);
/// How long withdrawing may take: the kubelet waits no longer than the pod's grace period.
const WITHDRAWAL: Duration = Duration::from_secs(4);

/// Keeps the APIServices of this server.
pub(crate) struct Registration {
    client: Client,
    backend: Backend,
    register: Register,
    deployment: String,
    trust: Trust,
    /// When another was last seen to have a group.
    anothers: BTreeMap<&'static str, Instant>,
    status: Status,
    /// Why a look failed, as it was last said.
    failure: String,
    told_of_no_owner: bool,
}

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Looked {
    /// Whether nothing is left to be done.
    pub(crate) done: bool,
    /// Whether those that name this server trust its certificates.
    pub(crate) trusted: bool,
}

/// Whose the groups are, to be read by others. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    standings: BTreeMap<&'static str, Standing>,
    /// The versions whose APIServices name this server; none before the first look.
    named: Option<Vec<(&'static str, &'static str)>>,
}

impl Status {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line for each group.
    pub(crate) fn text(&self) -> String {
        let known = self.lock();
        let mut text = String::new();
        for (group, standing) in &known.standings {
            let _ = writeln!(text, "{}", said(group, standing));
        }
        text
    }

    /// Group and version of what the aggregation layer asks of this server: all that it serves, until it is known.
    pub(crate) fn served(&self) -> Vec<(&'static str, &'static str)> {
        let known = self.lock();
        known.named.clone().unwrap_or_else(|| VERSIONS.iter().map(|it| (it.0, it.1)).collect())
    }
}

impl Registration {
    pub(crate) fn new(config: &Config, client: Client, status: Status) -> Self {
        Self {
            client,
            backend: Backend {
                namespace: config.namespace.clone(),
                service: config.service.clone(),
                port: config.service_port,
                role: config.register.owner.clone(),
            },
            register: config.register.clone(),
            deployment: config.deployment.clone(),
            trust: Trust::default(),
            anothers: BTreeMap::new(),
            status,
            failure: String::new(),
            told_of_no_owner: false,
        }
    }

    /// Whether none is kept, so that there is nothing to look at.
    pub(crate) fn is_off(&self) -> bool {
        GROUPS.iter().all(|group| self.keep(group) == Keep::No)
    }

    /// Makes all of them right. `ca` signs what is served and what is to be served, PEM; without it none is kept.
    pub(crate) async fn look(&mut self, ca: Option<&str>) -> Looked {
        if self.is_off() {
            for group in GROUPS {
                self.tell(group, Standing::NotKept);
            }
            return Looked { done: true, trusted: true };
        }
        let mut looked = Looked { done: true, trusted: true };
        let mut failures = Vec::new();
        if let Err(failure) = self.look_at_all(ca, &mut looked, &mut failures).await {
            looked.trusted = false;
            failures.push(failure);
        }
        looked.done &= failures.is_empty();
        let failure = failures.join("; ");
        // Said once, and again when it changes.
        if failure != self.failure {
            if !failure.is_empty() {
                error!("the APIServices cannot be kept: {failure}");
            }
            self.failure = failure;
        }
        looked
    }

    async fn look_at_all(
        &mut self,
        ca: Option<&str>,
        looked: &mut Looked,
        failures: &mut Vec<String>,
    ) -> Result<(), String> {
        let api: Api<APIService> = Api::all(self.client.clone());
        let all = api.list(&ListParams::default()).await.map_err(|error| line(&error))?.items;
        self.status.lock().named = Some(self.named(&all));
        let ca = ca.map(|ca| self.trusted(ca, &all)).transpose()?;
        let mut owner = None;
        for group in GROUPS {
            let keep = if ca.is_some() { self.keep(group) } else { Keep::No };
            if keep != Keep::No && owner.is_none() {
                owner = Some(self.owner().await?);
            }
            let now = Instant::now();
            let may_take = keep == Keep::Force
                || self.anothers.get(group).is_none_or(|at| now.saturating_duration_since(*at) >= VACANT);
            let wanted = Wanted {
                keep,
                ca: ca.as_deref().unwrap_or_default(),
                owner: owner.as_ref().unwrap_or(&Ok(None)),
                may_take,
            };
            let Plan { steps, standing } = self.backend.plan(group, &all, &wanted);
            if matches!(standing, Standing::Anothers { .. } | Standing::Divided { .. }) {
                self.anothers.insert(group, now);
            }
            looked.done &= standing != Standing::Waiting;
            self.tell(group, standing);
            for step in steps {
                match take(&api, &step).await {
                    Ok(true) => continue,
                    // Somebody was faster: what is to be done about the group is decided anew.
                    Ok(false) => looked.done = false,
                    Err(error) => failures.push(error),
                }
                looked.trusted &= !matches!(step, Step::Patch { patch, .. } if patch.get("spec").is_some());
                break;
            }
        }
        debug!(apiservices = all.len(), "the APIServices were looked at");
        Ok(())
    }

    /// Deletes what names this server, if it is being uninstalled: its Deployment or its namespace is gone or going, or the
    /// Deployment is scaled to 0. Nobody answers for them any more, and no namespace of the cluster could be deleted.
    pub(crate) async fn withdraw(&self) {
        let withdrawn = tokio::time::timeout(WITHDRAWAL, self.try_withdraw()).await;
        match withdrawn.unwrap_or_else(|_| Err(format!("the API server does not answer within {WITHDRAWAL:?}"))) {
            Ok(0) => {}
            Ok(withdrawn) => info!(withdrawn, "this server is uninstalled: its APIServices are deleted"),
            // They have an owner, with which they go.
            Err(error) => warn!(error, "whether this server is uninstalled cannot be seen: its APIServices stay"),
        }
    }

    async fn try_withdraw(&self) -> Result<usize, String> {
        if self.is_off() || !self.is_uninstalled().await? {
            return Ok(0);
        }
        let api: Api<APIService> = Api::all(self.client.clone());
        let mut withdrawn = 0;
        loop {
            let all = api.list(&ListParams::default()).await.map_err(|error| line(&error))?.items;
            let groups = GROUPS.into_iter().filter(|group| self.keep(group) != Keep::No);
            let steps: Vec<_> = groups.flat_map(|group| self.backend.withdrawal(group, &all)).collect();
            if steps.is_empty() {
                return Ok(withdrawn);
            }
            // One whose status has just changed is not as it was read, and is looked at again.
            for step in steps {
                withdrawn += usize::from(take(&api, &step).await?);
            }
        }
    }

    async fn is_uninstalled(&self) -> Result<bool, String> {
        if self.namespace_ends().await? {
            return Ok(true);
        }
        if self.deployment.is_empty() {
            return Ok(false);
        }
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &self.backend.namespace);
        let deployment = api.get_opt(&self.deployment).await.map_err(|error| line(&error))?;
        Ok(deployment.is_none_or(|it| {
            it.metadata.deletion_timestamp.is_some() || it.spec.is_some_and(|spec| spec.replicas == Some(0))
        }))
    }

    async fn namespace_ends(&self) -> Result<bool, String> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let namespace = api.get_opt(&self.backend.namespace).await.map_err(|error| line(&error))?;
        Ok(namespace.is_none_or(|it| it.metadata.deletion_timestamp.is_some()))
    }

    fn keep(&self, group: &str) -> Keep {
        if group.starts_with("external") { self.register.external } else { self.register.custom }
    }

    fn named(&self, all: &[APIService]) -> Vec<(&'static str, &'static str)> {
        let names: Vec<_> = all.iter().filter(|it| self.backend.is_named_by(it)).map(|it| &it.metadata.name).collect();
        let is_named = |it: &(&str, &str, i32)| names.contains(&&Some(format!("{}.{}", it.1, it.0)));
        VERSIONS.iter().filter(|it| is_named(it)).map(|it| (it.0, it.1)).collect()
    }

    /// What those that name this server are to trust.
    fn trusted(&mut self, ca: &str, all: &[APIService]) -> Result<String, String> {
        let ours = all.iter().filter(|it| self.backend.is_named_by(it));
        let bundles: Vec<String> = ours
            .filter_map(|it| Some(String::from_utf8_lossy(&it.spec.as_ref()?.ca_bundle.as_ref()?.0).into_owned()))
            .collect();
        let trusted = self.trust.publish(ca, bundles.iter().map(String::as_str), Instant::now());
        trusted.ok_or_else(|| "there is no certificate in what they are to trust".to_owned())
    }

    /// Who is to own what is made, or why nothing can be made.
    async fn owner(&mut self) -> Result<Result<Option<OwnerReference>, String>, String> {
        // While the namespace ends, one that is made is one that stays.
        if self.namespace_ends().await.unwrap_or(false) {
            return Ok(Err(format!("namespace {} is being deleted", self.backend.namespace)));
        }
        let role = &self.backend.role;
        if role.is_empty() {
            return Ok(Ok(None));
        }
        let api: Api<ClusterRole> = Api::all(self.client.clone());
        match api.get_opt(role).await {
            Ok(Some(found)) => Ok(Ok(Some(OwnerReference {
                api_version: "rbac.authorization.k8s.io/v1".to_owned(),
                kind: "ClusterRole".to_owned(),
                name: role.clone(),
                uid: found.metadata.uid.unwrap_or_default(),
                ..OwnerReference::default()
            }))),
            Ok(None) => Ok(Err(format!(
                "there is no ClusterRole {role} to own its APIServices, which would outlive gopulse without: name one by \
                 register.owner"
            ))),
            Err(kube::Error::Api(status)) if status.code == 403 => {
                if !std::mem::replace(&mut self.told_of_no_owner, true) {
                    warn!(role, "may not be read: APIServices that are made have no owner to go with");
                }
                Ok(Ok(None))
            }
            Err(error) => Err(line(&error)),
        }
    }

    /// Says whose a group is, where that is another than before.
    fn tell(&self, group: &'static str, standing: Standing) {
        let mut known = self.status.lock();
        if known.standings.get(group) == Some(&standing) {
            return;
        }
        let text = said(group, &standing);
        match standing {
            Standing::NotKept | Standing::Ours | Standing::Waiting => info!("{text}"),
            Standing::Anothers { .. } | Standing::Divided { .. } => warn!("{text}"),
            Standing::Unable(_) => error!("{text}"),
        }
        known.standings.insert(group, standing);
    }
}

/// Takes a step. Whether it could be taken: not where the object is not as it was read.
async fn take(api: &Api<APIService>, step: &Step) -> Result<bool, String> {
    let (name, outcome) = match step {
        Step::Create(apiservice) => {
            let name = apiservice.metadata.name.as_deref().unwrap_or_default();
            (name, api.create(&PostParams::default(), apiservice).await.map(|_| "made"))
        }
        Step::Patch { name, patch } => {
            let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
            (
                name.as_str(),
                patched.map(|_| if patch.get("spec").is_some() { "caBundle written" } else { "owner written" }),
            )
        }
        Step::Delete { name, uid, resource_version } => {
            let preconditions = Preconditions { uid: uid.clone(), resource_version: resource_version.clone() };
            let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            (name.as_str(), api.delete(name, &parameters).await.map(|_| "deleted"))
        }
    };
    match outcome {
        Ok(done) => {
            info!(apiservice = name, "{done}");
            Ok(true)
        }
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(false),
        Err(error) => Err(format!("{name}: {}", line(&error))),
    }
}

/// Whose a group is, and what may be done about it.
fn said(group: &str, standing: &Standing) -> String {
    match standing {
        Standing::NotKept => format!("{group}: its APIServices are left as they are"),
        Standing::Ours => format!("{group} is served from here"),
        Standing::Anothers { apiservice, owner } => format!(
            "{group} is not served from here: {apiservice} belongs to {owner}, and HPAs ask for one version of a group alone. It \
             is taken once that is removed; until then use the other group, or KEDA's external scaler"
        ),
        Standing::Divided { apiservice, owner } => format!(
            "{group} is divided: {apiservice} belongs to {owner}, and other versions to this server. HPAs ask for the version of \
             the highest priority alone, whichever adapter their metrics are of"
        ),
        Standing::Waiting => format!("{group} was another's a moment ago: it is taken if it stays nobody's"),
        Standing::Unable(reason) => format!("{group} is not served from here: {reason}"),
    }
}
