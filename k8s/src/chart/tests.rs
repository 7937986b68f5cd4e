//! The chart and its renderer, without Helm.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;

fn text(template: &str, values: Value) -> Result<String, Error> {
    let root = json!({"Values": values, "Release": {"Namespace": "weft-system"}});
    let nodes = parse::parse(template)?;
    let mut defined = BTreeMap::new();
    let mut rest = Vec::new();
    for node in nodes {
        match node {
            parse::Node::Define(name, body) => {
                defined.insert(name, body);
            }
            other => rest.push(other),
        }
    }
    render::render(&rest, &root, &defined)
}

#[test]
fn templates_are_written_as_helm_writes_them() {
    let values = json!({"a": "x", "on": true, "off": false, "n": 3, "empty": "", "list": ["p", "q"], "map": {"k": "v", "e": {}}});
    for (template, expected) in [
        ("a: {{ .Values.a }}", "a: x"),
        ("{{- if .Values.on }}\nyes\n{{- end }}\n", "\nyes\n"),
        (
            "a\n{{- if .Values.off }}\nyes\n{{- else if eq .Values.a \"x\" }}\nx\n{{- else }}\nno\n{{- end }}",
            "a\nx",
        ),
        ("{{ if and .Values.on (not .Values.off) }}y{{ end }}", "y"),
        ("{{ if or .Values.empty .Values.off }}y{{ else }}n{{ end }}", "n"),
        ("{{ if ne .Values.a \"y\" }}y{{ end }}", "y"),
        ("{{ .Values.empty | default \"d\" | quote }}", "\"d\""),
        ("{{ .Values.a | quote }} {{ quote .Values.n }} {{ .Values.on }}", "\"x\" \"3\" true"),
        ("{{ with .Values.map }}{{ .k }}{{ $.Values.a }}{{ end }}", "vx"),
        ("{{ with .Values.empty }}{{ . }}{{ else }}none{{ end }}", "none"),
        ("{{ range .Values.list }}[{{ . }}]{{ end }}", "[p][q]"),
        ("m:\n  {{- toYaml .Values.map | nindent 2 }}\nz", "m:\n  e: {}\n  k: v\nz"),
        ("a {{- /* said */ -}} b", "ab"),
        ("{{ define \"l\" -}}\nk: {{ .Values.a }}\n{{- end }}{{ include \"l\" . | indent 1 }}", " k: x"),
    ] {
        assert_eq!(text(template, values.clone()), Ok(expected.to_owned()), "{template}");
    }
}

#[test]
fn what_is_outside_the_subset_is_an_error() {
    for template in [
        "{{ .Values.missing }}",
        "{{ .Values.a.b }}",
        "{{ .Values.map }}",
        "{{ $x := .Values.a }}",
        "{{ printf \"%s\" .Values.a }}",
        "{{ template \"l\" . }}",
        "{{ lookup \"v1\" \"Pod\" \"a\" \"b\" }}",
        "{{ include \"nowhere\" . }}",
        "{{ if .Values.a }}",
        "{{ if .Values.a }}x{{ else }}y{{ else }}z{{ end }}",
        "{{ end }}",
        "{{ eq .Values.a 1 }}",
        "{{ range .Values.map }}{{ . }}{{ end }}",
        "{{ .Values.a | .Values.a }}",
        "{{ (.Values.a }}",
        "{{ .Values.a ) }}",
        "{{ \"open }}",
        "{{ .Values.a ",
        "{{ nindent 999 .Values.a }}",
        "{{ }}",
        "{{ define \"l\" }}{{ include \"l\" . }}{{ end }}{{ include \"l\" . }}",
    ] {
        assert!(text(template, json!({"a": "x", "map": {"k": "v"}})).is_err(), "{template}");
    }
}

fn set(values: &[&str]) -> Result<Values, Error> {
    let mut given = Values::default();
    values.iter().try_for_each(|value| given.set(value))?;
    Ok(given)
}

