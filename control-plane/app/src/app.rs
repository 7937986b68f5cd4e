//! Wires the walk together: folder or cluster → model → published state → streams, the authority beside it, the
//! administrator's port, and the end of all of them.
//!
//! Invariant: what is bound is told with its real address; what was started is stopped within a
//! deadline.

mod origin;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use weft_proto::names::is_subdomain;

use self::origin::{Origin, Parts, Watching};
use crate::admin::{self, Admin};
use crate::args::RunArgs;
use crate::authority::Authority;
use crate::certify::Certify;
use crate::files;
use crate::grpc::{self, Services};
use crate::kubernetes::Observing;
use crate::listen::Doorway;
use crate::log::LogLevel;
use crate::metrics::{self, Metrics};
use crate::observe::{Hub, Looking};
use crate::publish::{self, Publisher, Reader};
use crate::serve::{Limits, Serve};
use crate::status::Status;
use crate::take::Take;
use crate::tls::{self, OwnCertificate};

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
    watching: Watching,
    serve: Serve,
    tasks: Vec<JoinHandle<()>>,
}

impl ControlPlane {
    /// Binds, takes the facts for the first time in the background, and serves. In a cluster it waits
    /// for the authority's Secret.
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
        let mut registry = metrics::registry();
        let metrics = Metrics::register(&mut registry);
        let status = Arc::new(Status::default());
        let publisher = Publisher::default();
        let reader = publisher.reader();
        // Whatever is started below ends with this value, also when the start itself ends early.
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let mut origin = Origin::open(args, &mut registry, &stop).await?;

        let admin_listener = bind(args.admin).await?;
        let listener = bind(args.listen).await?;
        let (grpc, admin) = (listener.local_addr()?, admin_listener.local_addr()?);
        let page = Admin {
            registry: Arc::new(registry),
            status: Arc::clone(&status),
            reader: reader.clone(),
            log,
            stop: stop.clone(),
        };
        // First of all: it answers "live, not ready" while the authority is waited for.
        let admin_task = tokio::spawn(admin::serve(admin_listener, page));

        let authority = origin.authority(args).await?;
        if let Some(path) = &args.write_trust_anchors {
            files::write_atomically(path, authority.anchors_pem().as_bytes(), 0o644)?;
        }
        publisher.trust_in(authority.trust());
        let namespace = args.cluster.root_namespace();
        let own = Arc::new(OwnCertificate::issue(&authority, namespace)?);
        let doorway = Doorway {
            acceptor: TlsAcceptor::from(Arc::new(tls::server_config(&authority, Arc::clone(&own))?)),
            trust_domain: args.trust_domain.as_str().into(),
            connections: args.max_streams.saturating_add(SPARE_CONNECTIONS),
            metrics: metrics.clone(),
            stop: stop.clone(),
        };
        let limits = Limits { streams: args.max_streams, ack: args.ack_timeout };
        let serve = Serve::new(&publisher, Arc::clone(&status), metrics.clone(), limits, stop.clone());
        let own_id = tls::own_identity(&args.trust_domain, namespace);
        let hub = Hub::new(Arc::clone(&status), reader.clone(), stop.clone());
        let looking = Looking::new(hub.clone(), args.observers.clone(), own_id.clone());
        let calls = tls::client_config(&authority, Arc::clone(&own))?;
        let proofs = origin.proofs(reader.clone());
        let certify =
            Certify::new(Arc::clone(&authority), own_id, proofs, metrics.clone()).telling(origin.events());
        let certify = certify.noting(Arc::clone(&status));
        let services = Services { discovery: serve.clone(), certify, looking };
        let tasks = vec![
            tokio::spawn(grpc::serve(listener, doorway, services)),
            admin_task,
            tokio::spawn(renewal(own, Arc::clone(&authority), metrics.clone())),
            tokio::spawn(publish::follow(publisher.clone(), Arc::clone(&authority))),
        ];
        let take = Take::new(publisher, Arc::clone(&status), metrics.clone());
        let parts = Parts {
            authority: &authority,
            reader: reader.clone(),
            status,
            metrics,
            looking: Observing { hub, grpc: grpc.port(), calls },
            stop: stop.clone(),
        };
        let watching = origin.begin(take, parts)?;
        let trust_anchors = authority.anchors_pem();
        guard.disarm();
        Ok(Self { grpc, admin, trust_anchors, reader, stop, watching, serve, tasks })
    }

    /// Waits for the first good state.
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
        self.watching.stop(FAREWELL).await;
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

async fn renewal(own: Arc<OwnCertificate>, authority: Arc<Authority>, metrics: Metrics) {
    own.renew(&authority, &metrics).await;
}
