//! Adoption: what the wire may say, what is refused by name, and what stays when it is.

use proptest::prelude::*;
use prost::Message;
use weft_proxy_core::{Peer, Target};

use super::*;
use crate::testing::config::*;

fn adopter() -> Adopter {
    Adopter::new("cluster.local")
}

fn reasons(applied: &Applied) -> Vec<String> {
    applied.ack.refusals.iter().map(|refusal| refusal.reason.clone()).collect()
}

#[test]
fn an_epoch_becomes_one_snapshot_and_is_acknowledged_by_number() {
    let mut adopter = adopter();
    let applied = adopter.apply(epoch(
        7,
        [mesh(), inbound(&["shop/allow"]), authorization("shop", "allow")]
            .into_iter()
            .chain(service("catalog", "10.0.0.1:80")),
    ));
    assert_eq!(applied.ack, v1::Ack { nonce: 7, refusals: Vec::new() });
    let snapshot = applied.snapshot.unwrap();
    assert_eq!(snapshot.generation, 1);
    assert!(snapshot.inbound.is_some());
    assert!(snapshot.outbounds.contains_key("shop/catalog:80"));
    assert_eq!(snapshot.backends["shop/catalog:80"].endpoints.len(), 1);
    assert!(
        matches!(&snapshot.addresses[&"10.96.0.7:80".parse().unwrap()], Target::Outbound(name) if name.as_str() == "shop/catalog:80")
    );
}

#[test]
fn an_epoch_that_changes_nothing_is_acknowledged_without_a_snapshot() {
    let mut adopter = adopter();
    adopter.apply(epoch(1, service("catalog", "10.0.0.1:80")));
    let again = adopter.apply(epoch(2, service("catalog", "10.0.0.1:80")));
    assert_eq!(again.ack, v1::Ack { nonce: 2, refusals: Vec::new() });
    assert!(again.snapshot.is_none());
}

#[test]
fn unchanged_parts_are_shared_between_snapshots() {
    let mut adopter = adopter();
    adopter
        .apply(epoch(1, service("catalog", "10.0.0.1:80").into_iter().chain(service("cart", "10.0.0.2:80"))));
    let before = Arc::clone(adopter.snapshot());
    adopter.apply(epoch(2, [backend("catalog", &["10.0.0.9:80"])]));
    let after = adopter.snapshot();
    assert!(Arc::ptr_eq(&before.outbounds["shop/catalog:80"], &after.outbounds["shop/catalog:80"]));
    assert!(Arc::ptr_eq(&before.backends["shop/cart:80"], &after.backends["shop/cart:80"]));
    assert!(!Arc::ptr_eq(&before.backends["shop/catalog:80"], &after.backends["shop/catalog:80"]));
}

#[test]
fn what_cannot_be_taken_is_refused_and_the_last_good_version_stays() {
    let unknown_protocol = v1::Backend { protocol: 99, ..backend_body("catalog", &["10.0.0.9:80"]) };
    let bad_address = backend_body("catalog", &["nowhere"]);
    let twice = backend_body("catalog", &["10.0.0.1:80", "10.0.0.1:80"]);
    let other_name = backend_body("cart", &["10.0.0.1:80"]);
    let missing_fallback = v1::Backend {
        policy: Some(v1::TrafficPolicy { fallback: "shop/gone:80".into(), ..Default::default() }),
        ..backend_body("catalog", &["10.0.0.9:80"])
    };
    let table: [(Bytes, &str); 6] = [
        (unknown_protocol.encode_to_vec().into(), "value 99 is not known"),
        (bad_address.encode_to_vec().into(), "endpoints[0], address: \"nowhere\""),
        (twice.encode_to_vec().into(), "occurs twice"),
        (other_name.encode_to_vec().into(), "its body says"),
        (missing_fallback.encode_to_vec().into(), "names Backend shop/gone:80"),
        (Bytes::from_static(&[0xff, 0xff]), "malformed"),
    ];
    for (body, expected) in table {
        let mut adopter = adopter();
        adopter.apply(epoch(1, service("catalog", "10.0.0.1:80")));
        let good = adopter.snapshot().backends["shop/catalog:80"].clone();
        let held = adopter.held();
        let bad = resource(Kind::Backend, "shop/catalog:80", body);
        let version = bad.version.clone();
        let applied = adopter.apply(epoch(2, [bad]));
        assert_eq!(applied.ack.refusals[0].version, version);
        assert!(reasons(&applied)[0].contains(expected), "{expected}: {:?}", reasons(&applied));
        assert!(Arc::ptr_eq(&good, &adopter.snapshot().backends["shop/catalog:80"]));
        assert_eq!(adopter.held(), held, "a refused version is not held");
    }
}

