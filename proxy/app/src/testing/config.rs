//! Resources as the control plane sends them, for a shop of small services.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use prost::Message;
use weft_proto::v1;

use crate::adopt::{Key, Kind};

pub(crate) fn resource(kind: Kind, name: &str, body: impl Into<Bytes>) -> v1::Resource {
    let body = body.into();
    let version = Bytes::copy_from_slice(&digest(&SHA256, &body).as_ref()[..16]);
    v1::Resource { key: Some((&Key::new(kind, name)).into()), version, body }
}

pub(crate) fn epoch(nonce: u64, upserts: impl IntoIterator<Item = v1::Resource>) -> v1::Epoch {
    v1::Epoch { nonce, generation: nonce, upserts: upserts.into_iter().collect(), removals: Vec::new() }
}

pub(crate) fn mesh() -> v1::Resource {
    resource(Kind::Mesh, "mesh", v1::Mesh::default().encode_to_vec())
}

pub(crate) fn inbound(authorizations: &[&str]) -> v1::Resource {
    let body = v1::Inbound {
        workload: "shop/cart-0".into(),
        namespace: "shop".into(),
        service_account: "cart".into(),
        authorizations: authorizations.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    };
    resource(Kind::Inbound, "shop/cart-0", body.encode_to_vec())
}

/// A policy that allows everything.
pub(crate) fn authorization(namespace: &str, name: &str) -> v1::Resource {
    let body = v1::Authorization {
        origin: Some(v1::Origin {
            kind: "AuthorizationPolicy".into(),
            namespace: namespace.into(),
            name: name.into(),
        }),
        action: v1::Action::Allow.into(),
        shadow: false,
        rules: vec![v1::AuthorizationRule::default()],
    };
    resource(Kind::Authorization, &format!("{namespace}/{name}"), body.encode_to_vec())
}

pub(crate) fn backend_body(service: &str, endpoints: &[&str]) -> v1::Backend {
    let endpoint = |address: &&str| v1::Endpoint { address: (*address).to_owned(), ..Default::default() };
    v1::Backend {
        service: format!("shop/{service}"),
        port: 80,
        endpoints: endpoints.iter().map(endpoint).collect(),
        ..Default::default()
    }
}

pub(crate) fn backend(service: &str, endpoints: &[&str]) -> v1::Resource {
    resource(Kind::Backend, &format!("shop/{service}:80"), backend_body(service, endpoints).encode_to_vec())
}

pub(crate) fn outbound_body(service: &str) -> v1::Outbound {
    v1::Outbound {
        service: format!("shop/{service}"),
        port: 80,
        default_backend: format!("shop/{service}:80"),
        ..Default::default()
    }
}

pub(crate) fn outbound(service: &str) -> v1::Resource {
    resource(Kind::Outbound, &format!("shop/{service}:80"), outbound_body(service).encode_to_vec())
}

/// 10.96.0.7:80 means port 80 of the service.
pub(crate) fn address(service: &str) -> v1::Resource {
    let target = Some(v1::address::Target::Outbound(format!("shop/{service}:80")));
    resource(Kind::Address, "10.96.0.7:80", v1::Address { target }.encode_to_vec())
}

pub(crate) fn unknown(address: &str) -> v1::Resource {
    let target = Some(v1::address::Target::Unknown(v1::Unknown {}));
    resource(Kind::Address, address, v1::Address { target }.encode_to_vec())
}

/// A service with its address and one endpoint.
pub(crate) fn service(service: &str, endpoint: &str) -> Vec<v1::Resource> {
    vec![address(service), outbound(service), backend(service, &[endpoint])]
}
