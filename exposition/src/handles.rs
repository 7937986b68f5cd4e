//! Counters, gauges and histograms that any thread may hold, and the registry that reads them for a page.
//!
//! For what is counted now and then: a control plane's events. A sidecar's requests have counters of
//! their own.
//!
//! Invariant: a handle's clones are one number.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::family::Family;
use crate::format::Format;
use crate::histogram::{Bucket, Native, Reading};
use crate::page::{Page, Rows, Set};

/// A number that only rises.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// So many more.
    pub fn inc_by(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that rises and falls.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// It is this now.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// One more.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One fewer.
    pub fn dec(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// What it is.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long something took, or how large it was; takes a lock for each number.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Mutex<Counted>>);

#[derive(Debug)]
struct Counted {
    bounds: &'static [f64],
    /// One more than bounds: the last has none.
    counts: Vec<u64>,
    native: BTreeMap<i32, u64>,
    zero: u64,
    sum: f64,
}

impl Histogram {
    /// A histogram with buckets up to each of these rising bounds.
    #[must_use]
    pub fn new(bounds: &'static [f64]) -> Self {
        let counts = vec![0; bounds.len() + 1];
        Self(Arc::new(Mutex::new(Counted { bounds, counts, native: BTreeMap::new(), zero: 0, sum: 0.0 })))
    }

    /// Counts one; what is no number is not counted.
    pub fn observe(&self, value: f64) {
        if !value.is_finite() {
            return;
        }
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = counted.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = counted.counts.get_mut(at) {
            *count += 1;
        }
        counted.sum += value;
        if value <= ZERO {
            counted.zero += 1;
        } else {
            // Upper bounds are included, so a power itself belongs below.
            let index = (value.log2() * f64::from(1 << SCHEMA)).ceil().clamp(FIRST, LAST) as i32;
            *counted.native.entry(index).or_default() += 1;
        }
    }
}

/// Source: Prometheus' native histograms; four buckets to a doubling, so at most 19 % to a bucket.
const SCHEMA: i32 = 2;
/// What is smaller counts as nothing: a millionth.
const ZERO: f64 = 1e-6;
/// Bounds of the indexes, so that no number makes a long row of empty buckets: from `ZERO` to 2^40.
const FIRST: f64 = -79.0;
const LAST: f64 = 160.0;

/// The labels that tell one of a family's rows from another: closed sets of words.
pub trait Words: Ord + Clone + Send + fmt::Debug + 'static {
    /// The values, in the order of the family's own labels.
    fn words(&self) -> Vec<Cow<'static, str>>;
}

/// One handle for each set of labels.
#[derive(Clone, Debug)]
pub struct Each<K, V>(Arc<Mutex<BTreeMap<K, V>>>);

impl<K, V> Default for Each<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Words, V: Default + Clone> Each<K, V> {
    /// The handle for these labels.
    #[must_use]
    pub fn of(&self, key: &K) -> V {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = held.get(key) {
            return known.clone();
        }
        held.entry(key.clone()).or_default().clone()
    }
}

/// What can write its own rows.
pub trait Source: Send + Sync + fmt::Debug {
    /// Writes them, behind these labels.
    fn write(&self, rows: &mut Rows<'_>, by: &[&str]);
}

impl Source for Counter {
    fn write(&self, rows: &mut Rows<'_>, by: &[&str]) {
        rows.add(&Set::NONE, by, self.get());
    }
}

impl Source for Gauge {
    fn write(&self, rows: &mut Rows<'_>, by: &[&str]) {
        rows.add(&Set::NONE, by, self.get());
    }
}

impl Source for Histogram {
    fn write(&self, rows: &mut Rows<'_>, by: &[&str]) {
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bounds = counted.bounds.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<Bucket> = bounds
            .zip(&counted.counts)
            .map(|(upper, count)| Bucket { upper, count: *count, exemplar: None })
            .collect();
        let first = counted.native.keys().next().copied().unwrap_or(0);
        let last = counted.native.keys().next_back().copied().unwrap_or(-1);
        let counts: Vec<u64> =
            (first..=last).map(|index| counted.native.get(&index).copied().unwrap_or(0)).collect();
        let native =
            Native { schema: SCHEMA, zero_threshold: ZERO, zero: counted.zero, first, counts: &counts };
        let reading = Reading { sum: counted.sum, buckets: &buckets, native: Some(native) };
        rows.histogram(&Set::NONE, by, &reading);
    }
}

impl<K: Words, V: Source> Source for Each<K, V> {
    fn write(&self, rows: &mut Rows<'_>, by: &[&str]) {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in held.iter() {
            let words = key.words();
            let mut labels = by.to_vec();
            labels.extend(words.iter().map(|word| &**word));
            value.write(rows, &labels);
        }
    }
}

/// The handles of a process, by family.
#[derive(Debug)]
pub struct Registry {
    catalog: &'static [&'static Family],
    held: Vec<(&'static Family, Box<dyn Source>)>,
}

impl Registry {
    /// An empty registry for families of this catalog.
    #[must_use]
    pub fn new(catalog: &'static [&'static Family]) -> Self {
        Self { catalog, held: Vec::new() }
    }

    /// The page shows this handle as this family.
    pub fn register(&mut self, family: &'static Family, source: impl Source + 'static) {
        let catalog = self.catalog;
        let place = |family: &Family| catalog.iter().position(|known| std::ptr::eq(*known, family));
        debug_assert!(place(family).is_some(), "{} is not in the catalog", family.name);
        self.held.push((family, Box::new(source)));
        self.held.sort_by_key(|(family, _)| place(family));
    }

    /// The page as it is now, with what `last` writes behind the handles.
    #[must_use]
    pub fn render(&self, format: Format, last: impl FnOnce(&mut Page)) -> Vec<u8> {
        let mut page = Page::new(self.catalog, format);
        for (family, source) in &self.held {
            source.write(&mut page.family(family), &[]);
        }
        last(&mut page);
        page.finish()
    }
}

#[cfg(test)]
mod tests;
