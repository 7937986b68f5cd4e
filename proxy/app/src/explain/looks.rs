//! What the data threads' balancers see, asked from the chores thread.
//!
//! Each data thread looks for a question once a tick, which is one atomic load, and answers it once.
//!
//! Invariant: one question at a time; who does not answer in time is left out.
//! Invariant: nothing is asked of a data thread while it serves a request.

use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::sync::{Mutex, mpsc, watch};
use weft_proxy_core::balance::{Look, Standing};
use weft_proxy_core::explain::{Balancers, Imagined};
use weft_proxy_core::{Backend, Name};
use weft_proxy_net::http::live::TICK;

/// Ticks that a data thread has to answer. Source: ours; one may just have gone by, and a busy thread is late.
const TICKS: u32 = 4;
/// Source: more than there are data threads.
const ANSWERS: usize = 256;

/// A question to all data threads, and where the answers go.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    names: Arc<[Name]>,
    answers: mpsc::Sender<Vec<(Name, Look)>>,
}

/// Asks the data threads.
#[derive(Debug)]
pub(crate) struct Looking {
    question: watch::Sender<Option<Question>>,
    /// Held while a question is open.
    turn: Mutex<()>,
    threads: usize,
}

/// A data thread's end.
#[derive(Debug)]
pub(crate) struct Asked(watch::Receiver<Option<Question>>);

/// What the threads said.
#[derive(Debug, Default)]
pub(crate) struct Looks(FxHashMap<Name, Look>);

impl Looking {
    /// Asks so many data threads.
    pub(crate) fn new(threads: usize) -> Self {
        Self { question: watch::Sender::new(None), turn: Mutex::new(()), threads }
    }

    /// A data thread's end.
    pub(crate) fn end(&self) -> Asked {
        Asked(self.question.subscribe())
    }

    /// How the endpoints of these backends stand.
    ///
    /// # Cancel safety
    /// Nothing is lost; the threads may answer in vain.
    pub(crate) async fn ask(&self, names: Vec<Name>) -> Looks {
        let _turn = self.turn.lock().await;
        let (answers, mut answered) = mpsc::channel(ANSWERS);
        self.question.send_replace(Some(Question { names: names.into(), answers }));
        let mut looks = Looks::default();
        let collecting = async {
            for _ in 0..self.threads {
                let Some(answer) = answered.recv().await else { return };
                answer.into_iter().for_each(|(name, look)| looks.add(name, look));
            }
        };
        // Who is late is left out.
        let _ = tokio::time::timeout(TICK * TICKS, collecting).await;
        self.question.send_replace(None);
        looks
    }
}

impl Asked {
    /// Answers a question that was not answered yet.
    pub(crate) fn answer(&mut self, look: impl Fn(&Name) -> Option<Look>) {
        if !self.0.has_changed().unwrap_or(false) {
            return;
        }
        let Some(question) = self.0.borrow_and_update().clone() else { return };
        let seen = question.names.iter().filter_map(|name| Some((name.clone(), look(name)?)));
        // Who asked may have given up.
        let _ = question.answers.try_send(seen.collect());
    }
}

impl Looks {
    /// Adds what one thread sees to what others do: an endpoint counts as ejected while every thread that
    /// uses it says so.
    fn add(&mut self, name: Name, look: Look) {
        let Some(held) = self.0.get_mut(&name) else {
            self.0.insert(name, look);
            return;
        };
        for endpoint in &mut held.endpoints {
            let Some(other) = look.endpoints.iter().find(|it| it.address == endpoint.address) else {
                continue;
            };
            endpoint.ejected = endpoint.ejected.zip(other.ejected).map(|(one, other)| one.min(other));
            endpoint.in_flight = endpoint.in_flight.saturating_add(other.in_flight);
            endpoint.latency = Duration::max(endpoint.latency, other.latency);
        }
        if rank(look.standing) < rank(held.standing) {
            held.standing = look.standing;
        }
    }
}

fn rank(standing: Standing) -> u8 {
    match standing {
        Standing::Ready => 0,
        Standing::Probe => 1,
        Standing::CircuitOpen => 2,
        Standing::NoneReady => 3,
    }
}

impl Balancers for Looks {
    fn look(&self, name: &Name, backend: &Arc<Backend>) -> Look {
        // What no thread has used yet is as it is configured.
        self.0.get(name).cloned().unwrap_or_else(|| Imagined::default().look(name, backend))
    }

    fn basis(&self) -> &'static str {
        "as the sidecar sees it now"
    }
}
