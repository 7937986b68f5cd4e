//! What lately changed, so that a session that is not concerned need not look at all it holds.
//!
//! Where it stands: a part of the published state; the session asks it first.
//!
//! Invariant: what cannot be told is said to be unknown, never to be nothing.

use std::{
    collections::{BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::config::{Key, ResourceType};

/// Generations that are remembered. Source: ours; a session that waits for an acknowledgement longer
/// than these looks at everything again, which is right as well.
const REMEMBERED: usize = 64;
/// Keys of one change that are remembered; more concern everybody. Source: ours; a change of that many
/// resources costs more to remember than to look for.
const WIDE: usize = 512;

/// What one generation changed.
#[derive(Debug, Clone, Default)]
pub struct Change {
    keys: BTreeSet<Key>,
    addresses: BTreeSet<IpAddr>,
    /// It concerns everybody.
    wide: bool,
}

impl Change {
    /// Names whose resources changed, without scopes; addresses are not among them.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }

    /// Addresses, any of whose ports may mean something else now.
    pub fn addresses(&self) -> impl Iterator<Item = &IpAddr> {
        self.addresses.iter()
    }

    /// Whether it concerns everybody.
    pub fn is_wide(&self) -> bool {
        self.wide || self.keys.len() + self.addresses.len() > WIDE
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.addresses.is_empty() && !self.wide
    }

    pub(super) fn add(&mut self, key: &Key) {
        match key.kind {
            ResourceType::Mesh | ResourceType::Trust => self.wide = true,
            ResourceType::Address => match key.name.parse::<SocketAddr>() {
                Ok(address) => self.add_address(address.ip()),
                Err(_) => self.wide = true,
            },
            _ => drop(self.keys.insert(key.unscoped())),
        }
    }

    pub(super) fn add_address(&mut self, address: IpAddr) {
        self.addresses.insert(address.to_canonical());
    }
}

/// The latest changes, the newest last, of generations without a gap.
#[derive(Debug, Clone, Default)]
pub(super) struct Changes {
    latest: VecDeque<(u64, Arc<Change>)>,
}

impl Changes {
    /// These and one more.
    pub(super) fn and(&self, generation: u64, mut change: Change) -> Self {
        if change.is_wide() {
            change = Change { wide: true, ..Change::default() };
        }
        let mut latest = self.latest.clone();
        latest.push_back((generation, Arc::new(change)));
        if latest.len() > REMEMBERED {
            latest.pop_front();
        }
        Self { latest }
    }

    /// Those after one generation up to another; `None`: they are not all remembered.
    pub(super) fn since(&self, after: u64, until: u64) -> Option<impl Iterator<Item = &Change>> {
        let since = move |(generation, _): &&(u64, Arc<Change>)| *generation > after;
        let known = self.latest.iter().filter(since).count();
        let complete = u64::try_from(known).ok() == until.checked_sub(after);
        complete.then(|| self.latest.iter().filter(since).map(|(_, change)| &**change))
    }
}
