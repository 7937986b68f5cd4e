//! Verdicts: deny before allow, and nothing passes that no policy allows.

use super::*;
use crate::head::Head;
use crate::inbound::Inbound;
use crate::spec::{self, Action};
use crate::spec::{MutualTls, Protocol};
use http::{HeaderMap, Method};

fn policy(name: &str, action: Action, rules: Vec<spec::AuthorizationRule>) -> spec::Authorization {
    let (kind, namespace) = (Arc::from("AuthorizationPolicy"), Arc::from("shop"));
    spec::Authorization {
        origin: spec::Origin { kind, namespace, name: name.into() },
        action,
        shadow: false,
        rules,
    }
}

fn rule(from: Vec<spec::Source>, to: Vec<spec::Operation>) -> spec::AuthorizationRule {
    spec::AuthorizationRule { name: Arc::from(""), from, to }
}

fn account(name: &str) -> spec::Source {
    spec::Source { service_accounts: vec![name.to_owned()], ..Default::default() }
}

fn paths(paths: &[&str]) -> spec::Operation {
    spec::Operation { paths: paths.iter().map(|&path| path.to_owned()).collect(), ..Default::default() }
}

fn methods(methods: &[Method]) -> spec::Operation {
    spec::Operation { methods: methods.to_vec(), ..Default::default() }
}

fn ports(ports: &[u16]) -> spec::Operation {
    spec::Operation { ports: ports.to_vec(), ..Default::default() }
}

fn inbound_of(mutual_tls: MutualTls, policies: &[spec::Authorization], missing: &[&str]) -> Inbound {
    let compiled: Vec<_> = policies.iter().map(|policy| Arc::new(Policy::compile(policy).unwrap())).collect();
    let names =
        compiled.iter().map(|policy| policy.name.clone()).chain(missing.iter().map(|&name| name.into()));
    let spec = spec::Inbound {
        workload: "shop/cart-0".into(),
        namespace: "shop".into(),
        service_account: "cart".into(),
        mutual_tls,
        mutual_tls_by: Some("shop/strict".into()),
        ports: vec![
            spec::InboundPort {
                port: 9090,
                protocol: Protocol::Opaque,
                protocol_by: spec::ProtocolBy::AppProtocol,
                mutual_tls: Some(MutualTls::Permissive),
                service_ports: vec!["shop/cart:90".into()],
            },
            spec::InboundPort {
                port: 8443,
                protocol: Protocol::Http2,
                protocol_by: spec::ProtocolBy::AppProtocol,
                mutual_tls: None,
                service_ports: Vec::new(),
            },
        ],
        authorizations: names.collect(),
        services: Vec::new(),
        owner: Arc::from(""),
        probes: vec![spec::Probe { port: 8443, kind: spec::ProbeKind::Http { target: "/healthz".into() } }],
        probe_sources: vec![[10, 0, 0, 1].into()],
        telemetry: None,
    };
    Inbound::compile(&spec, |name| compiled.iter().find(|policy| policy.name == *name).cloned()).unwrap()
}

fn inbound(policies: &[spec::Authorization]) -> Inbound {
    inbound_of(MutualTls::Permissive, policies, &[])
}

fn peer(identity: &str) -> Peer {
    let text = match identity.split_once('/') {
        Some((namespace, account)) => format!("spiffe://cluster.local/ns/{namespace}/sa/{account}"),
        None => String::new(),
    };
    Peer { identity: Identity::parse(&text).ok(), address: [10, 1, 2, 3].into() }
}

fn asks(inbound: &Inbound, who: &str, request: &str) -> Verdict {
    let (method, path) = request.split_once(' ').unwrap();
    let (method, headers) = (method.parse().unwrap(), HeaderMap::new());
    let head = Head { method: &method, path, query: None, authority: "cart", headers: &headers };
    inbound.authorize_request(&peer(who), 8080, &head)
}

fn passes(inbound: &Inbound, who: &str, request: &str) -> bool {
    asks(inbound, who, request).is_allowed()
}

fn denial(verdict: Verdict) -> Denial {
    match verdict {
        Verdict::Denied { by } => by,
        Verdict::Allowed { by } => panic!("allowed by {by:?}"),
    }
}

