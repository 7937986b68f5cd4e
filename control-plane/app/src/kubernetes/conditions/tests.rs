//! Statuses, field by field: what an object has, what is said of it, and what it must have then.

use serde_json::{Value, json};
use weft_control_plane_core::model::ParentRef;
use weft_control_plane_core::report::{Condition, ConditionType, ObjectReport, Reason, Subject, Verdict};
use weft_k8s::{TargetKind, TargetRef};

use super::reach::{Reach, Refusing};
use super::*;

const NOW: &str = "2026-11-21T12:00:00Z";
const BEFORE: &str = "2026-11-20T08:00:00Z";

fn service(name: &str) -> ParentRef {
    ParentRef {
        group: Some(String::new()),
        kind: Some("Service".to_owned()),
        name: name.to_owned(),
        ..ParentRef::default()
    }
}

fn at(parent: ParentRef, conditions: Vec<Condition>) -> Verdict {
    Verdict { subject: Subject::Parent(parent), conditions }
}

fn report(verdicts: Vec<Verdict>) -> ObjectReport {
    ObjectReport { generation: Some(3), verdicts, ..ObjectReport::default() }
}

fn good() -> Vec<Condition> {
    vec![Condition::accepted(), Condition::resolved()]
}

fn route(parents: Value, status: Value) -> Value {
    json!({ "metadata": { "namespace": "shop" }, "spec": { "parentRefs": parents }, "status": status })
}

fn condition(kind: &str, status: &str, since: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind, "status": status, "observedGeneration": 3, "lastTransitionTime": since,
        "reason": reason, "message": message,
    })
}

fn accepted(since: &str) -> Value {
    condition("Accepted", "True", since, "Accepted", "in force")
}

fn resolved(since: &str) -> Value {
    condition("ResolvedRefs", "True", since, "ResolvedRefs", "all references are good")
}

fn entry(parent: Value, conditions: Value) -> Value {
    json!({ "parentRef": parent, "controllerName": "weft.dev/control-plane", "conditions": conditions })
}

fn catalog() -> Value {
    json!({ "group": "", "kind": "Service", "name": "catalog" })
}

fn foreign() -> Value {
    json!({
        "parentRef": { "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge" },
        "controllerName": "example.com/gateway",
        "conditions": [{ "type": "Accepted", "status": "True", "extra": [1] }],
    })
}

fn status(object: &Value, report: &ObjectReport) -> Option<Value> {
    route_status(object, report, None, NOW)
}

#[test]
fn a_new_route_gets_an_entry_with_all_fields() {
    let object = route(json!([catalog()]), Value::Null);
    let expected = json!({ "parents": [entry(catalog(), json!([accepted(NOW), resolved(NOW)]))] });
    assert_eq!(status(&object, &report(vec![at(service("catalog"), good())])), Some(expected));
}

#[test]
fn a_status_that_is_right_is_not_written() {
    let held =
        json!({ "parents": [foreign(), entry(catalog(), json!([accepted(BEFORE), resolved(BEFORE)]))] });
    let object = route(json!([catalog()]), held);
    assert_eq!(status(&object, &report(vec![at(service("catalog"), good())])), None);
}

#[test]
fn a_route_without_parents_of_ours_is_never_touched() {
    for held in [Value::Null, json!({ "parents": [] }), json!({ "parents": [foreign()] })] {
        let gateway = json!({ "kind": "Gateway", "name": "edge" });
        assert_eq!(status(&route(json!([gateway]), held), &report(Vec::new())), None);
    }
}

#[test]
fn the_time_changes_with_the_status_only() {
    let held = json!({ "parents": [entry(catalog(), json!([
        { "type": "Accepted", "status": "True", "observedGeneration": 2, "lastTransitionTime": BEFORE,
          "reason": "Other", "message": "other" },
        { "type": "ResolvedRefs", "status": "True", "observedGeneration": 2, "lastTransitionTime": BEFORE,
          "reason": "ResolvedRefs", "message": "all references are good" },
    ]))] });
    let missing = Condition::unresolved(Reason::BackendNotFound, "Service shop/gone is not there");
    let said = report(vec![at(service("catalog"), vec![Condition::accepted(), missing])]);
    let unresolved =
        condition("ResolvedRefs", "False", NOW, "BackendNotFound", "Service shop/gone is not there");
    let expected = json!({ "parents": [entry(catalog(), json!([accepted(BEFORE), unresolved]))] });
    assert_eq!(status(&route(json!([catalog()]), held), &said), Some(expected));
}

#[test]
fn entries_of_others_and_conditions_we_do_not_know_survive_in_their_places() {
    let unknown = json!({ "type": "example.com/Checked", "status": "Unknown", "reason": "Who", "odd": true });
    let held = json!({
        "parents": [foreign(), entry(catalog(), json!([unknown, accepted(BEFORE)]))],
        "other": "stays",
    });
    let said =
        report(vec![at(service("catalog"), vec![Condition::refused(Reason::Conflicted, "older wins")])]);
    let refused = condition("Accepted", "False", NOW, "Conflicted", "older wins");
    let expected = json!({
        "parents": [foreign(), entry(catalog(), json!([unknown, refused]))],
        "other": "stays",
    });
    assert_eq!(status(&route(json!([catalog()]), held), &said), Some(expected));
}

