//! The gRPC service: sidecars that come with a ticket, and programs and replicas that ask.
//!
//! Before it: `listen` proved who the peer is. After it: the `hub`.
//!
//! Invariant: Ask is answered to the identities that were named for it and to the control plane's own, and to
//! nobody else; Answer to whom holds a ticket.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use weft_proto::names::SpiffeId;
use weft_proto::v1;
use weft_proto::v1::observe_server::Observe;
use weft_proto::v1::testimony::Told;

use super::hub::{Heard, Hub, Refused, Waiting, Word};
use crate::peer::{Peer, Proven};

/// Largest message of a sidecar or replica. Source: all edges that one may have, and room.
pub const MESSAGE_LIMIT: usize = 16 * 1024 * 1024;
/// Time for the first message of a sidecar that has come. Source: as for a Hello.
const ARRIVAL: Duration = Duration::from_secs(10);

/// The service.
#[derive(Clone)]
pub struct Looking {
    hub: Hub,
    /// Who may ask.
    observers: Arc<[SpiffeId]>,
    /// The control plane's own identity: another replica.
    own: SpiffeId,
}

impl Looking {
    /// A service of `hub` for `observers` and other replicas.
    pub fn new(hub: Hub, observers: Vec<SpiffeId>, own: SpiffeId) -> Self {
        Self { hub, observers: observers.into(), own }
    }
}

#[tonic::async_trait]
impl Observe for Looking {
    type AnswerStream = ReceiverStream<Result<v1::Question, Status>>;
    type AskStream = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::Finding, Status>> + Send>>;

    async fn answer(
        &self,
        request: Request<Streaming<v1::Testimony>>,
    ) -> Result<Response<Self::AnswerStream>, Status> {
        let peer = proven(&request)?;
        let mut testimony = request.into_inner();
        let first = timeout(ARRIVAL, testimony.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("nobody arrived"))??;
        let Some(Told::Arrival(arrival)) = first.and_then(|first| first.told) else {
            return Err(Status::invalid_argument("the first message must be an Arrival"));
        };
        let waiting = self.hub.arrived(&arrival.ticket, &peer.id.to_string()).ok_or_else(|| {
            Status::permission_denied("nobody waits for you: the ticket is unknown, used, or another's")
        })?;
        let (sender, receiver) = mpsc::channel(1);
        // The queue is empty.
        let _ = sender.try_send(Ok(v1::Question::clone(&waiting.question)));
        let stop = self.hub.stop().clone();
        tokio::spawn(async move {
            // While the question lives, so does the stream on which it was put.
            let _sender = sender;
            tokio::select! {
                () = hear(waiting, testimony) => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn ask(&self, request: Request<v1::Question>) -> Result<Response<Self::AskStream>, Status> {
        let peer = proven(&request)?;
        let mut question = request.into_inner();
        question.relayed = peer.id == self.own;
        if !question.relayed && !self.observers.contains(&peer.id) {
            tracing::warn!(identity = %peer.id, "who may not look at the mesh asked");
            return Err(Status::permission_denied(format!(
                "{0} may not look at the mesh: start the control plane with --observer {0}",
                peer.id
            )));
        }
        if !question.relayed {
            tracing::info!(identity = %peer.id, namespace = question.namespace, "a look at the mesh");
        }
        let findings = self.hub.ask(question).map_err(|refused| match refused {
            Refused::Question(text) => Status::invalid_argument(text),
            Refused::Busy => Status::resource_exhausted(refused.to_string()),
        })?;
        Ok(Response::new(Box::pin(ReceiverStream::new(findings).map(Ok))))
    }
}

/// Who calls, by its certificate.
fn proven<T>(request: &Request<T>) -> Result<Proven, Status> {
    let peer = request.extensions().get::<Peer>();
    let proven = peer.and_then(|peer| peer.identity.clone());
    proven.ok_or_else(|| Status::unauthenticated("a client certificate is needed: call Identity.Sign first"))
}

/// Hears a sidecar until it is done, or until nobody listens.
async fn hear(waiting: Waiting, mut testimony: Streaming<v1::Testimony>) {
    let say = |what| Heard { who: waiting.workload.clone(), what };
    if waiting.told.send(say(Word::Here)).await.is_err() {
        return;
    }
    loop {
        let message = tokio::select! {
            message = testimony.message() => message,
            () = waiting.told.closed() => return,
        };
        let word = match message {
            Ok(Some(v1::Testimony { told: Some(told) })) => Word::Told(told),
            // A kind of word that a later version added.
            Ok(Some(v1::Testimony { told: None })) => continue,
            Ok(None) => Word::Done,
            Err(status) => Word::Silent(format!("its answer broke off: {}", status.message())),
        };
        let last = matches!(word, Word::Done | Word::Silent(_));
        if waiting.told.send(say(word)).await.is_err() || last {
            return;
        }
    }
}
