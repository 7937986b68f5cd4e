//! What was decided for a request that was, as the sidecars remember it.
//!
//! Invariant: what came from outside is quoted, so that it cannot steer a terminal.

use weft_proto::v1;
use weft_proxy_core::Reason;

/// The page: a part for each sidecar that had the request, in the order in which they had it.
pub(super) fn render(id: &str, found: &[(String, v1::Decision)]) -> String {
    let mut out = format!("request {}\n", plain(id));
    for (workload, decision) in found {
        out.push('\n');
        out.push_str(&one(workload, decision));
    }
    out
}

fn one(workload: &str, it: &v1::Decision) -> String {
    let mut out = format!("{}, the sidecar of {workload}\n", it.direction);
    let mut say = |room: &str, text: String| {
        if !text.is_empty() {
            out.push_str(&format!("  {room:<11}{}\n", plain(&text)));
        }
    };
    if it.connection {
        say("accept", format!("a connection of {} from {}", it.protocol, it.client));
    } else {
        say(
            "accept",
            format!(
                "{} {}{} over {} {} from {}",
                it.method, it.host, it.path, it.protocol, it.version, it.client
            ),
        );
    }
    let security = match it.security.as_str() {
        "mutual_tls" => "by mutual TLS",
        "none" => "in plaintext",
        _ => "not known how",
    };
    say(
        "identify",
        format!("{} to {}, {security}", party(it.source.as_ref()), party(it.destination.as_ref())),
    );
    say("authorize", said("decided by ", &it.policy));
    let rule = if it.rule.is_empty() { String::new() } else { format!(", rule {}", it.rule) };
    let route = match (it.route.as_str(), it.service.as_str()) {
        ("", "") => String::new(),
        ("", service) => format!("to {service}, by no route"),
        (route, service) => format!("{route}{rule}, to {service}"),
    };
    say("route", route);
    say("balance", it.backend.clone());
    let attempts = if it.attempts > 1 { format!(", after {} attempts", it.attempts) } else { String::new() };
    say("connect", if it.endpoint.is_empty() { attempts } else { format!("{}{attempts}", it.endpoint) });
    let upstream = it.upstream_micros.map(|micros| format!(", of which {} upstream", millis(micros)));
    say(
        "relay",
        format!(
            "{}{}, {} bytes up, {} down",
            millis(it.duration_micros),
            upstream.unwrap_or_default(),
            it.bytes_up,
            it.bytes_down
        ),
    );
    say("record", said("trace ", &it.trace_id));
    let status = match (it.status, it.grpc_status) {
        (0, _) => "ended without an answer".to_owned(),
        (status, None) => format!("answered with {status}"),
        (status, Some(grpc)) => format!("answered with {status}, gRPC status {grpc}"),
    };
    let known = weft_proxy_core::reason::ALL.iter().find(|reason| reason.name() == it.reason).copied();
    out.push_str(&match known {
        None => format!("{status}\n"),
        Some(reason) => format!("{status} ({}): {}\n{}", it.reason, reason.meaning(), remedy(reason)),
    });
    out
}

fn remedy(reason: Reason) -> String {
    if reason == Reason::ConfigReply { String::new() } else { format!("  {}\n", reason.remedy()) }
}

fn said(before: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{before}{text}") }
}

fn party(it: Option<&v1::Party>) -> String {
    let Some(it) = it else { return "unknown".to_owned() };
    match (it.namespace.as_str(), it.identity.as_str()) {
        (_, identity) if !identity.is_empty() => format!("{}/{} ({identity})", it.namespace, it.name),
        ("", _) if it.name.is_empty() => "unknown".to_owned(),
        _ => format!("{}/{}", it.namespace, it.name),
    }
}

fn millis(micros: u64) -> String {
    format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100)
}

/// Without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '?' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> v1::Decision {
        v1::Decision {
            direction: "inbound".to_owned(),
            protocol: "http".to_owned(),
            version: "1.1".to_owned(),
            method: "GET".to_owned(),
            host: "payments".to_owned(),
            path: "/pay\u{1b}[2J".to_owned(),
            client: "10.1.0.1:4711".to_owned(),
            source: Some(v1::Party {
                namespace: "shop".to_owned(),
                name: "web".to_owned(),
                identity: "spiffe://cluster.local/ns/shop/sa/web".to_owned(),
            }),
            security: "mutual_tls".to_owned(),
            status: 403,
            reason: "denied_by_policy".to_owned(),
            policy: "shop/no-admin#admin".to_owned(),
            duration_micros: 1_234,
            ..v1::Decision::default()
        }
    }

    #[test]
    fn a_refusal_names_the_policy_and_what_to_do() {
        let page = render("abc", &[("shop/payments-0".to_owned(), refused())]);
        for says in [
            "request abc",
            "inbound, the sidecar of shop/payments-0",
            "decided by shop/no-admin#admin",
            "answered with 403 (denied_by_policy)",
            Reason::DeniedByPolicy.remedy(),
            "1.2 ms",
        ] {
            assert!(page.contains(says), "{says}\n{page}");
        }
        assert!(!page.contains('\u{1b}'), "{page:?}");
    }

    #[test]
    fn what_went_well_needs_no_remedy() {
        let decision =
            v1::Decision { status: 200, reason: String::new(), policy: String::new(), ..refused() };
        let page = render("abc", &[("shop/payments-0".to_owned(), decision)]);
        assert!(page.ends_with("answered with 200\n"), "{page}");
    }
}
