//! What watches told becomes facts: lists, outages, wrong objects.

use super::*;
use crate::kubernetes::watch::sight::see;
use serde_json::{Value, json};
use weft_control_plane_core::report::ConditionType;
use weft_proto::names::Workload;

const DOMAIN: &str = "cluster.local";

fn facts() -> (Facts, Roll) {
    let roll = Roll::default();
    (Facts::new("weft-system", DOMAIN, roll.clone()), roll)
}

fn seen(kind: Kind, api_version: &str, object: Value) -> Event {
    Event::Seen(see(kind, api_version, object).expect("it has a name"))
}

fn pod(name: &str) -> Event {
    let object = json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}")},
        "spec": {"serviceAccountName": "cart", "nodeName": "n1", "containers": [{"name": "app"}]},
        "status": {"podIP": "10.1.0.1"},
    });
    seen(Kind::Pod, "v1", object)
}

fn policy(spec: Value) -> Event {
    let metadata = json!({"name": "p", "namespace": "shop", "generation": 3});
    seen(Kind::AuthorizationPolicy, "weft.dev/v1alpha1", json!({"metadata": metadata, "spec": spec}))
}

fn list(facts: &mut Facts, kind: Kind, objects: Vec<Event>) -> bool {
    let mut changed = facts.take(Event::Begun(kind));
    for object in objects {
        changed |= facts.take(object);
    }
    changed | facts.take(Event::Complete(kind))
}

fn names(facts: &Facts, kind: Kind) -> Vec<String> {
    facts.held(kind).into_iter().map(|key| key.name).collect()
}

fn workload(name: &str) -> Workload {
    format!("shop/{name}").parse().unwrap()
}

fn sync(facts: &mut Facts) {
    for watched in WATCHED {
        list(facts, watched.kind, Vec::new());
    }
}

#[test]
fn what_vanished_during_an_outage_is_removed_by_the_next_list() {
    let (mut facts, roll) = facts();
    assert!(list(&mut facts, Kind::Pod, vec![pod("a"), pod("b")]));
    assert!(list(&mut facts, Kind::Pod, vec![pod("b")]));
    assert_eq!(names(&facts, Kind::Pod), ["b"]);
    assert_eq!(roll.pod(&workload("a")), None);
    assert_eq!(roll.pod(&workload("b")).map(|pod| pod.service_account), Some("cart".to_owned()));
    assert!(!list(&mut facts, Kind::Pod, vec![pod("b")]), "the same list changes nothing");
}

#[test]
fn a_list_that_broke_off_and_began_again_counts_from_its_second_beginning() {
    let (mut facts, _) = facts();
    facts.take(Event::Begun(Kind::Pod));
    facts.take(pod("gone-meanwhile"));
    list(&mut facts, Kind::Pod, vec![pod("a")]);
    assert_eq!(names(&facts, Kind::Pod), ["a"]);
}

#[test]
fn an_object_that_goes_while_a_list_is_under_way_is_not_kept_by_it() {
    let (mut facts, _) = facts();
    facts.take(Event::Begun(Kind::Pod));
    facts.take(pod("a"));
    facts.take(Event::Gone(ObjectKey::new(Kind::Pod, "shop", "a")));
    facts.take(Event::Complete(Kind::Pod));
    assert!(names(&facts, Kind::Pod).is_empty());
}

#[test]
fn the_facts_are_complete_only_once_every_kind_was_listed_or_may_be_missing() {
    let (mut facts, _) = facts();
    for watched in WATCHED {
        assert!(!facts.synced());
        match watched.need {
            Need::Optional => drop(facts.take(Event::Absent(watched.kind))),
            _ => drop(list(&mut facts, watched.kind, Vec::new())),
        }
    }
    assert!(facts.synced());
    assert!(facts.trouble().is_empty());
}

#[test]
fn a_kind_of_our_own_that_is_not_installed_is_waited_for_and_named() {
    let (mut facts, _) = facts();
    for watched in WATCHED {
        facts.take(Event::Absent(watched.kind));
    }
    assert!(!facts.synced());
    assert!(facts.trouble()[&Kind::Mesh].contains("CRDs"));
    assert!(!facts.trouble().contains_key(&Kind::HttpRoute));
}

#[test]
fn an_event_that_changes_no_fact_asks_for_no_build() {
    let (mut facts, _) = facts();
    assert!(facts.take(pod("a")));
    assert!(!facts.take(pod("a")));
    let unknown = ObjectKey::new(Kind::Pod, "shop", "never-seen");
    assert!(!facts.take(Event::Gone(unknown)));
}

