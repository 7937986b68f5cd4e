//! What the control plane counts, under the prefix `weft_control_plane_`.
//!
//! Invariant: every limit and every refusal has a number here; labels are small closed sets, never
//! names that users choose.

pub mod watching;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::webhook::InjectMetrics;

/// Bounds of the duration histograms in seconds. Source: the goal is 100 ms from an edit to its
/// publication; a fold of two around it shows where the time goes.
const DURATION_BOUNDS: [f64; 10] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0];

/// One label that tells outcomes apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct By {
    /// What happened.
    pub outcome: Outcome,
}

/// What happened to a connection, a request for a certificate, a reload or a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(missing_docs, reason = "the names are the label's values")]
pub enum Outcome {
    Accepted,
    OverLimit,
    HandshakeFailed,
    HandshakeTimeout,
    ForeignIdentity,
    Join,
    Renewal,
    Own,
    BadRequest,
    BadProof,
    NotAllowed,
    NotReady,
    BadCsr,
    ForgedToken,
    ExpiredToken,
    WrongAudience,
    NotAPod,
    AnotherPod,
    UnknownPod,
    Good,
    Broken,
    Unchanged,
    ByPeer,
    AckTimeout,
    Expired,
    Misuse,
    Slow,
    Shutdown,
}

/// Handles of everything that is counted.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Sidecars with an open stream.
    pub sidecars_connected: Gauge,
    /// TLS connections by what became of them.
    pub connections: Family<By, Counter>,
    /// Streams that ended, by why.
    pub streams_closed: Family<By, Counter>,
    /// Epochs sent.
    pub epochs_sent: Counter,
    /// Resources sent within epochs.
    pub resources_sent: Counter,
    /// Bytes of resource bodies sent.
    pub resource_bytes_sent: Counter,
    /// Resources that sidecars refused.
    pub refusals: Counter,
    /// Certificates issued, and requests refused, by kind.
    pub certificates: Family<By, Counter>,
    /// Reads of the manifests, by outcome.
    pub reloads: Family<By, Counter>,
    /// From a model to its compiled form.
    pub compile_duration: Histogram,
    /// From the first event of a save to its publication.
    pub reload_duration: Histogram,
    /// Generation that is published.
    pub config_generation: Gauge,
    /// Errors in the manifests as they stand; while above 0 the last good state serves.
    pub manifest_errors: Gauge,
    /// Objects that validation refuses in the published state.
    pub objects_refused: Gauge,
    /// When the manifests were last taken, seconds since 1970.
    pub last_good_reload: Gauge,
    /// Watches on an API server.
    pub watching: watching::WatchMetrics,
    /// The injector's.
    pub injecting: InjectMetrics,
}

impl Metrics {
    /// Registers everything in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("weft_control_plane");
        let metrics = Self {
            sidecars_connected: Gauge::default(),
            connections: Family::default(),
            streams_closed: Family::default(),
            epochs_sent: Counter::default(),
            resources_sent: Counter::default(),
            resource_bytes_sent: Counter::default(),
            refusals: Counter::default(),
            certificates: Family::default(),
            reloads: Family::default(),
            compile_duration: Histogram::new(DURATION_BOUNDS),
            reload_duration: Histogram::new(DURATION_BOUNDS),
            config_generation: Gauge::default(),
            manifest_errors: Gauge::default(),
            objects_refused: Gauge::default(),
            last_good_reload: Gauge::default(),
            watching: watching::WatchMetrics::register(registry),
            injecting: InjectMetrics::register(registry),
        };
        metrics.register_streams(registry);
        metrics.register_manifests(registry);
        metrics
    }

    fn register_streams(&self, registry: &mut Registry) {
        registry.register(
            "sidecars_connected",
            "Sidecars with an open stream",
            self.sidecars_connected.clone(),
        );
        registry.register("connections", "TLS connections by outcome", self.connections.clone());
        registry.register("streams_closed", "Streams that ended, by why", self.streams_closed.clone());
        registry.register("epochs_sent", "Epochs sent", self.epochs_sent.clone());
        registry.register("resources_sent", "Resources sent within epochs", self.resources_sent.clone());
        registry.register_with_unit(
            "resource_sent",
            "Bytes of resource bodies sent",
            Unit::Bytes,
            self.resource_bytes_sent.clone(),
        );
        registry.register("refusals", "Resources that sidecars refused", self.refusals.clone());
        registry.register("certificates", "Certificates issued and refused", self.certificates.clone());
    }

    fn register_manifests(&self, registry: &mut Registry) {
        registry.register("reloads", "Reads of the manifests by outcome", self.reloads.clone());
        registry.register_with_unit(
            "compile_duration",
            "From a model to its compiled form",
            Unit::Seconds,
            self.compile_duration.clone(),
        );
        registry.register_with_unit(
            "reload_duration",
            "From the first event of a save to its publication",
            Unit::Seconds,
            self.reload_duration.clone(),
        );
        registry.register(
            "config_generation",
            "Generation that is published",
            self.config_generation.clone(),
        );
        registry.register(
            "manifest_errors",
            "Errors in the manifests as they stand",
            self.manifest_errors.clone(),
        );
        registry.register("objects_refused", "Objects that validation refuses", self.objects_refused.clone());
        registry.register_with_unit(
            "last_good_reload",
            "When the manifests were last taken, since 1970",
            Unit::Seconds,
            self.last_good_reload.clone(),
        );
    }

    /// Counts one outcome in a family.
    pub fn count(family: &Family<By, Counter>, outcome: Outcome) {
        family.get_or_create(&By { outcome }).inc();
    }
}
