//! Room 4, **authorize**: who asks, for what, in; leave to pass, or the rule that refuses, out.
//!
//! After *detect*, before *connect*. Asked once for a connection and, where it carries HTTP, again for
//! each request.
//!
//! Invariant: without configuration nothing passes; a policy that has not arrived denies.
//! Invariant: only a probe of the kubelet passes without being judged by policies.
//! Invariant: what a shadow policy would have refused is counted, and passes.

use weft_proxy_core::authorize::{Denial, RuleRef, Verdict};
use weft_proxy_core::spec::{MutualTls, Protocol};
use weft_proxy_core::{Head, Inbound, Name, Reason, Sent};

use crate::exchange::Exchange;
use crate::metrics::backend::PolicyVerdict;
use crate::reply::is_grpc;
use crate::seat::Seat;
use crate::worker::Worker;

/// Why a request may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// The policies let it, and are asked again when they change.
    ByPolicy,
    /// It is the kubelet's.
    AsProbe,
}

/// Judges one request; gives the protocol that the application's port declares.
pub(crate) fn authorize(
    seat: &Seat,
    exchange: &Exchange,
    head: &Head<'_>,
) -> Result<(Protocol, Passed), Reason> {
    let Some((_, port)) = seat.application() else { return Err(Reason::UnknownDestination) };
    let inbound = seat.worker.inbound().ok_or(Reason::ConfigTimeout)?;
    if let Some(probe) = inbound.probe(&seat.peer, port, Sent::Request(head)) {
        exchange.note(|record| record.probe(probe));
        return Ok((inbound.protocol(port), Passed::AsProbe));
    }
    if let Some(shadow) = inbound.shadow_request(&seat.peer, port, head) {
        count(&seat.worker, &shadow, true);
    }
    let verdict = inbound.authorize_request(&seat.peer, port, head);
    count(&seat.worker, &verdict, false);
    let edge = seat.inbound_edge(is_grpc(head.headers));
    exchange.note(|record| {
        record.edge(&edge);
        if let Some(policy) = deciding(&verdict) {
            record.policy(&policy);
        }
    });
    match verdict {
        Verdict::Allowed { .. } => Ok((inbound.protocol(port), Passed::ByPolicy)),
        Verdict::Denied { by } => Err(by.reason()),
    }
}

/// Judges one connection: mTLS where it is demanded, and policies for bytes of any kind.
pub(crate) fn authorize_bytes(
    worker: &Worker,
    inbound: &Inbound,
    peer: &weft_proxy_core::Peer,
    port: u16,
) -> Result<Option<Name>, Denial> {
    if let Some(shadow) = inbound.shadow_connection(peer, port) {
        count(worker, &shadow, true);
    }
    let verdict = inbound.authorize_connection(peer, port);
    count(worker, &verdict, false);
    match verdict {
        Verdict::Allowed { by } => Ok(by.map(|rule| rule.full.clone())),
        Verdict::Denied { by } => Err(by),
    }
}

/// Whether a plaintext peer may even begin.
pub(crate) fn demands_mutual_tls(inbound: &Inbound, port: u16) -> bool {
    inbound.mutual_tls(port) == MutualTls::Strict
}

/// What is counted: the rule that decided, or the policies of which none did.
fn rule_of(verdict: &Verdict) -> Option<&RuleRef> {
    match verdict {
        Verdict::Allowed { by } => by.as_ref(),
        Verdict::Denied { by: Denial::Rule(rule) | Denial::NoRuleAllows(rule) } => Some(rule),
        Verdict::Denied { .. } => None,
    }
}

/// The policy that decided, as logs name it: `namespace/policy#rule`, or without a rule where none did.
fn deciding(verdict: &Verdict) -> Option<Name> {
    match verdict {
        Verdict::Allowed { by } => by.as_ref().map(|rule| rule.full.clone()),
        Verdict::Denied { by } => by.policy().cloned(),
    }
}

fn count(worker: &Worker, verdict: &Verdict, shadow: bool) {
    let said = match (verdict, shadow) {
        (Verdict::Allowed { .. }, false) => PolicyVerdict::Allow,
        (Verdict::Allowed { .. }, true) => return,
        (Verdict::Denied { .. }, false) => PolicyVerdict::Deny,
        (Verdict::Denied { .. }, true) => PolicyVerdict::ShadowDeny,
    };
    let Some(rule) = rule_of(verdict) else { return };
    worker.decided(rule, said);
}
