//! The kubelet's probes: what of a workload answers in plaintext, to its node alone, although mutual TLS
//! and policies say no.
//!
//! Beside authorize: the inbound rooms ask [`crate::Inbound::probe`] about what came without an identity.
//!
//! Invariant: a probe is known by where it comes from, the port it goes to and all that it asks; what
//! differs in any of these is judged like everything else.
//! Invariant: of a TCP probe no byte is passed on.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Method, header};

use crate::authorize::Peer;
use crate::head::Head;
use crate::spec;

/// How a probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Probe {
    /// A GET of the declared path.
    Http,
    /// The application's own TLS: what is asked within it is not seen.
    Https,
    /// The standard health service.
    Grpc,
    /// A connection that is closed at once.
    Tcp,
}

impl Probe {
    /// All kinds, in the order of their declaration.
    pub const ALL: [Self; 4] = [Self::Http, Self::Https, Self::Grpc, Self::Tcp];

    /// The word in logs and labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        }
    }
}

/// What came without an identity.
#[derive(Clone, Copy, Debug)]
pub enum Sent<'a> {
    /// One request.
    Request(&'a Head<'a>),
    /// A TLS handshake that is not the mesh's.
    Tls,
    /// An end, and no byte before it.
    Nothing,
}

/// The declared probes of a workload, and where they come from.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    sources: Vec<IpAddr>,
    ports: Vec<(u16, spec::ProbeKind)>,
}

impl Probes {
    pub(crate) fn of(spec: &spec::Inbound) -> Self {
        // Either without the other is nothing.
        if spec.probe_sources.is_empty() || spec.probes.is_empty() {
            return Self::default();
        }
        Self {
            sources: spec.probe_sources.clone(),
            ports: spec.probes.iter().map(|probe| (probe.port, probe.kind.clone())).collect(),
        }
    }

    /// The probe that this is, if it is one.
    pub(crate) fn find(&self, peer: &Peer, port: u16, sent: Sent<'_>) -> Option<Probe> {
        if self.ports.is_empty() || peer.identity.is_some() || !self.sources.contains(&peer.address) {
            return None;
        }
        let declared = self.ports.iter().filter(|(declared, _)| *declared == port);
        declared.filter_map(|(_, kind)| asks(kind, sent)).next()
    }

    /// Whether any probe of HTTP or gRPC may come from `peer` to `port`.
    pub(crate) fn has_requests(&self, peer: &Peer, port: u16) -> bool {
        let of_requests = |(declared, kind): &(u16, spec::ProbeKind)| {
            *declared == port && matches!(kind, spec::ProbeKind::Http { .. } | spec::ProbeKind::Grpc { .. })
        };
        peer.identity.is_none() && self.sources.contains(&peer.address) && self.ports.iter().any(of_requests)
    }
}

fn asks(kind: &spec::ProbeKind, sent: Sent<'_>) -> Option<Probe> {
    let (probe, is_it) = match (kind, sent) {
        (spec::ProbeKind::Http { target }, Sent::Request(head)) => {
            (Probe::Http, head.method == Method::GET && is_target(head, target) && is_bare(head.headers))
        }
        (spec::ProbeKind::Grpc { .. }, Sent::Request(head)) => {
            (Probe::Grpc, head.method == Method::POST && head.path == HEALTH_CHECK && head.query.is_none())
        }
        (spec::ProbeKind::Https, Sent::Tls) => (Probe::Https, true),
        (spec::ProbeKind::Tcp, Sent::Nothing) => (Probe::Tcp, true),
        _ => return None,
    };
    is_it.then_some(probe)
}

/// Whether path and query are, byte for byte, those declared.
fn is_target(head: &Head<'_>, target: &Arc<str>) -> bool {
    match target.split_once('?') {
        Some((path, query)) => head.path == path && head.query == Some(query),
        None => head.path == &**target && head.query.is_none(),
    }
}

/// A kubelet sends no body and asks for no other protocol; who does is no kubelet.
fn is_bare(headers: &HeaderMap) -> bool {
    [header::UPGRADE, header::TRANSFER_ENCODING, header::CONTENT_LENGTH]
        .iter()
        .all(|name| !headers.contains_key(name))
}

