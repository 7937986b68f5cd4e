//! A config, encoded once for all subscribers.
//!
//! Where it stands: what *publish* holds and every session reads.
//!
//! Invariant: a resource is encoded once for as long as it stays equal, whatever else changes.
//! Invariant: the encoding is an argument; this crate knows no wire.
//! Invariant: publishing a change costs what the change is, not what the config is.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{
    changes::{Change, Changes},
    shards::Shards,
};
use crate::{
    compile::Delta,
    config::{Address, Config, Key, PodAddress, Resource, ResourceType, address_name, pod_at, references},
};

/// Hash of an encoded resource: first 16 bytes of SHA-256.
pub type Version = [u8; 16];

/// How a resource is encoded: its bytes and their hash. Must be a function of the resource alone.
pub type Encode = fn(&Resource) -> Encoded;

/// An encoded resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Hash of the body.
    pub version: Version,
    /// The bytes.
    pub body: Arc<[u8]>,
}

/// A resource with its encoding.
#[derive(Debug, Clone)]
struct Entry {
    resource: Arc<Resource>,
    encoded: Encoded,
}

/// A config with its encoded resources.
#[derive(Debug, Clone)]
pub struct Published {
    generation: u64,
    resources: Shards<Key, Entry>,
    pods: Shards<IpAddr, Arc<[PodAddress]>>,
    trust: BTreeSet<Key>,
    changes: Changes,
    encode: Encode,
}

impl Published {
    /// Nothing, before the first config.
    pub fn nothing(encode: Encode) -> Self {
        Self {
            generation: 0,
            resources: Shards::default(),
            pods: Shards::default(),
            trust: BTreeSet::new(),
            changes: Changes::default(),
            encode,
        }
    }

    /// Encodes a config.
    pub fn new(generation: u64, config: Arc<Config>, encode: Encode) -> Self {
        let before = Self { generation: generation.saturating_sub(1), ..Self::nothing(encode) };
        let delta = before.difference(&config);
        before.apply(&delta).unwrap_or(before.at(generation))
    }

    /// Encodes what differs of a later config. `None`: nothing does, and there is nothing to publish.
    pub fn after(&self, config: Arc<Config>) -> Option<Self> {
        self.apply(&self.difference(&config))
    }

    /// Encodes what a difference brings. `None`: to sidecars there is none.
    pub fn apply(&self, delta: &Delta) -> Option<Self> {
        let mut next = self.clone();
        let mut change = Change::default();
        for (key, resource) in &delta.upserts {
            let encoded = (self.encode)(resource);
            if self.resources.get(key).is_some_and(|before| before.encoded == encoded) {
                continue;
            }
            change.add(key);
            if key.kind == ResourceType::Trust {
                next.trust.insert(key.clone());
            }
            next.resources.insert(key.clone(), Entry { resource: Arc::clone(resource), encoded });
        }
        for key in &delta.removals {
            if next.resources.remove(key) {
                change.add(key);
                next.trust.remove(key);
            }
        }
        for (address, pods) in &delta.pods {
            if self.pods.get(address).map_or(&[][..], |pods| pods) == &pods[..] {
                continue;
            }
            change.add_address(*address);
            if pods.is_empty() {
                next.pods.remove(address);
            } else {
                next.pods.insert(*address, Arc::clone(pods));
            }
        }
        if change.is_empty() {
            return None;
        }
        next.generation = self.generation + 1;
        next.changes = self.changes.and(next.generation, change);
        Some(next)
    }

    /// How a config differs from what is published.
    fn difference(&self, config: &Config) -> Delta {
        let mut delta = Delta::default();
        for (key, resource) in &config.resources {
            if self.resource(key) != Some(resource) {
                delta.upserts.insert(key.clone(), Arc::new(resource.clone()));
            }
        }
        let gone = self.resources.iter().map(|(key, _)| key);
        delta.removals.extend(gone.filter(|key| !config.resources.contains_key(*key)).cloned());
        for (address, pods) in &config.pods {
            delta.pods.insert(*address, pods.as_slice().into());
        }
        for (address, _) in self.pods.iter().filter(|(address, _)| !config.pods.contains_key(*address)) {
            delta.pods.insert(*address, Arc::new([]));
        }
        delta
    }

    fn at(&self, generation: u64) -> Self {
        Self { generation, ..self.clone() }
    }

    /// Number of this config; rises with each that differs.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What has changed since a generation; `None`: that is too long ago to tell.
    pub fn changes_since(&self, generation: u64) -> Option<impl Iterator<Item = &Change>> {
        self.changes.since(generation, self.generation)
    }

    /// A resource by its own key.
    pub fn resource(&self, key: &Key) -> Option<&Resource> {
        self.resources.get(key).map(|entry| &*entry.resource)
    }

    /// The keys of all resources, sorted.
    pub fn keys(&self) -> Vec<&Key> {
        let mut keys: Vec<&Key> = self.resources.iter().map(|(key, _)| key).collect();
        keys.sort_unstable();
        keys
    }

    /// How many pods have an address, those that share one counted each.
    pub fn pods(&self) -> usize {
        self.pods.iter().map(|(_, pods)| pods.len()).sum()
    }

    /// The variant of a resource that clients of a namespace see: their own, else the general one.
    pub fn resolve(
        &self,
        kind: ResourceType,
        name: &str,
        client_namespace: &str,
    ) -> Option<(&Key, &Resource)> {
        self.entry(kind, name, client_namespace).map(|(key, entry)| (key, &*entry.resource))
    }

    /// The whole config, copied: for whoever looks at all of it, seldom.
    pub fn config(&self) -> Config {
        let resources = self.resources.iter();
        Config {
            resources: resources
                .map(|(key, entry)| (key.clone(), Resource::clone(&entry.resource)))
                .collect(),
            pods: self.pods.iter().map(|(address, pods)| (*address, pods.to_vec())).collect(),
        }
    }

    /// A resource as clients of a namespace see it, with what it refers to. An address is always found:
    /// one that nobody claims is unknown, which is an answer.
    pub fn find(&self, key: &Key, client_namespace: &str) -> Option<(Encoded, Vec<Key>)> {
        if key.kind == ResourceType::Address {
            return self.address(key.name.parse().ok()?);
        }
        let (_, entry) = self.entry(key.kind, &key.name, client_namespace)?;
        Some((entry.encoded.clone(), references(&entry.resource)))
    }

    /// Keys of the trust bundles.
    pub fn trust(&self) -> impl Iterator<Item = Key> {
        self.trust.iter().cloned()
    }

    /// Only Outbounds have variants.
    fn entry(&self, kind: ResourceType, name: &str, client_namespace: &str) -> Option<(&Key, &Entry)> {
        let scoped = (kind == ResourceType::Outbound)
            .then(|| self.resources.get_key_value(&Key::scoped(kind, name, client_namespace)))
            .flatten();
        scoped.or_else(|| self.resources.get_key_value(&Key::new(kind, name)))
    }

    fn address(&self, address: SocketAddr) -> Option<(Encoded, Vec<Key>)> {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        if let Some(entry) = self.resources.get(&Key::new(ResourceType::Address, address_name(address))) {
            return Some((entry.encoded.clone(), references(&entry.resource)));
        }
        let pods = self.pods.get(&address.ip()).map_or(&[][..], |pods| pods);
        let meaning = pod_at(pods, address).map_or(Address::Unknown, Address::Workload);
        Some(((self.encode)(&Resource::Address(meaning)), Vec::new()))
    }
}
