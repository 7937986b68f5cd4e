//! The Helm chart, and the rendering of that very chart without Helm: one source of truth for what an
//! installation is made of.
//!
//! Where it stands: beside the walks. `weft install` and `weft upgrade` render here; a person with Helm
//! uses the folder `k8s/chart`. No cluster is asked.
//!
//! Invariant: with equal values the objects are those of `helm template`.
//! Invariant: what the renderer does not know is an error, never text that passes through.

mod parse;
mod render;
mod values;
pub mod yaml;

use std::collections::BTreeMap;

use serde_json::{Value, json};

pub use values::Values;

/// Why a chart cannot be rendered: a sentence for the person who gave the values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    fn at(self, place: &str) -> Self {
        Self(format!("{place}: {}", self.0))
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// A file of the chart: its name below `templates/`, and its text.
type File = (&'static str, &'static str);

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../chart/templates/", $name)))),*]
    };
}

/// Templates that others include. Helm renders no file whose name begins with `_`.
const PARTIALS: [File; 1] = files!["_labels.tpl"];

/// The kinds' definitions, made from the Rust types by `cargo run -p weft-k8s --example crds`.
const CRDS: [File; 5] = files![
    "crds/authorizationpolicies.yaml",
    "crds/meshes.yaml",
    "crds/telemetrypolicies.yaml",
    "crds/tlspolicies.yaml",
    "crds/trafficpolicies.yaml",
];

/// Everything else, in the order in which it is created.
const TEMPLATES: [File; 11] = files![
    "namespace.yaml",
    "service-account.yaml",
    "cluster-roles.yaml",
    "roles.yaml",
    "injector.yaml",
    "service.yaml",
    "deployment.yaml",
    "network-policy.yaml",
    "pod-monitors.yaml",
    "webhook.yaml",
    "api-service.yaml",
];

const CHART: &str = include_str!("../chart/Chart.yaml");
const VALUES: &str = include_str!("../chart/values.yaml");
const HA: &str = include_str!("../chart/values-ha.yaml");
const SCHEMA: &str = include_str!("../chart/values.schema.json");

/// Which part of the chart is rendered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Part {
    /// Everything.
    #[default]
    All,
    /// The definitions of the kinds.
    Crds,
    /// Everything but these definitions.
    WithoutCrds,
}

/// Renders the chart: the objects' YAML documents, in the order in which they are created.
///
/// # Errors
/// A value that the chart does not know or cannot use, named with a hint.
pub fn render(namespace: &str, values: &Values, part: Part) -> Result<String, Error> {
    let values = values.resolve()?;
    let root = root(namespace, values)?;
    let mut defined = BTreeMap::new();
    for (name, text) in PARTIALS {
        for node in parse::parse(text).map_err(|error| error.at(name))? {
            if let parse::Node::Define(name, body) = node {
                defined.insert(name, body);
            }
        }
    }
    let (crds, rest) = match part {
        Part::All => (&CRDS[..], &TEMPLATES[..]),
        Part::Crds => (&CRDS[..], &[][..]),
        Part::WithoutCrds => (&[][..], &TEMPLATES[..]),
    };
    let mut documents = Vec::new();
    for (name, text) in crds.iter().chain(rest) {
        let nodes = parse::parse(text).map_err(|error| error.at(name))?;
        let text = render::render(&nodes, &root, &defined).map_err(|error| error.at(name))?;
        documents.extend(text.split("\n---\n").filter(|text| has_object(text)).map(document));
    }
    Ok(documents.concat())
}

/// Renders what `weft install` prints: the chart with its namespace, and beside it the values that were
/// given, which `weft upgrade` starts from. Helm keeps those of a release itself.
///
/// # Errors
/// As for [`render`].
pub fn install(namespace: &str, values: &Values, part: Part) -> Result<String, Error> {
    let mut with_namespace = values.clone();
    let own = with_namespace.given.entry("namespace").or_insert_with(|| json!({}));
    if let Some(own) = own.as_object_mut() {
        own.entry("create").or_insert(Value::Bool(true));
    }
    let mut text = render(namespace, &with_namespace, part)?;
    if part != Part::Crds {
        let kept = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": VALUES_CONFIG_MAP,
                "namespace": namespace,
                "labels": {"app.kubernetes.io/part-of": "weft", "app.kubernetes.io/version": version()},
            },
            "data": {"ha": values.ha.to_string(), "values.yaml": yaml::write(&Value::Object(values.given.clone()))},
        });
        text.push_str(&document(&yaml::write(&kept)));
    }
    Ok(text)
}

/// Name of the ConfigMap with the values that an installation was given.
pub const VALUES_CONFIG_MAP: &str = "weft-values";

/// Version of this chart and of the images it names unless told otherwise.
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// What templates see.
fn root(namespace: &str, values: Value) -> Result<Value, Error> {
    let chart = values::read(CHART).map_err(|error| error.at("Chart.yaml"))?;
    Ok(json!({
        "Values": values,
        "Release": {"Namespace": namespace, "Name": "weft", "Service": "Helm"},
        "Chart": {"Name": chart["name"], "Version": chart["version"], "AppVersion": chart["appVersion"]},
    }))
}

/// Whether a document holds more than comments.
fn has_object(text: &str) -> bool {
    text.lines().map(str::trim).any(|line| !line.is_empty() && !line.starts_with('#') && line != "---")
}

fn document(text: &str) -> String {
    let text = text.trim_start_matches('\n');
    let text = text.strip_prefix("---\n").unwrap_or(text);
    format!("---\n{}\n", text.trim_end())
}

#[cfg(test)]
mod tests;
