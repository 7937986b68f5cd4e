//! Follows the objects of one kind: a list as a stream, or in pages where the server cannot, then every
//! change, for as long as the kind is served.
//!
//! Before it: `discover` says whether and in which version the kind is served. After it: `feed` puts
//! what was seen into the model.
//!
//! Invariant: a list that breaks off begins again as a new one, so that what vanished is found missing.
//! Invariant: every wait on the server ends: a connection without a sign of life is given up.

pub mod discover;
pub mod kinds;
pub mod sight;

use std::pin::pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use kube::Client;
use kube::api::{ListParams, ObjectList, WatchParams};
use kube::core::{Request, WatchEvent};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use weft_control_plane_core::model::{Kind, ObjectKey};

use self::kinds::{Need, Watched};
use self::sight::Sight;
use super::pace::Pace;
use crate::metrics::watching::{Failed, Seen, WatchMetrics};

/// Life of one watch request at the server, then it is resumed. Source: half of what client-go asks at
/// least; a resumption costs one request, and bounds how long a dead connection goes unnoticed.
const LIFE: Duration = Duration::from_secs(150);
/// What a watch may be silent beyond its life. Source: kube-runtime gives as much.
const GRACE: Duration = Duration::from_secs(5);
/// Time for the head of an answer, and for the next object of a list. Source: Weft's own; a server
/// prepares a list of tens of thousands of objects within seconds.
const ANSWER: Duration = Duration::from_secs(30);
/// Objects in one page. Source: client-go's pager.
const PAGE: u32 = 500;
/// A watch that lived this long is no failure's echo. Source: Weft's own.
const STEADY: Duration = Duration::from_secs(5);
/// Annotation of the bookmark that ends a streamed list. Source: Kubernetes, KEP-3157.
const LIST_END: &str = "k8s.io/initial-events-end";

/// What a watch tells.
#[derive(Debug)]
pub enum Event {
    /// A list begins; what it does not name is gone.
    Begun(Kind),
    /// The list is complete.
    Complete(Kind),
    /// An object is there.
    Seen(Sight),
    /// An object is gone.
    Gone(ObjectKey),
    /// The kind is not served: there is none of it.
    Absent(Kind),
    /// The kind cannot be followed for now.
    Failing(Kind, String),
    /// The kind is followed again.
    Well(Kind),
}

/// Why following ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The server says that there is no such kind.
    NotServed,
    /// Nobody listens any more.
    Closed,
}

/// Why one list or watch ended.
#[derive(Debug)]
enum Stop {
    /// The server ended it in order.
    Ended,
    /// The version is too old: list again.
    Expired,
    /// The server cannot stream a list.
    NoStreamedLists,
    /// The kind is not served.
    NotServed,
    /// Nobody listens any more.
    Closed,
    /// Anything else.
    Failed(Failed, String),
}

/// The watch of one kind.
pub struct Watch {
    client: Client,
    watched: Watched,
    api_version: String,
    request: Request,
    events: mpsc::Sender<Event>,
    metrics: WatchMetrics,
    version: Option<String>,
    paged: bool,
    failing: bool,
}

impl Watch {
    /// The watch of a kind in a version.
    pub fn new(
        client: Client,
        watched: Watched,
        version: &str,
        events: mpsc::Sender<Event>,
        metrics: WatchMetrics,
    ) -> Self {
        Self {
            client,
            watched,
            api_version: watched.api_version(version),
            request: Request::new(watched.path(version)),
            events,
            metrics,
            version: None,
            paged: false,
            failing: false,
        }
    }

