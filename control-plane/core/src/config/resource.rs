//! The resources themselves, as `weft/v1/config.proto` names and numbers them.
//!
//! Where it stands: *compile* fills these, the application's *serve* step copies them to the wire.
//!
//! Invariant: one struct a message, one field a field. An absent span stays absent: the sidecar
//! holds the defaults.

use std::{net::IpAddr, time::Duration};

/// Where a piece of configuration was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Kind of the object, e.g. "HTTPRoute".
    pub kind: String,
    /// Namespace of the object; empty for cluster-wide kinds.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
}

/// Settings for every sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mesh {
    /// Trust domain of the mesh.
    pub trust_domain: String,
    /// What happens to destinations the control plane does not know.
    pub unknown_destination: UnknownDestination,
    /// Share of traces that start in a sidecar and are kept, in parts per million.
    pub trace_sampling_ppm: u32,
    /// Traces a second that each sidecar keeps regardless of the share. 0: none.
    pub trace_per_second: u32,
    /// Which requests are written to the access log.
    pub access_log: AccessLog,
    /// How long the inbound side keeps accepting after SIGTERM.
    pub drain_linger: Duration,
    /// How long a drain waits for what is in flight.
    pub drain_deadline: Duration,
}

/// Treatment of destinations the control plane does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownDestination {
    /// Bytes go to the original destination as they are.
    PassThrough,
    /// The connection is reset.
    Refuse,
}

/// Which requests are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLog {
    /// None.
    Off,
    /// Refusals, resets and server errors.
    Errors,
    /// Every request and connection.
    All,
}

/// Trust bundle of one trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// Trust domain.
    pub trust_domain: String,
    /// Root certificates, DER.
    pub roots: Vec<Vec<u8>>,
}

/// Application protocol of a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Unknown: the sidecar detects it.
    #[default]
    Unspecified,
    /// HTTP/1.0 and HTTP/1.1 (HTTP/2 with prior knowledge is recognised).
    Http1,
    /// HTTP/2 with prior knowledge, gRPC.
    Http2,
    /// The application's own TLS: passed on untouched.
    Tls,
    /// Anything else, server-first protocols included.
    Opaque,
}

/// What says which protocol a port speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProtocolBy {
    /// Nothing does: it is detected.
    #[default]
    Unsaid,
    /// The Service's `appProtocol`.
    AppProtocol,
    /// The kind of the routes that are attached.
    Route,
    /// A pod's annotation of opaque ports.
    OpaquePorts,
}

/// How one workload receives traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    /// The workload, "namespace/pod".
    pub workload: String,
    /// Namespace of the workload.
    pub namespace: String,
    /// Service account of the workload.
    pub service_account: String,
    /// mTLS demanded on ports that do not say otherwise.
    pub mutual_tls: MutualTls,
    /// What says so, here and on ports: "namespace/name" of a TlsPolicy, "mesh/name"; empty: the default holds.
    pub mutual_tls_by: String,
    /// Ports that say more than the default, sorted.
    pub ports: Vec<InboundPort>,
    /// AuthorizationPolicies that apply, "namespace/name", in precedence order.
    pub authorizations: Vec<String>,
    /// Services that select this workload, "namespace/service", sorted.
    pub services: Vec<String>,
    /// Name of the owning workload.
    pub owner: String,
    /// The kubelet's probes, sorted.
    pub probes: Vec<Probe>,
    /// Addresses they come from, sorted.
    pub probe_sources: Vec<IpAddr>,
    /// What the workload tells about its requests.
    pub telemetry: Box<super::Telemetry>,
}

/// One probe that a container declares.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    /// Port number.
    pub port: u16,
    /// How it asks.
    pub kind: ProbeKind,
}

/// How a probe asks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeKind {
    /// A GET of this path and query.
    Http(String),
    /// HTTP within the application's own TLS.
    Https,
    /// The standard health check, of this service.
    Grpc(String),
    /// A connection.
    Tcp,
}

/// Whether plaintext peers are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MutualTls {
    /// Plaintext and mTLS.
    Permissive,
    /// mTLS only.
    Strict,
}

