//! The end-to-end tests, one binary of four tiers: each is a folder, and the first part of its tests' names. Everything is real:
//! the kernel, the services, Prometheus, Kubernetes' own programs. `cargo xtask test` runs all but `long`, which
//! `cargo xtask test --full` runs too; `cargo test` builds none of it, since most of it needs root.

/// The agent and plain processes: needs root, Go, and nothing of Kubernetes.
mod agent;
/// What needs kube-apiserver and the HPA's controller, and no kubelet: no containers, no probes.
mod control_plane;
/// Long forms: every Go release and way of building, soaks, churn, outages, programs of others.
mod long;
/// What needs pods that run: a kubelet, containerd, and root.
mod node;
mod support;
