//! What is said of pods to the rest of the agent. Knows nothing of how it is known.

use std::sync::Arc;

use serde::Serialize;

use super::workload::Workload;

/// Where a measured process is, and how it is to be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    /// The pod's namespace.
    pub(crate) namespace: Arc<str>,
    /// The pod's name.
    pub(crate) pod: Arc<str>,
    /// The pod's uid: a StatefulSet's next pod has the same name, and is another.
    pub(crate) uid: Arc<str>,
    /// The container's name.
    pub(crate) container: Arc<str>,
    /// The container's image, as the pod names it.
    pub(crate) image: Arc<str>,
    /// What runs the pod.
    pub(crate) workload: Option<Arc<Workload>>,
    /// Chosen labels of the pod, by their names as metrics have them.
    pub(crate) labels: Arc<[(&'static str, String)]>,
    /// `gopulse.io/features`, checked.
    pub(crate) features: Option<Arc<str>>,
    /// `gopulse.io/budget`, checked.
    pub(crate) budget: Option<Arc<str>>,
    /// `gopulse.io/routes`.
    pub(crate) routes: Arc<[String]>,
}

/// What is known of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// No pod of this node is known to have it: it is not yet known, or is no pod's.
    Unknown,
    /// It is not measured, and why.
    Refused(&'static str),
    /// It is measured.
    Wanted(Arc<Placement>),
}

/// What is wrong with a pod's or a namespace's annotations, as `/targets` shows it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PodProblems {
    pub(super) namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pod: Option<String>,
    pub(super) state: &'static str,
    pub(super) problems: Vec<String>,
}

/// A pod that asks to be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AskedPod {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
    /// Why it is not measured all the same.
    pub(crate) refused: Option<&'static str>,
}

/// How the watches of the API server do.
#[derive(Clone, Debug, Default)]
pub(crate) struct WatchFigures {
    /// Pods known.
    pub(crate) pods: u64,
    /// By resource: whether it is watched now, and errors so far.
    pub(crate) watches: Vec<(&'static str, bool, u64)>,
    /// Events written, by result.
    pub(crate) events: Vec<(&'static str, u64)>,
}
