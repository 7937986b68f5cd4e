//! Explaining and deciding agree, whatever is configured and asked.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::authorize::{Peer, Policy, Verdict};
use crate::backend::Backend as Compiled;
use crate::inbound::Inbound;
use crate::outbound::{Decision, Outbound, Turns};
use crate::snapshot::{Snapshot, Target};
use crate::spec::{self, MutualTls, ProtocolBy, RouteKind, ValueMatch};

fn key(name: &str, value: &str, regex: bool) -> spec::KeyMatch {
    let value = if regex { ValueMatch::Regex(value.to_owned()) } else { ValueMatch::Exact(value.to_owned()) };
    spec::KeyMatch { name: name.to_owned(), value }
}

fn any_match() -> impl Strategy<Value = spec::Match> {
    let path = prop_oneof![
        Just(None),
        prop::sample::select(vec!["/", "/a", "/a/b", "/c"])
            .prop_map(|p| Some(spec::PathMatch::Exact(p.into()))),
        prop::sample::select(vec!["/", "/a", "/a/b", "/c"])
            .prop_map(|p| Some(spec::PathMatch::Prefix(p.into()))),
        prop::sample::select(vec!["/a.*", "/[ab]", ".*"])
            .prop_map(|p| Some(spec::PathMatch::Regex(p.into()))),
    ];
    let method = prop::option::of(prop::sample::select(vec![Method::GET, Method::POST]));
    let header = prop::option::of((prop::sample::select(vec!["x-a", "host"]), any::<bool>()));
    let query = prop::option::of(any::<bool>());
    (path, method, header, query).prop_map(|(path, method, header, query)| spec::Match {
        path,
        method,
        headers: header.map(|(name, regex)| key(name, "1", regex)).into_iter().collect(),
        query: query.map(|regex| key("q", "1", regex)).into_iter().collect(),
        grpc: None,
    })
}

fn any_rule() -> impl Strategy<Value = spec::Rule> {
    let backend =
        (prop::sample::select(vec![Ok("ns/a:1"), Ok("ns/b:1"), Ok("ns/none:1"), Err("gone")]), 0u32..3);
    let backend = backend.prop_map(|(backend, weight)| spec::WeightedBackend {
        backend: backend.map(Into::into).map_err(str::to_owned),
        weight,
        filters: Vec::new(),
    });
    let fixed = spec::FixedReply { status: StatusCode::INTERNAL_SERVER_ERROR, reason: "broken".to_owned() };
    let filters = prop_oneof![4 => Just(Vec::new()), 1 => Just(vec![spec::Filter::Reply(fixed)])];
    (prop::collection::vec(any_match(), 0..3), prop::collection::vec(backend, 0..3), filters).prop_map(
        |(matches, backends, filters)| spec::Rule { matches, backends, filters, ..spec::Rule::default() },
    )
}

fn any_outbound() -> impl Strategy<Value = spec::Outbound> {
    let kind = prop_oneof![1 => Just(RouteKind::None), 4 => Just(RouteKind::Http)];
    let route = prop::collection::vec(any_rule(), 0..4).prop_map(|rules| spec::Route {
        origin: spec::Origin { kind: "HTTPRoute".into(), namespace: "ns".into(), name: "r".into() },
        rules: (0u32..).zip(rules).map(|(index, rule)| spec::Rule { index, ..rule }).collect(),
    });
    (kind, prop::collection::vec(route, 0..3)).prop_map(|(kind, routes)| spec::Outbound {
        service: "ns/a".into(),
        port: 1,
        protocol: spec::Protocol::Http1,
        protocol_by: ProtocolBy::AppProtocol,
        kind,
        routes: if kind == RouteKind::None { Vec::new() } else { routes },
        default_backend: None,
        request_timeout: None,
    })
}

