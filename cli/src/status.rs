//! `weft status`: the control plane's replicas and the sidecars, as they are now.
//!
//! Every replica is asked, through port-forwards of our own; no Prometheus is needed.
//!
//! Invariant: what is shown was asked just now; what did not answer is shown as such.

mod page;

use anyhow::Context as _;

pub(crate) use page::span;

use crate::cluster::{self, ClusterArgs};
use crate::{Form, install};

/// What to show, and where.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Only the sidecars of this namespace.
    #[arg(long, value_name = "NAMESPACE")]
    only: Option<String>,
    /// Form of the answer.
    #[arg(long, short, value_enum, default_value_t = Form::Text)]
    output: Form,
}

/// Prints the status.
pub(crate) fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let mut replicas = cluster::block_on(async {
        cluster::replicas(&args.cluster.client().await?, &args.cluster.namespace).await
    })?;
    if let Some(only) = &args.only {
        page::keep(&mut replicas, only);
    }
    let text = match args.output {
        Form::Json => serde_json::to_string_pretty(&replicas).context("writing JSON")? + "\n",
        Form::Text => page::render(&replicas, k8s_openapi::jiff::Timestamp::now().as_second()),
    };
    install::print(&text)
}
