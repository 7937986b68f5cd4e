//! What `weft stat` shows: a line for each end of each edge.
//!
//! Invariant: pure. What was not counted is "-", never 0.

use serde_json::json;
use weft_proto::v1;

use super::Answer;
use crate::table;

/// Form of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shape {
    /// For a person.
    Text,
    /// With everything that is counted.
    Wide,
    /// For a program.
    Json,
}

/// Columns of the short form.
pub(crate) const HEAD: [&str; 10] =
    ["source", "destination", "seen by", "proto", "mtls", "rps", "success", "p50", "p95", "p99"];
/// What the long form adds.
const MORE: [&str; 12] = [
    "head p50", "head p99", "requests", "failed", "refused", "retries", "conns", "up", "down", "ejected",
    "circuit", "services",
];

/// The answer as text.
pub(crate) fn render(answer: &Answer, shape: Shape) -> serde_json::Result<String> {
    let text = match shape {
        Shape::Json => return as_json(answer),
        Shape::Text => table::render(&short(answer)),
        Shape::Wide => table::render(&wide(answer)),
    };
    let mut text = if answer.edges.edges.is_empty() { "no traffic was seen\n".to_owned() } else { text };
    for note in notes(answer) {
        text.push_str(&note);
        text.push('\n');
    }
    Ok(text)
}

