//! The stream to the control plane: opened, kept, and opened again, for as long as the sidecar lives.
//!
//! Runs on the chores thread. In the configuration's walk: serve → **subscribe** → adopt → the data
//! threads' next request.
//!
//! Invariant: whatever happens to the stream, the last good snapshot stays in force.
//! Invariant: a snapshot is in force before its epoch is acknowledged and before those who asked for
//! it are answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use weft_proto::v1;
use weft_proxy_core::Name;
use weft_proxy_net::gateway;

use crate::adopt::{Adopter, Kind};
use crate::backoff::Backoff;
use crate::certify::{Credentials, Renewal};
use crate::dial::Dial;
use crate::hold::{Hold, Written};
use crate::lookup::{Desk, Lookup, Question, lookup};
use crate::observe::Observer;
use crate::settings::Settings;
use crate::snapshots::Snapshots;

mod status;
mod stream;

use status::Progress;
pub use status::StreamStatus;
use stream::End;

/// Longest time the control plane may send us away for. Source: the contract, 5 min.
const LONGEST_AWAY: Duration = Duration::from_secs(300);

/// Keeps the sidecar's configuration current.
#[derive(Debug)]
pub struct Subscriber {
    workload: String,
    dial: Dial,
    credentials: Arc<Credentials>,
    renewal: Renewal,
    adopter: Adopter,
    snapshots: Arc<Snapshots>,
    desk: Desk,
    questions: mpsc::Receiver<Question>,
    progress: Progress,
    hold: Option<Hold>,
    kept: watch::Sender<Written>,
    backoff: Backoff,
    next_sweep: Instant,
    observer: Option<Observer>,
}

impl Subscriber {
    /// A subscriber for `settings`, and the way data threads ask it. What the disk holds is in force
    /// when this returns.
    pub fn new(settings: &Settings, dial: Dial, renewal: Renewal) -> (Self, Lookup) {
        let (lookup, mut desk, questions) = lookup(&settings.limits);
        for service in settings.pinned() {
            desk.pin(Name::from(service.to_string()));
        }
        let next_sweep = Instant::now() + desk.sweep_interval();
        desk.connected(false, Instant::now());
        let hold = settings.state_dir.as_ref().map(|dir| Hold::new(dir, &settings.workload));
        let node = if settings.node_is_gateway { gateway::gateways() } else { Vec::new() };
        let mut subscriber = Self {
            workload: settings.workload.to_string(),
            credentials: Arc::clone(dial.credentials()),
            dial,
            renewal,
            adopter: Adopter::new(settings.trust_domain.as_str()).on_node(node),
            snapshots: Arc::new(Snapshots::default()),
            desk,
            questions,
            progress: Progress::default(),
            hold,
            kept: watch::Sender::new(None),
            backoff: Backoff::seeded(),
            next_sweep,
            observer: None,
        };
        subscriber.restore();
        (subscriber, lookup)
    }