fn backend(name: &str, endpoints: u8) -> (Name, Arc<Compiled>) {
    let endpoint = |last| spec::Endpoint {
        address: ([10, 0, 0, last], 80).into(),
        workload: None,
        identity: None,
        zone: Arc::from(""),
        weight: 1,
    };
    let written = spec::Backend {
        service: name.into(),
        port: 1,
        protocol: spec::Protocol::Http1,
        endpoints: (0..endpoints).map(endpoint).collect(),
        policy: spec::TrafficPolicy::default(),
    };
    (format!("{name}:1").into(), Arc::new(Compiled::compile(&written).unwrap()))
}

fn snapshot(outbound: Outbound) -> Snapshot {
    Snapshot {
        outbounds: [("ns/a:1".into(), Arc::new(outbound))].into_iter().collect(),
        backends: [backend("ns/a", 2), backend("ns/b", 1), backend("ns/none", 0)].into_iter().collect(),
        ..Snapshot::default()
    }
}

fn request(target: &str, method: &str, fields: &[(&str, &str)]) -> Request {
    let fields: Vec<_> =
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Request::new(Spoken::Http1, method, target, "a", &fields).unwrap()
}

fn any_request() -> impl Strategy<Value = Request> {
    let path = prop::sample::select(vec![
        "/", "/a", "/a/", "/a/b", "/a/b/c", "/c", "/x", "/a/../b", "/a%2fb", "//a",
    ]);
    let query = prop::sample::select(vec!["", "?q=1", "?q=2", "?z"]);
    let field = prop::option::of(prop::sample::select(vec!["1", "2"]));
    (path, query, prop::sample::select(vec!["GET", "POST"]), field).prop_map(
        |(path, query, method, field)| {
            let fields: Vec<_> = field.map(|value| ("x-a", value)).into_iter().collect();
            request(&format!("{path}{query}"), method, &fields)
        },
    )
}

fn walk(snapshot: &Snapshot, request: &Request) -> Walk {
    outbound(snapshot, &Destination::Service("ns/a:1".into()), request, &Imagined::default())
}

