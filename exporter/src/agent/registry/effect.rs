//! What the agent is to do after a transition of the registry.

use std::{path::PathBuf, sync::Arc};

use exporter_ebpf::{facts::Facts, target::TargetConfig};

use super::Verdict;
use crate::{
    agent::groups::{GroupKey, Links, Missing},
    kernel::Link,
    process::Process,
    target::{Features, Inspection},
};

/// Effects, in the order in which they are to be carried out.
pub(in crate::agent) type Effects<L = Link> = Vec<Effect<L>>;

/// One thing to do.
#[derive(Debug)]
pub(in crate::agent) enum Effect<L = Link> {
    /// Find out whether a process should be a target.
    Consider(Box<Process>),
    /// Look at a process id again.
    Look(u32),
    /// The same after [`super::PAUSE`].
    LookLater(u32),
    /// See whether the kernel's maps still have this target's process.
    CheckConfigured { id: u32, pid: u32, features: Features },
    /// Read the executable, unless what is in it is known, then call [`super::Registry::inspected`].
    Inspect { id: u32, attempt: u32, process: Box<Process>, known: Option<Verdict> },
    /// Enter a target's process into the kernel's maps, then call [`super::Registry::configured`].
    Configure(Box<Configure>),
    /// Remove a process from the kernel's maps, if it is still this target's there.
    Unconfigure { pid: u32, id: u32 },
    /// Attach links, then call [`super::Registry::attached`].
    Attach(Box<Attach>),
    /// Detach links.
    Detach(GroupKey, Links<L>),
    /// See whether the probes that a target shares are in its memory, at this offset of its file.
    Verify { id: u32, process: Box<Process>, file_offset: u64 },
    /// Tell the task that drives a group's probes on blocking that the group has another user.
    Joined(GroupKey),
    /// Let a task drive a group's probes on blocking, if a user asks for them.
    MeasureBlocking(GroupKey),
    /// Attach or detach the scheduler's tracepoints, as the targets ask.
    UpdateRunQueue,
    /// Count requests of a target that are in flight as lost.
    LoseInFlight(u32),
    /// Forget ended targets whose last figures were shown.
    Bury,
    /// Write a line to the log.
    Log(Log),
}

/// A process that the kernel side is to measure.
#[derive(Debug)]
pub(in crate::agent) struct Configure {
    pub(in crate::agent) id: u32,
    /// Of [`Effect::Inspect`].
    pub(in crate::agent) attempt: u32,
    pub(in crate::agent) process: Process,
    /// For the map of targets, if anything of it is measured by the kernel side.
    pub(in crate::agent) config: TargetConfig,
    /// What the kernel side's instruments are told of it.
    pub(in crate::agent) facts: Facts,
    /// Whether its probes may be shared with other processes of the file.
    pub(in crate::agent) may_share: bool,
}

/// Links to attach through one process of a group.
#[derive(Debug)]
pub(in crate::agent) struct Attach {
    pub(in crate::agent) id: u32,
    pub(in crate::agent) key: GroupKey,
    pub(in crate::agent) missing: Missing,
    pub(in crate::agent) inspection: Arc<Inspection>,
    pub(in crate::agent) process: Process,
}

/// A line for the log.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::agent) enum Log {
    /// A process became a target.
    Selected(u32, PathBuf),
    /// A process is wanted, and there is no id for it.
    NoRoom { pid: u32, owner: Arc<str> },
    /// A target is measured.
    Measured { pid: u32, executable: PathBuf, go: Option<String> },
    /// A target cannot be measured.
    NotMeasured { pid: u32, executable: PathBuf, reason: String },
    /// Measuring a target failed for the first time, and is tried again.
    Failed { pid: u32, executable: PathBuf, reason: String },
    /// A target gets an inspection and probes of its own.
    ByItself(u32),
    /// A process runs other code than was inspected.
    Swapped { pid: Option<u32>, error: String },
    /// The processes of a file get probes of their own each, for this reason.
    SplitUp(String),
    /// A target dropped its code with the probes in it; whether they are back.
    CodeReplaced { pid: u32, executable: PathBuf, back: bool },
    /// A target's process ended.
    Ended(u32, PathBuf),
}
