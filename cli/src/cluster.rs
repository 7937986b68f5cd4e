//! The cluster that a verb asks: found as kubectl finds it, and errors that say what to do.
//!
//! Where it stands: below `check`, `status`, `upgrade` and `uninstall`.
//!
//! Invariant: nothing here writes to the cluster.
//! Invariant: every request has a deadline.

mod forward;
mod replicas;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

pub(crate) use forward::get;
pub(crate) use replicas::{Answer, Page, Replica, Sidecar, replicas};
#[cfg(test)]
pub(crate) use replicas::{ConditionLine, ObjectLine, Refusal, Sidecars};

/// Deadline of a connect. Source: Weft's own; an API server that is further away is none.
const CONNECT: Duration = Duration::from_secs(10);
/// Deadline of a read. Source: kubectl has none; lists of large clusters take seconds.
const READ: Duration = Duration::from_secs(60);

/// Which cluster, and where Weft is in it.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClusterArgs {
    /// Namespace of the control plane.
    #[arg(long, short, value_name = "NAME", default_value = crate::install::NAMESPACE)]
    pub(crate) namespace: String,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// Which cluster.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConnectArgs {
    /// Context of the kubeconfig. Default: its current one.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// The kubeconfig. Default: as for kubectl, $KUBECONFIG, then ~/.kube/config, then the pod's own
    /// service account.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

impl ClusterArgs {
    /// As [`ConnectArgs::client`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        self.connect.client().await
    }
}

impl ConnectArgs {
    /// A client of the cluster; it has not asked anything yet.
    ///
    /// # Errors
    /// No kubeconfig, or one that cannot be used.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let mut config = match (&self.kubeconfig, &self.context) {
            (Some(file), _) => {
                let kubeconfig =
                    Kubeconfig::read_from(file).with_context(|| format!("reading {}", file.display()))?;
                Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(no_config)?
            }
            (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(no_config)?,
            // In a pod there is no kubeconfig, and its service account is meant.
            (None, None) => match Config::from_kubeconfig(&options).await {
                Ok(config) => config,
                Err(error) => Config::incluster().map_err(|_| no_config(error))?,
            },
        };
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(READ);
        Client::try_from(config).map_err(explain)
    }
}

/// Says what to do about a kubeconfig that cannot be used.
fn no_config(error: kube::config::KubeconfigError) -> anyhow::Error {
    anyhow!(error).context(
        "no cluster to ask: set KUBECONFIG or --kubeconfig to a kubeconfig, and see its contexts with `kubectl config get-contexts`",
    )
}

/// Says what to do about a request that failed.
pub(crate) fn explain(error: kube::Error) -> anyhow::Error {
    match &error {
        kube::Error::Api(status) => match status.code {
            401 => anyhow!(
                "the API server does not know you: log in again, or take another --context ({})",
                status.message
            ),
            403 => anyhow!(
                "not permitted: {}; take another --context, or ask for this permission",
                status.message
            ),
            404 => anyhow!("not there: {}; is Weft installed? (weft install)", status.message),
            _ => anyhow!("the API server refuses: {}", status.message),
        },
        kube::Error::Service(_) | kube::Error::HyperError(_) => {
            let mut cause: &dyn std::error::Error = &error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            anyhow!(
                "the API server cannot be reached: {cause}; does `kubectl version` reach it? (KUBECONFIG, --context)"
            )
        }
        _ => anyhow!(error),
    }
}

/// Runs a verb's questions to their end.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting a runtime")?
        .block_on(work)
}
