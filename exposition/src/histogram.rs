//! A histogram as it is read for a page.
//!
//! Invariant: bounds rise, and the last is infinite; each bucket's count is of that bucket alone.

/// One bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Upper bound, included.
    pub upper: f64,
    /// What is in this bucket and in no lower one.
    pub count: u64,
    /// One of those that were counted here.
    pub exemplar: Option<Exemplar>,
}

/// A number that was counted, and the trace that shows what it was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// The trace's id in lowercase hexadecimal.
    pub trace_id: [u8; 32],
    /// What was counted.
    pub value: f64,
    /// When, in seconds since 1970.
    pub timestamp: f64,
}

/// The same numbers in buckets whose bounds grow by a fixed factor.
///
/// Source: Prometheus' native histograms: bucket `i` of schema `s` ends at `2^(i * 2^-s)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Native<'a> {
    /// How fine the buckets are.
    pub schema: i32,
    /// Up to here, everything counts as zero.
    pub zero_threshold: f64,
    /// What does.
    pub zero: u64,
    /// Index of the first of `counts`.
    pub first: i32,
    /// What is in each bucket, without gaps.
    pub counts: &'a [u64],
}

/// A histogram's numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading<'a> {
    /// Sum of everything counted.
    pub sum: f64,
    /// The buckets.
    pub buckets: &'a [Bucket],
    /// The same as a native histogram, where the process keeps it.
    pub native: Option<Native<'a>>,
}

impl Reading<'_> {
    /// How many numbers were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.count).sum()
    }
}
