//! What the configuration in force says about traces: where they go, and which are kept.
//!
//! Asked by the chores thread when configuration was adopted; what comes out goes to the exporter and to the
//! workers' samplers.
//!
//! Invariant: the pod owner's own collector (`--otlp`) comes before any policy's.
//! Invariant: nothing is kept while there is nobody to send it to.

use std::sync::Arc;

use tokio::sync::watch;
use weft_proxy_core::spec::{self, TraceExport, TraceProtocol};

use super::{Rules, Sampling};

/// Takes new words on traces to those who act on them.
#[derive(Debug)]
pub struct Follower {
    /// The collector that the pod owner named.
    own: Option<Arc<TraceExport>>,
    workers: u32,
    sampling: Arc<Sampling>,
    collector: watch::Sender<Option<Arc<TraceExport>>>,
    rules: Option<Rules>,
}

impl Follower {
    /// Nothing is exported yet.
    #[must_use]
    pub fn new(otlp: Option<&str>, workers: usize, sampling: Arc<Sampling>) -> Self {
        let own = otlp.map(|endpoint| {
            Arc::new(TraceExport {
                endpoint: Arc::from(endpoint),
                protocol: TraceProtocol::OtlpGrpc,
                headers: Vec::new(),
                ca_bundle: Arc::from(""),
                timeout: None,
            })
        });
        let workers = u32::try_from(workers).unwrap_or(1).max(1);
        Self { own, workers, sampling, collector: watch::Sender::new(None), rules: None }
    }

    /// The collector in force.
    #[must_use]
    pub fn collector(&self) -> watch::Receiver<Option<Arc<TraceExport>>> {
        self.collector.subscribe()
    }

    /// Follows what is in force now.
    pub fn follow(&mut self, telemetry: Option<&spec::Telemetry>, mesh: &spec::Mesh) {
        let told = telemetry.and_then(|telemetry| telemetry.trace_export.as_ref());
        let collector = match (&self.own, told) {
            (Some(own), _) => Some(Arc::clone(own)),
            (None, Some(told)) => Some(Arc::new(told.clone())),
            (None, None) => None,
        };
        let rules = collector.is_some().then(|| rules(telemetry, mesh, self.workers));
        if rules != self.rules {
            self.sampling.follow(rules.as_ref());
            self.rules = rules;
        }
        self.collector.send_if_modified(|current| {
            let differs = *current != collector;
            if differs {
                *current = collector;
            }
            differs
        });
    }
}

fn rules(telemetry: Option<&spec::Telemetry>, mesh: &spec::Mesh, workers: u32) -> Rules {
    // A control plane that knows no TelemetryPolicy sends 0 for what nobody said.
    let said = |number: u32| Some(number).filter(|number| *number > 0);
    let (ppm, per_second) = match telemetry {
        Some(telemetry) => (telemetry.trace_sampling_ppm, telemetry.trace_per_second),
        None => (said(mesh.trace_sampling_ppm), said(mesh.trace_per_second)),
    };
    let errors = telemetry.and_then(|telemetry| telemetry.trace_errors_per_second).unwrap_or(ERRORS);
    let default = if ppm.is_none() { PER_SECOND } else { 0 };
    Rules {
        ppm: ppm.unwrap_or_default(),
        per_second: per_second.unwrap_or(default).div_ceil(workers),
        errors: errors.div_ceil(workers),
        attributes: telemetry.map(|telemetry| telemetry.trace_attributes.clone()).unwrap_or_default(),
        join: telemetry.is_some_and(|telemetry| telemetry.trace_join_single_flight),
    }
}

/// Traces a second of each called service, where nothing says which are kept. Source: ours; the first request
/// after any pause is kept, so a first look at the collector finds what was just done, and a flood of ten
/// thousand requests a second is told by one in ten thousand.
const PER_SECOND: u32 = 1;
/// Errors a second that are kept outside of kept traces. Source: ours; as above, of what went wrong.
const ERRORS: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn export(endpoint: &str) -> TraceExport {
        TraceExport {
            endpoint: endpoint.into(),
            protocol: TraceProtocol::Zipkin,
            headers: Vec::new(),
            ca_bundle: "".into(),
            timeout: None,
        }
    }

    fn follower(otlp: Option<&str>) -> Follower {
        Follower::new(otlp, 1, Arc::default())
    }

    fn endpoint(follower: &Follower) -> Option<String> {
        follower.collector().borrow().as_ref().map(|export| export.endpoint.to_string())
    }

    #[test]
    fn a_policys_collector_comes_goes_and_yields_to_the_pods_own() {
        let mesh = spec::Mesh::default();
        let told = spec::Telemetry { trace_export: Some(export("http://a")), ..Default::default() };
        let mut plain = follower(None);
        assert!(!plain.sampling.is_on());
        plain.follow(Some(&told), &mesh);
        assert_eq!(endpoint(&plain).as_deref(), Some("http://a"));
        assert!(plain.sampling.is_on());
        plain.follow(Some(&spec::Telemetry::default()), &mesh);
        assert_eq!((endpoint(&plain), plain.sampling.is_on()), (None, false));
        let mut own = follower(Some("http://own:4317"));
        own.follow(Some(&told), &mesh);
        assert_eq!(endpoint(&own).as_deref(), Some("http://own:4317"));
    }

    #[test]
    fn equal_words_rouse_nobody() {
        let told = spec::Telemetry { trace_export: Some(export("http://a")), ..Default::default() };
        let mut follower = follower(None);
        follower.follow(Some(&told), &spec::Mesh::default());
        let receiver = follower.collector();
        follower.follow(Some(&told.clone()), &spec::Mesh::default());
        assert!(!receiver.has_changed().unwrap());
    }

    #[test]
    fn a_first_visit_is_never_empty_unless_somebody_says_so() {
        let mesh = |ppm, per_second| spec::Mesh {
            trace_sampling_ppm: ppm,
            trace_per_second: per_second,
            ..Default::default()
        };
        let told = |ppm, per_second, errors| spec::Telemetry {
            trace_sampling_ppm: ppm,
            trace_per_second: per_second,
            trace_errors_per_second: errors,
            ..Default::default()
        };
        let numbers = |rules: Rules| (rules.ppm, rules.per_second, rules.errors);
        let of = |telemetry: &spec::Telemetry| numbers(rules(Some(telemetry), &mesh(5, 5), 1));
        assert_eq!(of(&told(None, None, None)), (0, 1, 1));
        assert_eq!(of(&told(Some(0), None, Some(0))), (0, 0, 0));
        assert_eq!(of(&told(Some(7), None, None)), (7, 0, 1));
        assert_eq!(of(&told(Some(7), Some(3), Some(9))), (7, 3, 9));
        assert_eq!(of(&told(None, Some(0), None)), (0, 0, 1));
        assert_eq!(numbers(rules(None, &mesh(0, 0), 1)), (0, 1, 1));
        assert_eq!(numbers(rules(None, &mesh(5, 4), 1)), (5, 4, 1));
        assert_eq!(
            numbers(rules(Some(&told(None, Some(5), Some(2))), &mesh(0, 0), 4)),
            (0, 2, 1),
            "a worker's share"
        );
    }
}
