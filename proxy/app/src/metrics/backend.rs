//! What is counted of a backend and of a policy's rule.
//!
//! Adopt takes the handles when it builds a snapshot; balance, connect and authorize add to them.
//!
//! Invariant: a handle that no snapshot holds any more leaves the registry.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use weft_proxy_core::Name;

/// How one worker's endpoints of a backend stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Endpoints that take their share.
    pub ready: u32,
    /// Endpoints that are ejected.
    pub ejected: u32,
    /// Requests that wait for a connection, as the thread's tick finds them.
    pub waiting: u32,
}

impl Standing {
    /// Whether the circuit is open: there are endpoints, and all are ejected.
    #[must_use]
    pub fn open(self) -> bool {
        self.ready == 0 && self.ejected > 0
    }
}

/// What is counted of one backend (a service port).
#[derive(Debug, Default)]
pub struct BackendMeter {
    pub(super) ejected: AtomicU64,
    pub(super) restored: AtomicU64,
    pub(super) out: AtomicI64,
    pub(super) open: AtomicI64,
    pub(super) overflow: AtomicU64,
    pub(super) fallback: AtomicU64,
    pub(super) budget_spent: AtomicU64,
    pub(super) pending: AtomicI64,
    pub(super) ready: AtomicI64,
    pub(super) openings: AtomicU64,
}

impl BackendMeter {
    /// An endpoint was ejected.
    pub fn ejected(&self) {
        self.ejected.fetch_add(1, Ordering::Relaxed);
    }

    /// An ejected endpoint is back.
    pub fn restored(&self) {
        self.restored.fetch_add(1, Ordering::Relaxed);
    }

    /// One worker's endpoints stood at `before` when it last told, and stand at `now`.
    pub fn stands(&self, before: Standing, now: Standing) {
        self.out.fetch_add(i64::from(now.ejected) - i64::from(before.ejected), Ordering::Relaxed);
        self.open.fetch_add(i64::from(now.open()) - i64::from(before.open()), Ordering::Relaxed);
        self.pending.fetch_add(i64::from(now.waiting) - i64::from(before.waiting), Ordering::Relaxed);
        self.ready.fetch_add(i64::from(now.ready) - i64::from(before.ready), Ordering::Relaxed);
        if now.open() && !before.open() {
            self.openings.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A request was refused because too many wait or too many connections are open.
    pub fn overflowed(&self) {
        self.overflow.fetch_add(1, Ordering::Relaxed);
    }

    /// A request went to the fallback instead.
    pub fn fell_back(&self) {
        self.fallback.fetch_add(1, Ordering::Relaxed);
    }

    /// A retry was not made because the budget was spent.
    pub fn budget_spent(&self) {
        self.budget_spent.fetch_add(1, Ordering::Relaxed);
    }

    /// Endpoints that are ejected now, over all workers.
    #[must_use]
    pub fn out(&self) -> i64 {
        self.out.load(Ordering::Relaxed)
    }

    /// Whether any worker's circuit is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    /// Endpoints ejected so far.
    #[must_use]
    pub fn ejections(&self) -> u64 {
        self.ejected.load(Ordering::Relaxed)
    }
}

/// What a policy's rule did with a connection or request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyVerdict {
    /// Let it pass.
    Allow,
    /// Refused it.
    Deny,
    /// Would have refused it, were it enforced.
    ShadowDeny,
}

impl PolicyVerdict {
    /// The word in labels and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::ShadowDeny => "shadow_deny",
        }
    }
}

/// What tells one count of verdicts from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleLabels {
    /// The policy, `<namespace>/<name>`.
    pub policy: Name,
    /// The rule's name or number; empty where no rule of the policy matched.
    pub rule: Name,
    /// What it did.
    pub verdict: PolicyVerdict,
}

/// A count of verdicts.
#[derive(Debug, Default)]
pub struct RuleMeter(pub(super) AtomicU64);

impl RuleMeter {
    /// The rule decided once more.
    pub fn decided(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
