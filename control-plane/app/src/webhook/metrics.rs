//! What the webhook counts.
//!
//! Invariant: every answer is counted once, by its outcome.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Bounds of the duration in seconds. Source: the goal is 50 ms; most answers take less than one.
const DURATION_BOUNDS: [f64; 9] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.25, 1.0];

/// The label that tells outcomes apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct By {
    /// What became of the pod.
    pub outcome: Outcome,
}

/// What became of a pod that was shown to the webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(missing_docs, reason = "the names are the label's values")]
pub enum Outcome {
    Injected,
    Skipped,
    Refused,
    Invalid,
    OverLimit,
    NoSettings,
}

/// Handles of what the webhook counts.
#[derive(Debug, Clone)]
pub struct InjectMetrics {
    /// Pods by what became of them.
    pub injections: Family<By, Counter>,
    /// From a whole request to its answer.
    pub duration: Histogram,
    /// 1 while `injector.yaml` as it stands cannot be used and the last good settings serve.
    pub settings_broken: Gauge,
    /// Pods that should have a sidecar and have none.
    pub unmeshed: Gauge,
}

impl InjectMetrics {
    /// Registers everything in `registry`, whose prefix says whose metrics these are.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            injections: Family::default(),
            duration: Histogram::new(DURATION_BOUNDS),
            settings_broken: Gauge::default(),
            unmeshed: Gauge::default(),
        };
        registry.register("injections", "Pods shown to the webhook by outcome", metrics.injections.clone());
        registry.register_with_unit(
            "injection_duration",
            "From a whole request to its answer",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register(
            "injector_settings_broken",
            "1 while the injector's settings cannot be used and the last good ones serve",
            metrics.settings_broken.clone(),
        );
        registry.register(
            "unmeshed_pods",
            "Pods that should have a sidecar and have none",
            metrics.unmeshed.clone(),
        );
        metrics
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.injections.get_or_create(&By { outcome }).inc();
    }
}