/// The rule's title that a walk says takes the request.
fn taken(walk: &Walk) -> Option<&Step> {
    let route = walk.steps.iter().find(|step| step.room == Room::Route && !step.steps.is_empty())?;
    route.steps.iter().find(|step| step.mark == Mark::Holds)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_explained_is_what_is_decided(written in any_outbound(), request in any_request()) {
        let compiled = Outbound::compile(&written).unwrap();
        let snapshot = snapshot(compiled);
        let walk = walk(&snapshot, &request);
        let outbound = &snapshot.outbounds[&Name::from("ns/a:1")];
        let uri = request.target.as_ref().unwrap();
        if crate::hygiene::check_request(&request.method, uri, Version::HTTP_11, &request.headers).is_err() {
            prop_assert_eq!(walk.outcome.status, Some(StatusCode::BAD_REQUEST));
            return Ok(());
        }
        let head = Head::of(&request.method, uri, &request.headers);
        let mut turns = Turns::new(outbound);
        for _ in 0..8 {
            let rule = match outbound.route(&head, &mut turns) {
                Decision::Forward(plan) => {
                    let name = outbound.backend(plan).unwrap();
                    let reached = walk.onward.iter().any(|onward| onward.backend.as_ref() == Some(name));
                    let none_ready = snapshot.backends[name].endpoints.is_empty();
                    prop_assert!(reached != none_ready, "{} {:?}", name, walk.outcome);
                    prop_assert!(
                        reached || walk.outcome.reason == Some(Reason::NoEndpoint)
                            || walk.outcome.end == End::Forward
                            || walk.outcome.reason == Some(Reason::InvalidBackend)
                    );
                    plan.rule
                }
                Decision::Reply(reply) => {
                    let said = walk.outcome.why.contains(&format!("answered with {}", reply.status.as_u16()));
                    let first_failed = walk.outcome.reason == Some(Reason::NoEndpoint);
                    prop_assert!(
                        walk.outcome.reason == Some(reply.reason) || said || first_failed,
                        "{:?} {:?}", reply, walk.outcome
                    );
                    reply.rule
                }
            };
            if outbound.kind == RouteKind::Http {
                let named = rule.and_then(|rule| outbound.rules.get(usize::from(rule)));
                let told = taken(&walk).map(|step| step.what.as_str());
                let title = named.map(|rule| format!("rule {} of {}", rule.index, rule.label.route));
                prop_assert_eq!(told, title.as_deref());
            }
        }
    }

    #[test]
    fn who_is_let_in_is_who_is_said_to_be(
        policies in prop::collection::vec(any_policy(), 0..4),
        peer in prop::sample::select(vec![None, Some("x"), Some("y")]),
        strict in any::<bool>(),
        request in any_request(),
    ) {
        let compiled: Vec<Arc<Policy>> = (0..).zip(&policies).map(|(at, policy)| {
            let origin = spec::Origin { name: format!("p{at}").into(), ..policy.origin.clone() };
            Arc::new(Policy::compile(&spec::Authorization { origin, ..policy.clone() }).unwrap())
        }).collect();
        let inbound = inbound_of(&compiled, if strict { MutualTls::Strict } else { MutualTls::Permissive });
        let snapshot = Snapshot { inbound: Some(Arc::new(inbound)), ..Snapshot::default() };
        let identity = peer.map(|of| Identity::parse(&format!("spiffe://t/ns/{of}/sa/default")).unwrap());
        let address = std::net::IpAddr::from([10, 0, 0, 1]);
        let caller = Caller { identity: identity.clone(), address: Some(address), port: 80 };
        let walk = super::inbound(&snapshot, &caller, &request);
        let uri = request.target.as_ref().unwrap();
        if crate::hygiene::check_request(&request.method, uri, Version::HTTP_11, &request.headers).is_err() {
            prop_assert_eq!(walk.outcome.status, Some(StatusCode::BAD_REQUEST));
            return Ok(());
        }
        let head = Head::of(&request.method, uri, &request.headers);
        let inbound = snapshot.inbound.as_ref().unwrap();
        let verdict = inbound.authorize_request(&Peer { identity, address }, 80, &head);
        match &verdict {
            Verdict::Allowed { .. } => prop_assert_eq!(walk.outcome.end, End::Forward),
            Verdict::Denied { by } => prop_assert_eq!(walk.outcome.reason, Some(by.reason())),
        }
        let authorize = walk.steps.iter().find(|step| step.room == Room::Authorize).unwrap();
        let deciding = authorize.steps.iter().find(|step| matches!(step.mark, Mark::Holds | Mark::Ends));
        let named = match &verdict {
            Verdict::Allowed { by } => by.clone(),
            Verdict::Denied { by: crate::Denial::Rule(rule) } => Some(rule.clone()),
            // What denies is no rule, or is known before the rules are asked.
            Verdict::Denied { .. } => return Ok(()),
        };
        let field = |by: &By| by.origin.as_ref().map(|it| format!("{}/{}#{}", it.namespace, it.name, by.field));
        let told = deciding.and_then(|step| field(&step.by));
        let expected = named.map(|rule| format!("{}#spec.rules[{}]", rule.policy, rule.rule));
        prop_assert_eq!(told, expected);
    }
}

fn any_policy() -> impl Strategy<Value = spec::Authorization> {
    let source = prop::sample::select(vec!["x", "y"]).prop_map(|namespace| spec::Source {
        namespaces: vec![namespace.to_owned()],
        ..spec::Source::default()
    });
    let operation = prop_oneof![
        Just(spec::Operation { methods: vec![Method::GET], ..spec::Operation::default() }),
        Just(spec::Operation { paths: vec!["/a*".to_owned()], ..spec::Operation::default() }),
        Just(spec::Operation { ports: vec![81], ..spec::Operation::default() }),
    ];
    let rule = (prop::collection::vec(source, 0..2), prop::collection::vec(operation, 0..2))
        .prop_map(|(from, to)| spec::AuthorizationRule { name: Arc::from(""), from, to });
    (any::<bool>(), any::<bool>(), prop::collection::vec(rule, 0..3)).prop_map(|(deny, shadow, rules)| {
        spec::Authorization {
            origin: spec::Origin {
                kind: "AuthorizationPolicy".into(),
                namespace: "ns".into(),
                name: "p".into(),
            },
            action: if deny { spec::Action::Deny } else { spec::Action::Allow },
            shadow,
            rules,
        }
    })
}

