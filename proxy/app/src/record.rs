//! The ledger: one record for each request and each connection, from the first room to its end.
//!
//! A spine opens a record when a head has been read, the rooms write down what they learn, and the relay
//! closes it when the answer's last byte has left. Closing counts it on its
//! edge, writes its line to the access log and hands its spans to the exporter.
//!
//! Invariant: closed exactly once, by value or by being dropped: with the reason "cancelled", or "draining"
//! where the sidecar itself gives up what is under way.
//! Invariant: a record that is not traced allocates nothing in the steady state, because entries are used
//! again once the ring of recent decisions lets them go; it reads no clock but when it is dropped or its body ends; it formats nothing but its log line.

pub mod clock;
pub mod connection;
pub mod entry;
pub mod id;
pub mod request;
pub mod ring;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, Method, Uri, Version};
use weft_proxy_core::{Moment, Reason};

use crate::access_log::{AccessLog, Sheet};
use crate::metrics::Metrics;
use crate::metrics::edge::{Direction, Edge, EdgeLabels, Outcome, Protocol};
use crate::metrics::exemplars::Seen;
use crate::metrics::plain::Dropped;
use crate::observe::Taps;
use crate::trace::context::TraceContext;
use crate::trace::span::{Finished, Spans};
use crate::trace::{From, Sampler, Sampling};
use clock::Clock;
use entry::Entry;
use id::Ids;
pub use request::Record;
use ring::Decisions;

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
    /// Who looks at what closes.
    pub taps: Arc<Taps>,
    /// Recent decisions.
    pub decisions: Decisions,
    /// Every answer to an application or to a client without sidecar says what its request was called.
    pub signs_all: Arc<AtomicBool>,
    /// Requests and connections are counted on their edges.
    pub counts_traffic: bool,
}

impl Telemetry {
    /// Whether every answer says what its request was called, from now on.
    pub fn tell_callers(&self, tell: bool) {
        self.signs_all.store(tell, Ordering::Relaxed);
    }
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
    ids: Ids,
    ring: ring::Shared,
    /// The thread ends: what is dropped from now on is cut by this sidecar, not given up by its caller.
    cutting: AtomicBool,
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
            ids: Ids::new(),
            ring: telemetry.decisions.ring(),
            cutting: AtomicBool::new(false),
            unknown: [unknown(Direction::Inbound), unknown(Direction::Outbound)],
        }))
    }

    /// The process's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.telemetry.clock
    }

    /// Whether every answer says what its request was called.
    #[must_use]
    pub fn signs_all(&self) -> bool {
        self.0.telemetry.signs_all.load(Ordering::Relaxed)
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

    /// Opens the record of a request from the application, or from a client outside the mesh.
    #[must_use]
    pub fn open(
        &self,
        direction: Direction,
        head: Head<'_>,
        client: Option<SocketAddr>,
        now: Moment,
    ) -> Record {
        self.open_toward(0, direction, head, client, now)
    }

    /// [`open`](Self::open), of a request to a service that a number stands for.
    #[must_use]
    pub fn open_toward(
        &self,
        called: u64,
        direction: Direction,
        head: Head<'_>,
        client: Option<SocketAddr>,
        now: Moment,
    ) -> Record {
        let from = if direction == Direction::Outbound { From::Application } else { From::Outside };
        let trace = self.0.sampler.decide(head.headers, from, called, now);
        self.begin(direction, head, client, trace, now)
    }

    /// Opens the record of an inbound request that another sidecar sent: if that one exports traces, it has
    /// decided whether the request is kept.
    #[must_use]
    pub fn open_within_mesh(
        &self,
        called: u64,
        head: Head<'_>,
        client: Option<SocketAddr>,
        now: Moment,
    ) -> Record {
        let trace = self.0.sampler.decide(head.headers, From::Sidecar, called, now);
        self.begin(Direction::Inbound, head, client, trace, now)
    }

    fn begin(
        &self,
        direction: Direction,
        head: Head<'_>,
        client: Option<SocketAddr>,
        trace: Option<TraceContext>,
        now: Moment,
    ) -> Record {
        let mut entry = blank();
        entry.id.begin(head.headers, self.0.ids.next());
        entry.connection = false;
        entry.direction = direction;
        entry.protocol = head.protocol;
        entry.version = Some(head.version);
        entry.method = Some(head.method.clone());
        entry.client = client;
        entry.started = now;
        entry.trace = trace;
        let tapped = self.0.telemetry.taps.any();
        if tapped {
            self.0.telemetry.taps.note(head.headers, &mut entry.tapped);
        }
        let sampling = self.0.sampler.sampling();
        if direction == Direction::Inbound {
            entry.in_flight = sampling.flight().enter(entry.trace.as_ref());
        }
        if entry.trace.is_some() {
            self.0.sampler.attributes(head.headers, &mut entry.attributes);
        }
        // An error may be kept when it closes, and is worth little without its path.
        if tapped || sampling.is_on() || self.0.sheet.is_open() {
            let host = || head.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
            let authority = head.uri.authority().map(http::uri::Authority::as_str).or_else(host);
            entry.path.push_str(start(head.uri.path()));
            entry.authority.push_str(start(authority.unwrap_or_default()));
            self.0.sheet.keep(&mut entry, head.uri, head.headers);
        }
        Record::on(entry, &self.0)
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
        Record::on(entry, &self.0).close(Ending::Failed(reason), now);
    }

    /// The thread ends, and with it what is still under way: it was the sidecar that gave it up.
    pub fn cut(&self) {
        self.0.cutting.store(true, Ordering::Relaxed);
    }

    /// Takes the wall time anew and forgets old decisions; called about once a minute.
    pub fn sweep(&self) {
        self.clock().set();
        ring::lock(&self.0.ring).forget(self.clock().now());
    }
}

