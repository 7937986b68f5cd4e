//! An ordered map in shards: a change copies the shards it touches and shares all others.
//!
//! Where it stands: below the published state, of which many generations may be read at once.
//!
//! Invariant: a copy is as cheap as its number of shards, whatever they hold; a change costs one shard
//! of the map for each key.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

/// Shards of a map. Source: measured; at 10,000 endpoints a shard holds about a dozen resources, and
/// copying the list of shards takes a few microseconds.
const SHARDS: usize = 1024;

/// A map in shards.
#[derive(Debug, Clone)]
pub(super) struct Shards<K, V> {
    shards: Vec<Arc<BTreeMap<K, V>>>,
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        let empty = Arc::new(BTreeMap::new());
        Self { shards: vec![empty; SHARDS] }
    }
}

impl<K: Ord + Hash + Clone, V: Clone> Shards<K, V> {
    /// What is held of a key.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.get_key_value(key).map(|(_, value)| value)
    }

    /// What is held of a key, with the key that is held.
    pub(super) fn get_key_value(&self, key: &K) -> Option<(&K, &V)> {
        self.shards.get(place(key))?.get_key_value(key)
    }

    /// Holds a value.
    pub(super) fn insert(&mut self, key: K, value: V) {
        if let Some(shard) = self.shards.get_mut(place(&key)) {
            Arc::make_mut(shard).insert(key, value);
        }
    }

    /// Drops a key; returns whether it was held.
    pub(super) fn remove(&mut self, key: &K) -> bool {
        let shard = self.shards.get_mut(place(key)).filter(|shard| shard.contains_key(key));
        shard.is_some_and(|shard| Arc::make_mut(shard).remove(key).is_some())
    }

    /// Everything, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }
}

fn place(key: &impl Hash) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    // The remainder fits whatever a usize is.
    (hasher.finish() % SHARDS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_copies_what_it_touches_and_shares_the_rest() {
        let mut first = Shards::default();
        (0..10_000_u32).for_each(|key| first.insert(key, key));
        let mut second = first.clone();
        second.insert(7, 8);
        assert!(second.remove(&9) && !second.remove(&10_000));
        assert_eq!((first.get(&7), second.get(&7)), (Some(&7), Some(&8)));
        assert_eq!((first.iter().count(), second.iter().count()), (10_000, 9_999));
        let shards = first.shards.iter().zip(&second.shards);
        assert_eq!(shards.filter(|(first, second)| !Arc::ptr_eq(first, second)).count(), 2);
    }
}
