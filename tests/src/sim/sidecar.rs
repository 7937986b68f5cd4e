//! A sidecar without its sockets: its end of the stream, the shipped adopter, and what it shows.
//!
//! Invariant: whatever it adopts is held at once against the generation that it claims to show.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::Message;
use weft_control_plane::encode;
use weft_control_plane_core::config::{Key, ResourceType};
use weft_proto::v1;
use weft_proxy::adopt::Adopter;
use weft_proxy_core::{Moment, Snapshot, Target};

use super::client::Client;
use super::facts::{Id, Policy, parts};
use super::plane::{Link, Parcel, Plane, Shown};
use super::{Broken, Fault, Violation, oracle};

/// A sidecar beside one pod.
#[derive(Debug)]
pub(super) struct Sidecar {
    pub(super) id: Id,
    pub(super) uid: u64,
    adopter: Adopter,
    pub(super) snapshot: Arc<Snapshot>,
    /// The generation that it shows.
    pub(super) at: Option<Arc<Shown>>,
    /// What it wants to know.
    pub(super) asked: BTreeSet<Key>,
    /// The stream, while there is one, and when to open the next.
    pub(super) link: Option<Link>,
    pub(super) dial_at: Moment,
    /// Policies as they were last taken, with their bytes.
    taken: BTreeMap<Id, (Policy, Arc<[u8]>)>,
    pub(super) client: Client,
}

fn epoch_broken(text: String) -> Violation {
    Violation::new(Broken::Epoch, text)
}

impl Sidecar {
    /// One that holds nothing.
    pub(super) fn new(id: &str, uid: u64) -> Self {
        Self {
            id: id.to_owned(),
            uid,
            adopter: Adopter::new("cluster.local"),
            snapshot: Arc::default(),
            at: None,
            asked: BTreeSet::new(),
            link: None,
            dial_at: Moment(0),
            taken: BTreeMap::new(),
            client: Client::default(),
        }
    }

    /// Its namespace.
    pub(super) fn namespace(&self) -> &str {
        parts(&self.id).0
    }

    /// Policies as they were last taken.
    pub(super) fn policies(&self) -> BTreeMap<Id, Policy> {
        self.taken.iter().map(|(id, (policy, _))| (id.clone(), policy.clone())).collect()
    }

    /// The process dies and begins again with what its disk holds, before any stream.
    pub(super) fn restart(&mut self) -> Result<(), Violation> {
        let kept = v1::Epoch { upserts: self.adopter.resources(), ..v1::Epoch::default() };
        let before = self.adopter.held();
        self.adopter = Adopter::new("cluster.local");
        let applied = self.adopter.apply(kept);
        if !applied.ack.refusals.is_empty() || self.adopter.held() != before {
            return Err(epoch_broken(format!("{} does not take what it kept itself", self.id)));
        }
        self.snapshot = Arc::clone(self.adopter.snapshot());
        self.client = self.client.anew();
        self.link = None;
        self.at.clone().map_or(Ok(()), |at| self.sound(&at))
    }

    /// Opens a stream and presents what it holds.
    pub(super) fn dial(&mut self, now: Moment, process: u32, delay: u64) {
        let mut link = Link::new(process, delay);
        let hello = v1::Hello {
            workload: self.id.clone(),
            version: String::new(),
            held: self.adopter.held(),
            subscriptions: self.asked.iter().map(encode::key).collect(),
            observes: false,
        };
        link.say(now, v1::discovery_request::Message::Hello(hello));
        self.link = Some(link);
    }

    /// Wants to know a name, or no longer does.
    pub(super) fn ask(&mut self, now: Moment, key: Key, add: bool) {
        let wire = vec![encode::key(&key)];
        let changed = if add { self.asked.insert(key) } else { self.asked.remove(&key) };
        if let Some(link) = self.link.as_mut().filter(|_| changed) {
            let (add, drop) = if add { (wire, Vec::new()) } else { (Vec::new(), wire) };
            link.say(now, v1::discovery_request::Message::Subscribe(v1::Subscribe { add, drop }));
        }
    }

    /// Takes the epochs that have arrived; says how many.
    pub(super) fn hear(
        &mut self,
        now: Moment,
        plane: &Plane,
        fault: Option<Fault>,
    ) -> Result<u32, Violation> {
        let mut heard = 0;
        while let Some(parcel) = self.link.as_mut().and_then(|link| link.hear(now)) {
            let process = self.link.as_ref().map_or(0, |link| link.process);
            let ack = self.adopt(&parcel, process, (now, plane, fault))?;
            if let Some(link) = &mut self.link {
                link.say(now, v1::discovery_request::Message::Ack(ack));
            }
            heard += 1;
        }
        Ok(heard)
    }

    fn adopt(
        &mut self,
        parcel: &Parcel,
        process: u32,
        (now, plane, fault): (Moment, &Plane, Option<Fault>),
    ) -> Result<v1::Ack, Violation> {
        let decoded = v1::Epoch::decode(parcel.bytes.as_slice());
        let mut epoch = decoded.map_err(|error| Violation::new(Broken::Contract, error.to_string()))?;
        if fault == Some(Fault::SplitsEpoch) && epoch.upserts.len() > 1 {
            epoch.upserts.truncate(epoch.upserts.len() / 2);
        }
        let applied = self.adopter.apply(epoch);
        if let Some(snapshot) = applied.snapshot {
            self.snapshot =
                if fault == Some(Fault::DropsBackend) { without_one(&snapshot) } else { snapshot };
        }
        let shown = plane.shown((process, applied.generation))?;
        self.take_policies(&shown);
        self.at = Some(Arc::clone(&shown));
        self.client.adopt(&self.snapshot, now, fault);
        self.sound(&shown)?;
        self.holds(&shown, &parcel.asked).map_err(epoch_broken)?;
        let refused = applied.ack.refusals.iter().find(|refusal| !self.may_refuse(&shown, refusal));
        match refused {
            None => Ok(applied.ack),
            Some(refusal) => {
                Err(Violation::new(Broken::Contract, format!("{} refuses {refusal:?}", self.id)))
            }
        }
    }

