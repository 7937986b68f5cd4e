//! The ledger: one record for each request and each connection, from the first room to its end.
//!
//! A spine opens a record when a head has been read, the rooms write down what they learn, and the relay
//! closes it when the answer's last byte has left (or [`body::Recorded`] does). Closing counts it on its edge, writes
//! its line to the access log and hands its spans to the exporter.
//!
//! Invariant: closed exactly once, by value or, with the reason "cancelled", by being dropped.
//! Invariant: a record allocates nothing in the steady state: entries are used again; it reads no clock but when
//! it is dropped; it formats nothing.

pub mod body;
pub mod clock;
pub mod connection;
pub mod entry;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, Method, StatusCode, Uri, Version};
use weft_proxy_core::{Moment, Name, Reason};

use crate::access_log::{AccessLog, Sheet};
use crate::metrics::Metrics;
use crate::metrics::edge::{Direction, Edge, EdgeLabels, Outcome, Protocol};
use crate::metrics::plain::Dropped;
use crate::trace::context::TraceContext;
use crate::trace::span::{AttemptSpan, EventSpan, Finished, Spans};
use crate::trace::{Sampler, Sampling};
use clock::Clock;
use entry::Entry;

/// What all workers' records share.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// The process's clock.
    pub clock: Clock,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The access log.
    pub log: AccessLog,
    /// The queue to the exporter.
    pub spans: Spans,
    /// How many requests without a caller's decision are kept.
    pub sampling: Arc<Sampling>,
}

/// Where one worker opens its records; cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Desk>);

#[derive(Debug)]
struct Desk {
    worker: u16,
    telemetry: Telemetry,
    sheet: Sheet,
    sampler: Sampler,
    /// Edges of what ended before its edge was known: inbound and outbound, HTTP and gRPC and TLS and TCP.
    unknown: [[Arc<Edge>; 4]; 2],
}

/// What is known of a request when its head has been read.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// What is spoken: HTTP, or gRPC by its content type.
    pub protocol: Protocol,
    /// Method.
    pub method: &'a Method,
    /// Target.
    pub uri: &'a Uri,
    /// Version.
    pub version: Version,
    /// Fields, for the trace context and the Host.
    pub headers: &'a HeaderMap,
}

/// How a request or connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As it should, the last byte delivered. A reply of the sidecar's own ends so too; its reason was
    /// given with [`Record::reason`].
    Complete,
    /// Otherwise.
    Failed(Reason),
}

impl Ledger {
    /// The ledger of one worker.
    #[must_use]
    pub fn new(telemetry: &Telemetry, worker: u16) -> Self {
        let unknown = |direction| {
            [Protocol::Http, Protocol::Grpc, Protocol::Tls, Protocol::Tcp]
                .map(|protocol| telemetry.metrics.edge(worker, &EdgeLabels::unknown(direction, protocol)))
        };
        Self(Arc::new(Desk {
            worker,
            telemetry: telemetry.clone(),
            sheet: telemetry.log.sheet(Arc::clone(&telemetry.metrics)),
            sampler: Sampler::new(Arc::clone(&telemetry.sampling)),
            unknown: [unknown(Direction::Inbound), unknown(Direction::Outbound)],
        }))
    }

    /// The process's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.telemetry.clock
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.telemetry.metrics
    }

    /// This worker's counters of an edge. Looks texts up: to be kept ([`crate::metrics::edge::Kept`]).
    #[must_use]
    pub fn edge(&self, labels: &EdgeLabels) -> Arc<Edge> {
        self.0.telemetry.metrics.edge(self.0.worker, labels)
    }

    /// Opens the record of a request.
    #[must_use]
    pub fn open(
        &self,
        direction: Direction,
        head: Head<'_>,
        client: Option<SocketAddr>,
        now: Moment,
    ) -> Record {
        let mut entry = blank();
        entry.connection = false;
        entry.direction = direction;
        entry.protocol = head.protocol;
        entry.version = Some(head.version);
        entry.method = Some(head.method.clone());
        entry.client = client;
        entry.started = now;
        entry.trace = self.0.sampler.decide(head.headers, now);
        if entry.trace.is_some() || self.0.sheet.is_open() {
            let host = || head.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
            let authority = head.uri.authority().map(http::uri::Authority::as_str).or_else(host);
            entry.path.push_str(start(head.uri.path()));
            entry.authority.push_str(start(authority.unwrap_or_default()));
        }
        Record { entry: Some(entry), desk: Arc::clone(&self.0) }
    }

    /// Records a request whose head could not be read, and which is refused for `reason`.
    pub fn unreadable(
        &self,
        direction: Direction,
        client: Option<SocketAddr>,
        reason: Reason,
        started: Moment,
    ) {
        let mut entry = blank();
        entry.connection = false;
        entry.direction = direction;
        entry.protocol = Protocol::Http;
        entry.client = client;
        entry.started = started;
        entry.status = Some(reason.status());
        let now = self.clock().now();
        Record { entry: Some(entry), desk: Arc::clone(&self.0) }.close(Ending::Failed(reason), now);
    }

    /// Takes the wall time anew; called about once a minute.
    pub fn sweep(&self) {
        self.clock().set();
    }
}

