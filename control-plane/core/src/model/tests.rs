//! Documents → facts.

use serde_json::json;

use super::*;
use crate::fixtures::{documents, model};

fn pod(metadata: &str, rest: &str) -> Pod {
    let model = model(&format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p, {metadata}}}\n{rest}"));
    model.pods.into_values().next().unwrap()
}

#[test]
fn a_pod_has_a_sidecar_by_annotation_or_by_container() {
    for (metadata, rest, expected) in [
        ("annotations: {weft.dev/sidecar: injected}", "", true),
        ("annotations: {weft.dev/sidecar: 'no'}", "", false),
        ("", "spec: {containers: [{name: weft-proxy}]}", true),
        ("", "spec: {containers: [{name: a}], initContainers: [{name: weft-proxy}]}", true),
        ("", "spec: {containers: [{name: a}]}", false),
    ] {
        assert_eq!(pod(metadata, rest).sidecar, expected, "{metadata} {rest}");
    }
}

#[test]
fn a_pods_address_is_the_statuss_and_else_the_annotations() {
    for (metadata, rest, expected) in [
        ("", "status: {podIP: 10.0.0.1}", vec!["10.0.0.1"]),
        (
            "",
            "status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}",
            vec!["10.0.0.1", "fd00::1"],
        ),
        ("annotations: {weft.dev/pod-ip: 127.0.0.9}", "", vec!["127.0.0.9"]),
        ("annotations: {weft.dev/pod-ip: 127.0.0.9}", "status: {podIP: 10.0.0.1}", vec!["10.0.0.1"]),
        ("annotations: {weft.dev/pod-ip: nonsense}", "", vec![]),
        ("annotations: {weft.dev/pod-ip: '::ffff:10.0.0.1'}", "", vec!["10.0.0.1"]),
        ("", "", vec![]),
    ] {
        let addresses: Vec<String> = pod(metadata, rest).addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, expected, "{metadata} {rest}");
    }
}

#[test]
fn a_pod_is_ready_unless_its_status_or_its_deletion_says_otherwise() {
    for (metadata, rest, ready, ended) in [
        ("", "", true, false),
        ("", "status: {conditions: [{type: Ready, status: 'True'}]}", true, false),
        ("", "status: {conditions: [{type: Ready, status: 'False'}]}", false, false),
        ("", "status: {conditions: [{type: Ready, status: Unknown}]}", false, false),
        ("", "status: {conditions: [{type: PodScheduled, status: 'False'}]}", true, false),
        ("deletionTimestamp: '2026-01-01T00:00:00Z'", "", false, false),
        ("", "status: {phase: Succeeded}", false, true),
        ("", "status: {phase: Failed}", false, true),
    ] {
        let pod = pod(metadata, rest);
        assert_eq!((pod.ready, pod.ended), (ready, ended), "{metadata} {rest}");
    }
}

#[test]
fn a_pod_belongs_to_the_deployment_behind_its_replica_set() {
    let owner = |kind: &str, name: &str| {
        format!(
            "labels: {{pod-template-hash: 6f7}}, ownerReferences: [{{apiVersion: apps/v1, kind: {kind}, name: {name}, uid: u, controller: true}}]"
        )
    };
    assert_eq!(pod(&owner("ReplicaSet", "cart-6f7"), "").owner, "cart");
    assert_eq!(pod(&owner("ReplicaSet", "cart"), "").owner, "cart");
    assert_eq!(pod(&owner("StatefulSet", "db-6f7"), "").owner, "db-6f7");
    assert_eq!(pod("", "").owner, "p");
}

#[test]
fn a_pod_without_service_account_has_the_default_one() {
    assert_eq!(pod("", "").service_account, "default");
    assert_eq!(pod("", "spec: {serviceAccountName: cart, containers: []}").service_account, "cart");
}

fn service(spec: &str) -> Service {
    let model = model(&format!("apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {spec}"));
    model.services.into_values().next().unwrap()
}

#[test]
fn services_are_of_three_kinds() {
    for (spec, kind, addresses) in [
        ("{clusterIP: 10.0.0.1}", ServiceKind::ClusterIp, 1),
        ("{clusterIP: 127.0.1.1, type: NodePort}", ServiceKind::ClusterIp, 1),
        ("{clusterIPs: [10.0.0.1, 'fd00::1'], clusterIP: 10.0.0.1}", ServiceKind::ClusterIp, 2),
        ("{clusterIP: None}", ServiceKind::Headless, 0),
        ("{type: ExternalName, externalName: example.com}", ServiceKind::ExternalName, 0),
        ("{}", ServiceKind::ClusterIp, 0),
    ] {
        let service = service(spec);
        assert_eq!((service.kind, service.cluster_ips.len()), (kind, addresses), "{spec}");
    }
}

#[test]
fn a_service_port_targets_a_number_a_name_or_itself() {
    for (port, target) in [
        ("{port: 80}", TargetPort::Number(80)),
        ("{port: 80, targetPort: 8080}", TargetPort::Number(8080)),
        ("{port: 80, targetPort: http}", TargetPort::Name("http".to_owned())),
        ("{port: 80, targetPort: '8080'}", TargetPort::Number(8080)),
    ] {
        assert_eq!(service(&format!("{{ports: [{port}]}}")).ports[0].target, target, "{port}");
    }
    assert_eq!(service("{ports: [{port: 53, protocol: UDP}]}").tcp_ports().count(), 0);
    assert_eq!(service("{ports: [{port: 70000}, {port: 0}]}").ports, Vec::new());
}

