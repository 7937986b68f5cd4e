//! What was explained: the walks with the place of each object, and what is meant for the destination and not in
//! force.
//!
//! Invariant: plain data; its JSON is what `-o json` prints.

use serde::Serialize;
use weft_proto::v1;

/// An explanation.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// The request, in one line.
    pub(super) request: String,
    /// Who sends it.
    pub(super) from: String,
    /// To whom.
    pub(super) to: String,
    /// The walks: the source's, and one for each destination that was looked at.
    pub(super) sides: Vec<Side>,
    /// What it comes to.
    pub(super) outcomes: Vec<Outcome>,
    /// What is meant for the destination and is not in force.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) not_in_force: Vec<NotInForce>,
}

/// The walk through one side.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Side {
    /// "outbound" or "inbound".
    pub(super) side: &'static str,
    /// Whose sidecar walks; empty: there is none.
    pub(super) workload: String,
    /// What a person should know of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) note: String,
    /// Its steps.
    pub(super) steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Step {
    pub(super) room: String,
    pub(super) what: String,
    pub(super) mark: Mark,
    pub(super) why: String,
    /// What says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) by: Option<By>,
    /// Nothing says so: it is a default.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) default: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) steps: Vec<Self>,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Mark {
    Fact,
    Holds,
    PassedBy,
    Ends,
    Shadow,
}

/// The object and the field that say so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct By {
    pub(super) kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) namespace: String,
    pub(super) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) field: String,
    /// Where that is written, `file:line`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) place: String,
}

/// What it comes to.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Outcome {
    /// "forward", "answer", "reset" or "passThrough".
    pub(super) end: &'static str,
    /// The reason's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) reason: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) status: u32,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) grpc_status: u32,
    /// In one sentence.
    pub(super) why: String,
    /// Where a redirect leads.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) location: String,
    /// What to do, where something stands in the way.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) remedy: &'static str,
}

/// An object that is not in force as it was meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NotInForce {
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) place: String,
    /// The condition, `Type/Reason`.
    pub(super) condition: String,
    /// Why, for a person.
    pub(super) message: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Where objects and their fields are written.
pub(super) type Places<'a> = dyn Fn(&v1::Origin, &str) -> String + 'a;

/// A walk's steps.
pub(super) fn steps(steps: Vec<v1::WalkStep>, places: &Places<'_>) -> Vec<Step> {
    steps.into_iter().map(|it| step(it, places)).collect()
}

fn step(it: v1::WalkStep, places: &Places<'_>) -> Step {
    let mark = match it.mark() {
        v1::WalkMark::Fact => Mark::Fact,
        v1::WalkMark::Holds => Mark::Holds,
        v1::WalkMark::PassedBy => Mark::PassedBy,
        v1::WalkMark::Ends => Mark::Ends,
        v1::WalkMark::Shadow => Mark::Shadow,
    };
    let default = it.origin.is_none() && it.field == "default";
    let by = it.origin.map(|origin| By {
        place: places(&origin, &it.field),
        kind: origin.kind,
        namespace: origin.namespace,
        name: origin.name,
        field: it.field.clone(),
    });
    Step { room: it.room, what: it.what, mark, why: it.why, by, default, steps: steps(it.steps, places) }
}

/// An outcome.
pub(super) fn outcome(it: v1::WalkOutcome) -> Outcome {
    let end = match it.end() {
        v1::WalkEnd::Forward | v1::WalkEnd::Unspecified => "forward",
        v1::WalkEnd::Answer => "answer",
        v1::WalkEnd::Reset => "reset",
        v1::WalkEnd::PassThrough => "passThrough",
    };
    let known = weft_proxy_core::reason::ALL.iter().find(|reason| reason.name() == it.reason);
    // What the configuration answers itself needs no remedy.
    let known = known.filter(|reason| **reason != weft_proxy_core::Reason::ConfigReply);
    Outcome {
        end,
        status: it.status,
        grpc_status: it.grpc_status,
        why: it.why,
        location: it.location,
        remedy: known.map_or("", |reason| reason.remedy()),
        reason: it.reason,
    }
}

/// An endpoint, for a person.
pub(super) fn name_of(endpoint: &v1::WalkEndpoint) -> String {
    match endpoint.workload.as_str() {
        "" => endpoint.address.clone(),
        workload => format!("{workload} at {}", endpoint.address),
    }
}

/// The share of a backend, where there are several.
pub(super) fn part(onward: &v1::WalkOnward) -> String {
    match (onward.weight, onward.of) {
        (weight, of) if weight == of => String::new(),
        (weight, of) => format!("{weight} of {of}: "),
    }
}

/// Of how many endpoints one is shown.
pub(super) fn others(onward: &v1::WalkOnward) -> String {
    match onward.endpoints.len() {
        0 | 1 => String::new(),
        many => format!("the first of {many} endpoints"),
    }
}

/// The side and outcome of an endpoint that has no sidecar.
pub(super) fn without_sidecar(onward: &v1::WalkOnward, first: &v1::WalkEndpoint) -> (Side, Outcome) {
    let note = format!("{} has no sidecar: it takes what comes", name_of(first));
    let side = Side { side: "inbound", workload: String::new(), note, steps: Vec::new() };
    (side, forwarded(format!("{}to {}, in plaintext", part(onward), name_of(first))))
}

/// An outcome that goes on.
pub(super) fn forwarded(why: String) -> Outcome {
    outcome(v1::WalkOutcome { end: v1::WalkEnd::Forward.into(), why, ..v1::WalkOutcome::default() })
}

/// What the destination's side came to, with the destination.
pub(super) fn arrived(walked: v1::WalkOutcome, onward: &v1::WalkOnward, first: &v1::WalkEndpoint) -> Outcome {
    let part = part(onward);
    let mut outcome = outcome(walked);
    outcome.why = match outcome.end {
        "forward" => format!("{part}to {}", name_of(first)),
        _ => format!("{part}{}, says {}", outcome.why, name_of(first)),
    };
    outcome
}

/// Takes out what is told by who takes the request, unless a share is not forwarded.
pub(super) fn taken(outcomes: &mut Vec<Outcome>, onward: &[v1::WalkOnward]) {
    let (forwarded, of) = onward.iter().fold((0, 1), |(sum, _), it| (sum + it.weight, it.of));
    outcomes.retain(|outcome| outcome.end != "forward" || forwarded < of);
}
