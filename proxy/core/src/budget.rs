//! How many retries a backend may see: a share of the requests, and a few a second in any case.
//!
//! Asked after `may_retry` said that a retry is safe.
//!
//! Invariant: integers only; within any window of [`WINDOW_SECONDS`] retries stay under the share of
//! requests started plus the minimum for that window.

use crate::moment::Moment;
use crate::spec;

/// Budget of one backend, per worker.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    deposit: i64,
    reserve: i64,
    seconds: [i64; WINDOW_SECONDS],
    sum: i64,
    newest: u64,
}

impl RetryBudget {
    /// A budget that no request was started on.
    #[must_use]
    pub fn new(spec: spec::RetryBudget, now: Moment) -> Self {
        let mut budget =
            Self { deposit: 0, reserve: 0, seconds: [0; WINDOW_SECONDS], sum: 0, newest: second(now) };
        budget.update(spec);
        budget
    }

    /// Takes over changed limits and keeps the window.
    pub fn update(&mut self, spec: spec::RetryBudget) {
        self.deposit = i64::from(spec.percent);
        self.reserve = i64::from(spec.min_per_second) * WINDOW_SECONDS as i64 * RETRY;
    }

    /// A request (not a retry) was started.
    pub fn started(&mut self, now: Moment) {
        self.put(now, self.deposit);
    }

    /// Takes one retry out; `false` when there is none left.
    #[must_use]
    pub fn withdraw(&mut self, now: Moment) -> bool {
        self.advance(now);
        let enough = self.sum.saturating_add(self.reserve) >= RETRY;
        if enough {
            self.put(now, -RETRY);
        }
        enough
    }

    fn put(&mut self, now: Moment, amount: i64) {
        self.advance(now);
        let slot = (self.newest % WINDOW_SECONDS as u64) as usize;
        self.seconds[slot] = self.seconds[slot].saturating_add(amount);
        self.sum = self.sum.saturating_add(amount);
    }

    /// Forgets the seconds that left the window.
    fn advance(&mut self, now: Moment) {
        let second = second(now);
        let passed = second.saturating_sub(self.newest).min(WINDOW_SECONDS as u64);
        for step in 1..=passed {
            let slot = ((self.newest + step) % WINDOW_SECONDS as u64) as usize;
            self.sum = self.sum.saturating_sub(self.seconds[slot]);
            self.seconds[slot] = 0;
        }
        self.newest = self.newest.max(second);
    }
}

fn second(now: Moment) -> u64 {
    now.0 / 1_000_000_000
}

/// Source: the life of a deposit in Finagle and in Linkerd's service profiles, 10 s.
const WINDOW_SECONDS: usize = 10;
/// What one retry costs, when a request deposits its percentage.
const RETRY: i64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Moment {
        Moment(second * 1_000_000_000)
    }

    fn drained(budget: &mut RetryBudget, now: Moment) -> u32 {
        (0..10_000).take_while(|_| budget.withdraw(now)).count() as u32
    }

    #[test]
    fn the_minimum_is_there_without_traffic_and_returns_after_the_window() {
        let mut budget = RetryBudget::new(spec::RetryBudget { percent: 20, min_per_second: 10 }, at(0));
        assert_eq!(drained(&mut budget, at(0)), 100);
        assert_eq!(drained(&mut budget, at(9)), 0);
        assert_eq!(drained(&mut budget, at(10)), 100);
    }

    #[test]
    fn retries_are_a_share_of_the_requests_of_the_window() {
        let mut budget = RetryBudget::new(spec::RetryBudget { percent: 20, min_per_second: 0 }, at(5));
        assert!(!budget.withdraw(at(5)));
        (0..1000).for_each(|_| budget.started(at(6)));
        assert_eq!(drained(&mut budget, at(7)), 200);
        (0..1000).for_each(|_| budget.started(at(8)));
        assert_eq!(drained(&mut budget, at(40)), 0, "requests of a past window count no more");
    }

    #[test]
    fn nothing_is_retried_with_an_empty_budget_and_time_may_stand_still_or_jump() {
        let mut budget = RetryBudget::new(spec::RetryBudget { percent: 0, min_per_second: 0 }, at(9));
        budget.started(at(3));
        assert!(!budget.withdraw(Moment::NEVER));
        assert!(!budget.withdraw(at(0)));
    }
}
