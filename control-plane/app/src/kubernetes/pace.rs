//! How long to wait before the next try at an API server: twice as long each time, and never in step
//! with the other replicas and watches.
//!
//! Invariant: a wait is between half of its step and the whole of it.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

/// The first wait. Source: client-go begins with 800 ms; a mesh wants to know sooner.
const FIRST: Duration = Duration::from_millis(200);
/// The longest wait. Source: Weft's own; a dozen watches of a few replicas are no storm at this pace, and
/// everything is followed again within seconds of the server's return.
const LONGEST: Duration = Duration::from_secs(10);

/// A rising series of waits.
#[derive(Debug, Clone)]
pub struct Pace {
    step: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { step: FIRST }
    }
}

impl Pace {
    /// Begins again.
    pub fn reset(&mut self) {
        self.step = FIRST;
    }

    /// Waits for a part of the step, and doubles it.
    ///
    /// # Cancel safety
    /// Dropping it ends the wait; the step has grown.
    pub async fn wait(&mut self) {
        let wait = spread(self.next(), chance());
        tokio::time::sleep(wait).await;
    }

    fn next(&mut self) -> Duration {
        let step = self.step;
        self.step = (step * 2).min(LONGEST);
        step
    }
}

/// Between half of a span and the whole of it, as chance has it.
fn spread(span: Duration, chance: u64) -> Duration {
    let half = span / 2;
    let range = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
    half + Duration::from_nanos(chance % range)
}

/// A number that differs between processes and calls; no secret hangs on it.
fn chance() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_again() {
        let mut pace = Pace::default();
        let steps: Vec<u128> = (0..8).map(|_| pace.next().as_millis()).collect();
        assert_eq!(steps, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        pace.reset();
        assert_eq!(pace.next(), FIRST);
    }

    #[test]
    fn a_wait_is_between_half_of_its_step_and_the_whole() {
        for chance in [0, 1, 77_777_777, u64::MAX] {
            let wait = spread(LONGEST, chance);
            assert!((LONGEST / 2..LONGEST).contains(&wait), "{wait:?}");
        }
        assert_ne!(chance(), chance());
    }
}
