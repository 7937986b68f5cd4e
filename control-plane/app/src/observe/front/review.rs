//! Whether a user may ask: the API server says so, and its word counts for some seconds.
//!
//! Invariant: without a word of the API server nobody may.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{Instant, timeout};

use super::headers::User;

/// How long a word counts. Source: Weft's own; short, because rights are taken away as well.
const KEPT: Duration = Duration::from_secs(5);
/// Words kept. Source: Weft's own; users at once.
const WORDS: usize = 512;
/// Time for the API server. Source: as for a token review.
const DEADLINE: Duration = Duration::from_secs(5);

/// What the API server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The user may.
    Allowed,
    /// It may not; the authorizer's reason, if it gives one.
    Denied(String),
    /// It does not say.
    Unknown(String),
}

/// Who, verb, resource, namespace.
type Asked = (User, &'static str, String, String);

/// Asks the API server.
pub(super) struct Review {
    client: Client,
    words: Mutex<HashMap<Asked, (Instant, Verdict)>>,
}

impl Review {
    pub(super) fn new(client: Client) -> Self {
        Self { client, words: Mutex::default() }
    }

    /// Whether `user` may; `namespace` empty: everywhere.
    pub(super) async fn ask(
        &self,
        user: &User,
        verb: &'static str,
        group: &str,
        resource: &str,
        namespace: &str,
    ) -> Verdict {
        let asked = (user.clone(), verb, resource.to_owned(), namespace.to_owned());
        if let Some(known) = self.known(&asked) {
            return known;
        }
        let attributes = ResourceAttributes {
            group: Some(group.to_owned()),
            resource: Some(resource.to_owned()),
            verb: Some(verb.to_owned()),
            namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
            ..ResourceAttributes::default()
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                uid: (!user.uid.is_empty()).then(|| user.uid.clone()),
                groups: Some(user.groups.clone()),
                extra: Some(user.extra.clone()),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let verdict = match timeout(DEADLINE, api.create(&PostParams::default(), &review)).await {
            Ok(Ok(review)) => verdict(review.status),
            Ok(Err(error)) => Verdict::Unknown(format!("the API server does not say who may look: {error}")),
            Err(_) => Verdict::Unknown("the API server does not say in time who may look".to_owned()),
        };
        self.keep(asked, &verdict);
        verdict
    }

    fn known(&self, asked: &Asked) -> Option<Verdict> {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.get(asked).filter(|(until, _)| Instant::now() < *until).map(|(_, verdict)| verdict.clone())
    }

    fn keep(&self, asked: Asked, verdict: &Verdict) {
        if matches!(verdict, Verdict::Unknown(_)) {
            return;
        }
        let now = Instant::now();
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        if words.len() >= WORDS {
            words.retain(|_, (until, _)| now < *until);
        }
        if words.len() < WORDS {
            words.insert(asked, (now + KEPT, verdict.clone()));
        }
    }
}

fn verdict(status: Option<SubjectAccessReviewStatus>) -> Verdict {
    let Some(status) = status else { return Verdict::Unknown("the API server says nothing".to_owned()) };
    if status.allowed && status.denied != Some(true) {
        return Verdict::Allowed;
    }
    match status.evaluation_error.filter(|error| !error.is_empty()) {
        Some(error) if status.denied != Some(true) => Verdict::Denied(error),
        _ => Verdict::Denied(status.reason.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_yes_is_one() {
        let status = |allowed, denied| {
            Some(SubjectAccessReviewStatus { allowed, denied, ..SubjectAccessReviewStatus::default() })
        };
        assert_eq!(verdict(status(true, None)), Verdict::Allowed);
        assert!(matches!(verdict(status(true, Some(true))), Verdict::Denied(_)));
        assert!(matches!(verdict(status(false, None)), Verdict::Denied(_)));
        assert!(matches!(verdict(None), Verdict::Unknown(_)));
    }
}
