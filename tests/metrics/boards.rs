//! The queries of the boards, of the adapter and of the rules, as Prometheus is asked them.
//!
//! Invariant: a variable that is not filled in fails the test, because Prometheus would not take it either.

use serde_json::Value;

use crate::{file, text};

/// What is asked for, and where it stands.
#[derive(Debug)]
pub(crate) struct Query {
    /// Board and panel, or rule.
    pub(crate) place: String,
    /// PromQL.
    pub(crate) expression: String,
}

/// The boards: name and content.
pub(crate) fn boards() -> Vec<(String, Value)> {
    let entries = std::fs::read_dir(file("observability/grafana")).unwrap();
    let mut boards: Vec<(String, Value)> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap())
        })
        .collect();
    boards.sort_by(|(a, _), (b, _)| a.cmp(b));
    boards
}

fn list<'v>(value: &'v Value, what: &str) -> &'v [Value] {
    value.as_array().unwrap_or_else(|| panic!("{what} is no list"))
}

/// What a board's variables are in the test's mesh.
fn filled(board: &str, expression: &str) -> String {
    let (namespace, service, workload) = match board {
        "resilience" => (".*", ".*", ""),
        _ => ("test", "web", "web-0"),
    };
    let filled = expression
        .replace("$__rate_interval", "1m")
        .replace("$namespace", namespace)
        .replace("$service", service)
        .replace("$workload", workload);
    assert!(!filled.contains('$'), "{board}: a variable in {expression} is not filled in");
    filled
}

/// Every query of a board: its panels' and its variables'.
pub(crate) fn queries(name: &str, board: &Value) -> Vec<Query> {
    let mut queries = Vec::new();
    for panel in list(&board["panels"], "panels").iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        for target in list(&panel["targets"], title) {
            let expression = filled(name, target["expr"].as_str().unwrap());
            queries.push(Query { place: format!("{name}: {title}"), expression });
        }
    }
    for variable in list(&board["templating"]["list"], "variables") {
        if variable["type"] == "query" {
            let query = variable["query"].as_str().unwrap();
            let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).unwrap();
            let (series, label) = inside.rsplit_once(", ").unwrap();
            let expression = filled(name, &format!("group by ({label}) ({series})"));
            queries.push(Query { place: format!("{name}: the variable {}", variable["name"]), expression });
        }
    }
    queries
}

/// The adapter's queries for the pod `web-0` and the workload `web-0`, as the adapter fills them in.
///
/// Source: prometheus-adapter, "Metrics Discovery and Presentation Configuration".
pub(crate) fn adapter() -> Vec<Query> {
    let values: Value =
        serde_saphyr::from_str(&text("observability/autoscaling/prometheus-adapter.yaml")).unwrap();
    let mut queries = Vec::new();
    for rule in list(&values["rules"]["custom"], "rules") {
        let series = rule["seriesQuery"].as_str().unwrap();
        let name = rule["name"]["as"].as_str().unwrap();
        let overrides = rule["resources"]["overrides"].as_object().unwrap();
        let (mut matchers, mut group) = (Vec::new(), "");
        for (label, resource) in overrides {
            if resource["resource"] == "namespace" {
                matchers.push(format!("{label}=\"test\""));
            } else {
                matchers.push(format!("{label}=~\"web-0\""));
                group = label;
            }
        }
        let expression = rule["metricsQuery"]
            .as_str()
            .unwrap()
            .replace("<<.Series>>", series.split('{').next().unwrap())
            .replace("<<.LabelMatchers>>", &matchers.join(","))
            .replace("<<.GroupBy>>", group);
        assert!(!expression.contains("<<"), "{expression}");
        queries.push(Query { place: format!("{name}: the series"), expression: series.to_owned() });
        queries.push(Query { place: name.to_owned(), expression });
    }
    queries
}

