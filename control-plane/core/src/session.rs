//! One subscriber's stream as a state machine: what it asked for, what it holds, what it is owed.
//!
//! Where it stands: between *publish*, which encodes a config once, and *serve*, which moves epochs
//! over a socket. The simulation runs this very code.
//!
//! ```text
//! Hello ─→ Session ─next(Published)→ Epoch ─→ … Ack ─→ Session ─next→ …
//!             ↑ subscribe
//! ```
//!
//! Invariant: an epoch is whole. After it, the subscriber holds, of one generation, everything it
//! subscribed to and everything that refers to, except what it refused.
//! Invariant: at most one epoch is unacknowledged; what changes meanwhile comes in the next, once.
//! Invariant: only differences are sent; a refused version is not sent again until it changes.

mod changes;
mod published;
mod shards;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use thiserror::Error;

pub use self::{
    changes::Change,
    published::{Encode, Encoded, Published, Version},
};
use crate::config::{Key, ResourceType};

/// Subscriptions that one session may have. Source: ours; a sidecar subscribes to each address it has
/// lately called, and its own cache is smaller.
pub const MAX_SUBSCRIPTIONS: usize = 4096;
/// Resources that a Hello may present as held. Source: ours; 16 for each subscription.
pub const MAX_HELD: usize = 16 * MAX_SUBSCRIPTIONS;
/// Bytes kept of a refusal's reason. Source: ours; Kubernetes' limit of a condition's message is 32 KiB
/// and a status joins many of these.
pub const MAX_REASON: usize = 1024;

/// Who calls and what it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hello {
    /// The workload, "namespace/pod".
    pub workload: String,
    /// Resources held from before. Keys carry no scope.
    pub held: Vec<(Key, Version)>,
    /// Subscriptions. Mesh, Trust and the workload's own Inbound are implied.
    pub subscriptions: Vec<Key>,
}

/// Answer to one epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ack {
    /// The epoch's nonce.
    pub nonce: u64,
    /// Resources that could not be taken; the subscriber keeps what it had.
    pub refusals: Vec<Refusal>,
}

/// A resource that could not be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which, without a scope.
    pub key: Key,
    /// Its refused version.
    pub version: Version,
    /// Why, for a person.
    pub reason: String,
}

/// Changes that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    /// Number on this stream; rises by one from 1.
    pub nonce: u64,
    /// Generation that this shows.
    pub generation: u64,
    /// New and changed resources, sorted. Keys carry no scope.
    pub upserts: Vec<(Key, Encoded)>,
    /// Resources that are gone or no longer subscribed, sorted; also a subscribed name that there is
    /// nothing of, once, so that the subscriber does not wait for it.
    pub removals: Vec<Key>,
}

/// Why a subscriber's message cannot be taken; the stream is at fault and ends.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SessionError {
    /// The workload's name is none.
    #[error("{0:?} is not a workload (namespace/pod)")]
    BadWorkload(String),
    /// Only addresses and outbound service ports are subscribed to by name.
    #[error("{0:?} is not subscribed to by name: it comes with what refers to it")]
    NotSubscribable(Key),
    /// The name of an address is no address.
    #[error("{0:?} is not an address (ip:port, IPv6 in brackets)")]
    BadAddress(String),
    /// Too many subscriptions.
    #[error("more than {MAX_SUBSCRIPTIONS} subscriptions")]
    TooManySubscriptions,
    /// Too many resources presented.
    #[error("more than {MAX_HELD} held resources")]
    TooManyHeld,
    /// The acknowledged epoch is not the one in flight.
    #[error("acknowledged epoch {nonce}, but {} is in flight", expected.map_or("none".to_owned(), |nonce| nonce.to_string()))]
    UnexpectedAck {
        /// What was acknowledged.
        nonce: u64,
        /// What is in flight.
        expected: Option<u64>,
    },
}

/// One subscriber.
#[derive(Debug, Clone)]
pub struct Session {
    workload: String,
    namespace: String,
    subscriptions: BTreeSet<Key>,
    /// What the subscriber holds, or will when the epoch in flight is taken.
    held: BTreeMap<Key, Version>,
    /// Names of which the subscriber knows that there is nothing.
    absent: BTreeSet<Key>,
    /// Names that something held refers to, and there is nothing of.
    missing: BTreeSet<Key>,
    refused: BTreeMap<Key, Refusal>,
    in_flight: Option<InFlight>,
    last_nonce: u64,
    /// Generation that the subscriber was last brought to, while nothing else has changed since.
    settled: Option<u64>,
    /// Rises whenever names may come or go.
    revision: u64,
}

/// An epoch that waits for its acknowledgement.
#[derive(Debug, Clone)]
struct InFlight {
    nonce: u64,
    /// For each upsert: the version sent, and what was held before.
    sent: BTreeMap<Key, (Version, Option<Version>)>,
}

