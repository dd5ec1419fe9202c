//! The kernel's side of the agent: loads the eBPF object, attaches and detaches its programs, and gives typed access to its
//! maps. Knows nothing of Go or of processes beyond an id; what to attach where is said to it.

mod attach;
mod batch;
mod events;
mod load;
mod map;
mod maps;
mod preemption;
mod refusal;
mod run_queue;
mod shares;
mod targets;
mod underway;

pub(crate) use self::{
    attach::{AttachError, Link, Scope},
    events::Events,
    load::{Kernel, Method, Options},
    map::Usage,
    maps::Maps,
    preemption::preemption,
    run_queue::RunQueueLinks,
    underway::settle,
};
pub(crate) use exporter_ebpf::probe::Probe;
