//! A closed record as others are told of it: what a tap shows, and what is recalled.
//!
//! Invariant: no body and no query leaves the sidecar; of a header field only what was asked for by name, and
//! of a secret one only that it was there.

use std::net::SocketAddr;

use http::{HeaderName, HeaderValue};
use weft_proto::v1;
use weft_proxy_core::secret::is_secret;
use weft_proxy_core::{Moment, Name};

use crate::metrics::edge::{EdgeLabels, Party, Security, UNKNOWN};
use crate::record::clock::Clock;
use crate::record::entry::{Entry, version_name};

/// Bytes of a value that are shown. Source: enough for any header that a person reads.
const VALUE: usize = 256;

/// What became of a request or connection.
pub(super) fn decision(
    entry: &Entry,
    labels: Option<&EdgeLabels>,
    ended: Moment,
    clock: &Clock,
) -> v1::Decision {
    let request = entry.version.is_some();
    let text = |text: &str| if request { text.to_owned() } else { String::new() };
    let first_byte = entry.first_byte.map(|first| micros(first, entry.started));
    let upstream = entry.first_byte.zip(entry.sent).map(|(first, sent)| micros(first, sent));
    v1::Decision {
        id: entry.id.to_string(),
        at_micros: clock.unix_nanos(entry.started) / 1_000,
        direction: entry.direction.name().to_owned(),
        protocol: entry.protocol.name().to_owned(),
        connection: entry.connection,
        version: entry.version.map(version_name).unwrap_or_default().to_owned(),
        method: entry.method.as_ref().map(ToString::to_string).unwrap_or_default(),
        path: text(&entry.path),
        host: text(&entry.authority),
        headers: entry.tapped.iter().map(header).collect(),
        client: address(entry.client),
        destination_address: address(entry.destination),
        source: labels.map(|labels| party(&labels.source)),
        destination: labels.map(|labels| party(&labels.destination)),
        security: labels.map_or(Security::Unknown, |labels| labels.security).name().to_owned(),
        service: labels.map(|labels| known(&labels.service)).unwrap_or_default(),
        route: labels.map(|labels| known(&labels.route)).unwrap_or_default(),
        rule: name(entry.rule.as_ref()),
        backend: name(entry.backend.as_ref()),
        endpoint: address(entry.endpoint),
        attempts: u32::from(entry.attempts),
        status: entry.status.map_or(0, |status| u32::from(status.as_u16())),
        grpc_status: entry.grpc.map(u32::from),
        reason: entry.reason.map(|reason| reason.name().to_owned()).unwrap_or_default(),
        policy: name(entry.policy.as_ref()),
        duration_micros: micros(ended, entry.started),
        first_byte_micros: first_byte,
        upstream_micros: upstream,
        bytes_up: entry.up,
        bytes_down: entry.down,
        trace_id: entry.trace.as_ref().map(|trace| hex(&trace.trace.hex())).unwrap_or_default(),
    }
}

/// An end of an edge.
pub(super) fn party(party: &Party) -> v1::Party {
    v1::Party {
        namespace: known(&party.namespace),
        name: known(&party.workload),
        identity: party.identity.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// A label, where it says something.
pub(super) fn known(name: &Name) -> String {
    if name.as_str() == UNKNOWN { String::new() } else { name.to_string() }
}

fn name(name: Option<&Name>) -> String {
    name.map(ToString::to_string).unwrap_or_default()
}

fn address(address: Option<SocketAddr>) -> String {
    address.map(|address| address.to_string()).unwrap_or_default()
}

fn micros(later: Moment, earlier: Moment) -> u64 {
    u64::try_from(later.since(earlier).as_micros()).unwrap_or(u64::MAX)
}

fn hex(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn header((name, value): &(HeaderName, HeaderValue)) -> v1::HeaderLine {
    let bytes = value.as_bytes();
    let shown = if is_secret(name.as_str()) || value.is_sensitive() {
        format!("(secret, {} bytes)", bytes.len())
    } else {
        String::from_utf8_lossy(bytes.get(..VALUE).unwrap_or(bytes)).into_owned()
    };
    v1::HeaderLine { name: name.to_string(), value: shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_by_its_length_and_a_long_value_is_cut() {
        let line = |name: &'static str, value: &str| {
            header(&(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).value
        };
        for name in [
            "authorization",
            "cookie",
            "set-cookie",
            "x-api-key",
            "x-auth-token",
            "x-amz-security-token",
            "proxy-authorization",
            "x-session-id",
        ] {
            assert_eq!(line(name, "hunter2"), "(secret, 7 bytes)", "{name}");
        }
        assert_eq!(line("x-canary", "1"), "1");
        assert_eq!(line("user-agent", &"x".repeat(1_000)).len(), VALUE);
    }
}
