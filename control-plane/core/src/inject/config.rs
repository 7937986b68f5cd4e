//! The injector's settings: `injector.yaml`, rendered by the chart, read by the control plane and by
//! `weft inject`.
//!
//! Invariant: everything has a default but the image; an unknown field is refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::values;

/// Port the sidecar takes redirected inbound connections on. Source: the contract of `weft-proxy init`,
/// Istio's number.
pub(super) const INBOUND_PORT: u16 = 15006;
/// Port the sidecar takes redirected outbound connections on. Source: as for inbound.
pub(super) const OUTBOUND_PORT: u16 = 15001;
/// Port of the sidecar's metrics and readiness. Source: as for inbound.
pub(super) const ADMIN_PORT: u16 = 15020;

/// Why settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// A field's value.
    #[error("{field}: {reason}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// No root certificate.
    #[error("the roots hold no certificate (PEM): a sidecar that trusts nobody could not start")]
    Roots,
}

/// Settings of the injector for the whole mesh.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InjectorConfig {
    /// Image of the sidecar and of the init container, e.g. localhost/weft/weft-proxy:0.1.0.
    pub image: String,
    /// When the image is pulled: Always, IfNotPresent, Never. Absent: Kubernetes decides by the tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,
    /// Version that is noted on injected pods.
    #[serde(default = "version")]
    pub version: String,
    /// Where sidecars find the control plane, HOST:PORT.
    #[serde(default = "control_plane")]
    pub control_plane: String,
    /// Namespace of the control plane; its pods are never injected.
    #[serde(default = "control_plane_namespace")]
    pub control_plane_namespace: String,
    /// Trust domain of the mesh.
    #[serde(default = "trust_domain")]
    pub trust_domain: String,
    /// Namespaces that are never injected, besides those of Kubernetes and of the control plane.
    #[serde(default)]
    pub skip_namespaces: Vec<String>,
    /// Make the sidecar an init container with restartPolicy Always (Kubernetes 1.29 and later). `false`
    /// for older kubelets: an ordinary container that holds back the others until it is ready. Then init
    /// containers run before the redirection, without the mesh, and a Job does not end by itself: its
    /// last command must POST to http://localhost:15020/drain.
    #[serde(default = "yes")]
    pub native_sidecar: bool,
    /// What the sidecar asks of its node and may use at most.
    #[serde(default)]
    pub resources: Resources,
    /// Filter of the sidecar's diagnostic log.
    #[serde(default = "log_level")]
    pub log_level: String,
    /// Which requests sidecars log: off, errors, all, or mesh (what the Mesh resource says).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<String>,
    /// Collector that receives traces over OTLP/gRPC, e.g. http://jaeger.observe.svc:4317.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otlp: Option<String>,
    /// Inbound ports that no sidecar takes; annotations add to these.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub skip_inbound_ports: String,
    /// Outbound ports that no sidecar takes; annotations add to these.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub skip_outbound_ports: String,
    /// Sources whose connections no sidecar takes; annotations add to these.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub skip_inbound_cidrs: String,
    /// Destinations whose connections no sidecar takes; annotations add to these.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub skip_outbound_cidrs: String,
    /// How long a stopping sidecar still accepts, e.g. 5s. Absent: what the Mesh resource says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_linger: Option<String>,
    /// How long a stopping sidecar waits for what is in flight, e.g. 20s. Absent: as the Mesh says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_deadline: Option<String>,
    /// User and group of the sidecar; nothing else in a pod may run as it.
    #[serde(default = "proxy_uid")]
    pub proxy_uid: u32,
    /// Audience of the token that proves a pod.
    #[serde(default = "audience")]
    pub token_audience: String,
    /// Life of that token, seconds; the kubelet renews it at 80 %.
    #[serde(default = "token_life")]
    pub token_expiration_seconds: u32,
    /// Seconds a sidecar has to become ready before it is restarted: the time that new pods wait patiently
    /// for a control plane that is away.
    #[serde(default = "startup")]
    pub startup_seconds: u32,
    /// More environment for the sidecar, e.g. WEFT_MAX_CONNECTIONS.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// A pod that should have a sidecar and cannot is not created, instead of created without one.
    #[serde(default)]
    pub block_refused: bool,
}

/// What the sidecar asks of its node (requests) and may use at most (limits), as Kubernetes quantities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// CPU asked for.
    #[serde(default = "cpu_request")]
    pub cpu_request: String,
    /// Memory asked for.
    #[serde(default = "memory_request")]
    pub memory_request: String,
    /// CPU at most; absent: no limit, and one data thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_limit: Option<String>,
    /// Memory at most; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<String>,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            cpu_request: cpu_request(),
            memory_request: memory_request(),
            cpu_limit: None,
            memory_limit: None,
        }
    }
}

