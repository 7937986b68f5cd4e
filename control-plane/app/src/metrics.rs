//! What the control plane counts, under the prefix `weft_control_plane_`.
//!
//! Invariant: every limit and every refusal has a number here; labels are small closed sets, never
//! names that users choose.

pub mod catalog;
pub mod watching;

use std::borrow::Cow;

use weft_exposition::handles::{Counter, Each, Gauge, Histogram, Registry, Words};
use weft_exposition::{Format, Set, process};

use crate::webhook::InjectMetrics;

/// Bounds of the duration histograms in seconds. Source: the goal is 100 ms from an edit to its
/// publication; a fold of two around it shows where the time goes.
const DURATION_BOUNDS: [f64; 10] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0];

/// What happened to a connection, a request for a certificate, a reload or a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

impl Words for Outcome {
    fn words(&self) -> Vec<Cow<'static, str>> {
        vec![format!("{self:?}").into()]
    }
}

/// Handles of everything that is counted.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Sidecars with an open stream.
    pub sidecars_connected: Gauge,
    /// TLS connections by what became of them.
    pub connections: Each<Outcome, Counter>,
    /// Streams that ended, by why.
    pub streams_closed: Each<Outcome, Counter>,
    /// Epochs sent.
    pub epochs_sent: Counter,
    /// Resources sent within epochs.
    pub resources_sent: Counter,
    /// Bytes of resource bodies sent.
    pub resource_bytes_sent: Counter,
    /// Resources that sidecars refused.
    pub refusals: Counter,
    /// Certificates issued, and requests refused, by kind.
    pub certificates: Each<Outcome, Counter>,
    /// Reads of the manifests, by outcome.
    pub reloads: Each<Outcome, Counter>,
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
    /// End of the own certificate, seconds since 1970.
    pub certificate_expiry: Gauge,
    /// Watches on an API server.
    pub watching: watching::WatchMetrics,
    /// The injector's.
    pub injecting: InjectMetrics,
}

impl Metrics {
    /// Registers everything in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            sidecars_connected: Gauge::default(),
            connections: Each::default(),
            streams_closed: Each::default(),
            epochs_sent: Counter::default(),
            resources_sent: Counter::default(),
            resource_bytes_sent: Counter::default(),
            refusals: Counter::default(),
            certificates: Each::default(),
            reloads: Each::default(),
            compile_duration: Histogram::new(&DURATION_BOUNDS),
            reload_duration: Histogram::new(&DURATION_BOUNDS),
            config_generation: Gauge::default(),
            manifest_errors: Gauge::default(),
            objects_refused: Gauge::default(),
            last_good_reload: Gauge::default(),
            certificate_expiry: Gauge::default(),
            watching: watching::WatchMetrics::register(registry),
            injecting: InjectMetrics::register(registry),
        };
        metrics.register_streams(registry);
        metrics.register_manifests(registry);
        metrics
    }

    fn register_streams(&self, registry: &mut Registry) {
        registry.register(&catalog::SIDECARS, self.sidecars_connected.clone());
        registry.register(&catalog::CONNECTIONS, self.connections.clone());
        registry.register(&catalog::STREAMS_CLOSED, self.streams_closed.clone());
        registry.register(&catalog::EPOCHS, self.epochs_sent.clone());
        registry.register(&catalog::RESOURCES, self.resources_sent.clone());
        registry.register(&catalog::RESOURCE_BYTES, self.resource_bytes_sent.clone());
        registry.register(&catalog::REFUSALS, self.refusals.clone());
        registry.register(&catalog::CERTIFICATES, self.certificates.clone());
        registry.register(&catalog::CERTIFICATE_EXPIRY, self.certificate_expiry.clone());
    }

    fn register_manifests(&self, registry: &mut Registry) {
        registry.register(&catalog::RELOADS, self.reloads.clone());
        registry.register(&catalog::COMPILE, self.compile_duration.clone());
        registry.register(&catalog::RELOAD, self.reload_duration.clone());
        registry.register(&catalog::GENERATION, self.config_generation.clone());
        registry.register(&catalog::MANIFEST_ERRORS, self.manifest_errors.clone());
        registry.register(&catalog::OBJECTS_REFUSED, self.objects_refused.clone());
        registry.register(&catalog::LAST_GOOD, self.last_good_reload.clone());
    }

    /// Counts one outcome in a family.
    pub fn count(family: &Each<Outcome, Counter>, outcome: Outcome) {
        family.of(&outcome).inc();
    }
}

/// A registry for a control plane's families, with nothing in it yet.
#[must_use]
pub fn registry() -> Registry {
    Registry::new(&catalog::CATALOG)
}

/// Everything that is counted as it is now, and the process, for a scraper that reads this form.
#[must_use]
pub fn page(registry: &Registry, format: Format) -> Vec<u8> {
    registry.render(format, |page| {
        page.family(&catalog::BUILD).add(&Set::NONE, &[env!("CARGO_PKG_VERSION")], true);
        process::write(page);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_exposition::reference;

    #[test]
    fn the_catalog_is_sound_and_all_of_it_is_registered() {
        assert_eq!(reference::faults(&catalog::CATALOG, &catalog::LABELS), [""; 0]);
        let mut registry = registry();
        Metrics::register(&mut registry);
        crate::kubernetes::counts::Counts::register(&mut registry);
        let page = String::from_utf8(page(&registry, Format::OpenMetrics)).unwrap();
        let described: Vec<&str> =
            page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let names: Vec<&str> = catalog::CATALOG.iter().map(|family| family.name).collect();
        assert_eq!(described, names);
    }
}