#[test]
fn without_policies_all_may_pass() {
    let open = inbound(&[]);
    assert_eq!(asks(&open, "", "GET /"), Verdict::Allowed { by: None });
    assert_eq!(open.authorize_connection(&peer(""), 1), Verdict::Allowed { by: None });
}

#[test]
fn an_allow_policy_in_force_denies_the_rest() {
    let only_cart = inbound(&[policy("cart", Action::Allow, vec![rule(vec![account("shop/web")], vec![])])]);
    let Verdict::Allowed { by: Some(by) } = asks(&only_cart, "shop/web", "GET /") else { panic!() };
    assert_eq!(by.to_string(), "shop/cart#0");
    for who in ["shop/other", "other/web", ""] {
        let by = denial(asks(&only_cart, who, "GET /"));
        assert_eq!(by.policy(), Some(&"shop/cart".into()), "{who}");
        assert_eq!(
            (by.to_string(), by.reason()),
            ("no rule of shop/cart allows it".to_owned(), Reason::DeniedByPolicy)
        );
    }
    let nobody = inbound(&[policy("nobody", Action::Allow, vec![])]);
    assert!(!passes(&nobody, "shop/web", "GET /"));
}

#[test]
fn the_allow_policies_that_do_not_allow_are_named_and_no_more_than_three() {
    let named = |allow: &[&str]| {
        let policies: Vec<_> = allow.iter().map(|name| policy(name, Action::Allow, vec![])).collect();
        let deny = policy("other", Action::Deny, vec![rule(vec![account("a/b")], vec![])]);
        let inbound = inbound(&[policies, vec![deny]].concat());
        let by = denial(inbound.authorize_connection(&peer("shop/web"), 1));
        let Denial::NoRuleAllows(none) = &by else { panic!("{by:?}") };
        assert_eq!((&none.policy, &*none.rule), (&none.full, ""));
        by.policy().unwrap().to_string()
    };
    assert_eq!(named(&["one"]), "shop/one");
    assert_eq!(named(&["one", "two", "three"]), "shop/one, shop/two, shop/three");
    assert_eq!(named(&["one", "two", "three", "four", "five"]), "shop/one, shop/two, shop/three, ...");
}

#[test]
fn deny_beats_allow_and_names_its_rule() {
    let named =
        spec::AuthorizationRule { name: Arc::from("no-admin"), ..rule(vec![], vec![paths(&["/admin*"])]) };
    let both = inbound(&[
        policy("all", Action::Allow, vec![rule(vec![], vec![])]),
        policy("admin", Action::Deny, vec![named]),
    ]);
    assert!(passes(&both, "shop/web", "GET /cart"));
    let by = denial(asks(&both, "shop/web", "GET /admin/x"));
    assert_eq!(by.to_string(), "denied by shop/admin#no-admin");
    assert_eq!(by.reason(), Reason::DeniedByPolicy);
}

#[test]
fn every_list_of_a_source_must_hold_a_match() {
    let web = "spiffe://cluster.local/ns/shop/sa/web";
    let list = |text: &str| vec![text.to_owned()];
    let any = spec::Source::default();
    let rows = [
        (any.clone(), "shop/web", true),
        (any.clone(), "", true),
        (spec::Source { identities: list(web), ..any.clone() }, "shop/web", true),
        (spec::Source { identities: list(web), ..any.clone() }, "shop/webby", false),
        (spec::Source { identities: list(web), ..any.clone() }, "", false),
        (
            spec::Source { identities: list("spiffe://cluster.local/ns/shop/*"), ..any.clone() },
            "shop/x",
            true,
        ),
        (
            spec::Source { identities: list("spiffe://cluster.local/ns/shop/*"), ..any.clone() },
            "shopping/x",
            false,
        ),
        (spec::Source { identities: list("*"), ..any.clone() }, "a/b", true),
        (spec::Source { identities: list("*"), ..any.clone() }, "", false),
        (spec::Source { namespaces: list("shop"), ..any.clone() }, "shop/x", true),
        (spec::Source { namespaces: list("shop"), ..any.clone() }, "shops/x", false),
        (spec::Source { namespaces: list("shop"), ..any.clone() }, "", false),
        (account("shop/web"), "shop/web", true),
        (account("shop/web"), "web/shop", false),
        (spec::Source { namespaces: list("other"), ..account("shop/web") }, "shop/web", false),
        (spec::Source { cidrs: vec!["10.1.0.0/16".parse().unwrap()], ..any.clone() }, "shop/web", true),
        (spec::Source { cidrs: vec!["10.1.0.0/16".parse().unwrap()], ..any.clone() }, "", true),
        (spec::Source { cidrs: vec!["10.2.0.0/16".parse().unwrap()], ..any.clone() }, "shop/web", false),
        (spec::Source { cidrs: vec!["10.1.0.0/16".parse().unwrap()], ..account("shop/web") }, "", false),
    ];
    for (source, who, expected) in rows {
        let inbound = inbound(&[policy("p", Action::Allow, vec![rule(vec![source.clone()], vec![])])]);
        assert_eq!(passes(&inbound, who, "GET /"), expected, "{source:?} {who:?}");
    }
}

