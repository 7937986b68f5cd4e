//! TrafficPolicy: how clients reach each service.
//!
//! Where it stands: *compile*, below Outbounds and Backends.
//!
//! Invariant: one policy applies to a service, the oldest; a younger one is Conflicted, not merged.

use std::time::Duration;

use weft_k8s::{TargetRef, TrafficPolicySpec};

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

/// The policy that applies to a service.
pub(super) struct Applied {
    owner: ObjectKey,
    policy: TrafficPolicy,
    /// Deadline of requests to the service where their rule sets none.
    pub(super) request_timeout: Option<Duration>,
}

impl Applied {
    /// The policy for one port of the service. A port is not its own fallback.
    pub(super) fn policy(&self, port_name: &str) -> TrafficPolicy {
        let mut policy = self.policy.clone();
        if policy.fallback == port_name {
            policy.fallback.clear();
        }
        policy
    }
}

/// The oldest good policy that targets a service.
pub(super) fn applied(world: &World<'_>, service: &ObjectKey) -> Option<Applied> {
    let policies = world.index.traffic_by_target.get(service)?.iter();
    let policies = policies.filter_map(|policy| world.model.traffic.get(policy));
    let policy = policies
        .filter(|policy| settings::traffic(&policy.spec).is_ok() && targets(world, policy, service))
        .min_by_key(|policy| policy.meta.seniority())?;
    Some(Applied {
        owner: policy.meta.key.clone(),
        policy: lower(world, policy).0,
        request_timeout: policy.spec.request_timeout.map(Duration::from),
    })
}

/// Whether a policy has a target that makes sense and means a service.
fn targets(world: &World<'_>, policy: &Policy<TrafficPolicySpec>, service: &ObjectKey) -> bool {
    let namespace = policy.meta.key.namespace.as_str();
    let means = |target: &&TargetRef| {
        namespace == service.namespace && target.name.as_deref().unwrap_or_default() == service.name
    };
    let mut meant = policy.spec.targets().iter().filter(means);
    meant.any(|target| target::check::<TrafficPolicySpec>(world, namespace, target).is_ok())
}

/// Says what became of a policy.
pub(super) fn report(world: &World<'_>, policy: &Policy<TrafficPolicySpec>, report: &mut Report) {
    let entry = report.entry(&policy.meta);
    let namespace = policy.meta.key.namespace.as_str();
    let own = settings::traffic(&policy.spec);
    let (_, references) = lower(world, policy);
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
                precedence(world, &ObjectKey::new(Kind::Service, namespace, name), &policy.meta.key)
            }
        };
        let conditions = vec![accepted, references.clone()];
        entry.verdicts.push(Verdict { subject: Subject::Target(target.clone()), conditions });
    }
}

fn precedence(world: &World<'_>, service: &ObjectKey, policy: &ObjectKey) -> Condition {
    match applied(world, service).filter(|applied| applied.owner != *policy) {
        None => Condition::accepted(),
        Some(Applied { owner, .. }) => {
            let text = format!("{owner} has precedence: it is older, or equally old and first by name");
            Condition::refused(Reason::Conflicted, text)
        }
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
