//! Pods of this node, what they opt in to, and by which labels they are known. Knows containers and annotations, and nothing of
//! processes, executables or probes. The API server is asked for this node's pods alone, and for namespaces' metadata; while it
//! cannot be reached, what is known stands.
#![allow(dead_code, unused_imports, reason = "the agent does not use it yet")]

mod annotations;
mod client;
mod events;
mod object;
mod pods;
mod policy;
mod review;
mod watch;
mod workload;

pub(crate) use self::{
    annotations::Checks,
    client::{ClientError, client, in_cluster},
    pods::{Change, Found, Placement, PodProblems, Pods, WatchFigures},
    policy::{Policy, Settings as PolicySettings},
    review::{Access, Reviewer},
    watch::run,
};
