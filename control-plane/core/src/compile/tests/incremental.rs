//! Facts that come and go one by one lead to what the whole model leads to.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    compile::{Compiled, Compiler, Delta, build},
    config::{Config, Key, Resource, ResourceType},
    fixtures::{SHOP, documents, model},
    model::{Kind, Model, Object, ObjectKey, read},
    report::ObjectReport,
};

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    Apply(Value),
    Remove(Kind, String, String),
    /// The other steps until here are compiled in one go.
    Compile,
}

const NAMESPACES: [&str; 3] = ["a", "b", "weft-system"];

fn namespace() -> impl Strategy<Value = &'static str> + Clone {
    prop::sample::select(&NAMESPACES[..])
}

fn name(of: &'static [&'static str]) -> impl Strategy<Value = &'static str> + Clone {
    prop::sample::select(of)
}

/// Names of services; few, so that objects meet.
const SERVICES: &[&str] = &["s1", "s2", "s3"];
const PODS: &[&str] = &["p1", "p2", "p3", "p4"];
const ADDRESSES: &[&str] = &["10.1.0.1", "10.1.0.2", "10.1.0.3", "fd00::1"];
const CLUSTER_ADDRESSES: &[&str] = &["10.96.0.1", "10.96.0.2", "fd96::1", "None"];
const LABELS: &[&str] = &["x", "y"];
const NODES: &[&str] = &["n1", "n2"];
const OTHERS: &[&str] = &["o1", "o2", "o3"];
const PORTS: [u16; 2] = [80, 81];

fn meta(namespace: &str, name: &str, created: u8) -> Value {
    let mut meta = json!({"namespace": namespace, "name": name});
    if created > 0 {
        meta["creationTimestamp"] = json!(format!("2026-01-0{created}T00:00:00Z"));
    }
    meta
}

fn service() -> impl Strategy<Value = Value> {
    let ports = prop::sample::subsequence(&PORTS[..], 0..=2);
    let protocol = prop::option::of(name(&["http", "grpc", "tcp", "nonsense", "https"]));
    let shape = (prop::option::weighted(0.8, name(LABELS)), name(CLUSTER_ADDRESSES), 0..8_u8);
    (namespace(), name(SERVICES), ports, protocol, shape, 0..3_u8).prop_map(
        |(namespace, name, ports, protocol, (label, address, odd), created)| {
            let port = |port: &u16| {
                let target = if *port == 80 { json!("web") } else { json!(9001) };
                let mut port = json!({"name": format!("n{port}"), "port": port, "targetPort": target});
                if let Some(protocol) = protocol {
                    port["appProtocol"] = json!(protocol);
                }
                port
            };
            let mut spec = json!({"clusterIP": address, "ports": ports.iter().map(port).collect::<Vec<_>>()});
            if let Some(label) = label {
                spec["selector"] = json!({ "app": label });
            }
            match odd {
                0 => spec["type"] = json!("ExternalName"),
                1 => spec["publishNotReadyAddresses"] = json!(true),
                _ => {}
            }
            json!({"apiVersion": "v1", "kind": "Service", "metadata": meta(namespace, name, created), "spec": spec})
        },
    )
}

fn pod() -> impl Strategy<Value = Value> {
    let addresses = prop::sample::subsequence(ADDRESSES, 0..=2);
    let phase = name(&["Running", "Running", "Succeeded"]);
    let state = (any::<bool>(), any::<bool>(), phase, any::<bool>(), name(NODES));
    let opaque = prop::option::weighted(0.2, name(&["8080", "9001", "1-65535"]));
    (namespace(), name(PODS), addresses, prop::option::of(name(LABELS)), (state, opaque)).prop_map(
        |(namespace, name, addresses, label, ((ready, sidecar, phase, host, node), opaque))| {
            let mut metadata = meta(namespace, name, 0);
            if let Some(label) = label {
                metadata["labels"] = json!({"app": label, "tier": "t"});
            }
            if sidecar {
                metadata["annotations"] = json!({"weft.dev/sidecar": "injected"});
            }
            if let Some(ports) = opaque {
                metadata["annotations"]["weft.dev/opaque-ports"] = json!(ports);
            }
            let ips: Vec<Value> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
            let ready = if ready { "True" } else { "False" };
            json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
                "spec": {"serviceAccountName": name, "nodeName": node, "hostNetwork": host, "containers":
                    [{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]},
                "status": {"phase": phase, "podIPs": ips, "conditions": [{"type": "Ready", "status": ready}]},
            })
        },
    )
}

