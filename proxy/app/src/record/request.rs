//! The record of one request.
//!
//! The rooms write down what they learn, in the order of the walk; the last of them closes it.
//!
//! Invariant: closed exactly once, by value or, by being dropped.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use weft_proxy_core::{Moment, Name, Probe, Reason};

use super::{Desk, Ending};
use crate::metrics::edge::{Direction, Edge, Protocol};
use crate::record::entry::Entry;
use crate::record::id::{WEFT_REQUEST_ID, X_REQUEST_ID};
use crate::trace::context::TraceContext;
use crate::trace::span::{AttemptSpan, EventSpan};

/// The record of one request.
#[derive(Debug)]
pub struct Record {
    entry: Option<Box<Entry>>,
    pub(super) desk: Arc<Desk>,
}

impl Record {
    pub(super) fn on(entry: Box<Entry>, desk: &Arc<Desk>) -> Self {
        Self { entry: Some(entry), desk: Arc::clone(desk) }
    }

    /// The edge it counts on: known after routing (inbound) or once an endpoint is chosen (outbound).
    pub fn edge(&mut self, edge: &Arc<Edge>) {
        self.write(|entry| entry.edge = Some(Arc::clone(edge)));
    }

    /// It is a probe of the kubelet.
    pub fn probe(&mut self, probe: Probe) {
        self.write(|entry| entry.probe = Some(probe));
    }

    /// The rule taken, and the backend chosen.
    pub fn plan(&mut self, rule: &Name, backend: &Name) {
        self.write(|entry| {
            entry.rule = Some(rule.clone());
            entry.backend = Some(backend.clone());
        });
    }

    /// The policy that decided.
    pub fn policy(&mut self, policy: &Name) {
        self.write(|entry| entry.policy = Some(policy.clone()));
    }

    /// Where the client wanted to go.
    pub fn destination(&mut self, destination: SocketAddr) {
        self.write(|entry| entry.destination = Some(destination));
    }

    /// The sidecar's own reason for the answer. The first one given stays: it is the cause of the others.
    pub fn reason(&mut self, reason: Reason) {
        self.write(|entry| entry.reason = entry.reason.or(Some(reason)));
    }

    /// An attempt is on its way to `endpoint`; gives the context that its header fields carry, if the
    /// request is kept. Counts a retry when it is not the first.
    pub fn attempt(&mut self, edge: &Arc<Edge>, endpoint: SocketAddr, now: Moment) -> Option<TraceContext> {
        let entry = self.entry.as_deref_mut()?;
        if entry.attempts > 0 {
            edge.retry();
        }
        entry.attempts = entry.attempts.saturating_add(1);
        entry.edge = Some(Arc::clone(edge));
        entry.endpoint = Some(endpoint);
        entry.sent = Some(now);
        let request = entry.trace?;
        if entry.attempts > 1 {
            entry.events.push(EventSpan { at: now, name: "retry" });
        }
        let span = self.desk.sampler.span_id();
        entry.tries.push(AttemptSpan {
            span,
            started: now,
            ended: None,
            endpoint: Some(endpoint),
            edge: Some(Arc::clone(edge)),
            status: None,
            reason: None,
        });
        Some(TraceContext { span, parent: Some(request.span), ..request })
    }

    /// The request is on its way to the application beside this sidecar.
    pub fn forwarded(&mut self, now: Moment) {
        self.write(|entry| entry.sent = Some(now));
    }

    /// The last attempt failed, or its answer was given up for a retry.
    pub fn attempt_over(&mut self, status: Option<StatusCode>, reason: Option<Reason>, now: Moment) {
        self.write(|entry| {
            if let Some(last) = entry.tries.last_mut() {
                (last.ended, last.status, last.reason) = (Some(now), status, reason);
                if reason.is_some_and(is_timeout) {
                    entry.events.push(EventSpan { at: now, name: TIMEOUT });
                }
            }
        });
    }

    /// The request is not kept, which another sidecar is told where traces are exported.
    pub fn tell_dropped(&self, headers: &mut HeaderMap) {
        self.desk.sampler.tell_dropped(headers);
    }

