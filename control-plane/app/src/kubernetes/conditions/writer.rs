//! Writes what became of objects to their status: on the replica that leads, and only what differs.
//!
//! ```text
//! reports (from every compile) ─┐
//! sidecars (here, other replicas) ─┤→ queue → read → conditions → write over what was read
//! survey (all objects, on election) ─┘
//! ```
//!
//! A survey at the beginning compares what every object has with what it must have, page by page, so a
//! new leader writes nothing where all is right, and finds what was missed while nobody led.
//!
//! Invariant: nothing is written by a replica that does not lead, or over a version that it has not read.
//! Invariant: an object that is gone is no error; one that cannot be written holds up no other.

mod api;
mod look;
mod peers;
mod queue;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, Error};
use serde_json::Value;
use tokio::time::Instant;
use weft_control_plane_core::model::{Kind, ObjectKey};

use self::api::Kinds;
use self::look::{Look, Looked, wanted};
use self::peers::Peers;
use self::queue::Queue;
use super::reach::{Reach, Summaries, Summary};
use super::reports::Seen;
use crate::kubernetes::counts::{Counts, Outcome};
use crate::kubernetes::events::Events;
use crate::kubernetes::lease::{Leading, chance};
use crate::kubernetes::replicas::Others;
use crate::publish::Reader;
use crate::status::Status;
use crate::take::Reports;

/// Writes under way at once. Source: Weft's own; an API server answers one in milliseconds.
const AT_ONCE: usize = 8;
/// Time between the starts of two looks. Source: Weft's own; 50 a second is what kube-controller-manager
/// may do in all, 20 by default for one client.
const PACE: Duration = Duration::from_millis(20);
/// Time between two looks at the sidecars. Source: Weft's own; a person reads a status seconds later.
const SIDECARS: Duration = Duration::from_secs(5);
/// Shortest time between two writes of one object that only change counts. Source: Weft's own; pods that
/// come and go must not write every policy each time.
const COUNTS_PAUSE: Duration = Duration::from_secs(30);
/// Time between two surveys. Source: controller-runtime looks at everything again after ten hours; ours
/// also puts right what others overwrote.
const SURVEY: Duration = Duration::from_secs(1_800);
/// Pause after a survey that failed. Source: as for the Lease.
const PAUSE: Duration = Duration::from_secs(2);

/// What the writer works with.
pub struct WriterSettings {
    /// Namespace of the control plane.
    pub namespace: String,
    /// Name of this replica's pod.
    pub pod: String,
    /// Port at which replicas tell what their sidecars make of the configuration.
    pub admin_port: u16,
}

/// The writer of one replica.
pub struct Writer {
    client: Client,
    settings: WriterSettings,
    leading: Leading,
    reports: Reports,
    status: Arc<Status>,
    reader: Reader,
    events: Events,
    counts: Counts,
}

type Looks = FuturesUnordered<BoxFuture<'static, Looked>>;

/// One term of leadership.
struct Term<'a> {
    writer: &'a Writer,
    seen: Seen,
    kinds: Kinds,
    queue: Queue,
    looks: Looks,
    /// What all replicas tell of their sidecars.
    summaries: Arc<Summaries>,
    /// What each own object was last to show, and since when.
    shown: BTreeMap<ObjectKey, (Reach, Duration)>,
    origin: Instant,
    next_start: Duration,
}

impl Writer {
    /// A writer that has not begun.
    pub fn new(
        client: Client,
        settings: WriterSettings,
        leading: Leading,
        told: (Reports, Arc<Status>, Reader),
        seen: (Events, Counts),
    ) -> Self {
        let ((reports, status, reader), (events, counts)) = (told, seen);
        Self { client, settings, leading, reports, status, reader, events, counts }
    }

    /// Writes whenever this replica leads, for as long as the process lives.
    ///
    /// # Cancel safety
    /// Dropping it stops that; what is not written the next leader writes.
    pub async fn run(self) {
        let mut leading = self.leading.clone();
        while leading.wait_for(|leads| *leads).await.is_ok() {
            tokio::select! {
                lost = leading.wait_for(|leads| !*leads) => if lost.is_err() { return },
                () = self.lead() => {}
            }
            self.counts.status_waiting.set(0);
        }
    }

