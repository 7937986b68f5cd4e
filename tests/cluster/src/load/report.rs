//! What became of many requests.
//!
//! Invariant: every request that was begun is counted exactly once when it is over.

use std::collections::BTreeMap;

use serde::Serialize;

/// Failures that are told in full. Source: enough to see a pattern in a test's output.
const TOLD: usize = 20;

/// Counts, as told in JSON.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Answers of status 2xx with the whole body.
    pub(crate) succeeded: u64,
    /// Everything else.
    pub(crate) failed: u64,
    /// Answers by the pod that gave them.
    pub(crate) pods: BTreeMap<String, u64>,
    /// Failures by kind: a status, or the step that failed.
    pub(crate) kinds: BTreeMap<String, u64>,
    /// The first failures: milliseconds since the beginning, what.
    pub(crate) failures: Vec<(u128, String)>,
    /// This is the last word.
    pub(crate) ended: bool,
}

impl Report {
    /// An answer as it should be.
    pub(crate) fn success(&mut self, pod: &str) {
        self.succeeded += 1;
        *self.pods.entry(pod.to_owned()).or_default() += 1;
    }

    /// Anything else.
    pub(crate) fn failure(&mut self, at: u128, what: String) {
        self.failed += 1;
        let kind = what.split(':').next().unwrap_or_default().to_owned();
        *self.kinds.entry(kind).or_default() += 1;
        if self.failures.len() < TOLD {
            self.failures.push((at, what));
        }
    }
}
