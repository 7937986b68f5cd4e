//! Sessions a client may resume, and tickets a server gives out.
//!
//! Invariant: a store belongs to one expected identity of one generation of our own identity, so a session
//! crosses neither; within it, sessions are kept by endpoint.
//! Invariant: no ticket outlives the certificate under which it was given.

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::server::ProducesTickets;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::{ServerName, UnixTime};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Endpoints of one identity whose sessions are kept.
/// Source: more replicas than one source usually keeps connections to; about 3 KiB each when used.
const ENDPOINTS: usize = 512;

/// Sessions kept for one endpoint; a ticket is used once.
/// Source: connections dialled to one endpoint at the same moment; rustls' own store keeps eight.
const TICKETS: usize = 4;

#[derive(Debug, Default)]
struct Known {
    group: Option<NamedGroup>,
    tickets: Vec<Tls13ClientSessionValue>,
}

/// Sessions by endpoint.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<HashMap<ServerName<'static>, Known>>);

impl Sessions {
    /// A lock that a panic elsewhere poisoned only loses sessions.
    fn with<R>(&self, work: impl FnOnce(&mut HashMap<ServerName<'static>, Known>) -> R) -> Option<R> {
        self.0.lock().ok().map(|mut known| work(&mut known))
    }

    fn known(&self, endpoint: ServerName<'static>, work: impl FnOnce(&mut Known)) {
        self.with(|all| {
            if all.len() >= ENDPOINTS && !all.contains_key(&endpoint) {
                let any = all.keys().next().cloned();
                any.and_then(|any| all.remove(&any));
            }
            work(all.entry(endpoint).or_default());
        });
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, endpoint: ServerName<'static>, group: NamedGroup) {
        self.known(endpoint, |known| known.group = Some(group));
    }

    fn kx_hint(&self, endpoint: &ServerName<'_>) -> Option<NamedGroup> {
        self.with(|all| all.get(&endpoint.to_owned())?.group).flatten()
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, endpoint: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.known(endpoint, |known| {
            if known.tickets.len() >= TICKETS {
                known.tickets.remove(0);
            }
            known.tickets.push(value);
        });
    }

    fn take_tls13_ticket(&self, endpoint: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.with(|all| all.get_mut(endpoint)?.tickets.pop()).flatten()
    }
}

/// aws-lc's rotating ticket keys, which end with the certificate.
#[derive(Debug)]
pub(crate) struct Tickets {
    keys: Arc<dyn ProducesTickets>,
    until: UnixTime,
    clock: Arc<dyn TimeProvider>,
}

impl Tickets {
    /// # Errors
    /// When the system has no randomness.
    pub(crate) fn new(until: UnixTime, clock: Arc<dyn TimeProvider>) -> Result<Self, rustls::Error> {
        Ok(Self { keys: rustls::crypto::aws_lc_rs::Ticketer::new()?, until, clock })
    }

    /// Seconds for which our certificate is still good.
    fn remaining(&self) -> u64 {
        let now = self.clock.current_time().map_or(u64::MAX, |now| now.as_secs());
        self.until.as_secs().saturating_sub(now)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.remaining()).unwrap_or(u32::MAX).min(self.keys.lifetime())
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        if self.remaining() > 0 { self.keys.encrypt(plain) } else { None }
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        if self.remaining() > 0 { self.keys.decrypt(cipher) } else { None }
    }
}
