//! Reads executables and attaches links, on threads that may wait for file systems, memory and the kernel; what came of it goes
//! to the registry as a message.

use std::{collections::BTreeSet, io::ErrorKind, sync::Arc};

use exporter_ebpf::facts::Facts;
use tracing::{info, warn};

use super::{
    Agent,
    follow::Message,
    links::{Leaving, attach_all, on_inspected, scope, wait_for_leaving},
    registry::{Attach, Attached, Holds, Inspected, Verdict},
    turns::Who,
};
use crate::{
    kernel::Kernel,
    process::{Process, is_lasting},
    target::{Change, Feature, Features, Inspection, PlannedProbe, Sites, inspect},
};

/// What came of attaching links.
pub(super) struct Outcome {
    pub(super) attached: Attached,
    /// Until the outcome is dropped, nothing else is attached to the process.
    pub(super) _underway: Option<Leaving>,
}

impl Agent {
    /// Whose turn a target takes.
    fn whose(&self, id: u32, process: &Process) -> Who {
        let known = self.state().targets.get(&id).map(Who::of_target);
        known.unwrap_or_else(|| Who::of(process))
    }

    /// Reads a new target's executable, on another thread, unless what is in it is known.
    pub(super) fn inspect(&self, id: u32, attempt: u32, process: Process, known: Option<Verdict>) {
        let sites = self.inner.config.bench_sites;
        let of_an_image = self.inner.pods.is_some();
        let (who, of) = (self.whose(id, &process), process.clone());
        // What is read once more is read because what is known of its file does not hold for it.
        let (is_known, is_new) = (known.is_some(), attempt == 1);
        let work = move |agent: &Self| {
            let known = known.or_else(|| is_new.then(|| agent.state().files.known(&process))?);
            // Another file may look like the one that was inspected.
            let known = known.filter(|verdict| match verdict {
                Ok(inspection) => process.hold(&inspection.code).is_ok(),
                Err(_) => true,
            });
            let (mut verdict, mut holds) =
                known.map_or_else(|| look_inside(&process, sites), |verdict| (verdict, Holds::OfFile));
            let features = agent.state().targets.get(&id).map(|target| target.features);
            verdict = verdict.map(|it| without_refused(&agent.inner.kernel, it, features.unwrap_or_default()));
            let mut changes = BTreeSet::new();
            match verdict.as_ref().map(|inspection| changes_in(inspection, &process)) {
                Ok(Ok(found)) => changes = found,
                Ok(Err(reason)) => (verdict, holds) = (Err(reason), Holds::Now),
                Err(_) => {}
            }
            if !is_known {
                crate::heap::give_back();
            }
            let others = agent.state().targets.get(&id).is_some_and(|target| target.others);
            let may_share = others
                && changes.is_empty()
                && process.open().is_ok_and(|file| is_lasting(&process, &file, of_an_image));
            // Before the kernel side has the target: what is attached still would count for it.
            if verdict.is_ok() && !wait_for_leaving(&process) {
                let still =
                    "probes that were attached to it before are still being detached: the kernel waits for its memory";
                (verdict, holds) = (Err(still.into()), Holds::Now);
            }
            let nothing = ((0, 0), Facts::NONE);
            let (literals, facts) = verdict.as_ref().map_or(nothing, |it| it.in_process(process.id.pid));
            let is_there = process.is_there();
            let outcome =
                Inspected { id, attempt, process, verdict, holds, changes, may_share, is_there, facts, literals };
            agent.send(Message::Inspected(Box::new(outcome)));
        };
        if is_known || !is_new {
            self.elsewhere(who, Some(id), work);
        } else {
            self.read_elsewhere(who, id, of, work);
        }
    }

    /// Attaches what a group lacks, on another thread.
    pub(super) fn attach(&self, attach: Attach) {
        let Attach { id, key, missing, inspection, process } = attach;
        let underway = Leaving::underway(key);
        self.elsewhere(self.whose(id, &process), Some(id), move |agent| {
            // What blocks is attached when the budget allows.
            let wanted = |it: &PlannedProbe| {
                let feature = it.feature();
                missing.features.has(feature) && !missing.had.has(feature) && feature != Feature::Blocking
            };
            let reached = agent.reached(key, process);
            // More may be asked for than when it was inspected.
            let inspection = without_refused(&agent.inner.kernel, inspection, missing.features);
            let links = attach_all(&agent.inner.kernel, &inspection, &reached, key, wanted);
            let attached = Attached { id, key, missing, links };
            agent.send(Message::Attached(Box::new(Outcome { attached, _underway: underway })));
        });
    }