    /// Follows until the kind is not served any more or nobody listens.
    ///
    /// # Cancel safety
    /// Dropping it ends the watch; a list under way counts as never begun.
    pub async fn follow(&mut self) -> End {
        let mut pace = Pace::default();
        loop {
            let started = Instant::now();
            let stop = match self.once().await {
                Ok(never) => match never {},
                Err(stop) => stop,
            };
            if started.elapsed() >= STEADY {
                pace.reset();
            }
            match stop {
                Stop::NotServed => return End::NotServed,
                Stop::Closed => return End::Closed,
                Stop::Ended => {}
                Stop::Expired => {
                    self.version = None;
                    self.metrics.failed(self.watched.kind, Failed::Expired);
                }
                Stop::NoStreamedLists => {
                    tracing::debug!(kind = %self.watched.kind, "no streamed lists here: listing in pages");
                    self.paged = true;
                    continue;
                }
                Stop::Failed(class, reason) => {
                    if self.failed(class, reason).await.is_err() {
                        return End::Closed;
                    }
                }
            }
            pace.wait().await;
        }
    }

    /// One list if there is none yet, and one watch.
    async fn once(&mut self) -> Result<std::convert::Infallible, Stop> {
        if self.version.is_none() && self.paged {
            self.pages().await?;
        }
        let list = self.version.is_none();
        let params = WatchParams {
            timeout: Some(u32::try_from(LIFE.as_secs()).unwrap_or(u32::MAX)),
            send_initial_events: list,
            ..WatchParams::default()
        };
        let from = self.version.clone().unwrap_or_default();
        let request = match self.watched.metadata_only() {
            true => self.request.watch_metadata(&params, &from),
            false => self.request.watch(&params, &from),
        };
        let request = request.map_err(|error| Stop::Failed(Failed::Request, error.to_string()))?;
        let opened = timeout(ANSWER, self.client.request_events::<Value>(request)).await;
        let stream = opened.map_err(|_| silent())?.map_err(|error| stop(error, list))?;
        if list {
            self.begin().await?;
        } else {
            self.well().await?;
        }
        self.read(stream, list).await
    }

    async fn read(
        &mut self,
        stream: impl Stream<Item = kube::Result<WatchEvent<Value>>>,
        mut listing: bool,
    ) -> Result<std::convert::Infallible, Stop> {
        let mut stream = pin!(stream);
        let end = Instant::now() + LIFE + GRACE;
        let mut heard = false;
        loop {
            let patience = if listing { ANSWER } else { end.saturating_duration_since(Instant::now()) };
            let next = match timeout(patience, stream.next()).await {
                Ok(Some(Err(kube::Error::SerdeError(_)))) if !heard && self.may_be_missing() => {
                    // The answer to a path that is not there is a page of text, which the client takes
                    // for the first event.
                    return Err(Stop::NotServed);
                }
                Ok(next) => next.transpose().map_err(|error| stop(error, false))?,
                // A server that does not know streamed lists shows what there is, and no end of it.
                Err(_) if listing => return Err(Stop::NoStreamedLists),
                Err(_) => return Err(silent()),
            };
            heard = true;
            match next {
                None if listing => return Err(Stop::Failed(Failed::Cut, "the list broke off".to_owned())),
                None => return Err(Stop::Ended),
                Some(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    self.advance(&object, listing);
                    self.seen(object).await?;
                }
                Some(WatchEvent::Deleted(object)) => {
                    self.advance(&object, listing);
                    self.gone(&object).await?;
                }
                Some(WatchEvent::Bookmark(mark)) => {
                    self.metrics.well(self.watched.kind);
                    if listing && mark.metadata.annotations.contains_key(LIST_END) {
                        listing = false;
                        self.complete().await?;
                    }
                    if !listing {
                        self.version = Some(mark.metadata.resource_version);
                    }
                }
                Some(WatchEvent::Error(status)) => return Err(stop(kube::Error::Api(status), false)),
            }
        }
    }

    fn may_be_missing(&self) -> bool {
        self.watched.need != Need::BuiltIn
    }

