//! A TelemetryPolicy by itself: its collector, its numbers, the header fields it names.
//!
//! Where it stands: *validate*. A policy that is not valid is not in force; what others say holds instead.
//!
//! Invariant: whatever passes fits the contract's fields, and no header field that holds a secret is told.

use std::{collections::BTreeSet, net::Ipv6Addr, time::Duration};

use weft_k8s::{
    AccessLogSettings, FromHeader, TelemetryPolicySpec, TraceExport, TraceProtocol, TracingSettings,
};

use super::text;

/// Header fields that hold secrets. Source: RFC 9110 §11.6, RFC 6265.
const SECRETS: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "set-cookie"];
/// Header fields of an export that the sidecar writes itself.
const OURS: [&str; 6] =
    ["host", "content-type", "content-length", "content-encoding", "connection", "transfer-encoding"];

/// Looks at a policy by itself.
pub(crate) fn check(spec: &TelemetryPolicySpec) -> Result<(), String> {
    if spec.tracing.is_none() && spec.access_log.is_none() && spec.response_headers.is_none() {
        return Err("a TelemetryPolicy says something of tracing, accessLog or responseHeaders".to_owned());
    }
    spec.tracing.as_ref().map_or(Ok(()), tracing)?;
    spec.access_log.as_ref().map_or(Ok(()), access_log)
}

fn tracing(it: &TracingSettings) -> Result<(), String> {
    if let Some(it) = &it.export {
        export(it).map_err(|error| format!("tracing.export.{error}"))?;
    }
    percent("tracing.samplingPercent", it.sampling_percent)?;
    for (field, number) in [("perSecond", it.per_second), ("errorsPerSecond", it.errors_per_second)] {
        if number.is_some_and(|number| number > MOST) {
            return Err(format!("tracing.{field} is above {MOST}"));
        }
    }
    fields("tracing.attributes", it.attributes.as_deref().unwrap_or_default())
}

fn access_log(it: &AccessLogSettings) -> Result<(), String> {
    percent("accessLog.samplingPercent", it.sampling_percent)?;
    let query = it.query.as_deref().unwrap_or_default();
    if query.len() > MOST_QUERY || query.iter().any(|name| name.is_empty() || name.len() > 128) {
        return Err(format!("accessLog.query: at most {MOST_QUERY} names of 1 to 128 bytes"));
    }
    fields("accessLog.headers", it.headers.as_deref().unwrap_or_default())
}

fn percent(field: &str, percent: Option<f64>) -> Result<(), String> {
    match percent {
        Some(percent) if !(0.0..=100.0).contains(&percent) => Err(format!("{field} is not 0 to 100")),
        _ => Ok(()),
    }
}

fn fields(field: &str, list: &[FromHeader]) -> Result<(), String> {
    if list.len() > MOST_FIELDS {
        return Err(format!("{field}: at most {MOST_FIELDS}"));
    }
    for FromHeader { name, header } in list {
        let mut characters = name.chars();
        let first = characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
        let rest = characters.all(|one| one.is_ascii_alphanumeric() || matches!(one, '_' | '.' | '-'));
        if !first || !rest || name.len() > 128 {
            return Err(format!("{field}: {name:?} is no name: letters, digits, '.', '_' and '-'"));
        }
        text::token("header field", header).map_err(|error| format!("{field}: {error}"))?;
        if SECRETS.iter().any(|secret| header.eq_ignore_ascii_case(secret)) {
            return Err(format!("{field}: a header field that holds a secret is never told ({header})"));
        }
    }
    Ok(())
}

fn export(it: &TraceExport) -> Result<(), String> {
    let (secure, path) = endpoint(&it.endpoint).map_err(|why| format!("endpoint {:?} {why}", it.endpoint))?;
    if !path.is_empty() && it.protocol.unwrap_or_default() == TraceProtocol::OtlpGrpc {
        return Err(format!("endpoint {:?} has a path, of which OtlpGrpc has none", it.endpoint));
    }
    if secure != it.ca_bundle.is_some() {
        return Err("caBundle goes with an endpoint that begins with https://, and only with one".to_owned());
    }
    if let Some(bundle) = &it.ca_bundle {
        certificates(bundle).map_err(|why| format!("caBundle {why}"))?;
    }
    if it.timeout.map(Duration::from).is_some_and(|timeout| timeout.is_zero()) {
        return Err("timeout is 0s; write a longer time".to_owned());
    }
    if it.headers.len() > MOST_FIELDS {
        return Err(format!("headers: at most {MOST_FIELDS}"));
    }
    let mut seen = BTreeSet::new();
    for header in &it.headers {
        text::token("header field", &header.name).map_err(|error| format!("headers: {error}"))?;
        text::field_value(&header.value).map_err(|error| format!("headers: {}: {error}", header.name))?;
        let lower = header.name.to_ascii_lowercase();
        if OURS.contains(&lower.as_str()) || lower.starts_with("grpc-") {
            return Err(format!("headers: {} is written by the sidecar", header.name));
        }
        if !seen.insert(lower) {
            return Err(format!("headers: {} is there twice", header.name));
        }
    }
    Ok(())
}

/// Whether an endpoint is one of https, and its path.
fn endpoint(url: &str) -> Result<(bool, &str), &'static str> {
    let (secure, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return Err("begins neither with http:// nor with https://"),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.contains('@') {
        return Err("holds a user; credentials go in headers");
    }
    if !path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~/-".contains(&byte)) {
        return Err("has a path with other characters than letters, digits, '.', '_', '~', '-' and '/'");
    }
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            address.parse::<Ipv6Addr>().map_err(|_| "has brackets around what is no IPv6 address")?;
            ("", port.strip_prefix(':').or(port.is_empty().then_some("80")))
        }
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, Some("80")),
        },
    };
    let host_ok = authority.starts_with('[') || is_host(host);
    let port_ok = port.and_then(|port| port.parse::<u16>().ok()).is_some_and(|port| port > 0);
    if !host_ok || !port_ok {
        return Err("has no host and port as in http://jaeger.observability:4317");
    }
    Ok((secure, path))
}

/// A name or an IPv4 address; underscores occur in names of machines.
fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    host.len() <= 253 && host.strip_suffix('.').unwrap_or(host).split('.').all(label)
}

/// Whether a text holds certificates, as far as their frames tell. Source: RFC 7468.
fn certificates(text: &str) -> Result<(), &'static str> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut blocks = text.split(BEGIN);
    if blocks.next().is_none_or(|before| !before.trim().is_empty()) || text.len() > MOST_PEM {
        return Err("does not begin with -----BEGIN CERTIFICATE-----, or has more than 65536 bytes");
    }
    let mut some = false;
    for block in blocks {
        let Some((body, after)) = block.split_once(END) else {
            return Err("has a certificate without its end");
        };
        let body_ok = body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/= \t\r\n".contains(&byte));
        if !body_ok || body.trim().is_empty() || !after.trim().is_empty() {
            return Err("holds something else than certificates");
        }
        some = true;
    }
    if some { Ok(()) } else { Err("holds no certificate") }
}

/// Traces or errors a second. Source: ours; beyond it a share is what is meant.
const MOST: u32 = 1_000_000;
/// Header fields of one list. Source: ours; each costs a look-up in every request that is told.
const MOST_FIELDS: usize = 16;
/// Names of query parameters.
const MOST_QUERY: usize = 32;
/// Bytes of certificates. Source: some twenty roots.
const MOST_PEM: usize = 65_536;