/// The record of one request.
#[derive(Debug)]
pub struct Record {
    entry: Option<Box<Entry>>,
    desk: Arc<Desk>,
}

impl Record {
    /// The edge it counts on: known after routing (inbound) or once an endpoint is chosen (outbound).
    pub fn edge(&mut self, edge: &Arc<Edge>) {
        self.write(|entry| entry.edge = Some(Arc::clone(edge)));
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
        let desk = Arc::clone(&self.desk);
        let entry = self.entry.as_deref_mut()?;
        if entry.attempts > 0 {
            edge.retry();
        }
        entry.attempts = entry.attempts.saturating_add(1);
        entry.edge = Some(Arc::clone(edge));
        entry.endpoint = Some(endpoint);
        entry.sent = Some(now);
        let request = entry.trace?;
        let span = desk.sampler.span_id();
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

    /// The last attempt failed, or its answer was given up for a retry.
    pub fn attempt_over(&mut self, status: Option<StatusCode>, reason: Option<Reason>, now: Moment) {
        self.write(|entry| {
            if let Some(last) = entry.tries.last_mut() {
                (last.ended, last.status, last.reason) = (Some(now), status, reason);
            }
        });
    }

    /// Something happened that a trace should show: "retry", "ejection", "timeout", "fallback".
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

    /// Counts bytes of the body downstream.
    pub fn down(&mut self, bytes: u64) {
        self.write(|entry| {
            entry.down.fetch_add(bytes, Ordering::Relaxed);
        });
    }

    /// Counts the bytes of the body upstream, wherever that body goes.
    #[must_use]
    pub fn meter_up(&self) -> Meter {
        Meter(self.entry.as_ref().map_or_else(Arc::default, |entry| Arc::clone(&entry.up)))
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
            self.desk.close_request(entry, now);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.entry.is_some() {
            let now = self.desk.telemetry.clock.now();
            self.finish(Ending::Failed(Reason::Cancelled), now);
        }
    }
}

/// Counts bytes for a record that is elsewhere.
#[derive(Clone, Debug)]
pub struct Meter(Arc<AtomicU64>);

impl Meter {
    /// So many more.
    pub fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Desk {
    fn unknown(&self, direction: Direction, protocol: Protocol) -> &Arc<Edge> {
        let [inbound, outbound] = &self.unknown;
        let [http, grpc, tls, tcp] = match direction {
            Direction::Inbound => inbound,
            Direction::Outbound => outbound,
        };
        match protocol {
            Protocol::Http => http,
            Protocol::Grpc => grpc,
            Protocol::Tls => tls,
            Protocol::Tcp => tcp,
        }
    }

    fn close_request(&self, entry: Box<Entry>, now: Moment) {
        let status = entry.status.map_or(0, |status| status.as_u16());
        let edge = entry.edge.as_ref().unwrap_or_else(|| self.unknown(entry.direction, entry.protocol));
        let (up, down) = (entry.up.load(Ordering::Relaxed), entry.down.load(Ordering::Relaxed));
        let outcome = Outcome::new(status, entry.grpc, entry.reason);
        edge.request(outcome, now.since(entry.started), up, down);
        self.tell(entry, now);
    }

    /// The part of closing that requests and connections share: reason, log, spans, reuse.
    fn tell(&self, entry: Box<Entry>, now: Moment) {
        if let Some(reason) = entry.reason {
            self.telemetry.metrics.refused(entry.direction, reason);
        }
        self.sheet.write(&entry, now, &self.telemetry.clock);
        if entry.trace.is_none() {
            return spare(entry);
        }
        if let Err(entry) = self.telemetry.spans.hand_over(Finished { entry, ended: now }) {
            let lost = 1 + entry.tries.len() as u64;
            self.telemetry.metrics.plain().dropped(Dropped::SpanQueue).add(lost);
            spare(entry);
        }
    }
}

thread_local! {
    /// Entries of this thread's closed records, to be used again.
    static SPARE: RefCell<Vec<Box<Entry>>> = const { RefCell::new(Vec::new()) };
}

fn blank() -> Box<Entry> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(Entry::blank)
}

fn spare(mut entry: Box<Entry>) {
    entry.wipe();
    // While the thread ends there is nowhere to keep it.
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < SPARES {
            spare.push(entry);
        }
    });
}

/// Source: requests in flight on a busy worker; beyond that allocation is what it costs. About 40 KiB.
const SPARES: usize = 64;

/// The first part of a text, up to the length that logs and spans keep, cut between characters.
fn start(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT)).unwrap_or(text)
}

/// Bytes of a path or host that are kept. Source: enough for any real path; bounds lines and spans.
const TEXT: usize = 2_048;

/// The `grpc-status` of a section of fields; a value that is no number counts as UNKNOWN.
fn grpc_status(fields: &HeaderMap) -> Option<u8> {
    let value = fields.get("grpc-status")?;
    Some(value.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(2))
}

#[cfg(test)]
mod tests;
