//! Looking again and again at what tells nobody when it changes: a process, a file, an API server's answer.
//!
//! Invariant: every look has an end; a pause is only between two looks, and nothing is taken to have
//! happened because time has passed.

use std::time::{Duration, Instant};

/// Looks until something is found; `None` once `deadline` has passed without.
pub(crate) fn until<T>(
    pause: Duration,
    deadline: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::park_timeout(pause);
    }
}
