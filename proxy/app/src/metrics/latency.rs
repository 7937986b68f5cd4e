//! How long requests took: a fixed table of buckets, counted without a lock.
//!
//! Closing a record adds to it; a scrape and the live table read it. The table's bounds are those of a
//! native histogram together with those that a classic one shows, so either is read from it exactly.
//!
//! Invariant: every bound that a scrape shows is also a bound of the table.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use weft_exposition::{Bucket, Native};

use super::edge::raise;

/// Bounds of the classic histogram in nanoseconds; beyond them it has one bucket more.
///
/// Source: the steps 1, 2.5 and 5 of Prometheus' own default buckets, from 100 µs to a minute, the Gateway
/// API's usual ceiling for timeouts.
pub const SHOWN: [u64; 18] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

/// Bounds shown of times to the first byte: every other decade's step, because there is a finer histogram.
pub const SHOWN_COARSE: [u64; 8] =
    [1_000_000, 5_000_000, 10_000_000, 50_000_000, 100_000_000, 500_000_000, 1_000_000_000, 5_000_000_000];

/// How fine the native histogram is: four buckets to a doubling, so a quantile is off by at most a fifth of
/// its value, mostly far less.
const SCHEMA: i32 = 2;
/// Index of the first native bound: 2^-15 s, 30 µs, is shorter than a hop over loopback.
const FIRST: i32 = -60;
/// Index of the last: 2^6 s, 64 s. What takes longer counts as if it took up to 76 s.
const LAST: i32 = 24;
/// Native bounds.
const POWERS: usize = 85;
/// A quarter, a half, a second and a minute and so on are both; they are held once.
const BOTH: usize = 3;

/// Upper bounds of the table's buckets in nanoseconds; the last bucket, beyond them, has none.
pub const BOUNDS: [u64; POWERS + SHOWN.len() - BOTH] = bounds();

/// Buckets of the table, the open one included.
pub const BUCKETS: usize = BOUNDS.len() + 1;

/// For each bucket of the table, how many native bounds lie below it: 0 is the native zero.
const NATIVE: [u8; BUCKETS] = native();

/// The native bound of an index in nanoseconds.
const fn power(index: i32) -> u64 {
    // 2^(n/4) times 10^15.
    const ROOTS: [u128; 4] =
        [1_000_000_000_000_000, 1_189_207_115_002_721, 1_414_213_562_373_095, 1_681_792_830_507_429];
    let root = ROOTS[index.rem_euclid(4) as usize] * 1_000_000_000;
    let doublings = index.div_euclid(4);
    let scaled = if doublings >= 0 { root << doublings } else { root >> -doublings };
    (scaled / 1_000_000_000_000_000) as u64
}

const fn bounds() -> [u64; POWERS + SHOWN.len() - BOTH] {
    let mut bounds = [0; POWERS + SHOWN.len() - BOTH];
    let (mut at, mut shown, mut index) = (0, 0, FIRST);
    while at < bounds.len() {
        let from_shown = shown < SHOWN.len() && (index > LAST || SHOWN[shown] <= power(index));
        if from_shown {
            if index <= LAST && SHOWN[shown] == power(index) {
                index += 1;
            }
            bounds[at] = SHOWN[shown];
            shown += 1;
        } else {
            bounds[at] = power(index);
            index += 1;
        }
        at += 1;
    }
    bounds
}

const fn native() -> [u8; BUCKETS] {
    let mut native = [0; BUCKETS];
    let (mut at, mut below) = (0, 0);
    while at < BOUNDS.len() {
        native[at] = below;
        if (below as usize) < POWERS && BOUNDS[at] == power(FIRST + below as i32) {
            below += 1;
        }
        at += 1;
    }
    native[BOUNDS.len()] = below;
    native
}

