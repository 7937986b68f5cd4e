//! Asks the API server whose token a caller shows, and holds the answer against the pod that the control
//! plane knows.
//!
//! Before it: `certify` has a request with a token. After it: it signs for exactly that pod's identity.
//!
//! Invariant: pod and account are the token's own words, vouched for by the API server; the caller's word
//! only has to agree with them.
//! Invariant: a token is sent to the API server and nowhere else: not to the log, not into an error, not
//! into the cache, which knows its SHA-256.

pub mod decide;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::Client;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use weft_proto::names::Workload;

use self::decide::{AUDIENCE, Proven, Refusal, decide, holds_for};
use crate::kubernetes::roll::Roll;

/// Reviews under way at once. Source: Weft's own; the API server answers one within milliseconds, and
/// counts them against the same budget as all else.
const AT_ONCE: usize = 16;
/// Time for one review. Source: the API server's own default for its webhooks is as long.
const REVIEW: Duration = Duration::from_secs(5);
/// How long a pod may be unseen. Source: a watch is behind by milliseconds; a sidecar tries again anyway.
const UNSEEN: Duration = Duration::from_secs(3);
/// How long an answer counts. Source: the API server itself keeps good tokens for 10 s.
const KEPT: Duration = Duration::from_secs(10);
/// Answers that are kept. Source: Weft's own; more than start within the time.
const ANSWERS: usize = 4_096;
/// Longest token. Source: a service account's token has about 1 KiB.
const TOKEN_LIMIT: usize = 16 * 1024;

type Hash = [u8; 32];
type Answer = Result<Proven, Refusal>;

/// Who reviews tokens.
pub struct TokenReviewer {
    client: Client,
    roll: Roll,
    turns: Semaphore,
    answers: Mutex<HashMap<Hash, (Instant, Answer)>>,
}

impl std::fmt::Debug for TokenReviewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenReviewer").finish_non_exhaustive()
    }
}

impl TokenReviewer {
    /// Asks the API server behind `client`, and knows the pods of `roll`.
    pub fn new(client: Client, roll: Roll) -> Arc<Self> {
        let answers = Mutex::default();
        Arc::new(Self { client, roll, turns: Semaphore::new(AT_ONCE), answers })
    }

    /// The service account of the pod that a token proves, if that is `workload`.
    ///
    /// # Errors
    /// [`Refusal`]: what is wrong, or what could not be found out for now.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn prove(&self, workload: &Workload, token: &str) -> Result<String, Refusal> {
        let proven = self.review(token).await?;
        proven.is_for(workload)?;
        let known = timeout(UNSEEN, self.roll.wait_for(workload, |pod| pod.uid == proven.uid)).await;
        match known {
            Ok(known) => holds_for(&proven, &known),
            Err(_) => Err(match self.roll.pod(workload) {
                Some(_) => Refusal::AnotherPod,
                None => Refusal::UnknownPod,
            }),
        }
    }

    /// The service account of a pod that has a certificate already: it must still be there.
    ///
    /// # Errors
    /// [`Refusal`], when the pod is not there, or has ended.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn still_there(&self, workload: &Workload) -> Result<String, Refusal> {
        match timeout(UNSEEN, self.roll.wait_for(workload, |_| true)).await {
            Ok(known) if known.ended => Err(Refusal::Ended),
            Ok(known) => Ok(known.service_account),
            Err(_) => Err(Refusal::UnknownPod),
        }
    }

    async fn review(&self, token: &str) -> Answer {
        if token.len() > TOKEN_LIMIT {
            return Err(Refusal::Forged);
        }
        let hash = hash(token);
        if let Some(answer) = self.kept(&hash) {
            return answer;
        }
        let asked = timeout(REVIEW, async {
            let _turn = self.turns.acquire().await.map_err(|_| Refusal::Unanswered)?;
            // Somebody may have asked the same while this waited for its turn.
            match self.kept(&hash) {
                Some(answer) => answer,
                None => self.ask(token).await,
            }
        });
        let answer = asked.await.unwrap_or(Err(Refusal::Unanswered));
        if !matches!(answer, Err(Refusal::Unanswered)) {
            self.keep(hash, answer.clone());
        }
        answer
    }

    async fn ask(&self, token: &str) -> Answer {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![AUDIENCE.to_owned()]),
            },
            ..TokenReview::default()
        };
        let body = serde_json::to_vec(&review).map_err(|_| Refusal::Unanswered)?;
        let request = http::Request::post("/apis/authentication.k8s.io/v1/tokenreviews")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|_| Refusal::Unanswered)?;
        // As text: the client would log an answer that it cannot read, and the token is in it.
        let text = self.client.request_text(request).await.map_err(|error| {
            tracing::warn!(%error, "the API server does not review tokens; check the ClusterRole");
            Refusal::Unanswered
        })?;
        let review: TokenReview = serde_json::from_str(&text).map_err(|_| Refusal::Unanswered)?;
        let status = review.status.unwrap_or_default();
        decide(&status).inspect_err(|refusal| {
            let answer = status.error.as_deref().unwrap_or_default();
            tracing::warn!(%refusal, answer, "a token was not accepted");
        })
    }

    fn kept(&self, hash: &Hash) -> Option<Answer> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, answer) = answers.get(hash)?;
        (Instant::now() < *until).then(|| answer.clone())
    }

    fn keep(&self, hash: Hash, answer: Answer) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if answers.len() >= ANSWERS {
            answers.retain(|_, (until, _)| now < *until);
        }
        if answers.len() < ANSWERS {
            answers.insert(hash, (now + KEPT, answer));
        }
    }
}

fn hash(token: &str) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests;
