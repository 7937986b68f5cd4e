//! Waiting for what is meant: the one place where a scenario waits.
//!
//! Invariant: a wait ends when its condition holds; its deadline is only for what hangs.

use std::time::Duration;

/// Longer than anything takes on a loaded machine.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How often a condition is looked at that nobody announces: a file, a page, another process.
const LOOK: Duration = Duration::from_millis(10);

/// What a future gives, unless it hangs.
///
/// # Cancel safety
/// That of the future.
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    within(DEADLINE, what, future).await
}

/// [`in_time`] with a deadline of its own.
///
/// # Cancel safety
/// That of the future.
async fn within<T>(deadline: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(deadline, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what:?}: nothing within {} s", deadline.as_secs()),
    }
}

/// Looks until there is something.
///
/// # Cancel safety
/// That of the looks.
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(DEADLINE, what, look).await
}

/// [`until`] with a deadline of its own.
///
/// # Cancel safety
/// That of the looks.
pub async fn until_within<T>(deadline: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        let mut timer = tokio::time::interval(LOOK);
        loop {
            timer.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    within(deadline, what, looking).await
}