#[test]
fn a_wrong_object_is_reported_and_leaves_force_until_it_is_right() {
    let (mut facts, _) = facts();
    let route = |rules: Value| {
        let parents = json!([{"group": "", "kind": "Service", "name": "cart"}]);
        let object = json!({
            "metadata": {"name": "r", "namespace": "shop", "generation": 7},
            "spec": {"parentRefs": parents, "rules": rules},
        });
        seen(Kind::HttpRoute, "gateway.networking.k8s.io/v1", object)
    };
    sync(&mut facts);
    let good = || route(json!([{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}]));
    facts.take(good());
    let held = |facts: &Facts| facts.compiler.model().keys().any(|key| key.kind == Kind::HttpRoute);
    assert!(held(&facts));
    assert!(facts.take(route(json!([{"matches": [{"path": {"type": "Guess", "value": "/"}}]}]))));
    assert!(!held(&facts));
    let (_, report) = facts.compile();
    let key = ObjectKey::new(Kind::HttpRoute, "shop", "r");
    let object = report.unwrap().objects.remove(&key).unwrap();
    assert_eq!(object.generation, Some(7));
    let accepted = object.condition(ConditionType::Accepted).unwrap();
    assert_eq!((accepted.status, accepted.reason), (false, Reason::UnsupportedValue));
    assert!(matches!(object.verdicts[0].subject, Subject::Parent(ref parent) if parent.name == "cart"));
    assert!(facts.take(good()));
    assert_eq!((held(&facts), facts.refused()), (true, 0));
}

#[test]
fn an_authorization_policy_that_cannot_be_read_allows_nobody_at_its_targets() {
    let (mut facts, _) = facts();
    sync(&mut facts);
    facts.take(pod("a"));
    facts.take(policy(json!({"targetRefs": [{"kind": "Namespace"}], "action": "Maybe"})));
    let (delta, report) = facts.compile();
    use weft_control_plane_core::config::{Action, Key, Resource, ResourceType};
    match delta.upserts[&Key::new(ResourceType::Authorization, "shop/p")].as_ref() {
        Resource::Authorization(policy) => {
            assert_eq!((policy.action, policy.rules.len(), policy.shadow), (Action::Allow, 0, false));
        }
        other => panic!("{other:?}"),
    }
    match delta.upserts[&Key::new(ResourceType::Inbound, "shop/a")].as_ref() {
        Resource::Inbound(inbound) => assert_eq!(inbound.authorizations, ["shop/p"]),
        other => panic!("{other:?}"),
    }
    let object = &report.unwrap().objects[&ObjectKey::new(Kind::AuthorizationPolicy, "shop", "p")];
    assert!(!object.is_accepted());
    assert_eq!(object.generation, Some(3));
}

#[test]
fn a_policy_that_only_records_never_closes_a_door() {
    let (mut facts, _) = facts();
    facts.take(policy(json!({"targetRefs": [{"kind": "Namespace"}], "action": "Maybe", "mode": "Shadow"})));
    assert_eq!(facts.refused(), 1);
    assert!(!facts.compiler.model().keys().any(|key| key.kind == Kind::AuthorizationPolicy));
}

#[test]
fn a_mesh_of_another_trust_domain_is_told_so_and_the_rest_of_it_is_in_force() {
    let (mut facts, _) = facts();
    sync(&mut facts);
    let mesh =
        json!({"metadata": {"name": "mesh", "generation": 2}, "spec": {"trustDomain": "corp.example"}});
    facts.take(seen(Kind::Mesh, "weft.dev/v1alpha1", mesh));
    let (_, report) = facts.compile();
    let key = ObjectKey::new(Kind::Mesh, "", "mesh");
    let text = &report.unwrap().objects[&key].verdicts[0].conditions[0].message.clone();
    assert!(text.contains("corp.example") && text.contains("--trust-domain"), "{text}");
    facts.take(Event::Gone(key));
    assert_eq!(facts.refused(), 0);
}

#[test]
fn a_mesh_that_nobody_wrote_has_the_authoritys_trust_domain() {
    let mut facts = Facts::new("weft-system", "corp.example", Roll::default());
    sync(&mut facts);
    let says = |facts: &Facts| {
        use weft_control_plane_core::config::{Key, Resource};
        match facts.compiler.resource(&Key::mesh()).unwrap().as_ref() {
            Resource::Mesh(mesh) => mesh.trust_domain.clone(),
            other => panic!("{other:?}"),
        }
    };
    facts.compile();
    assert_eq!(says(&facts), "corp.example");
    let mesh = || json!({"metadata": {"name": "mesh"}, "spec": {}});
    facts.take(seen(Kind::Mesh, "weft.dev/v1alpha1", mesh()));
    facts.take(Event::Gone(ObjectKey::new(Kind::Mesh, "", "mesh")));
    facts.compile();
    assert_eq!(says(&facts), "corp.example");
}