/// The names that recording rules give.
pub(crate) fn recorded() -> Vec<Query> {
    let rules: Value = serde_saphyr::from_str(&text("observability/prometheus/rules.yaml")).unwrap();
    let groups = list(&rules["groups"], "groups");
    let rules = groups.iter().flat_map(|group| list(&group["rules"], "rules"));
    rules
        .map(|rule| rule["record"].as_str().unwrap().to_owned())
        .map(|name| Query { place: format!("the rule {name}"), expression: name })
        .collect()
}

/// Metrics that queries name must be in a catalog: nobody asks for what does not exist.
#[test]
fn boards_rules_and_alerts_ask_only_for_what_is_counted_or_recorded() {
    use weft_control_plane::metrics::catalog as control_plane;
    use weft_exposition::Kind;
    use weft_proxy::metrics::catalog as sidecar;

    let mut known: Vec<String> = recorded().into_iter().map(|query| query.expression).collect();
    for family in sidecar::CATALOG.iter().chain(&control_plane::CATALOG) {
        let name = family.exposed();
        if family.kind == Kind::Histogram {
            known.extend(["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")));
        }
        known.push(name);
    }
    let mut texts: Vec<(String, String)> = ["rules.yaml", "alerts.yaml", "alerts_test.yaml"]
        .map(|name| (name.to_owned(), text(&format!("observability/prometheus/{name}"))))
        .into();
    texts.push(("adapter".to_owned(), text("observability/autoscaling/prometheus-adapter.yaml")));
    for (name, board) in boards() {
        texts.extend(queries(&name, &board).into_iter().map(|query| (query.place, query.expression)));
    }
    for (place, text) in texts {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
        // `as:` names of the adapter are its own; alerts begin with a capital.
        let asked = words.filter(|word| word.starts_with("weft_") || word.starts_with("weft:"));
        for word in asked.filter(|word| place != "adapter" || !word.ends_with("per_second")) {
            let word = word.trim_end_matches(':');
            let of_adapter = place == "adapter" && word == "weft_request_duration_p99_seconds";
            assert!(of_adapter || known.iter().any(|name| name == word), "{place} asks for {word}");
        }
    }
}

#[test]
fn a_board_is_one_that_grafana_takes() {
    let boards = boards();
    let names: Vec<&str> = boards.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["control-plane", "mesh", "resilience", "service", "workload"]);
    for (name, board) in &boards {
        assert_eq!(board["uid"], format!("weft-{name}"));
        assert!(board["schemaVersion"].as_u64().unwrap() >= 38 && board["title"].is_string());
        let variables = list(&board["templating"]["list"], "variables");
        assert_eq!(variables[0]["type"], "datasource", "{name}");
        let mut ids = Vec::new();
        for panel in list(&board["panels"], "panels") {
            ids.push(panel["id"].as_u64().unwrap());
            let place = &panel["gridPos"];
            assert!(place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24, "{name} {panel}");
            let known = ["row", "timeseries", "stat", "table", "heatmap"];
            assert!(known.contains(&panel["type"].as_str().unwrap()), "{name} {panel}");
            if panel["type"] != "row" {
                assert_eq!(panel["datasource"]["uid"], "${datasource}", "{name} {panel}");
                assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{name} {panel}");
            }
        }
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "{name}: an id twice");
    }
}

/// A field that Kubernetes does not know would be lost on the way through its types.
#[test]
fn the_autoscalers_are_what_kubernetes_takes() {
    use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
    let adapter: Vec<String> = adapter().into_iter().map(|query| query.place).collect();
    for name in ["hpa-requests.yaml", "hpa-latency.yaml"] {
        let text = text(&format!("observability/autoscaling/{name}"));
        let written: Value = serde_saphyr::from_str(&text).unwrap();
        let read: HorizontalPodAutoscaler = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), written, "{name}");
        for metric in read.spec.unwrap().metrics.unwrap() {
            let pods = metric.pods.map(|pods| pods.metric.name);
            let asked = pods.or(metric.object.map(|object| object.metric.name)).unwrap();
            assert!(adapter.contains(&asked), "{name}: the adapter does not serve {asked}");
        }
    }
}
