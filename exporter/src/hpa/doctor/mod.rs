//! `gopulse hpa doctor`: walks from the HPA to the metric as a person would, and names the first broken link and what to do.
//! Reads only, with the caller's own rights.

mod cluster;
mod links;
mod prometheus;

use clap::Args;

use self::cluster::Cluster;

/// Options of `gopulse hpa doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "It speaks to the cluster of your kubeconfig, with your rights, and changes nothing. The end status is 1 \
                        where a link is broken."
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
}

/// What looking at a link came to.
#[derive(Debug)]
pub(crate) enum Look {
    /// It holds, and what was seen.
    Whole(String),
    /// It was not looked at, and why.
    Passed(String),
    /// It is broken: what is wrong, and what to do.
    Broken(String),
}

/// The report, and whether all is well.
pub(crate) async fn run(args: DoctorArgs) -> Result<(String, bool), String> {
    let cluster = Cluster::new().await?;
    let mut report = String::new();
    for (link, look) in links::walk(&cluster, &args).await {
        let (mark, text) = match &look {
            Look::Whole(text) => ("ok    ", text),
            Look::Passed(text) => ("-     ", text),
            Look::Broken(text) => ("BROKEN", text),
        };
        report += &[mark, "  ", link, ": ", text, "\n"].concat();
        if matches!(look, Look::Broken(_)) {
            return Ok((report, false));
        }
    }
    Ok((report, true))
}
