//! How large bodies were: one bucket for each factor of four.
//!
//! Closing a record adds to it; a scrape reads it.
//!
//! Invariant: counting one is a few shifts and one addition: a nanosecond.

use std::sync::atomic::{AtomicU64, Ordering};

use weft_exposition::{Bucket, Native};

use super::edge::raise;

/// Buckets: up to 64 bytes, then up to each power of four to 256 MiB, then beyond.
pub const BUCKETS: usize = 13;
/// The first bound is 4 to this power: less than that is hardly a body.
const FIRST: u32 = 3;
/// Every second bound is shown. Source: from a small message to a large file, each 16 times the last.
const SHOWN: [usize; 6] = [1, 3, 5, 7, 9, 11];
/// Source: Prometheus' native histograms: schema -1 grows by four.
const SCHEMA: i32 = -1;

/// A histogram of sizes that one thread adds to and any may read; the sum is kept elsewhere.
#[derive(Debug, Default)]
pub struct Sizes([AtomicU64; BUCKETS]);

impl Sizes {
    /// Counts one body.
    pub fn add(&self, bytes: u64) {
        if let Some(bucket) = self.0.get(place(bytes)) {
            raise(bucket, 1);
        }
    }

    /// Adds what was counted here to `counts`.
    pub fn read(&self, counts: &mut [u64; BUCKETS]) {
        for (sum, bucket) in counts.iter_mut().zip(&self.0) {
            *sum += bucket.load(Ordering::Relaxed);
        }
    }
}

fn place(bytes: u64) -> usize {
    let bits = u64::BITS - bytes.saturating_sub(1).leading_zeros();
    (bits.div_ceil(2).saturating_sub(FIRST) as usize).min(BUCKETS - 1)
}

/// The buckets that are shown.
pub fn shown(counts: &[u64; BUCKETS]) -> Vec<Bucket> {
    let mut from = 0;
    let mut up_to = |end: usize, upper: f64| {
        let count = counts.get(from..end).unwrap_or_default().iter().sum();
        from = end;
        Bucket { upper, count, exemplar: None }
    };
    let bound = |at: usize| 4f64.powi(FIRST as i32 + at as i32);
    let mut buckets: Vec<Bucket> = SHOWN.iter().map(|at| up_to(at + 1, bound(*at))).collect();
    buckets.push(up_to(BUCKETS, f64::INFINITY));
    buckets
}

/// The same as a native histogram.
pub fn native(counts: &[u64; BUCKETS]) -> Native<'_> {
    let [zero, rest @ ..] = counts;
    let zero_threshold = 4f64.powi(FIRST as i32);
    Native { schema: SCHEMA, zero_threshold, zero: *zero, first: FIRST as i32 + 1, counts: rest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_counts_up_to_the_power_that_holds_it() {
        for (bytes, bucket) in [
            (0, 0),
            (1, 0),
            (64, 0),
            (65, 1),
            (256, 1),
            (257, 2),
            (1_024, 2),
            (256 << 20, 11),
            ((256 << 20) + 1, 12),
            (u64::MAX, 12),
        ] {
            assert_eq!(place(bytes), bucket, "{bytes}");
        }
    }

    #[test]
    fn what_is_shown_holds_every_body_once() {
        let sizes = Sizes::default();
        for bytes in [0, 256, 257, 4_096, 1 << 40] {
            sizes.add(bytes);
        }
        let mut counts = [0; BUCKETS];
        sizes.read(&mut counts);
        let shown = shown(&counts);
        let read: Vec<(f64, u64)> = shown.iter().map(|bucket| (bucket.upper, bucket.count)).collect();
        assert_eq!(read[..2], [(256.0, 2), (4_096.0, 2)]);
        assert_eq!(read.last(), Some(&(f64::INFINITY, 1)));
        assert_eq!(native(&counts).counts.iter().sum::<u64>() + native(&counts).zero, 5);
    }
}
