//! The control plane without its sockets: reads manifests, compiles, publishes, and serves each link
//! with the shipped session.
//!
//! Invariant: what was published under a generation is kept, with the facts that it was made of, so
//! that a sidecar can be held against exactly what it shows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use prost::Message;
use serde_json::Value;
use weft_control_plane::encode;
use weft_control_plane::publish::Publisher;
use weft_control_plane_core::config::{self, Config, Key, Resource, ResourceType, references};
use weft_control_plane_core::model::read;
use weft_control_plane_core::session::{self, Session};
use weft_control_plane_core::{Kind, Model, compile};
use weft_proto::v1;
use weft_proxy_core::Moment;

use super::facts::{Facts, Id, parts};
use super::{Broken, Fault, Violation, oracle};

/// A generation: process and number.
pub(super) type Generation = (u32, u64);

/// What one generation is.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) facts: Facts,
    config: Arc<Config>,
    bodies: BTreeMap<Key, Arc<[u8]>>,
}

impl Shown {
    /// A resource for clients of a namespace, and what it refers to.
    pub(super) fn find(&self, key: &Key, namespace: &str) -> Option<(Arc<[u8]>, Vec<Key>)> {
        if key.kind == ResourceType::Address {
            let address = Resource::Address(self.config.address(key.name.parse().ok()?));
            return Some((encode::encode(&address).body, references(&address)));
        }
        let scoped = Key::scoped(key.kind, key.name.as_str(), namespace);
        let key = if self.bodies.contains_key(&scoped) { &scoped } else { key };
        Some((Arc::clone(self.bodies.get(key)?), references(self.config.resources.get(key)?)))
    }
}

/// The control plane.
#[derive(Debug)]
pub(super) struct Plane {
    pub(super) process: u32,
    pub(super) back_at: Moment,
    publisher: Publisher,
    model: Model,
    written: BTreeMap<(&'static str, Id), Value>,
    shown: BTreeMap<Generation, Arc<Shown>>,
    newest: Option<Generation>,
    root: Vec<u8>,
}

fn contract(text: impl std::fmt::Display) -> Violation {
    Violation::new(Broken::Contract, text.to_string())
}

impl Plane {
    /// A control plane that has read nothing.
    pub(super) fn new(root: Vec<u8>) -> Self {
        Self {
            process: 0,
            back_at: Moment(0),
            publisher: Publisher::default(),
            model: Model::default(),
            written: BTreeMap::new(),
            shown: BTreeMap::new(),
            newest: None,
            root,
        }
    }

    /// It dies, and begins again with nothing but what is written.
    pub(super) fn restart(&mut self, back_at: Moment) {
        self.process += 1;
        self.back_at = back_at;
        self.publisher = Publisher::default();
        self.model = Model::default();
        self.written.clear();
        self.newest = None;
    }

    /// What a generation is.
    pub(super) fn shown(&self, generation: Generation) -> Result<Arc<Shown>, Violation> {
        let found = self.shown.get(&generation).cloned();
        found.ok_or_else(|| Violation::new(Broken::Epoch, format!("there is no generation {generation:?}")))
    }

    /// The newest generation, while it is up.
    pub(super) fn newest(&self) -> Option<Arc<Shown>> {
        self.shown.get(&self.newest?).cloned()
    }

    /// Takes what is written now: all changes together.
    pub(super) fn publish(&mut self, facts: &Facts) -> Result<(), Violation> {
        let next = facts.manifests();
        for ((kind, id), _) in self.written.iter().filter(|(key, _)| !next.contains_key(*key)) {
            let (namespace, name) = parts(id);
            self.model.remove(kind_of(kind), namespace, name);
        }
        for (key, document) in next.iter().filter(|(key, document)| self.written.get(*key) != Some(*document))
        {
            let read = read(document.clone()).map_err(contract)?;
            let read = read.ok_or_else(|| contract(format!("{key:?} is not read")))?;
            if let Some(field) = read.unknown_fields.first() {
                return Err(contract(format!("{key:?} has an unknown field {field}")));
            }
            self.model.apply(read.object, None);
        }
        self.written = next;
        let mut config = compile(&self.model);
        overlook(&mut config, facts);
        let trust =
            config::Trust { trust_domain: "cluster.local".to_owned(), roots: vec![self.root.clone()] };
        config.resources.insert(Key::new(ResourceType::Trust, "cluster.local"), Resource::Trust(trust));
        let (published, _) = self.publisher.publish(config);
        let generation = (self.process, published.generation());
        let config = Arc::new(published.config());
        let before = self.newest();
        let body = |(key, resource): (&Key, &Resource)| {
            let same = before.as_ref().filter(|before| before.config.resources.get(key) == Some(resource));
            let held = same.and_then(|before| before.bodies.get(key).cloned());
            (key.clone(), held.unwrap_or_else(|| encode::encode(resource).body))
        };
        let bodies = config.resources.iter().map(body).collect();
        self.shown.insert(generation, Arc::new(Shown { facts: facts.clone(), config, bodies }));
        self.newest = Some(generation);
        Ok(())
    }
}

fn kind_of(kind: &str) -> Kind {
    match kind {
        "Service" => Kind::Service,
        "EndpointSlice" => Kind::EndpointSlice,
        "Pod" => Kind::Pod,
        "HTTPRoute" => Kind::HttpRoute,
        "AuthorizationPolicy" => Kind::AuthorizationPolicy,
        "TlsPolicy" => Kind::TlsPolicy,
        "Mesh" => Kind::Mesh,
        _ => Kind::TrafficPolicy,
    }
}

/// An epoch under way, with the subscriptions that it answers.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) bytes: Vec<u8>,
    pub(super) asked: BTreeSet<Key>,
}

