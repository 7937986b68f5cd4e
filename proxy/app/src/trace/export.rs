//! Carries what is kept to a collector, over OTLP and gRPC.
//!
//! One task on the chores thread: gathers, converts, sends, and gives up what the collector does not take.
//!
//! Invariant: requests never feel the collector: they hand over to a bounded queue and go on.
//! Invariant: what was handed over is exported or counted as dropped, also at the end.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{RetryPolicy, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::convert::convert;
use super::span::Finished;
use crate::metrics::Metrics;
use crate::metrics::plain::Dropped;
use crate::record::clock::Clock;

/// Who exports: what a collector shows as the service.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Origin {
    /// Owning workload; empty until the control plane told it, then the pod's name without its hashes serves.
    pub workload: String,
    /// Namespace.
    pub namespace: String,
    /// Pod.
    pub pod: String,
    /// Node, where known.
    pub node: String,
    /// Zone, where known.
    pub zone: String,
}

impl Origin {
    fn resource(&self) -> Resource {
        let name = if self.workload.is_empty() { owner(&self.pod) } else { &self.workload };
        let attributes = [
            ("service.namespace", self.namespace.as_str()),
            ("service.instance.id", self.pod.as_str()),
            ("k8s.namespace.name", self.namespace.as_str()),
            ("k8s.pod.name", self.pod.as_str()),
            ("k8s.node.name", self.node.as_str()),
            ("cloud.availability_zone", self.zone.as_str()),
            ("weft.version", env!("CARGO_PKG_VERSION")),
        ];
        let known = attributes.into_iter().filter(|(_, value)| !value.is_empty());
        Resource::builder_empty()
            .with_service_name(if name.is_empty() { UNNAMED } else { name }.to_owned())
            .with_attributes(known.map(|(key, value)| KeyValue::new(key, value.to_owned())))
            .build()
    }
}

/// A pod's name without the parts that its controller made up.
///
/// Source: Kubernetes names pods `<deployment>-<8 to 10 of its safe characters>-<5 of them>`, those of a
/// DaemonSet or Job `<owner>-<5>`, those of a StatefulSet `<owner>-<number>`; the safe characters have no
/// vowels, so that a name's own last word is hardly taken for one.
#[must_use]
pub fn owner(pod: &str) -> &str {
    let made_up = |part: &str, lengths: std::ops::RangeInclusive<usize>| {
        lengths.contains(&part.len()) && part.bytes().all(|byte| SAFE.contains(&byte))
    };
    let Some((rest, last)) = pod.rsplit_once('-') else { return pod };
    if !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) && last.len() < 5 {
        return rest;
    }
    if !made_up(last, 5..=5) {
        return pod;
    }
    match rest.rsplit_once('-') {
        Some((deployment, hash)) if made_up(hash, 8..=10) => deployment,
        _ => rest,
    }
}

/// Source: Kubernetes, `k8s.io/apimachinery/pkg/util/rand`.
const SAFE: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Source: semantic conventions: what a service without a name is called.
const UNNAMED: &str = "unknown_service:weft-proxy";

/// What the exporter works with.
#[derive(Debug)]
pub struct Export {
    /// The collector, e.g. `http://jaeger:4317`.
    pub endpoint: String,
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
/// # Errors
/// The endpoint is not one that can be dialled.
///
/// # Cancel safety
/// Dropped, it loses what it gathered, uncounted; stop it with its token instead.
pub async fn run(export: Export, mut queue: mpsc::Receiver<Finished>) -> Result<(), BadEndpoint> {
    let mut exporter = dial(&export.endpoint)?;
    let (mut gathered, mut spans) = (Vec::new(), Vec::new());
    let mut shown = None;
    let mut backoff = Duration::ZERO;
    loop {
        let going_on = gather(&mut queue, &mut gathered, &export.stop).await;
        for finished in gathered.drain(..) {
            convert(&finished, &export.clock, &mut spans);
        }
        let origin = export.origin.load_full();
        if shown.as_ref() != Some(&origin) {
            exporter.set_resource(&origin.resource());
            shown = Some(origin);
        }
        if !spans.is_empty() {
            let taken = send(&exporter, &mut spans, &export.metrics).await;
            backoff = if taken { Duration::ZERO } else { (backoff * 2).clamp(FIRST_BACKOFF, LAST_BACKOFF) };
        }
        if !going_on {
            return Ok(());
        }
        if !backoff.is_zero() {
            // Meanwhile the queue fills, and what does not fit is counted there.
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                () = export.stop.cancelled() => {}
            }
        }
    }
}

/// The endpoint of the collector is not one that can be dialled.
#[derive(Debug, thiserror::Error)]
#[error("the OTLP endpoint {endpoint:?} cannot be used: {why}; give a URL such as http://jaeger:4317")]
pub struct BadEndpoint {
    endpoint: String,
    why: String,
}

fn dial(endpoint: &str) -> Result<SpanExporter, BadEndpoint> {
    let bad = |why: String| BadEndpoint { endpoint: endpoint.to_owned(), why };
    let uri: http::Uri = endpoint.parse().map_err(|error: http::uri::InvalidUri| bad(error.to_string()))?;
    if uri.scheme_str() != Some("http") || uri.host().is_none() {
        return Err(bad("only http:// is supported".to_owned()));
    }
    SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(DEADLINE)
        .with_retry_policy(RetryPolicy::disabled())
        .build()
        .map_err(|error| bad(error.to_string()))
}

/// Gathers until there are enough, or enough time has passed since the first; false at the end.
async fn gather(
    queue: &mut mpsc::Receiver<Finished>,
    gathered: &mut Vec<Finished>,
    stop: &CancellationToken,
) -> bool {
    tokio::select! {
        biased;
        () = stop.cancelled() => {
            queue.close();
            while queue.recv_many(gathered, BATCH).await > 0 {}
            return false;
        }
        taken = queue.recv_many(gathered, BATCH) => if taken == 0 { return false },
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
        () = stop.cancelled() => {}
    }
    true
}

/// Sends everything in batches; what is not taken is counted and gone.
async fn send(exporter: &SpanExporter, spans: &mut Vec<SpanData>, metrics: &Metrics) -> bool {
    let mut taken = true;
    while !spans.is_empty() {
        let rest = spans.split_off(spans.len().min(BATCH));
        let batch = std::mem::replace(spans, rest);
        let count = batch.len() as u64;
        match tokio::time::timeout(DEADLINE, exporter.export(batch)).await {
            Ok(Ok(())) => metrics.plain().spans_exported.add(count),
            failed => {
                taken = false;
                metrics.plain().dropped(Dropped::SpanExport).add(count);
                let why = failed.map_or_else(
                    |_| "deadline".to_owned(),
                    |r| r.err().map_or(String::new(), |e| e.to_string()),
                );
                tracing::debug!(why, count, "the trace collector took no spans");
                // A dead collector costs one deadline, not one for each batch.
                let lost = spans.len() as u64;
                metrics.plain().dropped(Dropped::SpanExport).add(lost);
                spans.clear();
            }
        }
    }
    taken
}

/// Source: OpenTelemetry's `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`.
const BATCH: usize = 512;
/// Source: a person waits for the trace; OpenTelemetry's default is five seconds.
const GATHER: Duration = Duration::from_secs(1);
/// Source: half of OpenTelemetry's default, because the queue holds only seconds of traces.
const DEADLINE: Duration = Duration::from_secs(5);
/// Source: gRPC's connection backoff starts at one second.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// Source: a collector that comes back is found within half a minute.
const LAST_BACKOFF: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
