//! Which object's status is looked at next, and when a failed one is tried again.
//!
//! Invariant: an object is in work once at a time; what changes meanwhile is looked at once more after.
//! Invariant: time is an argument, counted from any fixed moment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use weft_control_plane_core::model::ObjectKey;

/// First pause after a failure; it doubles. Source: client-go's rate limiter grows by two as well.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause. Source: Weft's own; an API server that comes back is believed within a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Objects that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    by_time: BTreeSet<(Duration, ObjectKey)>,
    due: BTreeMap<ObjectKey, Duration>,
    failures: BTreeMap<ObjectKey, u32>,
    /// In work, and whether something changed meanwhile.
    working: BTreeMap<ObjectKey, bool>,
}

impl Queue {
    /// Wants an object looked at, at the latest at `due`.
    pub(super) fn push(&mut self, key: ObjectKey, due: Duration) {
        if let Some(again) = self.working.get_mut(&key) {
            *again = true;
            return;
        }
        let before = self.due.get(&key).copied();
        if before.is_some_and(|before| before <= due) {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, key.clone()));
        }
        self.due.insert(key.clone(), due);
        self.by_time.insert((due, key));
    }

    /// The next object whose time has come; it is in work from now on.
    pub(super) fn pop(&mut self, now: Duration) -> Option<ObjectKey> {
        if self.by_time.first()?.0 > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.due.remove(&key);
        self.working.insert(key.clone(), false);
        Some(key)
    }

    /// The work on an object ended; whether it must be tried again. `chance` from 0 to 1 spreads tries.
    pub(super) fn done(&mut self, key: ObjectKey, failed: bool, now: Duration, chance: f64) {
        let again = self.working.remove(&key).unwrap_or(false);
        if failed {
            let failures = self.failures.entry(key.clone()).or_default();
            let pause = FIRST_PAUSE.saturating_mul(1 << (*failures).min(10)).min(LONGEST_PAUSE);
            *failures = failures.saturating_add(1);
            self.push(key, now.saturating_add(pause.mul_f64(0.5 + chance / 2.0)));
            return;
        }
        self.failures.remove(&key);
        if again {
            self.push(key, now);
        }
    }

    /// When the next object's time comes.
    pub(super) fn wake_at(&self) -> Option<Duration> {
        self.by_time.first().map(|(due, _)| *due)
    }

    /// How many wait or are in work.
    pub(super) fn len(&self) -> usize {
        self.due.len() + self.working.len()
    }
}

#[cfg(test)]
mod tests {
    use weft_control_plane_core::model::Kind;

    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(Kind::HttpRoute, "shop", name)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_earliest_comes_first_and_the_earlier_wish_counts() {
        let mut queue = Queue::default();
        queue.push(key("late"), ms(20));
        queue.push(key("early"), ms(10));
        queue.push(key("late"), ms(30));
        assert_eq!((queue.len(), queue.wake_at()), (2, Some(ms(10))));
        assert_eq!(queue.pop(ms(5)), None);
        assert_eq!(queue.pop(ms(25)), Some(key("early")));
        assert_eq!(queue.pop(ms(25)), Some(key("late")));
        assert_eq!(queue.pop(ms(25)), None);
    }

    #[test]
    fn what_changes_while_it_is_in_work_is_looked_at_once_more() {
        let mut queue = Queue::default();
        queue.push(key("a"), ms(0));
        assert_eq!(queue.pop(ms(0)), Some(key("a")));
        queue.push(key("a"), ms(1));
        queue.push(key("a"), ms(2));
        assert_eq!(queue.pop(ms(5)), None, "it is in work");
        queue.done(key("a"), false, ms(6), 0.0);
        assert_eq!(queue.pop(ms(6)), Some(key("a")));
        queue.done(key("a"), false, ms(7), 0.0);
        assert_eq!((queue.pop(ms(1000)), queue.len()), (None, 0));
    }

    #[test]
    fn a_failure_is_tried_again_later_and_later_up_to_a_minute() {
        let mut queue = Queue::default();
        let mut now = ms(0);
        queue.push(key("a"), now);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert_eq!(queue.pop(now), Some(key("a")));
            queue.done(key("a"), true, now, 1.0);
            let next = queue.wake_at().unwrap();
            pauses.push((next - now).as_millis());
            now = next;
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]);
        queue.pop(now);
        queue.done(key("a"), false, now, 1.0);
        queue.push(key("a"), now);
        queue.pop(now);
        queue.done(key("a"), true, now, 0.0);
        assert_eq!(queue.wake_at(), Some(now + ms(250)), "a success forgets the failures");
    }
}
