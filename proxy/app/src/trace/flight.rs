//! The requests that the application has in flight, for whoever must guess what a call belongs to.
//!
//! An application that passes on no trace fields breaks its traces. Where a policy asks for it, a call is taken
//! for a part of the one inbound request that is in flight, if there was none other since that began.
//!
//! Invariant: switched off, it costs one relaxed load. Switched on, nobody waits for anybody: who finds the
//! place taken does not guess.
//! Invariant: a guess is only made while exactly one request is in flight, by all workers' count.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::context::TraceContext;

/// The requests in flight.
#[derive(Debug, Default)]
pub struct Flight {
    on: AtomicBool,
    /// How often one began, and how many there are: 32 bits each.
    state: AtomicU64,
    /// The one that began last, and its number.
    last: Mutex<Option<(u64, TraceContext)>>,
}

/// One that began, in `state`; it counts itself too.
const BEGAN: u64 = (1 << 32) | 1;
const COUNT: u64 = 0xffff_ffff;

impl Flight {
    /// Switches guessing on or off.
    pub fn set(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// An inbound request begins; whether it was counted, so that it must [`leave`](Self::leave).
    pub fn enter(&self, context: Option<&TraceContext>) -> bool {
        if !self.on.load(Ordering::Relaxed) {
            return false;
        }
        let before = self.state.fetch_add(BEGAN, Ordering::AcqRel);
        let number = before.wrapping_add(BEGAN) >> 32;
        if before & COUNT == 0
            && let Ok(mut last) = self.last.try_lock()
        {
            *last = context.map(|context| (number, *context));
        }
        true
    }

    /// A request that was counted has ended.
    pub fn leave(&self) {
        self.state.fetch_sub(1, Ordering::AcqRel);
    }

    /// The only request in flight, if it is kept, and alone since it began.
    pub fn only(&self) -> Option<TraceContext> {
        if !self.on.load(Ordering::Relaxed) {
            return None;
        }
        let state = self.state.load(Ordering::Acquire);
        if state & COUNT != 1 {
            return None;
        }
        let (number, context) = (*self.last.try_lock().ok()?)?;
        (number == state >> 32).then_some(context)
    }
}
