//! `gopulse hpa doctor`: walks from the HPA to the metric as a person would, and names the broken link and what to do. Reads
//! only, with the caller's own rights. [`walk`] asks the cluster; what the answers mean is judged by pure functions.

mod agents;
mod cluster;
mod conditions;
mod keda;
mod long_road;
mod opt_in;
mod prometheus;
mod report;
mod resources;
mod served;
mod values;
mod walk;
mod wanted;
mod workload;

use clap::Args;

use self::{cluster::Cluster, report::Look};

/// Options of `gopulse hpa doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "It speaks to the cluster of your kubeconfig, with your rights, and changes nothing.\n\nEnd status: 0 if \
                        nothing is broken, 1 if a link is, 2 if it cannot tell (no access, or a link that may not be read)."
)]
pub(crate) struct DoctorArgs {
    /// The HPA.
    name: String,
    /// Its namespace.
    #[arg(long, short, default_value = "default")]
    namespace: String,
    /// The agents' namespace.
    #[arg(long, value_name = "NAMESPACE", default_value = "gopulse")]
    agents_namespace: String,
    /// Prometheus' address, for the road through prometheus-adapter, as http://127.0.0.1:9090 (kubectl port-forward)
    #[arg(long, value_name = "URL")]
    prometheus: Option<String>,
    /// Print one JSON object: hpa, verdict (content, broken, unknown) and links, each with link, state and text.
    #[arg(long)]
    json: bool,
}

/// The report, and the end status.
pub(crate) async fn run(args: DoctorArgs) -> (String, u8) {
    let findings = match Cluster::new().await {
        Ok(cluster) => walk::walk(&cluster, &args).await,
        Err(error) => vec![("cluster", Look::Unknown(format!("it cannot be spoken to: {error}")))],
    };
    let text = if args.json { report::json(&args.namespace, &args.name, &findings) } else { report::text(&findings) };
    (text, report::status(&findings))
}
