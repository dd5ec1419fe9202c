//! Processes that are selected, or would be, and are no targets because of how they run: `/targets` says why, so that nobody waits
//! for their figures in vain. Knows nothing of what is measured of targets.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Agent, turns::Who, view::ProcessView};
use crate::{
    kubernetes::{Found, Placement, Pods},
    process::{self, Process, ProcessId},
};

/// How long an executable may take to be read before that is told.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most processes that are told of.
const MOST: usize = 1024;

/// Why a process is no target.
#[derive(Clone, Debug)]
struct Passed {
    id: ProcessId,
    executable: PathBuf,
    reason: String,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct AllPassed(BTreeMap<u32, Passed>);

impl AllPassed {
    pub(super) fn note(&mut self, process: &Process, reason: String) {
        if self.0.len() < MOST {
            let passed = Passed { id: process.id, executable: process.executable.clone(), reason };
            self.0.insert(process.id.pid, passed);
        }
    }

    pub(super) fn retain(&mut self, present: &HashSet<u32>) {
        self.0.retain(|pid, _| present.contains(pid));
    }
}

impl Agent {
    /// Tells of a process that runs the dynamic linker, if the program which that has mapped is Go. Where it cannot be seen which
    /// program that is, only those in pods that opted in are told of.
    pub(super) fn see_through_linker(&self, process: &Process) {
        if !process.is_linker() {
            return;
        }
        let process = process.clone();
        self.elsewhere(Who::of(&process), None, move |agent| {
            let through =
                "it was started through the dynamic linker, which is what the process runs: start the program itself";
            let reason = match process.linked_program() {
                Ok(Some((path, file))) => {
                    if !gobinary::is_go(file).unwrap_or(false) {
                        return;
                    }
                    format!("{} is a Go program, but {through}", crate::visible::lines(&path.display().to_string()))
                }
                Err(_) if agent.inner.pods.is_some() => through.to_owned(),
                Ok(None) | Err(_) => return,
            };
            agent.state().passed.note(&process, reason);
        });
    }

    /// Those that are told of now: in Kubernetes mode those in pods that opted in.
    pub(super) fn passed(&self) -> Vec<ProcessView> {
        let (passed, late) = {
            let state = self.state();
            let passed: Vec<Passed> = state.passed.0.values().cloned().collect();
            (passed, state.files.late(Instant::now(), PATIENCE))
        };
        let waiting = late.into_iter().take(MOST).map(|(process, waited)| Passed {
            id: process.id,
            executable: process.executable,
            reason: format!(
                "waiting for {} s for its executable's file system, which does not answer: others go on without it",
                waited.as_secs()
            ),
        });
        let passed = passed.into_iter().map(|it| ("unsupported", it));
        let waiting = waiting.map(|it| ("preparing", it));
        let there = |id: &ProcessId| Process::find(id.pid).is_ok_and(|now| now.id == *id);
        passed
            .chain(waiting)
            .filter(|(_, it)| there(&it.id))
            .filter_map(|(state, it)| {
                let placement = match &self.inner.pods {
                    Some(pods) => Some(wanted(pods, it.id.pid)?),
                    None => None,
                };
                let placement = placement.as_deref();
                Some(ProcessView::new(placement, it.id.pid, &it.executable, state, Some(it.reason)))
            })
            .collect()
    }
}

fn wanted(pods: &Pods, pid: u32) -> Option<Arc<Placement>> {
    match pods.find(&process::containers_of(pid)) {
        Found::Wanted(placement) => Some(placement),
        _ => None,
    }
}
