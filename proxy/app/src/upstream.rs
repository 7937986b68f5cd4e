//! One backend as one worker sees it: balancer, links to each endpoint, retry budget, fallback.
//!
//! Stands behind *balance* and *connect*. Made when a route first names the backend, kept while
//! configuration changes, so that load and ejection survive an edit.
//!
//! Invariant: state is per worker; nothing here is locked or shared.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use weft_proxy_core::balance::{Balancer, EndpointId, Look, Pick};
use weft_proxy_core::budget::RetryBudget;
use weft_proxy_core::eject::{Event, Outcome};
use weft_proxy_core::{Backend, Chance, Endpoint, Moment, Name, Reason};
use weft_proxy_net::http::live::TICK;
use weft_proxy_net::http::{Pool, PoolLimits};

use crate::exchange::RequestBody;
use crate::metrics::backend::{BackendMeter, Standing};

/// Links to one endpoint.
pub(crate) type Links = Rc<Pool<RequestBody>>;

/// One backend as one worker sees it.
pub(crate) struct Upstream {
    /// The service port.
    pub(crate) name: Name,
    backend: RefCell<Arc<Backend>>,
    balancer: RefCell<Balancer>,
    budget: RefCell<RetryBudget>,
    /// Links by the balancer's slot; a slot that changed hands has links to another address.
    links: RefCell<Vec<Option<Linked>>>,
    fallback: RefCell<Option<Rc<Upstream>>>,
    /// What is counted about it.
    pub(crate) meter: Arc<BackendMeter>,
    /// How its endpoints stood when that was last told to the meter.
    told: Cell<Standing>,
}

struct Linked {
    endpoint: Arc<Endpoint>,
    links: Links,
}

/// An endpoint that was picked for one attempt. Dropping it without a verdict counts as cancelled.
pub(crate) struct Picked {
    upstream: Rc<Upstream>,
    id: EndpointId,
    /// The endpoint.
    pub(crate) endpoint: Arc<Endpoint>,
    /// The links to it.
    pub(crate) links: Links,
    started: Moment,
    settled: bool,
}

/// Why no endpoint was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoEndpoint {
    /// None is ready.
    NoneReady,
    /// All are ejected.
    CircuitOpen,
}

impl Upstream {
    pub(crate) fn new(name: Name, backend: Arc<Backend>, meter: Arc<BackendMeter>, now: Moment) -> Rc<Self> {
        Rc::new(Self {
            name,
            balancer: RefCell::new(Balancer::new(&backend, now)),
            budget: RefCell::new(RetryBudget::new(backend.policy.retry_budget, now)),
            backend: RefCell::new(backend),
            links: RefCell::new(Vec::new()),
            fallback: RefCell::new(None),
            meter,
            told: Cell::default(),
        })
    }

    /// The configuration in force.
    pub(crate) fn backend(&self) -> Arc<Backend> {
        self.backend.borrow().clone()
    }

    /// The backend that serves while the circuit is open.
    pub(crate) fn fallback(&self) -> Option<Rc<Upstream>> {
        self.fallback.borrow().clone()
    }

    pub(crate) fn set_fallback(&self, fallback: Option<Rc<Upstream>>) {
        *self.fallback.borrow_mut() = fallback;
    }

    /// Takes a new version; endpoints that stay keep their load, ejection and links.
    pub(crate) fn update(&self, backend: &Arc<Backend>, now: Moment) {
        if Arc::ptr_eq(&self.backend.borrow(), backend) {
            return;
        }
        self.balancer.borrow_mut().update(backend, now);
        if self.backend.borrow().policy.retry_budget != backend.policy.retry_budget {
            self.budget.borrow_mut().update(backend.policy.retry_budget);
        }
        let limits = pool_limits(backend);
        for slot in self.links.borrow_mut().iter_mut() {
            let Some(linked) = slot else { continue };
            let stays = backend
                .endpoints
                .iter()
                .any(|e| e.address == linked.endpoint.address && e.identity == linked.endpoint.identity);
            if stays {
                linked.links.set_limits(limits);
            } else {
                linked.links.clear();
                *slot = None;
            }
        }
        *self.backend.borrow_mut() = backend.clone();
        self.tell();
    }

    /// Chooses an endpoint for one attempt.
    pub(crate) fn pick(
        self: &Rc<Self>,
        now: Moment,
        chance: &mut Chance,
        exclude: Option<EndpointId>,
    ) -> Result<Picked, NoEndpoint> {
        let mut balancer = self.balancer.borrow_mut();
        let id = match balancer.pick(now, chance, exclude) {
            Pick::Endpoint { id, .. } => id,
            Pick::NoneReady => return Err(NoEndpoint::NoneReady),
            Pick::CircuitOpen => return Err(NoEndpoint::CircuitOpen),
        };
        let Some(endpoint) = balancer.endpoint(id).cloned() else {
            return Err(NoEndpoint::NoneReady);
        };
        balancer.started(id, now);
        drop(balancer);
        let links = self.links_to(id, &endpoint);
        Ok(Picked { upstream: self.clone(), id, endpoint, links, started: now, settled: false })
    }

    fn links_to(&self, id: EndpointId, endpoint: &Arc<Endpoint>) -> Links {
        let mut all = self.links.borrow_mut();
        let at = id.slot();
        if at >= all.len() {
            all.resize_with(at + 1, || None);
        }
        if let Some(Some(linked)) = all.get(at)
            && linked.endpoint.address == endpoint.address
            && linked.endpoint.identity == endpoint.identity
        {
            return linked.links.clone();
        }
        let links = Pool::new(pool_limits(&self.backend.borrow()));
        if let Some(slot) = all.get_mut(at) {
            *slot = Some(Linked { endpoint: endpoint.clone(), links: links.clone() });
        }
        links
    }

