//! What is told of a request: traces, the access log, the answer's own fields, and what says so.
//!
//! Invariant: what is set nowhere is shown as such: its default is the exporter's and the log's.

use super::{By, Room, Step};
use crate::names::Name;
use crate::snapshot::Snapshot;
use crate::spec::{AccessLog, Telemetry};

/// What this workload's sidecar tells.
pub(super) fn step(snapshot: &Snapshot) -> Option<Step> {
    let telemetry = snapshot.inbound.as_ref()?.telemetry.as_ref()?;
    let mut by = telemetry.by.iter().map(name);
    let first = by.next().unwrap_or_else(By::default_value);
    let mut said = vec![log(telemetry), traces(telemetry)];
    if telemetry.response_headers {
        said.push("answers name the request and the reason".to_owned());
    }
    let others = by.map(|by| Step::fact(Room::Record, "set in part", "where the first sets nothing").by(by));
    Some(Step::fact(Room::Record, "telemetry", said.join("; ")).by(first).of(others.collect()))
}

/// A policy, or the Mesh, by its name on the wire.
fn name(name: &Name) -> By {
    match name.as_str().strip_prefix("mesh/") {
        Some(mesh) => By::object("Mesh", "", mesh, "spec"),
        None => By::named("TelemetryPolicy", name.as_str(), "spec"),
    }
}

fn log(telemetry: &Telemetry) -> String {
    let what = match telemetry.access_log {
        AccessLog::Off => return "no access log".to_owned(),
        AccessLog::Errors => "refusals and errors are logged",
        AccessLog::All => "every request is logged",
    };
    match telemetry.access_log_sampling_ppm {
        Some(ppm) if ppm < 1_000_000 => format!("{what}, {} of what goes well", percent(ppm)),
        _ => what.to_owned(),
    }
}

fn traces(telemetry: &Telemetry) -> String {
    let share = match (telemetry.trace_sampling_ppm, telemetry.trace_per_second) {
        (None | Some(0), None | Some(0)) => String::new(),
        (Some(ppm), None | Some(0)) => format!(", {} of those that begin here", percent(ppm)),
        (None | Some(0), Some(each)) => format!(", {each} a second of those that begin here"),
        (Some(ppm), Some(each)) => format!(", {each} a second and {} of those that begin here", percent(ppm)),
    };
    match &telemetry.trace_export {
        Some(export) => format!("traces go to {}{share}", export.endpoint),
        None => format!("traces go where the sidecar was told at its start, if it was{share}"),
    }
}

fn percent(ppm: u32) -> String {
    format!("{} %", f64::from(ppm) / 1e4)
}
