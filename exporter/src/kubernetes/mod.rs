//! Pods of this node, what they opt in to, and by which labels they are known. Knows containers and annotations, and nothing of
//! processes, executables or probes. The API server is asked for this node's pods alone, and for namespaces' metadata; while it
//! cannot be reached, what is known stands.

mod annotations;
mod answers;
mod client;
mod events;
mod object;
mod placement;
mod pods;
mod policy;
mod review;
mod watch;
mod workload;

pub(crate) use self::{
    annotations::Checks,
    client::{client, in_cluster},
    placement::{Found, Placement, PodProblems, WatchFigures},
    pods::{Change, Pods},
    policy::{OptIn, Policy, Settings as PolicySettings},
    review::{Access, Reviewer},
    watch::run,
};
