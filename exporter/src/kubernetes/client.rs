//! How this process speaks to the API server: by its service account in a cluster, by a kubeconfig elsewhere.

use std::{env, path::Path, time::Duration};

use kube::{Client, Config};
use thiserror::Error;

/// Where a pod finds its service account's token (Kubernetes: Accessing the API from a Pod).
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// An answer that takes longer is as good as none. A watch sends bookmarks about once a minute (kube-apiserver's
/// `bookmarkFrequency`) and ends after [`super::watch::WATCH_SECONDS`].
const READ_TIMEOUT: Duration = Duration::from_secs(150);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no client.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    /// Neither way is open.
    #[error(
        "no way to the Kubernetes API server: {0}; in a pod, mount the service account's token \
         (automountServiceAccountToken: true); elsewhere, name a kubeconfig in KUBECONFIG"
    )]
    Config(String),
    /// The configuration cannot be used.
    #[error("cannot make a client of the Kubernetes API server: {0}")]
    Client(#[from] kube::Error),
}

/// Whether this process runs in a pod that may speak to the API server.
pub(crate) fn in_cluster() -> bool {
    env::var_os("KUBERNETES_SERVICE_HOST").is_some() && Path::new(TOKEN).exists()
}

/// A client. The service account's token and certificate authority are read again as they change. Must be called within the
/// runtime that is to use it.
pub(crate) async fn client() -> Result<Client, ClientError> {
    let mut config = if in_cluster() {
        Config::incluster().map_err(|error| ClientError::Config(error.to_string()))?
    } else {
        Config::infer().await.map_err(|error| ClientError::Config(error.to_string()))?
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.write_timeout = Some(READ_TIMEOUT);
    // A connection that idled for long is not blamed for it.
    config.reset_reader_on_write = true;
    // The watches have a back-off of their own.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}