#[test]
fn our_entry_for_a_parent_that_is_no_longer_one_goes_and_others_stay() {
    let gone = json!({ "group": "", "kind": "Service", "name": "gone" });
    let held = json!({ "parents": [
        entry(gone.clone(), json!([accepted(BEFORE)])),
        { "parentRef": gone, "controllerName": "example.com/mesh", "conditions": [] },
    ] });
    let kept = held["parents"][1].clone();
    let object = route(json!([catalog()]), held.clone());
    let expected = json!({ "parents": [kept, entry(catalog(), json!([accepted(NOW), resolved(NOW)]))] });
    assert_eq!(status(&object, &report(vec![at(service("catalog"), good())])), Some(expected));
    let expected = json!({ "parents": [held["parents"][1]] });
    assert_eq!(status(&route(json!([]), held), &report(Vec::new())), Some(expected));
}

#[test]
fn partially_invalid_comes_and_goes_and_is_never_false() {
    let partly = Condition {
        kind: ConditionType::PartiallyInvalid,
        status: true,
        reason: Reason::UnsupportedValue,
        message: "Dropped Rule 1".to_owned(),
    };
    let with = vec![Condition::accepted(), Condition::resolved(), partly];
    let object = route(json!([catalog()]), Value::Null);
    let written = status(&object, &report(vec![at(service("catalog"), with)])).unwrap();
    let invalid = condition("PartiallyInvalid", "True", NOW, "UnsupportedValue", "Dropped Rule 1");
    assert_eq!(written["parents"][0]["conditions"][2], invalid);
    let object = route(json!([catalog()]), written);
    let written = status(&object, &report(vec![at(service("catalog"), good())])).unwrap();
    assert_eq!(written["parents"][0]["conditions"], json!([accepted(NOW), resolved(NOW)]));
}

#[test]
fn a_newer_generation_than_ours_is_left_alone() {
    let mut newer = accepted(BEFORE);
    newer["observedGeneration"] = json!(4);
    let object = route(json!([catalog()]), json!({ "parents": [entry(catalog(), json!([newer]))] }));
    let said = report(vec![at(service("catalog"), vec![Condition::refused(Reason::Conflicted, "late")])]);
    assert_eq!(status(&object, &said), None);
}

#[test]
fn each_parent_has_its_own_entry_as_the_user_wrote_it() {
    let written = json!([
        { "group": "core", "kind": "Service", "name": "catalog", "namespace": "shop", "port": 80 },
        { "kind": "Gateway", "name": "edge" },
        { "group": "", "kind": "Service", "name": "catalog", "port": 8080, "sectionName": "http" },
    ]);
    let first = ParentRef { group: Some("core".to_owned()), port: Some(80), ..service("catalog") };
    let second = ParentRef { port: Some(8080), section_name: Some("http".to_owned()), ..service("catalog") };
    let refused = vec![Condition::refused(Reason::NoMatchingParent, "no port http")];
    let said = report(vec![at(first, good()), at(second, refused)]);
    let result = status(&route(written.clone(), Value::Null), &said).unwrap();
    let parents = result["parents"].as_array().unwrap();
    assert_eq!(parents.len(), 2);
    assert_eq!((&parents[0]["parentRef"], &parents[1]["parentRef"]), (&written[0], &written[2]));
    assert_eq!(parents[1]["conditions"][0]["reason"], "NoMatchingParent");
    // The other way of writing the same parent is still the same entry.
    let rewritten = json!([
        { "group": "", "kind": "Service", "name": "catalog", "port": 80 }, written[1], written[2],
    ]);
    assert_eq!(status(&route(rewritten, result), &said), None);
}

#[test]
fn a_kind_that_is_refused_whole_says_so_at_each_service_and_at_no_gateway() {
    let parents = json!([catalog(), { "kind": "Gateway", "name": "edge" }]);
    let refused = Condition::refused(Reason::UnsupportedValue, "TCPRoute is not supported yet");
    let said = report(vec![Verdict { subject: Subject::Object, conditions: vec![refused] }]);
    let result = status(&route(parents, Value::Null), &said).unwrap();
    let conditions =
        json!([condition("Accepted", "False", NOW, "UnsupportedValue", "TCPRoute is not supported yet")]);
    assert_eq!(result, json!({ "parents": [entry(catalog(), conditions)] }));
}

#[test]
fn a_refusal_of_sidecars_shows_on_the_route_until_none_refuses() {
    let reach = Reach {
        total: 40,
        applied: 37,
        refuse: 3,
        refusing: vec![Refusing { workload: "shop/cart-0".to_owned(), reason: "too many rules".to_owned() }],
    };
    let said = report(vec![at(service("catalog"), good())]);
    let object = route(json!([catalog()]), Value::Null);
    let written = route_status(&object, &said, Some(&reach), NOW).unwrap();
    let text = "applied on 37 of 40 sidecars; 3 refuse: shop/cart-0: too many rules";
    let applied = condition("weft.dev/Applied", "False", NOW, "RefusedBySidecars", text);
    assert_eq!(written["parents"][0]["conditions"][2], applied);
    assert_eq!(problems(&written), [format!("RefusedBySidecars: {text}")]);
    let object = route(json!([catalog()]), written);
    let well = Reach { total: 40, applied: 40, ..Reach::default() };
    let written = route_status(&object, &said, Some(&well), NOW).unwrap();
    assert_eq!(written["parents"][0]["conditions"], json!([accepted(NOW), resolved(NOW)]));
}

