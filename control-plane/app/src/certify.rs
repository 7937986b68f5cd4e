//! `Identity.Sign`: decides whether a caller may have an identity, and signs it.
//!
//! Before it: `listen` proved who the peer is, if it showed a certificate. After it: the sidecar
//! holds a chain and opens its stream with it.
//!
//! Invariant: an identity is given for a proof that speaks for it, or renewed for a peer that proved
//! that very identity; nothing else.
//! Invariant: a join token counts as used once a certificate was signed for it, and before it leaves.

mod refused;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use weft_proto::names::{SpiffeId, Workload};
use weft_proto::v1;
use weft_proto::v1::identity_server::Identity;

use self::refused::Refused;
use crate::authority::{Authority, AuthorityError, Leaf};
use crate::clock::unix_now;
use crate::csr;
use crate::kubernetes::events::{Events, reference};
use crate::metrics::{Metrics, Outcome};
use crate::peer::Peer;
use crate::token_review::TokenReviewer;
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

/// How a caller without a certificate proves who it is.
#[derive(Clone)]
pub enum Proofs {
    /// By a join token of the operator's list; the model knows the service accounts.
    JoinTokens(Arc<Mutex<Tokens>>, Accounts),
    /// By the token of its pod, which the API server reviews.
    TokenReview(Arc<TokenReviewer>),
}

/// The service.
#[derive(Clone)]
pub struct Certify {
    authority: Arc<Authority>,
    own: SpiffeId,
    proofs: Proofs,
    metrics: Metrics,
    turns: Arc<Semaphore>,
    events: Events,
    /// Told of what is issued, so that a sidecar's stream shows the certificate that is in use.
    status: Arc<crate::status::Status>,
}

/// What the caller is given, and by which proof.
struct Decision {
    id: SpiffeId,
    proof: Proof,
}

enum Proof {
    Certificate,
    JoinToken(Grant),
    Pod,
}

impl Certify {
    /// A service that signs with `authority` what `proofs` allow; `own` is the control plane's identity,
    /// which nobody gets.
    pub fn new(authority: Arc<Authority>, own: SpiffeId, proofs: Proofs, metrics: Metrics) -> Self {
        let turns = Arc::new(Semaphore::new(SIGNING));
        let (events, status) = (Events::nowhere(), Arc::default());
        Self { authority, own, proofs, metrics, turns, events, status }
    }

    /// Tells people of callers that prove to be somebody else than they ask to be. Whoever proves nothing
    /// is only logged and counted: a stranger must not write events about pods of his choice.
    pub fn telling(self, events: Events) -> Self {
        Self { events, ..self }
    }

    /// Notes what is issued in the status of connected sidecars.
    pub fn noting(self, status: Arc<crate::status::Status>) -> Self {
        Self { status, ..self }
    }

    async fn answer(&self, request: v1::SignRequest, peer: &Peer) -> Result<v1::SignResponse, Refused> {
        let workload: Workload = request
            .workload
            .parse()
            .map_err(|bad: weft_proto::names::BadName| Refused::bad(bad.to_string()))?;
        let decision = match request.token.as_str() {
            "" => Decision { id: self.renewed(&workload, peer).await?, proof: Proof::Certificate },
            token => self.joined(&workload, token).await?,
        };
        if decision.id == self.own {
            return Err(Refused::denied("the control plane's own identity is never given away"));
        }
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|_| Refused::not_ready("stopping"))?;
        let this = self.clone();
        // Signing and the list of tokens are blocking work, away from the streams.
        let work = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            this.issue(&workload, &decision, &request.csr)
        });
        work.await.unwrap_or_else(|_| Err(Refused::internal("signing failed")))
    }

    fn issue(
        &self,
        workload: &Workload,
        decision: &Decision,
        csr: &[u8],
    ) -> Result<v1::SignResponse, Refused> {
        let key = csr::proven_key(csr).map_err(|bad| Refused::forged_csr(&bad))?;
        let leaf = self.authority.sign(&decision.id, &key).map_err(|error| not_ready(&error))?;
        let kind = match (&decision.proof, &self.proofs) {
            (Proof::JoinToken(grant), Proofs::JoinTokens(tokens, _)) => {
                lock(tokens).spend(grant).map_err(|error| refused_token(&error))?;
                Outcome::Join
            }
            (Proof::Certificate, _) => Outcome::Renewal,
            (Proof::Pod | Proof::JoinToken(_), _) => Outcome::Join,
        };
        Metrics::count(&self.metrics.certificates, kind);
        self.status.certified(&workload.to_string(), leaf.not_after);
        let id = decision.id.to_string();
        tracing::info!(%id, %workload, not_after = leaf.not_after, "certificate issued");
        Ok(self.response(&leaf))
    }

    /// A peer with a certificate keeps the identity it proved, for a workload that may have it.
    async fn renewed(&self, workload: &Workload, peer: &Peer) -> Result<SpiffeId, Refused> {
        let proven = peer
            .identity
            .as_ref()
            .ok_or_else(|| Refused::proof("neither a token nor a certificate: give one of them"))?;
        if proven.not_after <= unix_now() {
            return Err(Refused::proof("the certificate has expired: join again with a token"));
        }
        let id = proven.id.clone();
        let account = match &self.proofs {
            Proofs::JoinTokens(_, accounts) => accounts(workload),
            Proofs::TokenReview(reviewer) => Some(reviewer.still_there(workload).await?),
        };
        if id.namespace != workload.namespace || account.is_some_and(|account| account != id.service_account)
        {
            return Err(Refused::denied(format!("{id} does not speak for workload {workload}")));
        }
        Ok(id)
    }

    async fn joined(&self, workload: &Workload, token: &str) -> Result<Decision, Refused> {
        let (service_account, proof) = match &self.proofs {
            Proofs::TokenReview(reviewer) => (reviewer.prove(workload, token).await?, Proof::Pod),
            Proofs::JoinTokens(tokens, accounts) => {
                let (tokens, token) = (Arc::clone(tokens), token.to_owned());
                let granted = tokio::task::spawn_blocking(move || granted(&tokens, &token)).await;
                let grant = granted.unwrap_or_else(|_| Err(Refused::internal("reading tokens failed")))?;
                (account_of(&grant, workload, accounts(workload))?, Proof::JoinToken(grant))
            }
        };
        let trust_domain = self.authority.trust_domain().to_owned();
        let id = SpiffeId { trust_domain, namespace: workload.namespace.clone(), service_account };
        Ok(Decision { id, proof })
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
}

