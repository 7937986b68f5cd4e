//! Routes of one service port, as written: rules, matches, filters, weighted backends.
//!
//! Compiled by [`crate::Outbound::compile`].
//!
//! Invariant: plain data; nothing is checked beyond the types.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::{Origin, Protocol, ProtocolBy};
use crate::names::Name;

/// How to call one service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// The service, `<namespace>/<service>`.
    pub service: Name,
    /// The port of the service.
    pub port: u16,
    /// Protocol of the port.
    pub protocol: Protocol,
    /// What says so.
    pub protocol_by: ProtocolBy,
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
