//! One stream from its Hello to its end.
//!
//! Invariant: the session decides what is sent; here it is only moved, counted and given deadlines.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Status, Streaming};
use weft_control_plane_core::session::{self, Published, Session};
use weft_proto::names::Workload;
use weft_proto::v1;
use weft_proto::v1::discovery_request::Message;

use super::{Line, Serve, retry_after};
use crate::clock::unix_now;
use crate::encode;
use crate::metrics::{Metrics, Outcome};
use crate::peer::{Peer, Proven};
use crate::publish::{self, Reader, Seat};
use crate::status::{Entry, RefusalStatus, Sidecar};

/// Time for the first message. Source: as a TLS handshake.
const HELLO: Duration = Duration::from_secs(10);
/// Time for the connection to take a message. Source: as the default for the answer to an epoch.
const SEND: Duration = Duration::from_secs(30);
/// Longest version text that is kept of a sidecar. Source: Weft's own; a semantic version and a commit.
const VERSION_TEXT: usize = 64;
/// What a sidecar is told whose certificate ended: it has a new one, or must get one. Source: Weft's
/// own; the new certificate is long there.
const RENEWED_PAUSE: Duration = Duration::from_millis(100);

pub(super) type Sender = mpsc::Sender<Result<v1::DiscoveryResponse, Status>>;

/// The peer of a stream, with the identity it proved.
pub(super) struct Caller {
    pub(super) peer: Peer,
    pub(super) proven: Proven,
}

/// How a stream ends: what is counted, and what the peer is told.
struct End(Outcome, Option<Result<v1::DiscoveryResponse, Status>>);

struct Stream<'a> {
    serve: &'a Serve,
    caller: Caller,
    requests: Streaming<v1::DiscoveryRequest>,
    sender: Sender,
    reader: Reader,
    seat: Seat,
    workload: Workload,
    session: Session,
    entry: Entry,
    /// When the epoch in flight was sent, and which generation it shows.
    sent: Option<(Instant, u64)>,
}

pub(super) async fn run(
    serve: &Serve,
    caller: Caller,
    mut requests: Streaming<v1::DiscoveryRequest>,
    sender: Sender,
) {
    let farewell = sender.clone();
    let address = caller.peer.address;
    let End(outcome, last) = match greet(&caller, &mut requests).await {
        Err(end) => end,
        Ok((Greeting { workload, version, observes }, session)) => {
            let seat = serve.interests.seat();
            let entry = serve.status.enter(Sidecar {
                progress: seat.progress(),
                workload: workload.to_string(),
                identity: caller.proven.id.to_string(),
                version,
                address: address.to_string(),
                certificate_ends: caller.proven.not_after,
                line: observes.then(|| Line(sender.clone())),
                ..Sidecar::default()
            });
            tracing::info!(%workload, %address, "sidecar connected");
            serve.metrics.sidecars_connected.inc();
            let reader = serve.reader.clone();
            let stream = Stream {
                serve,
                caller,
                requests,
                sender,
                reader,
                seat,
                workload,
                session,
                entry,
                sent: None,
            };
            let end = Box::pin(stream.run()).await;
            serve.metrics.sidecars_connected.dec();
            end
        }
    };
    Metrics::count(&serve.metrics.streams_closed, outcome);
    let reason = match &last {
        Some(Err(status)) => status.message().to_owned(),
        _ => String::new(),
    };
    tracing::info!(%address, ?outcome, reason, "stream ended");
    if let Some(last) = last {
        let _ = timeout(SEND, farewell.send(last)).await;
    }
}

/// Who greets.
struct Greeting {
    workload: Workload,
    version: String,
    /// It understands a Summons.
    observes: bool,
}

