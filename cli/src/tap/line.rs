//! One request or connection as `weft tap` shows it.
//!
//! Invariant: one line each; what came from outside cannot steer a terminal.

use weft_proto::v1;

use crate::stat;

/// For a person.
pub(super) fn text(workload: &str, decision: &v1::Decision) -> String {
    let mut out = String::new();
    let mut add = |text: &str| {
        if !text.is_empty() {
            if !out.is_empty() {
                out.push(' ');
            }
            out.push_str(text);
        }
    };
    add(&time(decision.at_micros));
    let arrow = if decision.direction == "inbound" { "in " } else { "out" };
    add(&format!("{arrow} {workload}:"));
    let from = end(decision.source.as_ref(), &decision.client);
    let to = end(decision.destination.as_ref(), &decision.service);
    add(&format!("{from} -> {to}"));
    if decision.connection {
        add(&format!("{} connection", decision.protocol));
    } else {
        add(&decision.method);
        add(&format!("{}{}", decision.host, decision.path));
    }
    if decision.status > 0 {
        add(&decision.status.to_string());
    }
    if let Some(grpc) = decision.grpc_status {
        add(&format!("grpc={grpc}"));
    }
    add(&stat::millis(decision.duration_micros as f64 / 1e3));
    add(if decision.security == "mutual_tls" { "mtls" } else { "plain" });
    for (name, value) in [
        ("route", &decision.route),
        ("rule", &decision.rule),
        ("reason", &decision.reason),
        ("policy", &decision.policy),
    ] {
        let says_nothing = value.is_empty() || (name == "route" && value == "default");
        if !says_nothing {
            add(&format!("{name}={value}"));
        }
    }
    if decision.attempts > 1 {
        add(&format!("attempts={}", decision.attempts));
    }
    for line in &decision.headers {
        add(&format!("{}={:?}", line.name, line.value));
    }
    let mut out: String = out.chars().map(tame).collect();
    out.push('\n');
    out
}

/// For a program.
pub(super) fn json(workload: &str, decision: &v1::Decision) -> serde_json::Result<String> {
    let mut value = serde_json::to_value(decision)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("workload".to_owned(), workload.into());
    }
    Ok(serde_json::to_string(&value)? + "\n")
}

fn end(party: Option<&v1::Party>, otherwise: &str) -> String {
    match party.filter(|party| !party.name.is_empty()) {
        Some(party) => format!("{}/{}", party.namespace, party.name),
        None if otherwise.is_empty() => "?".to_owned(),
        None => otherwise.to_owned(),
    }
}

/// The time of day, UTC.
fn time(micros: u64) -> String {
    let (seconds, millis) = (micros / 1_000_000 % 86_400, micros / 1_000 % 1_000);
    format!("{:02}:{:02}:{:02}.{millis:03}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// Source: what steers terminals: control characters, and marks that turn the direction of text.
fn tame(character: char) -> char {
    let steers = matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    if character.is_control() || steers { '\u{fffd}' } else { character }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(name: &str) -> Option<v1::Party> {
        Some(v1::Party { namespace: "shop".into(), name: name.into(), identity: String::new() })
    }

    fn decision() -> v1::Decision {
        v1::Decision {
            at_micros: 1_795_255_784_123_456,
            direction: "outbound".into(),
            protocol: "http".into(),
            method: "GET".into(),
            path: "/items/7".into(),
            host: "catalog".into(),
            source: party("web"),
            destination: party("catalog-0"),
            security: "mutual_tls".into(),
            route: "shop/split".into(),
            status: 403,
            reason: "denied_by_policy".into(),
            policy: "shop/callers".into(),
            duration_micros: 1_250,
            attempts: 2,
            headers: vec![v1::HeaderLine { name: "x-canary".into(), value: "1".into() }],
            ..v1::Decision::default()
        }
    }

    #[test]
    fn a_request_is_one_line() {
        assert_eq!(
            text("shop/web-0", &decision()),
            "10:09:44.123 out shop/web-0: shop/web -> shop/catalog-0 GET catalog/items/7 403 1.2ms mtls \
             route=shop/split reason=denied_by_policy policy=shop/callers attempts=2 x-canary=\"1\"\n"
        );
    }

    #[test]
    fn foreign_text_cannot_steer_a_terminal() {
        let evil = v1::Decision { path: "/\u{1b}[31m\r\n\u{202e}x".into(), ..decision() };
        let text = text("shop/web-0", &evil);
        assert_eq!(text.matches('\n').count(), 1);
        assert!(!text.trim_end().chars().any(char::is_control) && !text.contains('\u{202e}'), "{text:?}");
    }

    #[test]
    fn json_names_the_sidecar() {
        let value: serde_json::Value =
            serde_json::from_str(&json("shop/web-0", &decision()).unwrap()).unwrap();
        assert_eq!((value["workload"].as_str(), value["status"].as_u64()), (Some("shop/web-0"), Some(403)));
    }
}
