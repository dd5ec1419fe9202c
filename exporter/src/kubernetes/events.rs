//! Kubernetes Events: how whoever wrote an annotation is told what is wrong with it (`kubectl describe pod`).

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tracing::{debug, warn};

use super::pods::Pods;

/// Bytes of a message at most (`v1.Event`, pkg/apis/core/validation/events.go, NoteLengthLimit).
const MESSAGE: usize = 1024;

/// Writes one Event for these problems of a pod. Its name is made of the pod and the text: after a restart of the agent the same
/// problem is not told twice while the first Event is kept.
pub(super) async fn tell(client: Client, pods: Pods, node: String, pod: ObjectMeta, problems: Arc<[String]>) {
    let (Some(namespace), Some(name)) = (pod.namespace, pod.name) else { return };
    let mut message = problems.join("; ");
    message.truncate(message.floor_char_boundary(MESSAGE));
    let mut hasher = DefaultHasher::new();
    (&pod.uid, &message).hash(&mut hasher);
    let now = Time(Timestamp::now());
    let event = Event {
        metadata: ObjectMeta {
            // A pod's name has at most 253 bytes, as an Event's.
            name: Some(format!(
                "{}.{:016x}",
                &name[..name.len().min(236)].trim_end_matches(['.', '-']),
                hasher.finish()
            )),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(namespace.clone()),
            name: Some(name),
            uid: pod.uid,
            ..ObjectReference::default()
        },
        reason: Some("AnnotationRefused".into()),
        message: Some(message),
        type_: Some("Warning".into()),
        source: Some(EventSource { component: Some("gopulse".into()), host: Some(node) }),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        count: Some(1),
        ..Event::default()
    };
    let api: Api<Event> = Api::namespaced(client, &namespace);
    match api.create(&PostParams::default(), &event).await {
        Ok(_) => pods.count_event(true),
        Err(kube::Error::Api(status)) if status.code == 409 => debug!("this Event is there already"),
        Err(error) => {
            warn!(%error, namespace, "an Event could not be written");
            pods.count_event(false);
        }
    }
}
