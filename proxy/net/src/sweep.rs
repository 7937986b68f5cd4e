//! One coarse timer per thread for all deadlines of connections: idle, header, handshake.
//!
//! A connection holds a [`Watch`]; arming, touching and disarming it store a number. Every [`TICK`] the
//! thread's [`Sweep`] looks at all watches once and wakes the owners of those that are due. Cold paths that
//! need a precise moment use [`deadline`].
//!
//! Invariant: a deadline is never early; it is late by two ticks at most, plus what the thread is behind.
//! Invariant: arming, touching and disarming allocate nothing and make no system call.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// How often the sweep looks.
/// Source: measured, a timer per request costs 12 % of an HTTP/1 hop's CPU; a quarter of a second is below
/// what any default deadline can notice.
pub const TICK: Duration = Duration::from_millis(250);

/// Why a watched connection was woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Its own deadline has passed.
    Deadline,
    /// Everything on this thread is to end now: the drain's deadline has passed.
    Cut,
}

/// A place in the sweep's table.
#[derive(Debug, Default)]
struct Slot {
    /// The tick at which the watch is due; 0 for never.
    due: u64,
    /// Ticks that [`Watch::touch`] adds.
    period: u64,
    waker: Option<Waker>,
    /// The next free slot, when this one is free.
    next_free: Option<usize>,
}

#[derive(Debug, Default)]
struct Table {
    slots: Vec<Slot>,
    free: Option<usize>,
}

#[derive(Debug)]
struct Inner {
    tick: Cell<u64>,
    cut: Cell<bool>,
    table: RefCell<Table>,
}

/// All watched deadlines of one thread.
#[derive(Debug, Clone)]
pub struct Sweep(Rc<Inner>);

impl Default for Sweep {
    fn default() -> Self {
        Self::new()
    }
}

impl Sweep {
    /// An empty table; [`Sweep::run`] makes it tick.
    #[must_use]
    pub fn new() -> Self {
        let table = RefCell::new(Table::default());
        Self(Rc::new(Inner { tick: Cell::new(1), cut: Cell::new(false), table }))
    }

    /// A watch that is not armed.
    #[must_use]
    pub fn watch(&self) -> Watch {
        let mut table = self.0.table.borrow_mut();
        let slot = match table.free {
            Some(slot) => slot,
            None => {
                table.slots.push(Slot::default());
                table.slots.len() - 1
            }
        };
        let mut next = None;
        if let Some(place) = table.slots.get_mut(slot) {
            next = place.next_free.take();
        }
        table.free = next;
        drop(table);
        Watch { sweep: self.clone(), slot }
    }

    /// Ticks passed so far: a clock that costs a load.
    #[must_use]
    pub fn ticks(&self) -> u64 {
        self.0.tick.get()
    }

    /// Ends everything watched: every watch becomes due with [`Due::Cut`], those made later too.
    pub fn cut(&self) {
        self.0.cut.set(true);
        self.wake(|_| true);
    }

    /// Ticks until dropped; one task per thread.
    ///
    /// # Cancel safety
    /// May be dropped at any time; deadlines then stand still.
    pub async fn run(self) {
        let mut timer = tokio::time::interval(TICK);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let start = Instant::now();
        let before = self.0.tick.get();
        loop {
            timer.tick().await;
            let passed = start.elapsed().as_millis() / TICK.as_millis();
            self.advance_to(before.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX)));
        }
    }

    fn advance_to(&self, tick: u64) {
        if tick > self.0.tick.get() {
            self.0.tick.set(tick);
            self.wake(|slot| slot.due != 0 && slot.due <= tick);
        }
    }

    /// Wakes the owners of the slots that `which` names; none of them runs before this returns.
    fn wake(&self, which: impl Fn(&Slot) -> bool) {
        let mut table = self.0.table.borrow_mut();
        for slot in table.slots.iter_mut().filter(|slot| slot.waker.is_some()) {
            if which(slot)
                && let Some(waker) = slot.waker.take()
            {
                waker.wake();
            }
        }
    }
}

/// One connection's deadline.
#[derive(Debug)]
pub struct Watch {
    sweep: Sweep,
    slot: usize,
}

impl Watch {
    /// Due after `period`; each [`Watch::touch`] starts it again.
    pub fn arm(&self, period: Duration) {
        // One more, because the running tick has already begun.
        let period = u64::try_from(period.as_millis().div_ceil(TICK.as_millis())).unwrap_or(u64::MAX / 2);
        let period = period.saturating_add(1);
        self.with(|slot, now| {
            slot.period = period;
            slot.due = now.saturating_add(period);
        });
    }

    /// Something happened: the period starts again; nothing when not armed.
    pub fn touch(&self) {
        self.with(|slot, now| {
            if slot.due != 0 {
                slot.due = now.saturating_add(slot.period);
            }
        });
    }

    /// No deadline.
    pub fn disarm(&self) {
        self.with(|slot, _| slot.due = 0);
    }

    /// Whether the deadline has passed or everything is cut.
    #[must_use]
    pub fn due(&self) -> Option<Due> {
        if self.sweep.0.cut.get() {
            return Some(Due::Cut);
        }
        let passed = self.with(|slot, now| slot.due != 0 && slot.due <= now);
        passed.unwrap_or(false).then_some(Due::Deadline)
    }

    /// Ready when due; otherwise the task is woken once it is.
    pub fn poll_due(&self, cx: &mut Context<'_>) -> Poll<Due> {
        if let Some(due) = self.due() {
            return Poll::Ready(due);
        }
        self.with(|slot, _| match &mut slot.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        });
        Poll::Pending
    }

    fn with<R>(&self, work: impl FnOnce(&mut Slot, u64) -> R) -> Option<R> {
        let now = self.sweep.0.tick.get();
        let mut table = self.sweep.0.table.borrow_mut();
        table.slots.get_mut(self.slot).map(|slot| work(slot, now))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Ok(mut table) = self.sweep.0.table.try_borrow_mut() else { return };
        let next_free = table.free;
        if let Some(slot) = table.slots.get_mut(self.slot) {
            *slot = Slot { next_free, ..Slot::default() };
            table.free = Some(self.slot);
        }
    }
}

/// The time for a cold path ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not done within {0:?}")]
pub struct TooLate(pub Duration);

/// Runs a cold path (dial, handshake, first bytes) with a precise deadline.
///
/// # Errors
/// [`TooLate`] when `future` was not done in time; it is dropped then.
///
/// # Cancel safety
/// That of `future`.
pub async fn deadline<F: Future>(future: F, within: Duration) -> Result<F::Output, TooLate> {
    tokio::time::timeout(within, future).await.map_err(|_| TooLate(within))
}

#[cfg(test)]
mod tests;
