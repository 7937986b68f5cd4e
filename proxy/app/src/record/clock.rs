//! The process's one clock: moments for the walk, and the wall time they stand for.
//!
//! The spines read it where they need the time anyway and hand the moment on, so a request costs the
//! record no clock of its own except when it is cancelled.
//!
//! Invariant: moments never run backwards; the wall time of a moment is only for people and collectors.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use weft_proxy_core::Moment;

/// A clock shared by all threads; cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Face>);

#[derive(Debug)]
struct Face {
    origin: Instant,
    /// Wall time of the origin, in nanoseconds since 1970.
    wall: AtomicI64,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        let clock = Self(Arc::new(Face { origin: Instant::now(), wall: AtomicI64::new(0) }));
        clock.set();
        clock
    }

    /// The moment that it is.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.moment(Instant::now())
    }

    /// The moment of an instant; instants before the clock's start count as its start.
    #[must_use]
    pub fn moment(&self, instant: Instant) -> Moment {
        let since = instant.saturating_duration_since(self.0.origin);
        Moment(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Takes the wall time anew; called now and then, because the wall clock may be corrected.
    pub fn set(&self) {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let at_origin = nanos(wall).saturating_sub(nanos(self.0.origin.elapsed()));
        self.0.wall.store(at_origin, Ordering::Relaxed);
    }

    /// Nanoseconds since 1970 at a moment.
    #[must_use]
    pub fn unix_nanos(&self, moment: Moment) -> u64 {
        let wall = u64::try_from(self.0.wall.load(Ordering::Relaxed)).unwrap_or(0);
        wall.saturating_add(moment.0)
    }

    /// Wall time at a moment.
    #[must_use]
    pub fn wall(&self, moment: Moment) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.unix_nanos(moment))
    }
}

fn nanos(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_do_not_run_backwards_and_carry_wall_time() {
        let clock = Clock::start();
        let (first, second) = (clock.now(), clock.now());
        assert!(second >= first);
        let wall = clock.wall(second);
        let apart = SystemTime::now().duration_since(wall).unwrap_or_else(|e| e.duration());
        assert!(apart < Duration::from_secs(60), "{apart:?}");
    }

    #[test]
    fn an_instant_before_the_start_is_the_start() {
        let before = Instant::now();
        assert_eq!(Clock::start().moment(before), Moment(0));
    }
}
