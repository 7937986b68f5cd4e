//! Destinations on demand: a data thread that meets an address it knows nothing about asks here, and
//! the chores thread asks the control plane.
//!
//! Stands between outbound's first room and *subscribe*: outbound → [`Lookup`] → (bounded queue) →
//! `Desk` → stream; the answer is the snapshot.
//!
//! Invariant: a question is answered once, or its asker stops waiting at the deadline; many askers of
//! one destination are one question to the control plane.
//! Invariant: a destination with a [`Lease`] is never forgotten; without one it is after its idle time.
//! Invariant: every queue and table has a bound.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, oneshot};
use weft_proxy_core::Name;

use crate::settings::Limits;

mod desk;

pub(crate) use desk::Desk;

/// Questions on their way to the chores thread. Source: one burst of new connections; more wait
/// within their deadline.
const QUEUE: usize = 1024;

/// What a data thread wants to know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// What an original destination means.
    Address(SocketAddr),
    /// How to call the service port of an explicit listener.
    Outbound(Name),
}

/// How a question ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The newest snapshot holds it.
    Arrived,
    /// The deadline came first.
    Late,
    /// The control plane has been out of reach for longer than the deadline: waiting would be in vain.
    Unreachable,
    /// As many destinations as may be are held, and all are in use.
    Full,
}

/// Asks for destinations; one for all data threads.
#[derive(Debug, Clone)]
pub struct Lookup {
    questions: mpsc::Sender<Question>,
    uses: Arc<Uses>,
    timeout: Duration,
}

/// Keeps a destination from being forgotten while a connection to it is open.
#[derive(Debug, Clone)]
pub struct Lease(#[expect(dead_code, reason = "its count is what matters")] Arc<Use>);

/// A question under way.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) wanted: Wanted,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// When a destination was last used.
#[derive(Debug)]
struct Use {
    last: AtomicU32,
}

/// Uses of all destinations, written by the chores thread, read by data threads.
#[derive(Debug, Default)]
struct Uses {
    table: ArcSwap<FxHashMap<SocketAddr, Arc<Use>>>,
    /// Grows by one at every sweep: a clock that costs a load.
    tick: AtomicU32,
}

/// The two ends of looking up.
pub(crate) fn lookup(limits: &Limits) -> (Lookup, Desk, mpsc::Receiver<Question>) {
    let (questions, queue) = mpsc::channel(QUEUE);
    let uses = Arc::new(Uses::default());
    let desk = Desk::new(limits, Arc::clone(&uses));
    (Lookup { questions, uses, timeout: limits.lookup_timeout }, desk, queue)
}

impl Lookup {
    /// Notes that a destination is used and keeps it for as long as the lease lives. `None`: it is not
    /// held on demand.
    pub fn lease(&self, address: &SocketAddr) -> Option<Lease> {
        let table = self.uses.table.load();
        let found = table.get(address)?;
        found.last.store(self.uses.tick.load(Ordering::Relaxed), Ordering::Relaxed);
        Some(Lease(Arc::clone(found)))
    }

    /// Asks the control plane and waits for the answer or the deadline. After [`Answer::Arrived`] the
    /// newest snapshot holds the destination; after anything else the mesh's rule for unknown
    /// destinations applies.
    ///
    /// # Cancel safety
    /// Dropping it drops the wait; the destination is looked up all the same.
    pub async fn ask(&self, wanted: Wanted) -> Answer {
        let (answer, answered) = oneshot::channel();
        let exchange = async {
            // A queue whose other end is gone: the process is ending.
            if self.questions.send(Question { wanted, answer }).await.is_err() {
                return Answer::Unreachable;
            }
            answered.await.unwrap_or(Answer::Unreachable)
        };
        tokio::time::timeout(self.timeout, exchange).await.unwrap_or(Answer::Late)
    }
}

#[cfg(test)]
mod tests;
