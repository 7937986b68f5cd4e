//! Random edits of the facts: what users and the cluster do while the mesh runs.
//!
//! Invariant: everything written is well-formed; what it refers to need not be there.

use std::net::{IpAddr, Ipv4Addr};

use weft_proxy_core::Chance;

use super::facts::{
    Aim, Facts, Grant, Id, Match, Member, Pod, Policy, Route, Rule, Service, Tls, Traffic, cluster_ip, parts,
};

/// Services that may exist; each has its place as its cluster address.
pub(super) const SERVICES: [&str; 5] = ["shop/cart", "shop/catalog", "bank/pay", "bank/ledger", "web/front"];
/// Pods that a service may have.
const REPLICAS: u32 = 3;
/// Addresses of pods; few, so that they change hands.
const POD_IPS: u32 = 24;
/// Paths of matches, policies and requests.
const PATHS: [&str; 5] = ["/", "/a", "/a/b", "/ab", "/c"];
const METHODS: [&str; 3] = ["GET", "POST", "DELETE"];

/// The one source of chance of a run.
#[derive(Debug)]
pub(super) struct Dice(pub(super) Chance);

impl Dice {
    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        self.0.below(bound)
    }

    /// Once in `n`.
    pub(super) fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }

    /// One of a list; the list's first when it has only one.
    pub(super) fn of<T: Clone>(&mut self, list: &[T]) -> Option<T> {
        let at = self.below(u32::try_from(list.len()).unwrap_or(u32::MAX));
        list.get(at as usize).cloned()
    }

    fn text(&mut self, list: &[&str]) -> String {
        self.of(list).unwrap_or_default().to_owned()
    }

    /// A path of a request.
    pub(super) fn path(&mut self) -> String {
        if self.one_in(12) { "/a;x".to_owned() } else { self.text(&PATHS) }
    }

    /// A method of a request.
    pub(super) fn method(&mut self) -> String {
        self.text(&METHODS)
    }

    fn maybe(&mut self, n: u32, make: impl FnOnce(&mut Self) -> String) -> Option<String> {
        self.one_in(n).then(|| make(self))
    }
}

/// The facts a run begins with.
pub(super) fn first(dice: &mut Dice) -> Facts {
    let mut facts = Facts::default();
    for id in SERVICES {
        put_service(&mut facts, id, dice);
        for _ in 0..2 {
            put_pod(&mut facts, id, dice);
        }
    }
    facts
}

/// One random edit; says what it was.
pub(super) fn edit(facts: &mut Facts, dice: &mut Dice) -> String {
    let id = dice.text(&SERVICES);
    match dice.below(20) {
        0 => {
            if facts.services.remove(&id).is_none() {
                put_service(facts, &id, dice);
            }
            format!("service {id} comes or goes")
        }
        1 => {
            put_service(facts, &id, dice);
            format!("service {id} is written anew")
        }
        2..=4 => {
            put_pod(facts, &id, dice);
            format!("a pod of {id} is written")
        }
        5..=6 => {
            let pods: Vec<Id> = facts.pods.keys().cloned().collect();
            let Some(pod) = dice.of(&pods) else { return "nothing".to_owned() };
            facts.pods.remove(&pod);
            format!("pod {pod} goes")
        }
        7..=8 => {
            let pods: Vec<Id> = facts.pods.keys().cloned().collect();
            let Some(pod) = dice.of(&pods) else { return "nothing".to_owned() };
            facts.pods.entry(pod.clone()).and_modify(|pod| pod.ready = !pod.ready);
            format!("pod {pod} changes its readiness")
        }
        9..=10 => {
            let slice = if dice.one_in(3) { None } else { Some(members(facts, &id, dice)) };
            facts.services.entry(id.clone()).and_modify(|service| service.slice = slice);
            format!("the slice of {id} changes")
        }
        11..=13 => route(facts, &id, dice),
        14..=16 => policy(facts, &id, dice),
        17 => tls(facts, &id, dice),
        _ => traffic(facts, &id, dice),
    }
}

fn put_service(facts: &mut Facts, id: &str, dice: &mut Dice) {
    let place = SERVICES.iter().position(|known| *known == id).unwrap_or_default();
    let ports = dice.of(&[vec![80], vec![80, 81]]).unwrap_or_default();
    let slice = if dice.one_in(3) { Some(members(facts, id, dice)) } else { None };
    let ip = cluster_ip(u8::try_from(place + 1).unwrap_or(u8::MAX));
    facts.services.insert(id.to_owned(), Service { ip, ports, slice });
}

fn put_pod(facts: &mut Facts, service: &str, dice: &mut Dice) {
    let id = format!("{service}-{}", dice.below(REPLICAS));
    let Some(ip) = free_ip(facts, dice) else { return };
    let app = parts(service).1.to_owned();
    let pod = Pod { uid: dice.0.bits(), ip, ready: !dice.one_in(6), sidecar: !dice.one_in(6), app };
    facts.pods.insert(id, pod);
}

fn free_ip(facts: &Facts, dice: &mut Dice) -> Option<IpAddr> {
    let all =
        (0..POD_IPS).filter_map(|n| u8::try_from(n).ok()).map(|n| IpAddr::V4(Ipv4Addr::new(10, 1, n % 2, n)));
    let free: Vec<IpAddr> = all.filter(|ip| facts.pods.values().all(|pod| pod.ip != *ip)).collect();
    dice.of(&free)
}