#[test]
fn an_ipv4_peer_of_a_dual_stack_socket_is_an_ipv4_peer() {
    let source = spec::Source { cidrs: vec!["10.1.0.0/16".parse().unwrap()], ..Default::default() };
    let inbound = inbound(&[policy("p", Action::Deny, vec![rule(vec![source], vec![])])]);
    let peer = Peer { identity: None, address: "::ffff:10.1.2.3".parse().unwrap() };
    assert!(!inbound.authorize_connection(&peer, 1).is_allowed());
}

#[test]
fn every_list_of_an_operation_must_hold_a_match() {
    let rows = [
        (ports(&[8080, 1]), "GET /", true),
        (ports(&[8081]), "GET /", false),
        (methods(&[Method::GET, Method::HEAD]), "GET /x", true),
        (methods(&[Method::GET, Method::HEAD]), "POST /x", false),
        (paths(&["/a"]), "GET /a", true),
        (paths(&["/a"]), "GET /a/", false),
        (paths(&["/a"]), "GET /A", false),
        (paths(&["/a/*"]), "GET /a/b", true),
        (paths(&["/a/*"]), "GET /a", false),
        (paths(&["/a*"]), "GET /ab", true),
        (paths(&["*"]), "GET /x", true),
        (spec::Operation { methods: vec![Method::GET], ..paths(&["/a"]) }, "POST /a", false),
    ];
    for (operation, request, expected) in rows {
        let inbound = inbound(&[policy("p", Action::Allow, vec![rule(vec![], vec![operation.clone()])])]);
        assert_eq!(passes(&inbound, "shop/web", request), expected, "{operation:?} {request}");
    }
}

#[test]
fn no_spelling_of_a_path_slips_past_a_deny_rule() {
    let inbound =
        inbound(&[policy("p", Action::Deny, vec![rule(vec![], vec![paths(&["/admin", "/admin/*"])])])]);
    for path in ["/admin", "/%61dmin", "//admin", "/admin/x", "/admin//x", "//admin///x", "/%61%64min/%78"] {
        assert!(matches!(denial(asks(&inbound, "a/b", &format!("GET {path}"))), Denial::Rule(_)), "{path}");
    }
    for path in ["/x/../admin", "/admin%2fx", "/admin;a=b", "/;/admin", "/%2561dmin", "/./admin", "/x\\admin"]
    {
        let by = denial(asks(&inbound, "a/b", &format!("GET {path}")));
        assert_eq!(
            (&by, by.reason().status().as_u16()),
            (&Denial::AmbiguousPath("shop/p".into()), 400),
            "{path}"
        );
    }
    assert!(passes(&inbound, "a/b", "GET /administrator"));
}

#[test]
fn an_ambiguous_path_passes_where_no_policy_looks_at_paths() {
    let inbound = inbound(&[policy("p", Action::Deny, vec![rule(vec![], vec![methods(&[Method::POST])])])]);
    assert!(passes(&inbound, "a/b", "GET /a%2fb;c"));
}

