//! Which endpoint takes a request: power of two choices over peak-EWMA and requests in flight.
//!
//! After route, before connect. One balancer for each backend and worker thread; the room tells it
//! when an exchange starts and how it ends.
//!
//! Invariant: never picks an ejected endpoint (but as a due probe) nor the excluded one; counts in
//! flight never fall below zero; an id of a removed endpoint is never taken for another one; a pick
//! allocates nothing.

mod look;
mod slots;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::backend::{Backend, Endpoint};
use crate::chance::Chance;
use crate::eject::{Event, Outcome};
use crate::load::{INITIAL_LATENCY, Load};
use crate::moment::Moment;

pub use look::{Look, Seen, Standing};
pub use slots::EndpointId;
use slots::Slots;

impl EndpointId {
    /// The place itself: a small number, used again once the endpoint that had it is gone.
    #[must_use]
    pub fn slot(self) -> usize {
        (self.0 & ((1 << slots::SLOT_BITS) - 1)) as usize
    }
}

/// The balancer's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// Send it there.
    Endpoint {
        /// Where.
        id: EndpointId,
        /// Whether this is the one request that probes an ejected endpoint.
        probe: bool,
    },
    /// The backend has no ready endpoint (but perhaps the excluded one).
    NoneReady,
    /// All endpoints are ejected.
    CircuitOpen,
}

/// Balancer of one backend on one thread.
#[derive(Debug)]
pub struct Balancer {
    backend: Arc<Backend>,
    slots: Slots,
    by_address: FxHashMap<SocketAddr, u32>,
    /// Slots that take their share.
    ready: Vec<u32>,
    /// Running sums of the weights of `ready`; empty when all weigh the same.
    sums: Vec<u64>,
    /// Slots that are ejected or probed.
    ejected: Vec<u32>,
    next_probe: Moment,
}

impl Balancer {
    /// A balancer that has seen nothing yet.
    #[must_use]
    pub fn new(backend: &Arc<Backend>, now: Moment) -> Self {
        let mut balancer = Self {
            backend: backend.clone(),
            slots: Slots::default(),
            by_address: FxHashMap::default(),
            ready: Vec::new(),
            sums: Vec::new(),
            ejected: Vec::new(),
            next_probe: Moment::NEVER,
        };
        balancer.update(backend, now);
        balancer
    }

    /// Takes over a changed backend. What is known about an endpoint stays while its address and
    /// workload do.
    pub fn update(&mut self, backend: &Arc<Backend>, now: Moment) {
        self.backend = backend.clone();
        let newcomer = Load::new(self.usual_latency(now), now);
        let mut gone = std::mem::take(&mut self.by_address);
        for endpoint in &backend.endpoints {
            let kept = gone.get(&endpoint.address).copied().filter(|&slot| self.is_same(slot, endpoint));
            let slot = match kept {
                Some(slot) => {
                    gone.remove(&endpoint.address);
                    self.slots.at_mut(slot).endpoint = Some(endpoint.clone());
                    slot
                }
                None => self.slots.occupy(endpoint, newcomer),
            };
            self.by_address.insert(endpoint.address, slot);
        }
        for slot in gone.into_values() {
            self.slots.vacate(slot);
        }
        self.regroup();
        self.restore_excess(now);
    }

    /// Chooses an endpoint; `exclude` is the one that a retry avoids.
    ///
    /// A pick is followed by [`Self::started`] or forgotten.
    pub fn pick(&mut self, now: Moment, chance: &mut Chance, exclude: Option<EndpointId>) -> Pick {
        let excluded = exclude.and_then(|id| self.slots.find(id));
        // A retry has failed once: it probes only when nobody else is left to take it.
        if exclude.is_none()
            && let Some(slot) = self.due_probe(now, excluded)
        {
            return Pick::Endpoint { id: self.slots.id(slot), probe: true };
        }
        if let Some(slot) = self.choose(now, chance, excluded) {
            return Pick::Endpoint { id: self.slots.id(slot), probe: false };
        }
        match self.due_probe(now, excluded) {
            Some(slot) => Pick::Endpoint { id: self.slots.id(slot), probe: true },
            None => self.nobody(),
        }
    }