/// Source: grpc.health.v1, which the kubelet's gRPC probe calls.
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Identity;
    use http::Uri;

    const NODE: [u8; 4] = [10, 0, 0, 1];

    fn probes() -> Probes {
        let http = |target: &str| spec::ProbeKind::Http { target: target.into() };
        let of = |port, kind| spec::Probe { port, kind };
        Probes {
            sources: vec![NODE.into(), "fd00::1".parse().unwrap()],
            ports: vec![
                of(8080, http("/healthz")),
                of(8080, http("/ready?full=1")),
                of(9090, spec::ProbeKind::Grpc { service: "".into() }),
                of(6379, spec::ProbeKind::Tcp),
                of(8443, spec::ProbeKind::Https),
            ]
            .into_iter()
            .map(|probe| (probe.port, probe.kind))
            .collect(),
        }
    }

    fn plain(address: impl Into<IpAddr>) -> Peer {
        Peer { identity: None, address: address.into() }
    }

    fn ask(peer: &Peer, port: u16, method: &Method, target: &str, headers: &HeaderMap) -> Option<Probe> {
        let uri: Uri = target.parse().unwrap();
        probes().find(peer, port, Sent::Request(&Head::of(method, &uri, headers)))
    }

    #[test]
    fn only_the_declared_request_from_the_node_is_a_probe() {
        let (get, post, head) = (Method::GET, Method::POST, Method::HEAD);
        for (from, port, method, target, expected) in [
            (NODE, 8080, &get, "/healthz", Some(Probe::Http)),
            (NODE, 8080, &get, "/ready?full=1", Some(Probe::Http)),
            (NODE, 9090, &post, "/grpc.health.v1.Health/Check", Some(Probe::Grpc)),
            ([10, 0, 0, 2], 8080, &get, "/healthz", None),
            ([10, 0, 0, 2], 9090, &post, "/grpc.health.v1.Health/Check", None),
            (NODE, 8081, &get, "/healthz", None),
            (NODE, 9090, &get, "/healthz", None),
            (NODE, 6379, &get, "/healthz", None),
            (NODE, 8443, &get, "/healthz", None),
            (NODE, 8080, &post, "/healthz", None),
            (NODE, 8080, &head, "/healthz", None),
            (NODE, 8080, &get, "/healthz/", None),
            (NODE, 8080, &get, "/Healthz", None),
            (NODE, 8080, &get, "/health%7a", None),
            (NODE, 8080, &get, "//healthz", None),
            (NODE, 8080, &get, "/secret/../healthz", None),
            (NODE, 8080, &get, "/healthz?a", None),
            (NODE, 8080, &get, "/healthz?", None),
            (NODE, 8080, &get, "/ready", None),
            (NODE, 8080, &get, "/ready?full=1&more", None),
            (NODE, 9090, &get, "/grpc.health.v1.Health/Check", None),
            (NODE, 9090, &post, "/grpc.health.v1.Health/Watch", None),
            (NODE, 9090, &post, "/grpc.health.v1.Health/Check?a", None),
            (NODE, 8080, &post, "/grpc.health.v1.Health/Check", None),
        ] {
            let found = ask(&plain(from), port, method, target, &HeaderMap::new());
            assert_eq!(found, expected, "{from:?} {port} {method} {target}");
        }
        let second = plain("fd00::1".parse::<IpAddr>().unwrap());
        assert_eq!(ask(&second, 8080, &get, "/healthz", &HeaderMap::new()), Some(Probe::Http));
    }

    #[test]
    fn a_request_with_a_body_or_an_upgrade_is_no_probe() {
        for (name, value) in
            [("upgrade", "websocket"), ("content-length", "0"), ("transfer-encoding", "chunked")]
        {
            let mut headers = HeaderMap::new();
            headers.insert(name, http::HeaderValue::from_static(value));
            assert_eq!(ask(&plain(NODE), 8080, &Method::GET, "/healthz", &headers), None, "{name}");
        }
    }

    #[test]
    fn a_peer_with_an_identity_is_judged_by_it() {
        let identity = Identity::parse("spiffe://cluster.local/ns/shop/sa/cart").ok();
        let peer = Peer { identity, address: NODE.into() };
        assert_eq!(ask(&peer, 8080, &Method::GET, "/healthz", &HeaderMap::new()), None);
    }

    #[test]
    fn connections_are_probes_on_their_own_ports_only() {
        let probes = probes();
        let node = plain(NODE);
        for port in [6379, 8443, 8080, 9090, 22] {
            let nothing = probes.find(&node, port, Sent::Nothing);
            assert_eq!(nothing, (port == 6379).then_some(Probe::Tcp), "{port}");
            let tls = probes.find(&node, port, Sent::Tls);
            assert_eq!(tls, (port == 8443).then_some(Probe::Https), "{port}");
            assert_eq!(probes.has_requests(&node, port), matches!(port, 8080 | 9090), "{port}");
        }
        let stranger = plain([10, 0, 0, 2]);
        assert_eq!(probes.find(&stranger, 6379, Sent::Nothing), None);
        assert!(!probes.has_requests(&stranger, 8080));
    }

    #[test]
    fn without_a_source_nothing_is_a_probe() {
        assert_eq!(Probes::default().find(&plain(NODE), 6379, Sent::Nothing), None);
    }
}
