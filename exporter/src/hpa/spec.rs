//! A HorizontalPodAutoscaler of autoscaling/v2, read from YAML, with the API server's defaults and checks (Kubernetes 1.34.4,
//! pkg/apis/autoscaling/v2/defaults.go and pkg/apis/autoscaling/validation/validation.go).

mod selector;

use serde::Deserialize;
use thiserror::Error;

pub(crate) use self::selector::LabelSelector;
use super::quantity::{Fraction, Milli};

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
    #[serde(default = "one")]
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

/// One metric and its target.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct MetricSpec {
    /// Which of the others is given.
    pub(crate) r#type: SourceType,
    #[serde(default)]
    pods: Option<PodsSource>,
    #[serde(default)]
    object: Option<ObjectSource>,
    #[serde(default)]
    external: Option<PodsSource>,
    #[serde(default)]
    resource: Option<ResourceSource>,
    #[serde(default)]
    container_resource: Option<ResourceSource>,
}

/// Where a metric comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum SourceType {
    /// An average over the workload's pods.
    Pods,
    /// One figure of one object.
    Object,
    /// One figure, of anything.
    External,
    /// CPU or memory of the pods.
    Resource,
    /// CPU or memory of one container of the pods.
    ContainerResource,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PodsSource {
    metric: Identifier,
    target: Target,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ObjectSource {
    described_object: ObjectRef,
    metric: Identifier,
    target: Target,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ResourceSource {
    name: String,
    #[serde(default)]
    container: Option<String>,
    target: Target,
}

/// A metric's name. The selector over its labels is for whoever answers.
#[derive(Clone, Debug, Deserialize)]
struct Identifier {
    name: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Target {
    r#type: String,
    #[serde(default)]
    value: Option<Milli>,
    #[serde(default)]
    average_value: Option<Milli>,
    #[serde(default)]
    average_utilization: Option<i32>,
}

/// What a metric is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// The figure itself.
    Value(Milli),
    /// The figure over the number of pods.
    AverageValue(Milli),
    /// Per cent of what the pods request.
    Utilization(i32),
}

/// A metric as the controller takes it.
#[derive(Clone, Debug)]
pub(crate) struct Metric<'a> {
    /// Where it comes from.
    pub(crate) source: SourceType,
    /// Its name; of a resource: `cpu`, `memory`.
    pub(crate) name: &'a str,
    /// What it is held against.
    pub(crate) goal: Goal,
    /// Of which object.
    pub(crate) object: Option<&'a ObjectRef>,
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
    #[error(
        "{kind} of {api_version} is no HorizontalPodAutoscaler of autoscaling/v2: convert it with `kubectl get hpa.v2.autoscaling NAME -o yaml`"
    )]
    Kind { kind: String, api_version: String },
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
        let value = chosen.unwrap_or(serde_norway::Value::Null);
        let kind = value.get("kind").and_then(|it| it.as_str()).unwrap_or("").to_owned();
        let api_version = value.get("apiVersion").and_then(|it| it.as_str()).unwrap_or("").to_owned();
        if !value.is_null() && (kind != "HorizontalPodAutoscaler" || api_version != "autoscaling/v2") {
            return Err(SpecError::Kind { kind, api_version });
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

impl MetricSpec {
    fn resolve(&self) -> Result<Metric<'_>, String> {
        let none = |what: &str| format!("type is {what}, but there is no such section");
        let (name, target, object) = match self.r#type {
            SourceType::Pods => {
                let it = self.pods.as_ref().ok_or_else(|| none("Pods"))?;
                (&it.metric.name, &it.target, None)
            }
            SourceType::External => {
                let it = self.external.as_ref().ok_or_else(|| none("External"))?;
                (&it.metric.name, &it.target, None)
            }
            SourceType::Object => {
                let it = self.object.as_ref().ok_or_else(|| none("Object"))?;
                (&it.metric.name, &it.target, Some(&it.described_object))
            }
            SourceType::Resource => {
                let it = self.resource.as_ref().ok_or_else(|| none("Resource"))?;
                (&it.name, &it.target, None)
            }
            SourceType::ContainerResource => {
                let it = self.container_resource.as_ref().ok_or_else(|| none("ContainerResource"))?;
                it.container.as_ref().ok_or("container must be given")?;
                (&it.name, &it.target, None)
            }
        };
        let goal = target.goal(self.r#type)?;
        Ok(Metric { source: self.r#type, name, goal, object })
    }
}

impl Target {
    /// What the controller compares: it goes by which value is set, and for objects by the type as well (horizontal.go,
    /// `computeStatusFor*`).
    fn goal(&self, source: SourceType) -> Result<Goal, String> {
        let positive = |value: Milli, name: &str| {
            if value.0 > 0 { Ok(value) } else { Err(format!("target.{name} must be positive")) }
        };
        match source {
            SourceType::Pods => match self.average_value {
                Some(value) => Ok(Goal::AverageValue(positive(value, "averageValue")?)),
                None => Err("target.averageValue must be given for a metric of type Pods".to_owned()),
            },
            SourceType::Object | SourceType::External => match (self.value, self.average_value) {
                (Some(_), Some(_)) if source == SourceType::External => {
                    Err("target may have value or averageValue, not both".to_owned())
                }
                (Some(value), _) if source == SourceType::External || self.r#type == "Value" => {
                    Ok(Goal::Value(positive(value, "value")?))
                }
                (_, Some(value)) if source == SourceType::External || self.r#type == "AverageValue" => {
                    Ok(Goal::AverageValue(positive(value, "averageValue")?))
                }
                (None, None) => Err("target must have value or averageValue".to_owned()),
                _ => Err(format!("target.type is {}, but the other value is set", self.r#type)),
            },
            SourceType::Resource | SourceType::ContainerResource => {
                match (self.average_value, self.average_utilization) {
                    (Some(value), None) => Ok(Goal::AverageValue(positive(value, "averageValue")?)),
                    (None, Some(percent)) if percent > 0 => Ok(Goal::Utilization(percent)),
                    (None, Some(_)) => Err("target.averageUtilization must be greater than 0".to_owned()),
                    _ => Err("target must have either averageValue or averageUtilization".to_owned()),
                }
            }
        }
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
