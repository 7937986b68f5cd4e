//! The injector's decisions and settings; what it makes of pods is in `golden`.

use serde_json::json;

use super::*;

mod annotations;
mod golden;
mod recheck;

/// A root as far as the injector looks.
const ROOT: &str = "-----BEGIN CERTIFICATE-----\nTUlJ\n-----END CERTIFICATE-----\n";

fn injector() -> Injector {
    let config = InjectorConfig {
        version: "0.1.0".to_owned(),
        ..InjectorConfig::new("localhost/weft/weft-proxy:0.1.0")
    };
    Injector::new(config, ROOT).unwrap()
}

fn meshed() -> NamespaceFacts {
    NamespaceFacts {
        name: "shop".to_owned(),
        labels: [(INJECT.to_owned(), "enabled".to_owned())].into(),
        annotations: BTreeMap::new(),
    }
}

fn pod() -> Value {
    json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "app", "image": "app"}]}})
}

fn injected(injector: &Injector, pod: &Value, namespace: &NamespaceFacts) -> Value {
    match injector.decide(pod, namespace) {
        Decision::Inject(injected) => injected.pod,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_pods_word_beats_its_namespaces_and_system_namespaces_beat_both() {
    let decide = |namespace: &str, of_namespace: Option<&str>, of_pod: Option<&str>| {
        let label = |value: &str| (INJECT.to_owned(), value.to_owned());
        let facts = NamespaceFacts {
            name: namespace.to_owned(),
            labels: of_namespace.map(label).into_iter().collect(),
            annotations: BTreeMap::new(),
        };
        let mut pod = pod();
        if let Some(value) = of_pod {
            pod["metadata"]["labels"] = json!({ INJECT: value });
        }
        match injector().decide(&pod, &facts) {
            Decision::Inject(_) => "inject".to_owned(),
            Decision::Skip(skip) => format!("{skip:?}"),
            Decision::Refuse(reason) => reason,
        }
    };
    for (namespace, of_namespace, of_pod, expected) in [
        ("shop", None, None, "NotAsked"),
        ("shop", Some("enabled"), None, "inject"),
        ("shop", Some("disabled"), None, "Disabled"),
        ("shop", Some("enabled"), Some("disabled"), "Disabled"),
        ("shop", Some("disabled"), Some("enabled"), "inject"),
        ("shop", None, Some("enabled"), "inject"),
        ("kube-system", Some("enabled"), Some("enabled"), "Namespace"),
        ("kube-node-lease", Some("enabled"), Some("enabled"), "Namespace"),
        ("kube-public", Some("enabled"), Some("enabled"), "Namespace"),
        ("weft-system", Some("enabled"), Some("enabled"), "Namespace"),
    ] {
        assert_eq!(
            decide(namespace, of_namespace, of_pod),
            expected,
            "{namespace} {of_namespace:?} {of_pod:?}"
        );
    }
    let unclear = decide("shop", Some("on"), None);
    assert!(unclear.contains("namespace's label") && unclear.contains("enabled or disabled"), "{unclear}");
}

#[test]
fn settings_without_an_image_with_a_slip_or_a_nonsense_value_are_refused() {
    let read = |value: Value| serde_json::from_value::<InjectorConfig>(value);
    assert!(read(json!({})).is_err());
    assert!(read(json!({"image": "a", "logLevl": "info"})).is_err());
    let good: InjectorConfig = read(json!({"image": "a"})).unwrap();
    assert_eq!(good, InjectorConfig::new("a"));
    for (field, value) in [
        ("image", json!("")),
        ("imagePullPolicy", json!("Sometimes")),
        ("logLevel", json!("loud")),
        ("skipInboundPorts", json!("0")),
        ("skipOutboundCidrs", json!("10")),
        ("drainLinger", json!("5 seconds")),
        ("resources", json!({"cpuRequest": "2", "cpuLimit": "1"})),
        ("tokenExpirationSeconds", json!(60)),
        ("startupSeconds", json!(0)),
        ("proxyUid", json!(0)),
        ("accessLog", json!("some")),
    ] {
        let mut settings = json!({"image": "a"});
        settings[field] = value;
        let error = Injector::new(read(settings).unwrap(), ROOT).unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}");
    }
    assert_eq!(Injector::new(InjectorConfig::new("a"), "").unwrap_err(), ConfigError::Roots);
}

#[test]
fn settings_survive_being_written_and_read() {
    let text = serde_json::to_string(&InjectorConfig::new("a")).unwrap();
    assert_eq!(serde_json::from_str::<InjectorConfig>(&text).unwrap(), InjectorConfig::new("a"));
}

#[test]
fn the_environment_of_the_settings_beats_what_the_injector_sets() {
    let mut config = InjectorConfig::new("a");
    config.env =
        [("WEFT_ZONE", "z"), ("WEFT_LOG", "trace")].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
    let pod = injected(&Injector::new(config, ROOT).unwrap(), &pod(), &meshed());
    let env = pod["spec"]["initContainers"][1]["env"].as_array().unwrap();
    let values = |name: &str| -> Vec<_> {
        env.iter().filter(|entry| entry["name"] == name).map(|entry| entry["value"].clone()).collect()
    };
    assert_eq!((values("WEFT_LOG"), values("WEFT_ZONE")), (vec![json!("trace")], vec![json!("z")]));
}