/// A histogram of durations that one thread adds to and any may read.
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
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let at = BOUNDS.partition_point(|bound| *bound < nanos);
        if let Some(bucket) = self.buckets.get(at) {
            raise(bucket, 1);
        }
        raise(&self.sum_micros, nanos / 1_000);
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

    /// The sum of all durations in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.sum_micros as f64 / 1e6
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
                return Some((lower as f64 + share * upper.saturating_sub(lower) as f64) / 1e3);
            }
            (below, lower) = (reached, *upper);
        }
        Some(lower as f64 / 1e3)
    }

    /// The buckets up to each of some of [`BOUNDS`], in nanoseconds, and the one beyond.
    pub fn shown(&self, bounds: &[u64]) -> Vec<Bucket> {
        let mut from = 0;
        let mut up_to = |end: usize, upper: f64| {
            let count = self.buckets.get(from..end).unwrap_or_default().iter().sum();
            from = end;
            Bucket { upper, count, exemplar: None }
        };
        let mut shown = Vec::with_capacity(bounds.len() + 1);
        for bound in bounds {
            let end = BOUNDS.partition_point(|known| known <= bound);
            shown.push(up_to(end, *bound as f64 / 1e9));
        }
        shown.push(up_to(BUCKETS, f64::INFINITY));
        shown
    }

    /// The counts of the native histogram: first what is zero for it, then each of its buckets.
    #[must_use]
    pub fn powers(&self) -> [u64; POWERS + 1] {
        let mut powers = [0; POWERS + 1];
        for (bucket, place) in self.buckets.iter().zip(NATIVE) {
            if let Some(power) = powers.get_mut(usize::from(place)) {
                *power += bucket;
            }
        }
        powers
    }

    /// [`Tally::powers`] as a page wants them.
    #[must_use]
    pub fn native(powers: &[u64; POWERS + 1]) -> Native<'_> {
        let [zero, counts @ ..] = powers;
        let zero_threshold = power(FIRST) as f64 / 1e9;
        Native { schema: SCHEMA, zero_threshold, zero: *zero, first: FIRST + 1, counts }
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
    fn bounds_rise_and_hold_all_that_is_shown() {
        assert!(BOUNDS.is_sorted_by(|a, b| a < b), "{BOUNDS:?}");
        assert!(SHOWN.iter().chain(&SHOWN_COARSE).all(|shown| BOUNDS.contains(shown)));
        assert!((FIRST..=LAST).all(|index| BOUNDS.contains(&power(index))));
        assert_eq!(power(0), 1_000_000_000);
        for index in FIRST..=LAST {
            let exact = (f64::from(index) / 4.0).exp2() * 1e9;
            assert!((power(index) as f64 - exact).abs() <= 1.0, "{index}");
        }
        assert_eq!(usize::from(NATIVE[BUCKETS - 1]), POWERS);
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
        for bounds in [&SHOWN[..], &SHOWN_COARSE[..]] {
            let shown = tally.shown(bounds);
            assert_eq!(shown.iter().map(|bucket| bucket.count).sum::<u64>(), 11);
            assert!(shown.last().unwrap().upper.is_infinite());
        }
        let shown = tally.shown(&SHOWN);
        assert_eq!((shown[0].upper, shown[0].count), (0.0001, 4));
        assert_eq!(shown.last().unwrap().count, 2);
        let bounds: Vec<f64> = shown.iter().take(4).map(|bucket| bucket.upper).collect();
        assert_eq!(bounds, [0.0001, 0.00025, 0.0005, 0.001]);
    }

    #[test]
    fn the_native_histogram_holds_every_request_in_the_bucket_of_its_index() {
        let tally = tally([1, 30, 1_000_000, 1_000_001, 3_000, 100_000_000]);
        let powers = tally.powers();
        let native = Tally::native(&powers);
        assert_eq!((native.zero, native.counts.iter().sum::<u64>()), (2, 4));
        let at = |index: i32| native.counts[usize::try_from(index - native.first).unwrap()];
        assert_eq!((at(0), at(1)), (1, 1), "a second, and a little more");
        assert_eq!(at((0.003f64.log2() * 4.0).ceil() as i32), 1);
        assert_eq!(at(LAST + 1), 1, "beyond the last bound");
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
