//! `Identity.Sign`: decides whether a caller may have an identity, and signs it.
//!
//! Before it: `listen` proved who the peer is, if it showed a certificate. After it: the sidecar
//! holds a chain and opens its stream with it.
//!
//! Invariant: an identity is given for a join token that speaks for it, or renewed for a peer that
//! proved that very identity; nothing else.
//! Invariant: a token counts as used once a certificate was signed for it, and before it leaves.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use weft_proto::names::{SpiffeId, Workload};
use weft_proto::v1;
use weft_proto::v1::identity_server::Identity;

use crate::authority::{Authority, AuthorityError, Leaf};
use crate::clock::unix_now;
use crate::csr;
use crate::metrics::{Metrics, Outcome};
use crate::peer::Peer;
use crate::tls::own_identity;
use crate::tokens::{Grant, TokenError, Tokens};

/// Requests that are signed at once. Source: Weft's own; a signature takes a fraction of a millisecond.
const SIGNING: usize = 16;
/// Requests that may wait or be signed; more are told to come back. Source: a thousand sidecars that
/// start at once are served within a second.
pub const WAITING: usize = 1_024;
/// Largest request message. Source: a CSR of at most 8 KiB and a token.
pub const REQUEST_LIMIT: usize = 32 * 1024;
/// Deadline of one request. Source: Weft's own; covers a slow disk under the state directory.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Service account of a workload by the model; none: the workload is not known.
pub type Accounts = Arc<dyn Fn(&Workload) -> Option<String> + Send + Sync>;

/// The service.
#[derive(Clone)]
pub struct Certify {
    authority: Arc<Authority>,
    tokens: Arc<Mutex<Tokens>>,
    accounts: Accounts,
    metrics: Metrics,
    turns: Arc<Semaphore>,
}

/// What the caller is given, and by which token.
struct Decision {
    id: SpiffeId,
    grant: Option<Grant>,
}

impl Certify {
    /// A service that signs with `authority` what `tokens` and `accounts` allow.
    pub fn new(authority: Arc<Authority>, tokens: Tokens, accounts: Accounts, metrics: Metrics) -> Self {
        Self {
            authority,
            tokens: Arc::new(Mutex::new(tokens)),
            accounts,
            metrics,
            turns: Arc::new(Semaphore::new(SIGNING)),
        }
    }

    fn answer(&self, request: &v1::SignRequest, peer: &Peer) -> Result<v1::SignResponse, Status> {
        let decision = self.decide(request, peer)?;
        let key = csr::proven_key(&request.csr).map_err(|bad| Status::invalid_argument(bad.to_string()))?;
        let leaf = self.authority.sign(&decision.id, &key).map_err(|error| not_ready(&error))?;
        if let Some(grant) = &decision.grant {
            self.tokens().spend(grant).map_err(|error| token_status(&error))?;
        }
        let kind = if decision.grant.is_some() { Outcome::Join } else { Outcome::Renewal };
        Metrics::count(&self.metrics.certificates, kind);
        let (id, workload) = (decision.id.to_string(), request.workload.as_str());
        tracing::info!(%id, workload, not_after = leaf.not_after, "certificate issued");
        Ok(self.response(&leaf))
    }

    fn decide(&self, request: &v1::SignRequest, peer: &Peer) -> Result<Decision, Status> {
        let workload: Workload = request
            .workload
            .parse()
            .map_err(|bad: weft_proto::names::BadName| Status::invalid_argument(bad.to_string()))?;
        let decision = match request.token.as_str() {
            "" => Decision { id: self.renewed(&workload, peer)?, grant: None },
            token => self.joined(&workload, token)?,
        };
        if decision.id == own_identity(self.authority.trust_domain()) {
            return Err(Status::permission_denied("the control plane's own identity is never given away"));
        }
        Ok(decision)
    }

    /// A peer with a certificate keeps the identity it proved, for a workload that may have it.
    fn renewed(&self, workload: &Workload, peer: &Peer) -> Result<SpiffeId, Status> {
        let proven = peer.identity.as_ref().ok_or_else(|| {
            Status::unauthenticated("neither a join token nor a certificate: give one of them")
        })?;
        if proven.not_after <= unix_now() {
            return Err(Status::unauthenticated("the certificate has expired: join again with a token"));
        }
        let id = proven.id.clone();
        let account = (self.accounts)(workload);
        if id.namespace != workload.namespace || account.is_some_and(|account| account != id.service_account)
        {
            return Err(Status::permission_denied(format!("{id} does not speak for workload {workload}")));
        }
        Ok(id)
    }

