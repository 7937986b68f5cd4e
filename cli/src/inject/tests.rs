//! `weft inject` on manifests of every form, and `weft uninject` back.

use serde_json::{Value, json};
use weft_control_plane_core::inject::{Injector, InjectorConfig};

use super::walk::{Change, Told};
use super::*;

const ROOT: &str = "-----BEGIN CERTIFICATE-----\nTUlJ\n-----END CERTIFICATE-----\n";

fn change(text: &str, changing: &walk::Changing<'_>, form: Form) -> (String, Told) {
    let (mut output, mut told) = (Output::new(form), Told::default());
    for document in documents::split(text) {
        let value = document.value("a.yaml").unwrap();
        let mut changed = value.clone();
        walk::walk(&mut changed, changing, &mut told);
        if changed == value { output.as_it_was(document.text) } else { output.changed(&changed).unwrap() }
    }
    (output.text, told)
}

fn inject(text: &str, form: Form) -> (String, Told) {
    let injector = Injector::new(InjectorConfig::new("localhost/weft/weft-proxy:0.1.0"), ROOT).unwrap();
    let changing = |pod: &Value, namespace: &str| match injector.decide(pod, &walk::asking(namespace)) {
        Decision::Inject(injected) => Change::To(injected.pod, "injected".to_owned(), injected.warnings),
        Decision::Skip(skip) => Change::Skipped(skip.text().to_owned()),
        Decision::Refuse(reason) => Change::Refused(reason),
    };
    change(text, &changing, form)
}

fn values(text: &str) -> Vec<Value> {
    documents::split(text).iter().map(|document| document.value("out").unwrap()).collect()
}

const TEMPLATE: &str = "{spec: {containers: [{name: app, image: app}]}}";

#[test]
fn every_kind_that_makes_pods_gets_a_sidecar_where_its_pod_is() {
    for (version, kind, pointer) in [
        ("v1", "ReplicationController", "/spec/template"),
        ("apps/v1", "Deployment", "/spec/template"),
        ("apps/v1", "StatefulSet", "/spec/template"),
        ("apps/v1", "DaemonSet", "/spec/template"),
        ("apps/v1", "ReplicaSet", "/spec/template"),
        ("batch/v1", "Job", "/spec/template"),
    ] {
        let text = format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a, namespace: shop}}\nspec: {{template: {TEMPLATE}}}\n"
        );
        let (out, told) = inject(&text, Form::Yaml);
        let sidecar = values(&out)[0].pointer(&format!("{pointer}/spec/initContainers/1/name")).cloned();
        assert_eq!(sidecar, Some(json!("weft-proxy")), "{kind}");
        assert_eq!(told.to_string(), format!("{}/a in shop: injected\n", kind.to_ascii_lowercase()));
    }
    let cron = format!(
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: a}}\nspec: {{jobTemplate: {{spec: {{template: {TEMPLATE}}}}}}}\n"
    );
    let sidecar = "/spec/jobTemplate/spec/template/spec/initContainers/1/name";
    assert_eq!(values(&inject(&cron, Form::Yaml).0)[0].pointer(sidecar), Some(&json!("weft-proxy")));
}

#[test]
fn documents_that_do_not_change_come_out_letter_by_letter() {
    let text = "# A page of its own.\napiVersion: v1\nkind: Service   # kept\nmetadata: {name: a}\n---\n\
                apiVersion: example.com/v1\nkind: Deployment\nspec: {mode: 0644, on: \"yes\"}\n";
    let (out, told) = inject(text, Form::Yaml);
    assert_eq!(out, text);
    assert_eq!(told.to_string(), "no pods in these manifests\n");
}

#[test]
fn what_the_user_wrote_means_the_same_to_kubernetes_afterwards() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: \"1e3\", labels: {a: \"yes\", b: \"on\", c: \"0644\", d: \"null\"}}\n\
                spec:\n  enableServiceLinks: no\n  containers:\n  - name: app\n    image: app\n    args: [\"y\", '~', \"\\u00e4: #\", |-\n      two\n      lines\n      ]\n  \
                volumes: [{name: v, configMap: {name: c, defaultMode: 0644}}]\n"
        .replace("|-\n      two\n      lines\n      ]", "\"two\\nlines\"]");
    for form in [Form::Yaml, Form::Json] {
        let (out, _) = inject(&text, form);
        let value = &values(&out)[0];
        assert_eq!(value["metadata"]["name"], "1e3");
        assert_eq!(value["metadata"]["labels"], json!({"a": "yes", "b": "on", "c": "0644", "d": "null"}));
        assert_eq!(value["spec"]["enableServiceLinks"], false);
        assert_eq!(value["spec"]["containers"][0]["args"], json!(["y", "~", "\u{e4}: #", "two\nlines"]));
        assert_eq!(value["spec"]["volumes"][0]["configMap"]["defaultMode"], 420);
        // Whoever reads YAML 1.1 must not take a word for a truth.
        assert!(form == Form::Json || out.contains("b: \"on\""), "{out}");
    }
}

#[test]
fn lists_are_walked_and_what_is_refused_or_declined_is_told() {
    let text = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "app"}]}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b"},
         "spec": {"hostNetwork": true, "containers": [{"name": "app"}]}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "c", "labels": {"weft.dev/inject": "disabled"}},
         "spec": {"containers": [{"name": "app"}]}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "d", "namespace": "kube-system"},
         "spec": {"containers": [{"name": "app"}]}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "e"}, "spec": {}},
    ]});
    let (_, told) = inject(&text.to_string(), Form::Yaml);
    let text = told.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "pod/a in default: injected");
    assert!(lines[1].starts_with("pod/b in default: refused: hostNetwork"), "{}", lines[1]);
    assert_eq!(lines[2], "pod/c in default: skipped: weft.dev/inject: disabled");
    assert!(lines[3].starts_with("pod/d in kube-system: skipped"), "{}", lines[3]);
    assert!(lines[4].starts_with("deployment/e in default: skipped"), "{}", lines[4]);
    assert_eq!(told.refused, 1);
}

#[test]
fn uninjecting_gives_back_what_was_injected() {
    let text = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: a}}\nspec: {{template: {TEMPLATE}}}\n"
    );
    let remove = |pod: &Value, _: &str| match injector::remove(pod) {
        Some(pod) => Change::To(pod, "sidecar removed".to_owned(), Vec::new()),
        None => Change::Skipped("none".to_owned()),
    };
    let (injected, _) = inject(&text, Form::Yaml);
    let (back, told) = change(&injected, &remove, Form::Yaml);
    let mut back = values(&back);
    let metadata = back[0].pointer_mut("/spec/template").unwrap().as_object_mut().unwrap().remove("metadata");
    assert_eq!((back, metadata), (values(&text), Some(json!({}))));
    assert_eq!(told.refused, 0);
    assert_eq!(change(&text, &remove, Form::Yaml).0, text);
}

#[test]
fn a_fault_is_told_with_its_line() {
    let text = "kind: A\n---\nkind: B\nbad: [\n";
    let error = documents::split(text)[1].value("a.yaml").unwrap_err().to_string();
    assert!(error.starts_with("a.yaml:"), "{error}");
}
