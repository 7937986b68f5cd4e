//! The injector: a pod as its user wrote it → the same pod with a sidecar, or the reason it has none.
//!
//! Where it stands: beside the configuration's walk. The admission webhook, `weft inject -f` and the
//! re-check of running pods all ask here, so they cannot disagree.
//!
//! ```text
//! namespace, pod ─wish→ wanted? ─obstacle→ possible? ─annotations→ settings ─build→ pod with a sidecar
//! ```
//!
//! Invariant: what the user wrote survives as it is, fields that are not known here included; only what
//! stands in `build` is added.
//! Invariant: a pod that has its sidecar is never changed again.
//! Invariant: no pod is left out in silence: each has its [`Skip`] or a reason that a person can act on.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

mod annotations;
mod build;
mod config;
mod evictable;
mod obstacle;
mod recheck;
mod remove;
mod values;
mod wish;

pub use annotations::{OPAQUE_PORTS, PREFIX, SETTINGS, Setting, unknown_annotations};
pub use config::{ConfigError, InjectorConfig, Resources};
pub use recheck::Unmeshed;
pub use remove::remove;
pub use values::{PortRange, ports};
pub use wish::{INJECT, Marks, Skip, Wish, wish};

use annotations::Overrides;

/// Name of the container that programs the redirection.
pub const INIT_CONTAINER: &str = "weft-init";
/// Name of the volume that holds the token which proves the pod.
pub const IDENTITY_VOLUME: &str = "weft-identity";
/// Name of the volume that holds what the sidecar starts from when its container restarts.
pub const STATE_VOLUME: &str = "weft-state";
/// The annotation that tells which version injected the sidecar.
pub const VERSION_ANNOTATION: &str = "weft.dev/sidecar-version";
/// The value of `weft.dev/sidecar` on a pod with a sidecar.
pub const INJECTED: &str = "injected";

/// What is known of the namespace a pod is created in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// Its name.
    pub name: String,
    /// Its labels: `weft.dev/inject` is read.
    pub labels: BTreeMap<String, String>,
    /// Its annotations: defaults for those of its pods.
    pub annotations: BTreeMap<String, String>,
}

/// What is to become of a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// It gets a sidecar.
    Inject(Box<Injected>),
    /// It is not meant to have one, or has it.
    Skip(Skip),
    /// It is meant to have one and cannot: what stands in the way, and what to do.
    Refuse(String),
}

/// A pod with its sidecar.
#[derive(Debug, Clone, PartialEq)]
pub struct Injected {
    /// The pod, or template, whole.
    pub pod: Value,
    /// What its user should know.
    pub warnings: Vec<String>,
}

/// What injects: the settings and the roots a new sidecar trusts.
#[derive(Debug, Clone, PartialEq)]
pub struct Injector {
    config: InjectorConfig,
    roots: String,
}

impl Injector {
    /// From checked settings and the mesh's roots (PEM, one or several).
    ///
    /// # Errors
    /// A setting that makes no sense, or roots that hold no certificate.
    pub fn new(config: InjectorConfig, roots: &str) -> Result<Self, ConfigError> {
        config.check()?;
        if !roots.contains("-----BEGIN CERTIFICATE-----") {
            return Err(ConfigError::Roots);
        }
        Ok(Self { config, roots: roots.to_owned() })
    }

    /// The settings.
    pub fn config(&self) -> &InjectorConfig {
        &self.config
    }

    /// Decides about one pod, or the template of one: an object with `metadata` and `spec`.
    pub fn decide(&self, pod: &Value, namespace: &NamespaceFacts) -> Decision {
        let template: PodTemplateSpec = match serde_json::from_value(template_of(pod)) {
            Ok(template) => template,
            Err(error) => return Decision::Refuse(format!("this is no pod: {error}")),
        };
        match wish(&marks(&template), namespace, &self.config) {
            Wish::Leave(skip) => return Decision::Skip(skip),
            Wish::Unclear(reason) => return Decision::Refuse(reason),
            Wish::Inject => {}
        }
        self.add(pod, &template, namespace).unwrap_or_else(Decision::Refuse)
    }

    fn add(
        &self,
        pod: &Value,
        template: &PodTemplateSpec,
        namespace: &NamespaceFacts,
    ) -> Result<Decision, String> {
        let empty = BTreeMap::new();
        let given = template.metadata.as_ref().and_then(|meta| meta.annotations.as_ref()).unwrap_or(&empty);
        let spec = template.spec.as_ref().ok_or("this is no pod: spec is missing")?;
        if obstacle::is_injected(given, spec) {
            return Ok(Decision::Skip(Skip::Already));
        }
        obstacle::find(spec, &self.config)?;
        let overrides = Overrides::read(given, namespace)?;
        let settings = overrides.over(&self.config)?;
        let mut warnings = unknown_annotations(given);
        let labels = template.metadata.as_ref().and_then(|meta| meta.labels.as_ref());
        warnings.extend(labels.map(annotations::misplaced_labels).unwrap_or_default());
        warnings.extend(obstacle::warnings(template, &settings));
        let built = build::Build { settings: &settings, roots: &self.roots, spec };
        Ok(Decision::Inject(Box::new(Injected { pod: built.onto(pod)?, warnings })))
    }
}

/// The marks of a pod that say whether it wants a sidecar.
fn marks(template: &PodTemplateSpec) -> wish::Marks<'_> {
    let meta = template.metadata.as_ref();
    wish::Marks {
        labels: meta.and_then(|meta| meta.labels.as_ref()),
        annotations: meta.and_then(|meta| meta.annotations.as_ref()),
    }
}

/// Metadata and spec alone: a pod's status must not keep it from being read.
fn template_of(pod: &Value) -> Value {
    let part = |name: &str| pod.get(name).cloned().unwrap_or(Value::Null);
    serde_json::json!({"metadata": part("metadata"), "spec": part("spec")})
}

#[cfg(test)]
mod tests;