impl Desk {
    /// Why a record was dropped before it was closed.
    fn given_up(&self) -> Reason {
        if self.cutting.load(Ordering::Relaxed) { Reason::Draining } else { Reason::Cancelled }
    }

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

    fn close_request(&self, mut entry: Box<Entry>, now: Moment) {
        if std::mem::take(&mut entry.in_flight) {
            self.sampler.sampling().flight().leave();
        }
        if entry.probe.is_some() {
            return self.tell(entry, now);
        }
        self.keep_error(&mut entry, now);
        if self.telemetry.counts_traffic {
            self.count(&entry, now);
        }
        self.tell(entry, now);
    }

    fn count(&self, entry: &Entry, now: Moment) {
        let status = entry.status.map_or(0, |status| status.as_u16());
        let edge = entry.edge.as_ref().unwrap_or_else(|| self.unknown(entry.direction, entry.protocol));
        let outcome = Outcome::new(status, entry.grpc, entry.reason);
        let took = now.since(entry.started);
        edge.request(outcome, took, entry.up, entry.down);
        if let Some(first) = entry.first_byte {
            edge.first_byte(first.since(entry.started));
        }
        if let Some(trace) = &entry.trace {
            edge.traced(Seen { trace: trace.trace.0, took, ended: self.telemetry.clock.unix_nanos(now) });
        }
    }

    /// What ended in an error may be kept although its trace is not.
    fn keep_error(&self, entry: &mut Entry, now: Moment) {
        let open = entry.trace.is_none() && entry.probe.is_none() && self.sampler.sampling().is_on();
        if open && entry.went_wrong() && entry.reason != Some(Reason::Cancelled) {
            entry.trace = self.sampler.decide_late(now);
        }
    }

    /// The part of closing that requests and connections share: reason, log, spans, reuse.
    fn tell(&self, mut entry: Box<Entry>, now: Moment) {
        if let Some(probe) = entry.probe {
            self.telemetry.metrics.plain().probes(probe).up();
        }
        if let Some(reason) = entry.reason {
            self.telemetry.metrics.refused(entry.direction, reason);
        }
        self.sheet.write(&entry, now, &self.telemetry.clock);
        if self.telemetry.taps.any() {
            self.telemetry.taps.offer(&entry, now, &self.telemetry.clock);
        }
        // Only taps may see them.
        entry.tapped.clear();
        if entry.trace.is_none() {
            return self.remember(entry, now);
        }
        self.remember(entry.clone(), now);
        if let Err(entry) = self.telemetry.spans.hand_over(Finished { entry, ended: now }) {
            let lost = 1 + entry.tries.len() as u64;
            self.telemetry.metrics.plain().dropped(Dropped::SpanQueue).add(lost);
            spare(entry);
        }
    }

    /// Keeps the decision for whoever asks for it; what it displaces is used again.
    fn remember(&self, entry: Box<Entry>, now: Moment) {
        if entry.probe.is_some() {
            return spare(entry);
        }
        if let Some(displaced) = ring::lock(&self.ring).push(entry, now) {
            spare(displaced);
        }
    }
}

thread_local! {
    /// Entries of this thread's closed records, to be used again.
    #[expect(clippy::vec_box, reason = "entries travel as boxes; here they wait to do so again")]
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

#[cfg(test)]
mod tests;
