//! TrafficPolicy, TlsPolicy and Mesh by themselves: their numbers and spans.
//!
//! Where it stands: *validate*. A policy that is not valid is not in force; defaults apply instead.
//!
//! Invariant: whatever passes fits the contract's fields.

use std::collections::BTreeSet;

use weft_k8s::{MeshSpec, TlsPolicySpec, TrafficPolicySpec};

use super::text;
use crate::model::Policy;

/// Looks at a TrafficPolicy by itself.
pub(crate) fn traffic(spec: &TrafficPolicySpec) -> Result<(), String> {
    let limits = spec.limits.clone().unwrap_or_default();
    let outlier = spec.outlier.clone().unwrap_or_default();
    let budget = spec.retry_budget.clone().unwrap_or_default();
    let at_least_one = [
        ("limits.maxConnections", limits.max_connections),
        ("limits.maxPendingRequests", limits.max_pending_requests),
        ("fallback.port", spec.fallback.as_ref().map(|fallback| u32::from(fallback.port))),
    ];
    if let Some((field, _)) = at_least_one.iter().find(|(_, value)| *value == Some(0)) {
        return Err(format!("{field} is 0; write at least 1"));
    }
    let percents =
        [("retryBudget.percent", budget.percent), ("outlier.maxEjectedPercent", outlier.max_ejected_percent)];
    if let Some((field, _)) = percents.iter().find(|(_, value)| value.is_some_and(|value| value > 100)) {
        return Err(format!("{field} is above 100"));
    }
    let span = |duration: Option<weft_k8s::Duration>| duration.map(std::time::Duration::from);
    for (field, value) in [
        ("connectTimeout", span(spec.connect_timeout)),
        ("idleTimeout", span(spec.idle_timeout)),
        ("outlier.baseEjection", span(outlier.base_ejection)),
    ] {
        if value.is_some_and(|value| value.is_zero()) {
            return Err(format!("{field} is 0s; write a longer time"));
        }
    }
    match (span(outlier.base_ejection), span(outlier.max_ejection)) {
        (Some(base), Some(max)) if max < base => {
            Err("outlier.maxEjection is below outlier.baseEjection".to_owned())
        }
        _ => Ok(()),
    }
}

/// Looks at a TlsPolicy by itself.
pub(crate) fn tls(spec: &TlsPolicySpec) -> Result<(), String> {
    let mut ports = BTreeSet::new();
    for port in &spec.ports {
        if port.port == 0 {
            return Err("0 is no port".to_owned());
        }
        if !ports.insert(port.port) {
            return Err(format!("port {} is there twice", port.port));
        }
    }
    Ok(())
}

/// Looks at the mesh's settings by themselves.
pub(crate) fn mesh(mesh: &Policy<MeshSpec>) -> Result<(), String> {
    if mesh.meta.key.name != MESH_NAME {
        return Err(format!(
            "the settings are those of the Mesh named {MESH_NAME:?}; this one is never read"
        ));
    }
    if let Some(domain) = &mesh.spec.trust_domain
        && !text::subdomain(domain)
    {
        return Err(format!("{domain:?} is no trust domain (a DNS name, lower case)"));
    }
    let percent = mesh.spec.tracing.as_ref().and_then(|tracing| tracing.sampling_percent);
    if percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
        return Err("tracing.samplingPercent is not 0 to 100".to_owned());
    }
    Ok(())
}

/// Name of the one Mesh object that is read.
pub(crate) const MESH_NAME: &str = "mesh";
