//! The core's walk as the contract has it.
//!
//! Invariant: field by field, nothing is decided; the one thing added is who the sidecar is, so that the
//! question for the other side is whole.

use weft_proto::v1;
use weft_proxy_core::explain::{Balancers, By, End, Mark, Onward, Outcome, Request, Spoken, Step, Walk};
use weft_proxy_core::{Endpoint, Snapshot, spec};

/// A walk.
pub(super) fn walk(
    side: v1::ExplainSide,
    it: Walk,
    snapshot: &Snapshot,
    balancers: &dyn Balancers,
) -> v1::Walk {
    let mut onward: Vec<v1::WalkOnward> = it.onward.iter().map(|it| self::onward(it, snapshot)).collect();
    onward.iter_mut().for_each(|onward| onward.endpoints.truncate(ENDPOINTS));
    let mut steps: Vec<v1::WalkStep> = it.steps.into_iter().map(step).collect();
    if side == v1::ExplainSide::Outbound {
        let balance = steps.iter_mut().filter(|step| step.room == "balance" && !step.steps.is_empty());
        balance.for_each(|step| step.why = format!("{} ({})", step.why, balancers.basis()));
    }
    v1::Walk {
        side: side.into(),
        workload: it.workload.map(|name| name.to_string()).unwrap_or_default(),
        generation: it.generation,
        steps,
        outcome: Some(outcome(it.outcome)),
        onward,
    }
}

/// Endpoints that an answer names. Source: ours; the other side's walk is asked of one.
const ENDPOINTS: usize = 64;

fn step(it: Step) -> v1::WalkStep {
    let (origin, field) = by(it.by);
    let mark = match it.mark {
        Mark::Fact => v1::WalkMark::Fact,
        Mark::Holds => v1::WalkMark::Holds,
        Mark::PassedBy => v1::WalkMark::PassedBy,
        Mark::Ends => v1::WalkMark::Ends,
        Mark::Shadow => v1::WalkMark::Shadow,
    };
    v1::WalkStep {
        room: it.room.name().to_owned(),
        what: it.what,
        mark: mark.into(),
        why: it.why,
        origin,
        field,
        steps: it.steps.into_iter().map(step).collect(),
    }
}

fn by(it: By) -> (Option<v1::Origin>, String) {
    let origin = |it: spec::Origin| v1::Origin {
        kind: it.kind.to_string(),
        namespace: it.namespace.to_string(),
        name: it.name.to_string(),
    };
    (it.origin.map(origin), it.field)
}

fn outcome(it: Outcome) -> v1::WalkOutcome {
    let end = match it.end {
        End::Forward => v1::WalkEnd::Forward,
        End::Answer => v1::WalkEnd::Answer,
        End::Reset => v1::WalkEnd::Reset,
        End::PassThrough => v1::WalkEnd::PassThrough,
    };
    v1::WalkOutcome {
        end: end.into(),
        reason: it.reason.map(|reason| reason.name().to_owned()).unwrap_or_default(),
        status: it.status.map_or(0, |status| status.as_u16().into()),
        grpc_status: it.grpc.map_or(0, |code| u32::from(code as u8)),
        why: it.why,
        location: it.location.unwrap_or_default(),
    }
}

fn onward(it: &Onward, snapshot: &Snapshot) -> v1::WalkOnward {
    v1::WalkOnward {
        backend: it.backend.as_ref().map(ToString::to_string).unwrap_or_default(),
        weight: it.share.0,
        of: it.share.1,
        endpoints: it.endpoints.iter().map(endpoint).collect(),
        sent: Some(v1::ExplainRequest { peer_identity: own_identity(snapshot), ..request(&it.sent) }),
    }
}

fn endpoint(it: &Endpoint) -> v1::WalkEndpoint {
    v1::WalkEndpoint {
        address: it.address.to_string(),
        workload: it.workload.as_ref().map(ToString::to_string).unwrap_or_default(),
        identity: it.identity.as_ref().map(ToString::to_string).unwrap_or_default(),
        zone: it.zone.to_string(),
    }
}

/// The identity that this sidecar proves; empty: not known yet.
fn own_identity(snapshot: &Snapshot) -> String {
    let of = |inbound: &weft_proxy_core::Inbound| {
        let (namespace, account) = (&inbound.namespace, &inbound.service_account);
        format!("spiffe://{}/ns/{namespace}/sa/{account}", snapshot.mesh.trust_domain)
    };
    snapshot.inbound.as_ref().map(|inbound| of(inbound)).unwrap_or_default()
}

fn request(it: &Request) -> v1::ExplainRequest {
    let spoken = match it.spoken {
        Spoken::Http1 => v1::ExplainSpoken::Http1,
        Spoken::Http2 => v1::ExplainSpoken::Http2,
        Spoken::Tls => v1::ExplainSpoken::Tls,
        Spoken::Bytes => v1::ExplainSpoken::Bytes,
    };
    let uri = it.target.as_ref().ok();
    let target = uri.and_then(|uri| uri.path_and_query()).map(ToString::to_string).unwrap_or_default();
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| v1::Field {
        name: name.as_str().to_owned(),
        value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
    };
    v1::ExplainRequest {
        side: v1::ExplainSide::Inbound.into(),
        destination: None,
        spoken: spoken.into(),
        method: it.method.as_str().to_owned(),
        target,
        authority: uri.and_then(|uri| uri.authority()).map(ToString::to_string).unwrap_or_default(),
        headers: it.headers.iter().map(field).collect(),
        peer_identity: String::new(),
        peer_address: String::new(),
    }
}