/// Takes the Hello.
async fn greet(
    caller: &Caller,
    requests: &mut Streaming<v1::DiscoveryRequest>,
) -> Result<(Greeting, Session), End> {
    if caller.proven.not_after <= unix_now() {
        let text = "the certificate has expired: call Identity.Sign with a join token";
        return Err(refuse(Outcome::Expired, Status::unauthenticated(text)));
    }
    let first = match timeout(HELLO, requests.message()).await {
        Ok(Ok(Some(first))) => first.message,
        Ok(_) => return Err(End(Outcome::ByPeer, None)),
        Err(_) => return Err(refuse(Outcome::Slow, Status::deadline_exceeded("no Hello in time"))),
    };
    let Some(Message::Hello(hello)) = first else {
        return Err(misuse("the first message must be a Hello"));
    };
    let workload: Workload = match hello.workload.parse() {
        Ok(workload) => workload,
        Err(error) => return Err(misuse(&format!("{error}"))),
    };
    if caller.proven.id.namespace != workload.namespace {
        return Err(foreign(&caller.proven, &workload));
    }
    let mut version = hello.version.clone();
    version.truncate(version.floor_char_boundary(VERSION_TEXT));
    let observes = hello.observes;
    let session = Session::open(opening(hello)?).map_err(|error| misuse(&error.to_string()))?;
    Ok((Greeting { workload, version, observes }, session))
}