    /// A list in pages, for servers that cannot stream one.
    async fn pages(&mut self) -> Result<(), Stop> {
        self.begin().await?;
        let mut params = ListParams { limit: Some(PAGE), ..ListParams::default() };
        loop {
            let request = match self.watched.metadata_only() {
                true => self.request.list_metadata(&params),
                false => self.request.list(&params),
            };
            let request = request.map_err(|error| Stop::Failed(Failed::Request, error.to_string()))?;
            let asked = timeout(ANSWER, self.client.request::<ObjectList<Value>>(request)).await;
            let page = asked.map_err(|_| silent())?.map_err(|error| stop(error, false))?;
            for object in page.items {
                self.seen(object).await?;
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => {
                    self.version = page.metadata.resource_version;
                    return self.complete().await;
                }
            }
        }
    }

    /// Where to resume. In a list the objects come in no order of versions.
    fn advance(&mut self, object: &Value, listing: bool) {
        let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
        if let Some(version) = version.filter(|_| !listing) {
            self.version = Some(version.to_owned());
        }
    }

    async fn begin(&mut self) -> Result<(), Stop> {
        self.metrics.listed(self.watched.kind);
        self.send(Event::Begun(self.watched.kind)).await
    }

    async fn complete(&mut self) -> Result<(), Stop> {
        self.failing = false;
        self.send(Event::Complete(self.watched.kind)).await
    }

    async fn seen(&self, object: Value) -> Result<(), Stop> {
        self.metrics.seen(self.watched.kind, Seen::Applied);
        match sight::see(self.watched.kind, &self.api_version, object) {
            Some(sight) => self.send(Event::Seen(sight)).await,
            None => Ok(()),
        }
    }

    async fn gone(&self, object: &Value) -> Result<(), Stop> {
        self.metrics.seen(self.watched.kind, Seen::Removed);
        match sight::key(self.watched.kind, object) {
            Some(key) => self.send(Event::Gone(key)).await,
            None => Ok(()),
        }
    }

    async fn well(&mut self) -> Result<(), Stop> {
        self.metrics.well(self.watched.kind);
        match std::mem::take(&mut self.failing) {
            true => self.send(Event::Well(self.watched.kind)).await,
            false => Ok(()),
        }
    }

    async fn failed(&mut self, class: Failed, reason: String) -> Result<(), Stop> {
        let kind = self.watched.kind;
        self.metrics.failed(kind, class);
        if std::mem::replace(&mut self.failing, true) {
            tracing::debug!(%kind, reason, "still cannot be watched");
            return Ok(());
        }
        match class {
            // One kind alone, and a person has to act; an outage is said once for all kinds by the feed.
            Failed::Forbidden | Failed::Decode => {
                tracing::warn!(%kind, reason, "cannot be watched; what is known stays");
            }
            _ => tracing::debug!(%kind, reason, "cannot be watched for now; what is known stays"),
        }
        self.send(Event::Failing(kind, reason)).await
    }

    async fn send(&self, event: Event) -> Result<(), Stop> {
        self.events.send(event).await.map_err(|_| Stop::Closed)
    }
}

fn silent() -> Stop {
    Stop::Failed(Failed::Silent, "the API server does not answer".to_owned())
}

/// What an error of the server or of the connection means.
fn stop(error: kube::Error, listing: bool) -> Stop {
    let kube::Error::Api(status) = error else {
        let class =
            if matches!(error, kube::Error::SerdeError(_)) { Failed::Decode } else { Failed::Connection };
        return Stop::Failed(class, error.to_string());
    };
    match status.code {
        404 => Stop::NotServed,
        410 => Stop::Expired,
        400 | 422 if listing => Stop::NoStreamedLists,
        401 | 403 => {
            let text = format!("{}; check the ClusterRole of the control plane", status.message);
            Stop::Failed(Failed::Forbidden, text)
        }
        429 => Stop::Failed(Failed::Throttled, status.message.clone()),
        code => Stop::Failed(Failed::Server, format!("{code} {}", status.message)),
    }
}
