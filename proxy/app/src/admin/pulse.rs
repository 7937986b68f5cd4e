//! The data threads' sign of life, which readiness and liveness rest on.
//!
//! Each worker beats with its sweep; the admin server looks.
//!
//! Invariant: a beat is one store, on the thread that it speaks for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use weft_proxy_core::Moment;

/// When each worker last beat.
#[derive(Debug)]
pub struct Pulse(Vec<AtomicU64>);

impl Pulse {
    /// For so many workers, none of which beat yet.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| AtomicU64::new(NEVER)).collect())
    }

    /// The worker moves; told at least once a second.
    pub fn beat(&self, worker: usize, now: Moment) {
        if let Some(last) = self.0.get(worker) {
            last.store(now.0, Ordering::Relaxed);
        }
    }

    /// Whether all workers have begun and move.
    ///
    /// # Errors
    /// Which does not, for a person.
    pub fn check(&self, now: Moment) -> Result<(), String> {
        for (worker, last) in self.0.iter().enumerate() {
            match last.load(Ordering::Relaxed) {
                NEVER => return Err(format!("worker {worker} has not begun")),
                last if now.since(Moment(last)) > STILL => {
                    return Err(format!(
                        "worker {worker} has not moved for {} s",
                        now.since(Moment(last)).as_secs()
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

const NEVER: u64 = u64::MAX;
/// Source: several missed beats of a second; below the ten seconds after which a kubelet asks again.
const STILL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_stands_still_is_named() {
        let pulse = Pulse::new(2);
        let second = |n: u64| Moment(n * 1_000_000_000);
        pulse.beat(0, second(1));
        assert!(pulse.check(second(1)).unwrap_err().contains("worker 1 has not begun"));
        pulse.beat(1, second(2));
        assert_eq!(pulse.check(second(5)), Ok(()));
        pulse.beat(1, second(9));
        assert_eq!(pulse.check(second(9)), Err("worker 0 has not moved for 8 s".to_owned()));
        pulse.beat(9, second(9));
    }
}
