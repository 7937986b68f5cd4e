//! What a sidecar decodes is what the compiler said.

use super::*;

fn backend(port: u16) -> Resource {
    Resource::Backend(config::Backend {
        service: "shop/catalog".to_owned(),
        port,
        protocol: config::Protocol::Http2,
        endpoints: vec![config::Endpoint {
            address: "10.0.0.1:8080".to_owned(),
            workload: "shop/catalog-0".to_owned(),
            identity: "spiffe://cluster.local/ns/shop/sa/catalog".to_owned(),
            zone: "a".to_owned(),
            weight: 3,
        }],
        policy: Some(config::TrafficPolicy {
            connect_timeout: Some(std::time::Duration::from_millis(1500)),
            fallback: "shop/old:80".to_owned(),
            ..config::TrafficPolicy::default()
        }),
    })
}

#[test]
fn a_backend_arrives_as_it_was_compiled() {
    let decoded = v1::Backend::decode(encode(&backend(80)).body.as_ref()).unwrap();
    assert_eq!((decoded.port, decoded.protocol()), (80, v1::Protocol::Http2));
    assert_eq!(decoded.endpoints[0].workload, "shop/catalog-0");
    let policy = decoded.policy.unwrap();
    assert_eq!(policy.connect_timeout.unwrap().nanos, 1_500_000_000);
    assert_eq!((policy.retry_budget, policy.fallback.as_str()), (None, "shop/old:80"));
}

#[test]
fn equal_resources_have_equal_versions_and_others_do_not() {
    let (one, same, other) = (encode(&backend(80)), encode(&backend(80)), encode(&backend(81)));
    assert_eq!(one, same);
    assert_ne!(one.version, other.version);
    assert_eq!(one.version, digest(&SHA256, &one.body).as_ref()[..16]);
}

#[test]
fn keys_survive_the_wire_and_unknown_kinds_do_not() {
    use config::ResourceType as Kind;
    for kind in [
        Kind::Mesh,
        Kind::Trust,
        Kind::Inbound,
        Kind::Address,
        Kind::Outbound,
        Kind::Backend,
        Kind::Authorization,
    ] {
        let here = config::Key::new(kind, "a/b");
        assert_eq!(key_from(key(&here)), Some(here));
    }
    for number in [0, 99, -1] {
        assert_eq!(key_from(v1::Key { r#type: number, name: "a/b".to_owned() }), None);
    }
}

#[test]
fn a_span_never_exceeds_what_the_contract_allows() {
    assert_eq!(span(std::time::Duration::MAX).nanos, i64::MAX as u64);
}
