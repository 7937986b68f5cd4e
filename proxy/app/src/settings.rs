//! What an operator can set for one sidecar: flags and environment (`args`), lowered once, at start,
//! into the typed `Settings` that everything else reads.
//!
//! Stands before the walks: `main` → **settings** → `app`.
//!
//! Invariant: the environment and the command line are read here and nowhere else.
//! Invariant: a secret (the join token) never reaches `Debug`, the log or `/config`.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};
use thiserror::Error;
use weft_proto::names::{ServicePort, SpiffeId, Workload};
use zeroize::Zeroizing;

mod anchors;
mod args;
mod cpu;
mod limits;
mod values;

pub use anchors::TrustAnchors;
pub(crate) use args::ADMIN;
pub use args::RunArgs;
pub use limits::Limits;
pub(crate) use values::span;
pub use values::{AccessLogChoice, AccessLogSink, ControlPlane, ExplicitInbound, ExplicitOutbound};

/// Namespace and service account of the control plane where its identity is not given.
/// Source: the names in Weft's own chart.
const CONTROL_PLANE_IN_TRUST_DOMAIN: (&str, &str) = ("weft-system", "weft-control-plane");

/// Everything one sidecar was told, checked and with defaults filled in.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    /// The workload this sidecar stands beside.
    #[serde(serialize_with = "as_text")]
    pub workload: Workload,
    /// Where the control plane listens.
    pub control_plane: ControlPlane,
    /// The identity the control plane must prove.
    #[serde(serialize_with = "as_text")]
    pub control_plane_identity: SpiffeId,
    /// Trust domain of the mesh.
    pub trust_domain: String,
    /// The roots that vouch for the control plane until the mesh's trust bundle does as well.
    pub trust_anchors: TrustAnchors,
    /// Proof of who asks for the first certificate.
    pub join_token: JoinToken,
    /// Folder of the last good configuration; none: nothing is kept over a restart.
    pub state_dir: Option<PathBuf>,
    /// Data threads.
    pub workers: NonZeroUsize,
    /// Where the admin server listens.
    pub admin: SocketAddr,
    /// Where redirected outbound connections arrive.
    pub transparent_outbound: Option<SocketAddr>,
    /// Where redirected inbound connections arrive.
    pub transparent_inbound: Option<SocketAddr>,
    /// Addresses that stand for one service port each.
    pub outbound: Vec<ExplicitOutbound>,
    /// Addresses that stand for one port of the application each.
    pub inbound: Vec<ExplicitInbound>,
    /// Which requests are logged.
    pub access_log: AccessLogChoice,
    /// Where the access log goes.
    pub access_log_file: AccessLogSink,
    /// Filter of the diagnostic log.
    pub log: String,
    /// OTLP collector that receives traces; none: spans are not exported.
    pub otlp: Option<String>,
    /// Requests and connections are not counted.
    pub no_traffic_metrics: bool,
    /// Zone this sidecar runs in; none: unknown.
    pub zone: Option<String>,
    /// File written once the sidecar is ready.
    pub ready_file: Option<PathBuf>,
    /// Every handshake between sidecars is a full one.
    pub no_tls_resumption: bool,
    /// How long to linger; none: as the mesh says.
    pub drain_linger: Option<Duration>,
    /// How long to finish; none: as the mesh says.
    pub drain_deadline: Option<Duration>,
    /// The application has ended before this process is told to leave.
    pub native_sidecar: bool,
    /// The kubelet may probe from the default gateway.
    pub node_is_gateway: bool,
    /// The sidecar ends with the process that started it.
    pub exit_with_parent: bool,
    /// Limits and deadlines.
    pub limits: Limits,
}

/// Why settings do not add up; each message says what to change.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SettingsError {
    /// No proof of who asks for a certificate.
    #[error(
        "no join token: give --join-token-file FILE (WEFT_JOIN_TOKEN_FILE), which is read again at each use, \
         or --join-token TOKEN (WEFT_JOIN_TOKEN)"
    )]
    NoJoinToken,
    /// No root to verify the control plane with.
    #[error(
        "no trust anchors: give --trust-anchors FILE (WEFT_TRUST_ANCHORS), which is read again at each use, \
         or --trust-anchors-pem PEM (WEFT_TRUST_ANCHORS_PEM)"
    )]
    NoTrustAnchors,
    /// The inline roots are none.
    #[error(
        "--trust-anchors-pem holds no certificate in PEM: it must begin with -----BEGIN CERTIFICATE-----"
    )]
    TrustAnchorsPem,
    /// Nothing to listen on.
    #[error(
        "nothing to listen on: give --transparent-outbound and --transparent-inbound (behind `weft-proxy init`), \
         or at least one --outbound LISTEN=NAMESPACE/SERVICE:PORT or --inbound LISTEN=TARGET"
    )]
    NoListener,
    /// Two listeners want one address.
    #[error("{0} is given to two listeners; each needs an address of its own")]
    AddressTwice(SocketAddr),
    /// The trust domain is no DNS name.
    #[error("--trust-domain {0:?} is not a DNS name in lower case, e.g. cluster.local")]
    TrustDomain(String),
    /// The control plane's identity is of another trust domain.
    #[error(
        "--control-plane-identity {identity} is outside --trust-domain {trust_domain}; correct one of the two"
    )]
    ForeignControlPlane {
        /// The identity.
        identity: String,
        /// The trust domain.
        trust_domain: String,
    },
    /// More workers than a sidecar may have.
    #[error("--workers {0} is out of range: 1 to {max}, or leave it out to follow the CPU limit", max = cpu::MAX_WORKERS)]
    Workers(usize),
}

