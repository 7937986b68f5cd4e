//! Being looked at: the control plane asks on the stream that is open anyway, and the sidecar answers on the
//! same connection.
//!
//! ```text
//! subscribe hears a Summons ─▶ answer: Observe.Answer ─▶ reading: edges, now and lately
//! record closes ─▶ taps (filter, rate, bounded queue) ─▶   ├▶ decisions, as they happen
//! ring of recent decisions ────────────────────────────▶   └▶ what became of one request
//! ```
//!
//! Runs on the chores thread; data threads meet only [`Taps`].
//!
//! Invariant: nobody but the control plane is answered, and nothing listens for it.
//! Invariant: while nobody taps, a request costs one relaxed load at its start and one at its end.
//! Invariant: answers at once, taps, and what waits for each are bounded.

mod answer;
mod decision;
mod filter;
mod reading;
mod taps;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tonic::transport::Channel;
use weft_proto::names::Workload;

use crate::explain::Explainer;
use crate::record::Telemetry;
use reading::Lately;
pub use taps::Taps;

/// Answers at once. Source: Weft's own; the taps, and as many short questions.
const ANSWERS: usize = 8;
/// How often what was counted is remembered; "recently" is between one and two of these.
/// Source: Weft's own; a person who looks wants the present, and a p99 needs a few hundred requests.
const REMEMBER: Duration = Duration::from_secs(10);

/// What answers the control plane's questions.
#[derive(Clone, Debug)]
pub struct Observer {
    telemetry: Telemetry,
    /// The pod that this sidecar stands beside.
    workload: Workload,
    /// What walks requests that nobody sent.
    explainer: Explainer,
    lately: Arc<Lately>,
    places: Arc<Semaphore>,
}

impl Observer {
    /// One that knows what `telemetry` knows of `workload`.
    #[must_use]
    pub fn new(telemetry: Telemetry, workload: Workload, explainer: Explainer) -> Self {
        let (lately, places) = (Arc::default(), Arc::new(Semaphore::new(ANSWERS)));
        Self { telemetry, workload, explainer, lately, places }
    }

    /// Remembers now and then what was counted, for as long as the future lives.
    ///
    /// # Cancel safety
    /// Dropping it ends that; what was remembered stays.
    pub async fn remember(self) {
        let mut timer = tokio::time::interval(REMEMBER);
        loop {
            timer.tick().await;
            self.lately.remember(&self.telemetry.metrics, self.telemetry.clock.now());
        }
    }

    /// Answers one question in the background, on the connection on which the summons came.
    pub(crate) fn summoned(&self, channel: Channel, ticket: String) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            // The control plane says that nobody came; a sidecar that opened a stream to say so would have
            // no limit.
            return tracing::warn!("more questions at once than are answered; one is left unanswered");
        };
        let observer = self.clone();
        tokio::spawn(async move {
            let _place = place;
            if let Err(problem) = answer::answer(&observer, channel, ticket).await {
                tracing::info!(problem, "a question of the control plane was not answered to its end");
            }
        });
    }
}