#[test]
fn a_condition_that_stands_there_twice_stands_there_once() {
    let held = json!({ "parents": [
        entry(catalog(), json!([accepted(BEFORE), accepted(BEFORE), resolved(BEFORE)])),
        entry(catalog(), json!([])),
    ] });
    let expected = json!({ "parents": [entry(catalog(), json!([accepted(BEFORE), resolved(BEFORE)]))] });
    let said = report(vec![at(service("catalog"), good())]);
    assert_eq!(status(&route(json!([catalog()]), held), &said), Some(expected));
}

#[test]
fn a_status_of_any_shape_is_survived() {
    let said = report(vec![at(service("catalog"), good())]);
    for held in [json!("text"), json!({ "parents": 3 }), json!({ "parents": [1, null, {}] }), json!([])] {
        let written = status(&route(json!([catalog()]), held.clone()), &said).unwrap();
        let ours = written["parents"].as_array().unwrap().last().unwrap();
        assert_eq!(*ours, entry(catalog(), json!([accepted(NOW), resolved(NOW)])), "{held}");
    }
}

fn target(name: &str) -> TargetRef {
    TargetRef { kind: TargetKind::Service, name: Some(name.to_owned()), selector: Default::default() }
}

fn for_target(name: &str, conditions: Vec<Condition>) -> Verdict {
    Verdict { subject: Subject::Target(target(name)), conditions }
}

#[test]
fn a_policy_has_a_condition_per_target_and_one_on_the_whole() {
    let refused = Condition::refused(Reason::TargetNotFound, "Service shop/b is not there");
    let said = report(vec![for_target("a", vec![Condition::accepted()]), for_target("b", vec![refused])]);
    let reach = Reach { total: 2, applied: 2, ..Reach::default() };
    let written = policy_status(&json!({}), &said, Some(&reach), NOW).unwrap();
    let missing = condition("Accepted", "False", NOW, "TargetNotFound", "Service shop/b is not there");
    let expected = json!({
        "observedGeneration": 3,
        "conditions": [missing],
        "targets": [
            { "targetRef": { "kind": "Service", "name": "a" }, "conditions": [accepted(NOW)] },
            { "targetRef": { "kind": "Service", "name": "b" }, "conditions": [missing] },
        ],
        "sidecars": { "total": 2, "applied": 2, "refusing": [] },
    });
    assert_eq!(written, expected);
    let object = json!({ "status": written });
    assert_eq!(policy_status(&object, &said, Some(&reach), "2027-01-01T00:00:00Z"), None);

    let good = report(vec![for_target("a", vec![Condition::accepted()])]);
    let written = policy_status(&object, &good, Some(&reach), BEFORE).unwrap();
    assert_eq!(written["conditions"], json!([accepted(BEFORE)]));
    assert_eq!(written["targets"].as_array().unwrap().len(), 1);
    assert_eq!(written["targets"][0]["conditions"], json!([accepted(NOW)]), "that target did not change");
}

#[test]
fn a_policy_shows_who_refuses_it() {
    let refusing = vec![Refusing { workload: "shop/cart-0".to_owned(), reason: "no".to_owned() }];
    let reach = Reach { total: 3, applied: 2, refuse: 1, refusing };
    let said = report(vec![for_target("a", vec![Condition::accepted()])]);
    let written = policy_status(&json!({ "status": {} }), &said, Some(&reach), NOW).unwrap();
    let expected = json!({
        "total": 3, "applied": 2, "refusing": [{ "workload": "shop/cart-0", "reason": "no" }],
    });
    assert_eq!(written["sidecars"], expected);
}

#[test]
fn a_policy_of_a_newer_generation_is_left_alone() {
    let said = report(vec![for_target("a", vec![Condition::accepted()])]);
    assert_eq!(policy_status(&json!({ "status": { "observedGeneration": 4 } }), &said, None, NOW), None);
}

#[test]
fn a_mesh_has_conditions_and_counts() {
    let refused = Condition::refused(Reason::Invalid, "only the name mesh is known");
    let said = report(vec![Verdict { subject: Subject::Object, conditions: vec![refused] }]);
    let written = mesh_status(&json!({}), &said, Some(&Reach::default()), NOW).unwrap();
    let expected = json!({
        "conditions": [condition("Accepted", "False", NOW, "Invalid", "only the name mesh is known")],
        "sidecars": { "total": 0, "applied": 0, "refusing": [] },
    });
    assert_eq!(written, expected);
    assert_eq!(problems(&written), ["Invalid: only the name mesh is known"]);
}
