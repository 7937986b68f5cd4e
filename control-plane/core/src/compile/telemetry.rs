//! TelemetryPolicy: what each pod tells about its requests.
//!
//! Where it stands: *compile*, before Inbounds.
//!
//! Invariant: a leaf is taken whole from the first policy that sets it; what no policy sets is the Mesh's, and
//! what that does not set stays absent.

use std::{collections::BTreeSet, time::Duration};

use weft_k8s::{MeshSpec, TelemetryPolicySpec};

use super::{
    mesh::{access_log, parts_per_million},
    target::ByPod,
    work::in_namespace,
    world::World,
};
use crate::{
    config::{FromHeader, LogFormat, Telemetry, TraceExport, TraceProtocol},
    model::{Kind, Model, Pod, Policy},
    validate::telemetry,
};

/// The policies that may apply in some namespaces, above what the Mesh says.
pub(super) struct Telling<'a> {
    policies: ByPod<'a, TelemetryPolicySpec>,
    mesh: &'a OfMesh,
    model: &'a Model,
}

/// What the Mesh says of telemetry.
#[derive(Default)]
pub(super) struct OfMesh {
    sampling_percent: Option<f64>,
    per_second: Option<u32>,
    access_log: Option<weft_k8s::AccessLog>,
    by: String,
}

impl OfMesh {
    /// What these settings say; `by` names them.
    pub(super) fn new(spec: &MeshSpec, by: &str) -> Self {
        let tracing = spec.tracing.clone().unwrap_or_default();
        Self {
            sampling_percent: tracing.sampling_percent,
            per_second: tracing.per_second,
            access_log: spec.access_log,
            by: by.to_owned(),
        }
    }

    fn says_something(&self) -> bool {
        self.sampling_percent.is_some() || self.per_second.is_some() || self.access_log.is_some()
    }
}

impl<'a> Telling<'a> {
    /// The policies of these namespaces, and those for the whole mesh.
    pub(super) fn new(world: &World<'a>, namespaces: &BTreeSet<&str>, mesh: &'a OfMesh) -> Self {
        let model = world.model;
        let mut namespaces = namespaces.clone();
        namespaces.insert(&model.root_namespace);
        let all = namespaces
            .iter()
            .flat_map(|namespace| in_namespace(&model.telemetry, Kind::TelemetryPolicy, namespace));
        let valid = all.filter(|policy| telemetry::check(&policy.spec).is_ok());
        Self { policies: ByPod::new(world, valid), mesh, model }
    }

    /// What a pod tells.
    pub(super) fn of(&self, pod: &Pod) -> Telemetry {
        let policies = self.policies.of(pod, &BTreeSet::new());
        let mut merged = Merged { used: Vec::new(), policies: &policies };
        let tracing = |spec: &TelemetryPolicySpec| spec.tracing.clone().unwrap_or_default();
        let log = |spec: &TelemetryPolicySpec| spec.access_log.clone().unwrap_or_default();
        // Share and number a second belong together: who says one of them says that the other's default is
        // not meant, but leaves a number that someone else wrote.
        let percent = merged.take(|spec| tracing(spec).sampling_percent).or(self.mesh.sampling_percent);
        let per_second = merged.take(|spec| tracing(spec).per_second).or(self.mesh.per_second);
        let mode = merged.take(|spec| log(spec).mode).or(self.mesh.access_log).unwrap_or_default();
        let mut told = Telemetry {
            trace_export: merged.take(|spec| tracing(spec).export).as_ref().map(export),
            trace_sampling_ppm: percent.map(parts_per_million),
            trace_per_second: per_second,
            trace_errors_per_second: merged.take(|spec| tracing(spec).errors_per_second),
            trace_attributes: merged
                .take(|spec| tracing(spec).attributes)
                .map(from_headers)
                .unwrap_or_default(),
            trace_join_single_flight: merged
                .take(|spec| tracing(spec).join_single_flight)
                .unwrap_or_default(),
            access_log: access_log(mode),
            access_log_sampling_ppm: merged.take(|spec| log(spec).sampling_percent).map(parts_per_million),
            access_log_format: format(merged.take(|spec| log(spec).format).unwrap_or_default()),
            access_log_query: merged.take(|spec| log(spec).query).unwrap_or_default(),
            access_log_headers: merged.take(|spec| log(spec).headers).map(from_headers).unwrap_or_default(),
            response_headers: merged.take(|spec| spec.response_headers).unwrap_or_default(),
            by: merged.names(),
            node: pod.node.clone(),
            zone: self.model.zone(pod).to_owned(),
            version: version(pod),
        };
        if self.mesh.says_something() {
            told.by.push(self.mesh.by.clone());
        }
        told
    }
}

/// Policies in order of precedence, and which of them were used.
struct Merged<'a> {
    policies: &'a [&'a Policy<TelemetryPolicySpec>],
    used: Vec<usize>,
}

impl Merged<'_> {
    /// A leaf of the first policy that sets it.
    fn take<T>(&mut self, leaf: impl Fn(&TelemetryPolicySpec) -> Option<T>) -> Option<T> {
        let found = self.policies.iter().enumerate().find_map(|(at, policy)| Some((at, leaf(&policy.spec)?)));
        let (at, value) = found?;
        self.used.push(at);
        Some(value)
    }

    /// Names of those that were used, in order of precedence.
    fn names(&self) -> Vec<String> {
        let used: BTreeSet<usize> = self.used.iter().copied().collect();
        used.into_iter().filter_map(|at| Some(self.policies.get(at)?.meta.key.path())).collect()
    }
}

/// What a pod's labels say of its version. Source: Kubernetes' recommended labels; Istio's `version`.
fn version(pod: &Pod) -> String {
    let label = |name: &str| pod.labels.get(name).filter(|value| !value.is_empty());
    label("app.kubernetes.io/version").or_else(|| label("version")).cloned().unwrap_or_default()
}

fn export(it: &weft_k8s::TraceExport) -> TraceExport {
    TraceExport {
        endpoint: it.endpoint.clone(),
        protocol: match it.protocol.unwrap_or_default() {
            weft_k8s::TraceProtocol::OtlpGrpc => TraceProtocol::OtlpGrpc,
            weft_k8s::TraceProtocol::OtlpHttp => TraceProtocol::OtlpHttp,
            weft_k8s::TraceProtocol::Zipkin => TraceProtocol::Zipkin,
        },
        headers: it.headers.iter().map(|header| (header.name.clone(), header.value.clone())).collect(),
        ca_bundle: it.ca_bundle.clone().unwrap_or_default(),
        timeout: it.timeout.map(Duration::from),
    }
}

fn from_headers(list: Vec<weft_k8s::FromHeader>) -> Vec<FromHeader> {
    let one = |it: weft_k8s::FromHeader| FromHeader { name: it.name, header: it.header.to_ascii_lowercase() };
    list.into_iter().map(one).collect()
}

fn format(it: weft_k8s::LogFormat) -> LogFormat {
    match it {
        weft_k8s::LogFormat::Weft => LogFormat::Weft,
        weft_k8s::LogFormat::Ecs => LogFormat::Ecs,
    }
}
