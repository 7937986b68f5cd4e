//! What `weft status` shows a person: three tables, and below them whatever is refused.
//!
//! Invariant: pure; time is an argument.

use std::collections::BTreeMap;

use crate::cluster::{Answer, Replica, Sidecar};
use crate::table;

/// Keeps the sidecars of one namespace.
pub(crate) fn keep(replicas: &mut [Replica], namespace: &str) {
    let of_it = |workload: &str| workload.split_once('/').is_some_and(|(of, _)| of == namespace);
    for replica in replicas {
        if let Answer::Status(page) = &mut replica.page {
            page.sidecars.list.retain(|sidecar| of_it(&sidecar.workload));
            page.objects.retain(|object| object.namespace == namespace);
        }
    }
}

/// The whole page.
pub(crate) fn render(replicas: &[Replica], now: i64) -> String {
    let mut out = control_plane(replicas);
    if all(replicas).is_empty() {
        out.push_str("\nno sidecar is connected\n");
    } else {
        out.push('\n');
        out.push_str(&namespaces(replicas));
        out.push('\n');
        out.push_str(&sidecars(replicas, now));
    }
    let refused = refused(replicas);
    if !refused.is_empty() {
        out.push_str("\nrefused\n");
        refused.iter().for_each(|line| out.push_str(&format!("  {line}\n")));
    }
    out
}

fn control_plane(replicas: &[Replica]) -> String {
    let mut rows =
        vec![["control plane", "version", "ready", "role", "sidecars", "config", ""].map(str::to_owned)];
    for replica in replicas {
        let (sidecars, config, said) = match &replica.page {
            Answer::Status(page) => {
                (page.sidecars.list.len().to_string(), page.generation.to_string(), String::new())
            }
            Answer::Silent(reason) => ("?".to_owned(), "?".to_owned(), reason.clone()),
        };
        rows.push([
            replica.pod.clone(),
            replica.version.clone(),
            if replica.ready { "yes" } else { "no" }.to_owned(),
            if replica.leader { "leader" } else { "-" }.to_owned(),
            sidecars,
            config,
            said,
        ]);
    }
    table::render(&rows)
}

/// Every sidecar, with the configuration its replica has published.
fn all(replicas: &[Replica]) -> Vec<(&Sidecar, u64)> {
    let pages = replicas.iter().filter_map(Replica::status);
    let mut all: Vec<(&Sidecar, u64)> =
        pages.flat_map(|page| page.sidecars.list.iter().map(|sidecar| (sidecar, page.generation))).collect();
    all.sort_by(|(a, _), (b, _)| a.workload.cmp(&b.workload));
    all
}

fn namespaces(replicas: &[Replica]) -> String {
    let mut counts: BTreeMap<&str, (usize, usize, usize)> = BTreeMap::new();
    for (sidecar, published) in all(replicas) {
        let namespace = sidecar.workload.split('/').next().unwrap_or_default();
        let (total, current, refusing) = counts.entry(namespace).or_default();
        *total += 1;
        *current += usize::from(sidecar.generation == published);
        *refusing += usize::from(!sidecar.refusals.is_empty());
    }
    let mut rows = vec![["namespace", "sidecars", "current", "refusing"].map(str::to_owned)];
    for (namespace, (total, current, refusing)) in counts {
        rows.push([namespace.to_owned(), total.to_string(), current.to_string(), refusing.to_string()]);
    }
    table::render(&rows)
}

fn sidecars(replicas: &[Replica], now: i64) -> String {
    let mut rows = vec![["sidecar", "version", "config", "certificate", "refuses"].map(str::to_owned)];
    for (sidecar, published) in all(replicas) {
        rows.push([
            sidecar.workload.clone(),
            sidecar.version.clone(),
            if sidecar.generation == published {
                "current".to_owned()
            } else {
                format!("{} of {published}", sidecar.generation)
            },
            certificate(sidecar.certificate_ends, now),
            if sidecar.refusals.is_empty() { "-".to_owned() } else { sidecar.refusals.len().to_string() },
        ]);
    }
    table::render(&rows)
}

