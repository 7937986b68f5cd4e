//! Peak-EWMA: what one endpoint costs at the moment.
//!
//! Under `balance`, which compares two of these a request.
//!
//! Invariant: pure arithmetic on a latency, a time and a count; never NaN, never negative.

use std::time::Duration;

use crate::moment::Moment;

/// A moving estimate of an endpoint's latency that rises at once and falls slowly.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    latency: f64,
    updated: Moment,
}

impl Load {
    /// An estimate that starts from `latency`.
    #[must_use]
    pub fn new(latency: Duration, now: Moment) -> Self {
        Self { latency: latency.as_secs_f64(), updated: now }
    }

    /// Takes in the latency of one exchange.
    pub fn observe(&mut self, latency: Duration, now: Moment) {
        let latency = latency.as_secs_f64().min(MAX_LATENCY);
        let kept = self.kept(now);
        // A peak counts whole; a fall is averaged in.
        self.latency =
            if latency > self.latency { latency } else { self.latency * kept + latency * (1.0 - kept) };
        self.updated = now;
    }

    /// Takes in a failure, which has no latency worth believing: fast failures must not attract load.
    pub fn penalise(&mut self, now: Moment) {
        self.latency = (self.at(now).max(PENALTY_FLOOR) * 2.0).min(MAX_LATENCY);
        self.updated = now;
    }

    /// The estimate at `now`, in seconds: it decays while nothing is observed, so that an endpoint
    /// that was slow once is tried again.
    #[must_use]
    pub fn at(&self, now: Moment) -> f64 {
        self.latency * self.kept(now)
    }

    /// What one more request costs with `in_flight` under way on an endpoint of this weight.
    #[must_use]
    pub fn cost(&self, now: Moment, in_flight: u32, weight: u32) -> f64 {
        self.at(now).max(RESOLUTION) * (f64::from(in_flight) / f64::from(weight.max(1)) + 1.0)
    }

    fn kept(&self, now: Moment) -> f64 {
        (-now.since(self.updated).as_secs_f64() / DECAY.as_secs_f64()).exp()
    }
}

/// Source: Finagle's and Linkerd's peak-EWMA decay, 10 s.
const DECAY: Duration = Duration::from_secs(10);
/// Source: Linkerd's estimate for an endpoint never used, 30 ms.
pub const INITIAL_LATENCY: Duration = Duration::from_millis(30);
/// Differences below this are noise of the scheduler, not of the endpoint.
const RESOLUTION: f64 = 0.000_1;
/// A failure costs at least this before doubling, or a backend that fails in microseconds would
/// still look fast.
const PENALTY_FLOOR: f64 = 0.001;
/// Source: the penalty that Linkerd's load biaser gives to failures, 5 s, taken as the ceiling.
const MAX_LATENCY: f64 = 5.0;
