//! Whether a failed attempt may be made again.
//!
//! Asked by the relay after an attempt failed; the budget is asked next.
//!
//! Invariant: without the user's word only what was provably not processed is sent twice; a reset
//! before the answer only for idempotent methods.

use http::Method;

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No connection was made: refused, timed out, TLS failed.
    Connect,
    /// The peer says it did not process the request: `REFUSED_STREAM`, or above GOAWAY's last stream.
    Unprocessed,
    /// A reused connection was closed before it took the request.
    StaleConnection,
    /// Reset or closed before the first byte of the answer.
    ResetBeforeAnswer,
    /// The deadline of the attempt passed.
    AttemptTimeout,
    /// The answer had begun.
    AnswerBegan,
    /// The endpoint proved a wrong identity.
    WrongIdentity,
}

/// Field by which an inbound sidecar says, in an answer of its own, what its application can have seen of
/// the request; taken from proven sidecars only, and never passed on.
pub const UNANSWERED: &str = "weft-unanswered";

impl Failure {
    /// The word in [`UNANSWERED`] for a request that failed so between a sidecar and its application;
    /// `None`: the caller's sidecar has no use for it.
    #[must_use]
    pub fn told(self) -> Option<&'static str> {
        match self {
            Self::Connect | Self::Unprocessed | Self::StaleConnection => Some("unprocessed"),
            Self::ResetBeforeAnswer => Some("reset"),
            Self::AttemptTimeout | Self::AnswerBegan | Self::WrongIdentity => None,
        }
    }

    /// What the word says.
    #[must_use]
    pub fn heard(word: &[u8]) -> Option<Self> {
        match word {
            b"unprocessed" => Some(Self::Unprocessed),
            b"reset" => Some(Self::ResetBeforeAnswer),
            _ => None,
        }
    }

    /// The worse of two failures of one request: what the second proves, the first may spoil.
    #[must_use]
    pub fn after(self, earlier: Option<Self>) -> Self {
        match earlier {
            Some(Self::ResetBeforeAnswer) if self.told().is_some() => Self::ResetBeforeAnswer,
            _ => self,
        }
    }
}

/// Whether attempt number `attempt` (from 1), having failed so, may be followed by another.
///
/// `replayable` says that no byte of the request's body is lost. `is_retry` says that the downstream
/// marked the request as a retry of its own: such a request is tried again only where nothing
/// processed it, so that retries do not multiply along a chain of calls.
#[must_use]
pub fn may_retry(failure: Failure, method: &Method, replayable: bool, attempt: u32, is_retry: bool) -> bool {
    replayable
        && attempt < MAX_ATTEMPTS
        && match failure {
            // The endpoint list may be newer than a pod that took over its address: another endpoint
            // can be right where this one was wrong.
            Failure::Connect | Failure::Unprocessed | Failure::StaleConnection | Failure::WrongIdentity => {
                true
            }
            Failure::ResetBeforeAnswer => method.is_idempotent() && !is_retry,
            Failure::AttemptTimeout | Failure::AnswerBegan => false,
        }
}

/// Attempts in all. Source: Istio's default, two retries.
pub const MAX_ATTEMPTS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_not_processed_is_sent_twice() {
        use Failure::*;
        let rows = [
            (Connect, Method::POST, true),
            (Unprocessed, Method::POST, true),
            (StaleConnection, Method::POST, true),
            (WrongIdentity, Method::POST, true),
            (ResetBeforeAnswer, Method::POST, false),
            (ResetBeforeAnswer, Method::PATCH, false),
            (ResetBeforeAnswer, Method::GET, true),
            (ResetBeforeAnswer, Method::PUT, true),
            (ResetBeforeAnswer, Method::DELETE, true),
            (AttemptTimeout, Method::GET, false),
            (AnswerBegan, Method::GET, false),
        ];
        for (failure, method, expected) in rows {
            assert_eq!(may_retry(failure, &method, true, 1, false), expected, "{failure:?} {method}");
            assert!(!may_retry(failure, &method, false, 1, false), "a lost body is never replayed");
            assert!(!may_retry(failure, &method, true, MAX_ATTEMPTS, false), "attempts end");
        }
    }

    #[test]
    fn what_a_sidecar_tells_is_what_its_peer_hears() {
        use Failure::*;
        for (failure, heard) in [
            (Connect, Some(Unprocessed)),
            (Unprocessed, Some(Unprocessed)),
            (StaleConnection, Some(Unprocessed)),
            (ResetBeforeAnswer, Some(ResetBeforeAnswer)),
            (AttemptTimeout, None),
            (AnswerBegan, None),
            (WrongIdentity, None),
        ] {
            assert_eq!(failure.told().and_then(|word| Failure::heard(word.as_bytes())), heard, "{failure:?}");
        }
        assert_eq!(Failure::heard(b"processed"), None);
    }

    #[test]
    fn a_request_that_was_once_seen_is_not_called_unprocessed_later() {
        use Failure::*;
        assert_eq!(Connect.after(Some(ResetBeforeAnswer)), ResetBeforeAnswer);
        assert_eq!(Connect.after(Some(StaleConnection)), Connect);
        assert_eq!(AnswerBegan.after(Some(ResetBeforeAnswer)), AnswerBegan);
        assert_eq!(Connect.after(None), Connect);
    }

    #[test]
    fn a_retry_is_not_retried_once_an_endpoint_had_it() {
        assert!(!may_retry(Failure::ResetBeforeAnswer, &Method::GET, true, 1, true));
        assert!(may_retry(Failure::Connect, &Method::GET, true, 1, true));
    }
}
