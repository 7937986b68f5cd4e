//! Where the endpoints of one balancer live, and the ids by which rooms name them.
//!
//! Under `balance`.
//!
//! Invariant: a slot is given to another endpoint only when nothing is in flight to the one that left,
//! and then under another id.

use std::sync::Arc;

use crate::backend::Endpoint;
use crate::eject::Health;
use crate::load::Load;

/// An endpoint's place in one balancer; ids of removed endpoints are not reused soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndpointId(pub u32);

/// All endpoints of one balancer, those that left with requests in flight included.
#[derive(Debug, Default)]
pub(super) struct Slots {
    list: Vec<Slot>,
    free: Vec<u32>,
}

/// What is known about one endpoint.
#[derive(Debug)]
pub(super) struct Slot {
    /// `None`: the endpoint is gone.
    pub(super) endpoint: Option<Arc<Endpoint>>,
    generation: u32,
    pub(super) in_flight: u32,
    pub(super) load: Load,
    pub(super) health: Health,
}

impl Slots {
    /// The slot at an index that the balancer's own lists hold.
    pub(super) fn at(&self, slot: u32) -> &Slot {
        &self.list[slot as usize]
    }

    /// The same, to change it.
    pub(super) fn at_mut(&mut self, slot: u32) -> &mut Slot {
        &mut self.list[slot as usize]
    }

    pub(super) fn id(&self, slot: u32) -> EndpointId {
        EndpointId(self.at(slot).generation << SLOT_BITS | slot)
    }

    /// The slot that an id names; `None` when the endpoint is gone and its slot free.
    pub(super) fn find(&self, id: EndpointId) -> Option<u32> {
        let slot = id.0 & SLOT_MASK;
        let held = self.list.get(slot as usize)?;
        (held.generation == id.0 >> SLOT_BITS).then_some(slot)
    }

    pub(super) fn find_mut(&mut self, id: EndpointId) -> Option<&mut Slot> {
        let slot = self.find(id)?;
        self.list.get_mut(slot as usize)
    }

    /// Gives the endpoint a slot.
    pub(super) fn occupy(&mut self, endpoint: &Arc<Endpoint>, load: Load) -> u32 {
        let slot = Slot {
            endpoint: Some(endpoint.clone()),
            generation: 0,
            in_flight: 0,
            load,
            health: Health::default(),
        };
        match self.free.pop() {
            Some(free) => {
                let generation = self.at(free).generation;
                *self.at_mut(free) = Slot { generation, ..slot };
                free
            }
            None => {
                self.list.push(slot);
                u32::try_from(self.list.len() - 1).unwrap_or(u32::MAX)
            }
        }
    }

    /// The endpoint is gone; its slot is free once nothing is in flight.
    pub(super) fn vacate(&mut self, slot: u32) {
        self.at_mut(slot).endpoint = None;
        self.release(self.id(slot));
    }

    /// Frees the slot of an endpoint that left, if nothing is in flight to it.
    pub(super) fn release(&mut self, id: EndpointId) {
        let Some(at) = self.find(id) else { return };
        let slot = self.at_mut(at);
        if slot.endpoint.is_none() && slot.in_flight == 0 {
            slot.generation = (slot.generation + 1) & GENERATION_MASK;
            self.free.push(at);
        }
    }
}

impl Slot {
    pub(super) fn weight(&self) -> u32 {
        self.endpoint.as_ref().map_or(1, |endpoint| endpoint.weight)
    }
}

/// Slots of one balancer: 2^20, twenty times `MAX_ENDPOINTS`; the other bits count reuses.
pub(super) const SLOT_BITS: u32 = 20;
const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;
const GENERATION_MASK: u32 = (1 << (32 - SLOT_BITS)) - 1;
