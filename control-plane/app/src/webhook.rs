//! The admission webhook: the API server shows each new pod, the pure injector decides, the answer is a
//! patch.
//!
//! ```text
//! certificate → serve (TLS, HTTP) → review → core::inject::Injector ‖ the API server
//!                        settings ──┘   └──→ Refusal → an event
//! ```
//!
//! Invariant: whatever arrives is answered: a pod that is not injected is allowed, with the reason as a
//! warning, unless the settings say that it is to be blocked.
//! Invariant: a dry run leaves no trace but in the metrics.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weft_control_plane_core::inject::NamespaceFacts;

use crate::authority::Authority;

pub mod bundle;
mod certificate;
mod metrics;
mod recheck;
mod review;
mod serve;
mod settings;

pub use certificate::ServingCertificate;
pub use metrics::{InjectMetrics, Outcome};
pub use recheck::{Lack, Lacks, Recheck};
pub use review::{Answer, Refusal, answer};
pub use serve::Webhook;
pub use settings::{Settings, read_settings};

/// What is known of a namespace, by name.
pub type Namespaces = Arc<dyn Fn(&str) -> Option<NamespaceFacts> + Send + Sync>;
/// Takes what a person should notice: the object, a reason of one word, the message. Never waits.
pub type Notice = Arc<dyn Fn(ObjectReference, &'static str, String) + Send + Sync>;

/// What the webhook is made of.
pub struct Parts {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// `injector.yaml`, read again when it changes.
    pub settings: PathBuf,
    /// Signs the serving certificate; its roots are those that new sidecars trust.
    pub authority: Arc<Authority>,
    /// DNS names of the serving certificate.
    pub names: Vec<String>,
    /// Labels and annotations of namespaces.
    pub namespaces: Namespaces,
    /// Where refusals go.
    pub notice: Notice,
    /// What is counted.
    pub metrics: InjectMetrics,
    /// What else is served on the port.
    pub beside: Router,
    /// Ends it.
    pub stop: CancellationToken,
}

/// The DNS names under which the API server calls a service of this namespace.
pub fn service_names(namespace: &str) -> Vec<String> {
    let short = format!("weft-control-plane.{namespace}.svc");
    vec![format!("{short}.cluster.local"), short]
}

/// A webhook that serves.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// The injector, for the re-check of running pods.
    pub settings: Arc<Settings>,
    /// What runs in the background; dropping a handle does not end its task, aborting does.
    pub tasks: Vec<JoinHandle<()>>,
}

/// Binds, and serves in the background until stopped. Settings that cannot be used stop nothing: the
/// webhook says so to whoever asks, and takes them once they are good.
///
/// # Errors
/// The address cannot be bound, the authority cannot sign.
pub fn start(parts: Parts) -> anyhow::Result<Running> {
    let settings = Settings::open(parts.settings, Arc::clone(&parts.authority), parts.metrics.clone());
    let settings = Arc::new(settings);
    let own = Arc::new(ServingCertificate::issue(&parts.authority, parts.names)?);
    let listener = listen(parts.listen).with_context(|| format!("cannot listen on {}", parts.listen))?;
    let address = listener.local_addr()?;
    let webhook = Webhook {
        settings: Arc::clone(&settings),
        namespaces: parts.namespaces,
        notice: parts.notice,
        metrics: parts.metrics,
        stop: parts.stop,
    };
    let tls = certificate::server_config(Arc::clone(&own))?;
    let (authority, follower) = (parts.authority, Arc::clone(&settings));
    let tasks = vec![
        tokio::spawn(serve::serve(listener, tls, webhook, parts.beside)),
        tokio::spawn(async move { own.renew(&authority).await }),
        tokio::spawn(async move { follower.follow().await }),
    ];
    Ok(Running { address, settings, tasks })
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

#[cfg(test)]
mod tests;
