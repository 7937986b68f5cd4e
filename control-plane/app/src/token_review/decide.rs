//! What a reviewed token proves, as a pure decision.
//!
//! Invariant: everything that is not said by the API server in so many words is a refusal.

use std::collections::BTreeMap;

use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use weft_proto::names::Workload;

use crate::kubernetes::roll::KnownPod;

/// Audience of the sidecars' tokens. Source: the contract; a token for anything else proves nothing here.
pub const AUDIENCE: &str = "weft.dev";
/// How a service account is called. Source: Kubernetes, service account tokens.
const ACCOUNT: &str = "system:serviceaccount:";
/// The pod that a token is bound to. Source: Kubernetes, bound service account tokens.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
/// Its uid. Source: as for the name.
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
/// Its node; since Kubernetes 1.30. Source: as for the name.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// What a token proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The pod it is bound to.
    pub workload: Workload,
    /// What tells that pod from another of the same name.
    pub uid: String,
    /// The pod's service account.
    pub service_account: String,
    /// The pod's node; none: the API server is too old to say.
    pub node: Option<String>,
}

/// Why a caller gets no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The API server does not know the token.
    #[error("the API server does not accept the token: it is not one of this cluster, or its pod is gone")]
    Forged,
    /// The token's time is over.
    #[error("the token has expired: the kubelet writes a fresh one; read the file again")]
    Expired,
    /// The token is meant for somebody else.
    #[error("the token is not for the audience {AUDIENCE:?}: mount the projected token of the injector")]
    WrongAudience,
    /// The token is no pod's.
    #[error("the token is not bound to a pod: mount a projected token, not a long-lived one")]
    NotAPod,
    /// The token is another pod's.
    #[error("the token is another pod's: each sidecar signs in with the token of its own pod")]
    AnotherPod,
    /// Token and pod do not agree about the service account or the node.
    #[error("the token's service account or node is not the pod's")]
    Mismatch,
    /// The pod has ended.
    #[error("the pod has ended")]
    Ended,
    /// The control plane has not seen the pod.
    #[error("the pod is not known yet: try again; if that stays so, look at the control plane's watches")]
    UnknownPod,
    /// The API server did not answer.
    #[error("the API server does not review tokens for now: try again")]
    Unanswered,
}

impl Proven {
    /// Whether the caller is who it says.
    ///
    /// # Errors
    /// It is another pod.
    pub fn is_for(&self, workload: &Workload) -> Result<(), Refusal> {
        if self.workload == *workload { Ok(()) } else { Err(Refusal::AnotherPod) }
    }
}

/// What the API server says of a token.
///
/// # Errors
/// [`Refusal`], when that is no proof.
pub fn decide(status: &TokenReviewStatus) -> Result<Proven, Refusal> {
    if status.authenticated != Some(true) {
        return Err(unauthenticated(status.error.as_deref().unwrap_or_default()));
    }
    if !status.audiences.iter().flatten().any(|audience| audience == AUDIENCE) {
        return Err(Refusal::WrongAudience);
    }
    let user = status.user.as_ref().ok_or(Refusal::NotAPod)?;
    let account = user.username.as_deref().and_then(|name| name.strip_prefix(ACCOUNT));
    let (namespace, service_account) =
        account.and_then(|name| name.split_once(':')).ok_or(Refusal::NotAPod)?;
    let extra = user.extra.as_ref().ok_or(Refusal::NotAPod)?;
    let (pod, uid) = (only(extra, POD_NAME), only(extra, POD_UID));
    let (Some(pod), Some(uid)) = (pod, uid) else { return Err(Refusal::NotAPod) };
    let workload = format!("{namespace}/{pod}").parse().map_err(|_| Refusal::NotAPod)?;
    if service_account.is_empty() || service_account.contains(':') {
        return Err(Refusal::NotAPod);
    }
    Ok(Proven {
        workload,
        uid: uid.to_owned(),
        service_account: service_account.to_owned(),
        node: only(extra, NODE_NAME).map(str::to_owned),
    })
}

/// Whether a proof agrees with the pod of the same name and uid; gives the pod's service account.
///
/// # Errors
/// It does not, or the pod has ended.
pub fn holds_for(proven: &Proven, known: &KnownPod) -> Result<String, Refusal> {
    if proven.uid != known.uid {
        return Err(Refusal::AnotherPod);
    }
    if known.ended {
        return Err(Refusal::Ended);
    }
    let elsewhere = proven.node.as_ref().is_some_and(|node| !known.node.is_empty() && *node != known.node);
    if elsewhere || proven.service_account != known.service_account {
        return Err(Refusal::Mismatch);
    }
    Ok(known.service_account.clone())
}

/// The one value of an entry; none where there are several.
fn only<'a>(extra: &'a BTreeMap<String, Vec<String>>, name: &str) -> Option<&'a str> {
    match extra.get(name).map(Vec::as_slice) {
        Some([value]) if !value.is_empty() => Some(value),
        _ => None,
    }
}

/// The API server says why only as text.
fn unauthenticated(error: &str) -> Refusal {
    if error.contains("expired") {
        Refusal::Expired
    } else if error.contains("audience") {
        Refusal::WrongAudience
    } else {
        Refusal::Forged
    }
}
