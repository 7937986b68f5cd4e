//! Latency, counted in buckets whose width grows with the value.
//! Before this: `load` records each answer. After it: `report` asks for percentiles.
//!
//! Invariant: recording never allocates and a percentile is off by less than 1/64 of its value.

/// Counts of durations in nanoseconds.
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// An empty histogram.
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; ((64 - SUB_BITS as usize) + 1) << SUB_BITS], total: 0 }
    }

    /// Counts one duration.
    pub(crate) fn record(&mut self, nanos: u64) {
        if let Some(count) = self.counts.get_mut(bucket(nanos)) {
            *count += 1;
            self.total += 1;
        }
    }

    /// The duration in microseconds that `share` (0 to 1) of all are at or under; 0 when nothing was recorded.
    pub(crate) fn micros(&self, share: f64) -> f64 {
        let wanted = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return middle(index) / 1000.0;
            }
        }
        0.0
    }
}

fn bucket(nanos: u64) -> usize {
    let log = 63 - (nanos | 1).leading_zeros();
    if log < SUB_BITS {
        return nanos as usize;
    }
    let shift = log - SUB_BITS;
    ((shift as usize + 1) << SUB_BITS) + ((nanos >> shift) as usize - (1 << SUB_BITS))
}

fn middle(index: usize) -> f64 {
    let (row, column) = (index >> SUB_BITS, index & ((1 << SUB_BITS) - 1));
    if row == 0 {
        return column as f64;
    }
    let width = (1u64 << (row - 1)) as f64;
    ((1 << SUB_BITS) + column) as f64 * width + width / 2.0
}

/// Sub-buckets per power of two, as a power of two.
const SUB_BITS: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_one_sixty_fourth() {
        let mut histogram = Histogram::new();
        (1..=1000u64).for_each(|micros| histogram.record(micros * 1000));
        for (share, micros) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0), (1.0, 1000.0)] {
            let got = histogram.micros(share);
            assert!((got - micros).abs() / micros < 1.0 / 64.0, "{share}: {got} is not near {micros}");
        }
    }

    #[test]
    fn every_value_has_a_bucket_and_buckets_never_go_back() {
        let mut last = 0;
        for value in (0..64).flat_map(|bit| [1u64 << bit, (1u64 << bit) | (1u64 << bit) >> 1]) {
            assert!(bucket(value) >= last, "{value}");
            last = bucket(value);
        }
        let mut histogram = Histogram::new();
        histogram.record(u64::MAX);
        assert_eq!(histogram.total, 1);
    }
}
