//! The record of a connection whose bytes are relayed as they are, or which was refused.
//!
//! Opened by accept; closed when both sides are done. Connections that turn out to carry HTTP are counted
//! too, but not logged: their requests are.
//!
//! Invariant: closed exactly once, by value or, by being dropped.

use std::net::SocketAddr;
use std::sync::Arc;

use weft_proxy_core::{Moment, Name, Probe, Reason};

use super::{Desk, Ending, Ledger, blank, spare};
use crate::metrics::edge::{Direction, Edge, Protocol};
use crate::record::entry::Entry;
use crate::trace::rate;

impl Ledger {
    /// Opens the record of a connection.
    #[must_use]
    pub fn connection(
        &self,
        direction: Direction,
        client: Option<SocketAddr>,
        now: Moment,
    ) -> ConnectionRecord {
        let mut entry = blank();
        entry.id.begin(&http::HeaderMap::new(), self.0.ids.next());
        entry.connection = true;
        entry.direction = direction;
        entry.protocol = Protocol::Tcp;
        entry.client = client;
        entry.started = now;
        ConnectionRecord { entry: Some(entry), desk: Arc::clone(&self.0) }
    }
}

/// The record of one connection.
#[derive(Debug)]
pub struct ConnectionRecord {
    entry: Option<Box<Entry>>,
    desk: Arc<Desk>,
}

impl ConnectionRecord {
    /// Where the client wanted to go.
    pub fn destination(&mut self, destination: SocketAddr) {
        self.write(|entry| entry.destination = Some(destination));
    }

    /// The connection's bytes are relayed as they are, on this edge. Counts it as opened, and decides
    /// whether it is traced.
    pub fn relay(&mut self, edge: &Arc<Edge>, endpoint: Option<SocketAddr>, now: Moment) {
        let trace = self.desk.sampler.decide_connection(rate::number(edge.labels().service.as_str()), now);
        self.write(|entry| {
            entry.protocol = edge.labels().protocol;
            entry.endpoint = endpoint;
            entry.sent = Some(now);
            entry.trace = trace;
            // A second relay on the same connection does not happen; were it to, the first edge keeps it.
            if entry.edge.is_none() {
                edge.opened();
                entry.edge = Some(Arc::clone(edge));
            }
        });
    }

    /// It is a probe of the kubelet.
    pub fn probe(&mut self, probe: Probe) {
        self.write(|entry| entry.probe = Some(probe));
    }

    /// The rule taken, and the backend chosen.
    pub fn plan(&mut self, rule: &Name, backend: &Name) {
        self.write(|entry| {
            entry.rule = Some(rule.clone());
            entry.backend = Some(backend.clone());
        });
    }

    /// The policy that decided.
    pub fn policy(&mut self, policy: &Name) {
        self.write(|entry| entry.policy = Some(policy.clone()));
    }

    /// Why it is refused or failed; the first reason given stays.
    pub fn reason(&mut self, reason: Reason) {
        self.write(|entry| entry.reason = entry.reason.or(Some(reason)));
    }

    /// So many more bytes went up to the upstream, and down from it.
    pub fn carried(&mut self, up: u64, down: u64) {
        self.write(|entry| {
            entry.up = entry.up.saturating_add(up);
            entry.down = entry.down.saturating_add(down);
        });
    }

    /// The connection carries HTTP: its requests have records of their own, and this one is put away
    /// without being counted.
    pub fn hand_to_requests(mut self) {
        if let Some(entry) = self.entry.take() {
            spare(entry);
        }
    }

    /// Closes the record.
    pub fn close(mut self, ending: Ending, now: Moment) {
        self.finish(ending, now);
    }

    fn write(&mut self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entry.as_deref_mut() {
            change(entry);
        }
    }

    fn finish(&mut self, ending: Ending, now: Moment) {
        let Some(mut entry) = self.entry.take() else { return };
        if let Ending::Failed(reason) = ending {
            entry.reason = entry.reason.or(Some(reason));
        }
        self.desk.keep_error(&mut entry, now);
        if let Some(edge) = &entry.edge {
            edge.closed(entry.up, entry.down);
        }
        self.desk.tell(entry, now);
    }
}

impl Drop for ConnectionRecord {
    fn drop(&mut self) {
        if self.entry.is_some() {
            let now = self.desk.telemetry.clock.now();
            self.finish(Ending::Failed(self.desk.given_up()), now);
        }
    }
}