fn inbound_of(policies: &[Arc<Policy>], mutual_tls: MutualTls) -> Inbound {
    let written = spec::Inbound {
        telemetry: None,
        workload: "ns/a-0".into(),
        namespace: "ns".into(),
        service_account: "a".into(),
        mutual_tls,
        mutual_tls_by: Some("ns/strict".into()),
        ports: Vec::new(),
        authorizations: policies.iter().map(|policy| policy.name.clone()).collect(),
        services: Vec::new(),
        owner: Arc::from(""),
        probes: Vec::new(),
        probe_sources: Vec::new(),
    };
    Inbound::compile(&written, |name| policies.iter().find(|policy| policy.name == *name).cloned()).unwrap()
}

#[test]
fn a_destination_nobody_knows_passes_or_is_refused_as_the_mesh_says() {
    let at = Destination::Address(([203, 0, 113, 9], 443).into());
    let mut snapshot = Snapshot::default();
    let passes = outbound(&snapshot, &at, &request("/", "GET", &[]), &Imagined::default());
    assert_eq!((passes.outcome.end, passes.steps[0].by.field.as_str()), (End::PassThrough, "default"));
    let mesh = spec::Mesh { unknown_destination: spec::UnknownDestination::Refuse, ..spec::Mesh::default() };
    snapshot.mesh = Arc::new(mesh);
    let refused = outbound(&snapshot, &at, &request("/", "GET", &[]), &Imagined::default());
    assert_eq!((refused.outcome.end, refused.outcome.reason), (End::Reset, Some(Reason::UnknownDestination)));
    assert_eq!(refused.steps[0].by.field, "spec.unknownDestination");
}

#[test]
fn a_pod_called_by_its_address_meets_no_route() {
    let endpoint = crate::backend::Endpoint {
        address: ([10, 0, 0, 1], 80).into(),
        workload: Some("ns/a-0".into()),
        identity: None,
        zone: Arc::from(""),
        weight: 1,
    };
    let address = endpoint.address;
    let target = Target::Workload(Arc::new(endpoint));
    let snapshot = Snapshot { addresses: [(address, target)].into_iter().collect(), ..Snapshot::default() };
    let walk =
        outbound(&snapshot, &Destination::Address(address), &request("/", "GET", &[]), &Imagined::default());
    assert_eq!((walk.outcome.end, walk.onward.len()), (End::Forward, 1));
    assert!(walk.steps.iter().any(|step| step.what == "a pod called by its address"), "{:?}", walk.steps);
}

#[test]
fn an_imagined_failure_opens_the_circuit_as_far_as_the_policy_lets_it() {
    let (name, two) = backend("ns/a", 2);
    let failing = two.endpoints.iter().map(|endpoint| endpoint.address).collect();
    let look = Imagined { failing }.look(&name, &two);
    let ejected = look.endpoints.iter().filter(|seen| seen.ejected.is_some()).count();
    assert_eq!((ejected, look.standing), (1, crate::balance::Standing::Ready), "half may be ejected");
}

#[test]
fn a_target_that_cannot_be_read_is_refused_and_not_guessed() {
    let outbound = Outbound::compile(&spec::Outbound {
        service: "ns/a".into(),
        port: 1,
        protocol: spec::Protocol::Http1,
        protocol_by: ProtocolBy::AppProtocol,
        kind: RouteKind::None,
        routes: Vec::new(),
        default_backend: None,
        request_timeout: None,
    });
    let snapshot = snapshot(outbound.unwrap());
    for target in ["/a b", "/%2e%2e/x", "/a\\b"] {
        let walk = walk(&snapshot, &request(target, "GET", &[]));
        assert_eq!(walk.outcome.status, Some(StatusCode::BAD_REQUEST), "{target}");
    }
    assert!(Request::new(Spoken::Http1, "GET", "/", "a", &[("a b".to_owned(), String::new())]).is_err());
    assert!(Request::new(Spoken::Http1, "G T", "/", "a", &[]).is_err());
}
