//! Endpoints and traffic policy of one service port, as written.
//!
//! Compiled by [`crate::Backend::compile`].
//!
//! Invariant: plain data; nothing is checked beyond the types.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Origin, Protocol};
use crate::names::{Identity, Name, WorkloadName};

/// The endpoints behind one service port, and how to use them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The service, `<namespace>/<service>`.
    pub service: Name,
    /// The port of the service.
    pub port: u16,
    /// Protocol the endpoints speak; `Detect`: the downstream's.
    pub protocol: Protocol,
    /// Endpoints, sorted by address.
    pub endpoints: Vec<Endpoint>,
    /// How to use them.
    pub policy: TrafficPolicy,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// The workload; `None`: unknown.
    pub workload: Option<WorkloadName>,
    /// Its identity when it has a sidecar; `None`: plaintext.
    pub identity: Option<Identity>,
    /// Zone; empty: unknown.
    pub zone: Arc<str>,
    /// Relative weight; 0 means 1.
    pub weight: u32,
}

/// How clients reach a backend; absent fields take the defaults of [`crate::TrafficPolicy`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficPolicy {
    /// The object.
    pub origin: Option<Origin>,
    /// Deadline of a TCP connect and TLS handshake.
    pub connect_timeout: Option<Duration>,
    /// Connections to one endpoint and worker; 0: the default.
    pub max_connections: u32,
    /// Requests that may wait for a connection; 0: the default.
    pub max_pending: u32,
    /// Idle upstream connections are closed after this.
    pub idle_timeout: Option<Duration>,
    /// Retries.
    pub retry_budget: Option<RetryBudget>,
    /// Ejection.
    pub outlier: Option<Outlier>,
    /// Service port that serves while the circuit is open.
    pub fallback: Option<Name>,
}

/// How many retries may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Retries in percent of active requests.
    pub percent: u32,
    /// Retries a second that are always allowed.
    pub min_per_second: u32,
}

/// Ejection of endpoints that fail; absent spans take the defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outlier {
    /// Consecutive failures before ejection; 0 switches it off.
    pub consecutive_failures: u32,
    /// First ejection time.
    pub base_ejection: Option<Duration>,
    /// Longest ejection time.
    pub max_ejection: Option<Duration>,
    /// Share of endpoints that may be ejected while there is no fallback, percent; 0: the default.
    pub max_ejected_percent: u32,
}
