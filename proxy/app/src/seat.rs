//! One downstream connection as its requests see it: who is there, where it goes, what it is counted on.
//!
//! Made by a spine once the connection's protocol is known; every request of the connection borrows it.
//!
//! Invariant: what is known once a connection is not looked up once a request.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use weft_proxy_core::eject::Event;
use weft_proxy_core::retry::Failure;
use weft_proxy_core::{Endpoint, Hop, Name, Peer, Reason};
use weft_proxy_net::http::{Conn, Upgrade};
use weft_proxy_net::sock::Io;

use crate::allowed::Outliving;
use crate::edges::{self, Way};
use crate::exchange::{Exchange, ResponseBody};
use crate::metrics::edge::{Direction, Edge, Kept, Protocol};
use crate::record::{Head, Record};
use crate::reply::{Own, WEFT_FLAGS, is_grpc};
use crate::trace;
use crate::upstream::Picked;
use crate::worker::Worker;

/// Where a connection goes.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    /// A service port, by its routes.
    Service(Name),
    /// One workload, called by its address.
    Direct(Arc<Endpoint>),
    /// The application behind this sidecar, and the port by which policies know it.
    Application { address: SocketAddr, port: u16 },
    /// An address that the mesh knows nothing about.
    Unknown(SocketAddr),
}

impl Destination {
    /// A number that stands for it, and hardly ever for another.
    fn number(&self) -> u64 {
        match self {
            Self::Service(name) => trace::rate::number(name.as_str()),
            Self::Direct(endpoint) => {
                endpoint.workload.as_ref().map_or(1, |name| trace::rate::number(name.as_str()))
            }
            Self::Application { port, .. } => u64::from(*port),
            // However many these are, they are one.
            Self::Unknown(_) => 0,
        }
    }
}

/// One downstream connection.
pub(crate) struct Seat {
    pub(crate) worker: Rc<Worker>,
    pub(crate) conn: Rc<Conn>,
    pub(crate) io: Io,
    pub(crate) peer: Peer,
    pub(crate) client: Option<SocketAddr>,
    pub(crate) destination: Destination,
    pub(crate) direction: Direction,
    /// The peer is a sidecar that proved its identity.
    pub(crate) secure: bool,
    /// Stands for what is called, where traces are counted.
    called: u64,
    edges: RefCell<Kept<Edge>>,
    upgrade: RefCell<Option<Upgraded>>,
}

/// What a connection is, when it is seated.
pub(crate) struct Seating {
    pub(crate) conn: Rc<Conn>,
    pub(crate) io: Io,
    pub(crate) peer: Peer,
    pub(crate) client: Option<SocketAddr>,
    pub(crate) destination: Destination,
    pub(crate) direction: Direction,
    pub(crate) secure: bool,
}

impl Seat {
    pub(crate) fn new(worker: &Rc<Worker>, seating: Seating) -> Rc<Self> {
        let Seating { conn, io, peer, client, destination, direction, secure } = seating;
        Rc::new(Self {
            worker: worker.clone(),
            called: destination.number(),
            conn,
            io,
            peer,
            client,
            destination,
            direction,
            secure,
            edges: RefCell::default(),
            upgrade: RefCell::default(),
        })
    }

    /// The application's address and port, on an inbound connection.
    pub(crate) fn application(&self) -> Option<(SocketAddr, u16)> {
        match self.destination {
            Destination::Application { address, port } => Some((address, port)),
            Destination::Service(_) | Destination::Direct(_) | Destination::Unknown(_) => None,
        }
    }

    /// Bounds the number of fields. hyper's HTTP/1 does so while it reads, its HTTP/2 bounds bytes alone.
    ///
    /// # Errors
    /// When there are more than the limit.
    pub(crate) fn check_size(&self, headers: &HeaderMap) -> Result<(), Reason> {
        if headers.len() <= self.worker.plane.limits.serve.head.fields {
            return Ok(());
        }
        self.worker.limit_hit("headers");
        Err(Reason::HeadersTooLarge)
    }

    /// Opens the record of a request.
    pub(crate) fn record(&self, request: &Request<Incoming>) -> Record {
        let protocol = if is_grpc(request.headers()) { Protocol::Grpc } else { Protocol::Http };
        let head = Head {
            protocol,
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
        };
        let now = self.worker.now();
        if self.secure {
            return self.worker.ledger.open_within_mesh(self.called, head, self.client, now);
        }
        self.worker.ledger.open_toward(self.called, self.direction, head, self.client, now)
    }

    /// The edge of an inbound request.
    pub(crate) fn inbound_edge(&self, grpc: bool) -> Arc<Edge> {
        let port = self.application().map_or(0, |(_, port)| port);
        let resolve = || edges::inbound(&self.worker, &self.peer, port, protocol(grpc));
        let mut edges = self.edges.borrow_mut();
        edges.find(self.worker.generation(), (0, u64::from(grpc)), resolve).clone()
    }

