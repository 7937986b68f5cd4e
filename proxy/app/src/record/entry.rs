//! What a record knows about one request or connection.
//!
//! Filled by the rooms while the walk goes on; read once, by the access log and the exporter, after it.
//!
//! Invariant: holds handles and numbers; nothing in it was formatted.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, StatusCode, Version};
use weft_proxy_core::{Moment, Name, Probe, Reason};

use crate::metrics::edge::{Direction, Edge, Outcome, Protocol};
use crate::record::id::RequestId;
use crate::trace::context::TraceContext;
use crate::trace::span::{AttemptSpan, EventSpan};

/// One request or connection, as far as known.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it is called.
    pub id: RequestId,
    /// A whole connection (opaque bytes), not a request.
    pub connection: bool,
    /// Seen from the pod.
    pub direction: Direction,
    /// What is spoken.
    pub protocol: Protocol,
    /// HTTP version of the downstream; `None` on connections.
    pub version: Option<Version>,
    /// Method; `None` on connections and when the head could not be read.
    pub method: Option<Method>,
    /// Path without query; empty when nobody will read it.
    pub path: String,
    /// Host asked for; empty when nobody will read it.
    pub authority: String,
    /// Header fields that a tap asked for, as they came.
    pub tapped: Vec<(HeaderName, HeaderValue)>,
    /// Query as far as it may be written; empty when nobody will read it.
    pub query: String,
    /// Header fields that are to be written, by the names that they were given.
    pub fields: Vec<(Arc<str>, String)>,
    /// Who connected.
    pub client: Option<SocketAddr>,
    /// Where the client wanted to go.
    pub destination: Option<SocketAddr>,
    /// When it started.
    pub started: Moment,
    /// When the last attempt was sent on its way.
    pub sent: Option<Moment>,
    /// When the answer began.
    pub first_byte: Option<Moment>,
    /// Status answered to the downstream.
    pub status: Option<StatusCode>,
    /// gRPC status answered to the downstream.
    pub grpc: Option<u8>,
    /// The sidecar's own reason; the first one given stays.
    pub reason: Option<Reason>,
    /// The kubelet's probe that it is: counted as such, and on no edge.
    pub probe: Option<Probe>,
    /// The edge it is counted on.
    pub edge: Option<Arc<Edge>>,
    /// Rule taken within the route.
    pub rule: Option<Name>,
    /// Policy that decided.
    pub policy: Option<Name>,
    /// Backend chosen.
    pub backend: Option<Name>,
    /// Endpoint of the last attempt.
    pub endpoint: Option<SocketAddr>,
    /// Attempts made.
    pub attempts: u16,
    /// Bytes of body from downstream to upstream.
    pub up: u64,
    /// Bytes of body from upstream to downstream.
    pub down: u64,
    /// It counts as one of the requests that the application has in flight.
    pub in_flight: bool,
    /// Its span, when it is kept.
    pub trace: Option<TraceContext>,
    /// What its header fields say for its span, by the names that they were given.
    pub attributes: Vec<(Arc<str>, String)>,
    /// Its attempts, when it is kept.
    pub tries: Vec<AttemptSpan>,
    /// What happened, when it is kept.
    pub events: Vec<EventSpan>,
}

impl Entry {
    /// An entry about nothing yet.
    #[must_use]
    pub fn blank() -> Box<Self> {
        Box::new(Self {
            id: RequestId::default(),
            connection: false,
            direction: Direction::Inbound,
            protocol: Protocol::Http,
            version: None,
            method: None,
            path: String::new(),
            authority: String::new(),
            query: String::new(),
            tapped: Vec::new(),
            fields: Vec::new(),
            client: None,
            destination: None,
            started: Moment(0),
            sent: None,
            first_byte: None,
            status: None,
            grpc: None,
            reason: None,
            probe: None,
            edge: None,
            rule: None,
            policy: None,
            backend: None,
            endpoint: None,
            attempts: 0,
            up: 0,
            down: 0,
            in_flight: false,
            trace: None,
            attributes: Vec::new(),
            tries: Vec::new(),
            events: Vec::new(),
        })
    }

    /// Whether it was refused or failed: what is logged when only errors are, and kept for longer.
    #[must_use]
    pub fn went_wrong(&self) -> bool {
        let refused = self.reason.is_some_and(|reason| reason != Reason::ConfigReply);
        let status = self.status.map_or(0, |status| status.as_u16());
        refused || (!self.connection && Outcome::new(status, self.grpc, self.reason).failed())
    }

    /// Forgets everything but the room its texts take, so that the entry can serve again.
    pub fn wipe(&mut self) {
        self.id.wipe();
        self.path.clear();
        self.path.shrink_to(KEPT_TEXT);
        self.authority.clear();
        self.authority.shrink_to(KEPT_TEXT);
        self.query.clear();
        self.query.shrink_to(KEPT_TEXT);
        self.fields.clear();
        (self.version, self.method, self.client, self.destination) = (None, None, None, None);
        (self.sent, self.first_byte, self.status, self.grpc) = (None, None, None, None);
        (self.reason, self.edge, self.rule, self.policy) = (None, None, None, None);
        (self.backend, self.endpoint, self.trace, self.attempts) = (None, None, None, 0);
        self.probe = None;
        self.tapped.clear();
        self.attributes.clear();
        self.tries.clear();
        self.events.clear();
        (self.up, self.down) = (0, 0);
    }
}

/// An HTTP version, as logs, taps and spans name it. Source: OpenTelemetry's `network.protocol.version`.
#[must_use]
pub fn version_name(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

/// Bytes of text that a spare entry keeps. Source: longer paths and hosts are rare.
const KEPT_TEXT: usize = 512;