    fn joined(&self, workload: &Workload, token: &str) -> Result<Decision, Status> {
        let grant = {
            let mut tokens = self.tokens();
            if let Err(reason) = tokens.reload() {
                tracing::error!(reason, "join tokens were not reloaded; the last good list stays");
            }
            tokens.grant(token, unix_now()).map_err(|error| token_status(&error))?
        };
        let denied = || {
            Status::permission_denied(format!(
                "the join token does not speak for workload {workload}: check its entry in the token file"
            ))
        };
        if grant.workload.as_ref().is_some_and(|only| only != workload) {
            return Err(denied());
        }
        let known = (self.accounts)(workload);
        let service_account = match (&grant.service_account, known) {
            (Some(account), _) if account.namespace != workload.namespace => return Err(denied()),
            (Some(account), Some(known)) if account.name != known => return Err(denied()),
            (Some(account), _) => account.name.clone(),
            (None, Some(known)) => known,
            (None, None) => {
                return Err(Status::unavailable(format!(
                    "workload {workload} is not known yet, and the token names no service account: \
                     add its Pod to the manifests, or serviceAccount to the token"
                )));
            }
        };
        let trust_domain = self.authority.trust_domain().to_owned();
        let id = SpiffeId { trust_domain, namespace: workload.namespace.clone(), service_account };
        Ok(Decision { id, grant: Some(grant) })
    }

    fn response(&self, leaf: &Leaf) -> v1::SignResponse {
        let der = |certificate: &rustls_pki_types::CertificateDer<'_>| Bytes::copy_from_slice(certificate);
        v1::SignResponse {
            chain: leaf.chain.iter().map(der).collect(),
            trust: Some(v1::Trust {
                trust_domain: self.authority.trust_domain().to_owned(),
                roots: self.authority.roots().iter().map(der).collect(),
            }),
            not_after: leaf.not_after,
            renew_after: leaf.renew_after,
        }
    }

    fn tokens(&self) -> std::sync::MutexGuard<'_, Tokens> {
        // A panic elsewhere leaves the list as it was: entries are replaced whole.
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl Identity for Certify {
    async fn sign(&self, request: Request<v1::SignRequest>) -> Result<Response<v1::SignResponse>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.ok_or_else(|| Status::internal("the connection's peer is not known"))?;
        let (this, request) = (self.clone(), request.into_inner());
        let workload = request.workload.clone();
        let address = peer.address;
        let turns = Arc::clone(&self.turns);
        let work = async move {
            let turn = turns.acquire_owned().await.map_err(|_| Status::unavailable("stopping"))?;
            // Signing and the token's file are blocking work, away from the streams.
            let work = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                this.answer(&request, &peer)
            });
            work.await.unwrap_or_else(|_| Err(Status::internal("signing failed")))
        };
        let answer = tokio::time::timeout(DEADLINE, work).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::unavailable("signing took too long")));
        if let Err(status) = &answer {
            Metrics::count(&self.metrics.certificates, outcome(status));
            tracing::warn!(%address, workload, code = ?status.code(), reason = status.message(), "no certificate");
        }
        answer.map(Response::new)
    }
}

fn outcome(status: &Status) -> Outcome {
    match status.code() {
        tonic::Code::InvalidArgument => Outcome::BadRequest,
        tonic::Code::Unauthenticated => Outcome::BadProof,
        tonic::Code::PermissionDenied => Outcome::NotAllowed,
        _ => Outcome::NotReady,
    }
}

fn token_status(error: &TokenError) -> Status {
    match error {
        TokenError::Unknown | TokenError::Expired | TokenError::Used => {
            Status::unauthenticated(format!("{error}: ask for a fresh one"))
        }
        TokenError::Unrecorded(reason) => {
            tracing::error!(reason, "the use of a join token cannot be recorded");
            Status::unavailable("the use of the join token cannot be recorded")
        }
    }
}

fn not_ready(error: &AuthorityError) -> Status {
    tracing::error!(%error, "the authority cannot sign");
    Status::unavailable("the authority cannot sign; its log says why")
}