fn slice() -> impl Strategy<Value = Value> {
    let endpoint = (name(ADDRESSES), prop::option::of(name(PODS)), any::<bool>());
    let endpoints = prop::collection::vec(endpoint, 0..3);
    let service = prop::option::weighted(0.9, name(SERVICES));
    (namespace(), name(OTHERS), service, endpoints, prop::sample::select(&[8080_u16, 9001][..])).prop_map(
        |(namespace, name, service, endpoints, port)| {
            let mut metadata = meta(namespace, name, 0);
            if let Some(service) = service {
                metadata["labels"] = json!({"kubernetes.io/service-name": service});
            }
            let endpoint = |(address, pod, ready): (&str, Option<&str>, bool)| {
                let mut endpoint =
                    json!({"addresses": [address], "conditions": {"ready": ready}, "zone": "z"});
                if let Some(pod) = pod {
                    endpoint["targetRef"] = json!({"kind": "Pod", "name": pod});
                }
                endpoint
            };
            let endpoints: Vec<Value> = endpoints.into_iter().map(endpoint).collect();
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
                "addressType": "IPv4", "endpoints": endpoints,
                "ports": [{"name": "n80", "port": port}, {"name": "n81", "port": 9001}],
            })
        },
    )
}

fn route() -> impl Strategy<Value = Value> {
    let reference = (name(SERVICES), prop::option::of(namespace()), prop::option::of(80..82_i32));
    let parents = prop::collection::vec(reference.clone(), 0..3);
    let backends = prop::collection::vec(reference, 0..3);
    (any::<bool>(), namespace(), name(OTHERS), parents, backends, (0..3_u8, 0..6_u8)).prop_map(
        |(http, namespace, name, parents, backends, (created, odd))| {
            let refer = |(name, namespace, port): (&str, Option<&str>, Option<i32>)| {
                let mut refer = json!({"group": "", "kind": "Service", "name": name});
                if let Some(namespace) = namespace {
                    refer["namespace"] = json!(namespace);
                }
                if let Some(port) = port {
                    refer["port"] = json!(port);
                }
                refer
            };
            let parents: Vec<Value> = parents.into_iter().map(refer).collect();
            let backends: Vec<Value> = backends.into_iter().map(refer).collect();
            let mut rule = json!({ "backendRefs": backends });
            match odd {
                0 => rule["name"] = json!("NOT A NAME"),
                1 => rule["retry"] = json!({"attempts": 2}),
                _ => {}
            }
            let kind = if http { "HTTPRoute" } else { "GRPCRoute" };
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": meta(namespace, name, created),
                "spec": {"parentRefs": parents, "rules": [rule]},
            })
        },
    )
}

