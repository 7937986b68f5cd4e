//! What an inbound request was allowed as, kept while it lives, so that it can be judged again when
//! policies change: a stream may outlive the rule that let it in.
//!
//! Beside the inbound spine: it is filled once authorize has let a request pass; the thread's tick and
//! upgraded streams ask it.
//!
//! Invariant: judging again only ever ends a request; nothing is let in by it.

use std::rc::Rc;

use http::{HeaderMap, Method, Uri};
use weft_proxy_core::authorize::{Denial, Verdict};
use weft_proxy_core::{Head, Inbound, Peer};

use crate::seat::Seat;
use crate::worker::Worker;

/// A request that was allowed.
pub(crate) struct Allowed {
    seat: Rc<Seat>,
    asked: Asked,
}

/// What a policy looks at in a request.
#[derive(Clone)]
struct Asked {
    method: Method,
    uri: Uri,
}

impl Asked {
    /// What would deny it now; `None`: nothing.
    fn denied(&self, inbound: &Inbound, peer: &Peer, port: u16) -> Option<Denial> {
        // Policies look at no other field.
        let none = HeaderMap::new();
        let head = Head::of(&self.method, &self.uri, &none);
        match inbound.authorize_request(peer, port, &head) {
            Verdict::Allowed { .. } => None,
            Verdict::Denied { by } => {
                tracing::info!(%by, port, "an open stream is newly denied");
                Some(by)
            }
        }
    }
}

impl Allowed {
    /// What passed on the connection of `seat`.
    pub(crate) fn new(seat: &Rc<Seat>, method: &Method, uri: &Uri) -> Self {
        Self { seat: seat.clone(), asked: Asked { method: method.clone(), uri: uri.clone() } }
    }

    /// The connection it came on.
    pub(crate) fn seat(&self) -> &Seat {
        &self.seat
    }

    /// What would deny it now; `None`: nothing.
    pub(crate) fn denied(&self, inbound: &Inbound) -> Option<Denial> {
        let (_, port) = self.seat.application()?;
        self.asked.denied(inbound, &self.seat.peer, port)
    }

    /// The same for a stream that outlives its connection's HTTP.
    pub(crate) fn outliving(&self) -> Option<Outliving> {
        let (_, port) = self.seat.application()?;
        let (worker, peer) = (self.seat.worker.clone(), self.seat.peer.clone());
        Some(Outliving { worker, peer, port, asked: self.asked.clone() })
    }
}

/// What an upgraded stream was allowed as.
pub(crate) struct Outliving {
    worker: Rc<Worker>,
    peer: Peer,
    port: u16,
    asked: Asked,
}

impl Outliving {
    /// Ready when a newer configuration denies it.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn newly_denied(&self) -> Denial {
        self.worker.newly_denied(|inbound| self.asked.denied(inbound, &self.peer, self.port)).await
    }
}
