//! AuthorizationPolicy and TlsPolicy: what each pod must enforce.
//!
//! Where it stands: *compile*, before Inbounds.
//!
//! Invariant: a policy that is not valid in part is still in force, in the form that fails closed.

use std::collections::{BTreeMap, BTreeSet};

use weft_k8s::{AuthorizationPolicySpec, TelemetryPolicySpec, TlsPolicySpec};

use super::{
    mesh::{DefaultTls, mutual_tls},
    target::{self, ByPod, Targets},
    work::in_namespace,
    world::World,
};
use crate::{
    config::{MutualTls, Resource},
    model::{Kind, Pod, Policy},
    report::{Condition, Reason, Report, Subject, Verdict},
    validate::{authorization, settings, telemetry},
};

/// The policies about receiving that may apply in some namespaces.
pub(super) struct Policies<'a> {
    authorizations: ByPod<'a, AuthorizationPolicySpec>,
    tls: ByPod<'a, TlsPolicySpec>,
    default_tls: &'a DefaultTls,
}

/// mTLS of one pod.
pub(super) struct PodTls {
    /// On ports that do not say otherwise.
    pub(super) mode: MutualTls,
    /// What says so; empty: nothing does.
    pub(super) by: String,
    /// On ports that do.
    pub(super) ports: BTreeMap<u16, MutualTls>,
}

impl<'a> Policies<'a> {
    /// The policies of these namespaces, and those for the whole mesh.
    pub(super) fn new(world: &World<'a>, namespaces: &BTreeSet<&str>, default_tls: &'a DefaultTls) -> Self {
        let model = world.model;
        let mut namespaces = namespaces.clone();
        namespaces.insert(&model.root_namespace);
        let kind = Kind::AuthorizationPolicy;
        let of = |namespace: &&'_ str| in_namespace(&model.authorizations, kind, namespace);
        let authorizations = namespaces.iter().flat_map(of);
        let tls =
            namespaces.iter().flat_map(|namespace| in_namespace(&model.tls, Kind::TlsPolicy, namespace));
        let valid_tls = tls.filter(|policy| settings::tls(&policy.spec).is_ok());
        Self {
            authorizations: ByPod::new(world, authorizations),
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
            None => PodTls {
                mode: self.default_tls.mode,
                by: self.default_tls.by.clone(),
                ports: BTreeMap::new(),
            },
            Some(policy) => {
                let ports = policy.spec.ports.iter().map(|port| (port.port, mutual_tls(port.mode)));
                PodTls {
                    mode: mutual_tls(policy.spec.mode),
                    by: policy.meta.key.path(),
                    ports: ports.collect(),
                }
            }
        }
    }
}

/// An AuthorizationPolicy as sidecars take it; says what became of it.
pub(super) fn authorization(
    world: &World<'_>,
    policy: &Policy<AuthorizationPolicySpec>,
    report: &mut Report,
) -> Resource {
    let checked = authorization::check(policy);
    let own = if checked.problems.is_empty() { Ok(()) } else { Err(checked.problems.join("; ")) };
    verdicts(world, policy, &own, report);
    Resource::Authorization(checked.resource)
}

/// Says what became of a TlsPolicy.
pub(super) fn tls(world: &World<'_>, policy: &Policy<TlsPolicySpec>, report: &mut Report) {
    verdicts(world, policy, &settings::tls(&policy.spec), report);
}

/// Says what became of a TelemetryPolicy.
pub(super) fn telemetry(world: &World<'_>, policy: &Policy<TelemetryPolicySpec>, report: &mut Report) {
    verdicts(world, policy, &telemetry::check(&policy.spec), report);
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
