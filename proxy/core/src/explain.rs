//! Why a request goes where it goes: the walk of one that nobody sent, room by room, in words.
//!
//! Beside every decision, and under none: `weft explain` asks here with the very snapshot that requests
//! read, a request never does. What is said to be decided is decided by the functions that requests ask
//! ([`crate::Outbound::route`], [`crate::Inbound::authorize_request`], [`crate::hygiene::check_request`], …);
//! what else there was to decide by is shown through the same conditions, each asked for the first part of it
//! that does not hold.
//!
//! ```text
//! outbound: destination ─ detect ─ head ─ route (rules, filters, deadlines) ─ balance ─ connect ─ relay
//! inbound:  identify ─ detect ─ head ─ authorize (policies, shadows) ─ connect
//! ```
//!
//! Invariant: the outcome is the one that a request with this head gets from this snapshot; a property
//! holds the two together.
//! Invariant: pure, as the decisions are; no text here is made while a request is served.

mod backend;
mod filters;
mod inbound;
mod outbound;
mod policies;
mod record;
mod rules;
mod text;

use std::net::SocketAddr;

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};

use crate::backend::Backend;
use crate::balance::Look;
use crate::detect::{Detection, taken_for};
use crate::head::{Head, is_grpc};
use crate::names::{Identity, Name, WorkloadName};
use crate::reason::{GrpcCode, Reason};
use crate::spec::{Origin, Protocol};

pub use backend::Imagined;
pub use inbound::inbound;
pub use outbound::outbound;

/// A room of ARCHITECTURE.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Which destination is meant.
    Accept,
    /// Who the peer is.
    Identify,
    /// What is spoken.
    Detect,
    /// Whether it may pass.
    Authorize,
    /// Which rule takes it.
    Route,
    /// Which endpoint it reaches.
    Balance,
    /// How the endpoint is reached.
    Connect,
    /// What happens while it is under way.
    Relay,
    /// What is told of it.
    Record,
}

impl Room {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Identify => "identify",
            Self::Detect => "detect",
            Self::Authorize => "authorize",
            Self::Route => "route",
            Self::Balance => "balance",
            Self::Connect => "connect",
            Self::Relay => "relay",
            Self::Record => "record",
        }
    }
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A fact, or a setting in force.
    Fact,
    /// It holds, and the walk goes on by it.
    Holds,
    /// It does not hold, and the walk goes past it.
    PassedBy,
    /// The walk ends here.
    Ends,
    /// It is only recorded.
    Shadow,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The room.
    pub room: Room,
    /// What is looked at.
    pub what: String,
    /// What it came to.
    pub mark: Mark,
    /// Why, for a person.
    pub why: String,
    /// What says so.
    pub by: By,
    /// What it consists of.
    pub steps: Vec<Step>,
}

/// What says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct By {
    /// The object; `None`: a default, or nobody.
    pub origin: Option<Origin>,
    /// Its field; without an object "default", or nothing where there is nothing to say.
    pub field: String,
}

/// How a walk ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It goes on.
    Forward,
    /// The sidecar answers.
    Answer,
    /// The connection is reset.
    Reset,
    /// Bytes go to the original destination as they are.
    PassThrough,
}

/// The outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How it ends.
    pub end: End,
    /// The reason; `None`: there is none, it goes on.
    pub reason: Option<Reason>,
    /// Status of an answer.
    pub status: Option<StatusCode>,
    /// Status of an answer to gRPC.
    pub grpc: Option<GrpcCode>,
    /// In one sentence.
    pub why: String,
    /// Where a redirect leads.
    pub location: Option<String>,
}

/// A backend that a request may go to.
#[derive(Clone, Debug)]
pub struct Onward {
    /// The service port; `None`: a workload that is called by its address.
    pub backend: Option<Name>,
    /// Its share, and the sum of all shares.
    pub share: (u32, u32),
    /// Endpoints that take traffic.
    pub endpoints: Vec<crate::backend::Endpoint>,
    /// The request as it is sent there.
    pub sent: Request,
}

