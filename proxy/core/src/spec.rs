//! Configuration as written: plain types that mirror the resources of `proto/weft/v1/config.proto`.
//!
//! Adopt converts the wire into these; each room's table is then compiled from them
//! ([`crate::Outbound::compile`], [`crate::Inbound::compile`], [`crate::Backend::compile`]).
//!
//! Invariant: every enum value here is one this version knows; unknown values were refused at the
//! edge. Nothing is checked yet beyond the types.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;

use crate::names::{Identity, Name, WorkloadName};

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
    /// Ports that say more than the default.
    pub ports: Vec<InboundPort>,
    /// Policies that apply, in precedence order.
    pub authorizations: Vec<Name>,
    /// Services that select this workload, sorted.
    pub services: Vec<Name>,
    /// Name of the owning workload; empty: the pod's name.
    pub owner: Arc<str>,
}

/// One port of the workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundPort {
    /// Port number.
    pub port: u16,
    /// Declared protocol.
    pub protocol: Protocol,
    /// mTLS on this port; `None`: the workload's.
    pub mutual_tls: Option<MutualTls>,
    /// Service ports that target this port, sorted.
    pub service_ports: Vec<Name>,
}

/// How to call one service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// The service, `<namespace>/<service>`.
    pub service: Name,
    /// The port of the service.
    pub port: u16,
    /// Protocol of the port.
    pub protocol: Protocol,
    /// Which kind of route is attached.
    pub kind: RouteKind,
    /// Routes of that kind, oldest first, then by namespace and name.
    pub routes: Vec<Route>,
    /// Backend for connections without routes and for opaque bytes.
    pub default_backend: Option<Name>,
    /// Deadline of a request where the rule sets none.
    pub request_timeout: Option<Duration>,
}

/// Kind of the attached routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// No route is attached: traffic goes to the default backend.
    #[default]
    None,
    /// HTTPRoute: unmatched requests get 404.
    Http,
    /// GRPCRoute: unmatched requests get UNIMPLEMENTED.
    Grpc,
}

/// One HTTPRoute or GRPCRoute, as far as it applies to one service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The object.
    pub origin: Origin,
    /// Rules in the object's order.
    pub rules: Vec<Rule>,
}

/// One rule of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Name given by the user; empty: none.
    pub name: Arc<str>,
    /// Index in the object.
    pub index: u32,
    /// A request that any of these matches takes the rule.
    pub matches: Vec<Match>,
    /// Filters in order.
    pub filters: Vec<Filter>,
    /// Weighted backends.
    pub backends: Vec<WeightedBackend>,
    /// Deadline of the whole exchange. `None`: the Outbound's; zero: none.
    pub request_timeout: Option<Duration>,
    /// Deadline of one attempt. `None` or zero: none.
    pub backend_request_timeout: Option<Duration>,
}

/// One match: all conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Condition on the path; `None`: any.
    pub path: Option<PathMatch>,
    /// Method; `None`: any.
    pub method: Option<Method>,
    /// Conditions on header fields; names in any case.
    pub headers: Vec<KeyMatch>,
    /// Conditions on query parameters.
    pub query: Vec<KeyMatch>,
    /// gRPC service and method.
    pub grpc: Option<GrpcMatch>,
}

/// Condition on a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// The path is exactly this.
    Exact(String),
    /// The path begins with these elements.
    Prefix(String),
    /// The whole path matches this regular expression.
    Regex(String),
}

/// One condition on a named value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyMatch {
    /// Name of the field or parameter.
    pub name: String,
    /// What its value must be.
    pub value: ValueMatch,
}

/// Condition on a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    /// The value is exactly this.
    Exact(String),
    /// The whole value matches this regular expression.
    Regex(String),
}

/// Condition on the gRPC method; empty texts mean any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrpcMatch {
    /// Fully qualified service.
    pub service: String,
    /// Method.
    pub method: String,
    /// Service and method are regular expressions.
    pub regex: bool,
}

/// One step on a request or its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Changes request header fields.
    RequestHeaders(HeaderModifier),
    /// Changes response header fields.
    ResponseHeaders(HeaderModifier),
    /// Answers with a redirect.
    Redirect(Redirect),
    /// Changes host or path before forwarding.
    Rewrite(Rewrite),
    /// Answers with a fixed reply.
    Reply(FixedReply),
}

/// Changes of header fields: set, then add, then remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderModifier {
    /// Replaces all values.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Adds a value after those there are.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Removes all values.
    pub remove: Vec<HeaderName>,
}

/// A redirect by the Gateway API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// Scheme; `None`: the request's.
    pub scheme: Option<Scheme>,
    /// Host; `None`: the request's.
    pub hostname: Option<String>,
    /// Port; `None`: by the Gateway API's rule.
    pub port: Option<u16>,
    /// Change of the path; `None`: the request's.
    pub path: Option<PathRewrite>,
}

/// Scheme of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `http`.
    Http,
    /// `https`.
    Https,
}

/// A rewrite by the Gateway API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// Host to send; `None`: the request's.
    pub hostname: Option<String>,
    /// Change of the path; `None`: none.
    pub path: Option<PathRewrite>,
}

/// Change of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// Replaces the whole path; the query stays.
    Full(String),
    /// Replaces the prefix that the rule matched.
    Prefix(String),
}

/// A fixed answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedReply {
    /// HTTP status.
    pub status: StatusCode,
    /// Why; goes to the log and the body.
    pub reason: String,
}

/// A backend with its share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedBackend {
    /// The service port, or why the reference is invalid.
    pub backend: Result<Name, String>,
    /// Share, 0 to 1,000,000.
    pub weight: u32,
    /// Filters for requests that go to this backend.
    pub filters: Vec<Filter>,
}

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

/// Allow or deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// What matches is allowed; with an Allow policy in force, all else is denied.
    Allow,
    /// What matches is denied.
    Deny,
}

/// One AuthorizationPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// The object.
    pub origin: Origin,
    /// What a match means.
    pub action: Action,
    /// Only recorded, not enforced.
    pub shadow: bool,
    /// Rules, in order.
    pub rules: Vec<AuthorizationRule>,
}

/// One rule: empty lists mean any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthorizationRule {
    /// Name given by the user; empty: its index is used.
    pub name: Arc<str>,
    /// Sources: one must match.
    pub from: Vec<Source>,
    /// Operations: one must match.
    pub to: Vec<Operation>,
}

/// A source: all non-empty lists must hold a match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// SPIFFE identities; `*` at the end matches any rest.
    pub identities: Vec<String>,
    /// Namespaces.
    pub namespaces: Vec<String>,
    /// Service accounts, `<namespace>/<name>`.
    pub service_accounts: Vec<String>,
    /// Address blocks of the peer.
    pub cidrs: Vec<IpNet>,
}

/// An operation: all non-empty lists must hold a match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operation {
    /// Ports of the workload.
    pub ports: Vec<u16>,
    /// Methods.
    pub methods: Vec<Method>,
    /// Paths: exact, or with `*` at the end for a prefix.
    pub paths: Vec<String>,
}
