//! What is to be done about the APIServices of a group, which name a server to the aggregation layer. Decides only: no client here.
//!
//! An adapter has a group as a whole: the HPA controller asks for everything by the group's preferred version (k8s.io/metrics,
//! pkg/client/custom_metrics/discovery.go), so that a second adapter's version takes all HPAs away from the first.

use k8s_openapi::{
    ByteString,
    apimachinery::pkg::apis::meta::v1::OwnerReference,
    kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec, ServiceReference},
};
use kube::api::ObjectMeta;
use serde_json::{Value as Json, json};

use super::{config::Keep, trust::same};

/// Group, version, and the version's priority in its group.
pub(crate) const VERSIONS: [(&str, &str, i32); 3] = [
    ("custom.metrics.k8s.io", "v1beta1", 100),
    ("custom.metrics.k8s.io", "v1beta2", 200),
    ("external.metrics.k8s.io", "v1beta1", 100),
];
/// The groups of these.
pub(crate) const GROUPS: [&str; 2] = ["custom.metrics.k8s.io", "external.metrics.k8s.io"];

/// Label and value of those that were made here.
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "gopulse-metrics-api");
/// The annotation of those that were made here: for which Service, so that one that is given to another server is known as such.
const MADE_FOR: &str = "gopulse.io/made-for";

/// This server, as APIServices name it, and what its APIServices go with.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    /// The Service's namespace.
    pub(crate) namespace: String,
    /// The Service.
    pub(crate) service: String,
    /// The Service's port.
    pub(crate) port: i32,
    /// The ClusterRole that owns what is made here; empty for none.
    pub(crate) role: String,
}

/// What the APIServices are to say.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// Whether and how they are kept.
    pub(crate) keep: Keep,
    /// The authorities that sign this server's certificates, PEM.
    pub(crate) ca: &'a str,
    /// Who owns what is made here, or why nothing can be made.
    pub(crate) owner: &'a Result<Option<OwnerReference>, String>,
    /// Whether a group that has no APIService may be taken: not while the one that had it may only be changing them.
    pub(crate) may_take: bool,
}

/// One change. Each is made only to what was read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    Create(Box<APIService>),
    /// A merge patch, with the resource version.
    Patch {
        name: String,
        patch: Json,
    },
    Delete {
        name: String,
        uid: Option<String>,
        resource_version: Option<String>,
    },
}

/// Whose a group is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Its APIServices are left as they are.
    NotKept,
    /// This server's.
    Ours,
    /// Another's, by this APIService.
    Anothers { apiservice: String, owner: String },
    /// Another's and this server's: by `force`, or by APIServices that were not made here.
    Divided { apiservice: String, owner: String },
    /// Nobody's, and it was another's a moment ago.
    Waiting,
    /// Nobody's, and it cannot be taken.
    Unable(String),
}

/// What to do about a group, and whose it is then.
#[derive(Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) standing: Standing,
}

impl Backend {
    /// Whether an APIService names this server.
    pub(crate) fn is_named_by(&self, apiservice: &APIService) -> bool {
        let service = apiservice.spec.as_ref().and_then(|spec| spec.service.as_ref());
        service.is_some_and(|it| {
            it.namespace.as_deref() == Some(&self.namespace) && it.name.as_deref() == Some(&self.service)
        })
    }

    /// What to do about a group, of all APIServices that there are.
    pub(crate) fn plan(&self, group: &str, all: &[APIService], wanted: &Wanted<'_>) -> Plan {
        let of_group = all.iter().filter(|it| it.spec.as_ref().and_then(|spec| spec.group.as_deref()) == Some(group));
        let (ours, others): (Vec<_>, Vec<_>) = of_group.partition(|it| self.is_named_by(it));
        if wanted.keep == Keep::No {
            return Plan { steps: Vec::new(), standing: Standing::NotKept };
        }
        let other = others.first().map(|it| (name_of(it), owner_of(it)));
        let mend = |it: &&APIService| self.mend(it, wanted.ca, wanted.owner);
        let disowned = others.iter().filter_map(|it| self.disown(it));
        if let (Some((apiservice, owner)), Keep::Yes) = (&other, wanted.keep) {
            // What somebody else has made for this server, the manifests say, is theirs to take back.
            let (made, given): (Vec<_>, Vec<_>) = ours.into_iter().partition(|it| was_made_here(it));
            let mended = given.iter().filter_map(mend);
            let steps = mended.chain(made.iter().map(|it| delete(it))).chain(disowned).collect();
            let (apiservice, owner) = (apiservice.clone(), owner.clone());
            let standing = if given.is_empty() {
                Standing::Anothers { apiservice, owner }
            } else {
                Standing::Divided { apiservice, owner }
            };
            return Plan { steps, standing };
        }
        // First what is served by now.
        let mut steps: Vec<Step> = ours.iter().filter_map(mend).chain(disowned).collect();
        let there = |version: &str| ours.iter().chain(&others).any(|it| name_of(it) == format!("{version}.{group}"));
        // In the order of the table: of two that begin at one time, one gets the first, and the other gives way.
        let missing: Vec<_> = VERSIONS.iter().filter(|it| it.0 == group && !there(it.1)).collect();
        let standing = match (wanted.owner, other) {
            _ if !missing.is_empty() && !wanted.may_take && ours.is_empty() => Standing::Waiting,
            (Err(reason), None) if !missing.is_empty() => Standing::Unable(reason.clone()),
            (owner, other) => {
                if let Ok(owner) = owner {
                    let made =
                        missing.iter().map(|it| Step::Create(Box::new(self.make(it, wanted.ca, owner.as_ref()))));
                    steps.extend(made);
                }
                other.map_or(Standing::Ours, |(apiservice, owner)| Standing::Divided { apiservice, owner })
            }
        };
        Plan { steps, standing }
    }