impl Stream<'_> {
    async fn run(mut self) -> End {
        let end_of_life = self.end_of_life();
        loop {
            if let Err(end) = self.bring().await {
                return end;
            }
            let answer_by = self.sent.map_or_else(Instant::now, |(at, _)| at + self.serve.ack);
            let step = tokio::select! {
                message = self.requests.message() => match message {
                    Ok(Some(message)) => self.take(message),
                    Ok(None) | Err(_) => Err(End(Outcome::ByPeer, None)),
                },
                () = self.seat.roused() => Ok(()),
                () = self.serve.stop.cancelled() => Err(self.leave()),
                () = sleep_until(answer_by), if self.sent.is_some() => {
                    let text = "an epoch was not acknowledged in time";
                    Err(refuse(Outcome::AckTimeout, Status::deadline_exceeded(text)))
                }
                () = sleep_until(end_of_life) => Err(End(
                    Outcome::Expired,
                    Some(Ok(retry_after(RENEWED_PAUSE, "the certificate of this connection has expired"))),
                )),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Brings the session to what is published. What it lives on is listed before a second look, so that a
    /// change in between either rouses the stream or is seen.
    async fn bring(&mut self) -> Result<(), End> {
        loop {
            let Some(published) = self.reader.borrow().clone() else { return Ok(()) };
            self.bring_to(&published).await?;
            self.seat.list(&self.session);
            let newest = self.reader.borrow().as_ref().map(|newest| newest.generation());
            if self.session.is_waiting() || newest == Some(published.generation()) {
                return Ok(());
            }
        }
    }

    /// Sends what the session is owed of a state, if the peer may still have it.
    async fn bring_to(&mut self, published: &Arc<Published>) -> Result<(), End> {
        let account = publish::account(published, &self.workload);
        if account.is_some_and(|account| account != self.caller.proven.id.service_account) {
            return Err(foreign(&self.caller.proven, &self.workload));
        }
        let Some(epoch) = self.session.next(published) else {
            if !self.session.is_waiting() {
                self.settle(published.generation());
            }
            return Ok(());
        };
        let metrics = &self.serve.metrics;
        metrics.epochs_sent.inc();
        metrics.resources_sent.inc_by(epoch.upserts.len() as u64);
        metrics.resource_bytes_sent.inc_by(epoch.upserts.iter().map(|(_, it)| it.body.len() as u64).sum());
        let generation = epoch.generation;
        match timeout(SEND, self.sender.send(Ok(message(&epoch)))).await {
            Ok(Ok(())) => {
                self.sent = Some((Instant::now(), generation));
                Ok(())
            }
            Ok(Err(_)) => Err(End(Outcome::ByPeer, None)),
            Err(_) => Err(End(Outcome::Slow, None)),
        }
    }

    fn take(&mut self, request: v1::DiscoveryRequest) -> Result<(), End> {
        match request.message {
            Some(Message::Subscribe(subscribe)) => {
                let (add, drop) = (keys(subscribe.add)?, keys(subscribe.drop)?);
                self.session.subscribe(add, drop).map_err(|error| misuse(&error.to_string()))
            }
            Some(Message::Ack(ack)) => self.acknowledged(ack),
            Some(Message::Hello(_)) => Err(misuse("a second Hello")),
            None => Err(misuse("a message of a kind that is not known here")),
        }
    }

    fn acknowledged(&mut self, ack: v1::Ack) -> Result<(), End> {
        let refusals = ack.refusals.into_iter().filter_map(refusal).collect();
        let news = self
            .session
            .acknowledge(session::Ack { nonce: ack.nonce, refusals })
            .map_err(|error| misuse(&error.to_string()))?;
        for refusal in &news {
            self.serve.metrics.refusals.inc();
            let (kind, name) = (kind_text(refusal), refusal.key.name.as_str());
            tracing::warn!(workload = %self.workload, kind, name, reason = refusal.reason, "a sidecar refuses");
        }
        if let Some((_, generation)) = self.sent.take() {
            self.settle(generation);
        }
        Ok(())
    }

    /// Notes in the status what the sidecar has, and what it refuses.
    fn settle(&self, generation: u64) {
        let refusals = self.session.refusals().map(|refusal| RefusalStatus {
            r#type: kind_text(refusal),
            name: refusal.key.name.clone(),
            reason: refusal.reason.clone(),
            key: refusal.key.clone(),
        });
        let refusals: Vec<RefusalStatus> = refusals.collect();
        self.entry.update(|sidecar| sidecar.refusals = refusals);
        self.seat.reach(generation);
    }

    fn leave(&self) -> End {
        let farewell = retry_after(self.serve.absence(), "the control plane is shutting down");
        End(Outcome::Shutdown, Some(Ok(farewell)))
    }

    fn end_of_life(&self) -> Instant {
        let left = self.caller.proven.not_after.saturating_sub(unix_now());
        // tokio's clock takes about two years at most.
        Instant::now() + Duration::from_secs(left.min(365 * 86_400))
    }
}

fn message(epoch: &session::Epoch) -> v1::DiscoveryResponse {
    let epoch = v1::Epoch {
        nonce: epoch.nonce,
        generation: epoch.generation,
        upserts: epoch.upserts.iter().map(|(key, encoded)| encode::resource(key, encoded)).collect(),
        removals: epoch.removals.iter().map(encode::key).collect(),
    };
    v1::DiscoveryResponse { message: Some(v1::discovery_response::Message::Epoch(epoch)) }
}

fn opening(hello: v1::Hello) -> Result<session::Hello, End> {
    // What is held of a kind or in a form that is not known here cannot be compared: it is sent anew.
    let held = hello
        .held
        .into_iter()
        .filter_map(|held| Some((encode::key_from(held.key?)?, held.version.as_ref().try_into().ok()?)));
    Ok(session::Hello {
        workload: hello.workload,
        held: held.collect(),
        subscriptions: keys(hello.subscriptions)?,
    })
}

fn keys(keys: Vec<v1::Key>) -> Result<Vec<weft_control_plane_core::config::Key>, End> {
    let known = |key: v1::Key| {
        let text = format!("no kind has the number {}", key.r#type);
        encode::key_from(key).ok_or_else(|| misuse(&text))
    };
    keys.into_iter().map(known).collect()
}

fn refusal(refusal: v1::Refusal) -> Option<session::Refusal> {
    Some(session::Refusal {
        key: encode::key_from(refusal.key?)?,
        version: refusal.version.as_ref().try_into().ok()?,
        reason: refusal.reason,
    })
}

fn kind_text(refusal: &session::Refusal) -> &'static str {
    encode::resource_type(refusal.key.kind).as_str_name()
}

fn refuse(outcome: Outcome, status: Status) -> End {
    End(outcome, Some(Err(status)))
}

fn misuse(text: &str) -> End {
    refuse(Outcome::Misuse, Status::invalid_argument(text))
}

fn foreign(proven: &Proven, workload: &Workload) -> End {
    let text = format!(
        "{} does not speak for workload {workload}: give the sidecar the certificate of the workload's own \
         service account, or correct the workload it names",
        proven.id
    );
    refuse(Outcome::NotAllowed, Status::permission_denied(text))
}