    /// Lets `observer` answer what the control plane asks on the way.
    #[must_use]
    pub fn observed(mut self, observer: Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Where the snapshots appear.
    pub fn snapshots(&self) -> Arc<Snapshots> {
        Arc::clone(&self.snapshots)
    }

    /// How current the configuration is, as it changes.
    pub fn status(&self) -> watch::Receiver<StreamStatus> {
        self.progress.status()
    }

    /// Takes over what an earlier process of this sidecar kept.
    fn restore(&mut self) {
        let Some(hold) = &self.hold else { return };
        match hold.load() {
            Ok(None) => {}
            Ok(Some(epoch)) => {
                let written = hold.written();
                let resources = epoch.upserts.len();
                let generation = epoch.generation;
                let refusals = self.adopt(epoch).refusals;
                let addresses: Vec<SocketAddr> =
                    self.adopter.names(Kind::Address).filter_map(|name| name.parse().ok()).collect();
                self.desk.remember(addresses.into_iter());
                self.progress.restored(written);
                tracing::info!(
                    resources,
                    generation,
                    refused = refusals.len(),
                    "started from the last good configuration"
                );
            }
            Err(error) => tracing::warn!(%error, "no last good configuration"),
        }
    }

    /// Keeps the stream for as long as the future lives.
    ///
    /// # Cancel safety
    /// Dropping it closes the stream; the last snapshot stays in force.
    pub async fn run(mut self) {
        let keeping = self.hold.clone().map(|hold| hold.keep(self.kept.subscribe()));
        let streaming = async {
            loop {
                self.await_certificate().await;
                let end = self.stream().await;
                self.desk.connected(false, Instant::now());
                let away = self.ended(&end);
                self.progress.disconnected(&end);
                self.answering(tokio::time::sleep(away)).await;
            }
        };
        match keeping {
            Some(keeping) => {
                tokio::join!(keeping, streaming);
            }
            None => streaming.await,
        }
    }

    /// How long to stay away, and whether a new certificate would help.
    fn ended(&mut self, end: &End) -> Duration {
        match end {
            End::Later { after, reason } => {
                let after = (*after).min(LONGEST_AWAY);
                tracing::info!(?after, reason, "the control plane asks to come back later");
                after + self.backoff.up_to(after / 2)
            }
            End::Failed { problem, disowned } => {
                if *disowned {
                    self.renewal.request();
                }
                let away = self.backoff.wait();
                tracing::warn!(
                    problem,
                    ?away,
                    "no stream to the control plane; the last good configuration stays"
                );
                away
            }
        }
    }

    /// Without a living certificate the control plane would not know us.
    async fn await_certificate(&mut self) {
        let credentials = Arc::clone(&self.credentials);
        let mut changes = credentials.changes();
        let living = async move {
            while credentials.alive(SystemTime::now()).is_none() {
                // The sender lives in the credentials we hold.
                let _ = changes.changed().await;
            }
        };
        self.answering(living).await;
    }

    /// Lets `work` happen while questions are answered as well as they can be without a stream.
    async fn answering<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                Some(question) = self.questions.recv() => {
                    // What is wanted now is subscribed to when the stream opens.
                    self.desk.ask(question, self.adopter.snapshot(), Instant::now());
                }
            }
        }
    }

    /// Adopts one epoch and puts the outcome in force.
    fn adopt(&mut self, epoch: v1::Epoch) -> v1::Ack {
        let nonce = epoch.nonce;
        let touched = status::touched(&epoch);
        let mut applied = self.adopter.apply(epoch);
        if let Some(trust) = applied.trust
            && let Err(error) = self.credentials.set_trust(trust.clone())
        {
            let key = crate::adopt::Key::new(Kind::Trust, trust.trust_domain);
            let reason = error.to_string();
            applied.ack.refusals.push(v1::Refusal {
                key: Some((&key).into()),
                reason,
                ..v1::Refusal::default()
            });
        }
        let changed = applied.snapshot.is_some();
        if let Some(snapshot) = applied.snapshot {
            self.snapshots.publish(Arc::clone(&snapshot));
            self.desk.arrived(&snapshot);
        }
        for refusal in &applied.ack.refusals {
            let name = refusal.key.as_ref().map_or("", |key| key.name.as_str());
            tracing::warn!(
                resource = name,
                reason = refusal.reason,
                "a resource cannot be taken; its last good version stays"
            );
        }
        tracing::debug!(nonce, generation = applied.generation, changed, "epoch adopted");
        self.progress.adopted(applied.generation, &touched, &applied.ack.refusals);
        applied.ack
    }

    fn keep(&self, generation: u64) {
        if self.hold.is_some() {
            self.kept.send_replace(Some((generation, self.adopter.resources())));
        }
    }

    fn hello(&self) -> v1::Hello {
        v1::Hello {
            workload: self.workload.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            held: self.adopter.held(),
            subscriptions: self.desk.subscriptions().iter().map(v1::Key::from).collect(),
            observes: self.observer.is_some(),
        }
    }
}

#[cfg(test)]
mod tests;
