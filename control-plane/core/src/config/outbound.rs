//! Outbound and what it holds: routes, rules, matches, filters, backends with their shares.
//!
//! Where it stands: *compile* fills these, the application's *serve* step copies them to the wire.
//!
//! Invariant: one struct a message of `weft/v1/config.proto`, one field a field. Whatever the Gateway API
//! leaves out by default is written out, except spans.

use std::time::Duration;

use super::{Origin, Protocol, ProtocolBy};

/// How to call one service port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// The service, "namespace/service".
    pub service: String,
    /// The port of the service.
    pub port: u16,
    /// Protocol of the port.
    pub protocol: Protocol,
    /// What declares it.
    pub protocol_by: ProtocolBy,
    /// Which kind of route is attached; absent: none is.
    pub route_kind: Option<RouteKind>,
    /// Routes of that kind, oldest first, then by namespace and name.
    pub routes: Vec<Route>,
    /// Backend for connections without routes, a service port.
    pub default_backend: String,
    /// Deadline of a request where the rule sets none. Absent: none.
    pub request_timeout: Option<Duration>,
}

/// Kind of the attached routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// HTTPRoute: unmatched requests get 404.
    Http,
    /// GRPCRoute: unmatched requests get UNIMPLEMENTED.
    Grpc,
}

/// One route, as far as it applies to one service port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The object.
    pub origin: Origin,
    /// Rules in the object's order.
    pub rules: Vec<Rule>,
}

/// One rule of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Name given by the user; empty: none.
    pub name: String,
    /// Index in the object, from 0.
    pub index: u32,
    /// A request that any of these matches takes the rule. Never empty.
    pub matches: Vec<Match>,
    /// Filters in order.
    pub filters: Vec<Filter>,
    /// Weighted backends.
    pub backends: Vec<WeightedBackend>,
    /// Deadline of the whole exchange. Absent: the Outbound's; zero: none.
    pub request_timeout: Option<Duration>,
    /// Deadline of one attempt. Absent or zero: none.
    pub backend_request_timeout: Option<Duration>,
}

/// One match: all conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// Condition on the path. In a GRPC match always the prefix "/".
    pub path: PathMatch,
    /// Method, upper case; empty: any.
    pub method: String,
    /// Conditions on header fields; names are lower case, each once.
    pub headers: Vec<KeyMatch>,
    /// Conditions on query parameters; each name once.
    pub query: Vec<KeyMatch>,
    /// gRPC service and method; only in GRPC routes.
    pub grpc: Option<GrpcMatch>,
}

/// Condition on the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// The path is exactly this.
    Exact(String),
    /// The path begins with these elements.
    Prefix(String),
    /// The whole path matches this regular expression.
    Regex(String),
}

/// One condition on a named value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyMatch {
    /// Name of the field or parameter.
    pub name: String,
    /// Condition on its value.
    pub value: ValueMatch,
}

/// Condition on a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueMatch {
    /// The value is exactly this.
    Exact(String),
    /// The whole value matches this regular expression.
    Regex(String),
}

/// Condition on the gRPC method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcMatch {
    /// Fully qualified service; empty: any.
    pub service: String,
    /// Method; empty: any.
    pub method: String,
    /// Service and method are regular expressions.
    pub regex: bool,
}

/// One step on a request or its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
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

impl Filter {
    /// Whether the filter answers by itself, so that no backend is needed.
    pub fn answers(&self) -> bool {
        matches!(self, Self::Redirect(_) | Self::Reply(_))
    }
}

/// Changes of header fields: set, then add, then remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderModifier {
    /// Replaces all values.
    pub set: Vec<Field>,
    /// Adds a value after those there are.
    pub add: Vec<Field>,
    /// Removes all values.
    pub remove: Vec<String>,
}

/// One header field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Name, lower case.
    pub name: String,
    /// Value.
    pub value: String,
}

/// Redirect, by the Gateway API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// "http" or "https"; empty: the request's.
    pub scheme: String,
    /// Host; empty: the request's.
    pub hostname: String,
    /// Port; 0: by the Gateway API's rule.
    pub port: u16,
    /// Change of the path; absent: the request's.
    pub path: Option<PathRewrite>,
}

/// Rewrite, by the Gateway API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// Host to send; empty: the request's.
    pub hostname: String,
    /// Change of the path; absent: none.
    pub path: Option<PathRewrite>,
}

/// Change of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRewrite {
    /// Replaces the whole path; the query stays.
    Full(String),
    /// Replaces the prefix that the rule matched.
    Prefix(String),
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedReply {
    /// HTTP status (gRPC callers get the matching code).
    pub status: u16,
    /// Why; goes to the log and the body.
    pub reason: String,
}

/// A backend with its share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightedBackend {
    /// A service port; empty: invalid reference.
    pub backend: String,
    /// Why the reference is invalid; empty: it is valid.
    pub invalid: String,
    /// Share, 0-1000000.
    pub weight: u32,
    /// Filters for requests that go to this backend.
    pub filters: Vec<Filter>,
}