/// The walk through one side.
#[derive(Clone, Debug)]
pub struct Walk {
    /// Whose sidecar it is; `None`: unknown.
    pub workload: Option<WorkloadName>,
    /// The snapshot that decided.
    pub generation: u64,
    /// Its steps.
    pub steps: Vec<Step>,
    /// How it ends.
    pub outcome: Outcome,
    /// Where it may go; only of an outbound walk that goes on.
    pub onward: Vec<Onward>,
}

/// What is sent on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// The application's own TLS.
    Tls,
    /// Bytes that are neither.
    Bytes,
}

/// A request, or a connection, that nobody sent.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is sent on the connection; what follows means nothing of what is no HTTP.
    pub spoken: Spoken,
    /// Method.
    pub method: Method,
    /// Target, or why it is none.
    pub target: Result<Uri, String>,
    /// Fields, Host among them.
    pub headers: HeaderMap,
}

impl Request {
    /// A request as a client would send it; `authority` becomes Host, or `:authority` in HTTP/2.
    ///
    /// # Errors
    /// What cannot be sent at all: a method or a field that is none.
    pub fn new(
        spoken: Spoken,
        method: &str,
        target: &str,
        authority: &str,
        fields: &[(String, String)],
    ) -> Result<Self, String> {
        let method = if method.is_empty() { "GET" } else { method };
        let method = method.parse().map_err(|_| format!("{method:?} is no method"))?;
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let known =
                HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is no field name"))?;
            let value =
                HeaderValue::from_str(value).map_err(|_| format!("the value of {name} cannot be sent"))?;
            headers.append(known, value);
        }
        let target = if target.is_empty() { "/" } else { target };
        let mut uri = target.parse::<Uri>().map_err(|problem| problem.to_string());
        match (spoken, headers.contains_key(HOST), HeaderValue::from_str(authority)) {
            (_, true, _) | (_, _, Err(_)) => {}
            (_, _, Ok(host)) if host.is_empty() => {}
            (Spoken::Http2, _, _) => {
                let parts = Uri::builder().scheme("http").authority(authority).path_and_query(target);
                uri = uri.and_then(|_| parts.build().map_err(|problem| problem.to_string()));
            }
            (_, _, Ok(host)) => drop(headers.insert(HOST, host)),
        }
        Ok(Self { spoken, method, target: uri, headers })
    }

    /// Whether it is HTTP.
    #[must_use]
    pub fn is_http(&self) -> bool {
        matches!(self.spoken, Spoken::Http1 | Spoken::Http2)
    }

    /// Whether it is gRPC.
    #[must_use]
    pub fn is_grpc(&self) -> bool {
        is_grpc(&self.headers)
    }

    /// What its first bytes are taken for on a port that declares a protocol.
    fn taken_for(&self, declared: Protocol) -> Spoken {
        let seen = match self.spoken {
            Spoken::Http1 => Detection::Http1,
            Spoken::Http2 => Detection::Http2,
            Spoken::Tls => Detection::Tls,
            Spoken::Bytes => Detection::Opaque,
        };
        match taken_for(declared, seen) {
            Detection::Http1 => Spoken::Http1,
            Detection::Http2 => Spoken::Http2,
            Detection::Tls => Spoken::Tls,
            Detection::Opaque | Detection::More => Spoken::Bytes,
        }
    }

    fn version(&self) -> Version {
        if self.spoken == Spoken::Http2 { Version::HTTP_2 } else { Version::HTTP_11 }
    }

    /// What decisions look at.
    fn head<'a>(&'a self, uri: &'a Uri) -> Head<'a> {
        Head::of(&self.method, uri, &self.headers)
    }

    fn line(&self) -> String {
        let target = self.target.as_ref().ok().and_then(Uri::path_and_query);
        let target = target.map_or("?", http::uri::PathAndQuery::as_str);
        format!("{} {target}", self.method)
    }
}

/// What an outbound walk is about.
#[derive(Clone, Debug)]
pub enum Destination {
    /// A service port.
    Service(Name),
    /// An original destination.
    Address(SocketAddr),
}

