//! The APIServices that name this server to the aggregation layer: made where there are none, their caBundle kept right. One that
//! names another server is somebody else's, and is never touched.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec, ServiceReference},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tracing::{error, info, warn};

use super::follow::line;

/// Group, version, and the version's priority in its group.
pub(crate) const VERSIONS: [(&str, &str, i32); 3] = [
    ("custom.metrics.k8s.io", "v1beta1", 100),
    ("custom.metrics.k8s.io", "v1beta2", 200),
    ("external.metrics.k8s.io", "v1beta1", 100),
];

/// What an APIService is found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// There is none.
    Nobody,
    /// It names this server; whether its caBundle is right.
    Us { current: bool },
    /// It names something else.
    Other(String),
}

/// This server, as APIServices name it.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    /// The Service's namespace.
    pub(crate) namespace: String,
    /// The Service.
    pub(crate) service: String,
    /// The Service's port.
    pub(crate) port: i32,
    /// Whether the custom metrics API is wanted.
    pub(crate) custom: bool,
    /// Whether the external metrics API is wanted: KEDA may have it.
    pub(crate) external: bool,
}

impl Registration {
    /// Whose an APIService is.
    pub(crate) fn owner(&self, known: Option<&APIService>, ca: &str) -> Owner {
        let Some(known) = known else { return Owner::Nobody };
        let spec = known.spec.clone().unwrap_or_default();
        let Some(service) = spec.service else { return Owner::Other("the API server itself".into()) };
        let (namespace, name) = (service.namespace.unwrap_or_default(), service.name.unwrap_or_default());
        if (namespace.as_str(), name.as_str()) != (self.namespace.as_str(), self.service.as_str()) {
            return Owner::Other(format!("Service {namespace}/{name}"));
        }
        let insecure = spec.insecure_skip_tls_verify == Some(true);
        Owner::Us { current: !insecure && spec.ca_bundle.is_some_and(|it| it.0 == ca.as_bytes()) }
    }

    /// Makes all of them right. Whether all are.
    pub(crate) async fn ensure(&self, client: &Client, ca: &str, told: &mut BTreeMap<String, String>) -> bool {
        let api: Api<APIService> = Api::all(client.clone());
        let mut right = true;
        for (group, version, priority) in VERSIONS {
            let name = format!("{version}.{group}");
            let wanted = if group.starts_with("external") { self.external } else { self.custom };
            if !wanted {
                continue;
            }
            let outcome = self.ensure_one(&api, &name, (group, version, priority), ca).await;
            right &= outcome.is_ok();
            let text = outcome.err().unwrap_or_default();
            // Said once, and again when it changes.
            if told.get(&name).is_none_or(|before| *before != text) && !text.is_empty() {
                error!(apiservice = name, "{text}");
            }
            told.insert(name, text);
        }
        right
    }

    async fn ensure_one(
        &self,
        api: &Api<APIService>,
        name: &str,
        version: (&str, &str, i32),
        ca: &str,
    ) -> Result<(), String> {
        let failed = |error: kube::Error| format!("cannot be read or written: {}", line(&error));
        let known = api.get_opt(name).await.map_err(failed)?;
        match self.owner(known.as_ref(), ca) {
            Owner::Us { current: true } => Ok(()),
            Owner::Us { current: false } => {
                // Written only over what was read: were it given to another in between, this would take it back.
                let read = known.and_then(|it| it.metadata.resource_version);
                let patch = json!({
                    "metadata": {"resourceVersion": read},
                    "spec": {"caBundle": ByteString(ca.as_bytes().to_vec()), "insecureSkipTLSVerify": null},
                });
                match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
                    Ok(_) => {
                        info!(apiservice = name, "caBundle written");
                        Ok(())
                    }
                    // Another replica was faster; the next look sees.
                    Err(kube::Error::Api(status)) if status.code == 409 => Err(String::new()),
                    Err(error) => Err(failed(error)),
                }
            }
            Owner::Nobody => match api.create(&PostParams::default(), &self.make(name, version, ca)).await {
                Ok(_) => {
                    info!(apiservice = name, "made");
                    Ok(())
                }
                Err(kube::Error::Api(status)) if status.code == 409 => Err(String::new()),
                Err(error) => Err(failed(error)),
            },
            Owner::Other(owner) => {
                warn!(apiservice = name, owner, "belongs to another");
                Err(format!(
                    "belongs to {owner} and is left alone: remove it to have its API served from here, or use the KEDA \
                     external scaler instead"
                ))
            }
        }
    }

    fn make(&self, name: &str, (group, version, priority): (&str, &str, i32), ca: &str) -> APIService {
        APIService {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some([("app.kubernetes.io/managed-by".to_owned(), "gopulse-metrics-api".to_owned())].into()),
                ..ObjectMeta::default()
            },
            spec: Some(APIServiceSpec {
                ca_bundle: Some(ByteString(ca.as_bytes().to_vec())),
                group: Some(group.to_owned()),
                version: Some(version.to_owned()),
                group_priority_minimum: 100,
                version_priority: priority,
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_it_is() {
        let us = Registration {
            namespace: "gopulse".into(),
            service: "api".into(),
            port: 443,
            custom: true,
            external: true,
        };
        let made = us.make("v1beta1.custom.metrics.k8s.io", VERSIONS[0], "CA");
        assert_eq!(us.owner(None, "CA"), Owner::Nobody);
        assert_eq!(us.owner(Some(&made), "CA"), Owner::Us { current: true });
        assert_eq!(us.owner(Some(&made), "CB"), Owner::Us { current: false });
        let adapter = Registration { namespace: "monitoring".into(), service: "adapter".into(), ..us.clone() };
        assert_eq!(adapter.owner(Some(&made), "CA"), Owner::Other("Service gopulse/api".into()));
        let local = APIService { spec: Some(APIServiceSpec::default()), ..made };
        assert!(matches!(us.owner(Some(&local), "CA"), Owner::Other(_)));
    }
}
