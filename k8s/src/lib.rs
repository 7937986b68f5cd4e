//! The kinds that Weft's users write besides the Gateway API: group `weft.dev`, version `v1alpha1`.
//!
//! Where it stands: before the first step of the configuration's walk. Kubernetes and a plain folder
//! hold the very same YAML; both are read into these types and handed to the control plane's core.
//!
//! All policies have one shape: `spec.targetRefs` says what they apply to, the rest of `spec` is the
//! rule, and `status` holds conditions per target. Precedence: workload, service, namespace, mesh;
//! within one of these the older object, then the lower name.
//!
//! Invariant: no behaviour lives here, and a field that is not known is refused, never dropped.

mod authorization;
pub mod chart;
pub mod crds;
mod duration;
#[expect(unreachable_pub, reason = "KubeSchema repeats the struct inside a function")]
mod mesh;
#[expect(unreachable_pub, reason = "KubeSchema repeats the struct inside a function")]
mod target;
#[expect(unreachable_pub, reason = "KubeSchema repeats the struct inside a function")]
mod telemetry;
#[expect(unreachable_pub, reason = "KubeSchema repeats the struct inside a function")]
mod tls;
#[expect(unreachable_pub, reason = "KubeSchema repeats the struct inside a function")]
mod traffic;

pub use authorization::{
    AuthorizationAction, AuthorizationFrom, AuthorizationPolicy, AuthorizationPolicySpec, AuthorizationRule,
    AuthorizationTo, PolicyMode,
};
pub use duration::Duration;
pub use mesh::{AccessLog, Drain, Mesh, MeshSpec, MeshStatus, Tracing, UnknownDestination};
pub use target::{
    MAX_REFUSALS, PolicyStatus, SidecarRefusal, SidecarsStatus, TargetKind, TargetRef, TargetStatus,
};
pub use telemetry::{
    AccessLogSettings, ExportHeader, FromHeader, LogFormat, TelemetryPolicy, TelemetryPolicySpec,
    TraceExport, TraceProtocol, TracingSettings,
};
pub use tls::{MutualTls, PortMutualTls, TlsPolicy, TlsPolicySpec};
pub use traffic::{FallbackRef, Limits, Outlier, RetryBudget, TrafficPolicy, TrafficPolicySpec};

/// Group of Weft's own kinds.
pub const GROUP: &str = "weft.dev";
/// Version of Weft's own kinds.
pub const VERSION: &str = "v1alpha1";

#[cfg(test)]
mod tests;
