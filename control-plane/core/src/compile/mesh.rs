//! The mesh's settings, with every default filled in.
//!
//! Where it stands: first in *compile*: all identities depend on the trust domain.
//!
//! Invariant: exactly one Mesh object is read; settings that are not valid are not in force at all.

use std::time::Duration;

use weft_k8s::MeshSpec;

use super::telemetry::OfMesh;
use crate::{
    config::{AccessLog, Mesh, MutualTls, UnknownDestination},
    model::Model,
    report::{Condition, Reason, Report, Subject, Verdict},
    validate::settings,
};

/// The settings, and the one of them that the contract carries elsewhere.
pub(super) struct Settings {
    /// What every sidecar is told.
    pub(super) settings: Mesh,
    /// mTLS where no TlsPolicy says otherwise.
    pub(super) tls: DefaultTls,
    /// What it says of telemetry.
    pub(super) telemetry: OfMesh,
}

/// mTLS where no TlsPolicy says otherwise.
pub(super) struct DefaultTls {
    /// The mode.
    pub(super) mode: MutualTls,
    /// The Mesh that says so, `mesh/<name>`; empty: none does.
    pub(super) by: String,
}

/// The settings in force.
pub(super) fn compile(model: &Model, report: &mut Report) -> Settings {
    let mut spec = MeshSpec::default();
    let mut by = String::new();
    for mesh in model.meshes.values() {
        let condition = match settings::mesh(mesh) {
            Ok(()) => {
                spec = mesh.spec.clone();
                by = format!("mesh/{}", mesh.meta.key.name);
                Condition::accepted()
            }
            Err(error) => Condition::refused(Reason::Invalid, error),
        };
        report
            .entry(&mesh.meta)
            .verdicts
            .push(Verdict { subject: Subject::Object, conditions: vec![condition] });
    }
    let telemetry = OfMesh::new(&spec, &by);
    let tls = match spec.mutual_tls {
        Some(mode) => DefaultTls { mode: mutual_tls(mode), by },
        None => DefaultTls { mode: mutual_tls(weft_k8s::MutualTls::default()), by: String::new() },
    };
    Settings { settings: fill(spec), tls, telemetry }
}

fn fill(spec: MeshSpec) -> Mesh {
    let tracing = spec.tracing.unwrap_or_default();
    let drain = spec.drain.unwrap_or_default();
    Mesh {
        trust_domain: spec.trust_domain.unwrap_or_else(|| TRUST_DOMAIN.to_owned()),
        unknown_destination: match spec.unknown_destination.unwrap_or_default() {
            weft_k8s::UnknownDestination::PassThrough => UnknownDestination::PassThrough,
            weft_k8s::UnknownDestination::Refuse => UnknownDestination::Refuse,
        },
        trace_sampling_ppm: parts_per_million(tracing.sampling_percent.unwrap_or_default()),
        trace_per_second: tracing.per_second.unwrap_or_default(),
        access_log: access_log(spec.access_log.unwrap_or_default()),
        drain_linger: drain.linger.map_or(DRAIN_LINGER, Duration::from),
        drain_deadline: drain.deadline.map_or(DRAIN_DEADLINE, Duration::from),
    }
}

/// The contract's form of what is logged.
pub(super) fn access_log(mode: weft_k8s::AccessLog) -> AccessLog {
    match mode {
        weft_k8s::AccessLog::Off => AccessLog::Off,
        weft_k8s::AccessLog::Errors => AccessLog::Errors,
        weft_k8s::AccessLog::All => AccessLog::All,
    }
}

/// A percentage that was checked to be 0 to 100; the cast saturates.
pub(super) fn parts_per_million(percent: f64) -> u32 {
    (percent * 10_000.0).round() as u32
}

/// The contract's form of a mode.
pub(super) fn mutual_tls(mode: weft_k8s::MutualTls) -> MutualTls {
    match mode {
        weft_k8s::MutualTls::Permissive => MutualTls::Permissive,
        weft_k8s::MutualTls::Strict => MutualTls::Strict,
    }
}

/// Source: Istio's and Kubernetes' default.
const TRUST_DOMAIN: &str = "cluster.local";
/// Source: the contract's default; about what the removal of an endpoint takes to spread.
const DRAIN_LINGER: Duration = Duration::from_secs(5);
/// Source: the contract's default; Kubernetes' terminationGracePeriodSeconds is 30.
const DRAIN_DEADLINE: Duration = Duration::from_secs(30);