fn policy() -> impl Strategy<Value = Value> {
    let kind = name(&["AuthorizationPolicy", "TelemetryPolicy", "TlsPolicy", "TrafficPolicy"]);
    let target = (name(&["Workload", "Service", "Namespace", "Mesh"]), name(SERVICES), name(LABELS));
    let targets = prop::collection::vec(target, 0..3);
    let fallback = prop::option::of((name(SERVICES), namespace(), 80..82_u16));
    (kind, namespace(), name(OTHERS), targets, fallback, (0..3_u8, any::<bool>())).prop_map(
        |(kind, namespace, name, targets, fallback, (created, good))| {
            let target = |(kind, service, label): (&str, &str, &str)| match kind {
                "Workload" => json!({"kind": kind, "selector": {"app": label}}),
                "Service" => json!({"kind": kind, "name": service}),
                _ => json!({ "kind": kind }),
            };
            let mut spec = json!({"targetRefs": targets.into_iter().map(target).collect::<Vec<_>>()});
            match kind {
                "AuthorizationPolicy" => {
                    let cidr = if good { "10.0.0.0/8" } else { "ten" };
                    spec["action"] = json!(if created == 0 { "Allow" } else { "Deny" });
                    spec["rules"] = json!([{"from": [{"cidrs": [cidr]}]}]);
                }
                "TelemetryPolicy" => {
                    let percent = if good { 50 } else { 101 };
                    spec["tracing"] = json!({"samplingPercent": percent, "perSecond": created});
                    if created == 1 {
                        spec["accessLog"] = json!({"mode": "All"});
                    }
                }
                "TlsPolicy" => {
                    let number = if good { 8080 } else { 0 };
                    spec["mode"] = json!("Strict");
                    spec["ports"] = json!([{"port": number, "mode": "Permissive"}]);
                }
                _ => {
                    spec["requestTimeout"] = json!(format!("{}s", created + 1));
                    spec["retryBudget"] = json!({"percent": if good { 10 } else { 101 }});
                    if let Some((name, namespace, port)) = fallback {
                        spec["fallback"] = json!({"name": name, "namespace": namespace, "port": port});
                    }
                }
            }
            let metadata = meta(namespace, name, created);
            json!({"apiVersion": "weft.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
        },
    )
}

fn wide() -> impl Strategy<Value = Value> {
    let mesh = (name(&["mesh", "other"]), name(&["cluster.local", "example.org"]), any::<bool>()).prop_map(
        |(name, domain, strict)| {
            let mode = if strict { "Strict" } else { "Permissive" };
            json!({"apiVersion": "weft.dev/v1alpha1", "kind": "Mesh", "metadata": {"name": name},
                "spec": {"trustDomain": domain, "mutualTls": mode, "accessLog": if strict { "All" } else { "Off" }}})
        },
    );
    let unsupported = (namespace(), name(OTHERS)).prop_map(|(namespace, name)| {
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "TLSRoute",
            "metadata": meta(namespace, name, 0), "spec": {}})
    });
    let node = (name(NODES), name(&["z1", "z2"])).prop_map(|(name, zone)| {
        let metadata = json!({"name": name, "labels": {"topology.kubernetes.io/zone": zone}});
        json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata,
            "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}})
    });
    prop_oneof![mesh, unsupported, node]
}

fn step() -> impl Strategy<Value = Step> {
    let apply =
        prop_oneof![4 => service(), 5 => pod(), 4 => slice(), 4 => route(), 4 => policy(), 2 => wide()];
    let kinds = [
        (Kind::Service, SERVICES),
        (Kind::Pod, PODS),
        (Kind::EndpointSlice, OTHERS),
        (Kind::HttpRoute, OTHERS),
        (Kind::GrpcRoute, OTHERS),
        (Kind::AuthorizationPolicy, OTHERS),
        (Kind::TlsPolicy, OTHERS),
        (Kind::TelemetryPolicy, OTHERS),
        (Kind::TrafficPolicy, OTHERS),
        (Kind::TlsRoute, OTHERS),
        (Kind::Mesh, &["mesh", "other"]),
        (Kind::Node, NODES),
    ];
    let remove = (prop::sample::select(kinds.to_vec()), namespace(), any::<prop::sample::Index>());
    let remove = remove.prop_map(|((kind, names), namespace, index)| {
        Step::Remove(kind, namespace.to_owned(), (*index.get(names)).to_owned())
    });
    prop_oneof![5 => apply.prop_map(Step::Apply), 2 => remove, 4 => Just(Step::Compile)]
}

fn object(document: &Value) -> Object {
    read(document.clone()).unwrap_or_else(|error| panic!("{error}\n{document}")).unwrap().object
}

/// What whoever sees only differences knows.
#[derive(Default)]
struct Follower {
    config: Config,
    reports: BTreeMap<ObjectKey, ObjectReport>,
}