/// How long a certificate still lives.
fn certificate(ends: Option<u64>, now: i64) -> String {
    let left = ends.and_then(|ends| i64::try_from(ends).ok()).map(|ends| ends - now);
    match left {
        None => "-".to_owned(),
        Some(left) if left <= 0 => "expired".to_owned(),
        Some(left) => format!("{} left", span(left)),
    }
}

/// A span of time in its two largest units.
pub(crate) fn span(seconds: i64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut rest = seconds.max(0);
    let mut parts = Vec::new();
    for (size, unit) in units {
        let count = rest / size;
        rest %= size;
        if count > 0 || (unit == "s" && parts.is_empty()) {
            parts.push(format!("{count}{unit}"));
        }
    }
    parts.into_iter().take(2).collect()
}

/// What routes, policies and sidecars are refused, each line once.
fn refused(replicas: &[Replica]) -> Vec<String> {
    let mut lines = Vec::new();
    for page in replicas.iter().filter_map(Replica::status) {
        for object in page.objects.iter().filter(|object| !object.accepted) {
            let name = format!("{} {}/{}", object.kind, object.namespace, object.name);
            let failed = object.conditions.iter().filter(|condition| condition.status == "False");
            lines
                .extend(failed.map(|condition| format!("{name} at {}: {}", condition.on, condition.message)));
        }
        for sidecar in &page.sidecars.list {
            let refusals = sidecar.refusals.iter();
            lines.extend(
                refusals.map(|it| format!("{} refuses {}: {}", sidecar.workload, it.name, it.reason)),
            );
        }
    }
    lines.sort();
    lines.dedup();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{ConditionLine, ObjectLine, Page, Refusal, Sidecars};

    fn sidecar(workload: &str, generation: u64) -> Sidecar {
        Sidecar {
            workload: workload.to_owned(),
            version: "0.1.0".to_owned(),
            generation,
            ..Sidecar::default()
        }
    }

    fn replica(pod: &str, leader: bool, page: Answer) -> Replica {
        Replica { pod: pod.to_owned(), version: "0.1.0".to_owned(), ready: true, leader, page }
    }

    fn two() -> Vec<Replica> {
        let condition = ConditionLine {
            on: "Service web".to_owned(),
            r#type: "Accepted".to_owned(),
            status: "False".to_owned(),
            message: "there is no such Service".to_owned(),
        };
        let object = ObjectLine {
            kind: "HTTPRoute".to_owned(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            conditions: vec![condition],
            ..ObjectLine::default()
        };
        let mut behind = sidecar("shop/web-1", 6);
        behind.refusals =
            vec![Refusal { name: "shop/web:80".to_owned(), reason: "no such field".to_owned() }];
        behind.certificate_ends = Some(7_300);
        let list = vec![behind, sidecar("bank/db-0", 7)];
        let page = Page { generation: 7, objects: vec![object], sidecars: Sidecars { list } };
        vec![
            replica("weft-control-plane-a", true, Answer::Status(page)),
            replica("weft-control-plane-b", false, Answer::Silent("no answer in 30 s".to_owned())),
        ]
    }

    #[test]
    fn replicas_sidecars_and_refusals_are_shown() {
        let text = render(&two(), 100);
        assert!(text.contains("weft-control-plane-a  0.1.0    yes    leader  2         7"), "{text}");
        assert!(text.contains("no answer in 30 s"), "{text}");
        assert!(text.contains("shop       1         0        1"), "{text}");
        assert!(text.contains("shop/web-1  0.1.0    6 of 7   2h left      1"), "{text}");
        assert!(text.contains("HTTPRoute shop/web at Service web: there is no such Service"), "{text}");
        assert!(text.contains("shop/web-1 refuses shop/web:80: no such field"), "{text}");
    }

    #[test]
    fn one_namespace_alone_is_shown_when_asked_for() {
        let mut replicas = two();
        keep(&mut replicas, "bank");
        let text = render(&replicas, 100);
        assert!(text.contains("bank/db-0") && !text.contains("shop/"), "{text}");
    }

    #[test]
    fn spans_have_their_two_largest_units() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (7_200, "2h"), (90_061, "1d1h"), (-4, "0s")] {
            assert_eq!(span(seconds), text);
        }
        assert_eq!(certificate(Some(5), 5), "expired");
    }
}