    /// Attaches the ServeMux probe of a target whose middleware copies requests.
    pub(super) fn attach_mux(&self, id: u32) {
        let Some(target) = self.state().targets.share(id).filter(|it| !it.wants_mux) else { return };
        if let Some(target) = self.state().targets.get_mut(&id) {
            target.wants_mux = true;
        }
        let who = Who::of_target(&target);
        self.elsewhere(who, None, move |agent| {
            let found = {
                let state = agent.state();
                state.targets.get(&id).and_then(|target| {
                    let key = target.group;
                    let planned = target.inspection.as_ref()?.probes.iter().find(|it| it.on_demand)?.clone();
                    let wanted = state.groups.get(&key).is_some_and(|group| !group.has(&planned));
                    let inspection = target.inspection.clone()?;
                    wanted.then(|| (key, planned, target.process.clone(), inspection))
                })
            };
            let Some((key, planned, process, inspection)) = found else { return };
            let reached = agent.reached(key, process);
            let kernel = &agent.inner.kernel;
            let attached = on_inspected(&reached, &inspection, &[&planned], |exe| {
                kernel.attach(planned.probe, exe, &[planned.file_offset], scope(&key))
            });
            match attached {
                Err(error) => warn!(%error, "the ServeMux probe is off: routes are folded from paths"),
                Ok(link) => {
                    info!(function = planned.function, "attached: requests are copied before they are routed");
                    let unused = {
                        let mut state = agent.state();
                        match state.groups.get_mut(&key) {
                            Some(group) if !group.has(&planned) => {
                                group.links.push((planned.probe, planned.file_offset, link));
                                None
                            }
                            _ => Some(link),
                        }
                    };
                    // Detaching blocks.
                    drop(unused);
                }
            }
        });
    }
}

/// What can be measured where the kernel refuses some of the programs.
fn without_refused(kernel: &Kernel, inspection: Arc<Inspection>, features: Features) -> Arc<Inspection> {
    let refusal = |it: &PlannedProbe| kernel.refusal(it.probe).map(|reason| Change::new(it, &reason));
    let asked_for = inspection.probes.iter().filter(|it| features.has(it.feature()));
    let refused: BTreeSet<Change> = asked_for.filter_map(refusal).collect();
    if refused.is_empty() { inspection } else { Arc::new(inspection.without(&refused)) }
}

/// What the process has changed of the code that is to be probed; why that cannot be told now.
fn changes_in(inspection: &Inspection, process: &Process) -> Result<BTreeSet<Change>, String> {
    let changes = inspection.changes_in(process, |_| true).map_err(|error| match error.kind() {
        ErrorKind::NotFound => "the process ended".into(),
        _ => format!("its code cannot be compared with its file's: {error}"),
    })?;
    // Soon it is changed, or as it was.
    changes.iter().find(|it| it.is_writable).map_or(Ok(()), |change| Err(change.reason.clone()))?;
    Ok(changes)
}

/// What is in the executable, and for what that holds.
fn look_inside(process: &Process, sites: Sites) -> (Verdict, Holds) {
    let unreadable = |error: std::io::Error| {
        let holds = if error.kind() == std::io::ErrorKind::Unsupported { Holds::OfProcess } else { Holds::Now };
        (Err(format!("cannot read the executable: {error}")), holds)
    };
    let (file, again) = match process.open().and_then(|file| Ok((file.try_clone()?, file))) {
        Ok(opened) => opened,
        Err(error) => return unreadable(error),
    };
    match inspect(file, sites) {
        Ok(mut inspection) => {
            if let Err(error) = inspection.remember_code(&again) {
                return unreadable(error);
            }
            // These are for people; kept for many executables they would be most of the agent's memory.
            inspection.modules = Vec::new();
            inspection.settings = Vec::new();
            (Ok(Arc::new(inspection)), Holds::OfFile)
        }
        Err(error) => (Err(error.to_string()), Holds::OfFile),
    }
}