fn refusal(values: &[&str]) -> String {
    match set(values).and_then(|values| render("weft-system", &values, Part::All)) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_value_that_is_not_known_is_refused_with_the_one_that_was_meant() {
    for (given, meant) in [
        ("proxy.imgae=x", "is proxy.image meant?"),
        ("proxyResources.cpuRequest=1m", "there is no value proxyResources"),
        ("replica=3", "is replicas meant?"),
        ("proxy.resource.cpuRequest=1m", "is proxy.resources meant?"),
        ("failurePolicy=Fail", "is webhook.failurePolicy meant?"),
    ] {
        let refusal = refusal(&[given]);
        assert!(refusal.contains(meant), "{given}: {refusal:?}");
    }
}

#[test]
fn a_value_of_another_kind_is_refused_by_name() {
    for (given, said) in [
        ("replicas=many", "replicas: \"many\" is no integer"),
        ("replicas=0", "replicas: 0 is below 1"),
        ("image.pullPolicy=Sometimes", "image.pullPolicy: \"Sometimes\" is none of"),
        ("webhook.timeoutSeconds=31", "webhook.timeoutSeconds: 31 is above 30"),
        ("extraArgs={1}", "extraArgs: 1 is no string"),
        ("trustDomain=", "trustDomain is empty"),
    ] {
        let refusal = refusal(&[given]);
        assert!(refusal.contains(said), "{given}: {refusal:?}");
    }
    assert_eq!(
        refusal(&["proxy.env.A=1", "image.tag=12", "proxy.resources.cpuLimit=1"]),
        "",
        "texts are wanted"
    );
    assert!(set(&["replicas"]).is_err());
    assert!(set(&["=1"]).is_err());
    assert!(set(&["a[0]=1"]).is_err());
}

#[test]
fn values_merge_in_their_order() {
    let mut values = Values { ha: true, ..Values::default() };
    values.file("replicas: 5\nresources: {requests: {cpu: 1}}\n").unwrap();
    values.set("replicas=7").unwrap();
    values.set("nodeSelector.kubernetes\\.io/os=null").unwrap();
    values.set("image.pullSecrets={a,b}").unwrap();
    values.set("log=info\\,kube=warn").unwrap();
    let all = values.resolve().unwrap();
    assert_eq!(all["replicas"], 7);
    assert_eq!(all["resources"]["requests"], json!({"cpu": 1, "memory": "128Mi"}));
    assert_eq!(all["webhook"]["failurePolicy"], "Fail");
    assert_eq!(all["image"]["pullSecrets"], json!(["a", "b"]));
    assert_eq!(all["nodeSelector"], json!({}));
    assert_eq!(all["log"], "info,kube=warn");
    assert!(values.file("- a list").is_err());
}

#[test]
fn every_value_is_described_and_the_schema_knows_exactly_these() {
    let mut described = BTreeSet::new();
    let (mut path, mut comment) = (Vec::<(usize, String)>::new(), false);
    for line in VALUES.lines() {
        let depth = line.len() - line.trim_start().len();
        let key =
            line.trim().split_once(':').map(|(key, _)| key).filter(|key| !key.contains([' ', '#', '-']));
        if let Some(key) = key {
            path.retain(|(at, _)| *at < depth);
            path.push((depth, key.to_owned()));
            let name = path.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>().join(".");
            if comment {
                described.insert(name);
            }
        }
        comment = line.trim_start().starts_with('#');
    }
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let values = values::read(VALUES).unwrap();
    let mut leaves = Vec::new();
    walk(&schema, &values, &mut Vec::new(), &mut leaves);
    for name in &leaves {
        assert!(described.contains(name), "values.yaml does not describe {name}");
    }
    let ha = values::read(HA).unwrap();
    let given = Values { ha: false, given: ha.as_object().unwrap().clone() };
    assert!(given.resolve().is_ok(), "values-ha.yaml knows the same values");
}

/// The values that are no groups; each group has the same names in the schema and in the values.
fn walk(schema: &Value, values: &Value, path: &mut Vec<String>, leaves: &mut Vec<String>) {
    let Some(properties) = schema["properties"].as_object().filter(|_| path.join(".") != "proxy.resources")
    else {
        leaves.push(path.join("."));
        return;
    };
    let known: BTreeSet<&String> = properties.keys().collect();
    let given: BTreeSet<&String> = values.as_object().unwrap().keys().collect();
    assert_eq!(known, given, "{}", path.join("."));
    assert_eq!(schema["additionalProperties"], false, "{}", path.join("."));
    for (name, schema) in properties {
        path.push(name.clone());
        walk(schema, &values[name], path, leaves);
        path.pop();
    }
}

#[test]
fn every_file_of_the_chart_is_rendered() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("chart/templates");
    let mut found = BTreeSet::new();
    for (folder, prefix) in [(folder.clone(), ""), (folder.join("crds"), "crds/")] {
        for entry in std::fs::read_dir(folder).unwrap().flatten().filter(|entry| entry.path().is_file()) {
            found.insert(format!("{prefix}{}", entry.file_name().to_string_lossy()));
        }
    }
    let ours = PARTIALS.iter().chain(&CRDS).chain(&TEMPLATES).map(|(name, _)| (*name).to_owned());
    assert_eq!(ours.collect::<BTreeSet<_>>(), found);
}

