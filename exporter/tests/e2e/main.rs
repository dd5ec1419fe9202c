//! The end-to-end tests, one binary of five tiers: each is a folder, and the first part of its tests' names. Everything is real:
//! the kernel, the services, Prometheus, Kubernetes' own programs. `cargo xtask test` runs `agent`, `control_plane`
//! and `node`, `cargo xtask test --full` all; `cargo test` builds none of it, since most of it needs root.

/// The agent and plain processes: needs root, Go, and nothing of Kubernetes.
mod agent;
/// Every Go release and way of building, and programs of others: compilers at work for half an hour.
mod builds;
/// What needs kube-apiserver and the HPA's controller, and no kubelet: no containers, no probes.
mod control_plane;
/// Soaks, churn, outages, the long road of the HPA, the agent's image: minutes of waiting each.
mod long;
/// What needs pods that run: a kubelet, containerd, and root.
mod node;
mod support;