impl Settings {
    /// The settings as one JSON object, secrets left out: a part of `/config`.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() }))
    }
}

impl RunArgs {
    /// Checks what was given and fills in what follows from the machine and from other settings.
    ///
    /// # Errors
    /// [`SettingsError`], by what does not add up.
    pub fn lower(self) -> Result<Settings, SettingsError> {
        self.lower_on(cpu::quota())
    }

    /// [`RunArgs::lower`] on a machine that grants `quota` CPUs.
    fn lower_on(self, quota: Option<f64>) -> Result<Settings, SettingsError> {
        let control_plane_identity =
            control_plane_identity(self.control_plane_identity, self.trust_domain.as_str())?;
        let trust_anchors = TrustAnchors::given(self.trust_anchors_pem, self.trust_anchors)?;
        let join_token = join_token(self.join_token, self.join_token_file)?;
        let workers = cpu::workers(self.workers, quota).map_err(SettingsError::Workers)?;
        let settings = Settings {
            workload: self.workload,
            control_plane: self.control_plane,
            control_plane_identity,
            trust_domain: self.trust_domain,
            trust_anchors,
            join_token,
            state_dir: self.state_dir,
            workers,
            admin: self.admin,
            transparent_outbound: self.transparent_outbound,
            transparent_inbound: self.transparent_inbound,
            outbound: self.outbound,
            inbound: self.inbound,
            access_log: self.access_log,
            access_log_file: self.access_log_file,
            log: self.log,
            otlp: self.otlp,
            no_traffic_metrics: self.no_traffic_metrics,
            zone: self.zone.filter(|zone| !zone.is_empty()),
            ready_file: self.ready_file,
            no_tls_resumption: self.no_tls_resumption,
            drain_linger: self.drain_linger,
            drain_deadline: self.drain_deadline,
            native_sidecar: self.native_sidecar,
            node_is_gateway: self.node_is_gateway,
            exit_with_parent: self.exit_with_parent,
            limits: self.limits,
        };
        check_listeners(&settings)?;
        Ok(settings)
    }
}

fn control_plane_identity(given: Option<SpiffeId>, trust_domain: &str) -> Result<SpiffeId, SettingsError> {
    if !weft_proto::names::is_subdomain(trust_domain) {
        return Err(SettingsError::TrustDomain(trust_domain.to_owned()));
    }
    let (namespace, account) = CONTROL_PLANE_IN_TRUST_DOMAIN;
    let identity = given.unwrap_or_else(|| SpiffeId {
        trust_domain: trust_domain.to_owned(),
        namespace: namespace.to_owned(),
        service_account: account.to_owned(),
    });
    if identity.trust_domain != trust_domain {
        return Err(SettingsError::ForeignControlPlane {
            identity: identity.to_string(),
            trust_domain: trust_domain.to_owned(),
        });
    }
    Ok(identity)
}

fn join_token(inline: Option<String>, file: Option<PathBuf>) -> Result<JoinToken, SettingsError> {
    match (inline, file) {
        (_, Some(path)) => Ok(JoinToken::File(path)),
        (Some(text), None) if !text.is_empty() => Ok(JoinToken::Inline(Arc::new(Zeroizing::new(text)))),
        _ => Err(SettingsError::NoJoinToken),
    }
}

fn check_listeners(settings: &Settings) -> Result<(), SettingsError> {
    let mut listeners: Vec<SocketAddr> = Vec::new();
    listeners.extend(settings.transparent_outbound);
    listeners.extend(settings.transparent_inbound);
    listeners.extend(settings.outbound.iter().map(|explicit| explicit.listen));
    listeners.extend(settings.inbound.iter().map(|explicit| explicit.listen));
    if listeners.is_empty() {
        return Err(SettingsError::NoListener);
    }
    listeners.push(settings.admin);
    // Port 0 lets the kernel choose: such listeners never collide.
    listeners.retain(|address| address.port() != 0);
    listeners.sort_unstable();
    match listeners.windows(2).find(|pair| pair.first() == pair.last()) {
        Some(pair) => Err(SettingsError::AddressTwice(pair[0])),
        None => Ok(()),
    }
}

/// Proof of who asks for a certificate; never shown.
#[derive(Clone)]
pub enum JoinToken {
    /// The token itself.
    Inline(Arc<Zeroizing<String>>),
    /// A file that holds it, read at each use, because projected tokens rotate.
    File(PathBuf),
}

impl JoinToken {
    /// A token by its text.
    #[must_use]
    pub fn given(text: &str) -> Self {
        Self::Inline(Arc::new(Zeroizing::new(text.to_owned())))
    }

    /// The token as it stands now.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self) -> std::io::Result<Zeroizing<String>> {
        match self {
            Self::Inline(text) => Ok(Zeroizing::new(text.as_str().to_owned())),
            Self::File(path) => {
                let text = Zeroizing::new(std::fs::read_to_string(path)?);
                Ok(Zeroizing::new(text.trim().to_owned()))
            }
        }
    }
}

impl std::fmt::Display for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("given"),
            Self::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl Serialize for JoinToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Serialises names in their one text form.
fn as_text<T: std::fmt::Display, S: Serializer>(name: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(name)
}

/// The service ports of explicit listeners: wanted from the first moment, never idle.
impl Settings {
    /// Service ports that explicit listeners stand for, each once.
    pub fn pinned(&self) -> Vec<ServicePort> {
        let mut pinned: Vec<ServicePort> =
            self.outbound.iter().map(|explicit| explicit.service.clone()).collect();
        pinned.sort();
        pinned.dedup();
        pinned
    }
}

#[cfg(test)]
mod tests;
