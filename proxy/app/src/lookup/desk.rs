//! The chores side of looking up: who waits for what, and what may be forgotten.
//!
//! Invariant: no clock and no socket: time is an argument, subscriptions are return values.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::oneshot;
use tokio::time::Instant;
use weft_proxy_core::{Name, Snapshot};

use super::{Answer, Question, Use, Uses, Wanted};
use crate::adopt::{Key, Kind};
use crate::settings::Limits;

/// Sweeps in the idle time of a destination; more would only make it more exact.
const SWEEPS: u32 = 10;
/// Askers that wait for one destination. Source: as many as may be under way in the queue, four times.
const MAX_WAITERS: usize = 4096;
/// What holds a use while no connection does: the table and the desk.
const OWN_HOLDS: usize = 2;

/// Who waits for what.
#[derive(Debug)]
pub(crate) struct Desk {
    uses: Arc<Uses>,
    addresses: FxHashMap<SocketAddr, Arc<Use>>,
    pinned: FxHashSet<Name>,
    waiting: FxHashMap<Wanted, Vec<oneshot::Sender<Answer>>>,
    max: usize,
    timeout: Duration,
    idle: Duration,
    down_since: Option<Instant>,
}

impl Desk {
    pub(super) fn new(limits: &Limits, uses: Arc<Uses>) -> Self {
        Self {
            uses,
            addresses: FxHashMap::default(),
            pinned: FxHashSet::default(),
            waiting: FxHashMap::default(),
            max: limits.max_lookups,
            timeout: limits.lookup_timeout,
            idle: limits.lookup_idle,
            down_since: None,
        }
    }

    /// A service port that is wanted from now on and never idle.
    pub(crate) fn pin(&mut self, name: Name) {
        self.pinned.insert(name);
    }

    /// Addresses held from before: kept as if just used.
    pub(crate) fn remember(&mut self, addresses: impl Iterator<Item = SocketAddr>) {
        let tick = self.uses.tick.load(Ordering::Relaxed);
        let room = self.max.saturating_sub(self.addresses.len());
        for address in addresses.take(room) {
            self.addresses.insert(address, Arc::new(Use { last: AtomicU32::new(tick) }));
        }
        self.publish();
    }

    /// Everything to subscribe to on a new stream, sorted.
    pub(crate) fn subscriptions(&self) -> Vec<Key> {
        let addresses = self.addresses.keys().map(|address| Key::new(Kind::Address, address.to_string()));
        let pinned = self.pinned.iter().map(|name| Key::new(Kind::Outbound, name.as_str()));
        let mut keys: Vec<Key> = addresses.chain(pinned).collect();
        keys.sort();
        keys
    }

    /// The stream is up, or down since `now`.
    pub(crate) fn connected(&mut self, up: bool, now: Instant) {
        self.down_since = if up { None } else { Some(self.down_since.unwrap_or(now)) };
    }

    /// Takes a question; what it returns is to be subscribed to, and what it forgot for it, dropped.
    pub(crate) fn ask(&mut self, question: Question, snapshot: &Snapshot, now: Instant) -> Changes {
        let Question { wanted, answer } = question;
        if holds(snapshot, &wanted) {
            let _ = answer.send(Answer::Arrived);
            return Changes::default();
        }
        let Some(mut changes) = self.want(&wanted) else {
            let _ = answer.send(Answer::Full);
            return Changes::default();
        };
        if self.down_since.is_some_and(|since| now.duration_since(since) >= self.timeout) {
            let _ = answer.send(Answer::Unreachable);
            return changes;
        }
        let waiters = self.waiting.entry(wanted.clone()).or_default();
        if waiters.len() >= MAX_WAITERS {
            waiters.retain(|waiter| !waiter.is_closed());
        }
        if waiters.len() >= MAX_WAITERS {
            let _ = answer.send(Answer::Full);
            return changes;
        }
        // Asked again although subscribed: the control plane took it away meanwhile.
        if waiters.is_empty() && changes.add.is_empty() {
            changes.add.push(key(&wanted));
        }
        waiters.push(answer);
        changes
    }

