//! How long requests took: a fixed table of buckets, counted without a lock.
//!
//! Closing a record adds to it; a scrape and the live table read it.
//!
//! Invariant: every exported bound is also a bound of the table, so exported buckets are exact.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets in microseconds; the last bucket, beyond them, has none.
///
/// Source: about eight to a factor of ten, so a quantile is off by at most a sixth of its value;
/// from a loopback hop (50 µs) to a minute, the Gateway API's usual ceiling for timeouts.
pub const BOUNDS: [u64; 52] = [
    50, 75, 100, 125, 150, 200, 250, 300, 400, 500, 600, 750, 1_000, 1_250, 1_500, 2_000, 2_500, 3_000,
    4_000, 5_000, 6_000, 7_500, 10_000, 12_500, 15_000, 20_000, 25_000, 30_000, 40_000, 50_000, 60_000,
    75_000, 100_000, 125_000, 150_000, 200_000, 250_000, 300_000, 400_000, 500_000, 600_000, 750_000,
    1_000_000, 1_500_000, 2_000_000, 2_500_000, 3_000_000, 5_000_000, 7_500_000, 10_000_000, 30_000_000,
    60_000_000,
];

/// Positions in [`BOUNDS`] of the bounds that a scrape shows.
///
/// Source: the steps 1, 2.5 and 5 of Prometheus' own default buckets, from 100 µs to a minute.
pub const SHOWN: [usize; 19] =
    [2, 6, 9, 12, 16, 19, 22, 26, 29, 32, 36, 39, 42, 45, 47, 49, 50, 51, BOUNDS.len()];

/// Buckets of the table, the open one included.
pub const BUCKETS: usize = BOUNDS.len() + 1;

/// A histogram of durations that any thread may add to.
#[derive(Debug)]
pub struct Latency {
    buckets: [AtomicU64; BUCKETS],
    sum_micros: AtomicU64,
}

impl Default for Latency {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], sum_micros: AtomicU64::new(0) }
    }
}

impl Latency {
    /// Counts one duration.
    pub fn add(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let at = BOUNDS.partition_point(|bound| *bound < micros);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Adds what was counted here to `tally`.
    pub fn read(&self, tally: &mut Tally) {
        for (sum, bucket) in tally.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.load(Ordering::Relaxed);
        }
        tally.sum_micros = tally.sum_micros.saturating_add(self.sum_micros.load(Ordering::Relaxed));
    }
}

/// Counts read from one or several histograms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Requests in each bucket.
    pub buckets: [u64; BUCKETS],
    /// Sum of all durations in microseconds.
    pub sum_micros: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], sum_micros: 0 }
    }
}

impl Tally {
    /// How many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = self.clone();
        for (now, then) in difference.buckets.iter_mut().zip(&earlier.buckets) {
            *now = now.saturating_sub(*then);
        }
        difference.sum_micros = self.sum_micros.saturating_sub(earlier.sum_micros);
        difference
    }

    /// The duration, in microseconds, that the share `quantile` of requests did not exceed, interpolated
    /// within its bucket; `None` when nothing was counted.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = (quantile.clamp(0.0, 1.0) * count as f64).max(1.0);
        let (mut below, mut lower) = (0u64, 0u64);
        for (bucket, upper) in self.buckets.iter().zip(BOUNDS.iter().chain(BOUNDS.last())) {
            let reached = below + bucket;
            if *bucket > 0 && reached as f64 >= rank {
                let share = (rank - below as f64) / *bucket as f64;
                return Some(lower as f64 + share * upper.saturating_sub(lower) as f64);
            }
            (below, lower) = (reached, *upper);
        }
        Some(lower as f64)
    }

    /// The buckets of a scrape: upper bound in seconds and the requests in that bucket alone.
    pub fn shown(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut from = 0;
        SHOWN.into_iter().map(move |at| {
            let counted = self.buckets.get(from..=at).unwrap_or_default().iter().sum();
            from = at + 1;
            (BOUNDS.get(at).map_or(f64::INFINITY, |micros| *micros as f64 / 1e6), counted)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(micros: impl IntoIterator<Item = u64>) -> Tally {
        let latency = Latency::default();
        for micros in micros {
            latency.add(Duration::from_micros(micros));
        }
        let mut tally = Tally::default();
        latency.read(&mut tally);
        tally
    }

    #[test]
    fn bounds_rise() {
        assert!(BOUNDS.is_sorted() && SHOWN.is_sorted());
    }

    #[test]
    fn a_quantile_is_close_to_the_truth() {
        let tally = tally(1..=10_000);
        for (quantile, truth) in [(0.5, 5_000.0), (0.9, 9_000.0), (0.99, 9_900.0), (1.0, 10_000.0)] {
            let found = tally.quantile(quantile).unwrap();
            assert!((found - truth).abs() / truth < 0.17, "{quantile}: {found}");
        }
        assert_eq!(Tally::default().quantile(0.5), None);
    }

    #[test]
    fn shown_buckets_hold_every_request_once() {
        let tally = tally([1, 50, 51, 100, 101, 999, 1_000, 1_001, 59_999_999, 60_000_001, u64::MAX / 2_000]);
        let shown: Vec<_> = tally.shown().collect();
        assert_eq!(shown.iter().map(|(_, count)| count).sum::<u64>(), 11);
        assert_eq!(shown[0], (0.0001, 4));
        assert_eq!(*shown.last().unwrap(), (f64::INFINITY, 2));
        let labels: Vec<f64> = shown.iter().take(4).map(|(bound, _)| *bound).collect();
        assert_eq!(labels, [0.0001, 0.00025, 0.0005, 0.001]);
    }

    #[test]
    fn a_window_holds_only_what_came_since() {
        let earlier = tally([100, 100]);
        let mut later = earlier.clone();
        let more = tally([5_000]);
        for (sum, bucket) in later.buckets.iter_mut().zip(more.buckets) {
            *sum += bucket;
        }
        assert_eq!(later.since(&earlier).count(), 1);
        assert!(later.since(&earlier).quantile(0.5).unwrap() > 4_000.0);
    }
}
