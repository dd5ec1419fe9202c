//! What an object of the API server says of a pod, in the form in which it is kept.

use std::{collections::BTreeMap, sync::Arc};

use super::{Pod, Pods};
use crate::{
    kubernetes::{annotations, object, workload::Workload},
    process::ContainerId,
};

impl Pods {
    pub(super) fn read(&self, pod: &object::Pod) -> Option<Pod> {
        let (spec, status) = (&pod.spec, &pod.status);
        let containers: Vec<(Arc<str>, Arc<str>)> =
            [&spec.containers, &spec.init_containers, &spec.ephemeral_containers]
                .into_iter()
                .flatten()
                .map(|it| (it.name.as_str().into(), it.image.as_str().into()))
                .collect();
        let mut ids = Vec::new();
        let statuses = [&status.containers, &status.init_containers, &status.ephemeral_containers];
        for it in statuses.into_iter().flatten() {
            let Some(place) = containers.iter().position(|(name, _)| **name == *it.name) else { continue };
            let ended = |state: &object::State| state.terminated.as_ref().and_then(|it| it.container_id.clone());
            // A container that restarts: the one before may still be there.
            for id in [it.container_id.clone(), ended(&it.state), ended(&it.last_state)].into_iter().flatten() {
                if let Some(id) = ContainerId::of_status(&id)
                    && !ids.contains(&(id, place))
                {
                    ids.push((id, place));
                }
            }
        }
        let none = BTreeMap::new();
        let names: Vec<&str> = containers.iter().map(|(name, _)| &**name).collect();
        let mut problems = Vec::new();
        let annotations = pod.metadata.annotations.as_ref().unwrap_or(&none);
        let mut asked = annotations::of_pod(annotations, &names, self.checks, &mut problems);
        let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
        Some(Pod {
            namespace: pod.metadata.namespace.as_deref()?.into(),
            name: pod.metadata.name.as_deref()?.into(),
            routes: std::mem::take(&mut asked.routes).into(),
            asked,
            workload: Workload::of(&pod.metadata).map(Arc::new),
            labels: self.chosen.iter().filter_map(|(label, name)| Some((*name, labels.get(label)?.clone()))).collect(),
            containers,
            ids,
            problems: problems.into(),
        })
    }
}
