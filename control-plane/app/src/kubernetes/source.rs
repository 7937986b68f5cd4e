//! The thread that watches a cluster: one watch per kind, the look at what is served, and the feed.
//!
//! Before it: `app` connected. After it: published states, as from a folder.
//!
//! Invariant: compiling happens here, so that the streams never wait for it.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use kube::{Client, Config};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::feed::Feed;
use super::pace::Pace;
use super::watch::discover::{self, Serving};
use super::watch::kinds::{Need, WATCHED, Watched};
use super::watch::{End, Event, Watch};
use crate::metrics::watching::WatchMetrics;

/// Events that wait for the feed while it compiles. Source: Weft's own; the watches wait in turn.
const WAITING: usize = 1_024;

/// The watching thread; stops when told or dropped.
#[derive(Debug)]
pub struct Source {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Source {
    /// Starts watching the cluster of a configuration.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(config: Config, feed: Feed, metrics: WatchMetrics) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("weft-cluster".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = watch_all(config, feed, metrics) => {}
                }
            });
            runtime.shutdown_background();
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Stops the thread and waits for it.
    pub fn stop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn watch_all(config: Config, feed: Feed, metrics: WatchMetrics) {
    let client = match Client::try_from(config) {
        Ok(client) => client,
        Err(error) => return tracing::error!(%error, "the cluster cannot be watched"),
    };
    let (events, received) = mpsc::channel(WAITING);
    let (found, serving) = watch::channel(None);
    let poke = Arc::new(Notify::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(discover::run(client.clone(), found, Arc::clone(&poke)));
    for watched in WATCHED {
        let one = One {
            client: client.clone(),
            watched,
            events: events.clone(),
            metrics: metrics.clone(),
            serving: serving.clone(),
            poke: Arc::clone(&poke),
        };
        tasks.spawn(one.run());
    }
    drop(events);
    feed.run(received).await;
}

/// One kind, for as long as the thread lives.
struct One {
    client: Client,
    watched: Watched,
    events: mpsc::Sender<Event>,
    metrics: WatchMetrics,
    serving: Serving,
    poke: Arc<Notify>,
}

impl One {
    async fn run(mut self) {
        let mut pace = Pace::default();
        loop {
            let Some(version) = self.version().await else { return };
            let events = self.events.clone();
            let mut watch =
                Watch::new(self.client.clone(), self.watched, &version, events, self.metrics.clone());
            tokio::select! {
                end = watch.follow() => match end {
                    End::Closed => return,
                    End::NotServed => self.poke.notify_one(),
                },
                () = self.other_than(&version) => {}
            }
            pace.wait().await;
        }
    }

    /// Waits until the kind is served in a version that can be read; tells when it is not.
    async fn version(&mut self) -> Option<String> {
        if self.watched.need == Need::BuiltIn {
            return self.watched.versions.first().map(|version| (*version).to_owned());
        }
        let mut told = false;
        loop {
            if let Some(version) = self.served() {
                return Some(version);
            }
            if !told && self.serving.borrow().is_some() {
                told = true;
                self.tell_absent().await?;
            }
            self.serving.changed().await.ok()?;
        }
    }

    async fn tell_absent(&self) -> Option<()> {
        let kind = self.watched.kind;
        match self.watched.need {
            Need::Own => tracing::error!(%kind, "not installed: install Weft's CRDs"),
            _ => tracing::info!(%kind, "not installed, or in no version known here: the mesh does without"),
        }
        self.events.send(Event::Absent(kind)).await.ok()
    }

    fn served(&self) -> Option<String> {
        let serving = self.serving.borrow();
        let versions = serving.as_ref()?.get(&(self.watched.group, self.watched.plural.to_owned()))?;
        self.watched.choose(versions).map(str::to_owned)
    }

    /// Waits until another version, or none, is to be read.
    async fn other_than(&self, version: &str) {
        if self.watched.need == Need::BuiltIn {
            return std::future::pending().await;
        }
        let mut serving = self.serving.clone();
        while self.served().as_deref() == Some(version) {
            if serving.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}