#[tonic::async_trait]
impl Identity for Certify {
    async fn sign(&self, request: Request<v1::SignRequest>) -> Result<Response<v1::SignResponse>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.ok_or_else(|| Status::internal("the connection's peer is not known"))?;
        let request = request.into_inner();
        let workload = request.workload.clone();
        let answer = tokio::time::timeout(DEADLINE, self.answer(request, &peer)).await;
        let answer = answer.unwrap_or_else(|_| Err(Refused::not_ready("signing took too long")));
        answer.map(Response::new).map_err(|Refused { outcome, status }| {
            Metrics::count(&self.metrics.certificates, outcome);
            let (address, reason) = (peer.address, status.message());
            tracing::warn!(%address, workload, ?outcome, reason, "no certificate");
            if outcome == Outcome::NotAllowed
                && let Some((namespace, pod)) = workload.split_once('/')
            {
                self.events.warn(&reference("v1", "Pod", namespace, pod), "CertificateRefused", reason);
            }
            status
        })
    }
}

/// What a join token grants now.
fn granted(tokens: &Mutex<Tokens>, token: &str) -> Result<Grant, Refused> {
    let mut tokens = lock(tokens);
    if let Err(reason) = tokens.reload() {
        tracing::error!(reason, "join tokens were not reloaded; the last good list stays");
    }
    tokens.grant(token, unix_now()).map_err(|error| refused_token(&error))
}

/// The service account that a join token gives a workload.
fn account_of(grant: &Grant, workload: &Workload, known: Option<String>) -> Result<String, Refused> {
    let denied = || {
        Refused::denied(format!(
            "the join token does not speak for workload {workload}: check its entry in the token file"
        ))
    };
    if grant.workload.as_ref().is_some_and(|only| only != workload) {
        return Err(denied());
    }
    match (&grant.service_account, known) {
        (Some(account), _) if account.namespace != workload.namespace => Err(denied()),
        (Some(account), Some(known)) if account.name != known => Err(denied()),
        (Some(account), _) => Ok(account.name.clone()),
        (None, Some(known)) => Ok(known),
        (None, None) => Err(Refused::not_ready(format!(
            "workload {workload} is not known yet, and the token names no service account: \
             add its Pod to the manifests, or serviceAccount to the token"
        ))),
    }
}

fn lock(tokens: &Mutex<Tokens>) -> std::sync::MutexGuard<'_, Tokens> {
    // A panic elsewhere leaves the list as it was: entries are replaced whole.
    tokens.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused_token(error: &TokenError) -> Refused {
    match error {
        TokenError::Unknown | TokenError::Expired | TokenError::Used => {
            Refused::proof(format!("{error}: ask for a fresh one"))
        }
        TokenError::Unrecorded(reason) => {
            tracing::error!(reason, "the use of a join token cannot be recorded");
            Refused::not_ready("the use of the join token cannot be recorded")
        }
    }
}

fn not_ready(error: &AuthorityError) -> Refused {
    tracing::error!(%error, "the authority cannot sign");
    Refused::not_ready("the authority cannot sign; its log says why")
}
