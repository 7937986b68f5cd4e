//! The snapshot as JSON, for `/config`.
//!
//! Invariant: what is shown is what is in force, not what was sent.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use weft_proxy_core::{Snapshot, Target};

use crate::adopt::Trust;

/// Everything one snapshot holds, in words.
pub(super) fn snapshot(snapshot: &Snapshot) -> Value {
    let mut addresses: Vec<_> = snapshot
        .addresses
        .iter()
        .map(|(address, target)| match target {
            Target::Outbound(name) => json!({ "address": address, "outbound": name.as_str() }),
            Target::Workload(endpoint) => {
                let workload = endpoint.workload.as_ref().map(|workload| workload.as_str());
                json!({ "address": address, "workload": workload })
            }
            Target::Unknown => json!({ "address": address, "unknown": true }),
        })
        .collect();
    addresses.sort_by_key(ToString::to_string);
    json!({
        "generation": snapshot.generation,
        "mesh": format!("{:?}", snapshot.mesh),
        "inbound": snapshot.inbound.as_ref().map(|inbound| json!({
            "workload": inbound.workload.as_str(),
            "owner": &*inbound.owner,
            "services": inbound.services.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
        })),
        "addresses": addresses,
        "outbounds": outbounds(snapshot),
        "backends": backends(snapshot),
    })
}

/// The roots of the trust bundle, by the SHA-256 of each: as `openssl x509 -fingerprint -sha256` has it,
/// without its colons.
pub(super) fn roots(trust: Option<&Trust>) -> Vec<String> {
    let roots = trust.map(|trust| trust.roots.as_slice()).unwrap_or_default();
    let hex = |byte: &u8| format!("{byte:02x}");
    roots.iter().map(|root| digest(&SHA256, root).as_ref().iter().map(hex).collect()).collect()
}

fn outbounds(snapshot: &Snapshot) -> Vec<Value> {
    let mut all: Vec<_> = snapshot.outbounds.iter().collect();
    all.sort_by_key(|(name, _)| name.as_str().to_owned());
    let show = |(name, outbound): (&weft_proxy_core::Name, &std::sync::Arc<weft_proxy_core::Outbound>)| {
        let rules: Vec<String> =
            outbound.labels().map(|label| format!("{}#{}", label.route, label.rule)).collect();
        json!({
            "name": name.as_str(),
            "protocol": format!("{:?}", outbound.protocol),
            "routes": format!("{:?}", outbound.kind),
            "rules": rules,
            "backends": outbound.backends.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
        })
    };
    all.into_iter().map(show).collect()
}

fn backends(snapshot: &Snapshot) -> Vec<Value> {
    let mut all: Vec<_> = snapshot.backends.iter().collect();
    all.sort_by_key(|(name, _)| name.as_str().to_owned());
    let show = |(name, backend): (&weft_proxy_core::Name, &std::sync::Arc<weft_proxy_core::Backend>)| {
        let endpoints: Vec<_> = backend
            .endpoints
            .iter()
            .map(|endpoint| {
                json!({
                    "address": endpoint.address,
                    "workload": endpoint.workload.as_ref().map(|workload| workload.as_str()),
                    "identity": endpoint.identity.as_ref().map(|identity| identity.as_str()),
                    "weight": endpoint.weight,
                })
            })
            .collect();
        json!({
            "name": name.as_str(),
            "endpoints": endpoints,
            "fallback": backend.policy.fallback.as_ref().map(|name| name.as_str()),
        })
    };
    all.into_iter().map(show).collect()
}