#[test]
fn the_chart_has_the_version_of_the_program() {
    let chart = values::read(CHART).unwrap();
    assert_eq!((&chart["version"], &chart["appVersion"]), (&json!(version()), &json!(version())));
}

fn objects(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap()
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name).unwrap()
}

#[test]
fn an_installation_is_the_same_text_each_time_and_keeps_its_values() {
    let mut values = Values { ha: true, ..Values::default() };
    values.set("proxy.logLevel=debug").unwrap();
    let once = install("weft-system", &values, Part::All).unwrap();
    assert_eq!(once, install("weft-system", &values, Part::All).unwrap());
    let objects = objects(&once);
    assert_eq!(objects.iter().filter(|object| object["kind"] == "Namespace").count(), 1);
    let kept = find(&objects, "ConfigMap", VALUES_CONFIG_MAP);
    let again = Values::kept(&kept["data"]).unwrap();
    assert_eq!(again, values);
}

#[test]
fn parts_of_an_installation_add_up_to_the_whole() {
    let values = Values::default();
    let part = |part| objects(&install("weft-system", &values, part).unwrap());
    let (all, crds, rest) = (part(Part::All), part(Part::Crds), part(Part::WithoutCrds));
    assert_eq!(all.len(), crds.len() + rest.len());
    assert!(crds.iter().all(|object| object["kind"] == "CustomResourceDefinition"));
    assert!(rest.iter().all(|object| object["kind"] != "CustomResourceDefinition"));
}

#[test]
fn the_control_plane_meets_pod_security_restricted() {
    let objects = objects(&install("weft-system", &Values::default(), Part::All).unwrap());
    let pod = &find(&objects, "Deployment", "weft-control-plane")["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    for container in pod["containers"].as_array().unwrap() {
        let security = &container["securityContext"];
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
    }
    let namespace = find(&objects, "Namespace", "weft-system");
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
    assert_eq!(namespace["metadata"]["labels"]["weft.dev/inject"], "disabled");
}

#[test]
fn no_role_names_everything_and_every_rule_says_why() {
    let roles = [TEMPLATES[2], TEMPLATES[3]];
    assert_eq!(roles.map(|(name, _)| name), ["cluster-roles.yaml", "roles.yaml"]);
    for (name, text) in roles {
        assert!(!text.contains('*') || text.contains("/* "), "{name} grants by wildcard");
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("  - apiGroups")) {
            let before = lines[..at].iter().rev().find(|line| !line.starts_with("    ")).unwrap();
            let said = before.starts_with("  #") || before.starts_with("  - apiGroups");
            assert!(said, "{name}:{}: {line} has no reason", at + 1);
        }
    }
}

#[test]
fn only_pods_that_ask_are_sent_to_the_webhook_and_never_those_of_its_own_namespace() {
    let objects = objects(&install("mesh", &Values::default(), Part::All).unwrap());
    let webhooks = find(&objects, "MutatingWebhookConfiguration", "weft-injector")["webhooks"].clone();
    let webhooks = webhooks.as_array().unwrap();
    assert_eq!(webhooks.len(), 2);
    for webhook in webhooks {
        let excluded = &webhook["namespaceSelector"]["matchExpressions"][1];
        assert_eq!(excluded["operator"], "NotIn");
        assert_eq!(excluded["values"], json!(["mesh", "kube-system"]));
        assert!(webhook["clientConfig"].get("caBundle").is_none(), "the control plane writes it");
    }
    assert_eq!(webhooks[0]["namespaceSelector"]["matchExpressions"][0]["values"], json!(["enabled"]));
    assert!(webhooks[1].get("matchConditions").is_some());
}
