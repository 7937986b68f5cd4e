//! Documents, their lines, and what is said about the broken ones.

use super::*;

const TWO: &str = "\
# services of the shop
apiVersion: v1
kind: Service
metadata: {name: catalog, namespace: shop}
spec:
  ports: [{port: 80}]
---
# an empty document
---

apiVersion: v1
kind: Service
metadata:
  name: cart
  namespace: shop
spec:
  ports:
  - port: 80
";

fn problems(file: &str, text: &str) -> Vec<String> {
    documents(file, text.as_bytes()).unwrap_err().iter().map(ToString::to_string).collect()
}

fn names(file: &str, text: &str) -> Vec<(u64, String)> {
    let found = documents(file, text.as_bytes()).unwrap();
    found.into_iter().map(|d| (d.line, d.object.unwrap().key().to_string())).collect()
}

#[test]
fn documents_know_their_first_line_and_name() {
    let found = names("a.yaml", TWO);
    assert_eq!(found, [(2, "Service shop/catalog".to_owned()), (11, "Service shop/cart".to_owned())]);
}

#[test]
fn a_list_is_its_items() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: a}}\n\
                - {apiVersion: v1, kind: Service, metadata: {name: b}}\n";
    let found = names("a.yml", text);
    assert_eq!(found, [(1, "Service default/a".to_owned()), (1, "Service default/b".to_owned())]);
}

#[test]
fn a_json_file_is_read_with_its_tabs() {
    let text =
        "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Service\",\n\t\"metadata\": {\"name\": \"a\"}\n}\n";
    assert_eq!(names("a.json", text), [(1, "Service default/a".to_owned())]);
    assert_eq!(documents("a.json", b"{\n\n]").unwrap_err()[0].line, 3);
}

#[test]
fn a_kind_that_is_not_the_meshs_is_read_as_that() {
    let text = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [a.yaml]\n";
    let found = documents("kustomization.yaml", text.as_bytes()).unwrap();
    assert!(found[0].object.is_none());
    assert_eq!(found[0].kind, "Kustomization");
}

#[test]
fn a_broken_document_is_reported_with_its_line_in_the_file() {
    let text = format!("{TWO}---\napiVersion: v1\nkind: [Service\n");
    let found = documents("shop.yaml", text.as_bytes()).unwrap_err();
    assert_eq!(found.len(), 1);
    assert!(found[0].line >= 20, "{}", found[0]);
    assert!(problems("a.yaml", "kind: Service\n")[0].contains("apiVersion"));
    assert!(problems("a.yaml", "apiVersion: v1\nkind: Service\n")[0].contains("metadata.name"));
    assert_eq!(documents("a.yaml", b"a: b\n\xff").unwrap_err()[0].line, 2);
}

#[test]
fn a_wrong_type_is_reported_with_the_line_of_the_value() {
    let text = "\n\napiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - port: eighty\n";
    let found = documents("a.yaml", text.as_bytes()).unwrap_err();
    assert_eq!(found[0].line, 8, "{}", found[0]);
}

#[test]
fn an_unknown_field_in_a_route_is_refused_with_its_line_and_path() {
    let text = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a}\nspec:\n  rules:\n\
                \x20 - matchez:\n    - path: {value: /}\n";
    let found = documents("a.yaml", text.as_bytes()).unwrap_err();
    assert_eq!(found[0].line, 6, "{}", found[0]);
    assert!(found[0].reason.contains("spec.rules[0].matchez"), "{}", found[0]);
}

#[test]
fn an_unknown_field_of_kubernetes_own_is_told_and_no_error() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {brandNew: 1}\n";
    let found = documents("a.yaml", text.as_bytes()).unwrap();
    assert_eq!(found[0].unknown_fields, ["spec.brandNew"]);
}

#[test]
fn a_repeated_key_is_an_error() {
    let text = "apiVersion: v1\nkind: Service\nkind: Pod\nmetadata: {name: a}\n";
    assert_eq!(documents("a.yaml", text.as_bytes()).unwrap_err()[0].line, 3);
}

#[test]
fn markers_split_only_at_the_start_of_a_line() {
    let text = "--- {apiVersion: v1, kind: Service, metadata: {name: a}}\n...\n---\r\napiVersion: v1\r\nkind: Service\r\n\
                metadata: {name: b, annotations: {note: '--- x'}}\r\n";
    let found = names("a.yaml", text);
    assert_eq!(found, [(1, "Service default/a".to_owned()), (4, "Service default/b".to_owned())]);
}

#[test]
fn hostile_text_ends_in_a_problem_not_in_a_panic() {
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n\
                f: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n";
    let deep = "[".repeat(100_000);
    for text in [bomb, &deep, "\u{0}", "- - - :", "!!binary x", "*unknown", "&a", "? ", "\t- a"] {
        let _ = documents("a.yaml", text.as_bytes());
    }
    assert!(documents("a.yaml", bomb.as_bytes()).is_err());
    assert!(documents("a.yaml", deep.as_bytes()).is_err());
}