    /// The choice where no endpoint takes the request.
    fn nobody(&self) -> Pick {
        if self.ready.is_empty() && !self.ejected.is_empty() { Pick::CircuitOpen } else { Pick::NoneReady }
    }

    /// An exchange with the endpoint starts.
    pub fn started(&mut self, id: EndpointId, _now: Moment) {
        if let Some(slot) = self.slots.find_mut(id) {
            slot.in_flight = slot.in_flight.saturating_add(1);
        }
    }

    /// An exchange with the endpoint ended that began at `begun`. While the endpoint is ejected or
    /// probed, what began before that says nothing about its health: only the probe does.
    pub fn finished(
        &mut self,
        id: EndpointId,
        begun: Moment,
        now: Moment,
        outcome: Outcome,
    ) -> Option<Event> {
        let room = self.ejected.len() < self.may_be_ejected();
        let outlier = self.backend.policy.outlier;
        let slot = self.slots.find_mut(id)?;
        slot.in_flight = slot.in_flight.saturating_sub(1);
        if slot.endpoint.is_none() {
            self.slots.release(id);
            return None;
        }
        match outcome {
            Outcome::Success { latency } => slot.load.observe(latency, now),
            Outcome::Failure => slot.load.penalise(now),
            Outcome::Cancelled => {}
        }
        if slot.health.is_stale(begun) {
            return None;
        }
        let event = match outcome {
            Outcome::Success { .. } => slot.health.succeeded(now),
            Outcome::Failure => slot.health.failed(&outlier, now, room),
            Outcome::Cancelled => {
                let probing = !slot.health.is_closed();
                slot.health.cancelled(now);
                if probing {
                    self.next_probe = self.earliest_probe();
                }
                None
            }
        };
        if event.is_some() {
            self.regroup();
        }
        event
    }

    /// The endpoint behind an id; `None` when it is gone.
    #[must_use]
    pub fn endpoint(&self, id: EndpointId) -> Option<&Arc<Endpoint>> {
        self.slots.at(self.slots.find(id)?).endpoint.as_ref()
    }

    /// Requests in flight to the endpoint.
    #[must_use]
    pub fn in_flight(&self, id: EndpointId) -> u32 {
        self.slots.find(id).map_or(0, |slot| self.slots.at(slot).in_flight)
    }

