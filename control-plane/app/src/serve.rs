//! `Discovery.Stream`: one stream a sidecar, brought to every published state by its session.
//!
//! Before it: `publish` shares encoded states; `listen` proved who the peer is. After it: the
//! sidecar's *subscribe*.
//!
//! Invariant: a stream serves the workload its Hello names only while the peer's identity is that
//! workload's; this is looked at again with every published state.
//! Invariant: every wait on the peer has a deadline, and what waits for it is bounded: one epoch.

mod stream;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use weft_proto::v1;
use weft_proto::v1::discovery_server::Discovery;

use crate::encode::span;
use crate::metrics::{Metrics, Outcome};
use crate::peer::Peer;
use crate::publish::{Interests, Publisher, Reader};
use crate::status;

/// Messages that wait for the connection. Source: one epoch is in flight at a time, and one farewell.
const QUEUE: usize = 2;
/// What a sidecar is told beyond the number of streams. Source: Weft's own.
const OVERLOAD_PAUSE: Duration = Duration::from_secs(5);
/// Shortest absence asked for at shutdown. Source: about the restart of this process.
const SHUTDOWN_PAUSE: Duration = Duration::from_secs(1);
/// Longest absence asked for. Source: the contract, at most five minutes.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Reconnections that one replica takes well. Source: Weft's own; a TLS handshake and a first epoch
/// cost about a millisecond.
const RETURNS_PER_SECOND: u64 = 500;
/// Largest message from a sidecar. Source: a Hello that presents everything a session may hold.
pub const MESSAGE_LIMIT: usize = 16 * 1024 * 1024;

/// What streams may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Streams at once.
    pub streams: usize,
    /// Time for the answer to an epoch.
    pub ack: Duration,
}

/// The service.
#[derive(Clone)]
pub struct Serve {
    reader: Reader,
    interests: Arc<Interests>,
    status: Arc<status::Status>,
    metrics: Metrics,
    permits: Arc<Semaphore>,
    ack: Duration,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Serve {
    /// A service of what `publisher` publishes, within `limits`, until `stop`.
    pub fn new(
        publisher: &Publisher,
        status: Arc<status::Status>,
        metrics: Metrics,
        limits: Limits,
        stop: CancellationToken,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(limits.streams.min(Semaphore::MAX_PERMITS)));
        Self {
            reader: publisher.reader(),
            interests: publisher.interests(),
            status,
            metrics,
            permits,
            ack: limits.ack,
            stop,
            tasks: TaskTracker::new(),
        }
    }

    /// Waits until all streams have ended; for after `stop`.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// How long returning sidecars stay away, so that their number a second stays bearable; each
    /// adds jitter of its own.
    fn absence(&self) -> Duration {
        let connected = u64::try_from(self.status.connected()).unwrap_or(u64::MAX);
        let spread = Duration::from_millis(connected.saturating_mul(1000) / RETURNS_PER_SECOND);
        SHUTDOWN_PAUSE.saturating_add(spread).min(LONGEST_PAUSE)
    }
}

#[tonic::async_trait]
impl Discovery for Serve {
    type StreamStream = ReceiverStream<Result<v1::DiscoveryResponse, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let proven = peer.as_ref().and_then(|peer| peer.identity.clone());
        let (Some(peer), Some(proven)) = (peer, proven) else {
            return Err(Status::unauthenticated(
                "the stream needs a client certificate: call Identity.Sign with a join token first",
            ));
        };
        let (sender, receiver) = mpsc::channel(QUEUE);
        match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => self.spawn(stream::Caller { peer, proven }, request.into_inner(), sender, permit),
            Err(_) => {
                Metrics::count(&self.metrics.streams_closed, Outcome::OverLimit);
                tracing::warn!(address = %peer.address, "more streams than --max-streams; a sidecar is sent away");
                let _ = sender.try_send(Ok(retry_after(OVERLOAD_PAUSE, "too many streams here")));
            }
        }
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl Serve {
    fn spawn(
        &self,
        caller: stream::Caller,
        requests: Streaming<v1::DiscoveryRequest>,
        sender: stream::Sender,
        permit: OwnedSemaphorePermit,
    ) {
        let this = self.clone();
        self.tasks.spawn(async move {
            let _permit = permit;
            stream::run(&this, caller, requests, sender).await;
        });
    }
}

/// Where a word to a sidecar is said: the queue of its stream.
#[derive(Debug, Clone)]
pub struct Line(stream::Sender);

impl Line {
    /// Summons the sidecar; false: its stream did not take it in time.
    ///
    /// # Cancel safety
    /// Nothing is said.
    pub async fn summon(&self, ticket: String, patience: Duration) -> bool {
        let summons = v1::discovery_response::Message::Summons(v1::Summons { ticket });
        let message = v1::DiscoveryResponse { message: Some(summons) };
        self.0.send_timeout(Ok(message), patience).await.is_ok()
    }
}

fn retry_after(after: Duration, reason: &str) -> v1::DiscoveryResponse {
    let message = v1::RetryAfter { after: Some(span(after)), reason: reason.to_owned() };
    v1::DiscoveryResponse { message: Some(v1::discovery_response::Message::RetryAfter(message)) }
}