    /// Notes the endpoint of an attempt, and writes the attempt's trace context into its fields.
    pub(crate) fn note_attempt(
        &self,
        exchange: &Exchange,
        way: Option<&Way>,
        picked: &Picked,
        headers: &mut HeaderMap,
    ) {
        let protocol = protocol(is_grpc(headers));
        let edge = edges::outbound(&self.worker, way, picked, protocol);
        let now = self.worker.now();
        exchange.note(|record| match record.attempt(&edge, picked.endpoint.address, now) {
            Some(context) => trace::context::inject(&context, headers),
            None if picked.endpoint.identity.is_some() => record.tell_dropped(headers),
            None => {}
        });
    }

    /// Counts what an attempt changed about its endpoint.
    pub(crate) fn note_event(&self, exchange: &Exchange, picked: &Picked, event: Option<Event>) {
        if let Some(what) = picked.upstream().note(event, picked.endpoint.address) {
            let now = self.worker.now();
            exchange.note(|record| record.event(what, now));
        }
    }

    /// A request that the application gave no answer to. Another sidecar is told what the application can
    /// have seen of it, because it may know another endpoint.
    pub(crate) fn unanswered(&self, reason: Reason, failure: Option<Failure>) -> Own {
        let told = failure.filter(|_| self.secure).and_then(Failure::told);
        Own { told, ..Own::from(reason) }
    }

    /// Tells the caller what its request was called, where every answer does. Another sidecar tells it itself.
    pub(crate) fn sign(&self, exchange: &Exchange, headers: &mut HeaderMap) {
        if self.worker.ledger.signs_all() && !self.secure {
            exchange.note(|record| record.sign(headers));
        }
    }

    /// An answer of our own to a request.
    pub(crate) fn refuse(
        &self,
        exchange: &Exchange,
        own: Own,
        version: Version,
        grpc: bool,
    ) -> Response<ResponseBody> {
        let reason = own.reason;
        let mut response = own.respond(version, grpc);
        exchange.note(|record| {
            record.reason(reason);
            record.sign(response.headers_mut());
        });
        if self.worker.ledger.signs_all() {
            response.headers_mut().insert(WEFT_FLAGS, HeaderValue::from_static(reason.flags()));
        }
        exchange.answered(response.status(), response.headers());
        exchange.close(None);
        self.conn.half(true);
        response
    }

    /// After an answer that agrees to an upgrade: HTTP ends here, the stream goes on.
    ///
    /// # Errors
    /// When the upstream switches without having been asked.
    pub(crate) fn watch_upgrade(
        &self,
        exchange: &Exchange,
        status: StatusCode,
        asked: Asked,
    ) -> Result<bool, Own> {
        let agreed = match asked {
            Asked::Nothing => return Ok(false),
            Asked::Upgrade => status == StatusCode::SWITCHING_PROTOCOLS,
            Asked::Connect => status.is_success(),
        };
        if !agreed {
            return Ok(false);
        }
        let link = exchange.take_lease().and_then(weft_proxy_net::http::Lease::keep);
        let link = link.ok_or_else(|| Own::from(Reason::UpgradeRefused))?;
        exchange.note(|record| record.event("upgrade", self.worker.now()));
        *self.upgrade.borrow_mut() = Some(Upgraded {
            upgrade: link.upgrade(),
            record: exchange.take_record(),
            allowed: exchange.outliving(),
        });
        self.conn.upgrade();
        Ok(true)
    }

    /// What follows a CONNECT was meant for the tunnel: where there is none, the connection ends.
    pub(crate) fn end_without_tunnel(
        &self,
        asked: Asked,
        agreed: bool,
        response: &mut Response<ResponseBody>,
    ) {
        if asked == Asked::Connect && !agreed && response.version() <= Version::HTTP_11 {
            response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// The upgrade that the connection agreed to.
    pub(crate) fn take_upgrade(&self) -> Option<Upgraded> {
        self.upgrade.borrow_mut().take()
    }
}

/// HTTP that has ended with an agreement to go on otherwise.
pub(crate) struct Upgraded {
    pub(crate) upgrade: Upgrade,
    pub(crate) record: Option<Record>,
    /// What the request was allowed as, on the inbound side.
    pub(crate) allowed: Option<Outliving>,
}

/// What a request asked for beyond an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Nothing,
    /// Another protocol on this connection.
    Upgrade,
    /// A tunnel.
    Connect,
}

impl Asked {
    /// Reads it off a head.
    ///
    /// # Errors
    /// A tunnel within a connection of HTTP/2: it would have to be a stream of its own, which is not there.
    pub(crate) fn of(parts: &http::request::Parts) -> Result<Self, Reason> {
        if parts.method == http::Method::CONNECT {
            return if parts.version == Version::HTTP_2 {
                Err(Reason::UpgradeRefused)
            } else {
                Ok(Self::Connect)
            };
        }
        let upgrade = weft_proxy_core::hygiene::upgrade(parts.version, &parts.headers);
        Ok(if upgrade.is_some() { Self::Upgrade } else { Self::Nothing })
    }
}

fn protocol(grpc: bool) -> Protocol {
    if grpc { Protocol::Grpc } else { Protocol::Http }
}

/// What a hop tells about the protocol inside.
pub(crate) fn carries_http(hop: Hop) -> Option<bool> {
    match hop {
        Hop::Http1 => Some(false),
        Hop::Http2 => Some(true),
        Hop::Tcp | Hop::TcpTold => None,
    }
}
