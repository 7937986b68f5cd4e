//! What annotations set, and what is said about those that cannot be used.

use super::*;

fn with(annotations: &[(&str, &str)]) -> Value {
    let mut pod = pod();
    for (name, value) in annotations {
        pod["metadata"]["annotations"][*name] = json!(value);
    }
    pod
}

fn args(pod: &Value) -> Vec<&str> {
    pod["spec"]["initContainers"][0]["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|arg| arg.as_str().unwrap())
        .collect()
}

#[test]
fn the_pods_annotation_beats_its_namespaces_and_skips_add_to_the_meshs() {
    let mut namespace = meshed();
    let inherited = [("weft.dev/skip-inbound-ports", "1"), ("weft.dev/skip-outbound-ports", "2")];
    namespace.annotations = inherited.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let config = InjectorConfig { skip_outbound_ports: "9".to_owned(), ..InjectorConfig::new("a") };
    let injector = Injector::new(config, ROOT).unwrap();
    let pod = injected(&injector, &with(&[("weft.dev/skip-inbound-ports", "3,4-5")]), &namespace);
    assert!(args(&pod).contains(&"--skip-inbound-ports=3,4-5"), "{:?}", args(&pod));
    assert!(args(&pod).contains(&"--skip-outbound-ports=9,2"), "{:?}", args(&pod));
}

#[test]
fn opaque_ports_of_a_namespace_are_written_on_the_pod_where_the_control_plane_reads_them() {
    let mut namespace = meshed();
    namespace.annotations = [(OPAQUE_PORTS.to_owned(), "6379".to_owned())].into();
    let pod = injected(&injector(), &pod(), &namespace);
    assert_eq!(pod["metadata"]["annotations"][OPAQUE_PORTS], "6379");
}

#[test]
fn an_invalid_value_is_refused_and_the_reason_names_whose_it_is() {
    let mut namespace = meshed();
    namespace.annotations = [("weft.dev/cpu-limit".to_owned(), "much".to_owned())].into();
    let Decision::Refuse(reason) = injector().decide(&pod(), &namespace) else { panic!("not refused") };
    assert!(reason.contains("namespace's annotation weft.dev/cpu-limit"), "{reason}");
}

#[test]
fn every_setting_refuses_nonsense_and_takes_its_own_example() {
    for setting in SETTINGS {
        let name = format!("{PREFIX}{}", setting.name);
        let decide = |value: &str| injector().decide(&with(&[(&name, value)]), &meshed());
        for nonsense in ["", " ", "?", "\u{e4},\u{1f600}", "-", ",", "1-"] {
            assert!(matches!(decide(nonsense), Decision::Refuse(_)), "{name} {nonsense:?}");
        }
        let example = setting.form.rsplit(": ").next().unwrap().split(", or ").next().unwrap();
        let example = if example.contains(", ") { example.split(", ").next().unwrap() } else { example };
        assert!(matches!(decide(example), Decision::Inject(_)), "{name} {example:?}: {:?}", decide(example));
        assert!(!setting.meaning.is_empty() && !setting.default.is_empty(), "{name}");
    }
}

#[test]
fn quantities_are_read_as_kubernetes_reads_them() {
    for (text, value) in [("10m", 0.01), ("0.5", 0.5), ("1", 1.0), ("20Mi", 20_971_520.0), ("1k", 1000.0)] {
        assert!((values::quantity(text).unwrap() - value).abs() < 1e-9, "{text}");
    }
    for text in ["", "Mi", "1mi", "-1", "1 Mi", ".", "1..2", "NaN", "inf"] {
        assert!(values::quantity(text).is_err(), "{text}");
    }
}

#[test]
fn spans_have_one_unit_and_no_overflow() {
    for (text, millis) in [("5s", 5_000), ("500ms", 500), ("2m", 120_000), ("1h", 3_600_000)] {
        assert_eq!(values::span(text), Ok(millis), "{text}");
    }
    for text in ["", "5", "s", "5 s", "1h30m", "99999999999999999999s", "18446744073709551615h", "\u{e4}s"] {
        assert!(values::span(text).is_err(), "{text}");
    }
}

/// What `k8s/annotations.md` says, from the table.
fn page() -> String {
    let mut text = "# Annotations\n\n\
        What a pod may say about its sidecar. On a namespace they are defaults for its pods; the pod's own word wins.\n\
        A name that is not known gets a warning with the one that may be meant; a value that cannot be used is refused\n\
        with the reason, and the pod starts without a sidecar (or not at all, if the installation says so).\n\n\
        The label `weft.dev/inject: enabled` or `disabled` on a namespace or pod says whether there is a sidecar at all.\n\n\
        Made from the table in `control-plane/core/src/inject/annotations.rs`; a test keeps the two equal.\n\n\
        | Annotation | Value | Default | Meaning |\n|---|---|---|---|\n"
        .to_owned();
    for setting in SETTINGS {
        let Setting { name, form, default, meaning, .. } = setting;
        text.push_str(&format!("| `{PREFIX}{name}` | {form} | {default} | {meaning} |\n"));
    }
    text
}

#[test]
fn the_page_about_annotations_says_what_the_table_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../k8s/annotations.md");
    if std::env::var("WEFT_GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::write(path, page()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), page(), "WEFT_GOLDEN=write writes it");
}

#[test]
fn the_defaults_of_the_table_are_those_of_the_settings() {
    let config = InjectorConfig::new("a");
    let resources = &config.resources;
    for (name, value) in [
        ("cpu-request", resources.cpu_request.clone()),
        ("memory-request", resources.memory_request.clone()),
        ("cpu-limit", resources.cpu_limit.clone().unwrap_or_else(|| "none".to_owned())),
        ("memory-limit", resources.memory_limit.clone().unwrap_or_else(|| "none".to_owned())),
        ("log-level", config.log_level.clone()),
        ("access-log", config.access_log.clone().unwrap_or_else(|| "mesh".to_owned())),
        ("native-sidecar", config.native_sidecar.to_string()),
    ] {
        let setting = SETTINGS.iter().find(|setting| setting.name == name).unwrap();
        assert_eq!(setting.default, value, "{name}");
    }
}