    /// The backend that this balancer serves.
    #[must_use]
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// Endpoints that take their share, and endpoints that are ejected.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.ready.len(), self.ejected.len())
    }

    /// Whether the endpoint is ejected (or being probed).
    #[must_use]
    pub fn is_ejected(&self, id: EndpointId) -> bool {
        self.slots.find(id).is_some_and(|slot| !self.slots.at(slot).health.is_closed())
    }

    /// Ids of all endpoints, for gauges and the snapshot's dump.
    pub fn ids(&self) -> impl Iterator<Item = EndpointId> + '_ {
        self.by_address.values().map(|&slot| self.slots.id(slot))
    }

    /// Power of two choices among the ready endpoints.
    fn choose(&self, now: Moment, chance: &mut Chance, excluded: Option<u32>) -> Option<u32> {
        match *self.ready.as_slice() {
            [] => None,
            [only] => (Some(only) != excluded).then_some(only),
            _ => {
                let first = self.draw(chance, excluded, None)?;
                match self.draw(chance, excluded, Some(first)) {
                    Some(second) => Some(self.better(first, second, now)),
                    None => Some(first),
                }
            }
        }
    }

    /// A ready slot, by weight, that is neither of the two given.
    fn draw(&self, chance: &mut Chance, excluded: Option<u32>, taken: Option<u32>) -> Option<u32> {
        let count = self.ready.len();
        let at = match self.sums.last() {
            None => chance.below(u32::try_from(count).unwrap_or(u32::MAX)) as usize,
            Some(&total) => {
                let ticket = chance.below_u64(total);
                self.sums.partition_point(|&sum| sum <= ticket)
            }
        };
        // The neighbours follow when the drawn one is taken: at most two are.
        (at..at + count.min(3))
            .map(|at| self.ready[at % count])
            .find(|&slot| Some(slot) != excluded && Some(slot) != taken)
    }

    /// The first, unless the second is clearly cheaper: small differences are noise, and following
    /// them would bend the weights.
    fn better(&self, first: u32, second: u32, now: Moment) -> u32 {
        let cost = |slot: u32| {
            let slot = &self.slots.at(slot);
            slot.load.cost(now, slot.in_flight, slot.weight())
        };
        if cost(second) * CLEARLY < cost(first) { second } else { first }
    }

    fn due_probe(&mut self, now: Moment, excluded: Option<u32>) -> Option<u32> {
        if now < self.next_probe {
            return None;
        }
        let lease = self.backend.policy.outlier.base_ejection;
        let slot = self.ejected.iter().copied().find(|&slot| {
            Some(slot) != excluded && self.slots.at(slot).health.probe_due().is_some_and(|due| due <= now)
        })?;
        self.slots.at_mut(slot).health.probe(now, lease);
        self.next_probe = self.earliest_probe();
        Some(slot)
    }

    fn earliest_probe(&self) -> Moment {
        let due = self.ejected.iter().filter_map(|&slot| self.slots.at(slot).health.probe_due());
        due.min().unwrap_or(Moment::NEVER)
    }

    /// How many endpoints may be out: all with a fallback, else the policy's share.
    fn may_be_ejected(&self) -> usize {
        let policy = &self.backend.policy;
        let total = self.by_address.len();
        match policy.fallback {
            _ if policy.outlier.consecutive_failures == 0 => 0,
            Some(_) => total,
            None => total * policy.outlier.max_ejected_percent as usize / 100,
        }
    }

    /// Brings back those that were to return first, when fewer may be out than are.
    fn restore_excess(&mut self, now: Moment) {
        let excess = self.ejected.len().saturating_sub(self.may_be_ejected());
        if excess == 0 {
            return;
        }
        let mut ejected = self.ejected.clone();
        ejected.sort_by_key(|&slot| self.slots.at(slot).health.probe_due());
        for slot in ejected.into_iter().take(excess) {
            self.slots.at_mut(slot).health.restore(now);
        }
        self.regroup();
    }

    /// Rebuilds the lists that a pick reads, after an endpoint came, went or changed its health.
    fn regroup(&mut self) {
        self.ready.clear();
        self.ejected.clear();
        self.sums.clear();
        for endpoint in &self.backend.endpoints {
            let Some(&slot) = self.by_address.get(&endpoint.address) else { continue };
            let closed = self.slots.at(slot).health.is_closed();
            if closed { &mut self.ready } else { &mut self.ejected }.push(slot);
        }
        let weights = || self.ready.iter().map(|&slot| self.slots.at(slot).weight());
        let first = weights().next();
        if weights().any(|weight| Some(weight) != first) {
            let mut sum = 0u64;
            let sums = weights().map(|weight| {
                sum += u64::from(weight);
                sum
            });
            let sums: Vec<_> = sums.collect();
            self.sums = sums;
        }
        self.next_probe = self.earliest_probe();
    }

    /// What an endpoint of this backend usually takes: the estimate for one never used.
    fn usual_latency(&self, now: Moment) -> Duration {
        let count = self.ready.len();
        if count == 0 {
            return INITIAL_LATENCY;
        }
        let sum: f64 = self.ready.iter().map(|&slot| self.slots.at(slot).load.at(now)).sum();
        Duration::try_from_secs_f64(sum / count as f64).unwrap_or(INITIAL_LATENCY)
    }

    fn is_same(&self, slot: u32, endpoint: &Endpoint) -> bool {
        let held = self.slots.at(slot).endpoint.as_ref();
        held.is_some_and(|held| held.workload == endpoint.workload && held.identity == endpoint.identity)
    }
}

/// The second choice must be a fifth cheaper to win: latencies of equal endpoints differ by less, and
/// one request more in flight weighs more. Source: the tests of shares beside this file.
const CLEARLY: f64 = 1.25;

#[cfg(test)]
mod tests;
