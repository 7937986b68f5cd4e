//! How long to stay away from a control plane that failed: exponential, with full jitter.
//!
//! Invariant: chance is an argument at construction, so tests and the simulation repeat.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use weft_proxy_core::Chance;

/// Ceiling of the first wait. Source: Linkerd's controller client, 100 ms.
const FIRST: Duration = Duration::from_millis(100);
/// Ceiling of all waits. Source: Linkerd's controller client, 10 s; xDS clients take up to 30 s.
const LONGEST: Duration = Duration::from_secs(10);

/// Waits between attempts that keep failing.
#[derive(Debug, Clone)]
pub struct Backoff {
    chance: Chance,
    ceiling: Duration,
}

impl Backoff {
    /// A fresh one; `seed` decides its jitter.
    pub fn new(seed: u64) -> Self {
        Self { chance: Chance::new(seed), ceiling: FIRST }
    }

    /// A fresh one whose jitter differs from every other process's.
    pub fn seeded() -> Self {
        Self::new(seed())
    }

    /// The next wait: anything up to a ceiling that doubles.
    pub fn wait(&mut self) -> Duration {
        let wait = self.up_to(self.ceiling);
        self.ceiling = self.ceiling.saturating_mul(2).min(LONGEST);
        wait
    }

    /// After a success the next failure starts from the beginning.
    pub fn reset(&mut self) {
        self.ceiling = FIRST;
    }

    /// A random span from zero to `most`.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.chance.below_u64(nanos.saturating_add(1)))
    }
}

/// A seed that differs between processes: the standard library's hash keys come from the kernel.
fn seed() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_ten_seconds_and_use_the_whole_range() {
        let mut backoff = Backoff::new(7);
        let waits: Vec<Duration> = (0..1000).map(|_| backoff.wait()).collect();
        assert!(waits[0] <= FIRST);
        assert!(waits.iter().all(|wait| *wait <= LONGEST));
        let late = &waits[10..];
        assert!(late.iter().any(|wait| *wait < LONGEST / 10), "full jitter reaches down");
        assert!(late.iter().any(|wait| *wait > LONGEST / 10 * 9), "and up");
    }

    #[test]
    fn a_success_starts_over() {
        let mut backoff = Backoff::new(7);
        for _ in 0..20 {
            backoff.wait();
        }
        backoff.reset();
        assert!(backoff.wait() <= FIRST);
    }
}