    /// A new snapshot: answers all who waited for what it holds.
    pub(crate) fn arrived(&mut self, snapshot: &Snapshot) {
        self.waiting.retain(|wanted, waiters| {
            if !holds(snapshot, wanted) {
                return true;
            }
            for waiter in waiters.drain(..) {
                // An asker that is gone waits no more.
                let _ = waiter.send(Answer::Arrived);
            }
            false
        });
    }

    /// How often to sweep.
    pub(crate) fn sweep_interval(&self) -> Duration {
        self.idle / SWEEPS
    }

    /// Forgets what was idle for long enough; what it returns is to be dropped.
    pub(crate) fn sweep(&mut self) -> Vec<Key> {
        let tick = self.uses.tick.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        self.waiting.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.is_closed());
            !waiters.is_empty()
        });
        let idle: Vec<SocketAddr> = self
            .addresses
            .iter()
            .filter(|(_, used)| age(used, tick) >= SWEEPS && Arc::strong_count(used) <= OWN_HOLDS)
            .map(|(address, _)| *address)
            .collect();
        self.forget(&idle)
    }

    fn want(&mut self, wanted: &Wanted) -> Option<Changes> {
        let mut changes = Changes::default();
        match wanted {
            Wanted::Outbound(name) => {
                if self.pinned.contains(name) {
                    return Some(changes);
                }
                // Explicit listeners are few, and all known at the start.
                if self.pinned.len() >= self.max {
                    return None;
                }
                self.pinned.insert(name.clone());
            }
            Wanted::Address(address) => {
                if self.addresses.contains_key(address) {
                    return Some(changes);
                }
                if self.addresses.len() >= self.max {
                    let oldest = self.oldest_unused()?;
                    changes.drop = self.forget(&[oldest]);
                }
                let last = AtomicU32::new(self.uses.tick.load(Ordering::Relaxed));
                self.addresses.insert(*address, Arc::new(Use { last }));
                self.publish();
            }
        }
        changes.add.push(key(wanted));
        Some(changes)
    }

    fn oldest_unused(&self) -> Option<SocketAddr> {
        let tick = self.uses.tick.load(Ordering::Relaxed);
        let unused = self.addresses.iter().filter(|(address, used)| {
            Arc::strong_count(used) <= OWN_HOLDS && !self.waiting.contains_key(&Wanted::Address(**address))
        });
        unused.max_by_key(|(_, used)| age(used, tick)).map(|(address, _)| *address)
    }

    fn forget(&mut self, addresses: &[SocketAddr]) -> Vec<Key> {
        if addresses.is_empty() {
            return Vec::new();
        }
        for address in addresses {
            self.addresses.remove(address);
        }
        self.publish();
        addresses.iter().map(|address| key(&Wanted::Address(*address))).collect()
    }

    fn publish(&self) {
        self.uses.table.store(Arc::new(self.addresses.clone()));
    }
}

/// Changes of subscriptions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) add: Vec<Key>,
    pub(crate) drop: Vec<Key>,
}

fn holds(snapshot: &Snapshot, wanted: &Wanted) -> bool {
    match wanted {
        Wanted::Address(address) => snapshot.addresses.contains_key(address),
        Wanted::Outbound(name) => snapshot.outbounds.contains_key(name),
    }
}

fn key(wanted: &Wanted) -> Key {
    match wanted {
        Wanted::Address(address) => Key::new(Kind::Address, address.to_string()),
        Wanted::Outbound(name) => Key::new(Kind::Outbound, name.as_str()),
    }
}

fn age(used: &Use, tick: u32) -> u32 {
    tick.wrapping_sub(used.last.load(Ordering::Relaxed))
}