impl Session {
    /// Opens a session.
    ///
    /// # Errors
    /// [`SessionError`], when the Hello names no workload, or subscribes to or holds what it cannot.
    pub fn open(hello: Hello) -> Result<Self, SessionError> {
        let namespace = match hello.workload.split_once('/') {
            Some((namespace, pod)) if !namespace.is_empty() && !pod.is_empty() => namespace.to_owned(),
            _ => return Err(SessionError::BadWorkload(hello.workload)),
        };
        if hello.held.len() > MAX_HELD {
            return Err(SessionError::TooManyHeld);
        }
        let mut session = Self {
            workload: hello.workload,
            namespace,
            subscriptions: BTreeSet::new(),
            held: hello.held.into_iter().map(|(key, version)| (key.unscoped(), version)).collect(),
            absent: BTreeSet::new(),
            missing: BTreeSet::new(),
            refused: BTreeMap::new(),
            in_flight: None,
            last_nonce: 0,
            settled: None,
            revision: 0,
        };
        session.subscribe(hello.subscriptions, Vec::new())?;
        Ok(session)
    }

    /// Adds and drops subscriptions; drops first.
    ///
    /// # Errors
    /// [`SessionError`], when a name cannot be subscribed to or there are too many; nothing changes then.
    pub fn subscribe(&mut self, add: Vec<Key>, drop: Vec<Key>) -> Result<(), SessionError> {
        let add = add.into_iter().map(subscribable).collect::<Result<Vec<_>, _>>()?;
        let mut subscriptions = self.subscriptions.clone();
        for key in &drop {
            subscriptions.remove(&key.unscoped());
        }
        subscriptions.extend(add.iter().cloned());
        if subscriptions.len() > MAX_SUBSCRIPTIONS {
            return Err(SessionError::TooManySubscriptions);
        }
        let asked_again = add.iter().filter(|key| self.absent.remove(*key)).count() > 0;
        if asked_again || subscriptions != self.subscriptions {
            self.subscriptions = subscriptions;
            self.settled = None;
        }
        Ok(())
    }

    /// Takes the answer to the epoch in flight; returns the refusals that are new, for whoever reports.
    ///
    /// # Errors
    /// [`SessionError::UnexpectedAck`], when no epoch of this number is in flight.
    pub fn acknowledge(&mut self, ack: Ack) -> Result<Vec<Refusal>, SessionError> {
        let expected = self.in_flight.as_ref().map(|epoch| epoch.nonce);
        let Some(epoch) = self.in_flight.take_if(|epoch| epoch.nonce == ack.nonce) else {
            return Err(SessionError::UnexpectedAck { nonce: ack.nonce, expected });
        };
        let mut news = Vec::new();
        for mut refusal in ack.refusals {
            refusal.key = refusal.key.unscoped();
            let Some((version, before)) = epoch.sent.get(&refusal.key) else { continue };
            if *version != refusal.version {
                continue;
            }
            match before {
                Some(before) => drop(self.held.insert(refusal.key.clone(), *before)),
                None => drop(self.held.remove(&refusal.key)),
            }
            truncate(&mut refusal.reason, MAX_REASON);
            self.refused.insert(refusal.key.clone(), refusal.clone());
            news.push(refusal);
        }
        if !news.is_empty() {
            self.settled = None;
        }
        Ok(news)
    }

    /// The epoch that the subscriber is owed now: none while one is in flight, or when nothing differs.
    /// The first is always sent, even empty: it tells the subscriber that what it holds is current.
    pub fn next(&mut self, published: &Published) -> Option<Epoch> {
        if self.in_flight.is_some() || self.settled == Some(published.generation()) {
            return None;
        }
        if self.is_untouched(published) {
            self.settled = Some(published.generation());
            return None;
        }
        let (wanted, missing) = self.closure(published);
        self.missing = missing;
        self.revision += 1;
        self.refused.retain(|key, refusal| {
            matches!(wanted.get(key), Some(Some(resource)) if resource.version == refusal.version)
        });
        let upserts = self.upserts(&wanted);
        let removals = self.removals(&wanted);
        self.absent =
            wanted.iter().filter(|(_, resource)| resource.is_none()).map(|(key, _)| key.clone()).collect();
        self.settled = Some(published.generation());
        if upserts.is_empty() && removals.is_empty() && self.last_nonce > 0 {
            return None;
        }
        Some(self.send(published.generation(), upserts, removals))
    }

    /// The workload, "namespace/pod".
    pub fn workload(&self) -> &str {
        &self.workload
    }

    /// What the subscriber refused and still would be sent.
    pub fn refusals(&self) -> impl Iterator<Item = &Refusal> {
        self.refused.values()
    }

    /// What the subscriber holds, as far as it has acknowledged, or will when it does.
    pub fn held(&self) -> impl Iterator<Item = (&Key, &Version)> {
        self.held.iter()
    }

