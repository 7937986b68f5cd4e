//! What is told about a request that is kept: its closed record, as it is, on a bounded queue.
//!
//! The data thread hands the record over when it closes; the chores thread turns it into spans.
//!
//! Invariant: handing over never waits; what does not fit is dropped and counted.

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;
use tokio::sync::mpsc;
use weft_proxy_core::{Moment, Reason};

use super::context::SpanId;
use crate::metrics::edge::Edge;
use crate::record::entry::Entry;

/// One attempt of a request that is kept.
#[derive(Clone, Debug)]
pub struct AttemptSpan {
    /// Its span.
    pub span: SpanId,
    /// When it was sent on its way.
    pub started: Moment,
    /// When it was given up, or its answer ended; `None` while under way.
    pub ended: Option<Moment>,
    /// Where to.
    pub endpoint: Option<SocketAddr>,
    /// On which edge.
    pub edge: Option<Arc<Edge>>,
    /// What was answered.
    pub status: Option<StatusCode>,
    /// Why it failed.
    pub reason: Option<Reason>,
}

/// Something that happened to a request that is kept.
#[derive(Clone, Copy, Debug)]
pub struct EventSpan {
    /// When.
    pub at: Moment,
    /// What, e.g. "retry".
    pub name: &'static str,
}

/// A request or connection that is kept, and has ended.
#[derive(Debug)]
pub struct Finished {
    /// Everything known about it.
    pub entry: Box<Entry>,
    /// When it ended.
    pub ended: Moment,
}

/// Where a data thread hands over what is kept.
#[derive(Clone, Debug)]
pub struct Spans(mpsc::Sender<Finished>);

impl Spans {
    /// A queue, and its end for the exporter.
    #[must_use]
    pub fn queue() -> (Self, mpsc::Receiver<Finished>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    /// Hands one over; gives it back when the queue is full or nobody exports.
    ///
    /// # Errors
    /// The record itself, so that the caller can count it and use it again.
    pub fn hand_over(&self, finished: Finished) -> Result<(), Box<Entry>> {
        self.0.try_send(finished).map_err(|refused| refused.into_inner().entry)
    }
}

/// Kept requests that wait for the exporter. Source: OpenTelemetry's `OTEL_BSP_MAX_QUEUE_SIZE`.
const QUEUE: usize = 2_048;