impl InjectorConfig {
    /// Defaults, with this image.
    pub fn new(image: &str) -> Self {
        Self {
            image: image.to_owned(),
            image_pull_policy: None,
            version: version(),
            control_plane: control_plane(),
            control_plane_namespace: control_plane_namespace(),
            trust_domain: trust_domain(),
            skip_namespaces: Vec::new(),
            native_sidecar: true,
            resources: Resources::default(),
            log_level: log_level(),
            access_log: None,
            otlp: None,
            skip_inbound_ports: String::new(),
            skip_outbound_ports: String::new(),
            skip_inbound_cidrs: String::new(),
            skip_outbound_cidrs: String::new(),
            drain_linger: None,
            drain_deadline: None,
            proxy_uid: proxy_uid(),
            token_audience: audience(),
            token_expiration_seconds: token_life(),
            startup_seconds: startup(),
            env: BTreeMap::new(),
            block_refused: false,
        }
    }

    /// Refuses what no sidecar could start with.
    ///
    /// # Errors
    /// The first field that makes no sense.
    pub fn check(&self) -> Result<(), ConfigError> {
        let field =
            |field, result: Result<(), String>| result.map_err(|reason| ConfigError::Field { field, reason });
        field("image", values::image(&self.image))?;
        if let Some(policy) = &self.image_pull_policy {
            field("imagePullPolicy", values::one_of(policy, &["Always", "IfNotPresent", "Never"]))?;
        }
        if let Some(choice) = &self.access_log {
            field("accessLog", values::one_of(choice, values::ACCESS_LOG))?;
        }
        field("logLevel", values::log_filter(&self.log_level))?;
        field("skipInboundPorts", values::optional_ports(&self.skip_inbound_ports))?;
        field("skipOutboundPorts", values::optional_ports(&self.skip_outbound_ports))?;
        field("skipInboundCidrs", values::optional_cidrs(&self.skip_inbound_cidrs))?;
        field("skipOutboundCidrs", values::optional_cidrs(&self.skip_outbound_cidrs))?;
        for (name, span) in [("drainLinger", &self.drain_linger), ("drainDeadline", &self.drain_deadline)] {
            field(name, span.as_deref().map_or(Ok(()), |span| values::span(span).map(|_| ())))?;
        }
        field("resources", self.resources.check())?;
        // Kubernetes refuses tokens that live shorter than ten minutes.
        field("tokenExpirationSeconds", at_least(self.token_expiration_seconds, 600))?;
        field("startupSeconds", at_least(self.startup_seconds, 1))?;
        field("proxyUid", at_least(self.proxy_uid, 1))
    }
}

impl Resources {
    pub(super) fn check(&self) -> Result<(), String> {
        let pairs = [
            ("cpu", &self.cpu_request, &self.cpu_limit),
            ("memory", &self.memory_request, &self.memory_limit),
        ];
        for (name, request, limit) in pairs {
            let asked = values::quantity(request)?;
            let Some(limit) = limit else { continue };
            if asked > values::quantity(limit)? {
                return Err(format!(
                    "the {name} request {request} is above the limit {limit}: correct one of them"
                ));
            }
        }
        Ok(())
    }
}

fn at_least(value: u32, least: u32) -> Result<(), String> {
    if value < least { Err(format!("{value} is below {least}")) } else { Ok(()) }
}

fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// Source: the names of Weft's own chart.
fn control_plane() -> String {
    "weft-control-plane.weft-system.svc:15010".to_owned()
}

/// Source: the names of Weft's own chart.
fn control_plane_namespace() -> String {
    "weft-system".to_owned()
}

/// Source: Kubernetes' own cluster domain, the sidecar's default.
fn trust_domain() -> String {
    "cluster.local".to_owned()
}

fn yes() -> bool {
    true
}

fn log_level() -> String {
    "info".to_owned()
}

/// Source: the contract of `weft-proxy init`.
fn proxy_uid() -> u32 {
    2102
}

/// Source: the contract between sidecar and control plane.
fn audience() -> String {
    "weft.dev".to_owned()
}

/// Source: Kubernetes' own default for projected tokens.
fn token_life() -> u32 {
    3600
}

/// Source: ten minutes, as Istio's startup probe.
fn startup() -> u32 {
    600
}

/// Source: measured; an idle sidecar uses a tenth of it. Istio asks for 100m.
fn cpu_request() -> String {
    "10m".to_owned()
}

/// Source: measured; Linkerd asks for the same, Istio for 128Mi.
fn memory_request() -> String {
    "20Mi".to_owned()
}
