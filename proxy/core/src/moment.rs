//! A point in time that the caller read from its clock.
//!
//! Invariant: no function here asks what time it is; arithmetic saturates instead of wrapping.

use std::time::Duration;

/// Nanoseconds since an origin that the caller chose once for the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// The latest moment there is: "never".
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment `span` later.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Time from `earlier` to this moment; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_saturate_at_both_ends() {
        assert_eq!(Moment(u64::MAX - 1).plus(Duration::from_secs(9)), Moment::NEVER);
        assert_eq!(Moment(5).since(Moment(9)), Duration::ZERO);
        assert_eq!(Moment(5).plus(Duration::MAX), Moment::NEVER);
    }
}
