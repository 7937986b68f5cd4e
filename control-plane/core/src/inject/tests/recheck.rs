//! Pods that run without their sidecars are found, whatever changes first.

use super::*;
use crate::{
    fixtures::{SHOP, add, model},
    inject::Unmeshed,
    model::{Kind, Model, ObjectKey},
};

const ASKING: &str =
    "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {weft.dev/inject: enabled}}\n";

fn found(unmeshed: &Unmeshed) -> Vec<String> {
    unmeshed.pods().map(|(pod, _)| pod.name.clone()).collect()
}

fn note(unmeshed: &mut Unmeshed, model: &Model, kind: Kind, namespace: &str, name: &str) -> bool {
    unmeshed.changed(model, &InjectorConfig::new("a"), &ObjectKey::new(kind, namespace, name))
}

#[test]
fn a_namespace_that_asks_shows_its_pods_without_sidecars_until_it_asks_no_more() {
    let (mut model, mut unmeshed) = (model(SHOP), Unmeshed::default());
    assert_eq!(Unmeshed::of(&model, &InjectorConfig::new("a")), unmeshed);
    add(&mut model, ASKING);
    assert!(note(&mut unmeshed, &model, Kind::Namespace, "", "shop"));
    // catalog-0 has the mark, cart-0 the container.
    assert_eq!(found(&unmeshed), ["catalog-1"]);
    assert_eq!(Unmeshed::of(&model, &InjectorConfig::new("a")), unmeshed);
    assert!(!note(&mut unmeshed, &model, Kind::Namespace, "", "shop"));
    add(&mut model, &ASKING.replace("enabled", "disabled"));
    assert!(note(&mut unmeshed, &model, Kind::Namespace, "", "shop"));
    assert_eq!(found(&unmeshed), Vec::<String>::new());
}

#[test]
fn a_pod_that_goes_or_gets_its_sidecar_is_no_longer_shown() {
    let (mut model, mut unmeshed) = (model(&format!("{SHOP}---\n{ASKING}")), Unmeshed::default());
    assert!(note(&mut unmeshed, &model, Kind::Pod, "shop", "catalog-1"));
    assert!(model.remove(Kind::Pod, "shop", "catalog-1"));
    assert!(note(&mut unmeshed, &model, Kind::Pod, "shop", "catalog-1"));
    assert_eq!(found(&unmeshed), Vec::<String>::new());
    assert!(!note(&mut unmeshed, &model, Kind::Service, "shop", "catalog"));
}

#[test]
fn the_reason_says_what_to_do() {
    let host = "apiVersion: v1\nkind: Pod\nmetadata: {name: host, namespace: shop}\nspec: {hostNetwork: true, containers: [{name: a}]}\n";
    let by_itself = "apiVersion: v1\nkind: Pod\nmetadata: {name: odd, namespace: web, annotations: {weft.dev/inject: sure}}\nspec: {containers: [{name: a}]}\n";
    let model = model(&format!("{SHOP}---\n{ASKING}---\n{host}---\n{by_itself}"));
    let unmeshed = Unmeshed::of(&model, &InjectorConfig::new("a"));
    let reasons: Vec<_> = unmeshed.pods().map(|(pod, reason)| format!("{}: {reason}", pod.name)).collect();
    assert!(reasons[0].starts_with("catalog-1: ") && reasons[0].contains("restart"), "{reasons:?}");
    assert!(reasons[1].starts_with("host: hostNetwork"), "{reasons:?}");
    assert!(reasons[2].starts_with("odd: ") && reasons[2].contains("enabled or disabled"), "{reasons:?}");
}
