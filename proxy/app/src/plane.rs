//! What all data threads of a sidecar share: configuration, identity, telemetry, limits.
//!
//! Invariant: immutable, or swapped whole; a data thread reads it without a lock.

use std::sync::Arc;
use std::time::Duration;

use weft_proxy_core::Snapshot;
use weft_proxy_net::http::{LiveLimits, ServeLimits};
use weft_proxy_net::tls::TlsIdentity;

use crate::admin::pulse::Pulse;
use crate::explain::Looking;
use crate::lookup::Lookup;
use crate::metrics::edge::Party;
use crate::record::Telemetry;
use crate::record::clock::Clock;
use crate::snapshots::Snapshots;

/// Limits of the data path, from the settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DataLimits {
    /// Downstream HTTP.
    pub(crate) serve: ServeLimits,
    /// Idle and slow connections.
    pub(crate) live: LiveLimits,
    /// A connection to the application.
    pub(crate) connect: Duration,
    /// First bytes of a connection.
    pub(crate) detect: Duration,
    /// Bytes looked at to recognise a protocol.
    pub(crate) detect_bytes: usize,
    /// A TLS handshake.
    pub(crate) handshake: Duration,
    /// Opaque connections without bytes.
    pub(crate) idle: Duration,
    /// Downstream connections a worker.
    pub(crate) connections: usize,
    /// Connections to the application, a port and worker.
    pub(crate) application_connections: u32,
    /// Requests that wait for one.
    pub(crate) application_pending: u32,
    /// Firewall mark of our own connections, where redirection goes by mark.
    pub(crate) mark: Option<u32>,
    /// Unused connections to the application.
    pub(crate) application_idle: Duration,
}

/// What all data threads share.
pub(crate) struct Plane {
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) identity: Arc<TlsIdentity>,
    pub(crate) lookup: Lookup,
    pub(crate) telemetry: Telemetry,
    pub(crate) clock: Clock,
    pub(crate) limits: DataLimits,
    /// Who this sidecar stands for.
    pub(crate) own: Party,
    /// The data threads' signs of life.
    pub(crate) pulse: Pulse,
    /// Asks the data threads how their balancers stand.
    pub(crate) looking: Arc<Looking>,
}

impl Plane {
    /// The newest snapshot.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.current()
    }

    /// Its generation; one atomic load.
    pub(crate) fn generation(&self) -> u64 {
        self.snapshots.generation()
    }
}