impl Follower {
    fn follow(&mut self, delta: Delta) {
        for (key, resource) in delta.upserts {
            let before = self.config.resources.insert(key.clone(), Resource::clone(&resource));
            assert_ne!(before.as_ref(), Some(&*resource), "{key:?} is told and is what it was");
        }
        for key in delta.removals {
            assert!(self.config.resources.remove(&key).is_some(), "{key:?} was not there");
        }
        for (address, pods) in delta.pods {
            if pods.is_empty() {
                assert!(self.config.pods.remove(&address).is_some());
            } else {
                self.config.pods.insert(address, pods.to_vec());
            }
        }
        for (key, report) in delta.reports {
            match report {
                Some(report) => drop(self.reports.insert(key, report)),
                None => assert!(self.reports.remove(&key).is_some()),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_in_whatever_order_the_result_is_that_of_the_whole(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let (mut compiler, mut model, mut follower) = (Compiler::default(), Model::default(), Follower::default());
        for step in steps.into_iter().chain([Step::Compile]) {
            match step {
                Step::Apply(document) => {
                    compiler.apply(object(&document), None);
                    model.apply(object(&document), None);
                }
                Step::Remove(kind, namespace, name) => {
                    compiler.remove(kind, &namespace, &name);
                    model.remove(kind, &namespace, &name);
                }
                Step::Compile => {
                    follower.follow(compiler.compile());
                    prop_assert_eq!(compiler.model(), &model);
                    let mut counts = BTreeMap::new();
                    model.keys().for_each(|key| *counts.entry(key.kind).or_default() += 1);
                    prop_assert_eq!(model.counts(), counts);
                    let Compiled { config, report } = build(&model);
                    prop_assert_eq!(&follower.config, &config);
                    prop_assert_eq!(&follower.reports, &report.objects);
                    prop_assert_eq!((compiler.config(), compiler.report()), (config, &report));
                }
            }
        }
    }

    #[test]
    fn another_model_in_its_place_is_as_good_as_every_change(
        first in prop::collection::vec(step(), 1..30),
        second in prop::collection::vec(step(), 1..30),
    ) {
        let model = |steps: Vec<Step>| {
            let mut model = Model::ruled_from(if steps.len().is_multiple_of(2) { "a" } else { "weft-system" });
            for step in steps {
                match step {
                    Step::Apply(document) => drop(model.apply(object(&document), None)),
                    Step::Remove(kind, namespace, name) => drop(model.remove(kind, &namespace, &name)),
                    Step::Compile => {}
                }
            }
            model
        };
        let (first, second) = (model(first), model(second));
        let mut compiler = Compiler::new(first.clone());
        compiler.compile();
        compiler.replace(second.clone());
        compiler.compile();
        prop_assert_eq!(compiler.config(), build(&second).config);
        prop_assert_eq!(compiler.report(), &build(&second).report);
        compiler.replace(first.clone());
        compiler.compile();
        prop_assert_eq!(compiler.config(), build(&first).config);
    }
}

#[test]
fn one_endpoint_changes_one_backend_and_nothing_else() {
    let mut compiler = Compiler::new(model(SHOP));
    compiler.compile();
    let pod = documents(SHOP).into_iter().find(|document| document["metadata"]["name"] == "cart-0").unwrap();
    let mut leaving = pod.clone();
    leaving["status"] = json!({"podIP": "10.1.0.3", "conditions": [{"type": "Ready", "status": "False"}]});
    compiler.apply(object(&leaving), None);
    let delta = compiler.compile();
    let keys: Vec<&Key> = delta.upserts.keys().collect();
    assert_eq!(keys, [&Key::new(ResourceType::Backend, "shop/cart:80")]);
    assert!(delta.removals.is_empty() && delta.pods.is_empty() && delta.reports.is_empty(), "{delta:?}");
}

#[test]
fn an_object_that_is_what_it_was_makes_no_work() {
    let mut compiler = Compiler::new(Model::default());
    for document in documents(SHOP) {
        assert!(compiler.apply(object(&document), None));
    }
    assert!(!compiler.compile().is_silent());
    for document in documents(SHOP) {
        assert!(!compiler.apply(object(&document), None));
    }
    assert!(!compiler.remove(Kind::Pod, "shop", "nobody"));
    assert_eq!(compiler.compile(), Delta::default());
}