/// One stream: messages under way in both directions, in order, and the control plane's end.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) process: u32,
    pub(super) delay: u64,
    session: Option<Session>,
    asked: BTreeSet<Key>,
    up: VecDeque<(Moment, Vec<u8>)>,
    down: VecDeque<(Moment, Parcel)>,
}

impl Link {
    /// A stream to a control-plane process; each message takes `delay` nanoseconds.
    pub(super) fn new(process: u32, delay: u64) -> Self {
        Self { process, delay, ..Self::default() }
    }

    /// Sends to the control plane.
    pub(super) fn say(&mut self, now: Moment, message: v1::discovery_request::Message) {
        let request = v1::DiscoveryRequest { message: Some(message) };
        self.up.push_back((Moment(now.0 + self.delay), request.encode_to_vec()));
    }

    /// The next epoch that has arrived.
    pub(super) fn hear(&mut self, now: Moment) -> Option<Parcel> {
        let arrived = self.down.front().is_some_and(|(due, _)| *due <= now);
        if arrived { self.down.pop_front().map(|(_, parcel)| parcel) } else { None }
    }

    /// Nothing is under way.
    pub(super) fn is_quiet(&self) -> bool {
        let settled = self.session.as_ref().is_some_and(|session| !session.is_waiting());
        settled && self.up.is_empty() && self.down.is_empty()
    }

    /// The control plane's turn: takes what arrived, and sends what is owed.
    pub(super) fn serve(&mut self, now: Moment, plane: &Plane, lose: Lose) -> Result<(), Violation> {
        while let Some((_, bytes)) = self.up.pop_front_if(|(due, _)| *due <= now) {
            let request = v1::DiscoveryRequest::decode(bytes.as_slice()).map_err(contract)?;
            self.take(request.message.ok_or_else(|| contract("an empty message"))?)?;
        }
        let published = plane.publisher.reader().borrow().clone();
        let (Some(session), Some(published)) = (self.session.as_mut(), published) else { return Ok(()) };
        let Some(epoch) = session.next(&published) else { return Ok(()) };
        let mut upserts: Vec<v1::Resource> =
            epoch.upserts.iter().map(|(key, encoded)| encode::resource(key, encoded)).collect();
        let mut removals: Vec<v1::Key> = epoch.removals.iter().map(encode::key).collect();
        match lose.fault {
            Some(Fault::LosesRemoval) => removals.clear(),
            Some(Fault::LosesUpsert) if lose.now => drop(upserts.pop()),
            _ => {}
        }
        let epoch = v1::Epoch { nonce: epoch.nonce, generation: epoch.generation, upserts, removals };
        let parcel = Parcel { bytes: epoch.encode_to_vec(), asked: self.asked.clone() };
        self.down.push_back((Moment(now.0 + self.delay), parcel));
        Ok(())
    }

    fn take(&mut self, message: v1::discovery_request::Message) -> Result<(), Violation> {
        use v1::discovery_request::Message;
        match message {
            Message::Hello(hello) => {
                let held = |held: v1::Held| {
                    Some((encode::key_from(held.key?)?, held.version.as_ref().try_into().ok()?))
                };
                let opening = session::Hello {
                    workload: hello.workload,
                    held: hello.held.into_iter().filter_map(held).collect(),
                    subscriptions: keys(hello.subscriptions),
                };
                self.asked = opening.subscriptions.iter().cloned().collect();
                self.session = Some(Session::open(opening).map_err(contract)?);
                Ok(())
            }
            Message::Subscribe(change) => {
                let (add, drop) = (keys(change.add), keys(change.drop));
                self.asked.retain(|key| !drop.contains(key));
                self.asked.extend(add.iter().cloned());
                self.open()?.subscribe(add, drop).map_err(contract)
            }
            Message::Ack(ack) => {
                let refusal = |refusal: v1::Refusal| {
                    Some(session::Refusal {
                        key: encode::key_from(refusal.key?)?,
                        version: refusal.version.as_ref().try_into().ok()?,
                        reason: refusal.reason,
                    })
                };
                let refusals = ack.refusals.into_iter().filter_map(refusal).collect();
                let ack = session::Ack { nonce: ack.nonce, refusals };
                self.open()?.acknowledge(ack).map(drop).map_err(contract)
            }
        }
    }

    fn open(&mut self) -> Result<&mut Session, Violation> {
        self.session.as_mut().ok_or_else(|| contract("a message before the Hello"))
    }
}

/// What the link loses, in a run that must fail.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lose {
    pub(super) fault: Option<Fault>,
    pub(super) now: bool,
}

fn keys(keys: Vec<v1::Key>) -> Vec<Key> {
    keys.into_iter().filter_map(encode::key_from).collect()
}

/// Gives sidecars the path that the compiler keeps from them, as a control plane that knew less than they do
/// would: that a sidecar refuses a resource must go well too.
fn overlook(config: &mut Config, facts: &Facts) {
    for (id, _) in facts.policies.iter().filter(|(_, policy)| !oracle::takeable(policy)) {
        let key = Key::new(ResourceType::Authorization, id.as_str());
        if let Some(Resource::Authorization(policy)) = config.resources.get_mut(&key) {
            let to =
                vec![config::Operation { paths: vec!["/a;x".to_owned()], ..config::Operation::default() }];
            policy.rules.push(config::AuthorizationRule { to, ..config::AuthorizationRule::default() });
        }
    }
}
