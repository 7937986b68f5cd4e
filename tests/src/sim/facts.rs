//! What the simulated users wrote, as plain facts.
//!
//! Stands before everything: the churn edits the facts, the control plane reads their manifests
//! through its own reader, and the oracle reads the facts themselves.
//!
//! Invariant: nothing here decides anything.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// `<namespace>/<name>`.
pub(super) type Id = String;

/// Everything written at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Facts {
    /// Services.
    pub(super) services: BTreeMap<Id, Service>,
    /// Pods.
    pub(super) pods: BTreeMap<Id, Pod>,
    /// HTTPRoutes.
    pub(super) routes: BTreeMap<Id, Route>,
    /// AuthorizationPolicies.
    pub(super) policies: BTreeMap<Id, Policy>,
    /// TlsPolicies.
    pub(super) tls: BTreeMap<Id, Tls>,
    /// TrafficPolicies, named as the service they are for.
    pub(super) traffic: BTreeMap<Id, Traffic>,
}

/// A Service; each port targets itself + 8000.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Service {
    /// Its cluster address.
    pub(super) ip: IpAddr,
    /// Its ports.
    pub(super) ports: Vec<u16>,
    /// Its EndpointSlice; none: its selector says who stands behind it.
    pub(super) slice: Option<Vec<Member>>,
}

/// An endpoint of a slice.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Member {
    /// Where.
    pub(super) ip: IpAddr,
    /// Takes traffic.
    pub(super) ready: bool,
    /// The pod it names, without namespace.
    pub(super) pod: Option<String>,
}

/// A Pod.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pod {
    /// Tells a pod from one that had its name before.
    pub(super) uid: u64,
    /// Its address.
    pub(super) ip: IpAddr,
    /// Takes traffic.
    pub(super) ready: bool,
    /// Has a sidecar.
    pub(super) sidecar: bool,
    /// Its app, which is its service account too.
    pub(super) app: String,
}

/// An HTTPRoute with one parent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Route {
    /// Seconds that order it among others.
    pub(super) born: u32,
    /// The parent.
    pub(super) parent: Id,
    /// Its port; none: all.
    pub(super) port: Option<u16>,
    /// Rules.
    pub(super) rules: Vec<Rule>,
}

/// A rule of a route.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rule {
    /// One of these must hold.
    pub(super) matches: Vec<Match>,
    /// Service, port, weight.
    pub(super) backends: Vec<(Id, u16, u32)>,
}

/// A match of a rule.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Match {
    /// The path.
    pub(super) path: String,
    /// Exactly the path, not it and all below.
    pub(super) exact: bool,
    /// Only this method.
    pub(super) method: Option<String>,
    /// Only with the header `canary: yes`.
    pub(super) canary: bool,
}

/// What a policy is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Aim {
    /// Pods of an app.
    App(String),
    /// Pods behind a service.
    Service(String),
    /// The namespace.
    Namespace,
    /// All; from weft-system only.
    Mesh,
}

/// An AuthorizationPolicy.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Policy {
    /// For whom.
    pub(super) aim: Aim,
    /// Allows; else denies.
    pub(super) allow: bool,
    /// Only recorded.
    pub(super) shadow: bool,
    /// Rules.
    pub(super) rules: Vec<Grant>,
}

/// A rule of a policy: one source, one operation; what is empty or none is any.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Grant {
    /// An identity, perhaps with `*` at its end.
    pub(super) identity: Option<String>,
    /// A namespace.
    pub(super) namespace: Option<String>,
    /// A service account, `<namespace>/<name>`.
    pub(super) account: Option<String>,
    /// First three bytes of an IPv4 address.
    pub(super) net: Option<[u8; 3]>,
    /// A port.
    pub(super) port: Option<u16>,
    /// A method.
    pub(super) method: Option<String>,
    /// A path, perhaps with `*` at its end.
    pub(super) path: Option<String>,
}

/// A TlsPolicy.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tls {
    /// For whom; never a service.
    pub(super) aim: Aim,
    /// Strict; else permissive.
    pub(super) strict: bool,
    /// One port that differs.
    pub(super) port: Option<(u16, bool)>,
}

/// A TrafficPolicy.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Traffic {
    /// Another service and port while the circuit is open.
    pub(super) fallback: Option<(Id, u16)>,
    /// Consecutive failures before an ejection.
    pub(super) failures: u32,
    /// Seconds of the first ejection.
    pub(super) base: u32,
    /// How many endpoints may be out, percent.
    pub(super) share: u32,
    /// Retries in percent of requests, and a second at least.
    pub(super) budget: (u32, u32),
}

/// Namespace and name of an id.
pub(super) fn parts(id: &str) -> (&str, &str) {
    id.split_once('/').unwrap_or(("default", id))
}

/// The cluster address number `n`.
pub(super) fn cluster_ip(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 96, 0, n).into()
}
