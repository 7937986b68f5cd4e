//! The health of one endpoint: closed, ejected, or probed by one request.
//!
//! Under `balance`, which owns one of these for each endpoint and decides how many may be out at once.
//!
//! ```text
//!            enough consecutive failures          ejection over
//!   Closed ─────────────────────────────▶ Ejected ─────────────▶ Probing
//!      ▲                                     ▲                     │  │
//!      │                                     └───────failure───────┘  │
//!      └──────────────────────success─────────────────────────────────┘
//! ```
//!
//! Invariant: while ejected nothing is sent; while probing one request at most, until it ends or its
//! lease does.

use std::time::Duration;

use crate::backend::Outlier;
use crate::moment::Moment;

/// How an exchange with an endpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered.
    Success {
        /// Time to the head of the answer (for bytes: to the connection).
        latency: Duration,
    },
    /// Connect error, reset, timeout or a server error.
    Failure,
    /// The downstream went away: says nothing about the endpoint.
    Cancelled,
}

/// A change that metrics, logs and traces show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The endpoint gets no traffic before `until`.
    Ejected {
        /// When a probe is due.
        until: Moment,
    },
    /// The endpoint takes its share again.
    Restored,
}

/// Health of one endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct Health {
    state: State,
    failures: u32,
    ejections: u32,
    restored: Moment,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Closed,
    Ejected {
        until: Moment,
    },
    Probing {
        since: Moment,
        lease: Moment,
    },
}

impl Health {
    /// Whether it takes its share of traffic.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        match self.state {
            State::Closed => true,
            State::Ejected { .. } | State::Probing { .. } => false,
        }
    }

    /// When one request may be sent as a probe; `None` while closed.
    #[must_use]
    pub fn probe_due(&self) -> Option<Moment> {
        match self.state {
            State::Closed => None,
            State::Ejected { until } => Some(until),
            State::Probing { lease, .. } => Some(lease),
        }
    }

    /// Whether an exchange that began at `begun` says nothing about the endpoint as it is now: it went
    /// out before the ejection, or before the probe that is under way.
    #[must_use]
    pub fn is_stale(&self, begun: Moment) -> bool {
        match self.state {
            State::Closed => false,
            State::Ejected { .. } => true,
            State::Probing { since, .. } => begun < since,
        }
    }

    /// A probe goes out. If its end is never told, another may follow after `lease`.
    pub fn probe(&mut self, now: Moment, lease: Duration) {
        self.state = State::Probing { since: now, lease: now.plus(lease) };
    }

    /// An exchange succeeded.
    pub fn succeeded(&mut self, now: Moment) -> Option<Event> {
        self.failures = 0;
        match self.state {
            State::Closed => None,
            // The answer to a request sent before the ejection proves nothing about now.
            State::Ejected { .. } => None,
            State::Probing { .. } => Some(self.restore(now)),
        }
    }

    /// An exchange failed; `room` tells whether one more endpoint may be ejected.
    pub fn failed(&mut self, outlier: &Outlier, now: Moment, room: bool) -> Option<Event> {
        self.failures = self.failures.saturating_add(1);
        match self.state {
            State::Closed => {
                let enough =
                    outlier.consecutive_failures > 0 && self.failures >= outlier.consecutive_failures;
                (enough && room).then(|| self.eject(outlier, now))
            }
            State::Ejected { .. } => None,
            State::Probing { .. } => Some(self.eject(outlier, now)),
        }
    }

    /// An exchange ended without a word about the endpoint: a probe may be repeated at once.
    pub fn cancelled(&mut self, now: Moment) {
        match self.state {
            State::Probing { .. } => self.state = State::Ejected { until: now },
            State::Closed | State::Ejected { .. } => {}
        }
    }

    /// It takes its share again, whatever was.
    pub fn restore(&mut self, now: Moment) -> Event {
        self.state = State::Closed;
        self.failures = 0;
        self.restored = now;
        Event::Restored
    }

    fn eject(&mut self, outlier: &Outlier, now: Moment) -> Event {
        if self.is_closed() && now.since(self.restored) > outlier.max_ejection {
            self.ejections = 0;
        }
        let doubling = 1u32.checked_shl(self.ejections.min(31)).unwrap_or(u32::MAX);
        let span = outlier.base_ejection.saturating_mul(doubling).min(outlier.max_ejection);
        self.ejections = self.ejections.saturating_add(1);
        self.failures = 0;
        let until = now.plus(span);
        self.state = State::Ejected { until };
        Event::Ejected { until }
    }
}