#[test]
fn good_resources_of_an_epoch_are_taken_beside_a_refused_one() {
    let mut adopter = adopter();
    let bad = resource(Kind::Mesh, "mesh", Bytes::from_static(&[0xff]));
    let applied = adopter.apply(epoch(1, service("catalog", "10.0.0.1:80").into_iter().chain([bad])));
    assert_eq!(applied.ack.refusals.len(), 1);
    assert!(adopter.snapshot().outbounds.contains_key("shop/catalog:80"));
}

#[test]
fn a_kind_from_the_future_is_refused_by_its_key() {
    let mut adopter = adopter();
    let mut future = mesh();
    future.key = Some(v1::Key { r#type: 77, name: "x".into() });
    let applied = adopter.apply(epoch(1, [future]));
    assert_eq!(applied.ack.refusals[0].key, Some(v1::Key { r#type: 77, name: "x".into() }));
    assert!(reasons(&applied)[0].contains("kind 77"));
    assert!(applied.snapshot.is_none());
}

#[test]
fn an_outbound_without_its_backend_is_refused_until_the_backend_is_there() {
    let mut adopter = adopter();
    let applied = adopter.apply(epoch(1, [outbound("catalog")]));
    assert!(reasons(&applied)[0].contains("names Backend shop/catalog:80"));
    assert!(adopter.snapshot().outbounds.is_empty());
    let applied = adopter.apply(epoch(2, [backend("catalog", &["10.0.0.1:80"]), outbound("catalog")]));
    assert!(applied.ack.refusals.is_empty());
    assert!(adopter.snapshot().outbounds.contains_key("shop/catalog:80"));
}

#[test]
fn a_refused_backend_takes_the_new_resources_that_need_it_with_it() {
    let mut adopter = adopter();
    let bad = resource(Kind::Backend, "shop/catalog:80", Bytes::from_static(&[0xff]));
    let applied = adopter.apply(epoch(1, [address("catalog"), outbound("catalog"), bad]));
    assert_eq!(applied.ack.refusals.len(), 3);
    assert!(applied.snapshot.is_none(), "nothing of it is in force");
    assert!(adopter.held().is_empty());
}

#[test]
fn what_a_kept_resource_still_names_is_not_taken_away() {
    let mut adopter = adopter();
    adopter.apply(epoch(1, service("catalog", "10.0.0.1:80")));
    let mut next = epoch(2, [resource(Kind::Outbound, "shop/catalog:80", Bytes::from_static(&[0xff]))]);
    next.removals.push((&Key::new(Kind::Backend, "shop/catalog:80")).into());
    let applied = adopter.apply(next);
    assert!(reasons(&applied)[1].contains("still names it"), "{:?}", reasons(&applied));
    assert!(adopter.snapshot().backends.contains_key("shop/catalog:80"));
}

#[test]
fn removed_resources_are_gone_and_no_longer_held() {
    let mut adopter = adopter();
    adopter.apply(epoch(1, service("catalog", "10.0.0.1:80")));
    let mut next = epoch(2, []);
    next.removals = adopter.held().into_iter().filter_map(|held| held.key).collect();
    let applied = adopter.apply(next);
    assert!(applied.ack.refusals.is_empty());
    let snapshot = applied.snapshot.unwrap();
    assert!(snapshot.outbounds.is_empty() && snapshot.backends.is_empty() && snapshot.addresses.is_empty());
    assert!(adopter.held().is_empty());
}

#[test]
fn a_policy_that_is_named_and_missing_denies_until_it_arrives() {
    let peer = Peer { identity: None, address: "10.0.0.9".parse().unwrap() };
    let mut adopter = adopter();
    let allowed = |adopter: &Adopter| {
        adopter.snapshot().inbound.as_ref().unwrap().authorize_connection(&peer, 80).is_allowed()
    };
    let applied = adopter.apply(epoch(1, [inbound(&["shop/allow"])]));
    assert!(applied.ack.refusals.is_empty());
    assert!(!allowed(&adopter));
    adopter.apply(epoch(2, [authorization("shop", "allow")]));
    assert!(allowed(&adopter));
    let mut gone = epoch(3, []);
    gone.removals.push((&Key::new(Kind::Authorization, "shop/allow")).into());
    adopter.apply(gone);
    assert!(!allowed(&adopter));
}

#[test]
fn trust_is_told_once_and_never_taken_away() {
    let root = rcgen::generate_simple_self_signed(["root".to_owned()]).unwrap().cert.der().to_vec();
    let body = v1::Trust { trust_domain: "cluster.local".into(), roots: vec![root.into()] };
    let trust = resource(Kind::Trust, "cluster.local", body.encode_to_vec());
    let mut adopter = adopter();
    let applied = adopter.apply(epoch(1, [trust.clone()]));
    assert_eq!(applied.trust.as_ref().map(|trust| trust.roots.len()), Some(1));
    assert!(applied.snapshot.is_none(), "requests see no trust");
    assert!(adopter.apply(epoch(2, [trust])).trust.is_none());
    let mut gone = epoch(3, []);
    gone.removals.push((&Key::new(Kind::Trust, "cluster.local")).into());
    assert_eq!(adopter.apply(gone).ack.refusals.len(), 1);
    let empty = v1::Trust { trust_domain: "cluster.local".into(), roots: Vec::new() };
    let applied = adopter.apply(epoch(4, [resource(Kind::Trust, "cluster.local", empty.encode_to_vec())]));
    assert!(reasons(&applied)[0].contains("nobody could be trusted"));
    assert!(adopter.trust().is_some());
}

#[test]
fn choices_a_later_version_adds_are_refused_not_guessed() {
    let rule = |change: fn(&mut v1::Rule)| {
        let mut rule = v1::Rule {
            matches: vec![v1::Match {
                path: Some(v1::r#match::Path::Prefix("/".into())),
                ..Default::default()
            }],
            backends: vec![v1::WeightedBackend {
                backend: "shop/catalog:80".into(),
                weight: 1,
                ..Default::default()
            }],
            ..Default::default()
        };
        change(&mut rule);
        let origin =
            Some(v1::Origin { kind: "HTTPRoute".into(), namespace: "shop".into(), name: "canary".into() });
        v1::Outbound {
            route_kind: v1::RouteKind::Http.into(),
            routes: vec![v1::Route { origin, rules: vec![rule] }],
            ..outbound_body("catalog")
        }
    };
    let table: [(v1::Outbound, Option<&str>); 6] = [
        (rule(|_| ()), None),
        (rule(|rule| rule.matches[0].path = None), Some("HTTPRoute shop/canary, rule 0, matches[0], path")),
        (rule(|rule| rule.filters.push(v1::Filter { kind: None })), Some("filters[0], kind")),
        (rule(|rule| rule.matches[0].method = "get".into()), Some("upper case")),
        (rule(|rule| rule.backends[0].weight = 2_000_000), Some("more than 1000000")),
        (
            rule(|rule| rule.matches[0].headers.push(v1::KeyMatch { name: "a".into(), value: None })),
            Some("value"),
        ),
    ];
    for (body, expected) in table {
        let wire = resource(Kind::Outbound, "shop/catalog:80", body.encode_to_vec());
        let applied = adopter().apply(epoch(1, [backend("catalog", &["10.0.0.1:80"]), wire]));
        match expected {
            None => assert_eq!(reasons(&applied), Vec::<String>::new()),
            Some(expected) => assert!(reasons(&applied)[0].contains(expected), "{:?}", reasons(&applied)),
        }
    }
}

#[test]
fn equal_epochs_give_equal_resources() {
    let (mut one, mut two) = (adopter(), adopter());
    for adopter in [&mut one, &mut two] {
        adopter.apply(epoch(1, service("catalog", "10.0.0.1:80").into_iter().chain([mesh()])));
    }
    assert_eq!(one.resources(), two.resources());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_never_panic_and_never_break_what_is_held(
        kind in 0..9i32,
        name in "(mesh|shop/catalog:80|10.96.0.7:80|shop/cart-0|cluster.local|[a-z/:.]{0,12})",
        body in proptest::collection::vec(any::<u8>(), 0..200),
        truncate in 0..400usize,
    ) {
        let mut adopter = adopter();
        adopter.apply(epoch(1, service("catalog", "10.0.0.1:80").into_iter().chain([mesh(), inbound(&[])])));
        let key = Some(v1::Key { r#type: kind, name });
        let raw = v1::Resource { key: key.clone(), version: Bytes::from_static(b"x"), body: body.into() };
        let mut cut = backend_body("catalog", &["10.0.0.1:80", "[fd00::1]:80"]).encode_to_vec();
        cut.truncate(truncate);
        let cut = v1::Resource { key, version: Bytes::from_static(b"y"), body: cut.into() };
        for wire in [raw, cut] {
            adopter.apply(epoch(2, [wire]));
            let snapshot = adopter.snapshot();
            for outbound in snapshot.outbounds.values() {
                for name in &outbound.backends {
                    prop_assert!(snapshot.backends.contains_key(name), "{name} is named and not held");
                }
            }
            for target in snapshot.addresses.values() {
                if let Target::Outbound(name) = target {
                    prop_assert!(snapshot.outbounds.contains_key(name));
                }
            }
        }
    }
}
