//! Room 5, **route**: head and snapshot in, a way, or an answer of our own, out.
//!
//! After *authorize*, before *balance*. Finds the rule, changes the head as its filters say, and names
//! the backend whose turn it is.
//!
//! Invariant: a request is decided once, from one snapshot.

use std::rc::Rc;

use http::request::Parts;
use weft_proxy_core::outbound::Decision;
use weft_proxy_core::{Head, Reason};

use crate::edges::Way;
use crate::exchange::Exchange;
use crate::reply::Own;
use crate::seat::{Destination, Seat};
use crate::upstream::Upstream;

/// Where a request goes.
pub(crate) struct Routed {
    /// The service and its plan; none where a pod is called by its address.
    pub(crate) way: Option<Way>,
    pub(crate) upstream: Rc<Upstream>,
}

/// Decides one request.
pub(crate) fn route(seat: &Seat, exchange: &Exchange, parts: &mut Parts) -> Result<Routed, Own> {
    let name = match &seat.destination {
        Destination::Direct(endpoint) => {
            return Ok(Routed { way: None, upstream: seat.worker.direct(endpoint) });
        }
        Destination::Service(name) => name,
        Destination::Application { .. } | Destination::Unknown(_) => {
            return Err(Own::from(Reason::UnknownDestination));
        }
    };
    let service = seat.worker.service(name).ok_or(Reason::ConfigTimeout)?;
    let head = Head::of(&parts.method, &parts.uri, &parts.headers);
    let decision = service.outbound.route(&head, &mut service.turns.borrow_mut());
    let plan = match decision {
        Decision::Forward(plan) => plan,
        Decision::Reply(reply) => {
            exchange.note(|record| record.plan(service.rule_name(reply.rule), &service.name));
            return Err(Own::from(reply));
        }
    };
    service.outbound.apply_request(plan, &mut parts.uri, &mut parts.headers)?;
    let upstream = service.upstreams.get(usize::from(plan.backend)).cloned().ok_or(Reason::InvalidBackend)?;
    upstream.enter(seat.worker.now());
    exchange.note(|record| record.plan(service.rule_name(plan.rule), &upstream.name));
    Ok(Routed { way: Some((service, plan)), upstream })
}
