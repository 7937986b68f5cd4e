//! One data thread: the snapshot it reads, the backends and services it has met, its connections.
//!
//! Both spines borrow it. A new snapshot is noticed by one atomic load per request and taken over
//! before the request is decided; a request that has begun keeps what it began with.
//!
//! Invariant: services and backends are made on first use and vanish with the configuration that
//! named them; load and ejection survive every edit that keeps the endpoint.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use tokio::sync::Notify;
use weft_proxy_core::authorize::{Denial, RuleRef};
use weft_proxy_core::{
    Backend, Chance, Endpoint, Inbound, Moment, Name, Outbound, Snapshot, Target, Turns, spec,
};
use weft_proxy_net::http::{Live, Pool, PoolLimits};
use weft_proxy_net::sweep::Sweep;
use weft_proxy_net::tls::Dialer;

use crate::exchange::Exchange;
use crate::explain::Asked;
use crate::metrics::backend::{PolicyVerdict, RuleLabels, RuleMeter};
use crate::metrics::edge::{Edge, Kept};
use crate::plane::Plane;
use crate::record::Ledger;
use crate::rooms::accept::Places;
use crate::upstream::{Links, Upstream, ticks};

/// One data thread's state.
pub(crate) struct Worker {
    /// What all threads share.
    pub(crate) plane: Arc<Plane>,
    /// Downstream HTTP connections.
    pub(crate) live: Live,
    /// This thread's telemetry.
    pub(crate) ledger: Ledger,
    /// Deadlines and cuts of relayed connections.
    pub(crate) sweep: Sweep,
    /// Reaches other sidecars.
    pub(crate) dialer: Dialer,
    /// Connections, counted.
    pub(crate) places: Places,
    edges: RefCell<Kept<Edge>>,
    rules: RefCell<Kept<RuleMeter>>,
    /// Wakes who waits for a newer snapshot.
    changed: Notify,
    snapshot: RefCell<Arc<Snapshot>>,
    generation: Cell<u64>,
    /// Generation by which requests under way were last judged.
    judged: Cell<u64>,
    services: RefCell<FxHashMap<Name, Rc<Service>>>,
    upstreams: RefCell<FxHashMap<Name, Rc<Upstream>>>,
    direct: RefCell<FxHashMap<SocketAddr, Rc<Upstream>>>,
    applications: RefCell<FxHashMap<SocketAddr, Links>>,
    /// Exchanges whose streams the tick may end.
    pub(crate) flows: RefCell<Vec<Weak<Exchange>>>,
    chance: RefCell<Chance>,
    /// Questions about the balancers.
    asked: RefCell<Asked>,
}

/// A service port as one worker sees it: its routes, its backends, whose turn it is.
pub(crate) struct Service {
    /// The service port.
    pub(crate) name: Name,
    /// Routes.
    pub(crate) outbound: Arc<Outbound>,
    /// Backends, in the order of [`Outbound::backends`].
    pub(crate) upstreams: Vec<Rc<Upstream>>,
    /// Whose turn it is under each rule.
    pub(crate) turns: Rc<RefCell<Turns>>,
    /// Names of its rules, by their place in the outbound; the last stands for no rule.
    rules: Vec<Name>,
    /// Snapshot it was made from.
    generation: u64,
}

impl Service {
    /// A rule, as logs name it.
    pub(crate) fn rule_name(&self, rule: Option<u16>) -> &Name {
        let at = rule.map_or(self.rules.len().saturating_sub(1), usize::from);
        self.rules.get(at).unwrap_or(&self.name)
    }
}

impl Worker {
    /// A thread's state; `seed` differs between threads and runs.
    pub(crate) fn new(plane: Arc<Plane>, number: u16, seed: u64) -> Rc<Self> {
        let snapshot = plane.snapshot();
        Rc::new(Self {
            generation: Cell::new(snapshot.generation),
            judged: Cell::new(snapshot.generation),
            snapshot: RefCell::new(snapshot),
            live: Live::default(),
            changed: Notify::new(),
            ledger: Ledger::new(&plane.telemetry, number),
            sweep: Sweep::new(),
            dialer: Dialer::new(plane.identity.clone()),
            places: Places::default(),
            edges: RefCell::default(),
            rules: RefCell::default(),
            services: RefCell::default(),
            upstreams: RefCell::default(),
            direct: RefCell::default(),
            applications: RefCell::default(),
            flows: RefCell::default(),
            chance: RefCell::new(Chance::new(seed)),
            asked: RefCell::new(plane.looking.end()),
            plane,
        })
    }

