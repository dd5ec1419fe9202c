//! The life cycle of targets: what happened goes in as a method call, and what is to be done comes out as [`Effect`]s, in
//! order. Pure code: it knows neither the kernel nor /proc nor a clock, so that each transition has a unit test. The agent
//! says what it saw and when, and carries the effects out once the registry's lock is free.

mod attaching;
mod containers;
mod effect;
mod ending;
mod files;
mod finding;
mod labels;
mod regrouping;
mod restless;
mod target;

pub(super) use self::{
    attaching::{Attached, Holds, Inspected},
    containers::Placed,
    effect::{Attach, Configure, Effect, Effects, Log},
    files::{Files, Kind, Recognition, Verdict},
    finding::Candidate,
    restless::PAUSE,
    target::{Stage, Target, Targets},
};

use std::{
    collections::HashMap,
    time::{Instant, SystemTime},
};

use self::{containers::Contained, restless::Restless};
use super::{groups::Groups, passed::AllPassed};
use crate::{kernel::Link, process::ProcessId};

/// When something happened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// By a clock that is never set.
    pub(super) at: Instant,
    /// By the clock that people read.
    pub(super) wall: SystemTime,
    /// Snapshots of the figures that had begun by then.
    pub(super) snapshots_begun: u64,
}

/// Every target and what the agent knows of processes, executables and containers. `L` is an attached link.
pub(super) struct Registry<L = Link> {
    pub(super) targets: Targets,
    pub(super) groups: Groups<L>,
    pub(super) files: Files,
    /// Processes that are no targets because of how they run.
    pub(super) passed: AllPassed,
    /// The target of a process id; the newest image of the process.
    by_pid: HashMap<u32, u32>,
    /// Processes that are not wanted, so that a scan need not ask again; without identity those that have no executable, as
    /// kernel threads.
    unwanted: HashMap<u32, Option<ProcessId>>,
    contained: Contained,
    restless: Restless,
    /// Whether an unwanted process may become wanted without a new image, as when it begins to listen on a port.
    asks_again: bool,
    next_id: u32,
}

impl<L> Registry<L> {
    /// An empty one. `asks_again`: whether an unwanted process is considered again at each look.
    pub(super) fn new(asks_again: bool) -> Self {
        Self {
            targets: Targets::default(),
            groups: Groups::default(),
            files: Files::default(),
            passed: AllPassed::default(),
            by_pid: HashMap::new(),
            unwanted: HashMap::new(),
            contained: Contained::default(),
            restless: Restless::default(),
            asks_again,
            next_id: 1,
        }
    }

    /// The target that measures this process id now.
    pub(super) fn of_pid(&self, pid: u32) -> Option<&Target> {
        self.targets.get(self.by_pid.get(&pid)?)
    }

    /// Notes that a process is not wanted; whether that is news. Without identity: it has no executable.
    pub(super) fn ignore(&mut self, pid: u32, process: Option<ProcessId>) -> bool {
        self.unwanted.insert(pid, process) != Some(process)
    }
}

#[cfg(test)]
mod tests;
