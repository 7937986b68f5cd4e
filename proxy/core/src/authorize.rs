//! Who may do what: AuthorizationPolicies, compiled, and the verdicts they give.
//!
//! After detect, before route on the inbound side: [`crate::Inbound`] asks its policies in order.
//!
//! Invariant: Deny beats Allow; with an Allow policy in force all else is denied; a policy that has
//! not arrived denies everything.

mod policy;

use std::net::IpAddr;
use std::sync::Arc;

use crate::names::{Identity, Name};
use crate::reason::Reason;

pub use policy::Policy;
pub(crate) use policy::{Asked, Lack, Operation, PathRule, Rule, Source, judged, together};

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What mTLS proved; `None`: plaintext.
    pub identity: Option<Identity>,
    /// Address of the peer.
    pub address: IpAddr,
}

/// What the policies say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass.
    Allowed {
        /// The rule that allowed it; `None`: no Allow policy is in force.
        by: Option<RuleRef>,
    },
    /// It may not.
    Denied {
        /// What denied it.
        by: Denial,
    },
}

/// What denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// A rule of a Deny policy.
    Rule(RuleRef),
    /// Allow policies are in force and no rule of theirs allows it: their names, and no rule.
    NoRuleAllows(RuleRef),
    /// A policy that applies has not arrived.
    PolicyMissing(Name),
    /// Plaintext, where mTLS is demanded: by what, when the control plane said so.
    MutualTlsRequired(Option<Name>),
    /// Policies on paths are in force, and the path has two meanings: their names.
    AmbiguousPath(Name),
}

/// A rule, or policies without one, for logs, metrics and `weft explain`; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRef(Arc<RuleName>);

/// The names of a rule.
#[derive(Debug, PartialEq, Eq)]
pub struct RuleName {
    /// The policy, `<namespace>/<name>`; where no rule decided it may be several.
    pub policy: Name,
    /// The rule's name, or its index; empty where none decided.
    pub rule: Arc<str>,
    /// Both, as logs name them: `<namespace>/<name>#<rule>`.
    pub full: Name,
}

impl std::ops::Deref for RuleRef {
    type Target = RuleName;

    fn deref(&self) -> &RuleName {
        &self.0
    }
}

impl std::fmt::Display for RuleRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.full.fmt(f)
    }
}

impl Verdict {
    /// Whether it may pass.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        match self {
            Self::Allowed { .. } => true,
            Self::Denied { .. } => false,
        }
    }
}

impl Denial {
    /// The policy that denied, as logs name it; `None`: mTLS that no policy demands.
    #[must_use]
    pub fn policy(&self) -> Option<&Name> {
        match self {
            Self::Rule(rule) | Self::NoRuleAllows(rule) => Some(&rule.full),
            Self::PolicyMissing(policy) | Self::AmbiguousPath(policy) => Some(policy),
            Self::MutualTlsRequired(policy) => policy.as_ref(),
        }
    }

    /// The reason in logs, metrics and replies.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Rule(_) | Self::NoRuleAllows(_) => Reason::DeniedByPolicy,
            Self::PolicyMissing(_) => Reason::PolicyMissing,
            Self::MutualTlsRequired(_) => Reason::MtlsRequired,
            Self::AmbiguousPath(_) => Reason::AmbiguousPath,
        }
    }
}

impl std::fmt::Display for Denial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rule(rule) => write!(f, "denied by {rule}"),
            Self::NoRuleAllows(policies) => write!(f, "no rule of {policies} allows it"),
            Self::PolicyMissing(policy) => write!(f, "{policy} has not arrived"),
            Self::MutualTlsRequired(None) => f.write_str("mutual TLS is required"),
            Self::MutualTlsRequired(Some(policy)) => write!(f, "mutual TLS is required by {policy}"),
            Self::AmbiguousPath(policies) => {
                write!(f, "the path is ambiguous, and {policies} looks at paths")
            }
        }
    }
}

#[cfg(test)]
mod tests;
