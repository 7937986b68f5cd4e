//! References: after an epoch, what is named must be there.
//!
//! A new resource that names what is missing goes back to its last good version. What that version
//! (or anything else in force) still names, and this epoch removed, stays: a snapshot never names
//! what it does not hold.
//!
//! Invariant: ends: each round reverts or restores at least one key of the epoch, and none twice.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::key::Key;
use super::read::Resource;
use super::{Before, Refused};

/// Reverts and restores until every reference of `resources` holds. `before` says what stood under
/// each key the epoch touched.
pub(super) fn reconcile(
    resources: &mut BTreeMap<Key, Resource>,
    before: &mut Before,
    refused: &mut Vec<Refused>,
) {
    while let Some((key, missing)) = dangling_news(resources, before) {
        let old = before.remove(&key).flatten();
        let new = match old {
            Some(old) => resources.insert(key.clone(), old),
            None => resources.remove(&key),
        };
        let version = new.map_or_else(Bytes::new, |new| new.version);
        let reason = format!("names {missing}, which is not in the epoch and not held");
        refused.push(Refused { key: (&key).into(), version, reason });
    }
    while let Some((key, user)) = still_named(resources, before) {
        let Some(Some(old)) = before.remove(&key) else { return };
        resources.insert(key.clone(), old);
        let reason = format!("removed, but {user} still names it; its last good version stays");
        refused.push(Refused { key: (&key).into(), version: Bytes::new(), reason });
    }
}

/// A resource new in this epoch that names what is not there.
fn dangling_news(resources: &BTreeMap<Key, Resource>, before: &Before) -> Option<(Key, Key)> {
    before.keys().find_map(|key| {
        let missing = resources.get(key)?.needs.iter().find(|need| !resources.contains_key(need))?;
        Some((key.clone(), missing.clone()))
    })
}

/// A resource that this epoch took away and that one in force names.
fn still_named(resources: &BTreeMap<Key, Resource>, before: &Before) -> Option<(Key, Key)> {
    let removed = |need: &&Key| matches!(before.get(*need), Some(Some(_))) && !resources.contains_key(*need);
    if !before.iter().any(|(key, old)| old.is_some() && !resources.contains_key(key)) {
        return None;
    }
    resources.iter().find_map(|(user, resource)| {
        let need = resource.needs.iter().find(removed)?;
        Some((need.clone(), user.clone()))
    })
}
