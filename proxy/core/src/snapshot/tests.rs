//! The suite's mesh tests on where a route applies: by original destination, never by Host.

use super::*;
use crate::head::Head;
use crate::outbound::{Decision, Turns};
use crate::spec::{self, RouteKind};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

/// A service port whose only route marks answers with `x-header-set: <mark>`; no mark: no route.
fn outbound(port: u16, backend: &str, mark: Option<&str>) -> Arc<Outbound> {
    let rule = |mark: &str| spec::Rule {
        name: "named-rule".into(),
        matches: vec![spec::Match::default()],
        filters: vec![spec::Filter::ResponseHeaders(spec::HeaderModifier {
            set: vec![(HeaderName::from_static("x-header-set"), HeaderValue::from_str(mark).unwrap())],
            ..Default::default()
        })],
        backends: vec![spec::WeightedBackend { backend: Ok(backend.into()), weight: 1, filters: Vec::new() }],
        ..Default::default()
    };
    let origin = spec::Origin { kind: "HTTPRoute".into(), namespace: "mesh".into(), name: "r".into() };
    let routes = mark.map(|mark| spec::Route { origin, rules: vec![rule(mark)] });
    let spec = spec::Outbound {
        service: "mesh/echo".into(),
        port,
        protocol: spec::Protocol::Http1,
        protocol_by: spec::ProtocolBy::default(),
        kind: if mark.is_some() { RouteKind::Http } else { RouteKind::None },
        routes: routes.into_iter().collect(),
        default_backend: Some(backend.into()),
        request_timeout: None,
    };
    Arc::new(Outbound::compile(&spec).unwrap())
}

fn snapshot(places: &[(&str, &str, Arc<Outbound>)]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (address, name, outbound) in places {
        snapshot.addresses.insert(address.parse().unwrap(), Target::Outbound(Name::from(*name)));
        snapshot.outbounds.insert(Name::from(*name), outbound.clone());
    }
    snapshot
}

/// The backend and the mark on its answer.
fn call(snapshot: &Snapshot, destination: &str, host: &'static str) -> (String, Option<String>) {
    let outbound = snapshot.outbound(destination.parse().unwrap()).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static(host));
    let uri = Uri::from_static("/");
    let head = Head::of(&Method::GET, &uri, &headers);
    let Decision::Forward(plan) = outbound.route(&head, &mut Turns::new(outbound)) else { panic!() };
    let mut answer = HeaderMap::new();
    outbound.apply_response(plan, &mut answer);
    let mark = answer.get("x-header-set").map(|mark| mark.to_str().unwrap().to_owned());
    (outbound.backend(plan).unwrap().to_string(), mark)
}

fn marked(backend: &str, mark: &str) -> (String, Option<String>) {
    (backend.to_owned(), Some(mark.to_owned()))
}

/// Source: the suite's MeshHTTPRouteSimpleSameNamespace: the backend's port is not the parent's.
#[test]
fn a_backend_may_listen_on_another_port_than_its_parent() {
    let snapshot =
        snapshot(&[("10.96.0.1:80", "mesh/echo:80", outbound(80, "mesh/echo-v1:8080", Some("m")))]);
    assert_eq!(call(&snapshot, "10.96.0.1:80", "echo"), marked("mesh/echo-v1:8080", "m"));
}

/// Source: the suite's MeshFrontendHostname: the address chooses the route, Host does not.
#[test]
fn the_address_chooses_the_route_and_host_does_not() {
    let snapshot = snapshot(&[
        ("10.96.0.1:80", "mesh/echo-v1:80", outbound(80, "mesh/echo-v1:80", None)),
        ("10.96.0.2:80", "mesh/echo-v2:80", outbound(80, "mesh/echo-v2:80", Some("set"))),
    ]);
    assert_eq!(call(&snapshot, "10.96.0.2:80", "echo-v1"), marked("mesh/echo-v2:80", "set"));
    assert_eq!(call(&snapshot, "10.96.0.1:80", "echo-v2"), ("mesh/echo-v1:80".to_owned(), None));
    assert_eq!(call(&snapshot, "[::ffff:10.96.0.2]:80", "x"), marked("mesh/echo-v2:80", "set"));
}

/// Source: the suite's MeshPorts.
#[test]
fn a_route_applies_to_the_ports_it_names() {
    let snapshot = snapshot(&[
        ("10.96.0.1:80", "mesh/echo:80", outbound(80, "mesh/echo:80", Some("port-80"))),
        ("10.96.0.1:8080", "mesh/echo:8080", outbound(8080, "mesh/echo:8080", None)),
    ]);
    assert_eq!(call(&snapshot, "10.96.0.1:80", "echo").1.as_deref(), Some("port-80"));
    assert_eq!(call(&snapshot, "10.96.0.1:8080", "echo").1, None);
}

/// Source: the suite's MeshFrontend: no routes for the address of a pod.
#[test]
fn a_pods_address_has_no_routes() {
    let mut snapshot =
        snapshot(&[("10.96.0.2:80", "mesh/echo-v2:80", outbound(80, "mesh/echo-v2:80", Some("set")))]);
    let pod = spec::Endpoint {
        address: "10.1.0.7:8080".parse().unwrap(),
        workload: Some("mesh/echo-v2-0".into()),
        identity: None,
        zone: "".into(),
        weight: 0,
    };
    snapshot.addresses.insert(pod.address, Target::Workload(Arc::new(Endpoint::of(&pod))));
    assert!(snapshot.outbound(pod.address).is_none());
    assert!(matches!(snapshot.target(pod.address), Some(Target::Workload(pod)) if pod.weight == 1));
    assert!(snapshot.target("10.9.9.9:1".parse().unwrap()).is_none());
}

/// Source: the suite's MeshHTTPRouteNamedRule.
#[test]
fn a_named_rule_is_a_rule() {
    let outbound = outbound(80, "mesh/echo-v1:80", Some("m"));
    assert_eq!(&*outbound.label(Some(0)).rule, "named-rule");
}
