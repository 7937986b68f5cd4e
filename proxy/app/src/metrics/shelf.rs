//! Where shared counters stand, found by what they count: edges, backends, policy rules.
//!
//! Looked up when a route or a peer is first seen, never per request; a scrape walks it.
//!
//! Invariant: holds at most its limit; beyond it everybody gets the overflow entry.
//! Invariant: what nobody but the shelf holds is dropped after it lay idle for two sweeps.

use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

/// Counters by key.
#[derive(Debug)]
pub struct Shelf<K, V> {
    held: Mutex<FxHashMap<K, Held<V>>>,
    limit: usize,
}

#[derive(Debug)]
struct Held<V> {
    value: Arc<V>,
    idle_sweeps: u8,
}

impl<K: Eq + Hash + Clone, V> Shelf<K, V> {
    /// An empty shelf for at most `limit` entries.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { held: Mutex::new(FxHashMap::default()), limit }
    }

    /// The counters for `key`, if there are any.
    pub fn find(&self, key: &K) -> Option<Arc<V>> {
        let mut held = self.lock();
        let found = held.get_mut(key)?;
        found.idle_sweeps = 0;
        Some(Arc::clone(&found.value))
    }

    /// The counters for `key`, made when they are new; `None` when the shelf is full.
    pub fn take(&self, key: &K, make: impl FnOnce() -> V) -> Option<Arc<V>> {
        let mut held = self.lock();
        if let Some(found) = held.get_mut(key) {
            found.idle_sweeps = 0;
            return Some(Arc::clone(&found.value));
        }
        if held.len() >= self.limit {
            return None;
        }
        let value = Arc::new(make());
        held.insert(key.clone(), Held { value: Arc::clone(&value), idle_sweeps: 0 });
        Some(value)
    }

    /// Drops what only the shelf holds and has held alone for two sweeps; returns what went.
    pub fn sweep(&self) -> Vec<Arc<V>> {
        let mut gone = Vec::new();
        self.lock().retain(|_, held| {
            held.idle_sweeps = if Arc::strong_count(&held.value) > 1 { 0 } else { held.idle_sweeps + 1 };
            let stays = held.idle_sweeps < IDLE_SWEEPS;
            if !stays {
                gone.push(Arc::clone(&held.value));
            }
            stays
        });
        gone
    }

    /// Everything on the shelf, in no order.
    pub fn entries(&self) -> Vec<(K, Arc<V>)> {
        self.lock().iter().map(|(key, held)| (key.clone(), Arc::clone(&held.value))).collect()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<K, Held<V>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sweeps that an entry survives unheld. Source: with a sweep every five minutes (`--series-idle`), a series
/// outlives its last user by five to ten minutes, so at least one scrape sees its last value.
const IDLE_SWEEPS: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_keys_share_counters_and_a_full_shelf_gives_none() {
        let shelf: Shelf<u8, u8> = Shelf::new(2);
        let first = shelf.take(&1, || 10).unwrap();
        assert!(Arc::ptr_eq(&first, &shelf.take(&1, || 11).unwrap()));
        assert!(shelf.take(&2, || 20).is_some());
        assert!(shelf.take(&3, || 30).is_none());
        assert!(shelf.take(&2, || 21).is_some(), "known keys are served even when full");
    }

    #[test]
    fn what_somebody_holds_stays_and_the_rest_goes_after_two_sweeps() {
        let shelf: Shelf<u8, u8> = Shelf::new(8);
        let kept = shelf.take(&1, || 1).unwrap();
        drop(shelf.take(&2, || 2));
        assert!(shelf.sweep().is_empty());
        assert_eq!(shelf.sweep(), [Arc::new(2)]);
        assert_eq!(shelf.len(), 1);
        drop(kept);
        shelf.sweep();
        drop(shelf.take(&1, || 9));
        assert!(shelf.sweep().is_empty(), "use between sweeps starts the count anew");
    }
}