#[test]
fn what_is_removed_is_gone_and_what_is_applied_again_is_replaced() {
    let mut model = model("kind: Service\napiVersion: v1\nmetadata: {name: s}\nspec: {clusterIP: 10.0.0.1}");
    crate::fixtures::add(
        &mut model,
        "kind: Service\napiVersion: v1\nmetadata: {name: s}\nspec: {clusterIP: 10.0.0.2}",
    );
    assert_eq!(model.keys().map(ToString::to_string).collect::<Vec<_>>(), ["Service default/s"]);
    assert_eq!(model.service("default", "s").unwrap().cluster_ips[0].to_string(), "10.0.0.2");
    model.remove(Kind::Service, "default", "other");
    model.remove(Kind::Service, "default", "s");
    assert_eq!(model, Model::default());
}

#[test]
fn older_objects_go_first_and_undated_ones_last() {
    let meta = |name: &str, created| Meta {
        key: ObjectKey::new(Kind::HttpRoute, "a", name),
        created,
        generation: None,
        uid: None,
        position: None,
    };
    let mut metas = [meta("b", None), meta("a", None), meta("z", Some(1)), meta("y", Some(2))];
    metas.sort_by(|a, b| a.seniority().cmp(&b.seniority()));
    assert_eq!(metas.map(|meta| meta.key.name), ["z", "y", "a", "b"]);
}

#[test]
fn the_age_of_an_object_is_its_creation_timestamp() {
    assert_eq!(pod("creationTimestamp: '1970-01-01T00:01:00Z', generation: 3", "").meta.created, Some(60));
    assert_eq!(pod("generation: 3", "").meta.generation, Some(3));
}

#[test]
fn unknown_fields_are_listed_by_path() {
    let route = documents(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, creationTimestamp: null}
specc: {}
spec:
  parentRefs: [{kind: Service, group: '', name: s}]
  rules:
  - matches: [{path: {type: Exact, value: /a, valeu: /b}}]
  - filter: [{type: RequestRedirect}]
    backendRefs: []
status: {nonsense: 1}
",
    );
    let read = read(route[0].clone()).unwrap().unwrap();
    assert_eq!(read.unknown_fields, ["spec.rules[0].matches[0].path.valeu", "spec.rules[1].filter"]);
    let lost = unknown_fields(&json!({"a": 1, "b": {"c": [1, {"d": 2}]}}), &json!({"b": {"c": [1, {}]}}));
    assert_eq!(lost, ["a", "b.c[1].d"]);
}

#[test]
fn documents_that_cannot_be_read_say_why() {
    for (yaml, expected) in [
        ("kind: Service", "apiVersion is missing"),
        ("apiVersion: v1", "kind is missing"),
        ("[1]", "apiVersion is missing"),
        ("apiVersion: v1\nkind: Service", "metadata.name is missing"),
        ("apiVersion: v1\nkind: List\nitems: []", "items of a List"),
        (
            "apiVersion: weft.dev/v1alpha1\nkind: AuthorisationPolicy\nmetadata: {name: p}",
            "\"AuthorisationPolicy\" is not a kind of",
        ),
        (
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HttpRoute\nmetadata: {name: p}",
            "is HTTPRoute meant?",
        ),
        ("apiVersion: v2\nkind: Service\nmetadata: {name: s}", "write \"v1\""),
        (
            "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: GRPCRoute\nmetadata: {name: s}",
            "networking.k8s.io/v1\"",
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: eighty}]}",
            "Service default/s",
        ),
        (
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec: {rules: [{matches: [{path: {type: Fuzzy}}]}]}",
            "Fuzzy",
        ),
        (
            "apiVersion: weft.dev/v1alpha1\nkind: TlsPolicy\nmetadata: {name: r}\nspec: {targetRefs: [], mode: Strict, prots: []}",
            "prots",
        ),
    ] {
        let error = read(documents(yaml)[0].clone()).expect_err(yaml).to_string();
        assert!(error.contains(expected), "{yaml}: {error}");
    }
}

#[test]
fn other_peoples_kinds_are_passed_over() {
    for yaml in [
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: d}",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: d}",
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: d}",
    ] {
        assert_eq!(read(documents(yaml)[0].clone()), Ok(None), "{yaml}");
    }
}

#[test]
fn a_namespace_is_default_unless_written_and_a_mesh_has_none() {
    let key = |yaml: &str| read(documents(yaml)[0].clone()).unwrap().unwrap().object.key().to_string();
    assert_eq!(key("apiVersion: v1\nkind: Service\nmetadata: {name: s}"), "Service default/s");
    assert_eq!(
        key("apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: other}"),
        "Service other/s"
    );
    assert_eq!(
        key("apiVersion: weft.dev/v1alpha1\nkind: Mesh\nmetadata: {name: mesh, namespace: other}\nspec: {}"),
        "Mesh mesh"
    );
}
