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
pub(crate) use policy::{Asked, judged};

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
    /// An Allow policy is in force and no rule allows it.
    NoRuleAllows,
    /// A policy that applies has not arrived.
    PolicyMissing(Name),
    /// Plaintext, where mTLS is demanded.
    MutualTlsRequired,
    /// A policy on paths is in force and the path has two meanings.
    AmbiguousPath,
}

/// A rule, for logs and `weft explain`; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRef(Arc<RuleName>);

/// The names of a rule.
#[derive(Debug, PartialEq, Eq)]
pub struct RuleName {
    /// The policy, `<namespace>/<name>`.
    pub policy: Name,
    /// The rule's name, or its index.
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
        write!(f, "{}#{}", self.policy, self.rule)
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
    /// The reason in logs, metrics and replies.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Rule(_) | Self::NoRuleAllows => Reason::DeniedByPolicy,
            Self::PolicyMissing(_) => Reason::PolicyMissing,
            Self::MutualTlsRequired => Reason::MtlsRequired,
            Self::AmbiguousPath => Reason::AmbiguousPath,
        }
    }
}

impl std::fmt::Display for Denial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rule(rule) => write!(f, "denied by {rule}"),
            Self::NoRuleAllows => f.write_str("no rule allows it"),
            Self::PolicyMissing(policy) => write!(f, "{policy} has not arrived"),
            Self::MutualTlsRequired => f.write_str("mutual TLS is required"),
            Self::AmbiguousPath => f.write_str("the path is ambiguous and a policy on paths is in force"),
        }
    }
}

#[cfg(test)]
mod tests;
