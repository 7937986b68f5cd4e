//! Why a caller gets no certificate: as an answer for it, and as a count.
//!
//! Invariant: a message says what to do, and never holds a token.

use tonic::Status;

use crate::csr::BadRequest;
use crate::metrics::Outcome;
use crate::token_review::decide::Refusal;

/// A refusal.
#[derive(Debug)]
pub(super) struct Refused {
    /// How it is counted.
    pub(super) outcome: Outcome,
    /// What the caller is told.
    pub(super) status: Status,
}

impl Refused {
    /// The request makes no sense.
    pub(super) fn bad(text: impl Into<String>) -> Self {
        Self { outcome: Outcome::BadRequest, status: Status::invalid_argument(text) }
    }

    /// The certificate request does not prove a key.
    pub(super) fn forged_csr(bad: &BadRequest) -> Self {
        Self { outcome: Outcome::BadCsr, status: Status::invalid_argument(bad.to_string()) }
    }

    /// The proof is none.
    pub(super) fn proof(text: impl Into<String>) -> Self {
        Self { outcome: Outcome::BadProof, status: Status::unauthenticated(text) }
    }

    /// The proof is for something else.
    pub(super) fn denied(text: impl Into<String>) -> Self {
        Self { outcome: Outcome::NotAllowed, status: Status::permission_denied(text) }
    }

    /// Not now.
    pub(super) fn not_ready(text: impl Into<String>) -> Self {
        Self { outcome: Outcome::NotReady, status: Status::unavailable(text) }
    }

    /// A fault of ours.
    pub(super) fn internal(text: &str) -> Self {
        Self { outcome: Outcome::NotReady, status: Status::internal(text) }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        let (outcome, status) = match refusal {
            Refusal::Forged => (Outcome::ForgedToken, Status::unauthenticated(text)),
            Refusal::Expired => (Outcome::ExpiredToken, Status::unauthenticated(text)),
            Refusal::WrongAudience => (Outcome::WrongAudience, Status::unauthenticated(text)),
            Refusal::NotAPod => (Outcome::NotAPod, Status::permission_denied(text)),
            Refusal::AnotherPod => (Outcome::AnotherPod, Status::permission_denied(text)),
            Refusal::Mismatch => (Outcome::NotAllowed, Status::permission_denied(text)),
            Refusal::Ended => (Outcome::NotAllowed, Status::permission_denied(text)),
            Refusal::UnknownPod => (Outcome::UnknownPod, Status::unavailable(text)),
            Refusal::Unanswered => (Outcome::NotReady, Status::unavailable(text)),
        };
        Self { outcome, status }
    }
}
