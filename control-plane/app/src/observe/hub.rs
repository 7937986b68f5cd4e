//! Who asks what of whom at this moment: questions under way, and the sidecars that are to come for them.
//!
//! Before it: `service` and `front` have judged who asks. After it: `conduct` gathers what comes.
//!
//! Invariant: a ticket is good for one arrival, of the identity that was summoned, and only while somebody
//! waits for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use aws_lc_rs::rand;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use weft_proto::v1;
use weft_proto::v1::question::What;

use super::conduct;
use super::replicas::Replicas;
use crate::publish::Reader;
use crate::status::Status;

/// Short questions at once. Source: Weft's own; a dashboard or two, and a few people.
const QUESTIONS: usize = 64;
/// Taps at once. Source: Weft's own; each costs a stream to every sidecar that it concerns.
const TAPS: usize = 16;
/// Parts of an answer that wait for who asked. Source: Weft's own; what sidecars say waits at the sidecars.
const QUEUE: usize = 16;
/// Parts that wait to be put together. Source: one of each sidecar of a namespace.
const HEARD: usize = 64;

/// Kinds of subjects. Source: the contract.
const KINDS: [&str; 5] = ["", "workload", "pod", "service", "namespace"];

/// Where questions are asked and answered; cloning it is cheap.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    status: Arc<Status>,
    reader: Reader,
    waiting: Mutex<HashMap<String, Waiting>>,
    questions: Arc<Semaphore>,
    taps: Arc<Semaphore>,
    replicas: OnceLock<Replicas>,
    stop: CancellationToken,
}

/// A summons under way.
pub(super) struct Waiting {
    pub(super) workload: String,
    identity: String,
    pub(super) question: Arc<v1::Question>,
    pub(super) told: mpsc::Sender<Heard>,
}

/// What was heard of one that was asked.
pub(super) struct Heard {
    /// The sidecar's pod, or the replica's.
    pub(super) who: String,
    pub(super) what: Word,
}

/// What one says.
pub(super) enum Word {
    /// A sidecar has come.
    Here,
    /// It tells.
    Told(v1::testimony::Told),
    /// A replica passes on.
    Found(Box<v1::Finding>),
    /// It is done.
    Done,
    /// It says nothing, and why.
    Silent(String),
}

/// Tickets that are given back when nobody waits any more.
pub(super) struct Tickets {
    hub: Hub,
    tickets: Vec<String>,
}

/// Why a question is not asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It makes no sense.
    #[error("{0}")]
    Question(String),
    /// Too many are under way.
    #[error("too many questions at once: try again in a moment")]
    Busy,
}

impl Hub {
    /// A hub of the sidecars in `status`, with the names in what `reader` has, until `stop`.
    pub fn new(status: Arc<Status>, reader: Reader, stop: CancellationToken) -> Self {
        Self(Arc::new(Inner {
            status,
            reader,
            waiting: Mutex::default(),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            taps: Arc::new(Semaphore::new(TAPS)),
            replicas: OnceLock::new(),
            stop,
        }))
    }

    /// From now on other replicas are asked as well.
    pub fn beside(&self, replicas: Replicas) {
        // There is one set of them in a process.
        let _ = self.0.replicas.set(replicas);
    }

