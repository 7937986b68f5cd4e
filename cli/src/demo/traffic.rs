//! Customers of the shop: requests through its door, and a count of what came back.
//!
//! Invariant: every answer is read and judged; one that cannot be read counts as failed.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use http::HeaderMap;
use serde_json::Value;
use tokio::task::JoinSet;

use super::shop::get;

/// What came back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) sent: usize,
    /// The shop's own status was 200.
    pub(crate) good: usize,
    /// Answers of the catalog by version; "status NNN" where it refused.
    pub(crate) catalog: BTreeMap<String, usize>,
    /// Answers of payments by pod; "status NNN" where it failed.
    pub(crate) payments: BTreeMap<String, usize>,
    /// One text that came with a refusal of the catalog.
    pub(crate) refusal: Option<String>,
}

impl Tally {
    /// How often `key` answered for the catalog, in percent.
    pub(crate) fn catalog_percent(&self, key: &str) -> f64 {
        percent(self.catalog.get(key).copied().unwrap_or(0), self.catalog.values().sum())
    }

    /// How often payments answered with 200.
    pub(crate) fn paid(&self) -> usize {
        self.payments.iter().filter(|(pod, _)| !pod.starts_with("status")).map(|(_, n)| n).sum()
    }

    fn take(&mut self, answer: anyhow::Result<Value>) {
        self.sent += 1;
        let Ok(answer) = answer else { return };
        self.good += 1;
        let catalog = &answer["catalog"];
        *self.catalog.entry(who(catalog, "version")).or_default() += 1;
        if catalog["status"] != 200 {
            self.refusal = catalog["text"].as_str().map(str::to_owned);
        }
        *self.payments.entry(who(&answer["cart"]["payments"], "pod")).or_default() += 1;
    }

    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.good += other.good;
        for (key, n) in other.catalog {
            *self.catalog.entry(key).or_default() += n;
        }
        for (key, n) in other.payments {
            *self.payments.entry(key).or_default() += n;
        }
        self.refusal = self.refusal.take().or(other.refusal);
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} of {} answered; catalog {}; payments {}",
            self.good,
            self.sent,
            list(&self.catalog),
            list(&self.payments)
        )
    }
}

fn list(counts: &BTreeMap<String, usize>) -> String {
    let all: Vec<String> = counts.iter().map(|(key, n)| format!("{key}: {n}")).collect();
    all.join(", ")
}

fn percent(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

fn who(answer: &Value, field: &str) -> String {
    match (answer["status"].as_u64(), answer[field].as_str()) {
        (Some(200), Some(name)) => name.to_owned(),
        (status, _) => format!("status {}", status.unwrap_or(0)),
    }
}

/// Customers at once. Source: enough to overlap, few enough for two cores and 17 processes.
const CUSTOMERS: usize = 4;

/// Sends `count` requests through the shop's door.
///
/// # Cancel safety
/// Dropping the future stops the customers.
pub(crate) async fn volley(door: SocketAddr, count: usize) -> Tally {
    let mut customers = JoinSet::new();
    for at in 0..CUSTOMERS {
        let share = count / CUSTOMERS + usize::from(at < count % CUSTOMERS);
        customers.spawn(async move {
            let mut tally = Tally::default();
            for _ in 0..share {
                tally.take(visit(door).await);
            }
            tally
        });
    }
    let mut all = Tally::default();
    while let Some(joined) = customers.join_next().await {
        if let Ok(tally) = joined {
            all.add(tally);
        }
    }
    all
}

async fn visit(door: SocketAddr) -> anyhow::Result<Value> {
    let (status, body) = get(&format!("{door}/"), &HeaderMap::new()).await?;
    anyhow::ensure!(status.is_success(), "status {status}");
    Ok(serde_json::from_slice(&body)?)
}
