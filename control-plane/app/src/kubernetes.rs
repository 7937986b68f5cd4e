//! What a control plane does with a Kubernetes API server.
//!
//! ```text
//! watch (discover, sight) → feed: facts → take          roll → token_review → certify
//! lease → who writes        root → authority → trust    report → conditions → objects' status
//!                           events: what a person should notice, from everywhere
//! ```
//!
//! Invariant: every replica serves; only the holder of the Lease writes.

pub mod chores;
pub mod conditions;
pub mod counts;
pub mod events;
pub mod feed;
pub mod injector;
pub mod lease;
pub mod pace;
pub(crate) mod replicas;
pub mod roll;
pub mod root;
pub mod source;
pub mod trim;
pub mod trust;
pub mod watch;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use kube::{Client, Config};
use tokio_util::sync::CancellationToken;

use crate::args::ClusterArgs;
use crate::authority::Authority;
use crate::metrics::Metrics;
use crate::observe::Hub;
use crate::publish::Reader;
use crate::status::Status;
use crate::take::Reports;

/// The cluster that this control plane serves.
#[derive(Clone)]
pub struct Cluster {
    /// The API server, for everything but the watches, which have a connection of their own.
    pub client: Client,
    /// How the API server is reached.
    pub config: Config,
    /// Namespace of the installation.
    pub namespace: String,
    /// Name of this control plane's pod.
    pub pod_name: String,
    /// Port of the administrator's side, the same on every replica.
    pub admin_port: u16,
    /// Where the injector's webhook is to listen, and its settings; none: there is no webhook.
    pub webhook: Option<(SocketAddr, PathBuf)>,
}

/// What the chores of a cluster work with, all of it shared and live.
#[derive(Clone)]
pub struct Shared {
    /// Signs certificates.
    pub authority: Arc<Authority>,
    /// Pods and namespaces, as far as certificates and the injector need them.
    pub roll: roll::Roll,
    /// What is published.
    pub reader: Reader,
    /// What became of every object.
    pub reports: Reports,
    /// Sidecars and their refusals.
    pub status: Arc<Status>,
    /// Counts.
    pub metrics: Metrics,
    /// Looking at the mesh.
    pub looking: Observing,
    /// Ends every chore.
    pub stop: CancellationToken,
}

/// What looking at the mesh needs in a cluster.
#[derive(Clone)]
pub struct Observing {
    /// Where questions are asked.
    pub hub: Hub,
    /// Port of the gRPC services, the same on every replica.
    pub grpc: u16,
    /// How another replica is called.
    pub calls: rustls::ClientConfig,
}

impl Cluster {
    /// Connects as the settings say: inside a pod with its service account, elsewhere with the kubeconfig.
    ///
    /// # Errors
    /// Neither is there, or it cannot be read. Whether the API server answers is not asked: it may come
    /// later than this control plane.
    ///
    /// # Cancel safety
    /// Nothing was started.
    pub async fn connect(args: &ClusterArgs, admin_port: u16) -> anyhow::Result<Self> {
        let config = Config::infer().await.context(
            "no Kubernetes API server is known: run in a pod with a service account, or set KUBECONFIG",
        )?;
        let client = Client::try_from(config.clone()).context("the Kubernetes client cannot be made")?;
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        let pod_name = args.pod_name.clone().unwrap_or_else(host);
        let webhook = match (args.webhook, &args.injector_config) {
            (Some(address), Some(settings)) => Some((address, settings.clone())),
            (None, _) => None,
            (Some(_), None) => anyhow::bail!("--webhook needs --injector-config FILE"),
        };
        let namespace = args.namespace.clone();
        Ok(Self { client, config, namespace, pod_name, admin_port, webhook })
    }
}

/// What marks the objects that the control plane makes by itself.
pub(crate) fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/part-of".to_owned(), "weft".to_owned()),
        ("app.kubernetes.io/managed-by".to_owned(), "weft-control-plane".to_owned()),
    ])
}