/// One port of the workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboundPort {
    /// Port number.
    pub port: u16,
    /// Declared protocol.
    pub protocol: Protocol,
    /// What declares it.
    pub protocol_by: ProtocolBy,
    /// mTLS on this port; absent: the workload's.
    pub mutual_tls: Option<MutualTls>,
    /// Service ports that target this port, sorted.
    pub service_ports: Vec<String>,
}

/// What an original destination means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A service port: route by the Outbound resource of this name.
    Outbound(String),
    /// One workload, called directly.
    Workload(Endpoint),
    /// Nothing the control plane knows.
    Unknown,
}

/// The endpoints behind one service port, and how to use them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// The service, "namespace/service".
    pub service: String,
    /// The port of the service.
    pub port: u16,
    /// Protocol the endpoints speak; unspecified: the downstream's.
    pub protocol: Protocol,
    /// Endpoints, sorted by address. Those not ready are absent.
    pub endpoints: Vec<Endpoint>,
    /// How to use them; absent: all defaults.
    pub policy: Option<TrafficPolicy>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Where to connect, "ip:port".
    pub address: String,
    /// The workload, "namespace/pod"; empty: unknown.
    pub workload: String,
    /// Its identity when it has a sidecar; empty: plaintext.
    pub identity: String,
    /// Zone; empty: unknown.
    pub zone: String,
    /// Relative weight; 0 means 1.
    pub weight: u32,
}

/// How clients reach a backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrafficPolicy {
    /// The object.
    pub origin: Origin,
    /// Deadline of a TCP connect and TLS handshake; absent: the default.
    pub connect_timeout: Option<Duration>,
    /// Connections to one endpoint and worker; 0: the default.
    pub max_connections: u32,
    /// Requests that may wait for a connection; 0: the default.
    pub max_pending: u32,
    /// Idle upstream connections are closed after this; absent: the default.
    pub idle_timeout: Option<Duration>,
    /// Retries; absent: the defaults.
    pub retry_budget: Option<RetryBudget>,
    /// Ejection; absent: the defaults.
    pub outlier: Option<Outlier>,
    /// Service port that serves while the circuit is open; empty: none.
    pub fallback: String,
}

/// How many retries may be under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryBudget {
    /// Retries in percent of active requests.
    pub percent: u32,
    /// Retries a second that are always allowed.
    pub min_per_second: u32,
}

/// Ejection of endpoints that fail. Every default is filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlier {
    /// Consecutive failures before ejection; 0 switches it off.
    pub consecutive_failures: u32,
    /// First ejection time; doubles with each.
    pub base_ejection: Duration,
    /// Longest ejection time.
    pub max_ejection: Duration,
    /// Share of endpoints that may be ejected while there is no fallback, percent.
    pub max_ejected_percent: u32,
}

/// Allow or deny.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// What matches is allowed.
    Allow,
    /// What matches is denied.
    Deny,
}

/// One AuthorizationPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// The object.
    pub origin: Origin,
    /// What a match means.
    pub action: Action,
    /// Only recorded, not enforced.
    pub shadow: bool,
    /// Rules, in order. No rule: nothing matches.
    pub rules: Vec<AuthorizationRule>,
}

/// One rule. Empty lists mean any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthorizationRule {
    /// Name given by the user; empty: its index is used.
    pub name: String,
    /// Sources: one must match.
    pub from: Vec<Source>,
    /// Operations: one must match.
    pub to: Vec<Operation>,
}

/// A source: all non-empty lists must hold a match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// SPIFFE identities; "*" at the end matches any rest.
    pub identities: Vec<String>,
    /// Namespaces.
    pub namespaces: Vec<String>,
    /// Service accounts, "namespace/name".
    pub service_accounts: Vec<String>,
    /// Address blocks of the peer.
    pub cidrs: Vec<String>,
}

/// An operation: all non-empty lists must hold a match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Operation {
    /// Ports of the workload.
    pub ports: Vec<u16>,
    /// Methods, upper case.
    pub methods: Vec<String>,
    /// Paths: exact, or with "*" at the end for a prefix.
    pub paths: Vec<String>,
}