fn as_json(answer: &Answer) -> serde_json::Result<String> {
    let value = json!({
        "namespace": answer.namespace,
        "asked": answer.beside.asked,
        "silent": answer.beside.silent,
        "recentMillis": answer.edges.recent_millis,
        "edges": answer.edges.edges,
        "leftOut": answer.edges.left_out,
    });
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

/// What stands below the table.
pub(crate) fn notes(answer: &Answer) -> Vec<String> {
    let mut notes = Vec::new();
    if !answer.edges.edges.is_empty() {
        let seconds = answer.edges.recent_millis / 1_000;
        notes.push(format!("{} sidecars, the last {seconds} s", answer.beside.asked.sidecars));
    }
    if answer.edges.left_out > 0 {
        notes
            .push(format!("{} edges were left out: ask for fewer (-n, --to, --from)", answer.edges.left_out));
    }
    notes.extend(answer.beside.lines(&answer.namespace));
    notes
}

/// The rows of the short form, its head first.
fn short(answer: &Answer) -> Vec<[String; 10]> {
    let mut rows = vec![HEAD.map(str::to_owned)];
    let all = answer.namespace.is_empty();
    for (edge, by, sight) in sights(answer) {
        rows.push(line(edge, by, sight, all));
    }
    rows
}

/// The rows of a form, its head first, each as wide as it is.
pub(crate) fn cells(answer: &Answer, shape: Shape) -> Vec<Vec<String>> {
    match shape {
        Shape::Wide => wide(answer).into_iter().map(Vec::from).collect(),
        Shape::Text | Shape::Json => short(answer).into_iter().map(Vec::from).collect(),
    }
}

fn wide(answer: &Answer) -> Vec<[String; 22]> {
    let mut rows = vec![join(HEAD.map(str::to_owned), MORE.map(str::to_owned))];
    let all = answer.namespace.is_empty();
    for (edge, by, sight) in sights(answer) {
        rows.push(join(line(edge, by, sight, all), more(edge, sight)));
    }
    rows
}

fn join(first: [String; 10], second: [String; 12]) -> [String; 22] {
    let mut both = first.into_iter().chain(second);
    std::array::from_fn(|_| both.next().unwrap_or_default())
}

/// Each edge as each end sees it.
fn sights(answer: &Answer) -> impl Iterator<Item = (&v1::EdgeView, &'static str, &v1::Sight)> {
    answer.edges.edges.iter().flat_map(|edge| {
        let client = edge.client.iter().map(move |sight| (edge, "client", sight));
        client.chain(edge.server.iter().map(move |sight| (edge, "server", sight)))
    })
}

fn line(edge: &v1::EdgeView, by: &str, sight: &v1::Sight, all: bool) -> [String; 10] {
    let requests = sight.total.as_ref().is_some_and(|total| total.requests > 0);
    [
        name(edge.source.as_ref(), all),
        name(edge.destination.as_ref(), all),
        by.to_owned(),
        edge.protocols.join(","),
        match sight.security.as_str() {
            "mutual_tls" => "yes",
            "none" => "no",
            "mixed" => "mixed",
            _ => "-",
        }
        .to_owned(),
        if requests { format!("{:.1}", sight.rate) } else { "-".to_owned() },
        sight.success.map_or_else(dash, percent),
        sight.p50_ms.map_or_else(dash, millis),
        sight.p95_ms.map_or_else(dash, millis),
        sight.p99_ms.map_or_else(dash, millis),
    ]
}

fn more(edge: &v1::EdgeView, sight: &v1::Sight) -> [String; 12] {
    let total = sight.total.clone().unwrap_or_default();
    let circuit = match sight.circuits_open {
        0 => "closed".to_owned(),
        open => format!("open at {open}"),
    };
    [
        sight.first_byte_p50_ms.map_or_else(dash, millis),
        sight.first_byte_p99_ms.map_or_else(dash, millis),
        total.requests.to_string(),
        total.failures.to_string(),
        total.refused.to_string(),
        total.retries.to_string(),
        sight.connections.to_string(),
        bytes(total.bytes_up),
        bytes(total.bytes_down),
        sight.ejected.to_string(),
        circuit,
        if edge.services.is_empty() { dash() } else { edge.services.join(",") },
    ]
}

fn dash() -> String {
    "-".to_owned()
}

/// An end of an edge; with its namespace where several are shown.
pub(crate) fn name(party: Option<&v1::Party>, all: bool) -> String {
    let Some(party) = party else { return dash() };
    match (party.namespace.as_str(), party.name.as_str()) {
        ("", "") => "(outside)".to_owned(),
        ("", name) => name.to_owned(),
        (namespace, "") => namespace.to_owned(),
        (namespace, name) if all => format!("{namespace}/{name}"),
        (_, name) => name.to_owned(),
    }
}

fn percent(share: f64) -> String {
    // 99.996 % is not 100 %.
    let percent = (share * 10_000.0).floor() / 100.0;
    format!("{percent:.2}%")
}

pub(crate) fn millis(millis: f64) -> String {
    match millis {
        long if long >= 10_000.0 => format!("{:.1}s", long / 1_000.0),
        whole if whole >= 100.0 => format!("{whole:.0}ms"),
        small if small >= 1.0 => format!("{small:.1}ms"),
        tiny => format!("{:.0}us", tiny * 1_000.0),
    }
}

fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1_024.0 && unit + 1 < units.len() {
        value /= 1_024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count}B") } else { format!("{value:.1}{}", units.get(unit).unwrap_or(&"B")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Beside;

    fn party(namespace: &str, name: &str) -> Option<v1::Party> {
        Some(v1::Party { namespace: namespace.into(), name: name.into(), identity: String::new() })
    }

    fn sight(requests: u64, failures: u64) -> v1::Sight {
        let signals = v1::Signals { requests, failures, bytes_up: 2_048, ..v1::Signals::default() };
        v1::Sight {
            sidecars: 2,
            security: "mutual_tls".into(),
            rate: requests as f64 / 10.0,
            success: (requests > 0).then(|| 1.0 - failures as f64 / requests as f64),
            p50_ms: Some(0.42),
            p95_ms: Some(2.5),
            p99_ms: Some(250.0),
            total: Some(signals.clone()),
            recent: Some(signals),
            ..v1::Sight::default()
        }
    }

    fn answer(namespace: &str) -> Answer {
        let edge = v1::EdgeView {
            source: party("shop", "web"),
            destination: party("shop", "cart"),
            services: vec!["shop/cart:80".into()],
            protocols: vec!["http".into()],
            client: Some(sight(100_000, 1)),
            server: Some(sight(100, 0)),
        };
        let outside = v1::EdgeView {
            source: party("", ""),
            destination: party("shop", "web"),
            protocols: vec!["tcp".into()],
            server: Some(v1::Sight { security: "none".into(), ..v1::Sight::default() }),
            ..v1::EdgeView::default()
        };
        let silent = v1::Silent { who: "shop/cart-1".into(), why: "no answer in 5 s".into() };
        Answer {
            namespace: namespace.into(),
            edges: v1::Edges { recent_millis: 12_345, edges: vec![edge, outside], left_out: 0 },
            beside: Beside { asked: v1::Asked { sidecars: 3, older: 0, replicas: 1 }, silent: vec![silent] },
        }
    }

    #[test]
    fn both_ends_of_an_edge_are_told_and_who_is_silent() {
        let expected = "\
source     destination  seen by  proto  mtls  rps      success  p50    p95    p99
web        cart         client   http   yes   10000.0  99.99%   420us  2.5ms  250ms
web        cart         server   http   yes   10.0     100.00%  420us  2.5ms  250ms
(outside)  web          server   tcp    no    -        -        -      -      -
3 sidecars, the last 12 s
no answer from shop/cart-1: no answer in 5 s
";
        assert_eq!(render(&answer("shop"), Shape::Text).unwrap(), expected);
        assert!(render(&answer(""), Shape::Text).unwrap().contains("shop/web  "));
        let wide = render(&answer("shop"), Shape::Wide).unwrap();
        assert!(wide.contains("2.0KiB") && wide.contains("shop/cart:80"), "{wide}");
    }

    #[test]
    fn json_holds_everything() {
        let text = render(&answer("shop"), Shape::Json).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["edges"][0]["client"]["total"]["requests"], 100_000);
        assert_eq!(value["silent"][0]["who"], "shop/cart-1");
    }

    #[test]
    fn nobody_to_ask_is_said() {
        let nothing = Answer { namespace: "shop".into(), ..Answer::default() };
        let text = render(&nothing, Shape::Text).unwrap();
        assert!(text.starts_with("no traffic was seen\nno sidecar of namespace shop"), "{text}");
    }
}