    /// Rises whenever [`Self::names`] or [`Self::addresses`] may have changed.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The names whose change may concern the subscriber, addresses apart; without scopes.
    pub fn names(&self) -> impl Iterator<Item = &Key> {
        let known = self.held.keys().chain(self.refused.keys()).chain(&self.absent).chain(&self.missing);
        known.filter(|key| key.kind != ResourceType::Address)
    }

    /// Whether an epoch waits for its acknowledgement.
    pub fn is_waiting(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether nothing that concerns the subscriber has changed since it was last brought to a state.
    fn is_untouched(&self, published: &Published) -> bool {
        let changes = self.settled.and_then(|settled| published.changes_since(settled));
        changes.is_some_and(|mut changes| changes.all(|change| !self.is_touched(change)))
    }

    /// Whether a change may concern the subscriber, as far as it was brought.
    fn is_touched(&self, change: &Change) -> bool {
        let knows = |key: &Key| {
            self.held.contains_key(key)
                || self.refused.contains_key(key)
                || self.absent.contains(key)
                || self.missing.contains(key)
        };
        change.is_wide()
            || change.keys().any(knows)
            || change.addresses().any(|address| self.addresses().any(|own| own == *address))
    }

    /// The addresses that are subscribed to.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let subscribed = self.subscriptions.iter().filter(|key| key.kind == ResourceType::Address);
        subscribed.filter_map(|key| Some(key.name.parse::<SocketAddr>().ok()?.ip().to_canonical()))
    }

    /// Everything the subscriber should hold, and what that refers to and is not there. `None`: asked
    /// for, and there is nothing of this name.
    fn closure(&self, published: &Published) -> (BTreeMap<Key, Option<Encoded>>, BTreeSet<Key>) {
        let own = [Key::mesh(), Key::new(ResourceType::Inbound, self.workload.as_str())];
        let roots = own.into_iter().chain(published.trust()).chain(self.subscriptions.iter().cloned());
        let (mut wanted, mut missing) = (BTreeMap::new(), BTreeSet::new());
        let mut queue: Vec<Key> = Vec::new();
        for root in roots {
            let found = published.find(&root, &self.namespace);
            queue.extend(found.iter().flat_map(|found| found.1.iter().cloned()));
            wanted.insert(root, found.map(|found| found.0));
        }
        while let Some(key) = queue.pop() {
            if wanted.contains_key(&key) {
                continue;
            }
            match published.find(&key, &self.namespace) {
                Some((resource, references)) => {
                    queue.extend(references);
                    wanted.insert(key, Some(resource));
                }
                None => drop(missing.insert(key)),
            }
        }
        (wanted, missing)
    }

    fn upserts(&self, wanted: &BTreeMap<Key, Option<Encoded>>) -> Vec<(Key, Encoded)> {
        let mut upserts = Vec::new();
        for (key, resource) in wanted {
            let Some(resource) = resource else { continue };
            if self.held.get(key) != Some(&resource.version) && !self.refused.contains_key(key) {
                upserts.push((key.clone(), resource.clone()));
            }
        }
        upserts
    }

    fn removals(&self, wanted: &BTreeMap<Key, Option<Encoded>>) -> Vec<Key> {
        let gone = self.held.keys().filter(|key| !wanted.contains_key(*key));
        let absent = wanted.iter().filter(|(_, resource)| resource.is_none()).map(|(key, _)| key);
        let news = absent.filter(|key| self.held.contains_key(*key) || !self.absent.contains(*key));
        let keys: BTreeSet<&Key> = gone.chain(news).collect();
        keys.into_iter().cloned().collect()
    }

    fn send(&mut self, generation: u64, upserts: Vec<(Key, Encoded)>, removals: Vec<Key>) -> Epoch {
        for key in &removals {
            self.held.remove(key);
        }
        let mut sent = BTreeMap::new();
        for (key, resource) in &upserts {
            let before = self.held.insert(key.clone(), resource.version);
            sent.insert(key.clone(), (resource.version, before));
        }
        self.last_nonce += 1;
        self.in_flight = Some(InFlight { nonce: self.last_nonce, sent });
        Epoch { nonce: self.last_nonce, generation, upserts, removals }
    }
}

fn subscribable(key: Key) -> Result<Key, SessionError> {
    match key.kind {
        ResourceType::Outbound => Ok(key.unscoped()),
        ResourceType::Address if key.name.parse::<SocketAddr>().is_ok() => Ok(key.unscoped()),
        ResourceType::Address => Err(SessionError::BadAddress(key.name)),
        _ => Err(SessionError::NotSubscribable(key)),
    }
}

fn truncate(text: &mut String, limit: usize) {
    let end = text.floor_char_boundary(limit);
    text.truncate(end);
}

#[cfg(test)]
mod tests;
