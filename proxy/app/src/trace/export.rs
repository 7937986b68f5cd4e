//! Carries what is kept to the collector that the configuration names.
//!
//! One task on the chores thread: gathers, converts, sends, and gives up what the collector does not take. It
//! takes another collector while it runs: what was gathered goes to the new one.
//!
//! Invariant: requests never feel the collector: they hand over to a bounded queue and go on.
//! Invariant: what was handed over is exported or counted as dropped, also at the end.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use opentelemetry_sdk::trace::SpanData;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use weft_proxy_core::spec::TraceExport;

use super::collector::Collector;
use super::convert::convert;
use super::origin::Origin;
use super::span::Finished;
use crate::metrics::Metrics;
use crate::metrics::plain::Dropped;
use crate::record::clock::Clock;

/// What the exporter works with.
#[derive(Debug)]
pub struct Export {
    /// The collector; may change while it runs. `None`: there is none.
    pub collector: watch::Receiver<Option<Arc<TraceExport>>>,
    /// Who exports; may change while it runs.
    pub origin: Arc<ArcSwap<Origin>>,
    /// Where drops are counted.
    pub metrics: Arc<Metrics>,
    /// The process's clock.
    pub clock: Clock,
    /// Ends the task, after what is left was sent.
    pub stop: CancellationToken,
}

/// Exports until stopped.
///
/// # Cancel safety
/// Dropped, it loses what it gathered, uncounted; stop it with its token instead.
pub async fn run(mut export: Export, mut queue: mpsc::Receiver<Finished>) {
    let (mut gathered, mut spans) = (Vec::new(), Vec::new());
    let mut line = Line::default();
    line.dial(&mut export);
    loop {
        let next = gather(&mut queue, &mut gathered, &mut export).await;
        if next == Next::Changed || export.collector.has_changed().unwrap_or(false) {
            line.dial(&mut export);
        }
        for finished in gathered.drain(..) {
            convert(&finished, &export.clock, &mut spans);
        }
        line.introduce(&export);
        if !spans.is_empty() {
            line.send(&mut spans, &export.metrics).await;
        }
        if next == Next::End {
            return;
        }
        if !line.backoff.is_zero() {
            // Meanwhile the queue fills, and what does not fit is counted there.
            let another = tokio::select! {
                () = tokio::time::sleep(line.backoff) => false,
                () = export.stop.cancelled() => false,
                () = changed(&mut export.collector) => true,
            };
            if another {
                line.dial(&mut export);
            }
        }
    }
}

/// The way to the collector in force.
#[derive(Debug, Default)]
struct Line {
    collector: Option<Collector>,
    /// Whom the collector knows as the teller.
    known: Option<Arc<Origin>>,
    backoff: Duration,
}

impl Line {
    /// Takes the collector in force in place of the one before.
    fn dial(&mut self, export: &mut Export) {
        let wanted = export.collector.borrow_and_update().clone();
        *self = Self::default();
        let Some(wanted) = wanted else { return };
        match Collector::new(&wanted, &export.metrics) {
            Ok(collector) => {
                tracing::info!(endpoint = &*wanted.endpoint, protocol = ?wanted.protocol, "traces are exported");
                self.collector = Some(collector);
            }
            Err(error) => tracing::error!(%error, "traces are not exported"),
        }
    }

    fn introduce(&mut self, export: &Export) {
        let origin = export.origin.load_full();
        if let Some(collector) = &mut self.collector
            && self.known.as_ref() != Some(&origin)
        {
            collector.told_by(&origin);
            self.known = Some(origin);
        }
    }

    /// Sends everything in batches; what is not taken is counted and gone.
    async fn send(&mut self, spans: &mut Vec<SpanData>, metrics: &Metrics) {
        let plain = metrics.plain();
        let lost = plain.dropped(Dropped::SpanExport);
        let Some(collector) = &mut self.collector else {
            lost.add(spans.len() as u64);
            return spans.clear();
        };
        while !spans.is_empty() {
            let rest = spans.split_off(spans.len().min(BATCH));
            let batch = std::mem::replace(spans, rest);
            let count = batch.len() as u64;
            match collector.export(batch).await {
                Ok(refused) => {
                    let refused = refused.min(count);
                    plain.spans_exported.add(count - refused);
                    lost.add(refused);
                    if !std::mem::take(&mut self.backoff).is_zero() {
                        tracing::info!("the trace collector takes spans again");
                    }
                }
                Err(why) => {
                    if self.backoff.is_zero() {
                        tracing::warn!(
                            why,
                            "the trace collector takes no spans; they are dropped until it does"
                        );
                    }
                    // A dead collector costs one deadline, not one for each batch.
                    lost.add(count + spans.len() as u64);
                    spans.clear();
                    self.backoff = (self.backoff * 2).clamp(FIRST_BACKOFF, LAST_BACKOFF);
                }
            }
        }
    }
}

/// Why gathering ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// There are some to send.
    Send,
    /// There is another collector.
    Changed,
    /// It is the end.
    End,
}

/// Gathers until there are enough, or enough time has passed since the first.
async fn gather(
    queue: &mut mpsc::Receiver<Finished>,
    gathered: &mut Vec<Finished>,
    export: &mut Export,
) -> Next {
    tokio::select! {
        biased;
        () = export.stop.cancelled() => {
            queue.close();
            while queue.recv_many(gathered, BATCH).await > 0 {}
            return Next::End;
        }
        () = changed(&mut export.collector) => return Next::Changed,
        taken = queue.recv_many(gathered, BATCH) => if taken == 0 { return Next::End },
    }
    let full = async {
        while gathered.len() < BATCH {
            let room = BATCH - gathered.len();
            if queue.recv_many(gathered, room).await == 0 {
                break;
            }
        }
    };
    tokio::select! {
        () = full => {}
        () = tokio::time::sleep(GATHER) => {}
        () = export.stop.cancelled() => {}
    }
    Next::Send
}

/// Ready when there is another collector.
async fn changed(collector: &mut watch::Receiver<Option<Arc<TraceExport>>>) {
    if collector.changed().await.is_err() {
        // Nobody is left who could name another.
        std::future::pending::<()>().await;
    }
}

/// Source: OpenTelemetry's `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`.
const BATCH: usize = 512;
/// Source: a person waits for the trace; OpenTelemetry's default is five seconds.
const GATHER: Duration = Duration::from_secs(1);
/// Source: gRPC's connection backoff starts at one second.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// Source: a collector that comes back is found within half a minute.
const LAST_BACKOFF: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
