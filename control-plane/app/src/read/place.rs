//! Finds the line of what the types refuse, by reading the text again as the very type.
//!
//! Invariant: only messages come from here; whether a document is taken was decided before.

use gateway_api::experimental::grpcroutes::GrpcRoute;
use gateway_api::experimental::httproutes::HttpRoute;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;
use weft_k8s::{AuthorizationPolicy, Mesh, TelemetryPolicy, TlsPolicy, TrafficPolicy};

use super::{Fault, yaml};

/// What is wrong with a document of a kind, with its line.
pub(super) fn fault(kind: &str, line: u64, text: &str) -> Option<Fault> {
    match kind {
        "Service" => of::<Service>(line, text),
        "Pod" => of::<Pod>(line, text),
        "EndpointSlice" => of::<EndpointSlice>(line, text),
        "HTTPRoute" => of::<HttpRoute>(line, text),
        "GRPCRoute" => of::<GrpcRoute>(line, text),
        "AuthorizationPolicy" => of::<AuthorizationPolicy>(line, text),
        "TrafficPolicy" => of::<TrafficPolicy>(line, text),
        "TelemetryPolicy" => of::<TelemetryPolicy>(line, text),
        "TlsPolicy" => of::<TlsPolicy>(line, text),
        "Mesh" => of::<Mesh>(line, text),
        _ => None,
    }
}

fn of<T: DeserializeOwned>(line: u64, text: &str) -> Option<Fault> {
    yaml::<T>(line, text).err()
}

/// The line of the last key of a path, e.g. `spec.rules[0].filter`; the first key of that name counts.
pub(super) fn key(line: u64, text: &str, path: &str) -> Option<u64> {
    let last = path.rsplit('.').next()?;
    let key = last.split_once('[').map_or(last, |(key, _)| key);
    let is_it = |line: &str| {
        let line = line.trim_start_matches([' ', '-', '{', '"', '\'']);
        let rest = line.strip_prefix(key).map(|rest| rest.trim_start_matches(['"', '\'']));
        rest.is_some_and(|rest| rest.starts_with(':'))
    };
    let at = text.lines().position(is_it)?;
    Some(line + at as u64)
}