    /// The moment that it is.
    pub(crate) fn now(&self) -> Moment {
        self.plane.clock.now()
    }

    /// Generation of the snapshot in use.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// What an original destination means, as far as known here.
    pub(crate) fn target(&self, address: SocketAddr) -> Option<Target> {
        self.refresh();
        self.snapshot.borrow().addresses.get(&address).cloned()
    }

    /// An edge by two numbers that mean something until the next snapshot.
    pub(crate) fn kept_edge(&self, key: (u64, u64), resolve: impl FnOnce() -> Arc<Edge>) -> Arc<Edge> {
        self.edges.borrow_mut().find(self.generation(), key, resolve).clone()
    }

    /// Counts what a rule decided.
    pub(crate) fn decided(&self, rule: &RuleRef, verdict: PolicyVerdict) {
        let key = (std::ptr::from_ref(&**rule).addr() as u64, verdict as u64);
        let resolve = || {
            self.ledger.metrics().rule(&RuleLabels {
                policy: rule.policy.clone(),
                rule: Name::from(&*rule.rule),
                verdict,
            })
        };
        self.rules.borrow_mut().find(self.generation(), key, resolve).decided();
    }

    /// Counts a limit that was hit, by its name in ARCHITECTURE.md. For what is rare.
    pub(crate) fn limit_hit(&self, name: &'static str) {
        self.ledger.metrics().plain().limit(name).up();
    }

