//! A real Kubernetes on this machine, for tests and for hands.
//!
//! [`ControlPlane`] is etcd, kube-apiserver and kube-controller-manager, on 127.0.0.1, ready in some ten seconds; it needs no
//! root. It ends with the value, or with the process that made it.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use xtask::cluster::{ControlPlane, Options};
//! let plane = ControlPlane::start(&Options::default())?;
//! println!("{}", plane.kubectl(&["get", "namespaces"])?);
//! plane.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n")?;
//! # Ok(())
//! # }
//! ```
//!
//! Aggregated API servers: with `aggregator_routing: false` (the default), an `APIService` whose Service is of type
//! `ExternalName` with `externalName: localhost` is served by what listens on that port of 127.0.0.1 (the `APIService`'s
//! `spec.service.port`). With `aggregator_routing: true`, by the Service's `EndpointSlice`s, which may not hold loopback
//! addresses. The API server shows the client certificate `front-proxy-client` of [`ControlPlane::front_proxy`]; its authority
//! is in `kube-system/extension-apiserver-authentication` as in any cluster. A serving certificate comes from
//! [`ControlPlane::authority`], its file being the `caBundle`.
//!
//! [`Cluster`] is a control plane with a [`Node`]: the real kube-scheduler, kubelet and containerd. Without a node, pods stay Pending. A test may write a pod's status itself
//! (`kubectl patch pod NAME --subresource status`), which is what the HorizontalPodAutoscaler's controller looks at.

mod bulk;
mod certificates;
mod control;
mod image;
mod node;
mod process;
mod programs;

use anyhow::{Context, Result};
use clap::Subcommand;

pub use self::certificates::{Authority, Pair, Subject};
pub use self::control::{ControlPlane, Options, free_port};
pub use self::image::Image;
pub use self::node::{NODE, Node};
pub use self::process::{Process, wait_for};
pub use self::programs::{Keda, control_plane, helm, keda, module_directory, prometheus_adapter, replay_autoscaler};

/// `cargo xtask cluster ...`.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Compile and fetch the programs
    Setup {
        /// Only what a control plane without nodes needs
        #[arg(long)]
        control_plane: bool,
    },
    /// Start a control plane and keep it until Ctrl-C
    Up {
        /// With a node: a kubelet and containerd, as root
        #[arg(long)]
        node: bool,
    },
}

/// A control plane with a node; both end when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    // The node goes first.
    node: Node,
    plane: ControlPlane,
}

impl Cluster {
    /// Starts both, and waits until the node is ready for pods. The control plane is at an address that pods reach.
    pub fn start(options: &Options) -> Result<Self> {
        let place = node::Place::take()?;
        place.open()?;
        let options = Options { service_address: Some(place.service_address()), ..options.clone() };
        let mut plane = ControlPlane::start(&options)?;
        plane.start_scheduler()?;
        let node = Node::start(&plane, place)?;
        Ok(Self { node, plane })
    }

    /// The control plane.
    pub fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// The control plane, to end and start its parts.
    pub fn plane_mut(&mut self) -> &mut ControlPlane {
        &mut self.plane
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.node
    }
}

/// Runs one of the commands.
pub fn run(action: &Action) -> Result<()> {
    match action {
        Action::Setup { control_plane } => {
            programs::etcd()?;
            programs::control_plane()?;
            programs::compile_replay()?;
            // The tests of the manifests hold helm's rendering against kubectl's.
            programs::helm()?;
            // Of the tests of the control plane, too: the metrics-api is installed beside it.
            programs::prometheus_adapter()?;
            if *control_plane {
                return Ok(());
            }
            programs::node()?;
            programs::node_programs().map(drop)
        }
        Action::Up { node } => up(*node),
    }
}

fn up(with_node: bool) -> Result<()> {
    let (sender, interrupted) = std::sync::mpsc::channel();
    ctrlc::set_handler(move || {
        let _ = sender.send(());
    })?;
    let say = |plane: &ControlPlane| {
        println!(
            "{} --kubeconfig {} get namespaces",
            plane.programs().join("kubectl").display(),
            plane.kubeconfig().display()
        );
        println!("Ctrl-C ends it.");
        interrupted.recv().context("waiting for Ctrl-C")
    };
    if with_node {
        say(Cluster::start(&Options::default())?.plane())
    } else {
        say(&ControlPlane::start(&Options::default())?)
    }
}
