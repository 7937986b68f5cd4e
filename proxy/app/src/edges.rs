//! Which edge of the mesh a request or connection is counted on.
//!
//! Beside the walk: the spines ask once authorize (inbound) or balance (outbound) has made it clear.
//!
//! Invariant: texts are put together when an edge is first seen, not for each request.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use weft_proxy_core::outbound::Plan;
use weft_proxy_core::{Name, Peer};

use crate::metrics::edge::{Direction, Edge, EdgeLabels, Party, Protocol, Security, UNKNOWN};
use crate::upstream::Picked;
use crate::worker::{Service, Worker};

/// A service and what its routes decided.
pub(crate) type Way = (Rc<Service>, Plan);

/// The edge of what comes from `peer` to `port`.
pub(crate) fn inbound(worker: &Worker, peer: &Peer, port: u16, protocol: Protocol) -> Arc<Edge> {
    let inbound = worker.inbound();
    let service = inbound.as_ref().and_then(|inbound| inbound.service_ports(port).first().cloned());
    worker.ledger.edge(&EdgeLabels {
        direction: Direction::Inbound,
        protocol,
        security: if peer.identity.is_some() { Security::MutualTls } else { Security::None },
        source: party(peer.identity.as_ref()),
        destination: own(worker),
        service: service.unwrap_or_else(|| Name::from(UNKNOWN)),
        route: Name::from(NO_ROUTE),
    })
}

/// The edge of one outbound attempt.
pub(crate) fn outbound(worker: &Worker, way: Option<&Way>, picked: &Picked, protocol: Protocol) -> Arc<Edge> {
    let rule = way.and_then(|(_, plan)| plan.rule).map_or(0xffff, u64::from);
    // An endpoint's place in memory tells it apart for as long as a snapshot holds it, and the kept
    // edges last no longer.
    let endpoint = Arc::as_ptr(&picked.endpoint).addr() as u64;
    worker.kept_edge((endpoint, rule << 8 | protocol as u64), || {
        let endpoint = &picked.endpoint;
        let label = way.map(|(service, plan)| service.outbound.label(plan.rule));
        worker.ledger.edge(&EdgeLabels {
            direction: Direction::Outbound,
            protocol,
            security: if endpoint.identity.is_some() { Security::MutualTls } else { Security::None },
            source: own(worker),
            destination: destination(picked),
            service: way.map_or_else(|| picked.upstream().name.clone(), |(service, _)| service.name.clone()),
            route: label.map_or_else(|| Name::from(NO_ROUTE), |label| Name::from(&*label.route)),
        })
    })
}

/// The edge of bytes that pass to an address the mesh knows nothing about.
pub(crate) fn passing(worker: &Worker, address: SocketAddr, protocol: Protocol) -> Arc<Edge> {
    worker.ledger.edge(&EdgeLabels {
        direction: Direction::Outbound,
        protocol,
        security: Security::None,
        source: own(worker),
        destination: Party::unknown(),
        service: Name::from(address.ip().to_string().as_str()),
        route: Name::from(NO_ROUTE),
    })
}

/// This workload: as its owner calls it once the control plane told, and with the identity it holds.
fn own(worker: &Worker) -> Party {
    let mut own = worker.plane.own.clone();
    if let Some(inbound) = worker.inbound()
        && !inbound.owner.is_empty()
    {
        own.workload = Name::from(&*inbound.owner);
    }
    own.identity = worker.plane.identity.current().map(|generation| generation.id().clone());
    own
}

fn destination(picked: &Picked) -> Party {
    let mut party = party(picked.endpoint.identity.as_ref());
    if let Some(workload) = &picked.endpoint.workload
        && let Some((namespace, pod)) = workload.as_str().split_once('/')
    {
        party.workload = Name::from(pod);
        party.namespace = Name::from(namespace);
    }
    party
}

/// The workload that an identity speaks for, as far as the identity tells.
fn party(identity: Option<&weft_proxy_core::Identity>) -> Party {
    match identity {
        None => Party::unknown(),
        Some(identity) => Party {
            workload: Name::from(identity.service_account()),
            namespace: Name::from(identity.namespace()),
            identity: Some(identity.clone()),
        },
    }
}

/// The route label where none is attached. Source: Istio's word.
pub(crate) const NO_ROUTE: &str = "default";
