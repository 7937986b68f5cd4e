//! The live table: every edge of the demo's mesh, as the sidecars count it.
//!
//! Invariant: what is shown was asked of the sidecars just now; one that does not answer is left out.

use std::fmt::Write as _;

use http::HeaderMap;
use serde::Deserialize;

use super::fleet::Fleet;
use super::shop::get;

/// One edge, as a sidecar's `/edges` gives it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Edge {
    pub(crate) direction: String,
    pub(crate) security: String,
    pub(crate) source: String,
    pub(crate) source_identity: Option<String>,
    pub(crate) destination: String,
    pub(crate) destination_identity: Option<String>,
    pub(crate) service: String,
    pub(crate) requests: u64,
    rate: f64,
    success: Option<f64>,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    pub(crate) retries: u64,
    pub(crate) ejections: u64,
    pub(crate) ejected: i64,
    pub(crate) circuit_open: bool,
}

/// All edges, of all sidecars.
///
/// # Cancel safety
/// Dropping the future only stops asking.
pub(crate) async fn edges(fleet: &Fleet) -> Vec<Edge> {
    let mut all = Vec::new();
    for admin in fleet.admin.values() {
        let Ok((_, body)) = get(&format!("{admin}/edges"), &HeaderMap::new()).await else { continue };
        all.extend(serde_json::from_slice::<Vec<Edge>>(&body).unwrap_or_default());
    }
    all
}

/// The outbound edges, as text.
pub(crate) fn render(edges: &[Edge]) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{:<12} {:<14} {:>7} {:>8} {:>9} {:>9} {:>8} {:>8}  {:<8} identity",
        "from", "to", "req/s", "success", "p50 ms", "p99 ms", "retries", "ejected", "circuit"
    );
    for edge in edges.iter().filter(|edge| edge.direction == "outbound" && edge.requests > 0) {
        let success = edge.success.map_or("-".to_owned(), |success| format!("{:.1} %", success * 100.0));
        let circuit = if edge.circuit_open { "open" } else { "closed" };
        let identity = match (&edge.destination_identity, edge.security.as_str()) {
            (Some(identity), "mutual_tls") => format!("mTLS {identity}"),
            _ => "plaintext".to_owned(),
        };
        let _ = writeln!(
            out,
            "{:<12} {:<14} {:>7.1} {:>8} {:>9} {:>9} {:>8} {:>8}  {:<8} {identity}",
            edge.source,
            edge.destination,
            edge.rate,
            success,
            ms(edge.p50_ms),
            ms(edge.p99_ms),
            edge.retries,
            format!("{}/{}", edge.ejected, edge.ejections),
            circuit,
        );
    }
    out
}

fn ms(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.2}"))
}
