//! A HorizontalPodAutoscaler of autoscaling/v2, read from YAML, with the API server's defaults and checks (Kubernetes 1.34.4,
//! pkg/apis/autoscaling/v2/defaults.go and pkg/apis/autoscaling/validation/validation.go), and what its controller refuses.

mod metric;
mod selector;

use serde::{Deserialize, Deserializer};
use thiserror::Error;

pub(crate) use self::{
    metric::{Goal, Metric, MetricSpec, SourceType},
    selector::LabelSelector,
};
use super::quantity::Fraction;

/// The object.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hpa {
    /// Its name.
    #[serde(default)]
    pub(crate) metadata: Metadata,
    /// What is asked of it.
    pub(crate) spec: Spec,
}

/// The parts of the metadata that are used.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Metadata {
    /// Name.
    #[serde(default)]
    pub(crate) name: String,
}

/// What is asked.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Spec {
    /// The workload.
    pub(crate) scale_target_ref: ObjectRef,
    /// Least replicas; 1 unless given.
    #[serde(default = "one", deserialize_with = "one_for_none")]
    pub(crate) min_replicas: i32,
    /// Most replicas.
    pub(crate) max_replicas: i32,
    /// What it scales on.
    #[serde(default)]
    pub(crate) metrics: Vec<MetricSpec>,
    /// How fast it may.
    #[serde(default)]
    pub(crate) behavior: Option<Behavior>,
}

fn one() -> i32 {
    1
}

/// The API server takes `null` as if nothing were there.
fn one_for_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    Option::<i32>::deserialize(deserializer).map(|it| it.unwrap_or_else(one))
}

/// Another object, in the HPA's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ObjectRef {
    /// Group and version.
    #[serde(default)]
    pub(crate) api_version: String,
    /// Kind.
    pub(crate) kind: String,
    /// Name.
    pub(crate) name: String,
}

impl ObjectRef {
    /// Whether kind and name can be parts of a path (`ValidateCrossVersionObjectReference`).
    fn is_named(&self) -> bool {
        let segment = |it: &str| !it.is_empty() && !matches!(it, "." | "..") && !it.contains(['/', '%']);
        segment(&self.kind) && segment(&self.name)
    }
}

/// How fast it may scale.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Behavior {
    /// Upwards.
    #[serde(default)]
    pub(crate) scale_up: Rules,
    /// Downwards.
    #[serde(default)]
    pub(crate) scale_down: Rules,
}

/// Rules of one direction. What is not given is filled by [`Hpa::parse`], except a scale-down's stabilisation window, for
/// which the controller has a flag.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Rules {
    /// Seconds over which the least (upwards) or greatest (downwards) recommendation holds.
    #[serde(default)]
    pub(crate) stabilization_window_seconds: Option<i32>,
    /// Which policy decides.
    #[serde(default)]
    pub(crate) select_policy: Option<SelectPolicy>,
    /// Policies.
    #[serde(default)]
    pub(crate) policies: Option<Vec<Policy>>,
    /// How far from the target nothing is done, as a fraction.
    #[serde(default)]
    pub(crate) tolerance: Option<Fraction>,
}

/// Which policy decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum SelectPolicy {
    /// The one that allows the greatest change.
    Max,
    /// The one that allows the least.
    Min,
    /// No scaling in this direction.
    Disabled,
}

/// How much may change in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Policy {
    /// What `value` counts.
    pub(crate) r#type: PolicyType,
    /// How many.
    pub(crate) value: i32,
    /// In how many seconds.
    pub(crate) period_seconds: i32,
}

/// What a policy counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum PolicyType {
    /// Pods.
    Pods,
    /// Per cent of the pods there were.
    Percent,
}

