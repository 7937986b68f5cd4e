//! How the sidecar comes by its certificate, and keeps one: a fresh key for each, a token the first
//! time, the certificate itself for the next.
//!
//! Runs on the chores thread beside *subscribe*; whoever opens or accepts TLS reads [`Credentials`].
//!
//! ```text
//! no certificate, or refused, or expired ──► token, server-authenticated TLS ──┐
//! alive, renewal due ──► mTLS with the certificate; refused? then by token ────┴─► swap, wait for renewal
//! ```
//!
//! Invariant: a certificate is used until its last second; a failed renewal takes nothing away.
//! Invariant: a certificate is taken only if it fits our key, our namespace and the bundle it came with.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::{Notify, watch};
use weft_proto::names::Workload;
use weft_proto::v1;
use weft_proto::v1::identity_client::IdentityClient;
use weft_proxy_core::Identity;
use weft_proxy_net::tls::peer_identity;

use crate::adopt::{Trust, read_trust};
use crate::backoff::Backoff;
use crate::dial::{self, Dial, DialError, Proof};
use crate::settings::{JoinToken, Settings};

mod credentials;
mod key;

pub(crate) use credentials::unix;
pub use credentials::{Credentials, Leaf};
use key::{KeyError, LeafKey};

/// Deadline of one call. Source: the authority signs in microseconds; the rest is queueing.
const SIGN_TIMEOUT: Duration = Duration::from_secs(10);
/// The wall clock is looked at this often while waiting, because it may jump. Source: a minute is far
/// below half of the shortest sensible life.
const LOOK: Duration = Duration::from_secs(60);
/// Least time between two certificates. Source: keeps a clock that is wrong from asking in a circle.
const LEAST_LIFE: Duration = Duration::from_secs(1);

/// Certificate facts for metrics, `/ready` and `/config`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct CertificateStatus {
    /// The identity; `None`: no certificate yet.
    pub identity: Option<String>,
    /// When it was taken, seconds since 1970.
    pub issued: u64,
    /// End of its life, seconds since 1970.
    pub not_after: u64,
    /// When it is to be renewed, seconds since 1970.
    pub renew_after: u64,
    /// Certificates taken since the start.
    pub taken: u64,
    /// Attempts that failed since the last success.
    pub failures: u64,
    /// Attempts that failed since the start.
    pub failed: u64,
    /// Why the last attempt failed; `None`: it did not.
    pub problem: Option<String>,
}

/// Keeps the sidecar's certificate alive.
#[derive(Debug)]
pub struct Certifier {
    workload: Workload,
    trust_domain: String,
    token: JoinToken,
    dial: Dial,
    status: watch::Sender<CertificateStatus>,
    wake: Arc<Notify>,
    backoff: Backoff,
    /// The control plane no longer takes our certificate.
    disowned: bool,
}

/// Asks the certifier for a new certificate before its time.
#[derive(Debug, Clone)]
pub struct Renewal(Arc<Notify>);

