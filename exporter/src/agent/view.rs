//! What `/targets` says of each target.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use super::{
    links::Group,
    state::{Stage, State, Target},
};
use crate::{
    kernel::Method,
    kubernetes::{Placement, PodProblems},
    target::{Change, Disabled, Part, PlannedProbe, Unmeasured},
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_used: Vec<Feature>,
    /// Servers in it whose requests are not measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_measured: Vec<Unmeasured>,
}

#[derive(Clone, Debug, Serialize)]
struct ProbeView {
    attached: bool,
    #[serde(flatten)]
    planned: PlannedProbe,
}

impl State {
    /// Every target; `waits_for` says by its id why nothing comes of one, where that takes long.
    pub(super) fn views(
        &self,
        method: Method,
        lacks: &[&'static str],
        waits_for: impl Fn(u32) -> Option<String>,
    ) -> Vec<TargetView> {
        self.targets
            .values()
            .map(|target| {
                let inspection = target.inspection.as_deref();
                let group = self.groups.get(&target.group);
                let probes = inspection.map_or_else(Vec::new, |inspection| {
                    let attached = |probe: &PlannedProbe| group.is_some_and(|group| group.has(probe));
                    inspection
                        .probes
                        .iter()
                        .map(|it| ProbeView { attached: attached(it), planned: it.clone() })
                        .collect()
                });
                let reason = match &target.stage {
                    Stage::Unsupported(reason) | Stage::Failed(reason) => Some(reason.clone()),
                    Stage::Preparing => waits_for(target.id),
                    _ => None,
                };
                let (placement, process) = (target.placement.as_deref(), &target.process);
                TargetView {
                    process: ProcessView::new(
                        placement,
                        process.id.pid,
                        &process.executable,
                        target.stage.name(),
                        reason,
                    ),
                    since_unix_seconds: seconds(target.since),
                    attach_method: method,
                    kernel_lacks: lacks.to_vec(),
                    probe_scope: group.map(|_| if target.group.pid.is_some() { "process" } else { "file" }),
                    code_replaced: target.code.replaced,
                    go_version: inspection.map(|it| it.go_version.clone()),
                    main_module: inspection.map(|it| it.main_module.clone()),
                    functions_from: inspection.map(|it| it.functions_from.clone()),
                    layouts_from: inspection.map(|it| it.layouts_from.clone()),
                    inspection_seconds: inspection.map(|it| it.seconds),
                    probes,
                    disabled: disabled(target, group),
                    not_used: inspection.map_or_else(Vec::new, |it| it.not_used.clone()),
                    not_measured: inspection.map_or_else(Vec::new, |it| it.not_measured.clone()),
                }
            })
            .collect()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// What is off by what the executable is, and by what the kernel refused.
fn disabled(target: &Target, group: Option<&Group>) -> Vec<Disabled> {
    let mut disabled = target.inspection.as_ref().map_or_else(Vec::new, |it| it.disabled.clone());
    let since = |change: &Change| format!("{} since it was probed: it is not seen there", change.reason);
    let changes = target.code.changes.iter();
    disabled.extend(changes.map(|it| Disabled { part: it.part, reason: since(it) }));
    if let Some(error) = group.and_then(|group| group.blocking_error.as_ref()) {
        disabled.push(Disabled { part: Part::Blocking, reason: error.clone() });
    }
    disabled
}
