//! How the endpoints of one balancer stand, and what a pick would come to, without one being made.
//!
//! Beside `pick`: `explain` and `weft stat` look, a request picks.
//!
//! Invariant: looking changes nothing; what it says a pick comes to is what the next one does.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Balancer, Pick};
use crate::moment::Moment;

/// How a backend's endpoints stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Its endpoints, by address.
    pub endpoints: Vec<Seen>,
    /// What a pick comes to.
    pub standing: Standing,
}

/// What a pick comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// One of the endpoints that take their share.
    Ready,
    /// An ejected one, as a probe.
    Probe,
    /// All are ejected.
    CircuitOpen,
    /// There is none.
    #[default]
    NoneReady,
}

/// One endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Where it listens.
    pub address: SocketAddr,
    /// When it is ejected: how long until one request may probe it.
    pub ejected: Option<Duration>,
    /// Requests in flight to it.
    pub in_flight: u32,
    /// What it is thought to take for an answer.
    pub latency: Duration,
}

impl Balancer {
    /// How its endpoints stand.
    #[must_use]
    pub fn look(&self, now: Moment) -> Look {
        let seen = self.backend.endpoints.iter().filter_map(|endpoint| {
            let slot = self.slots.at(*self.by_address.get(&endpoint.address)?);
            Some(Seen {
                address: endpoint.address,
                ejected: slot.health.probe_due().map(|due| due.since(now)),
                in_flight: slot.in_flight,
                latency: Duration::try_from_secs_f64(slot.load.at(now)).unwrap_or_default(),
            })
        });
        Look { endpoints: seen.collect(), standing: self.standing(now) }
    }

    fn standing(&self, now: Moment) -> Standing {
        if !self.ready.is_empty() {
            return Standing::Ready;
        }
        if !self.ejected.is_empty() && now >= self.next_probe {
            return Standing::Probe;
        }
        match self.nobody() {
            Pick::CircuitOpen => Standing::CircuitOpen,
            Pick::NoneReady | Pick::Endpoint { .. } => Standing::NoneReady,
        }
    }
}
