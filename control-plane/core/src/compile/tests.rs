//! The whole model → config and report.

use crate::{
    compile::{build, compile},
    config::{Address, Config, Key, ProbeKind, Protocol, Resource, ResourceType, RouteKind, WeightedBackend},
    fixtures::{SHOP, add, documents, http_route, model, reply, route, shop, text},
    model::{Kind, Model, read},
    report::ConditionType::{Accepted, PartiallyInvalid, ResolvedRefs},
};

mod incremental;
mod policies;
mod routes;
mod services;

#[test]
fn equal_models_compile_to_equal_configs_in_whatever_order_they_were_filled() {
    let more = [
        http_route("b", "name: catalog", "[{backendRefs: [{name: cart, port: 80}]}]"),
        http_route("a", "name: catalog", "[{backendRefs: [{name: catalog, port: 80}]}]"),
        route("HTTPRoute", "web", "c", "name: catalog, namespace: shop", "[{}]"),
    ]
    .concat();
    let mut documents = documents(&format!("{SHOP}{more}"));
    let compiled = |documents: &[serde_json::Value]| {
        let mut model = Model::default();
        for document in documents {
            model.apply(read(document.clone()).unwrap().unwrap().object, None);
        }
        build(&model)
    };
    let forwards = compiled(&documents);
    documents.reverse();
    let backwards = compiled(&documents);
    assert_eq!(forwards, backwards);
    assert_eq!(format!("{forwards:?}"), format!("{backwards:?}"));
}

#[test]
fn nothing_compiles_to_the_default_mesh() {
    let config = compile(&Model::default());
    let Some(Resource::Mesh(mesh)) = config.resources.get(&Key::mesh()) else { panic!("{config:?}") };
    assert_eq!((config.resources.len(), mesh.trust_domain.as_str()), (1, "cluster.local"));
    assert_eq!((mesh.drain_linger.as_secs(), mesh.drain_deadline.as_secs()), (5, 30));
}

#[test]
fn everything_that_is_referred_to_is_there() {
    let more = [
        http_route("a", "name: catalog", "[{backendRefs: [{name: cart, port: 80}, {name: gone, port: 1}]}]"),
        "
---
apiVersion: weft.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: t, namespace: shop}
spec: {targetRefs: [{kind: Service, name: cart}], fallback: {name: gone, port: 80}}
---
apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: t, namespace: shop}
spec: {targetRefs: [{kind: Namespace}], action: Deny}
"
        .to_owned(),
    ]
    .concat();
    let config = shop(&more).config;
    for key in config.resources.keys() {
        for reference in config.references(key) {
            assert!(config.resources.contains_key(&reference), "{key:?} refers to {reference:?}");
        }
    }
}

/// What the config says of an address, in short.
fn meaning(config: &Config, address: &str) -> String {
    match config.address(address.parse().unwrap()) {
        Address::Outbound(name) => format!("service {name}"),
        Address::Workload(endpoint) => format!("pod {} at {}", endpoint.workload, endpoint.address),
        Address::Unknown => "unknown".to_owned(),
    }
}
