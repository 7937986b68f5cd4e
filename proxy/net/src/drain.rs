//! The end of a worker: tell everyone, count who is left, wait up to a deadline.
//!
//! One [`Drain`] per thread. Connections hold a [`Guard`], look at [`Drain::phase`] or wait for it; whoever
//! stops the process begins the drain and waits until the last guard is gone.
//!
//! Invariant: the phase only moves forward: serving, draining, cut.
//! Invariant: a guard dropped in any way (return, error, panic, cancellation) is counted out.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::task::JoinHandle;

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Business as usual.
    Serving,
    /// Finish what is in flight, take no more on standing connections.
    Draining,
    /// The deadline has passed: end now.
    Cut,
}

#[derive(Debug)]
struct Inner {
    phase: Cell<Phase>,
    guards: Cell<usize>,
    /// Those who wait for a phase or for emptiness; a stale waker costs one wasted poll.
    waiting: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
}

/// A thread's drain signal.
#[derive(Debug, Clone)]
pub struct Drain(Rc<Inner>);

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    /// Serving, nobody counted.
    #[must_use]
    pub fn new() -> Self {
        Self(Rc::new(Inner {
            phase: Cell::new(Phase::Serving),
            guards: Cell::new(0),
            waiting: RefCell::default(),
            free: RefCell::default(),
        }))
    }

    /// How far the end has come.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.0.phase.get()
    }

    /// How many guards are alive.
    #[must_use]
    pub fn live(&self) -> usize {
        self.0.guards.get()
    }

    /// Counts someone in, until the guard is dropped.
    #[must_use]
    pub fn guard(&self) -> Guard {
        self.0.guards.set(self.0.guards.get() + 1);
        Guard(self.clone())
    }

    /// Starts a counted task on this thread.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        tokio::task::spawn_local(Counted { future, _guard: self.guard() })
    }

    /// Moves forward to `phase`, never back, and wakes who waits.
    pub fn advance(&self, phase: Phase) {
        if phase > self.0.phase.get() {
            self.0.phase.set(phase);
            self.wake();
        }
    }

    /// A waiter for a phase; to be kept and polled with the connection's own future.
    #[must_use]
    pub fn signal(&self) -> Signal {
        let slot = self.0.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut waiting = self.0.waiting.borrow_mut();
            waiting.push(None);
            waiting.len() - 1
        });
        Signal { drain: self.clone(), slot }
    }

    /// Waits until `phase` is reached.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn reached(&self, phase: Phase) {
        let signal = self.signal();
        poll_fn(|cx| signal.poll_reached(cx, phase)).await;
    }

    /// Waits until the last guard is gone.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn empty(&self) {
        let signal = self.signal();
        poll_fn(|cx| signal.poll_when(cx, |drain| drain.live() == 0)).await;
    }

    /// Begins to drain and waits until nobody is left, at most `within`; then cuts. Returns how many were cut.
    ///
    /// # Cancel safety
    /// When dropped, the drain has begun and nothing is cut.
    pub async fn finish(&self, within: Duration) -> usize {
        self.advance(Phase::Draining);
        let left = match tokio::time::timeout(within, self.empty()).await {
            Ok(()) => 0,
            Err(_) => self.live(),
        };
        self.advance(Phase::Cut);
        left
    }

    fn wake(&self) {
        let wakers: Vec<Waker> = self.0.waiting.borrow_mut().iter_mut().filter_map(Option::take).collect();
        for waker in wakers {
            waker.wake();
        }
    }
}

/// One waiter's place.
#[derive(Debug)]
pub struct Signal {
    drain: Drain,
    slot: usize,
}

impl Signal {
    /// How far the end has come.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.drain.phase()
    }

    /// Ready once `phase` is reached; otherwise the task is woken when the phase moves.
    pub fn poll_reached(&self, cx: &mut Context<'_>, phase: Phase) -> Poll<()> {
        self.poll_when(cx, |drain| drain.phase() >= phase)
    }

    fn poll_when(&self, cx: &mut Context<'_>, done: impl Fn(&Drain) -> bool) -> Poll<()> {
        if done(&self.drain) {
            return Poll::Ready(());
        }
        if let Some(place) = self.drain.0.waiting.borrow_mut().get_mut(self.slot) {
            match place {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *place = Some(cx.waker().clone()),
            }
        }
        Poll::Pending
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        if let Some(place) = self.drain.0.waiting.borrow_mut().get_mut(self.slot) {
            *place = None;
        }
        self.drain.0.free.borrow_mut().push(self.slot);
    }
}

/// Counts as alive until dropped.
#[derive(Debug)]
pub struct Guard(Drain);

impl Drop for Guard {
    fn drop(&mut self) {
        let left = self.0.0.guards.get().saturating_sub(1);
        self.0.0.guards.set(left);
        if left == 0 && self.0.phase() > Phase::Serving {
            self.0.wake();
        }
    }
}

pin_project_lite::pin_project! {
    /// A future and its guard, without a second copy of the future.
    struct Counted<F> {
        #[pin]
        future: F,
        _guard: Guard,
    }
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;
    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().future.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "local")]
    async fn waits_for_the_last_guard_and_cuts_nobody() {
        let drain = Drain::new();
        let (open, opened) = tokio::sync::oneshot::channel::<()>();
        let task = drain.spawn(opened);
        assert_eq!(drain.live(), 1);
        let other = drain.clone();
        tokio::task::spawn_local(async move {
            other.reached(Phase::Draining).await;
            open.send(()).unwrap();
        });
        assert_eq!(drain.finish(Duration::from_secs(20)).await, 0);
        task.await.unwrap().unwrap();
        assert_eq!(drain.phase(), Phase::Cut);
    }

    #[tokio::test(flavor = "local")]
    async fn cuts_those_who_stay_and_never_goes_back() {
        let drain = Drain::new();
        let stays = drain.guard();
        assert_eq!(drain.finish(Duration::from_millis(1)).await, 1);
        drain.advance(Phase::Draining);
        assert_eq!(drain.phase(), Phase::Cut);
        drain.reached(Phase::Cut).await;
        drop(stays);
        drain.empty().await;
    }

    #[tokio::test(flavor = "local")]
    async fn a_dropped_signal_gives_its_place_back() {
        let drain = Drain::new();
        for _ in 0..100 {
            let signal = drain.signal();
            poll_fn(|cx| {
                assert!(signal.poll_reached(cx, Phase::Cut).is_pending());
                Poll::Ready(())
            })
            .await;
        }
        assert_eq!(drain.0.waiting.borrow().len(), 1);
    }
}
