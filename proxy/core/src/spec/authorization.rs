//! One AuthorizationPolicy, as written.
//!
//! Compiled by [`crate::Policy::compile`].
//!
//! Invariant: plain data; nothing is checked beyond the types.

use std::sync::Arc;

use http::Method;
use ipnet::IpNet;

use super::Origin;

/// Allow or deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// What matches is allowed; with an Allow policy in force, all else is denied.
    Allow,
    /// What matches is denied.
    Deny,
}

/// One AuthorizationPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// The object.
    pub origin: Origin,
    /// What a match means.
    pub action: Action,
    /// Only recorded, not enforced.
    pub shadow: bool,
    /// Rules, in order.
    pub rules: Vec<AuthorizationRule>,
}

/// One rule: empty lists mean any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthorizationRule {
    /// Name given by the user; empty: its index is used.
    pub name: Arc<str>,
    /// Sources: one must match.
    pub from: Vec<Source>,
    /// Operations: one must match.
    pub to: Vec<Operation>,
}

/// A source: all non-empty lists must hold a match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// SPIFFE identities; `*` at the end matches any rest.
    pub identities: Vec<String>,
    /// Namespaces.
    pub namespaces: Vec<String>,
    /// Service accounts, `<namespace>/<name>`.
    pub service_accounts: Vec<String>,
    /// Address blocks of the peer.
    pub cidrs: Vec<IpNet>,
}

/// An operation: all non-empty lists must hold a match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operation {
    /// Ports of the workload.
    pub ports: Vec<u16>,
    /// Methods.
    pub methods: Vec<Method>,
    /// Paths: exact, or with `*` at the end for a prefix.
    pub paths: Vec<String>,
}
