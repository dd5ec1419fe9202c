//! The kernel's side of the agent: loads the eBPF object, attaches and detaches its programs, and gives typed access to its
//! maps. Knows nothing of Go or of processes beyond an id; what to attach where is said to it.

mod attach;
mod batch;
mod events;
mod load;
mod maps;
mod preemption;
mod sched;
mod shares;
mod targets;
mod underway;

pub(crate) use self::{
    attach::{AttachError, Link, Probe, Scope},
    events::Events,
    load::{Kernel, Method, Options},
    maps::{Maps, Usage},
    preemption::preemption,
    sched::SchedulerLinks,
    underway::settle,
};