    /// Asks; what comes is found in the returned queue, which ends with the answer. Dropping it ends the
    /// question.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn ask(&self, question: v1::Question) -> Result<mpsc::Receiver<v1::Finding>, Refused> {
        let question = checked(question)?;
        let places =
            if matches!(question.what, Some(What::Tap(_))) { &self.0.taps } else { &self.0.questions };
        let place = Arc::clone(places).try_acquire_owned().map_err(|_| Refused::Busy)?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let hub = self.clone();
        tokio::spawn(async move {
            let _place = place;
            let stop = hub.0.stop.clone();
            tokio::select! {
                () = conduct::conduct(&hub, question, &sender) => {}
                () = sender.closed() => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(receiver)
    }

    pub(super) fn status(&self) -> &Status {
        &self.0.status
    }

    pub(super) fn reader(&self) -> &Reader {
        &self.0.reader
    }

    pub(super) fn replicas(&self) -> Option<&Replicas> {
        self.0.replicas.get()
    }

    /// Ends when the process does.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// Where a question's answers are heard, and the tickets that lead there.
    pub(super) fn listen(&self) -> (Tickets, mpsc::Sender<Heard>, mpsc::Receiver<Heard>) {
        let (told, heard) = mpsc::channel(HEARD);
        (Tickets { hub: self.clone(), tickets: Vec::new() }, told, heard)
    }

    /// What a sidecar of `identity` that shows a ticket has come for.
    pub(super) fn arrived(&self, ticket: &str, identity: &str) -> Option<Waiting> {
        let mut waiting = self.waiting();
        // A stranger's guess takes nobody's place.
        waiting.get(ticket).filter(|waiting| waiting.identity == identity)?;
        waiting.remove(ticket)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        // Entries are put and taken whole.
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tickets {
    /// A ticket for one sidecar; `None`: there is no randomness.
    pub(super) fn issue(
        &mut self,
        workload: &str,
        identity: &str,
        question: &Arc<v1::Question>,
        told: &mpsc::Sender<Heard>,
    ) -> Option<String> {
        let mut bytes = [0_u8; 16];
        rand::fill(&mut bytes).ok()?;
        let ticket: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let waiting = Waiting {
            workload: workload.to_owned(),
            identity: identity.to_owned(),
            question: Arc::clone(question),
            told: told.clone(),
        };
        self.hub.waiting().insert(ticket.clone(), waiting);
        self.tickets.push(ticket.clone());
        Some(ticket)
    }
}

impl Drop for Tickets {
    fn drop(&mut self) {
        let mut waiting = self.hub.waiting();
        for ticket in &self.tickets {
            waiting.remove(ticket);
        }
    }
}

/// A question that makes sense, with what it leaves unsaid.
fn checked(mut question: v1::Question) -> Result<v1::Question, Refused> {
    let namespace = question.namespace.clone();
    let mut subjects: Vec<&mut v1::Subject> = question.subject.iter_mut().collect();
    match &mut question.what {
        Some(What::Stat(stat)) => {
            if !["", "workload", "pod", "service", "namespace"].contains(&stat.by.as_str()) {
                return Err(Refused::Question(format!("edges are not shown by {:?}", stat.by)));
            }
            subjects.extend(stat.from.iter_mut().chain(stat.to.iter_mut()));
        }
        Some(What::Tap(tap)) => subjects.extend(tap.from.iter_mut().chain(tap.to.iter_mut())),
        Some(What::Recall(recall)) if recall.request_id.is_empty() => {
            return Err(Refused::Question("which request? its id is missing".to_owned()));
        }
        Some(What::Recall(_)) => {}
        // Whose sidecar walks.
        Some(What::Explain(_)) => match subjects.first() {
            Some(subject) if !subject.name.is_empty() && ["pod", "workload"].contains(&&*subject.kind) => {}
            _ => {
                let text = "whose sidecar is to explain it? Name a pod or a workload as the subject";
                return Err(Refused::Question(text.to_owned()));
            }
        },
        None => return Err(Refused::Question("nothing is asked that is known here".to_owned())),
    }
    for subject in subjects {
        if !KINDS.contains(&subject.kind.as_str()) {
            return Err(Refused::Question(format!("a kind {:?} is not known here", subject.kind)));
        }
        if subject.namespace.is_empty() {
            subject.namespace.clone_from(&namespace);
        }
    }
    Ok(question)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::Publisher;

    fn hub() -> Hub {
        Hub::new(Arc::default(), Publisher::default().reader(), CancellationToken::new())
    }

    #[test]
    fn a_ticket_is_good_once_and_for_whom_it_was_made() {
        let hub = hub();
        let (mut tickets, told, _heard) = hub.listen();
        let question = Arc::new(v1::Question::default());
        let ticket = tickets.issue("shop/cart-0", "spiffe://td/ns/shop/sa/cart", &question, &told).unwrap();
        assert!(hub.arrived(&ticket, "spiffe://td/ns/shop/sa/web").is_none(), "another identity");
        assert!(hub.arrived("0000", "spiffe://td/ns/shop/sa/cart").is_none());
        assert!(hub.arrived(&ticket, "spiffe://td/ns/shop/sa/cart").is_some());
        assert!(hub.arrived(&ticket, "spiffe://td/ns/shop/sa/cart").is_none(), "used");
        let late = tickets.issue("shop/cart-0", "spiffe://td/ns/shop/sa/cart", &question, &told).unwrap();
        drop(tickets);
        assert!(hub.arrived(&late, "spiffe://td/ns/shop/sa/cart").is_none(), "nobody waits any more");
    }

    #[test]
    fn a_question_without_sense_is_refused_in_words() {
        let stat = |by: &str| What::Stat(v1::StatQuestion { by: by.to_owned(), from: None, to: None });
        let subject = |kind: &str| v1::Subject { kind: kind.to_owned(), ..v1::Subject::default() };
        let ask = |what, subject| checked(v1::Question { what, subject, ..v1::Question::default() });
        assert!(ask(None, None).is_err());
        assert!(ask(Some(stat("moon")), None).is_err());
        assert!(ask(Some(stat("")), Some(subject("moon"))).is_err());
        assert!(ask(Some(What::Recall(v1::RecallQuestion::default())), None).is_err());
        let question = v1::Question {
            namespace: "shop".to_owned(),
            subject: Some(subject("workload")),
            what: Some(stat("pod")),
            ..v1::Question::default()
        };
        assert_eq!(checked(question).unwrap().subject.unwrap().namespace, "shop");
    }
}