    /// A policy that the sidecar cannot take keeps its last good version, or is missing.
    fn take_policies(&mut self, shown: &Shown) {
        let wanted = oracle::policies(&shown.facts, &self.id);
        self.taken.retain(|id, _| wanted.contains_key(id));
        for (id, policy) in wanted.into_iter().filter(|(_, policy)| oracle::takeable(policy)) {
            let key = Key::new(ResourceType::Authorization, id.as_str());
            if let Some((body, _)) = shown.find(&key, self.namespace()) {
                self.taken.insert(id.clone(), (policy.clone(), body));
            }
        }
    }

    fn may_refuse(&self, shown: &Shown, refusal: &v1::Refusal) -> bool {
        let name = refusal.key.as_ref().map(|key| key.name.as_str()).unwrap_or_default();
        shown.facts.policies.get(name).is_some_and(|policy| !oracle::takeable(policy))
    }

    /// Nothing names what is not there, and every backend has exactly the endpoints that the facts say.
    fn sound(&self, shown: &Shown) -> Result<(), Violation> {
        let (id, snapshot) = (&self.id, &self.snapshot);
        let there = |name: &str| snapshot.backends.contains_key(name);
        let fallbacks = snapshot.backends.values().filter_map(|backend| backend.policy.fallback.as_ref());
        let named = snapshot.outbounds.values().flat_map(|outbound| &outbound.backends).chain(fallbacks);
        if let Some(missing) = named.into_iter().find(|name| !there(name.as_str())) {
            return Err(epoch_broken(format!("{id} has a route to {missing} without its backend")));
        }
        for target in snapshot.addresses.values() {
            if let Target::Outbound(name) = target
                && !snapshot.outbounds.contains_key(name)
            {
                return Err(epoch_broken(format!("{id} has an address of {name} without its outbound")));
            }
        }
        for (name, backend) in &snapshot.backends {
            let endpoint = |one: &Arc<weft_proxy_core::Endpoint>| {
                let workload = one.workload.as_ref().map(ToString::to_string);
                (one.address, (workload, one.identity.as_ref().map(ToString::to_string)))
            };
            let seen: BTreeMap<_, oracle::Endpoint> = backend.endpoints.iter().map(endpoint).collect();
            let said = oracle::endpoints(&shown.facts, name.as_str());
            let fallback = backend.policy.fallback.as_ref().map(ToString::to_string);
            if said.as_ref() != Some(&seen) || fallback != oracle::fallback(&shown.facts, name.as_str()) {
                let text = format!("{id}: {name} has {seen:?} and {fallback:?}, but the facts say {said:?}");
                return Err(Violation::new(Broken::Named, text));
            }
        }
        Ok(())
    }

    /// Whether exactly what a generation has for these subscriptions is held, byte for byte.
    pub(super) fn holds(&self, shown: &Shown, asked: &BTreeSet<Key>) -> Result<(), String> {
        let mut wanted = BTreeMap::new();
        let own = [
            Key::mesh(),
            Key::new(ResourceType::Trust, "cluster.local"),
            Key::new(ResourceType::Inbound, self.id.as_str()),
        ];
        let mut queue: Vec<Key> = own.into_iter().chain(asked.iter().cloned()).collect();
        while let Some(key) = queue.pop() {
            let Some((mut body, more)) = shown.find(&key, self.namespace()) else { continue };
            let policy =
                shown.facts.policies.get(&key.name).filter(|_| key.kind == ResourceType::Authorization);
            if policy.is_some_and(|policy| !oracle::takeable(policy)) {
                let Some((_, taken)) = self.taken.get(&key.name) else { continue };
                body = Arc::clone(taken);
            }
            if wanted.insert(key, body).is_none() {
                queue.extend(more);
            }
        }
        let held = self.adopter.resources();
        let mut rest: BTreeSet<&Key> = wanted.keys().collect();
        for resource in &held {
            let key = resource.key.clone().and_then(encode::key_from).ok_or("an unknown key is held")?;
            match wanted.get(&key) {
                None => return Err(format!("{} holds {key:?}, which is not in the generation", self.id)),
                Some(body) if **body != *resource.body => {
                    return Err(format!("{} holds another version of {key:?}", self.id));
                }
                Some(_) => drop(rest.remove(&key)),
            }
        }
        match rest.first() {
            Some(key) => Err(format!("{} does not hold {key:?}", self.id)),
            None => Ok(()),
        }
    }

    /// What it holds, as it would be compared with another's.
    pub(super) fn resources(&self) -> Vec<v1::Resource> {
        self.adopter.resources()
    }
}

/// A snapshot that lost a backend which a route names.
fn without_one(snapshot: &Snapshot) -> Arc<Snapshot> {
    let mut snapshot = snapshot.clone();
    let named = snapshot.outbounds.values().flat_map(|outbound| &outbound.backends).min().cloned();
    if let Some(name) = named {
        snapshot.backends.remove(&name);
    }
    Arc::new(snapshot)
}
