//! Configuration as written: plain types that mirror the resources of `proto/weft/v1/config.proto`.
//!
//! Adopt converts the wire into these; each room's table is then compiled from them
//! ([`crate::Outbound::compile`], [`crate::Inbound::compile`], [`crate::Backend::compile`]).
//!
//! Invariant: every enum value here is one this version knows; unknown values were refused at the
//! edge. Nothing is checked yet beyond the types.

mod authorization;
mod backend;
mod outbound;
mod telemetry;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::names::{Name, WorkloadName};

pub use authorization::{Action, Authorization, AuthorizationRule, Operation, Source};
pub use backend::{Backend, Endpoint, Outlier, RetryBudget, TrafficPolicy};
pub use outbound::{
    Filter, FixedReply, GrpcMatch, HeaderModifier, KeyMatch, Match, Outbound, PathMatch, PathRewrite,
    Redirect, Rewrite, Route, RouteKind, Rule, Scheme, ValueMatch, WeightedBackend,
};

pub use telemetry::{FromHeader, LogFormat, Telemetry, TraceExport, TraceProtocol};

/// Where a piece of configuration was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Kind of the object, e.g. `HTTPRoute`.
    pub kind: Arc<str>,
    /// Namespace of the object.
    pub namespace: Arc<str>,
    /// Name of the object.
    pub name: Arc<str>,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// Settings for every sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mesh {
    /// Trust domain of the mesh.
    pub trust_domain: Arc<str>,
    /// What happens to destinations the control plane does not know.
    pub unknown_destination: UnknownDestination,
    /// Share of traces that start in a sidecar and are kept, in parts per million.
    pub trace_sampling_ppm: u32,
    /// Traces a second that each sidecar keeps regardless of the share.
    pub trace_per_second: u32,
    /// Which requests are written to the access log.
    pub access_log: AccessLog,
    /// How long the inbound side keeps accepting after SIGTERM.
    pub drain_linger: Duration,
    /// How long a drain waits for what is in flight.
    pub drain_deadline: Duration,
}

impl Default for Mesh {
    /// The defaults that `config.proto` documents.
    fn default() -> Self {
        Self {
            trust_domain: Arc::from("cluster.local"),
            unknown_destination: UnknownDestination::PassThrough,
            trace_sampling_ppm: 0,
            trace_per_second: 0,
            access_log: AccessLog::Errors,
            drain_linger: Duration::from_secs(5),
            drain_deadline: Duration::from_secs(30),
        }
    }
}

/// Treatment of destinations the control plane does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownDestination {
    /// Bytes go to the original destination as they are.
    #[default]
    PassThrough,
    /// The connection is reset.
    Refuse,
}

/// Which requests are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// None.
    Off,
    /// Refusals, resets and server errors.
    #[default]
    Errors,
    /// Every request and connection.
    All,
}

/// Application protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Unknown: the sidecar detects it.
    #[default]
    Detect,
    /// HTTP/1.0 and HTTP/1.1 (HTTP/2 with prior knowledge is recognised).
    Http1,
    /// HTTP/2 with prior knowledge, gRPC.
    Http2,
    /// The application's own TLS.
    Tls,
    /// Anything else.
    Opaque,
}

/// What says which protocol a port speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ProtocolBy {
    /// Nothing: it is detected. Or a control plane that does not tell.
    #[default]
    Unsaid,
    /// The Service's `appProtocol`.
    AppProtocol,
    /// The kind of the routes that are attached.
    Route,
    /// A pod's annotation of opaque ports.
    OpaquePorts,
}

/// Whether plaintext peers are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MutualTls {
    /// Plaintext and mTLS.
    #[default]
    Permissive,
    /// mTLS only.
    Strict,
}

/// How one workload receives traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// The workload.
    pub workload: WorkloadName,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its service account.
    pub service_account: Arc<str>,
    /// mTLS demanded on ports that do not say otherwise.
    pub mutual_tls: MutualTls,
    /// What says so, here and on ports: a policy, `<namespace>/<name>`, or `mesh/<name>`.
    pub mutual_tls_by: Option<Name>,
    /// Ports that say more than the default.
    pub ports: Vec<InboundPort>,
    /// Policies that apply, in precedence order.
    pub authorizations: Vec<Name>,
    /// Services that select this workload, sorted.
    pub services: Vec<Name>,
    /// Name of the owning workload; empty: the pod's name.
    pub owner: Arc<str>,
    /// The kubelet's probes.
    pub probes: Vec<Probe>,
    /// Addresses they come from.
    pub probe_sources: Vec<IpAddr>,
    /// What the workload tells about its requests; `None`: what the Mesh says.
    pub telemetry: Option<Arc<Telemetry>>,
}

/// A probe that the kubelet sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Port number.
    pub port: u16,
    /// How it asks.
    pub kind: ProbeKind,
}

/// How a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// A GET in plaintext.
    Http {
        /// Path and query, exactly.
        target: Arc<str>,
    },
    /// HTTP within the application's own TLS.
    Https,
    /// The standard health check.
    Grpc {
        /// The service it asks about; empty: the server as a whole.
        service: Arc<str>,
    },
    /// A connection, nothing more.
    Tcp,
}

/// One port of the workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundPort {
    /// Port number.
    pub port: u16,
    /// Declared protocol.
    pub protocol: Protocol,
    /// What declares it.
    pub protocol_by: ProtocolBy,
    /// mTLS on this port; `None`: the workload's.
    pub mutual_tls: Option<MutualTls>,
    /// Service ports that target this port, sorted.
    pub service_ports: Vec<Name>,
}
