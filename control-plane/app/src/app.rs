//! Wires the walk together: folder → model → published state → streams, the authority beside it, the
//! administrator's port, and the end of all of them.
//!
//! Invariant: what is bound is told with its real address; what was started is stopped within a
//! deadline.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use weft_proto::names::is_subdomain;

use crate::admin::{self, Admin};
use crate::args::RunArgs;
use crate::authority::{Authority, AuthoritySettings};
use crate::certify::{self, Certify};
use crate::files;
use crate::grpc;
use crate::listen::Doorway;
use crate::log::LogLevel;
use crate::metrics::Metrics;
use crate::publish::{self, Publisher, Reader};
use crate::reload::Reload;
use crate::serve::{Limits, Serve};
use crate::status::Status;
use crate::tls::{self, OwnCertificate};
use crate::tokens::Tokens;
use crate::watch::Watch;

/// How long the end may take. Source: Kubernetes gives 30 s; the streams need one message each.
const FAREWELL: Duration = Duration::from_secs(5);
/// Connections beyond those of streams, for first certificates and renewals. Source: Weft's own.
const SPARE_CONNECTIONS: usize = 1_024;

/// A running control plane.
pub struct ControlPlane {
    /// Where the gRPC services are.
    pub grpc: SocketAddr,
    /// Where the administrator's side is.
    pub admin: SocketAddr,
    /// Root certificates, PEM.
    pub trust_anchors: String,
    reader: Reader,
    stop: CancellationToken,
    watch: Watch,
    serve: Serve,
    tasks: Vec<JoinHandle<()>>,
}

impl ControlPlane {
    /// Binds, reads the folder for the first time in the background, and serves.
    ///
    /// # Errors
    /// An address cannot be bound, the state or the tokens cannot be used, a setting makes no sense.
    ///
    /// # Cancel safety
    /// Dropping it before the end stops what was started.
    pub async fn start(args: &RunArgs, log: LogLevel) -> anyhow::Result<Self> {
        anyhow::ensure!(
            is_subdomain(&args.trust_domain),
            "--trust-domain {:?} is no name",
            args.trust_domain
        );
        let authority = Arc::new(authority(args)?);
        if let Some(path) = &args.write_trust_anchors {
            files::write_atomically(path, authority.anchors_pem().as_bytes(), 0o644)?;
        }
        let tokens = Tokens::open(args.join_tokens.as_deref(), args.state.as_deref());
        let tokens = tokens.map_err(|reason| anyhow::anyhow!("join tokens: {reason}"))?;

        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let status = Arc::new(Status::default());
        let publisher = Publisher::default();
        let reader = publisher.reader();
        let stop = CancellationToken::new();

        let own = Arc::new(OwnCertificate::issue(&authority)?);
        let acceptor = TlsAcceptor::from(Arc::new(tls::server_config(&authority, Arc::clone(&own))?));
        let listener = bind(args.listen).await?;
        let admin_listener = bind(args.admin).await?;
        let (grpc, admin) = (listener.local_addr()?, admin_listener.local_addr()?);

        let doorway = Doorway {
            acceptor,
            trust_domain: args.trust_domain.as_str().into(),
            connections: args.max_streams.saturating_add(SPARE_CONNECTIONS),
            metrics: metrics.clone(),
            stop: stop.clone(),
        };
        let limits = Limits { streams: args.max_streams, ack: args.ack_timeout };
        let serve = Serve::new(reader.clone(), Arc::clone(&status), metrics.clone(), limits, stop.clone());
        let certify = certify(&authority, tokens, reader.clone(), metrics.clone());
        let page = Admin {
            registry: Arc::new(registry),
            status: Arc::clone(&status),
            reader: reader.clone(),
            log,
            stop: stop.clone(),
        };
        let tasks = vec![
            tokio::spawn(grpc::serve(listener, doorway, serve.clone(), certify)),
            tokio::spawn(admin::serve(admin_listener, page)),
            tokio::spawn(renewal(own, Arc::clone(&authority), metrics.clone())),
            tokio::spawn(publish::follow(publisher.clone(), Arc::clone(&authority))),
        ];
        let folder = args.manifests.as_deref().context("--manifests is missing")?;
        let mut reload = Reload::new(folder, &authority, publisher, status, metrics);
        let watch =
            Watch::start(folder, move |cause, settled, noticed| reload.look(cause, settled, noticed))?;
        let trust_anchors = authority.anchors_pem();
        Ok(Self { grpc, admin, trust_anchors, reader, stop, watch, serve, tasks })
    }

    /// Waits for the first good state of the manifests.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn ready(&mut self) {
        // The publisher lives in the watching thread, which lives as long as this value.
        let _ = self.reader.wait_for(Option::is_some).await;
    }

    /// What is published.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Tells the sidecars to come back later, and ends.
    ///
    /// # Cancel safety
    /// Dropping it ends at once.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(FAREWELL, self.serve.ended()).await.is_err() {
            tracing::warn!("some streams did not end in time");
        }
        // The first task is the gRPC server: it ends once its connections have.
        if let Some(server) = self.tasks.first_mut() {
            let _ = tokio::time::timeout(FAREWELL, server).await;
        }
        self.watch.stop();
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn authority(args: &RunArgs) -> anyhow::Result<Authority> {
    let settings = AuthoritySettings {
        state: args.state.clone(),
        trust_domain: args.trust_domain.clone(),
        intermediate: args.intermediate,
        leaf_life: args.certificate_life,
    };
    Authority::open(&settings).context("the certificate authority cannot start")
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

fn certify(authority: &Arc<Authority>, tokens: Tokens, reader: Reader, metrics: Metrics) -> Certify {
    let accounts: certify::Accounts = Arc::new(move |workload| {
        let published = reader.borrow().clone()?;
        publish::account(&published, workload).map(str::to_owned)
    });
    Certify::new(Arc::clone(authority), tokens, accounts, metrics)
}

async fn renewal(own: Arc<OwnCertificate>, authority: Arc<Authority>, metrics: Metrics) {
    own.renew(&authority, &metrics).await;
}
