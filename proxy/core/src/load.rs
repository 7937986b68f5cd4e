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

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(second: u64) -> Moment {
        Moment(second * 1_000_000_000)
    }

    #[test]
    fn a_peak_counts_at_once_and_falls_slowly() {
        let mut load = Load::new(MS, at(0));
        load.observe(100 * MS, at(1));
        assert!(load.at(at(1)) >= 0.1);
        load.observe(MS, at(1));
        assert!(load.at(at(1)) > 0.099, "one fast answer does not make up for a slow one");
        load.observe(MS, at(11));
        assert!((0.03..0.05).contains(&load.at(at(11))), "{}", load.at(at(11)));
        load.observe(MS, at(200));
        assert!((0.000_9..0.001_1).contains(&load.at(at(200))));
    }

    #[test]
    fn failures_cost_more_each_time_up_to_a_ceiling() {
        let mut load = Load::new(Duration::ZERO, at(0));
        let mut before = load.at(at(0));
        for _ in 0..12 {
            load.penalise(at(0));
            assert!(load.at(at(0)) > before);
            before = load.at(at(0));
        }
        (0..100).for_each(|_| load.penalise(at(0)));
        assert!(load.at(at(0)) <= MAX_LATENCY);
    }

    #[test]
    fn cost_grows_with_requests_in_flight_and_shrinks_with_weight() {
        let load = Load::new(MS, at(0));
        assert!(load.cost(at(0), 1, 1) > load.cost(at(0), 0, 1));
        assert!(load.cost(at(0), 4, 4) < load.cost(at(0), 4, 1));
        assert_eq!(load.cost(at(0), 0, 4), load.cost(at(0), 0, 1));
    }

    #[test]
    fn strange_times_and_latencies_give_a_number() {
        let mut load = Load::new(Duration::MAX, Moment::NEVER);
        load.observe(Duration::MAX, at(0));
        load.observe(Duration::ZERO, Moment::NEVER);
        load.penalise(at(0));
        assert!(load.cost(Moment::NEVER, u32::MAX, 0).is_finite());
    }
}
