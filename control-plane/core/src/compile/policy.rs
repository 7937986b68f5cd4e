//! AuthorizationPolicy and TlsPolicy: what each pod must enforce.
//!
//! Where it stands: *compile*, before Inbounds.
//!
//! Invariant: a policy that is not valid in part is still in force, in the form that fails closed.

use std::collections::{BTreeMap, BTreeSet};

use weft_k8s::{AuthorizationPolicySpec, TlsPolicySpec};

use super::{
    mesh::mutual_tls,
    target::{self, ByPod, Targets},
    world::World,
};
use crate::{
    config::{Key, MutualTls, Resource, ResourceType},
    model::{Model, Pod, Policy},
    report::{Condition, Reason, Report, Subject, Verdict},
    validate::{authorization, settings},
};

/// All policies about receiving.
pub(super) struct Policies<'a> {
    model: &'a Model,
    authorizations: ByPod<'a, AuthorizationPolicySpec>,
    tls: ByPod<'a, TlsPolicySpec>,
    default_tls: MutualTls,
}

/// mTLS of one pod.
pub(super) struct PodTls {
    /// On ports that do not say otherwise.
    pub(super) mode: MutualTls,
    /// On ports that do.
    pub(super) ports: BTreeMap<u16, MutualTls>,
}

impl<'a> Policies<'a> {
    /// Looks at all policies and says what became of them.
    pub(super) fn new(world: &World<'a>, default_tls: MutualTls, report: &mut Report) -> Self {
        let model = world.model;
        for policy in model.authorizations.values() {
            let problems = authorization::check(policy).problems;
            let own = if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) };
            verdicts(world, policy, &own, report);
        }
        for policy in model.tls.values() {
            verdicts(world, policy, &settings::tls(&policy.spec), report);
        }
        let valid_tls = model.tls.values().filter(|policy| settings::tls(&policy.spec).is_ok());
        Self {
            model,
            authorizations: ByPod::new(world, model.authorizations.values()),
            tls: ByPod::new(world, valid_tls),
            default_tls,
        }
    }

    /// AuthorizationPolicies of a pod by name, in order of precedence.
    pub(super) fn authorizations(&self, pod: &Pod, services: &BTreeSet<&str>) -> Vec<String> {
        self.authorizations.of(pod, services).iter().map(|policy| policy.meta.key.path()).collect()
    }

    /// mTLS of a pod: the first policy decides alone.
    pub(super) fn tls(&self, pod: &Pod) -> PodTls {
        match self.tls.of(pod, &BTreeSet::new()).first() {
            None => PodTls { mode: self.default_tls, ports: BTreeMap::new() },
            Some(policy) => {
                let ports = policy.spec.ports.iter().map(|port| (port.port, mutual_tls(port.mode)));
                PodTls { mode: mutual_tls(policy.spec.mode), ports: ports.collect() }
            }
        }
    }

    /// The policies themselves.
    pub(super) fn resources(&self, resources: &mut BTreeMap<Key, Resource>) {
        for policy in self.model.authorizations.values() {
            let key = Key::new(ResourceType::Authorization, policy.meta.key.path());
            resources.insert(key, Resource::Authorization(authorization::check(policy).resource));
        }
    }
}

fn verdicts<S: Targets>(
    world: &World<'_>,
    policy: &Policy<S>,
    own: &Result<(), String>,
    report: &mut Report,
) {
    let entry = report.entry(&policy.meta);
    let targets = policy.spec.targets();
    if targets.is_empty() {
        let refused =
            Condition::refused(Reason::Invalid, "targetRefs is empty: the policy applies to nothing");
        entry.verdicts.push(Verdict { subject: Subject::Object, conditions: vec![refused] });
    }
    for target in targets {
        let condition = match (target::check::<S>(world, &policy.meta.key.namespace, target), own) {
            (Err(condition), _) => condition,
            (Ok(()), Err(text)) => Condition::refused(Reason::Invalid, text.clone()),
            (Ok(()), Ok(())) => Condition::accepted(),
        };
        entry
            .verdicts
            .push(Verdict { subject: Subject::Target(target.clone()), conditions: vec![condition] });
    }
}
