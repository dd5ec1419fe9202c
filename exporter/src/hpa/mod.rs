//! The Horizontal Pod Autoscaler's side: figures fit to scale on. The metrics-api role knows the agents' wire and the
//! Kubernetes API, and nothing of the kernel or of processes.

pub(crate) mod api;
pub(crate) mod doctor;
mod families;
pub(crate) mod feed;
mod known;
mod quantity;
pub(crate) mod simulate;
mod spec;
pub(crate) mod wire;