#[test]
fn rules_on_requests_never_allow_opaque_bytes_and_always_deny_them() {
    for operation in [methods(&[Method::GET]), paths(&["/x"]), paths(&["*"])] {
        let rules = || vec![rule(vec![], vec![operation.clone()])];
        let allow = inbound(&[policy("p", Action::Allow, rules())]);
        let by = denial(allow.authorize_connection(&peer("a/b"), 1));
        assert!(matches!(by, Denial::NoRuleAllows(_)), "{operation:?}");
        let deny = inbound(&[policy("p", Action::Deny, rules())]);
        assert!(
            matches!(denial(deny.authorize_connection(&peer("a/b"), 1)), Denial::Rule(_)),
            "{operation:?}"
        );
        let elsewhere = spec::Operation { ports: vec![2], ..operation.clone() };
        let deny = inbound(&[policy("p", Action::Deny, vec![rule(vec![], vec![elsewhere])])]);
        assert!(deny.authorize_connection(&peer("a/b"), 1).is_allowed());
    }
    let allow = inbound(&[policy("p", Action::Allow, vec![rule(vec![account("a/b")], vec![ports(&[1])])])]);
    assert!(allow.authorize_connection(&peer("a/b"), 1).is_allowed());
    assert!(!allow.authorize_connection(&peer("a/b"), 2).is_allowed());
    assert!(!allow.authorize_connection(&peer("a/c"), 1).is_allowed());
}

#[test]
fn a_policy_that_has_not_arrived_denies_everything() {
    let allow = policy("p", Action::Allow, vec![rule(vec![], vec![])]);
    let waiting = inbound_of(MutualTls::Permissive, &[allow], &["shop/late"]);
    assert_eq!(denial(asks(&waiting, "a/b", "GET /")), Denial::PolicyMissing("shop/late".into()));
    assert!(!waiting.authorize_connection(&peer("a/b"), 1).is_allowed());
}

#[test]
fn strict_ports_demand_mutual_tls() {
    let strict = inbound_of(MutualTls::Strict, &[], &[]);
    assert_eq!(denial(asks(&strict, "", "GET /")), Denial::MutualTlsRequired(Some("shop/strict".into())));
    assert!(passes(&strict, "a/b", "GET /"));
    assert_eq!(
        (strict.mutual_tls(8443), strict.mutual_tls(9090)),
        (MutualTls::Strict, MutualTls::Permissive)
    );
    assert!(strict.authorize_connection(&peer(""), 9090).is_allowed());
    assert_eq!((strict.protocol(9090), strict.protocol(1)), (Protocol::Opaque, Protocol::Detect));
    assert_eq!(strict.service_ports(9090), ["shop/cart:90".into()]);
    assert_eq!(&*strict.owner, "cart-0");
}

#[test]
fn a_policy_in_shadow_only_tells_what_it_would_have_done() {
    let shadow = |action, rules| spec::Authorization { shadow: true, ..policy("shadow", action, rules) };
    let head_of = |inbound: &Inbound, who: &str| {
        let headers = HeaderMap::new();
        let head = Head { method: &Method::GET, path: "/", query: None, authority: "", headers: &headers };
        inbound.shadow_request(&peer(who), 8080, &head)
    };
    let inbound = inbound(&[shadow(Action::Allow, vec![rule(vec![account("shop/web")], vec![])])]);
    assert!(passes(&inbound, "other/x", "GET /"));
    assert_eq!(head_of(&inbound, "shop/web"), None);
    let by = denial(head_of(&inbound, "other/x").unwrap());
    assert_eq!((by.reason(), by.policy()), (Reason::DeniedByPolicy, Some(&"shop/shadow".into())));
    assert!(inbound.shadow_connection(&peer("other/x"), 1).is_some());
    assert_eq!(head_of(&self::inbound(&[]), "other/x"), None);
}

#[test]
fn policies_that_cannot_be_meant_are_refused_with_their_place() {
    let bad_path = |path: &str| vec![rule(vec![], vec![paths(&[path])])];
    for path in ["admin", "", "/a*b", "/a/../b", "/a;b", "/a%2fb", "/*/b*"] {
        let error = Policy::compile(&policy("p", Action::Deny, bad_path(path))).unwrap_err();
        assert_eq!(error.place, "AuthorizationPolicy shop/p, rules[0], to.paths", "{path}");
    }
    for source in [
        account("web"),
        account("a/b/c"),
        account("/b"),
        spec::Source { identities: vec!["cart".to_owned()], ..Default::default() },
        spec::Source { identities: vec!["spiffe://*/ns/*".to_owned()], ..Default::default() },
    ] {
        assert!(
            Policy::compile(&policy("p", Action::Deny, vec![rule(vec![source.clone()], vec![])])).is_err(),
            "{source:?}"
        );
    }
}
