//! One stream, from Hello to its end.
//!
//! Invariant: never both sides stuck: while answers cannot leave, only a bounded number of epochs is
//! read.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;
use weft_proto::v1;
use weft_proto::v1::discovery_client::DiscoveryClient;
use weft_proto::v1::discovery_request::Message as Request;
use weft_proto::v1::discovery_response::Message as Response;

use super::Subscriber;
use crate::adopt::Key;
use crate::dial::{self, MAX_MESSAGE, Proof};
use crate::lookup::Question;

/// Messages handed to the connection but not written yet.
const IN_FLIGHT: usize = 4;
/// Messages that wait for the connection; beyond it nothing more is read.
/// Source: one burst of lookups, each one message.
const MAX_OUTBOX: usize = 256;
/// Deadline of the server's first answer. Source: as of connecting and shaking hands together.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);

/// How a stream ended.
#[derive(Debug)]
pub(super) enum End {
    /// The control plane asks to come back later.
    Later {
        /// How long to stay away.
        after: Duration,
        /// Why, for a person.
        reason: String,
    },
    /// It broke, or did not open.
    Failed {
        /// Why.
        problem: String,
        /// The control plane does not take our certificate.
        disowned: bool,
    },
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Later { after, reason } => write!(f, "asked to come back after {after:?}: {reason}"),
            Self::Failed { problem, .. } => f.write_str(problem),
        }
    }
}

impl From<tonic::Status> for End {
    fn from(status: tonic::Status) -> Self {
        let disowned =
            matches!(status.code(), tonic::Code::Unauthenticated) || dial::refused_our_certificate(&status);
        Self::Failed { problem: dial::chain(&status), disowned }
    }
}

impl From<dial::DialError> for End {
    fn from(error: dial::DialError) -> Self {
        let disowned = dial::refused_our_certificate(&error);
        Self::Failed { problem: error.to_string(), disowned }
    }
}

/// What the sidecar says on one stream.
struct Speaker {
    connection: mpsc::Sender<v1::DiscoveryRequest>,
    outbox: VecDeque<Request>,
}

impl Speaker {
    fn say(&mut self, message: Request) {
        self.outbox.push_back(message);
    }

    /// Sends the next message; waits for ever when there is none.
    async fn send(&mut self) -> Result<(), End> {
        if self.outbox.is_empty() {
            std::future::pending::<()>().await;
        }
        let gone = |_| End::Failed { problem: "the stream was closed".to_owned(), disowned: false };
        let permit = self.connection.reserve().await.map_err(gone)?;
        if let Some(message) = self.outbox.pop_front() {
            permit.send(v1::DiscoveryRequest { message: Some(message) });
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.outbox.len() < MAX_OUTBOX
    }
}

impl Subscriber {
    /// Opens one stream and serves it to its end.
    pub(super) async fn stream(&mut self) -> End {
        match self.open().await {
            Ok((channel, speaker, epochs)) => match self.serve(channel, speaker, epochs).await {
                Ok(never) => match never {},
                Err(end) => end,
            },
            Err(end) => end,
        }
    }

    async fn open(&mut self) -> Result<(Channel, Speaker, Streaming<v1::DiscoveryResponse>), End> {
        let dial = self.dial.clone();
        let channel = self.answering(async move { dial.connect(Proof::Certificate).await }).await?;
        let (connection, requests) = mpsc::channel(IN_FLIGHT);
        let hello = v1::DiscoveryRequest { message: Some(Request::Hello(self.hello())) };
        // A fresh channel has room.
        let _ = connection.try_send(hello);
        let mut client = DiscoveryClient::new(channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let opening = async move { client.stream(ReceiverStream::new(requests)).await };
        let subscribed = self.desk.subscriptions();
        let opened = self.answering(tokio::time::timeout(OPEN_TIMEOUT, opening)).await;
        let epochs = match opened {
            Ok(answer) => answer?.into_inner(),
            Err(_) => {
                let problem = "the control plane did not answer within 15 s".to_owned();
                return Err(End::Failed { problem, disowned: false });
            }
        };
        let mut speaker = Speaker { connection, outbox: VecDeque::new() };
        // What was asked for while the stream opened.
        let mut add = self.desk.subscriptions();
        add.retain(|key| subscribed.binary_search(key).is_err());
        say_changes(&mut speaker, &add, &[]);
        Ok((channel, speaker, epochs))
    }

    async fn serve(
        &mut self,
        channel: Channel,
        mut speaker: Speaker,
        mut epochs: Streaming<v1::DiscoveryResponse>,
    ) -> Result<std::convert::Infallible, End> {
        self.desk.connected(true, Instant::now());
        loop {
            let room = speaker.has_room();
            tokio::select! {
                sent = speaker.send() => sent?,
                message = epochs.message(), if room => self.heard(&channel, &mut speaker, message?)?,
                Some(question) = self.questions.recv(), if room => self.asked(&mut speaker, question),
                () = tokio::time::sleep_until(self.next_sweep) => {
                    self.next_sweep = Instant::now() + self.desk.sweep_interval();
                    let idle = self.desk.sweep();
                    say_changes(&mut speaker, &[], &idle);
                }
            }
        }
    }

    fn heard(
        &mut self,
        channel: &Channel,
        speaker: &mut Speaker,
        message: Option<v1::DiscoveryResponse>,
    ) -> Result<(), End> {
        let closed =
            || End::Failed { problem: "the control plane ended the stream".to_owned(), disowned: false };
        match message.ok_or_else(closed)?.message {
            Some(Response::Epoch(epoch)) => {
                let generation = epoch.generation;
                let ack = self.adopt(epoch);
                speaker.say(Request::Ack(ack));
                self.backoff.reset();
                self.progress.connected();
                self.keep(generation);
                Ok(())
            }
            Some(Response::RetryAfter(later)) => {
                let nanos = later.after.map_or(0, |span| span.nanos);
                Err(End::Later { after: Duration::from_nanos(nanos), reason: later.reason })
            }
            Some(Response::Summons(summons)) => {
                if let Some(observer) = &self.observer {
                    observer.summoned(channel.clone(), summons.ticket);
                }
                Ok(())
            }
            // A kind of message that a later version added; it can ask nothing of this one.
            None => Ok(()),
        }
    }

    fn asked(&mut self, speaker: &mut Speaker, question: Question) {
        let changes = self.desk.ask(question, self.adopter.snapshot(), Instant::now());
        say_changes(speaker, &changes.add, &changes.drop);
    }
}

fn say_changes(speaker: &mut Speaker, add: &[Key], drop: &[Key]) {
    if add.is_empty() && drop.is_empty() {
        return;
    }
    let keys = |keys: &[Key]| keys.iter().map(v1::Key::from).collect();
    speaker.say(Request::Subscribe(v1::Subscribe { add: keys(add), drop: keys(drop) }));
}
