//! A config, encoded once for all subscribers.
//!
//! Where it stands: what *publish* holds and every session reads.
//!
//! Invariant: a resource is encoded once for as long as it stays equal, whatever else changes.
//! Invariant: the encoding is an argument; this crate knows no wire.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use crate::config::{Address, Config, Key, Resource, ResourceType, address_name, references};

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

/// A config with its encoded resources.
#[derive(Debug, Clone)]
pub struct Published {
    generation: u64,
    config: Arc<Config>,
    resources: BTreeMap<Key, Encoded>,
    encode: Encode,
}

impl Published {
    /// Encodes a config.
    pub fn new(generation: u64, config: Arc<Config>, encode: Encode) -> Self {
        let resources =
            config.resources.iter().map(|(key, resource)| (key.clone(), encode(resource))).collect();
        Self { generation, config, resources, encode }
    }

    /// Encodes what differs of a later config. `None`: nothing does, and there is nothing to publish.
    pub fn after(&self, config: Arc<Config>) -> Option<Self> {
        if *self.config == *config {
            return None;
        }
        let encoded = |(key, resource): (&Key, &Resource)| {
            let same = self.config.resources.get(key) == Some(resource);
            let before = self.resources.get(key).filter(|_| same).cloned();
            (key.clone(), before.unwrap_or_else(|| (self.encode)(resource)))
        };
        let resources = config.resources.iter().map(encoded).collect();
        Some(Self { generation: self.generation + 1, config, resources, encode: self.encode })
    }

    /// Number of this config; rises with each that differs.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The config.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// A resource as clients of a namespace see it, with what it refers to. An address is always found:
    /// one that nobody claims is unknown, which is an answer.
    pub fn find(&self, key: &Key, client_namespace: &str) -> Option<(Encoded, Vec<Key>)> {
        if key.kind == ResourceType::Address {
            return self.address(key.name.parse().ok()?);
        }
        let (key, resource) = self.config.resolve(key.kind, &key.name, client_namespace)?;
        Some((self.resources.get(key)?.clone(), references(resource)))
    }

    /// Keys of the trust bundles.
    pub fn trust(&self) -> impl Iterator<Item = Key> {
        let first = Key::new(ResourceType::Trust, "");
        let bundles = self.config.resources.range(first..).map(|(key, _)| key);
        bundles.take_while(|key| key.kind == ResourceType::Trust).cloned()
    }

    fn address(&self, address: SocketAddr) -> Option<(Encoded, Vec<Key>)> {
        let key = Key::new(ResourceType::Address, address_name(address));
        if let (Some(encoded), Some(resource)) = (self.resources.get(&key), self.config.resources.get(&key)) {
            return Some((encoded.clone(), references(resource)));
        }
        let resource: Address = self.config.address(address);
        Some(((self.encode)(&Resource::Address(resource)), Vec::new()))
    }
}