    async fn lead(&self) {
        // Reports are told before what they are about is published.
        if self.reader.clone().wait_for(Option::is_some).await.is_err() {
            return std::future::pending().await;
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.settings.namespace);
        let others = Others::new(pods, self.settings.pod.clone());
        let mut peers = Peers::new(others, self.settings.admin_port);
        loop {
            match Box::pin(self.term(&mut peers)).await {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(%error, "the objects' status cannot be looked at");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// From one survey to the next.
    async fn term(&self, peers: &mut Peers) -> Result<(), Error> {
        let mut term = Term {
            writer: self,
            seen: Seen::new(self.reports.clone()),
            kinds: Kinds::discover(self.client.clone()).await?,
            queue: Queue::default(),
            looks: Looks::default(),
            summaries: self.summaries(peers.ask().await),
            shown: BTreeMap::new(),
            origin: Instant::now(),
            next_start: Duration::ZERO,
        };
        term.survey().await?;
        let end = Instant::now() + SURVEY;
        let mut sidecars = tokio::time::interval_at(Instant::now() + SIDECARS, SIDECARS);
        sidecars.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            term.start_looks();
            self.counts.status_waiting.set(i64::try_from(term.queue.len()).unwrap_or(i64::MAX));
            let wake = term.wake_at();
            tokio::select! {
                true = term.seen.changed() => term.take_changes().await?,
                Some(looked) = term.looks.next() => term.done(looked),
                _ = sidecars.tick() => {
                    term.summaries = self.summaries(peers.ask().await);
                    term.compare_reach();
                }
                () = sleep_until(wake) => {}
                () = tokio::time::sleep_until(end) => return Ok(()),
            }
        }
    }

    /// Our own sidecars and the others'.
    fn summaries(&self, mut others: Vec<Summary>) -> Arc<Summaries> {
        if let Some(published) = self.reader.borrow().clone() {
            others.push(self.status.summary(&published, std::time::Instant::now()));
        }
        Arc::new(Summaries { root: self.settings.namespace.clone(), all: others })
    }
}

impl Term<'_> {
    /// Looks at all objects, and queues those that are not as they must be.
    async fn survey(&mut self) -> Result<(), Error> {
        // What changes from here on is looked at after the survey.
        self.seen.look();
        let (mut objects, mut wrong) = (0_usize, Vec::new());
        for kind in self.kinds.all() {
            let (seen, summaries) = (&self.seen, &self.summaries);
            let each = |key: ObjectKey, object: &Value| {
                objects += 1;
                if wanted(&key, object, seen.of(&key), summaries).is_some() {
                    wrong.push(key);
                }
            };
            self.kinds.each(kind, each).await?;
        }
        tracing::info!(objects, wrong = wrong.len(), "the status of all objects was looked at");
        let now = self.origin.elapsed();
        wrong.into_iter().for_each(|key| self.queue.push(key, now));
        for key in self.seen.keys() {
            self.shown.insert(key.clone(), (self.summaries.reach(key), now));
        }
        Ok(())
    }

    async fn take_changes(&mut self) -> Result<(), Error> {
        let changed = self.seen.look();
        // A kind may have come to the API server only now.
        let served: Vec<Kind> = self.kinds.all().collect();
        if changed.iter().any(|key| !served.contains(&key.kind)) {
            self.kinds = Kinds::discover(self.writer.client.clone()).await?;
        }
        let now = self.origin.elapsed();
        for key in changed {
            if self.seen.of(&key).is_some() {
                self.shown.insert(key.clone(), (self.summaries.reach(&key), now));
            } else {
                self.shown.remove(&key);
            }
            self.queue.push(key, now);
        }
        Ok(())
    }

    /// Queues what sidecars see otherwise than its status shows: refusals at once, counts later.
    fn compare_reach(&mut self) {
        let now = self.origin.elapsed();
        for key in self.seen.keys() {
            let reach = self.summaries.reach(key);
            let (before, since) = self.shown.entry(key.clone()).or_default();
            let refusals = (before.refuse, &before.refusing) != (reach.refuse, &reach.refusing);
            let counts = shows_counts(key.kind) && *before != reach;
            if refusals || (counts && now >= since.saturating_add(COUNTS_PAUSE)) {
                (*before, *since) = (reach, now);
                self.queue.push(key.clone(), now);
            }
        }
    }

    fn start_looks(&mut self) {
        let now = self.origin.elapsed();
        while self.looks.len() < AT_ONCE
            && now >= self.next_start
            && let Some(key) = self.queue.pop(now)
        {
            self.next_start = now.max(self.next_start).saturating_add(PACE);
            let report = self.seen.of(&key).cloned();
            let look = Look {
                kinds: self.kinds.clone(),
                summaries: Arc::clone(&self.summaries),
                report,
                events: self.writer.events.clone(),
            };
            self.looks.push(Box::pin(look.run(key)));
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let due = self.queue.wake_at().filter(|_| self.looks.len() < AT_ONCE)?;
        Some(self.origin + due.max(self.next_start))
    }

    fn done(&mut self, looked: Looked) {
        Counts::wrote(&self.writer.counts.status, looked.outcome);
        let failed = matches!(looked.outcome, Outcome::Conflict | Outcome::Failed);
        self.queue.done(looked.key, failed, self.origin.elapsed(), chance());
    }
}

/// Whether a kind's status shows how many sidecars run it.
fn shows_counts(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::AuthorizationPolicy
            | Kind::TrafficPolicy
            | Kind::TlsPolicy
            | Kind::TelemetryPolicy
            | Kind::Mesh
    )
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