    /// What to delete where this server is uninstalled: all that would lead to nobody.
    pub(crate) fn withdrawal(&self, group: &str, all: &[APIService]) -> Vec<Step> {
        let of_group = all.iter().filter(|it| it.spec.as_ref().and_then(|spec| spec.group.as_deref()) == Some(group));
        of_group.filter(|it| self.is_named_by(it)).map(delete).collect()
    }

    /// Takes this server's mark off one that was made here and names another server by now: it would go with an uninstall.
    fn disown(&self, apiservice: &APIService) -> Option<Step> {
        let metadata = &apiservice.metadata;
        let made_for = metadata.annotations.as_ref()?.get(MADE_FOR)?;
        if *made_for != self.name() {
            return None;
        }
        let owners = metadata.owner_references.iter().flatten().filter(|it| !self.is_role(it)).collect::<Vec<_>>();
        let mut patch = json!({"metadata": {
            "resourceVersion": metadata.resource_version,
            "annotations": {MADE_FOR: null},
            "ownerReferences": owners,
        }});
        if label(apiservice) == Some(MANAGED_BY.1) {
            patch["metadata"]["labels"] = json!({MANAGED_BY.0: null});
        }
        Some(Step::Patch { name: name_of(apiservice), patch })
    }

    /// What is to be changed of one that names this server; of those that were made here the owner, too.
    fn mend(&self, apiservice: &APIService, ca: &str, owner: &Result<Option<OwnerReference>, String>) -> Option<Step> {
        let metadata = &apiservice.metadata;
        let spec = apiservice.spec.clone().unwrap_or_default();
        let mut patch = json!({"metadata": {"resourceVersion": metadata.resource_version}});
        let before = patch.clone();
        let current = spec.ca_bundle.is_some_and(|it| same(&String::from_utf8_lossy(&it.0), ca));
        if !current || spec.insecure_skip_tls_verify == Some(true) {
            patch["spec"] = json!({"caBundle": ByteString(ca.as_bytes().to_vec()), "insecureSkipTLSVerify": null});
        }
        if was_made_here(apiservice) {
            if spec.service.is_some_and(|it| it.port.unwrap_or(443) != self.port) {
                patch["spec"]["service"] = json!({"port": self.port});
            }
            if metadata.annotations.as_ref().and_then(|it| it.get(MADE_FOR)) != Some(&self.name()) {
                patch["metadata"]["annotations"] = json!({MADE_FOR: self.name()});
            }
            let owners: Vec<_> = metadata.owner_references.clone().unwrap_or_default();
            if let Ok(Some(owner)) = owner
                && !owners.iter().any(|it| it.uid == owner.uid)
            {
                let others = owners.into_iter().filter(|it| !self.is_role(it));
                let owners: Vec<_> = others.chain([owner.clone()]).collect();
                patch["metadata"]["ownerReferences"] = json!(owners);
            }
        }
        (patch != before).then(|| Step::Patch { name: name_of(apiservice), patch })
    }

    fn make(
        &self,
        (group, version, priority): &(&str, &str, i32),
        ca: &str,
        owner: Option<&OwnerReference>,
    ) -> APIService {
        let (label, value) = MANAGED_BY;
        APIService {
            metadata: ObjectMeta {
                name: Some(format!("{version}.{group}")),
                labels: Some([(label.to_owned(), value.to_owned())].into()),
                annotations: Some([(MADE_FOR.to_owned(), self.name())].into()),
                owner_references: owner.map(|it| vec![it.clone()]),
                ..ObjectMeta::default()
            },
            spec: Some(APIServiceSpec {
                ca_bundle: Some(ByteString(ca.as_bytes().to_vec())),
                group: Some((*group).to_owned()),
                version: Some((*version).to_owned()),
                group_priority_minimum: 100,
                version_priority: *priority,
                service: Some(ServiceReference {
                    namespace: Some(self.namespace.clone()),
                    name: Some(self.service.clone()),
                    port: Some(self.port),
                }),
                ..APIServiceSpec::default()
            }),
            status: None,
        }
    }

    fn name(&self) -> String {
        format!("{}/{}", self.namespace, self.service)
    }

    fn is_role(&self, owner: &OwnerReference) -> bool {
        owner.kind == "ClusterRole" && owner.name == self.role
    }
}

fn label(apiservice: &APIService) -> Option<&str> {
    apiservice.metadata.labels.as_ref()?.get(MANAGED_BY.0).map(String::as_str)
}

/// Whether a metrics-api made it, of this version or one before, and no tool says since that it is its own.
fn was_made_here(apiservice: &APIService) -> bool {
    match label(apiservice) {
        Some(value) => value == MANAGED_BY.1,
        None => apiservice.metadata.annotations.as_ref().is_some_and(|it| it.contains_key(MADE_FOR)),
    }
}

fn delete(apiservice: &APIService) -> Step {
    let metadata = &apiservice.metadata;
    Step::Delete {
        name: name_of(apiservice),
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
    }
}

fn name_of(apiservice: &APIService) -> String {
    apiservice.metadata.name.clone().unwrap_or_default()
}

/// Whom an APIService names.
fn owner_of(apiservice: &APIService) -> String {
    match apiservice.spec.as_ref().and_then(|spec| spec.service.as_ref()) {
        Some(it) => {
            format!(
                "Service {}/{}",
                it.namespace.as_deref().unwrap_or_default(),
                it.name.as_deref().unwrap_or_default()
            )
        }
        None => "the API server itself".to_owned(),
    }
}

#[cfg(test)]
mod tests;