/// What an inbound walk is about: the peer, and the port it comes to.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What it proves; `None`: plaintext.
    pub identity: Option<Identity>,
    /// Where it comes from; `None`: unknown, which no block of addresses holds.
    pub address: Option<std::net::IpAddr>,
    /// The workload's port.
    pub port: u16,
}

/// How the endpoints of backends stand: what the balancers of a running sidecar know, or what is imagined.
pub trait Balancers {
    /// How the endpoints of one backend stand.
    fn look(&self, name: &Name, backend: &std::sync::Arc<Backend>) -> Look;

    /// What can be said of where this comes from, for a person.
    fn basis(&self) -> &'static str;
}

impl Step {
    fn new(room: Room, mark: Mark, what: impl Into<String>, why: impl Into<String>) -> Self {
        let (what, why) = (what.into(), why.into());
        Self { room, what, mark, why, by: By::default(), steps: Vec::new() }
    }

    fn fact(room: Room, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(room, Mark::Fact, what, why)
    }

    fn by(mut self, by: By) -> Self {
        self.by = by;
        self
    }

    fn of(mut self, steps: Vec<Self>) -> Self {
        self.steps = steps;
        self
    }
}

impl By {
    fn object(kind: &str, namespace: &str, name: &str, field: impl Into<String>) -> Self {
        let origin = Origin { kind: kind.into(), namespace: namespace.into(), name: name.into() };
        Self { origin: Some(origin), field: field.into() }
    }

    /// An object by its name on the wire, `<namespace>/<name>`.
    fn named(kind: &str, name: &str, field: impl Into<String>) -> Self {
        let (namespace, name) = name.split_once('/').unwrap_or(("", name));
        Self::object(kind, namespace, name, field)
    }

    fn default_value() -> Self {
        Self { origin: None, field: "default".to_owned() }
    }
}

impl Outcome {
    fn forward(why: impl Into<String>) -> Self {
        Self { end: End::Forward, reason: None, status: None, grpc: None, why: why.into(), location: None }
    }

    /// What a request that is refused for a reason is answered, or a connection of bytes.
    fn refused(request: &Request, reason: Reason, why: impl Into<String>) -> Self {
        let answered = request.is_http();
        Self {
            end: if answered { End::Answer } else { End::Reset },
            reason: Some(reason),
            status: answered.then(|| reason.status()),
            grpc: (answered && request.is_grpc()).then(|| reason.grpc()),
            why: why.into(),
            location: None,
        }
    }
}

/// What a protocol is called.
fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Detect => "whatever is detected",
        Protocol::Http1 => "HTTP/1",
        Protocol::Http2 => "HTTP/2",
        Protocol::Tls => "TLS of the application's own",
        Protocol::Opaque => "bytes",
    }
}

/// What is spoken is called.
fn spoken_name(spoken: Spoken) -> &'static str {
    match spoken {
        Spoken::Http1 => "HTTP/1",
        Spoken::Http2 => "HTTP/2",
        Spoken::Tls => "TLS of the application's own",
        Spoken::Bytes => "bytes",
    }
}

/// The step of what a connection is taken for.
fn detected(declared: Protocol, taken: Spoken, by: By) -> Step {
    let taken = spoken_name(taken);
    match declared {
        Protocol::Detect => {
            let why = "nothing declares the port's protocol: the first bytes decide";
            Step::fact(Room::Detect, format!("{taken}, detected"), why).by(By::default_value())
        }
        declared => {
            let why = format!("the port is declared to speak {}", protocol_name(declared));
            Step::fact(Room::Detect, taken, why).by(by)
        }
    }
}

/// Whether a head is sound, as the first thing asked of a request is.
fn sound(request: &Request) -> Result<&Uri, (Reason, String)> {
    let uri = request
        .target
        .as_ref()
        .map_err(|problem| (Reason::MalformedRequest, format!("the target cannot be read: {problem}")))?;
    crate::hygiene::check_request(&request.method, uri, request.version(), &request.headers)
        .map(|()| uri)
        .map_err(|refusal| (refusal.reason, refusal.reason.meaning().to_owned()))
}

#[cfg(test)]
mod tests;
