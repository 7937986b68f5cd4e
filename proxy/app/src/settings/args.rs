//! The table of settings of `weft-proxy run`: one row per setting with flag, variable, type, unit,
//! default and why. The text of each row is what `--help` prints.
//!
//! Invariant: every flag has a variable `WEFT_…` of the same name; a flag wins over its variable.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use weft_proto::names::{SpiffeId, Workload};

use super::Limits;
use super::values::span;
use super::values::{AccessLogChoice, AccessLogSink, ControlPlane, ExplicitInbound, ExplicitOutbound};

/// Default address of the admin server: loopback, because it can drain the sidecar.
/// Source: 15020 is where Istio's agent serves metrics, so existing scrape rules find it.
pub(crate) const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15020);

/// Settings of `weft-proxy run`, as given.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The workload this sidecar stands beside, NAMESPACE/POD. The control plane checks it against the
    /// join token.
    #[arg(long, env = "WEFT_WORKLOAD", value_name = "NAMESPACE/POD")]
    pub workload: Workload,

    /// Where the control plane listens, HOST:PORT. A name is resolved at every connection.
    #[arg(long, env = "WEFT_CONTROL_PLANE", value_name = "HOST:PORT")]
    pub control_plane: ControlPlane,

    /// The identity the control plane must prove. Default: service account weft-control-plane of
    /// namespace weft-system in the trust domain.
    #[arg(long, env = "WEFT_CONTROL_PLANE_IDENTITY", value_name = "SPIFFE-ID")]
    pub control_plane_identity: Option<SpiffeId>,

    /// Trust domain of the mesh. The default is Kubernetes' own cluster domain.
    #[arg(long, env = "WEFT_TRUST_DOMAIN", value_name = "NAME", default_value = "cluster.local")]
    pub trust_domain: String,

    /// PEM file with the roots that vouch for the control plane. Read at each connection, so that a
    /// mounted file may change. Either this or --trust-anchors-pem.
    #[arg(long, env = "WEFT_TRUST_ANCHORS", value_name = "FILE")]
    #[arg(conflicts_with = "trust_anchors_pem")]
    pub trust_anchors: Option<PathBuf>,

    /// The same roots as PEM text: what the injector writes, so that a pod needs no volume for them. Roots
    /// that the mesh's trust bundle brings later count as well, so that a rotation needs no restart.
    #[arg(long, env = "WEFT_TRUST_ANCHORS_PEM", value_name = "PEM", allow_hyphen_values = true)]
    pub trust_anchors_pem: Option<String>,

    /// Join token. Prefer the file: an environment is easier to read for others.
    #[arg(long, env = "WEFT_JOIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    #[arg(conflicts_with = "join_token_file")]
    pub join_token: Option<String>,

    /// File with the join token or the projected service-account token. Read at each use.
    #[arg(long, env = "WEFT_JOIN_TOKEN_FILE", value_name = "FILE")]
    pub join_token_file: Option<PathBuf>,

    /// Folder for the last good configuration (never keys), so that the sidecar starts while no control
    /// plane answers. Default: none is kept.
    #[arg(long, env = "WEFT_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Data threads. Default: the CPU limit of the container rounded up, 1 to 8; without a limit 1,
    /// because a sidecar should not take the machine from its application.
    #[arg(long, env = "WEFT_WORKERS", value_name = "N")]
    pub workers: Option<usize>,

    /// Where the admin server listens (metrics, readiness, configuration, drain). [::]:15020 takes IPv4 as
    /// well; from outside the machine or pod only /metrics, /ready and /live answer.
    #[arg(long, env = "WEFT_ADMIN", value_name = "ADDR", default_value_t = ADMIN)]
    pub admin: SocketAddr,

    /// Where redirected outbound connections arrive; by convention [::]:15001, which takes IPv4 as well and
    /// is 0.0.0.0:15001 where IPv6 is off. Default: off.
    #[arg(long, env = "WEFT_TRANSPARENT_OUTBOUND", value_name = "ADDR")]
    pub transparent_outbound: Option<SocketAddr>,

    /// Where redirected inbound connections arrive; by convention [::]:15006, as above. Default: off.
    #[arg(long, env = "WEFT_TRANSPARENT_INBOUND", value_name = "ADDR")]
    pub transparent_inbound: Option<SocketAddr>,

    /// An address that stands for a service port, e.g. 127.0.10.1:80=shop/catalog:80. Repeatable; the
    /// variable takes several with commas.
    #[arg(long, env = "WEFT_OUTBOUND", value_name = "LISTEN=NAMESPACE/SERVICE:PORT", value_delimiter = ',')]
    pub outbound: Vec<ExplicitOutbound>,

    /// An address that stands for a port of the application, e.g. 127.0.10.1:8080=127.0.0.1:18081.
    /// Policy sees the listener's port unless #PORT says another. Repeatable; the variable takes several
    /// with commas.
    #[arg(long, env = "WEFT_INBOUND", value_name = "LISTEN=TARGET[#PORT]", value_delimiter = ',')]
    pub inbound: Vec<ExplicitInbound>,

    /// Which requests are logged: off, errors, all, or mesh (what the Mesh resource says).
    #[arg(long, env = "WEFT_ACCESS_LOG", value_name = "CHOICE", value_enum, default_value_t = AccessLogChoice::Mesh)]
    pub access_log: AccessLogChoice,

    /// File of the access log; "-" is standard output.
    #[arg(long, env = "WEFT_ACCESS_LOG_FILE", value_name = "PATH", default_value = "-")]
    pub access_log_file: AccessLogSink,

    /// Filter of the diagnostic log on standard error, e.g. info,weft_proxy=debug. Changeable while
    /// running.
    #[arg(long, env = "WEFT_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// Collector that receives traces over OTLP/gRPC, e.g. http://jaeger:4317, whatever a TelemetryPolicy says.
    /// Default: the one that a TelemetryPolicy names.
    #[arg(long, env = "WEFT_OTLP", value_name = "URL")]
    pub otlp: Option<String>,

    /// Count no requests and connections: /metrics then tells only of the sidecar itself. For measurements,
    /// and for who has a service graph from elsewhere.
    #[arg(long, env = "WEFT_NO_TRAFFIC_METRICS")]
    pub no_traffic_metrics: bool,

    /// Zone of this machine, for zone preference. Default: unknown.
    #[arg(long, env = "WEFT_ZONE", value_name = "ZONE")]
    pub zone: Option<String>,

    /// File written once the sidecar is ready, with its real addresses. Default: none.
    #[arg(long, env = "WEFT_READY_FILE", value_name = "PATH")]
    pub ready_file: Option<PathBuf>,

    /// Make every handshake between sidecars a full one. Resuming costs half as much and proves the same
    /// identity; this is for measurements and for rules that forbid it.
    #[arg(long, env = "WEFT_NO_TLS_RESUMPTION")]
    pub no_tls_resumption: bool,

    /// How long inbound connections are still accepted after SIGTERM. Default: what the Mesh resource says.
    #[arg(long, env = "WEFT_DRAIN_LINGER", value_name = "SPAN", value_parser = span)]
    pub drain_linger: Option<Duration>,

    /// How long what is in flight may take to finish after that. Default: what the Mesh resource says.
    #[arg(long, env = "WEFT_DRAIN_DEADLINE", value_name = "SPAN", value_parser = span)]
    pub drain_deadline: Option<Duration>,

    /// This process is a native sidecar (an init container with restartPolicy Always): the kubelet tells it
    /// to leave only after the application has ended. It then ends as soon as what is in flight is
    /// finished, instead of accepting for a while longer.
    #[arg(long, env = "WEFT_NATIVE_SIDECAR")]
    pub native_sidecar: bool,

    /// The default gateway of this network is the node: the kubelet's probes may come from its address, beside
    /// those that the control plane knows. So it is for pods that hang on a bridge or router of their node.
    #[arg(long, env = "WEFT_NODE_IS_GATEWAY")]
    pub node_is_gateway: bool,

    /// End when the process that started this one ends: no orphans after a demo or a test.
    #[arg(long, env = "WEFT_EXIT_WITH_PARENT")]
    pub exit_with_parent: bool,

    /// Limits and deadlines.
    #[command(flatten)]
    pub limits: Limits,
}
