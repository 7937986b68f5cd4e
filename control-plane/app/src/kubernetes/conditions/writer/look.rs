//! One look at one object: read it, say what its status must be, write that over what was read, and tell
//! a person what is news.
//!
//! Before it: the queue. After it: the queue hears whether to try again.
//!
//! Invariant: what is written is about the very object that the report is about, by its UID.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::Error;
use serde_json::Value;
use weft_control_plane_core::model::{Kind, ObjectKey};
use weft_control_plane_core::report::ObjectReport;

use super::super::reach::Summaries;
use super::super::{mesh_status, policy_status, problems, route_status};
use super::api::Kinds;
use crate::kubernetes::counts::Outcome;
use crate::kubernetes::events::{Events, reference};

/// Deadline of one look with its write. Source: Weft's own.
const DEADLINE: Duration = Duration::from_secs(10);

/// What a look at one object came to.
pub(super) struct Looked {
    /// Which.
    pub(super) key: ObjectKey,
    /// What came of it.
    pub(super) outcome: Outcome,
}

/// One look at one object, with its write.
pub(super) struct Look {
    pub(super) kinds: Kinds,
    pub(super) summaries: Arc<Summaries>,
    pub(super) report: Option<ObjectReport>,
    pub(super) events: Events,
}

impl Look {
    pub(super) async fn run(self, key: ObjectKey) -> Looked {
        let outcome = match tokio::time::timeout(DEADLINE, self.look(&key)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(Error::Api(status))) if status.is_conflict() => Outcome::Conflict,
            Ok(Err(Error::Api(status))) if status.is_not_found() => Outcome::Gone,
            Ok(Err(error)) => {
                tracing::warn!(object = %key, %error, "a status was not written");
                Outcome::Failed
            }
            Err(_) => Outcome::Failed,
        };
        Looked { key, outcome }
    }

    async fn look(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let Some(object) = self.kinds.read(key).await? else { return Ok(Outcome::Gone) };
        let Some(status) = wanted(key, &object, self.report.as_ref(), &self.summaries) else {
            return Ok(Outcome::Unchanged);
        };
        self.kinds.write(key, &object, &status).await?;
        tracing::debug!(object = %key, "its status was written");
        self.tell(key, &object, &status);
        Ok(Outcome::Written)
    }

    /// Tells a person what became of the object, if that is news.
    fn tell(&self, key: &ObjectKey, object: &Value, status: &Value) {
        let before = object.get("status").map(problems).unwrap_or_default();
        let after = problems(status);
        let about = ObjectReference {
            uid: object.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned),
            ..reference(&self.kinds.api_version(key.kind), key.kind.as_str(), &key.namespace, &key.name)
        };
        let refuse = |status: Option<&Value>| {
            let refusing = status.and_then(|status| status.pointer("/sidecars/refusing")?.as_array());
            refusing.is_some_and(|refusing| !refusing.is_empty())
        };
        if refuse(Some(status)) && !refuse(object.get("status")) {
            let reach = self.summaries.reach(key);
            self.events.warn(&about, "RefusedBySidecars", reach.to_string());
        }
        match after.iter().find(|problem| !before.contains(problem)) {
            Some(problem) => {
                let (reason, message) = problem.split_once(": ").unwrap_or(("Refused", problem));
                self.events.warn(&about, reason, message);
            }
            None if after.is_empty() && !before.is_empty() => {
                self.events.normal(&about, "Accepted", "in force again");
            }
            None => {}
        }
    }
}

/// The status that an object must have; none: it has it, or there is nothing to say.
pub(super) fn wanted(
    key: &ObjectKey,
    object: &Value,
    report: Option<&ObjectReport>,
    summaries: &Summaries,
) -> Option<Value> {
    let uid = object.pointer("/metadata/uid").and_then(Value::as_str);
    let told = report.and_then(|report| report.uid.as_deref());
    if told.is_some_and(|told| Some(told) != uid) {
        // Another object of this name; the report on it is under way.
        return None;
    }
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let reach = summaries.reach(key);
    match key.kind {
        Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute => {
            // Nothing is said of a route that has no parent of ours any more: our entries go.
            let nothing = ObjectReport::default();
            route_status(object, report.unwrap_or(&nothing), Some(&reach), &now)
        }
        Kind::Mesh => mesh_status(object, report?, Some(&reach), &now),
        _ => policy_status(object, report?, Some(&reach), &now),
    }
}
