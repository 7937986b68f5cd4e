//! What is found, and that nothing is where all is well.

use super::*;
use crate::compile::build;
use crate::fixtures::{SHOP, http_route, model};

fn found(more: &str) -> Vec<(Check, String, String)> {
    let model = model(&format!("{SHOP}\n---\n{more}"));
    let lints = lint(&model, &build(&model));
    lints.into_iter().map(|lint| (lint.check, lint.object.to_string(), lint.text)).collect()
}

fn of(check: Check, more: &str) -> Vec<(String, String)> {
    let all = found(more).into_iter().filter(|(is, _, _)| *is == check);
    all.map(|(_, object, text)| (object, text)).collect()
}

const LEDGER: &str = "
apiVersion: v1
kind: Service
metadata: {name: ledger, namespace: shop}
spec:
  clusterIP: 10.96.0.9
  selector: {app: cart}
  ports: [{port: 5432, targetPort: 5432, appProtocol: postgres}]
";

fn policy(action: &str, to: &str) -> String {
    format!(
        "{LEDGER}---
apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {{name: p, namespace: shop}}
spec:
  targetRefs: [{{kind: Service, name: ledger}}]
  action: {action}
  rules:
  - name: reads
    to: [{to}]
"
    )
}

#[test]
fn a_policy_on_requests_sees_none_in_bytes() {
    let allow = of(Check::PolicyOnBytes, &policy("Allow", "{methods: [GET]}"));
    assert_eq!(allow.len(), 1, "{allow:?}");
    assert_eq!(allow[0].0, "AuthorizationPolicy shop/p");
    assert!(allow[0].1.contains("rule reads") && allow[0].1.contains("shop/ledger:5432"), "{allow:?}");
    assert!(allow[0].1.contains("allows nothing"), "{allow:?}");
    let deny = of(Check::PolicyOnBytes, &policy("Deny", "{paths: [/x]}"));
    assert!(deny[0].1.contains("denies everything"), "{deny:?}");
    for seen in ["{ports: [5432]}", "{ports: [8080], methods: [GET]}"] {
        assert_eq!(of(Check::PolicyOnBytes, &policy("Allow", seen)), [], "{seen}");
    }
}

#[test]
fn a_target_that_means_no_pod_is_found() {
    let target = |target: &str| {
        format!(
            "apiVersion: weft.dev/v1alpha1\nkind: TlsPolicy\nmetadata: {{name: t, namespace: shop}}\n\
             spec: {{targetRefs: [{target}], mode: Strict}}\n"
        )
    };
    let nobody = of(Check::TargetMatchesNothing, &target("{kind: Workload, selector: {app: nobody}}"));
    assert!(nobody[0].1.contains("app=nobody"), "{nobody:?}");
    for something in ["{kind: Workload, selector: {app: cart}}", "{kind: Namespace}"] {
        assert_eq!(of(Check::TargetMatchesNothing, &target(something)), [], "{something}");
    }
    let empty = target("{kind: Namespace}").replace("namespace: shop", "namespace: empty");
    assert_eq!(of(Check::TargetMatchesNothing, &empty).len(), 1);
}

#[test]
fn a_service_that_nobody_stands_behind_is_found_with_why() {
    let service = |selector: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s, namespace: shop}}\n\
             spec: {{clusterIP: 10.96.0.10, selector: {selector}, ports: [{{port: 80, targetPort: nowhere, appProtocol: http}}]}}\n"
        )
    };
    let says = |selector: &str| of(Check::NoEndpoint, &service(selector))[0].1.clone();
    assert!(says("{app: nobody}").contains("no pod has the labels"));
    assert!(says("{app: cart}").contains("shop/cart-0 is not ready, or lacks the port"));
    assert!(says("{app: catalog}").contains("none of its 2 pods"));
    assert!(says("{}").contains("no selector"));
}

#[test]
fn a_port_that_declares_nothing_is_guessed_unless_routes_say_more() {
    let guessed = of(Check::ProtocolGuessed, "");
    let objects: Vec<&str> = guessed.iter().map(|(object, _)| object.as_str()).collect();
    assert_eq!(objects, ["Service shop/cart", "Service shop/catalog", "Service shop/catalog"]);
    let routed = of(Check::ProtocolGuessed, &http_route("r", "name: cart, port: 80", "[]"));
    assert_eq!(routed.iter().filter(|(object, _)| object == "Service shop/cart").count(), 0, "{routed:?}");
}

#[test]
fn what_is_refused_fails_and_has_its_place() {
    let model = model(&format!("{SHOP}\n---\n{}", http_route("r", "name: nobody", "[]")));
    let lints = lint(&model, &build(&model));
    let refused = lints.iter().find(|lint| lint.check == Check::NotInForce).unwrap();
    assert!(refused.check.fails() && refused.text.contains("NoMatchingParent"), "{refused:?}");
    assert_eq!(refused.place.as_ref().map(|at| at.line), Some(6));
    assert!(!Check::ProtocolGuessed.fails());
}

#[test]
fn a_slice_without_its_service_is_unused() {
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
                 metadata: {name: s, namespace: shop, labels: {kubernetes.io/service-name: gone}}\nendpoints: []\nports: []\n";
    assert!(of(Check::Unreferenced, slice)[0].1.contains("gone"));
}
