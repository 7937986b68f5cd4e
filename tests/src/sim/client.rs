//! The calling half of a sidecar: turns, balancers and budgets by backend, as a worker has them.
//!
//! Invariant: every choice is the shipped core's; the ledger beside it only watches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weft_proxy_core::{
    Backend, Balancer, Chance, Decision, EndpointId, Event, Head, Moment, Outbound, Outcome, Pick,
    RetryBudget, Snapshot, Turns,
};

use super::ledger::Ledger;
use super::{Fault, Violation};

/// One backend as one worker sees it.
#[derive(Debug)]
struct Upstream {
    serial: u64,
    backend: Arc<Backend>,
    balancer: Balancer,
    budget: RetryBudget,
    ledger: Ledger,
}

/// All backends and routes in use.
#[derive(Debug, Default)]
pub(super) struct Client {
    upstreams: BTreeMap<String, Upstream>,
    turns: BTreeMap<String, (Arc<Outbound>, Turns)>,
    made: u64,
}

/// An endpoint that takes an attempt.
#[derive(Debug, Clone)]
pub(super) struct Picked {
    /// The backend, which may be a fallback.
    pub(super) upstream: String,
    serial: u64,
    pub(super) id: EndpointId,
    pub(super) probe: bool,
    begun: Moment,
    pub(super) endpoint: Arc<weft_proxy_core::Endpoint>,
}

impl Client {
    /// A new snapshot is in force.
    pub(super) fn adopt(&mut self, snapshot: &Snapshot, now: Moment, fault: Option<Fault>) {
        self.upstreams.retain(|name, _| snapshot.backends.contains_key(name.as_str()));
        for (name, upstream) in &mut self.upstreams {
            let Some(backend) = snapshot.backends.get(name.as_str()) else { continue };
            if Arc::ptr_eq(backend, &upstream.backend) || fault == Some(Fault::KeepsEndpoints) {
                continue;
            }
            upstream.balancer.update(backend, now);
            upstream.budget.update(backend.policy.retry_budget);
            upstream.backend = Arc::clone(backend);
            // In the order of addresses, in which the balancer knows them too.
            let ids: BTreeSet<u32> = upstream.balancer.ids().map(|id| id.0).collect();
            upstream.ledger.changed(&ids, backend);
        }
    }

    /// Routes a request.
    pub(super) fn route(&mut self, name: &str, outbound: &Arc<Outbound>, head: &Head<'_>) -> Decision {
        let fresh = || (Arc::clone(outbound), Turns::new(outbound));
        let entry = self.turns.entry(name.to_owned()).or_insert_with(fresh);
        if !Arc::ptr_eq(&entry.0, outbound) {
            *entry = fresh();
        }
        outbound.route(head, &mut entry.1)
    }

    /// A request to a backend begins.
    pub(super) fn enter(&mut self, name: &str, snapshot: &Snapshot, now: Moment) {
        if let Some(upstream) = self.upstream(name, snapshot, now) {
            upstream.budget.started(now);
            let percent = upstream.backend.policy.retry_budget.percent;
            upstream.ledger.begun(now, percent);
        }
    }

    /// Picks an endpoint, of the fallback when the backend has none to give.
    pub(super) fn pick(
        &mut self,
        name: &str,
        snapshot: &Snapshot,
        (now, chance): (Moment, &mut Chance),
        exclude: Option<EndpointId>,
        fault: Option<Fault>,
    ) -> Result<Option<Picked>, Violation> {
        let mut pick = self.pick_of(name, snapshot, (now, &mut *chance), exclude, fault);
        if exclude.is_some() && pick == Some(Pick::NoneReady) {
            pick = self.pick_of(name, snapshot, (now, &mut *chance), None, fault);
        }
        let mut chosen = name.to_owned();
        if !matches!(pick, Some(Pick::Endpoint { .. })) {
            let backend = snapshot.backends.get(name);
            let Some(fallback) = backend.and_then(|backend| backend.policy.fallback.as_ref()) else {
                return Ok(None);
            };
            chosen = fallback.to_string();
            pick = self.pick_of(&chosen, snapshot, (now, chance), None, fault);
        }
        let (Some(Pick::Endpoint { id, probe }), Some(upstream)) = (pick, self.upstreams.get_mut(&chosen))
        else {
            return Ok(None);
        };
        upstream.ledger.sent(id, probe, now, &upstream.backend)?;
        let Some(endpoint) = upstream.balancer.endpoint(id).cloned() else { return Ok(None) };
        upstream.balancer.started(id, now);
        Ok(Some(Picked { serial: upstream.serial, upstream: chosen, id, probe, begun: now, endpoint }))
    }

    fn pick_of(
        &mut self,
        name: &str,
        snapshot: &Snapshot,
        (now, chance): (Moment, &mut Chance),
        exclude: Option<EndpointId>,
        fault: Option<Fault>,
    ) -> Option<Pick> {
        let upstream = self.upstream(name, snapshot, now)?;
        if fault == Some(Fault::ForgetsEjection)
            && let Some(id) = upstream.balancer.ids().min_by_key(|id| id.0)
        {
            return Some(Pick::Endpoint { id, probe: false });
        }
        Some(upstream.balancer.pick(now, chance, exclude))
    }

    /// An attempt ended.
    pub(super) fn ended(
        &mut self,
        picked: &Picked,
        outcome: Outcome,
        now: Moment,
    ) -> Result<Option<Event>, Violation> {
        let Some(upstream) = self.same(picked) else { return Ok(None) };
        let gone = upstream.balancer.endpoint(picked.id).is_none();
        let event = upstream.balancer.finished(picked.id, picked.begun, now, outcome);
        if !gone {
            upstream.ledger.ended((picked.id, picked.probe), outcome, event, now, &upstream.backend)?;
        }
        Ok(event)
    }

    /// Whether the budget grants a retry of what was picked.
    pub(super) fn may_retry(
        &mut self,
        picked: &Picked,
        now: Moment,
        fault: Option<Fault>,
    ) -> Result<bool, Violation> {
        let Some(upstream) = self.same(picked) else { return Ok(false) };
        let granted = upstream.budget.withdraw(now) || fault == Some(Fault::RetriesForever);
        if granted {
            upstream.ledger.retried(now, &upstream.backend)?;
        }
        Ok(granted)
    }

    /// The backend that was picked from, unless it went away meanwhile.
    fn same(&mut self, picked: &Picked) -> Option<&mut Upstream> {
        self.upstreams.get_mut(&picked.upstream).filter(|upstream| upstream.serial == picked.serial)
    }

    fn upstream(&mut self, name: &str, snapshot: &Snapshot, now: Moment) -> Option<&mut Upstream> {
        if !self.upstreams.contains_key(name) {
            let backend = snapshot.backends.get(name)?;
            self.made += 1;
            let upstream = Upstream {
                serial: self.made,
                backend: Arc::clone(backend),
                balancer: Balancer::new(backend, now),
                budget: RetryBudget::new(backend.policy.retry_budget, now),
                ledger: Ledger::default(),
            };
            self.upstreams.insert(name.to_owned(), upstream);
        }
        self.upstreams.get_mut(name)
    }
}