impl Renewal {
    /// The control plane refused the current certificate: get another by token.
    pub fn request(&self) {
        self.0.notify_one();
    }
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertifyError {
    /// No key or request.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The join token cannot be read.
    #[error("the join token cannot be read: {0}; check --join-token-file")]
    Token(#[from] std::io::Error),
    /// The control plane said no.
    #[error("the control plane signs no certificate: {}{}", said(.0), advice(.0))]
    Refused(Box<tonic::Status>),
    /// No answer in time.
    #[error("the control plane gave no certificate within 10 s")]
    Late,
    /// What came is not usable.
    #[error("the certificate that came is not usable: {0}")]
    Unusable(String),
}

impl Certifier {
    /// A certifier for the workload of `settings` that writes to the credentials of `dial`.
    pub fn new(settings: &Settings, dial: Dial) -> Self {
        Self::joining(settings.workload.clone(), &settings.trust_domain, settings.join_token.clone(), dial)
    }

    /// A certifier for `workload`, which writes to the credentials of `dial`.
    pub(crate) fn joining(workload: Workload, trust_domain: &str, token: JoinToken, dial: Dial) -> Self {
        Self {
            workload,
            trust_domain: trust_domain.to_owned(),
            token,
            dial,
            status: watch::Sender::new(CertificateStatus::default()),
            wake: Arc::new(Notify::new()),
            backoff: Backoff::seeded(),
            disowned: false,
        }
    }

    /// Certificate facts, as they change.
    pub fn status(&self) -> watch::Receiver<CertificateStatus> {
        self.status.subscribe()
    }

    /// A way to ask for a new certificate before its time.
    pub fn renewal(&self) -> Renewal {
        Renewal(Arc::clone(&self.wake))
    }

    /// Gets the first certificate, then renews it, for as long as the future lives.
    ///
    /// # Cancel safety
    /// Dropping it stops the renewal; the current certificate stays.
    pub async fn run(mut self) {
        loop {
            match self.certify().await {
                Ok(renew_after) => {
                    self.backoff.reset();
                    self.disowned = self.wait_until(renew_after).await;
                }
                Err(error) => {
                    self.failed(&error);
                    tokio::time::sleep(self.backoff.wait()).await;
                }
            }
        }
    }

    /// Gets one certificate, and does not renew it.
    pub(crate) async fn once(mut self) -> Result<(), CertifyError> {
        self.certify().await.map(|_| ())
    }

    /// One new certificate, by the certificate we have or by token.
    async fn certify(&mut self) -> Result<u64, CertifyError> {
        let alive = self.dial.credentials().alive(SystemTime::now()).is_some();
        if alive && !self.disowned {
            match self.sign(Proof::Certificate).await {
                Err(error) if error.is_about_us() => {
                    tracing::warn!(%error, "renewal by certificate refused; trying the join token");
                    self.disowned = true;
                }
                result => return result,
            }
        }
        self.sign(Proof::Nothing).await
    }

    async fn sign(&mut self, proof: Proof) -> Result<u64, CertifyError> {
        let key = LeafKey::generate()?;
        let token = match proof {
            Proof::Nothing => self.token.read()?.as_str().to_owned(),
            Proof::Certificate => String::new(),
        };
        let request = v1::SignRequest {
            csr: key.request()?.to_vec().into(),
            workload: self.workload.to_string(),
            token,
        };
        let call = async {
            let channel = self.dial.connect(proof).await?;
            let answer = IdentityClient::new(channel).sign(request).await;
            answer.map_err(|status| CertifyError::Refused(Box::new(status)))
        };
        let answer = tokio::time::timeout(SIGN_TIMEOUT, call).await.map_err(|_| CertifyError::Late)??;
        self.take(answer.into_inner(), key)
    }

    /// Checks what came and puts it in force.
    fn take(&mut self, answer: v1::SignResponse, key: LeafKey) -> Result<u64, CertifyError> {
        let now = SystemTime::now();
        let trust =
            answer.trust.ok_or_else(|| CertifyError::Unusable("no trust bundle with it".to_owned()))?;
        let trust = read_trust(trust).map_err(|invalid| CertifyError::Unusable(invalid.to_string()))?;
        let chain = answer.chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        let certified = CertifiedKey::new(chain, Arc::new(key));
        let identity = self.check(&certified, &trust, now).map_err(CertifyError::Unusable)?;
        if answer.not_after <= unix(now) {
            return Err(CertifyError::Unusable("its life is over already; check the clocks".to_owned()));
        }
        let renew_after = self.jittered(answer.renew_after, answer.not_after);
        tracing::info!(%identity, not_after = answer.not_after, renew_after, "certificate taken");
        let credentials = self.dial.credentials();
        let shown = identity.to_string();
        let leaf = Leaf { key: Arc::new(certified), identity, not_after: answer.not_after };
        credentials.set(leaf, trust).map_err(|error| CertifyError::Unusable(error.to_string()))?;
        self.status.send_modify(|status| {
            *status = CertificateStatus {
                identity: Some(shown),
                issued: unix(now),
                not_after: answer.not_after,
                renew_after,
                taken: status.taken.saturating_add(1),
                failures: 0,
                failed: status.failed,
                problem: None,
            };
        });
        Ok(renew_after)
    }

    /// The identity of a chain that fits our key, our place in the mesh and `trust`.
    fn check(&self, certified: &CertifiedKey, trust: &Trust, now: SystemTime) -> Result<Identity, String> {
        certified.keys_match().map_err(|error| format!("it is for another key: {error}"))?;
        let (leaf, intermediates) = certified.cert.split_first().ok_or("the chain is empty")?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trust.roots.iter().cloned());
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let algorithms = weft_proxy_net::tls::provider().signature_verification_algorithms.all;
        let now = UnixTime::since_unix_epoch(since);
        ParsedCertificate::try_from(leaf)
            .and_then(|leaf| {
                verify_server_cert_signed_by_trust_anchor(&leaf, &roots, intermediates, now, algorithms)
            })
            .map_err(|error| format!("the trust bundle that came with it does not vouch for it: {error}"))?;
        let identity = peer_identity(&certified.cert).map_err(|error| error.to_string())?;
        let foreign = identity.trust_domain() != self.trust_domain || trust.trust_domain != self.trust_domain;
        if foreign || identity.namespace() != self.workload.namespace {
            return Err(format!("it is for {identity}, we are {} in {}", self.workload, self.trust_domain));
        }
        Ok(identity)
    }

    /// Spreads renewals over a tenth of the time that is left after `renew_after`.
    fn jittered(&mut self, renew_after: u64, not_after: u64) -> u64 {
        let slack = Duration::from_secs(not_after.saturating_sub(renew_after) / 10);
        renew_after.saturating_add(self.backoff.up_to(slack).as_secs()).min(not_after)
    }

    /// Waits for the time of renewal; true when it was asked for before, because we are disowned.
    async fn wait_until(&self, renew_after: u64) -> bool {
        tokio::time::sleep(LEAST_LIFE).await;
        loop {
            let left = Duration::from_secs(renew_after.saturating_sub(unix(SystemTime::now())));
            if left.is_zero() {
                return false;
            }
            tokio::select! {
                () = self.wake.notified() => return true,
                () = tokio::time::sleep(left.min(LOOK)) => {}
            }
        }
    }

    fn failed(&self, error: &CertifyError) {
        let leaf = self.dial.credentials().leaf();
        let now = unix(SystemTime::now());
        match leaf.map(|leaf| leaf.not_after) {
            Some(end) if now < end => {
                tracing::warn!(%error, seconds_left = end - now, "certificate not renewed; the old one serves on");
            }
            Some(_) => {
                tracing::error!(%error, "the certificate has expired and the join token brings no new one: mutual TLS fails");
            }
            None => tracing::warn!(%error, "no certificate yet"),
        }
        self.status.send_modify(|status| {
            status.failures = status.failures.saturating_add(1);
            status.failed = status.failed.saturating_add(1);
            status.problem = Some(error.to_string());
        });
    }
}

impl CertifyError {
    /// Whether it is our certificate that is not taken, rather than the call that failed.
    fn is_about_us(&self) -> bool {
        match self {
            Self::Refused(status) => {
                let code = status.code();
                matches!(code, tonic::Code::Unauthenticated | tonic::Code::PermissionDenied)
                    || dial::refused_our_certificate(status.as_ref())
            }
            Self::Dial(DialError::Connect { source, .. }) => dial::refused_our_certificate(source),
            Self::Dial(DialError::NoRoots { .. } | DialError::Tls(_) | DialError::Identity(_))
            | Self::Key(_)
            | Self::Token(_)
            | Self::Late
            | Self::Unusable(_) => false,
        }
    }
}

fn said(status: &tonic::Status) -> String {
    format!("{:?}, {}", status.code(), status.message())
}

/// What to do about it, where it is ours to do.
fn advice(status: &tonic::Status) -> &'static str {
    match status.code() {
        tonic::Code::Unauthenticated => {
            "; the join token is unknown, used up or expired: put a fresh one in place"
        }
        tonic::Code::PermissionDenied => "; the join token speaks for another workload: check --workload",
        _ => "",
    }
}
