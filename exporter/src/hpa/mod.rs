//! The Horizontal Pod Autoscaler's side: figures fit to scale on. The metrics-api role knows the agents' wire and the
//! Kubernetes API, and nothing of the kernel or of processes.

mod quantity;
pub(crate) mod simulate;
mod spec;