/// Of a service's pods, and now and then someone else's address.
fn members(facts: &Facts, service: &str, dice: &mut Dice) -> Vec<Member> {
    let mut members: Vec<Member> = Vec::new();
    for (id, pod) in &facts.pods {
        let own = id.starts_with(service);
        if (own && dice.one_in(5)) || (!own && !dice.one_in(14)) {
            continue;
        }
        let named = (own && !dice.one_in(3)).then(|| parts(id).1.to_owned());
        members.push(Member { ip: pod.ip, ready: !dice.one_in(5), pod: named });
    }
    if dice.one_in(4)
        && let Some(ip) = free_ip(facts, dice)
    {
        members.push(Member { ip, ready: true, pod: None });
    }
    members
}

fn route(facts: &mut Facts, parent: &str, dice: &mut Dice) -> String {
    let namespace =
        if dice.one_in(3) { dice.text(&["shop", "bank", "web"]) } else { parts(parent).0.to_owned() };
    let id = format!("{namespace}/r{}", dice.below(3));
    if dice.one_in(3) && facts.routes.remove(&id).is_some() {
        return format!("route {id} goes");
    }
    let rules = (0..=dice.below(2)).map(|_| rule(parent, dice)).collect();
    let port = dice.of(&[None, None, Some(80), Some(81)]).flatten();
    facts.routes.insert(id.clone(), Route { born: dice.below(4), parent: parent.to_owned(), port, rules });
    format!("route {id} is written for {parent}")
}

fn rule(parent: &str, dice: &mut Dice) -> Rule {
    let one = |dice: &mut Dice| Match {
        path: dice.text(&PATHS),
        exact: dice.one_in(3),
        method: dice.maybe(3, |dice| dice.text(&METHODS)),
        canary: dice.one_in(4),
    };
    let matches = (0..=dice.below(2)).map(|_| one(dice)).collect();
    let backend = |dice: &mut Dice| {
        let id = match dice.below(5) {
            0 => "shop/nowhere".to_owned(),
            1..=2 => parent.to_owned(),
            _ => dice.text(&SERVICES),
        };
        (id, dice.of(&[80, 80, 80, 81]).unwrap_or(80), dice.below(4))
    };
    Rule { matches, backends: (0..dice.below(4)).map(|_| backend(dice)).collect() }
}

fn aim(namespace: &str, app: &str, dice: &mut Dice) -> Aim {
    match dice.below(4) {
        0 => Aim::Namespace,
        _ if namespace == "weft-system" => Aim::Mesh,
        1 => Aim::Service(app.to_owned()),
        _ => Aim::App(app.to_owned()),
    }
}

fn policy(facts: &mut Facts, service: &str, dice: &mut Dice) -> String {
    let (namespace, app) = parts(service);
    let namespace = if dice.one_in(6) { "weft-system" } else { namespace };
    let id = format!("{namespace}/p{}", dice.below(3));
    if dice.one_in(2) && facts.policies.remove(&id).is_some() {
        return format!("policy {id} goes");
    }
    let grant = |dice: &mut Dice| Grant {
        identity: dice.maybe(5, |dice| {
            dice.text(&["spiffe://cluster.local/ns/shop/*", "spiffe://cluster.local/ns/web/sa/front"])
        }),
        namespace: dice.maybe(4, |dice| dice.text(&["shop", "bank", "web"])),
        account: dice.maybe(5, |dice| dice.text(&SERVICES)),
        net: dice.one_in(6).then(|| [10, 1, u8::from(dice.one_in(2))]),
        port: dice.one_in(4).then(|| if dice.one_in(2) { 8080 } else { 8081 }),
        method: dice.maybe(4, |dice| dice.text(&METHODS)),
        path: dice.maybe(3, |dice| dice.text(&["/a", "/a*", "/a/b", "/*", "/c", "/x;y"])),
    };
    let rules = (0..dice.below(4)).map(|_| grant(dice)).collect();
    let aim = aim(namespace, app, dice);
    let policy = Policy { aim, allow: !dice.one_in(3), shadow: dice.one_in(4), rules };
    facts.policies.insert(id.clone(), policy);
    format!("policy {id} is written")
}

fn tls(facts: &mut Facts, service: &str, dice: &mut Dice) -> String {
    let (namespace, app) = parts(service);
    let namespace = if dice.one_in(5) { "weft-system" } else { namespace };
    let id = format!("{namespace}/t{}", dice.below(2));
    if dice.one_in(2) && facts.tls.remove(&id).is_some() {
        return format!("tls policy {id} goes");
    }
    let aim = match aim(namespace, app, dice) {
        Aim::Service(app) => Aim::App(app),
        aim => aim,
    };
    let port = dice.one_in(3).then(|| (8081, dice.one_in(2)));
    facts.tls.insert(id.clone(), Tls { aim, strict: dice.one_in(2), port });
    format!("tls policy {id} is written")
}

fn traffic(facts: &mut Facts, service: &str, dice: &mut Dice) -> String {
    if dice.one_in(4) && facts.traffic.remove(service).is_some() {
        return format!("traffic policy of {service} goes");
    }
    let traffic = Traffic {
        fallback: dice.one_in(2).then(|| (dice.text(&SERVICES), 80)),
        failures: dice.below(4),
        base: 1 + dice.below(2),
        share: if dice.one_in(2) { 50 } else { 100 },
        budget: (dice.below(60), dice.below(2)),
    };
    facts.traffic.insert(service.to_owned(), traffic);
    format!("traffic policy of {service} is written")
}