    /// This thread's chance.
    pub(crate) fn chance(&self) -> std::cell::RefMut<'_, Chance> {
        self.chance.borrow_mut()
    }

    /// The newest snapshot.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.refresh();
        self.snapshot.borrow().clone()
    }

    /// How this workload receives traffic, when that has arrived.
    pub(crate) fn inbound(&self) -> Option<Arc<Inbound>> {
        self.refresh();
        self.snapshot.borrow().inbound.clone()
    }

    /// Ready when a newer configuration denies, as `judge` finds, what was allowed.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn newly_denied(&self, judge: impl Fn(&Inbound) -> Option<Denial>) -> Denial {
        loop {
            self.changed.notified().await;
            if let Some(by) = self.inbound().and_then(|inbound| judge(&inbound)) {
                return by;
            }
        }
    }

    /// Takes over a newer snapshot, if there is one.
    fn refresh(&self) {
        if self.generation.get() == self.plane.generation() {
            return;
        }
        let snapshot = self.plane.snapshot();
        self.generation.set(snapshot.generation);
        let now = self.now();
        self.upstreams.borrow_mut().retain(|name, upstream| match snapshot.backends.get(name) {
            Some(backend) => {
                upstream.update(backend, now);
                true
            }
            None => false,
        });
        self.services.borrow_mut().retain(|name, _| snapshot.outbounds.contains_key(name));
        self.edges.borrow_mut().renew(snapshot.generation);
        self.rules.borrow_mut().renew(snapshot.generation);
        *self.snapshot.borrow_mut() = snapshot;
        self.changed.notify_waiters();
        let known: Vec<_> = self.upstreams.borrow().values().cloned().collect();
        for upstream in known {
            self.join_fallback(&upstream);
        }
    }

    /// A service port, as the newest snapshot has it.
    pub(crate) fn service(&self, name: &Name) -> Option<Rc<Service>> {
        self.refresh();
        let generation = self.generation.get();
        let known = self.services.borrow().get(name).cloned();
        if let Some(service) = &known
            && service.generation == generation
        {
            return known;
        }
        let outbound = self.snapshot.borrow().outbounds.get(name)?.clone();
        let upstreams: Option<Vec<_>> = outbound.backends.iter().map(|name| self.upstream(name)).collect();
        let turns = match &known {
            Some(old) if Arc::ptr_eq(&old.outbound, &outbound) => old.turns.clone(),
            _ => Rc::new(RefCell::new(Turns::new(&outbound))),
        };
        let service = Rc::new(Service {
            name: name.clone(),
            rules: outbound
                .labels()
                .chain([outbound.label(None)])
                .map(|label| Name::from(&*label.rule))
                .collect(),
            upstreams: upstreams?,
            turns,
            outbound,
            generation,
        });
        self.services.borrow_mut().insert(name.clone(), service.clone());
        Some(service)
    }

    /// A backend, as the newest snapshot has it.
    pub(crate) fn upstream(&self, name: &Name) -> Option<Rc<Upstream>> {
        if let Some(upstream) = self.upstreams.borrow().get(name) {
            return Some(upstream.clone());
        }
        let backend = self.snapshot.borrow().backends.get(name)?.clone();
        let upstream = Upstream::new(name.clone(), backend, self.ledger.metrics().backend(name), self.now());
        self.upstreams.borrow_mut().insert(name.clone(), upstream.clone());
        self.join_fallback(&upstream);
        Some(upstream)
    }

    fn join_fallback(&self, upstream: &Rc<Upstream>) {
        let wanted = upstream.backend().policy.fallback.clone();
        // A fallback's own fallback is not followed, so two that name each other do no harm.
        let fallback = wanted.filter(|name| *name != upstream.name).and_then(|name| {
            let known = self.upstreams.borrow().get(&name).cloned();
            known.or_else(|| {
                let backend = self.snapshot.borrow().backends.get(&name)?.clone();
                let made =
                    Upstream::new(name.clone(), backend, self.ledger.metrics().backend(&name), self.now());
                self.upstreams.borrow_mut().insert(name, made.clone());
                Some(made)
            })
        });
        upstream.set_fallback(fallback);
    }

    /// One endpoint called directly, by its address: its mTLS and policy, no routes.
    pub(crate) fn direct(&self, endpoint: &Arc<Endpoint>) -> Rc<Upstream> {
        let mut direct = self.direct.borrow_mut();
        let backend = Arc::new(Backend {
            service: Name::from("direct"),
            port: endpoint.address.port(),
            protocol: spec::Protocol::Detect,
            endpoints: vec![endpoint.clone()],
            policy: weft_proxy_core::TrafficPolicy::default(),
        });
        if let Some(upstream) = direct.get(&endpoint.address) {
            let same = upstream.backend().endpoints.first().is_some_and(|e| **e == **endpoint);
            if !same {
                upstream.update(&backend, self.now());
            }
            return upstream.clone();
        }
        if direct.len() >= MOST_DIRECT {
            direct.clear();
        }
        let name = Name::from(endpoint.address.to_string().as_str());
        let meter = self.ledger.metrics().backend(&backend.service);
        let upstream = Upstream::new(name, backend, meter, self.now());
        direct.insert(endpoint.address, upstream.clone());
        upstream
    }

    /// Links to an application behind this sidecar.
    pub(crate) fn application(&self, address: SocketAddr) -> Links {
        let mut applications = self.applications.borrow_mut();
        if let Some(links) = applications.get(&address) {
            return links.clone();
        }
        if applications.len() >= MOST_DIRECT {
            applications.clear();
        }
        let limits = &self.plane.limits;
        let links = Pool::new(PoolLimits {
            connections: limits.application_connections,
            pending: limits.application_pending,
            wait: limits.connect,
            idle_ticks: ticks(limits.application_idle),
        });
        applications.insert(address, links.clone());
        links
    }

    /// Ends requests under way that a newer configuration denies.
    fn judge_again(&self) {
        let generation = self.generation.get();
        if self.judged.replace(generation) == generation {
            return;
        }
        let Some(inbound) = self.inbound() else { return };
        let flows: Vec<_> = self.flows.borrow().iter().filter_map(Weak::upgrade).collect();
        flows.iter().for_each(|exchange| exchange.judge_again(&inbound));
    }

    /// The thread's tick.
    pub(crate) fn tick(&self) {
        self.refresh();
        self.judge_again();
        self.live.tick(&self.plane.limits.live);
        let stall = ticks(self.plane.limits.live.stall);
        let flows = self.flows.borrow().len();
        for place in 0..flows {
            // Nothing is borrowed while the exchange is looked at: its end changes the list.
            let exchange = self.flows.borrow().get(place).and_then(Weak::upgrade);
            exchange.iter().for_each(|exchange| exchange.look_for_stall(stall));
        }
        for upstream in self.upstreams.borrow().values().chain(self.direct.borrow().values()) {
            upstream.tick();
        }
        for links in self.applications.borrow().values() {
            links.tick();
        }
        let now = self.now();
        let upstreams = self.upstreams.borrow();
        self.asked.borrow_mut().answer(|name| upstreams.get(name).map(|upstream| upstream.look(now)));
    }
}

/// Addresses called directly, and application ports, that a worker remembers. Source: more than the
/// pods that one workload calls by address; beyond it the table starts anew, which costs connections.
const MOST_DIRECT: usize = 4096;
