//! Takes over what the API server says of pods and namespaces, and what is to be looked at again because of it.

use std::{collections::HashSet, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Effect, Namespace, Pods, forget};
use crate::{
    kubernetes::{annotations, object},
    process::ContainerId,
};

impl Pods {
    /// A pod is as it is told here.
    pub(in crate::kubernetes) fn apply(&self, pod: &object::Pod) -> Effect {
        let (Some(uid), Some(read)) = (pod.metadata.uid.as_deref(), self.read(pod)) else { return Effect::default() };
        let uid: Arc<str> = uid.into();
        let mut guard = self.lock();
        let inner = &mut *guard;
        let told_before = inner.pods.get(&uid).is_some_and(|before| before.problems == read.problems);
        let told = (!told_before && !read.problems.is_empty()).then(|| read.problems.clone());
        let ids: HashSet<ContainerId> =
            inner.pods.get(&uid).into_iter().chain([&read]).flat_map(|pod| pod.ids.iter().map(|(id, _)| *id)).collect();
        let changed = self.changes(inner, ids, |inner| {
            forget(inner, &uid);
            for (id, place) in &read.ids {
                inner.containers.insert(*id, (uid.clone(), *place));
            }
            inner.pods.insert(uid.clone(), read);
        });
        Effect { changed, told }
    }

    /// A pod is gone.
    pub(in crate::kubernetes) fn delete(&self, uid: &str) -> Effect {
        let mut guard = self.lock();
        let ids = guard.pods.get(uid).map(|pod| pod.ids.iter().map(|(id, _)| *id).collect()).unwrap_or_default();
        Effect { changed: self.changes(&mut guard, ids, |inner| forget(inner, uid)), told: None }
    }

    /// All pods have been listed: those that were not are gone.
    pub(in crate::kubernetes) fn listed(&self, uids: &HashSet<String>) -> Effect {
        let mut guard = self.lock();
        let gone: Vec<Arc<str>> = guard.pods.keys().filter(|uid| !uids.contains(&***uid)).cloned().collect();
        let ids = gone.iter().flat_map(|uid| guard.pods[uid].ids.iter().map(|(id, _)| *id)).collect();
        let mut changed = self.changes(&mut guard, ids, |inner| gone.iter().for_each(|uid| forget(inner, uid)));
        if !guard.pods_watch.synced {
            guard.pods_watch.synced = true;
            changed.extend(guard.containers.keys());
        }
        Effect { changed, told: None }
    }

    /// A namespace is as it is told here; none of its metadata if it is gone.
    pub(in crate::kubernetes) fn namespace(&self, name: &str, metadata: Option<&ObjectMeta>) -> Effect {
        let mut problems = Vec::new();
        let enabled = metadata
            .and_then(|it| it.annotations.as_ref())
            .and_then(|annotations| annotations::enabled(annotations, &mut problems));
        let mut guard = self.lock();
        let of_it = guard.pods.values().filter(|pod| *pod.namespace == *name);
        let ids = of_it.flat_map(|pod| pod.ids.iter().map(|(id, _)| *id)).collect();
        let told = !problems.is_empty() && guard.namespaces.get(name).is_none_or(|it| *it.problems != *problems);
        let problems: Arc<[String]> = problems.into();
        let told = told.then(|| problems.clone());
        let changed = self.changes(&mut guard, ids, |inner| {
            if enabled.is_none() && problems.is_empty() {
                inner.namespaces.remove(name);
            } else {
                inner.namespaces.insert(name.to_owned(), Namespace { enabled, problems });
            }
        });
        Effect { changed, told }
    }

    /// All namespaces have been listed: those that were not are gone.
    pub(in crate::kubernetes) fn namespaces_listed(&self, names: &HashSet<String>) -> Effect {
        let gone: Vec<String> = self.lock().namespaces.keys().filter(|name| !names.contains(*name)).cloned().collect();
        let mut effect = Effect::default();
        for name in gone {
            effect.changed.extend(self.namespace(&name, None).changed);
        }
        let mut guard = self.lock();
        if !guard.namespaces_watch.synced {
            guard.namespaces_watch.synced = true;
            effect.changed.extend(guard.containers.keys());
        }
        effect
    }
}
