//! Which pods there are, and their labels: pods of the whole cluster by their metadata alone. Label sets are shared, since pods
//! of a workload have the same.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, core::PartialObjectMeta, runtime::watcher, runtime::watcher::Event};

use super::{follow::follow, owner, selector::Selector};

/// A pod's labels.
pub(crate) type Labels = Arc<BTreeMap<String, String>>;

/// The pods. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Directory(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    synced: bool,
    pods: Pods,
    /// Of a list that is under way.
    listing: Option<Pods>,
    shared: HashSet<Labels>,
}

type Pods = HashMap<Box<str>, HashMap<Box<str>, Labels>>;

impl Directory {
    /// Follows the cluster's pods for ever.
    pub(crate) async fn run(self, client: Client) {
        let api: Api<PartialObjectMeta<Pod>> = Api::all(client);
        follow("pods", api, watcher::Config::default().any_semantic(), |event| self.take(event)).await;
    }

    /// Whether the first list is complete.
    pub(crate) fn is_synced(&self) -> bool {
        self.lock().synced
    }

    /// How many pods there are.
    pub(crate) fn len(&self) -> usize {
        self.lock().pods.values().map(HashMap::len).sum()
    }

    /// Names of a namespace's pods whose labels fulfil a selector.
    pub(crate) fn select(&self, namespace: &str, selector: &Selector) -> Vec<Box<str>> {
        let inner = self.lock();
        let pods = inner.pods.get(namespace).into_iter().flatten();
        pods.filter(|(_, labels)| selector.matches(|name| labels.get(name).map(String::as_str)))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn take(&self, event: Event<PartialObjectMeta<Pod>>) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        match event {
            Event::Init => inner.listing = Some(Pods::new()),
            Event::InitApply(pod) | Event::Apply(pod) => inner.put(pod),
            Event::InitDone => {
                inner.pods = inner.listing.take().unwrap_or_default();
                inner.shared.retain(|it| Arc::strong_count(it) > 1);
                inner.synced = true;
            }
            Event::Delete(pod) => inner.remove(&pod),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn put(&mut self, pod: PartialObjectMeta<Pod>) {
        // Being deleted: it gets no more requests, and is not to hold others back.
        if pod.metadata.deletion_timestamp.is_some() {
            self.remove(&pod);
            return;
        }
        let (Some(namespace), Some(name)) = (pod.metadata.namespace, pod.metadata.name) else { return };
        let mut labels = pod.metadata.labels.unwrap_or_default();
        owner::label(&mut labels, pod.metadata.owner_references.as_deref().unwrap_or_default());
        let labels = Arc::new(labels);
        let labels = self.shared.get(&labels).cloned().unwrap_or_else(|| {
            self.shared.insert(labels.clone());
            labels
        });
        let pods = self.listing.as_mut().unwrap_or(&mut self.pods);
        pods.entry(namespace.into()).or_default().insert(name.into(), labels);
    }

    fn remove(&mut self, pod: &PartialObjectMeta<Pod>) {
        let (Some(namespace), Some(name)) = (&pod.metadata.namespace, &pod.metadata.name) else { return };
        let pods = self.listing.as_mut().unwrap_or(&mut self.pods);
        if let Some(of_namespace) = pods.get_mut(namespace.as_str()) {
            of_namespace.remove(name.as_str());
            if of_namespace.is_empty() {
                pods.remove(namespace.as_str());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::ObjectMeta;

    use super::*;

    fn pod(name: &str, app: &str) -> PartialObjectMeta<Pod> {
        let metadata = ObjectMeta {
            name: Some(name.into()),
            namespace: Some("shop".into()),
            labels: Some([("app".to_owned(), app.to_owned())].into()),
            ..ObjectMeta::default()
        };
        PartialObjectMeta { types: None, metadata, _phantom: std::marker::PhantomData }
    }

    #[test]
    fn what_a_list_does_not_have_is_gone_and_what_is_there_stands_until_it_is_complete() {
        let directory = Directory::default();
        let names = |selector: &str| {
            let mut names = directory.select("shop", &Selector::parse(selector).unwrap());
            names.sort();
            names.join(" ")
        };
        for event in [Event::Init, Event::InitApply(pod("a", "x")), Event::InitApply(pod("b", "y")), Event::InitDone] {
            directory.take(event);
        }
        assert!(directory.is_synced());
        directory.take(Event::Apply(pod("c", "x")));
        assert_eq!((names(""), names("app=x")), ("a b c".to_owned(), "a c".to_owned()));
        directory.take(Event::Init);
        directory.take(Event::InitApply(pod("b", "x")));
        assert_eq!(names(""), "a b c");
        directory.take(Event::InitDone);
        assert_eq!((names(""), names("app=x")), ("b".to_owned(), "b".to_owned()));
        directory.take(Event::Delete(pod("b", "x")));
        assert_eq!(directory.len(), 0);
        assert!(directory.lock().pods.is_empty());
    }
}