/// Why it is not taken.
#[derive(Debug, Error)]
pub(crate) enum SpecError {
    #[error("not a HorizontalPodAutoscaler in YAML: {0}")]
    Yaml(#[from] serde_norway::Error),
    #[error("{kind} of {api_version} is no HorizontalPodAutoscaler of autoscaling/v2{advice}")]
    Kind { kind: String, api_version: String, advice: String },
    #[error("there is no HorizontalPodAutoscaler in it")]
    Empty,
    #[error("spec.{field}: {message}")]
    Field { field: String, message: String },
}

impl Hpa {
    /// Reads, fills in defaults and checks. Of several YAML documents the first HorizontalPodAutoscaler is taken.
    pub(crate) fn parse(text: &str) -> Result<Self, SpecError> {
        let mut chosen = None;
        for document in serde_norway::Deserializer::from_str(text) {
            let value = serde_norway::Value::deserialize(document)?;
            let is_hpa = value.get("kind").and_then(|it| it.as_str()) == Some("HorizontalPodAutoscaler");
            if is_hpa || chosen.is_none() && !value.is_null() {
                chosen = Some(value);
            }
            if is_hpa {
                break;
            }
        }
        let value = chosen.ok_or(SpecError::Empty)?;
        let kind = value.get("kind").and_then(|it| it.as_str()).unwrap_or("").to_owned();
        let api_version = value.get("apiVersion").and_then(|it| it.as_str()).unwrap_or("").to_owned();
        if kind != "HorizontalPodAutoscaler" || api_version != "autoscaling/v2" {
            let name = value.get("metadata").and_then(|it| it.get("name")).and_then(|it| it.as_str()).unwrap_or("NAME");
            let advice = match kind.as_str() {
                "HorizontalPodAutoscaler" => {
                    format!(": convert it with `kubectl get hpa.v2.autoscaling {name} -o yaml`")
                }
                "List" | "HorizontalPodAutoscalerList" => {
                    ": give one object, as `kubectl get hpa.v2.autoscaling NAME -o yaml` prints it".to_owned()
                }
                "ScaledObject" => format!(
                    ": give the one that KEDA has made of it, `kubectl get hpa.v2.autoscaling keda-hpa-{name} -o yaml`"
                ),
                _ => String::new(),
            };
            return Err(SpecError::Kind { kind, api_version, advice });
        }
        let mut hpa: Self = serde_norway::from_value(value)?;
        hpa.check()?;
        if let Some(behavior) = &mut hpa.spec.behavior {
            behavior.scale_up.fill_up();
            behavior.scale_down.fill_down();
        }
        Ok(hpa)
    }

    /// Its metrics, each with its goal.
    pub(crate) fn metrics(&self) -> Vec<Metric<'_>> {
        self.spec.metrics.iter().filter_map(|it| it.resolve().ok()).collect()
    }

    fn check(&self) -> Result<(), SpecError> {
        let field =
            |field: &str, message: &str| Err(SpecError::Field { field: field.to_owned(), message: message.to_owned() });
        if self.spec.max_replicas < 1 {
            return field("maxReplicas", "must be greater than 0");
        }
        if self.spec.min_replicas < 0 {
            return field("minReplicas", "must not be negative");
        }
        if self.spec.max_replicas < self.spec.min_replicas {
            return field("maxReplicas", "must not be less than minReplicas");
        }
        if self.spec.metrics.is_empty() {
            return field(
                "metrics",
                "none given, so that it would scale on 80 % CPU utilisation alone: name at least one metric",
            );
        }
        if !self.spec.scale_target_ref.is_named() {
            return field("scaleTargetRef", "must have a kind and a name, without / and %");
        }
        let wakes = |it: &MetricSpec| matches!(it.r#type, SourceType::Object | SourceType::External);
        if self.spec.min_replicas == 0 && !self.spec.metrics.iter().any(wakes) {
            return field("metrics", "must have an Object or External metric, for minReplicas is 0");
        }
        for (index, metric) in self.spec.metrics.iter().enumerate() {
            metric.resolve().map_err(|message| SpecError::Field { field: format!("metrics[{index}]"), message })?;
        }
        if let Some(behavior) = &self.spec.behavior {
            behavior.scale_up.check("behavior.scaleUp")?;
            behavior.scale_down.check("behavior.scaleDown")?;
        }
        Ok(())
    }
}

impl Rules {
    fn check(&self, path: &str) -> Result<(), SpecError> {
        let field = |field: String, message: &str| Err(SpecError::Field { field, message: message.to_owned() });
        if self.stabilization_window_seconds.is_some_and(|it| !(0..=3600).contains(&it)) {
            return field(format!("{path}.stabilizationWindowSeconds"), "must be from 0 to 3600");
        }
        if self.policies.as_ref().is_some_and(Vec::is_empty) {
            return field(format!("{path}.policies"), "must have at least one policy");
        }
        for (index, policy) in self.policies.iter().flatten().enumerate() {
            if policy.value <= 0 {
                return field(format!("{path}.policies[{index}].value"), "must be greater than zero");
            }
            if !(1..=1800).contains(&policy.period_seconds) {
                return field(format!("{path}.policies[{index}].periodSeconds"), "must be from 1 to 1800");
            }
        }
        if self.tolerance.is_some_and(|it| it.0 < 0.0) {
            return field(format!("{path}.tolerance"), "must not be negative");
        }
        Ok(())
    }

    fn fill_up(&mut self) {
        self.stabilization_window_seconds.get_or_insert(0);
        self.select_policy.get_or_insert(SelectPolicy::Max);
        self.policies.get_or_insert_with(|| {
            vec![
                Policy { r#type: PolicyType::Pods, value: 4, period_seconds: 15 },
                Policy { r#type: PolicyType::Percent, value: 100, period_seconds: 15 },
            ]
        });
    }

    fn fill_down(&mut self) {
        self.select_policy.get_or_insert(SelectPolicy::Max);
        self.policies
            .get_or_insert_with(|| vec![Policy { r#type: PolicyType::Percent, value: 100, period_seconds: 15 }]);
    }
}

#[cfg(test)]
mod tests;
