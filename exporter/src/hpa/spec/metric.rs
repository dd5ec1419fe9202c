//! The metrics of a HorizontalPodAutoscaler and their targets, with the API server's checks.

use serde::Deserialize;

use super::{LabelSelector, ObjectRef};
use crate::hpa::quantity::Milli;

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
    container_resource: Option<ContainerSource>,
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
    target: Target,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ContainerSource {
    name: String,
    #[serde(default)]
    container: Option<String>,
    target: Target,
}

/// A metric's name, and which figures of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identifier {
    name: String,
    #[serde(default)]
    selector: LabelSelector,
}

impl Identifier {
    fn check(&self) -> Result<(), String> {
        let name = self.name.as_str();
        if name.is_empty() || matches!(name, "." | "..") || name.contains(['/', '%']) {
            return Err(format!("metric.name {name:?} must not be empty, . or .., nor have / or %"));
        }
        self.selector.refused().map_or(Ok(()), |why| {
            Err(format!("the HPA controller refuses metric.selector, although the API server takes it: {why}; `gopulse metrics-api --encode VALUE` spells it"))
        })
    }
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
    /// Which figures of it; none of a resource.
    pub(crate) selector: Option<&'a LabelSelector>,
}

impl MetricSpec {
    /// As the controller takes it, or what is wrong with it.
    pub(super) fn resolve(&self) -> Result<Metric<'_>, String> {
        let none = |what: &str| format!("type is {what}, but there is no such section");
        let sections = [
            (SourceType::Pods, self.pods.is_some(), "pods"),
            (SourceType::Object, self.object.is_some(), "object"),
            (SourceType::External, self.external.is_some(), "external"),
            (SourceType::Resource, self.resource.is_some(), "resource"),
            (SourceType::ContainerResource, self.container_resource.is_some(), "containerResource"),
        ];
        if let Some((.., other)) = sections.into_iter().find(|(source, given, _)| *given && *source != self.r#type) {
            return Err(format!("type is {:?}, but there is a section {other}", self.r#type));
        }
        let (name, target, object, identifier) = match self.r#type {
            SourceType::Pods => {
                let it = self.pods.as_ref().ok_or_else(|| none("Pods"))?;
                (&it.metric.name, &it.target, None, Some(&it.metric))
            }
            SourceType::External => {
                let it = self.external.as_ref().ok_or_else(|| none("External"))?;
                (&it.metric.name, &it.target, None, Some(&it.metric))
            }
            SourceType::Object => {
                let it = self.object.as_ref().ok_or_else(|| none("Object"))?;
                (&it.metric.name, &it.target, Some(&it.described_object), Some(&it.metric))
            }
            SourceType::Resource => {
                let it = self.resource.as_ref().ok_or_else(|| none("Resource"))?;
                (&it.name, &it.target, None, None)
            }
            SourceType::ContainerResource => {
                let it = self.container_resource.as_ref().ok_or_else(|| none("ContainerResource"))?;
                it.container.as_ref().filter(|it| !it.is_empty()).ok_or("container must be given")?;
                (&it.name, &it.target, None, None)
            }
        };
        if object.is_some_and(|it: &ObjectRef| !it.is_named()) {
            return Err("describedObject must have a kind and a name, without / and %".to_owned());
        }
        if let Some(identifier) = identifier {
            identifier.check()?;
        } else if name.is_empty() {
            return Err("name must be given".to_owned());
        }
        let goal = target.goal(self.r#type)?;
        Ok(Metric { source: self.r#type, name, goal, object, selector: identifier.map(|it| &it.selector) })
    }
}

impl Target {
    /// What the controller compares: it goes by which value is set, and for objects by the type as well (horizontal.go,
    /// `computeStatusFor*`).
    fn goal(&self, source: SourceType) -> Result<Goal, String> {
        let positive = |value: Milli, name: &str| {
            if value.0 > 0 { Ok(value) } else { Err(format!("target.{name} must be positive")) }
        };
        if !matches!(self.r#type.as_str(), "Utilization" | "Value" | "AverageValue") {
            return Err(format!("target.type is {:?}: it must be Utilization, Value or AverageValue", self.r#type));
        }
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
