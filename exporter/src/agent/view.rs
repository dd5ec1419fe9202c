//! What `/targets` says of each target.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use super::{
    Agent,
    groups::{Group, GroupKey},
    registry::{Stage, Target},
};
use crate::{
    kernel::{Method, Probe},
    kubernetes::{Placement, PodProblems},
    target::{Change, Disabled, Part, PlannedProbe, RouteSource, Unmeasured, part_names},
};

/// One line of `/targets`.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Line {
    /// A target.
    Target(Box<TargetView>),
    /// A process that is no target because of how it runs.
    Passed(ProcessView),
    /// A pod or a namespace with annotations that could not be used.
    Refused(PodProblems),
}

/// A process, as JSON shows it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProcessView {
    /// The pod's namespace, in Kubernetes mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
    /// Process id.
    pid: u32,
    /// Where its executable was when it started.
    executable: String,
    /// `preparing`, `measured`, `unsupported`, `failed` or `gone`.
    state: &'static str,
    /// Why it is not measured, or not yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl ProcessView {
    pub(super) fn new(
        placement: Option<&Placement>,
        pid: u32,
        executable: &Path,
        state: &'static str,
        reason: Option<String>,
    ) -> Self {
        Self {
            namespace: placement.map(|it| it.namespace.to_string()),
            pod: placement.map(|it| it.pod.to_string()),
            container: placement.map(|it| it.container.to_string()),
            pid,
            executable: executable.display().to_string(),
            state,
            reason,
        }
    }
}

/// One target, as JSON shows it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TargetView {
    #[serde(flatten)]
    process: ProcessView,
    /// Since when it is known, seconds since 1970.
    since_unix_seconds: f64,
    /// How probes are attached.
    attach_method: Method,
    /// What the kernel is without, and what is done instead.
    kernel_lacks: Vec<&'static str>,
    /// Whether its probes are its own or those of all processes of its file, which keeps its content.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe_scope: Option<&'static str>,
    /// How often its code was found without its probes.
    #[serde(skip_serializing_if = "is_zero")]
    code_replaced: u32,
    /// Which of its figures are not of now, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stale: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    go_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    main_module: Option<String>,
    /// Where function addresses are from.
    #[serde(skip_serializing_if = "Option::is_none")]
    functions_from: Option<String>,
    /// Where struct offsets are from.
    #[serde(skip_serializing_if = "Option::is_none")]
    layouts_from: Option<String>,
    /// How long reading the executable took.
    #[serde(skip_serializing_if = "Option::is_none")]
    inspection_seconds: Option<f64>,
    probes: Vec<ProbeView>,
    /// What is off, and why.
    disabled: Vec<Disabled>,
    /// What the program has no code for.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "part_names")]
    not_used: Vec<Part>,
    /// Servers in it whose requests are not measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_measured: Vec<Unmeasured>,
    /// Routers in it, and where their routes come from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes_from: Vec<RouteSource>,
}

#[derive(Clone, Debug, Serialize)]
struct ProbeView {
    attached: bool,
    #[serde(flatten)]
    planned: PlannedProbe,
}

/// What is shown of a group of links.
struct GroupView {
    is_of_process: bool,
    sites: Vec<(Probe, u64)>,
    blocking_error: Option<String>,
}

impl GroupView {
    fn of(key: &GroupKey, group: &Group) -> Self {
        Self {
            is_of_process: key.pid.is_some(),
            sites: group.all_sites().collect(),
            blocking_error: group.blocking_error.clone(),
        }
    }
}

impl Agent {
    /// Every target.
    pub(super) fn views(&self) -> Vec<TargetView> {
        // Under the lock no more than copies: it is of all targets.
        let (targets, groups) = {
            let state = self.state();
            let groups: Vec<_> = state.groups.iter().map(|(key, group)| (*key, GroupView::of(key, group))).collect();
            (state.targets.clone(), groups)
        };
        let groups: HashMap<GroupKey, GroupView> = groups.into_iter().collect();
        let unreadable = self.ledger().unreadable();
        let stale: Vec<String> = unreadable.into_iter().map(|(map, since)| stale(map, since.elapsed())).collect();
        targets.values().map(|target| self.view(target, groups.get(&target.group), &stale)).collect()
    }

    fn view(&self, target: &Target, group: Option<&GroupView>, stale: &[String]) -> TargetView {
        let inspection = target.inspection.as_deref();
        let sites: HashSet<(Probe, u64)> = group.iter().flat_map(|group| &group.sites).copied().collect();
        let probe = |it: &PlannedProbe| ProbeView {
            attached: sites.contains(&(it.probe, it.file_offset)),
            planned: it.clone(),
        };
        let reason = match &target.stage {
            Stage::Unsupported(reason) | Stage::Failed(reason) => Some(reason.clone()),
            // Where that takes long.
            Stage::Preparing => self.inner.turns.told(target.id),
            _ => None,
        };
        let (placement, process) = (target.placement.as_deref(), &target.process);
        TargetView {
            process: ProcessView::new(placement, process.id.pid, &process.executable, target.stage.name(), reason),
            since_unix_seconds: seconds(target.since),
            attach_method: self.inner.kernel.method(),
            kernel_lacks: self.inner.kernel.lacks().to_vec(),
            probe_scope: group.map(|group| if group.is_of_process { "process" } else { "file" }),
            code_replaced: target.code.replaced,
            stale: stale.to_vec(),
            go_version: inspection.map(|it| it.go_version.clone()),
            main_module: inspection.map(|it| it.main_module.clone()),
            functions_from: inspection.map(|it| it.functions_from.clone()),
            layouts_from: inspection.map(|it| it.layouts_from.clone()),
            inspection_seconds: inspection.map(|it| it.seconds),
            probes: inspection.map_or_else(Vec::new, |it| it.probes.iter().map(probe).collect()),
            disabled: disabled(target, group),
            not_used: inspection.map_or_else(Vec::new, |it| it.not_used.clone()),
            not_measured: inspection.map_or_else(Vec::new, |it| it.not_measured.clone()),
            routes_from: inspection.map_or_else(Vec::new, |it| it.routes_from.clone()),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// What is said of figures that are made of a map which cannot be read.
fn stale(map: &str, since: Duration) -> String {
    format!("the kernel's map {map} cannot be read for {} s: figures of it are as they were then", since.as_secs())
}

/// What is off by what the executable is, and by what the kernel refused.
fn disabled(target: &Target, group: Option<&GroupView>) -> Vec<Disabled> {
    let mut disabled = target.inspection.as_ref().map_or_else(Vec::new, |it| it.disabled.clone());
    let since = |change: &Change| format!("{} since it was probed: it is not seen there", change.reason);
    let changes = target.code.changes.iter();
    disabled.extend(changes.map(|it| Disabled { part: it.part, reason: since(it) }));
    if let Some(error) = group.and_then(|group| group.blocking_error.as_ref()) {
        disabled.push(Disabled { part: Part::Blocking, reason: error.clone() });
    }
    disabled
}