    /// Something happened that a trace should show beside retries and timeouts: "ejection", "fallback".
    pub fn event(&mut self, name: &'static str, now: Moment) {
        self.write(|entry| {
            if entry.trace.is_some() {
                entry.events.push(EventSpan { at: now, name });
            }
        });
    }

    /// The head of the answer is on its way downstream.
    pub fn answered(&mut self, status: StatusCode, headers: &HeaderMap, now: Moment) {
        self.write(|entry| {
            entry.status = Some(status);
            entry.first_byte = Some(now);
            if status.as_u16() >= 400 && entry.direction == Direction::Outbound {
                // Another sidecar refused it: what it called the request finds both decisions.
                entry.id.take(headers.get(WEFT_REQUEST_ID));
            }
            if entry.protocol == Protocol::Grpc {
                entry.grpc = entry.grpc.or_else(|| grpc_status(headers));
            }
        });
    }

    /// The answer's trailers.
    pub fn trailers(&mut self, trailers: &HeaderMap) {
        self.write(|entry| {
            if entry.protocol == Protocol::Grpc {
                entry.grpc = grpc_status(trailers).or(entry.grpc);
            }
        });
    }

    /// So many more bytes of body went up to the upstream, and down from it.
    pub fn carried(&mut self, up: u64, down: u64) {
        self.write(|entry| {
            entry.up = entry.up.saturating_add(up);
            entry.down = entry.down.saturating_add(down);
        });
    }

    /// Writes the request's name into its fields, when it is traced or every request is logged: then the hops
    /// after this one call it the same.
    pub fn stamp(&self, headers: &mut HeaderMap) {
        if let Some(entry) = &self.entry
            && !entry.id.is_given()
            && (entry.trace.is_some() || self.desk.sheet.takes_all())
        {
            headers.insert(X_REQUEST_ID, entry.id.value());
        }
    }

    /// Writes the request's name into an answer of the sidecar's own.
    pub fn sign(&self, headers: &mut HeaderMap) {
        if let Some(entry) = &self.entry {
            headers.insert(WEFT_REQUEST_ID, entry.id.value());
        }
    }

    /// The span of this request, which the application's calls are children of; `None` when it is not kept.
    #[must_use]
    pub fn context(&self) -> Option<&TraceContext> {
        self.entry.as_ref()?.trace.as_ref()
    }

    /// When it started.
    #[must_use]
    pub fn started(&self) -> Moment {
        self.entry.as_ref().map_or(Moment(0), |entry| entry.started)
    }

    /// Closes the record.
    pub fn close(mut self, ending: Ending, now: Moment) {
        self.finish(ending, now);
    }

    fn write(&mut self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entry.as_deref_mut() {
            change(entry);
        }
    }

    fn finish(&mut self, ending: Ending, now: Moment) {
        if let Some(mut entry) = self.entry.take() {
            if let Ending::Failed(reason) = ending {
                entry.reason = entry.reason.or(Some(reason));
            }
            let timed_out = entry.trace.is_some() && entry.reason.is_some_and(is_timeout);
            if timed_out && !entry.events.iter().any(|event| event.name == TIMEOUT) {
                entry.events.push(EventSpan { at: now, name: TIMEOUT });
            }
            self.desk.close_request(entry, now);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.entry.is_some() {
            let now = self.desk.telemetry.clock.now();
            self.finish(Ending::Failed(self.desk.given_up()), now);
        }
    }
}

/// The event of a deadline that passed.
const TIMEOUT: &str = "timeout";

fn is_timeout(reason: Reason) -> bool {
    use Reason as R;
    let deadlines = [
        R::ConnectTimeout,
        R::AttemptTimeout,
        R::RequestTimeout,
        R::HeaderTimeout,
        R::IdleTimeout,
        R::ConfigTimeout,
    ];
    deadlines.contains(&reason)
}

/// The `grpc-status` of a section of fields; a value that is no number counts as UNKNOWN.
fn grpc_status(fields: &HeaderMap) -> Option<u8> {
    let value = fields.get("grpc-status")?;
    Some(value.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(2))
}
