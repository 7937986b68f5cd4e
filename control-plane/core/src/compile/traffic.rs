//! TrafficPolicy: how clients reach each service.
//!
//! Where it stands: *compile*, before Outbounds and Backends.
//!
//! Invariant: one policy applies to a service, the oldest; a younger one is Conflicted, not merged.

use std::{collections::BTreeMap, time::Duration};

use weft_k8s::TrafficPolicySpec;

use super::{
    route::find,
    target::{self, Targets},
    world::World,
};
use crate::{
    config::{Outlier, RetryBudget, TrafficPolicy},
    model::{Kind, ObjectKey, Policy},
    report::{Condition, Reason, Report, Subject, Verdict},
    validate::{authorization::origin, settings},
};

/// Policies by service.
pub(super) struct Traffic {
    by_service: BTreeMap<ObjectKey, Applied>,
}

struct Applied {
    owner: ObjectKey,
    policy: TrafficPolicy,
    request_timeout: Option<Duration>,
}

impl Traffic {
    /// Looks at all policies, oldest first, and says what became of them.
    pub(super) fn new(world: &World<'_>, report: &mut Report) -> Self {
        let mut traffic = Self { by_service: BTreeMap::new() };
        let mut policies: Vec<_> = world.model.traffic.values().collect();
        policies.sort_by_key(|policy| policy.meta.seniority());
        for policy in policies {
            traffic.apply(world, policy, report);
        }
        traffic
    }

    fn apply(&mut self, world: &World<'_>, policy: &Policy<TrafficPolicySpec>, report: &mut Report) {
        let entry = report.entry(&policy.meta);
        let namespace = policy.meta.key.namespace.as_str();
        let own = settings::traffic(&policy.spec);
        let (applied, references) = lower(world, policy);
        if policy.spec.targets().is_empty() {
            let refused =
                Condition::refused(Reason::Invalid, "targetRefs is empty: the policy applies to nothing");
            entry.verdicts.push(Verdict { subject: Subject::Object, conditions: vec![refused] });
        }
        for target in policy.spec.targets() {
            let accepted = match (target::check::<TrafficPolicySpec>(world, namespace, target), &own) {
                (Err(condition), _) => condition,
                (Ok(()), Err(text)) => Condition::refused(Reason::Invalid, text.clone()),
                (Ok(()), Ok(())) => {
                    let name = target.name.as_deref().unwrap_or_default();
                    self.claim(ObjectKey::new(Kind::Service, namespace, name), policy, &applied)
                }
            };
            let conditions = vec![accepted, references.clone()];
            entry.verdicts.push(Verdict { subject: Subject::Target(target.clone()), conditions });
        }
    }

    fn claim(
        &mut self,
        service: ObjectKey,
        policy: &Policy<TrafficPolicySpec>,
        applied: &TrafficPolicy,
    ) -> Condition {
        if let Some(other) = self.by_service.get(&service).filter(|other| other.owner != policy.meta.key) {
            let text =
                format!("{} has precedence: it is older, or equally old and first by name", other.owner);
            return Condition::refused(Reason::Conflicted, text);
        }
        let request_timeout = policy.spec.request_timeout.map(Duration::from);
        let owner = policy.meta.key.clone();
        self.by_service.insert(service, Applied { owner, policy: applied.clone(), request_timeout });
        Condition::accepted()
    }

    /// The policy of one port of a service. A port is not its own fallback.
    pub(super) fn policy(&self, service: &ObjectKey, port_name: &str) -> Option<TrafficPolicy> {
        let mut policy = self.by_service.get(service)?.policy.clone();
        if policy.fallback == port_name {
            policy.fallback.clear();
        }
        Some(policy)
    }

    /// Deadline of requests to a service where their rule sets none.
    pub(super) fn request_timeout(&self, service: &ObjectKey) -> Option<Duration> {
        self.by_service.get(service)?.request_timeout
    }
}

fn lower(world: &World<'_>, policy: &Policy<TrafficPolicySpec>) -> (TrafficPolicy, Condition) {
    let spec = &policy.spec;
    let limits = spec.limits.clone().unwrap_or_default();
    let (fallback, references) = match fallback(world, policy) {
        Ok(name) => (name, Condition::resolved()),
        Err((reason, text)) => (String::new(), Condition::unresolved(reason, format!("no fallback: {text}"))),
    };
    let lowered = TrafficPolicy {
        origin: origin(&policy.meta),
        connect_timeout: spec.connect_timeout.map(Duration::from),
        max_connections: limits.max_connections.unwrap_or_default(),
        max_pending: limits.max_pending_requests.unwrap_or_default(),
        idle_timeout: spec.idle_timeout.map(Duration::from),
        retry_budget: spec.retry_budget.as_ref().map(|budget| RetryBudget {
            percent: budget.percent.unwrap_or(RETRY_PERCENT),
            min_per_second: budget.min_per_second.unwrap_or(RETRY_MIN_PER_SECOND),
        }),
        outlier: spec.outlier.as_ref().map(outlier),
        fallback,
    };
    (lowered, references)
}

/// What the user leaves out is the default; a longest ejection below the first is raised to it.
fn outlier(outlier: &weft_k8s::Outlier) -> Outlier {
    let base_ejection = outlier.base_ejection.map_or(BASE_EJECTION, Duration::from);
    Outlier {
        consecutive_failures: outlier.consecutive_failures.unwrap_or(CONSECUTIVE_FAILURES),
        base_ejection,
        max_ejection: outlier.max_ejection.map_or(MAX_EJECTION, Duration::from).max(base_ejection),
        max_ejected_percent: outlier.max_ejected_percent.unwrap_or(MAX_EJECTED_PERCENT),
    }
}

fn fallback(world: &World<'_>, policy: &Policy<TrafficPolicySpec>) -> Result<String, (Reason, String)> {
    let Some(fact) = &policy.spec.fallback else { return Ok(String::new()) };
    let namespace = fact.namespace.as_deref().unwrap_or(&policy.meta.key.namespace);
    let (service, port) = find(world, namespace, &fact.name, Some(i32::from(fact.port)))?;
    Ok(service.port_name(port.port))
}

/// Source: the contract's default; linkerd's budget is 20 % too.
const RETRY_PERCENT: u32 = 20;
/// Source: the contract's default; linkerd's budget has 10 too.
const RETRY_MIN_PER_SECOND: u32 = 10;
/// Source: the contract's default; Envoy's is 5 too.
const CONSECUTIVE_FAILURES: u32 = 5;
/// Source: the contract's default; Envoy's is 30 s.
const BASE_EJECTION: Duration = Duration::from_secs(10);
/// Source: the contract's default; Envoy's is 300 s too.
const MAX_EJECTION: Duration = Duration::from_secs(300);
/// Source: the contract's default; Envoy's is 10 %.
const MAX_EJECTED_PERCENT: u32 = 50;
