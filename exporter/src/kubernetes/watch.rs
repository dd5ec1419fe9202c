//! The two watches: pods of this node, and namespaces by their metadata. They go on for ever; while the API server is away they
//! try again, soon and then every few seconds.

use std::{
    collections::HashSet,
    pin::pin,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt as _,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt as _, utils::Backoff, watcher, watcher::Event},
};
use tracing::{debug, info, warn};

use super::{
    events, object,
    pods::{Change, Effect, Pods, Watched},
};

/// A watch is begun anew after this time, so that a connection that died silently is noticed.
pub(super) const WATCH_SECONDS: u32 = 120;
/// Namespaces of one page of a list: their metadata is held while it is read.
const PAGE: u32 = 200;
/// A watch that has not failed for this long after it failed last, longer than a connection attempt and a pause together, goes
/// on if the API server answers.
const QUIET: Duration = Duration::from_secs(11);

/// Watches for ever. `changed` is told of containers that are to be looked at again.
pub(crate) async fn run(client: Client, node: &str, pods: Pods, changed: impl Fn(Change)) {
    tokio::join!(
        watch_pods(&client, node, &pods, &changed),
        watch_namespaces(&client, &pods, &changed),
        note_recovery(&client, &pods),
    );
}

async fn watch_pods(client: &Client, node: &str, pods: &Pods, changed: &impl Fn(Change)) {
    let api: Api<object::Pod> = Api::all(client.clone());
    // From the API server's memory, as kubelets do: a list from etcd would read all pods of the cluster.
    let config =
        watcher::Config::default().fields(&format!("spec.nodeName={node}")).timeout(WATCH_SECONDS).any_semantic();
    let mut stream = pin!(watcher(api, config).backoff(Pause::default()));
    let mut listed = HashSet::new();
    while let Some(event) = stream.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                failed(pods, Watched::Pods, &error);
                continue;
            }
        };
        succeeded(pods, Watched::Pods);
        let (effect, object) = match event {
            Event::Init => {
                listed.clear();
                continue;
            }
            Event::InitDone => (pods.listed(&std::mem::take(&mut listed)), None),
            Event::InitApply(pod) => {
                listed.extend(pod.uid());
                (pods.apply(&pod), Some(pod))
            }
            Event::Apply(pod) => (pods.apply(&pod), Some(pod)),
            Event::Delete(pod) => (pods.delete(&pod.uid().unwrap_or_default()), None),
        };
        let Effect { changed: containers, told } = effect;
        if !containers.is_empty() {
            changed(containers);
        }
        if let (Some(told), Some(pod)) = (told, object) {
            warn!(namespace = pod.namespace(), pod = pod.name_any(), problems = told.join("; "), "annotations refused");
            tokio::spawn(events::tell(client.clone(), pods.clone(), node.to_owned(), pod.metadata, told));
        }
    }
}

async fn watch_namespaces(client: &Client, pods: &Pods, changed: &impl Fn(Change)) {
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
    let config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
    let mut stream = pin!(watcher(api, config).backoff(Pause::default()));
    let mut listed = HashSet::new();
    while let Some(event) = stream.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                failed(pods, Watched::Namespaces, &error);
                continue;
            }
        };
        succeeded(pods, Watched::Namespaces);
        let effect = match event {
            Event::Init => {
                listed.clear();
                continue;
            }
            Event::InitDone => pods.namespaces_listed(&std::mem::take(&mut listed)),
            Event::InitApply(it) => {
                listed.insert(it.name_any());
                pods.namespace(&it.name_any(), Some(&it.metadata))
            }
            Event::Apply(it) => pods.namespace(&it.name_any(), Some(&it.metadata)),
            Event::Delete(it) => pods.namespace(&it.name_any(), None),
        };
        if let Some(told) = effect.told {
            warn!(problems = told.join("; "), "a namespace's annotations refused");
        }
        if !effect.changed.is_empty() {
            changed(effect.changed);
        }
    }
}

fn failed(pods: &Pods, watched: Watched, error: &watcher::Error) {
    let text = chain(error);
    let first = pods.watch(watched, |watch| {
        watch.errors += 1;
        watch.failed = Some(Instant::now());
        let since = watch.down.as_ref().map(|(since, _)| *since);
        watch.down = Some((since.unwrap_or_else(Instant::now), text.clone()));
        since.is_none()
    });
    if first {
        warn!(?watched, error = text, "the API server cannot be watched: what is known stands");
    } else {
        debug!(?watched, error = text, "still not watched");
    }
}

fn succeeded(pods: &Pods, watched: Watched) {
    if pods.watch(watched, |watch| watch.down.take()).is_some() {
        info!(?watched, "watched again");
    }
}

/// A watch that goes on where it was says nothing until something happens. So where one has failed, and not again for a while,
/// the API server is asked whether it is there.
async fn note_recovery(client: &Client, pods: &Pods) {
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let quiet = [Watched::Pods, Watched::Namespaces].into_iter().filter(|watched| {
            pods.watch(*watched, |watch| {
                watch.synced && watch.down.is_some() && watch.failed.is_some_and(|at| at.elapsed() > QUIET)
            })
        });
        let quiet: Vec<Watched> = quiet.collect();
        if !quiet.is_empty() && client.apiserver_version().await.is_ok() {
            for watched in quiet {
                succeeded(pods, watched);
            }
        }
    }
}

/// An error with its causes, on one line and not longer than a line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = cause.source();
    }
    text.replace('\n', " ").chars().take(300).collect()
}

/// Pauses between attempts: 0.25 s to 4 s, the longest spread so that nodes do not come all at once.
#[derive(Default)]
struct Pause {
    attempt: u32,
}

impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let base = Duration::from_millis(250) * (1 << self.attempt.min(4));
        self.attempt += 1;
        Some(base.mul_f64(0.75 + 0.25 * spread()))
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {
        self.attempt = 0;
    }
}

/// Something between 0 and 1 that differs between nodes and moments.
fn spread() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    (RandomState::new().hash_one(0) % 1024) as f64 / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_few_seconds_and_begin_anew() {
        let mut pause = Pause::default();
        let pauses: Vec<Duration> = pause.by_ref().take(20).collect();
        assert!(pauses[0] <= Duration::from_millis(250));
        assert!(pauses.iter().all(|it| *it <= Duration::from_secs(4)));
        assert!(pauses[19] >= Duration::from_secs(3));
        pause.reset();
        assert!(pause.next().unwrap() <= Duration::from_millis(250));
    }
}
