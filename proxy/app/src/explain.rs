//! Answers why a request goes where it goes: the contract's question in, the core's walk out.
//!
//! Beside the request's walk, which never comes here. In a running sidecar the endpoints are shown as its
//! balancers see them, and a destination that it does not hold is looked up as for a connection; `weft explain`
//! asks [`answer`] with a snapshot that was made of manifests alone.
//!
//! Invariant: nothing is decided here; what is said is the core's.
//! Invariant: whoever may ask has been judged before; a sidecar serves this to its control plane only.

mod looks;
mod wire;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weft_proto::v1;
use weft_proxy_core::explain::{self, Balancers, Caller, Destination, Request, Spoken, Walk};
use weft_proxy_core::{Identity, Name, Snapshot, Target};

use crate::lookup::{Lookup, Wanted};
use crate::snapshots::Snapshots;

pub(crate) use looks::{Asked, Looking};

/// Answers from a snapshot.
///
/// # Errors
/// A question that makes no sense, and what of it.
pub fn answer(
    question: &v1::ExplainRequest,
    snapshot: &Snapshot,
    balancers: &dyn Balancers,
) -> Result<v1::Walk, String> {
    let request = request(question)?;
    match side(question)? {
        v1::ExplainSide::Inbound => {
            let walk = explain::inbound(snapshot, &caller(question)?, &request);
            Ok(wire::walk(v1::ExplainSide::Inbound, walk, snapshot, balancers))
        }
        _ => {
            let walk: Walk = explain::outbound(snapshot, &destination(question)?, &request, balancers);
            Ok(wire::walk(v1::ExplainSide::Outbound, walk, snapshot, balancers))
        }
    }
}

/// Answers from what a running sidecar knows, and can learn.
#[derive(Debug, Clone)]
pub struct Explainer {
    /// The snapshots that requests read.
    pub(crate) snapshots: Arc<Snapshots>,
    /// Asks the control plane for what is not held.
    pub(crate) lookup: Lookup,
    /// Asks the data threads.
    pub(crate) looking: Arc<Looking>,
}

impl Explainer {
    /// Answers a question.
    ///
    /// # Errors
    /// As [`answer`].
    ///
    /// # Cancel safety
    /// Nothing is lost; what was looked up stays looked up.
    pub async fn answer(&self, question: &v1::ExplainRequest) -> Result<v1::Walk, String> {
        if side(question)? == v1::ExplainSide::Inbound {
            return answer(question, &self.snapshots.current(), &explain::Imagined::default());
        }
        let destination = destination(question)?;
        if let Some(wanted) = missing(&self.snapshots.current(), &destination) {
            // However it ends, the snapshot tells what is known then.
            self.lookup.ask(wanted).await;
        }
        let snapshot = self.snapshots.current();
        let looks = self.looking.ask(backends(&snapshot, &destination)).await;
        answer(question, &snapshot, &looks)
    }
}

/// What has to be asked for, as for a connection to the destination.
fn missing(snapshot: &Snapshot, destination: &Destination) -> Option<Wanted> {
    match destination {
        Destination::Service(name) if snapshot.outbounds.contains_key(name) => None,
        Destination::Service(name) => Some(Wanted::Outbound(name.clone())),
        Destination::Address(address) if snapshot.target(*address).is_some() => None,
        Destination::Address(address) => Some(Wanted::Address(*address)),
    }
}

/// The backends that a destination's requests may reach, fallbacks included.
fn backends(snapshot: &Snapshot, destination: &Destination) -> Vec<Name> {
    let outbound = match destination {
        Destination::Service(name) => snapshot.outbounds.get(name),
        Destination::Address(address) => match snapshot.target(*address) {
            Some(Target::Outbound(name)) => snapshot.outbounds.get(name),
            _ => None,
        },
    };
    let mut names: Vec<Name> = outbound.map(|outbound| outbound.backends.clone()).unwrap_or_default();
    let fallback = |name: &Name| snapshot.backends.get(name)?.policy.fallback.clone();
    let fallbacks: Vec<Name> = names.iter().filter_map(fallback).collect();
    names.extend(fallbacks);
    names
}

fn side(question: &v1::ExplainRequest) -> Result<v1::ExplainSide, String> {
    match v1::ExplainSide::try_from(question.side) {
        Ok(side @ (v1::ExplainSide::Outbound | v1::ExplainSide::Inbound)) => Ok(side),
        _ => Err(format!("side {} is not known to sidecar {}", question.side, env!("CARGO_PKG_VERSION"))),
    }
}

fn destination(question: &v1::ExplainRequest) -> Result<Destination, String> {
    use v1::explain_request::Destination as Wire;
    match &question.destination {
        Some(Wire::ServicePort(name)) => Ok(Destination::Service(Name::from(name.as_str()))),
        Some(Wire::Address(text)) => {
            let address: SocketAddr = text.parse().map_err(|_| format!("{text:?} is not <ip>:<port>"))?;
            Ok(Destination::Address(address))
        }
        Some(Wire::Port(_)) | None => {
            Err("an outbound walk leads to a service port or an address".to_owned())
        }
    }
}

fn caller(question: &v1::ExplainRequest) -> Result<Caller, String> {
    let port = match question.destination {
        Some(v1::explain_request::Destination::Port(port)) => {
            u16::try_from(port).ok().filter(|port| *port != 0)
        }
        _ => None,
    };
    let identity = match question.peer_identity.as_str() {
        "" => None,
        text => Some(Identity::parse(text).map_err(|_| format!("{text:?} is no identity"))?),
    };
    let address = match question.peer_address.as_str() {
        "" => None,
        text => Some(text.parse::<IpAddr>().map_err(|_| format!("{text:?} is no address"))?),
    };
    Ok(Caller { identity, address, port: port.ok_or("an inbound walk leads to a port of the workload")? })
}

fn request(question: &v1::ExplainRequest) -> Result<Request, String> {
    let spoken = match v1::ExplainSpoken::try_from(question.spoken) {
        Ok(v1::ExplainSpoken::Unspecified | v1::ExplainSpoken::Http1) => Spoken::Http1,
        Ok(v1::ExplainSpoken::Http2) => Spoken::Http2,
        Ok(v1::ExplainSpoken::Tls) => Spoken::Tls,
        Ok(v1::ExplainSpoken::Bytes) => Spoken::Bytes,
        Err(_) => return Err(format!("what is spoken, {}, is not known here", question.spoken)),
    };
    let fields: Vec<(String, String)> =
        question.headers.iter().map(|field| (field.name.clone(), field.value.clone())).collect();
    Request::new(spoken, &question.method, &question.target, &question.authority, &fields)
}

#[cfg(test)]
mod tests;
