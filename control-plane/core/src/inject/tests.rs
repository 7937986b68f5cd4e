use serde_json::json;

use super::*;

/// A root as far as the injector looks.
const ROOT: &str = "-----BEGIN CERTIFICATE-----\nTUlJ\n-----END CERTIFICATE-----\n";

fn injector() -> Injector {
    Injector::new(InjectorConfig::new("localhost/weft/weft-proxy:0.1.0"), ROOT).unwrap()
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

#[test]
fn injecting_twice_changes_nothing() {
    let Decision::Inject(injected) = injector().decide(&pod(), &meshed()) else { panic!("not injected") };
    assert_eq!(injector().decide(&injected.pod, &meshed()), Decision::Skip(Skip::Already));
}
