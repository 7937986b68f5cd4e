//! What the webhook counts.
//!
//! Invariant: every answer is counted once, by its outcome.

use std::borrow::Cow;

use weft_exposition::handles::{Counter, Each, Gauge, Histogram, Registry, Words};

use crate::metrics::catalog;

/// Bounds of the duration in seconds. Source: the goal is 50 ms; most answers take less than one.
const DURATION_BOUNDS: [f64; 9] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.25, 1.0];

/// What became of a pod that was shown to the webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the label's values")]
pub enum Outcome {
    Injected,
    Skipped,
    Refused,
    Invalid,
    OverLimit,
    NoSettings,
}

impl Words for Outcome {
    fn words(&self) -> Vec<Cow<'static, str>> {
        vec![format!("{self:?}").into()]
    }
}

/// Handles of what the webhook counts.
#[derive(Debug, Clone)]
pub struct InjectMetrics {
    /// Pods by what became of them.
    pub injections: Each<Outcome, Counter>,
    /// From a whole request to its answer.
    pub duration: Histogram,
    /// 1 while `injector.yaml` as it stands cannot be used and the last good settings serve.
    pub settings_broken: Gauge,
    /// Pods that should have a sidecar and have none.
    pub unmeshed: Gauge,
}

impl InjectMetrics {
    /// Registers everything in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            injections: Each::default(),
            duration: Histogram::new(&DURATION_BOUNDS),
            settings_broken: Gauge::default(),
            unmeshed: Gauge::default(),
        };
        registry.register(&catalog::INJECTIONS, metrics.injections.clone());
        registry.register(&catalog::INJECTION, metrics.duration.clone());
        registry.register(&catalog::SETTINGS_BROKEN, metrics.settings_broken.clone());
        registry.register(&catalog::UNMESHED, metrics.unmeshed.clone());
        metrics
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.injections.of(&outcome).inc();
    }
}