    /// A request begins; it pays into the retry budget.
    pub(crate) fn enter(&self, now: Moment) {
        self.budget.borrow_mut().started(now);
    }

    /// Tells what an attempt changed about an endpoint: a word for traces.
    pub(crate) fn note(&self, event: Option<Event>, endpoint: SocketAddr) -> Option<&'static str> {
        let what = match event? {
            Event::Ejected { .. } => {
                self.meter.ejected();
                "ejection"
            }
            Event::Restored => {
                self.meter.restored();
                "restored"
            }
        };
        let Standing { ready, ejected, .. } = self.tell();
        tracing::info!(backend = self.name.as_str(), %endpoint, ready, ejected, "endpoint: {what}");
        Some(what)
    }

    /// How its endpoints stand.
    pub(crate) fn look(&self, now: Moment) -> Look {
        self.balancer.borrow().look(now)
    }

    /// Tells the meter how the endpoints stand; an edit changes that as an answer does.
    fn tell(&self) -> Standing {
        let (ready, ejected) = self.balancer.borrow().counts();
        let count = |endpoints| u32::try_from(endpoints).unwrap_or(u32::MAX);
        let waiting = self.links.borrow().iter().flatten().map(|linked| linked.links.waiting()).sum();
        let now = Standing { ready: count(ready), ejected: count(ejected), waiting };
        self.meter.stands(self.told.replace(now), now);
        now
    }

    /// Takes one retry from the budget, if there is one.
    pub(crate) fn may_spend_retry(&self, now: Moment) -> bool {
        let paid = self.budget.borrow_mut().withdraw(now);
        if !paid {
            self.meter.budget_spent();
        }
        paid
    }

    /// No link to an endpoint could be had; counts it where a limit of the backend was the reason.
    pub(crate) fn unlinked(&self, reason: Reason) {
        if matches!(reason, Reason::PendingOverflow | Reason::ConnectionOverflow) {
            self.meter.overflowed();
        }
    }

    /// The thread's tick: closes links that nobody uses, and tells how the backend stands.
    pub(crate) fn tick(&self) {
        for linked in self.links.borrow().iter().flatten() {
            linked.links.tick();
        }
        self.tell();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.meter.stands(self.told.get(), Standing::default());
    }
}

impl Picked {
    /// Slot of the endpoint, to exclude it from the next attempt.
    pub(crate) fn id(&self) -> EndpointId {
        self.id
    }

    /// The backend it was picked from.
    pub(crate) fn upstream(&self) -> &Rc<Upstream> {
        &self.upstream
    }

    /// The answer's head came, good or bad; says what that changed.
    pub(crate) fn settle(&mut self, now: Moment, good: bool) -> Option<Event> {
        if std::mem::replace(&mut self.settled, true) {
            return None;
        }
        let outcome =
            if good { Outcome::Success { latency: now.since(self.started) } } else { Outcome::Failure };
        self.upstream.balancer.borrow_mut().finished(self.id, self.started, now, outcome)
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        if !self.settled {
            self.upstream.balancer.borrow_mut().finished(
                self.id,
                self.started,
                self.started,
                Outcome::Cancelled,
            );
        }
    }
}

fn pool_limits(backend: &Backend) -> PoolLimits {
    let policy = &backend.policy;
    PoolLimits {
        connections: policy.max_connections,
        pending: policy.max_pending,
        wait: policy.connect_timeout,
        idle_ticks: ticks(policy.idle_timeout),
    }
}

/// A span in ticks of the thread, at least one.
pub(crate) fn ticks(span: Duration) -> u32 {
    u32::try_from(span.as_millis() / TICK.as_millis().max(1)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_proxy_core::spec;

    const NOW: Moment = Moment(1_000_000_000);

    fn backend(endpoints: u8) -> Arc<Backend> {
        let endpoint = |last| spec::Endpoint {
            address: SocketAddr::from(([10, 0, 0, last], 8080)),
            workload: None,
            identity: None,
            zone: Arc::from(""),
            weight: 0,
        };
        let outlier = spec::Outlier { consecutive_failures: 1, ..spec::Outlier::default() };
        let written = spec::Backend {
            service: Name::from("shop/payments"),
            port: 80,
            protocol: spec::Protocol::Http1,
            endpoints: (1..=endpoints).map(endpoint).collect(),
            policy: spec::TrafficPolicy {
                outlier: Some(outlier),
                fallback: Some(Name::from("shop/later:80")),
                ..spec::TrafficPolicy::default()
            },
        };
        Arc::new(Backend::compile(&written).unwrap())
    }

    #[test]
    fn gauges_follow_what_answers_and_edits_do_to_the_endpoints() {
        let meter = Arc::new(BackendMeter::default());
        let upstream = Upstream::new(Name::from("shop/payments:80"), backend(2), meter.clone(), NOW);
        let mut chance = Chance::new(1);
        let mut fail_one = || {
            let mut picked = upstream.pick(NOW, &mut chance, None).unwrap();
            let event = picked.settle(NOW, false);
            assert_eq!(upstream.note(event, picked.endpoint.address), Some("ejection"));
            (meter.out(), meter.is_open())
        };
        assert_eq!(fail_one(), (1, false), "one of two: the circuit stays closed");
        assert_eq!(fail_one(), (2, true), "all: it opens");
        upstream.update(&backend(1), NOW);
        assert_eq!((meter.out(), meter.is_open()), (1, true), "an ejected endpoint left");
        upstream.update(&backend(3), NOW);
        assert_eq!((meter.out(), meter.is_open()), (1, false), "fresh endpoints came");
        drop(upstream);
        assert_eq!((meter.out(), meter.is_open()), (0, false), "the backend is used no more");
    }
}
