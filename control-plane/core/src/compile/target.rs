//! What policies apply to: their targets, checked, and which of them hold for a pod.
//!
//! Where it stands: *compile*, below the policies of every kind.
//!
//! Invariant: precedence is workload, service, namespace, mesh; then the older; then the lower name.

use std::collections::{BTreeMap, BTreeSet};

use weft_k8s::{
    AuthorizationPolicySpec, TargetKind, TargetRef, TelemetryPolicySpec, TlsPolicySpec, TrafficPolicySpec,
};

use super::world::World;
use crate::{
    model::{Pod, Policy, ServiceKind},
    report::{Condition, Reason},
};

/// A spec that has targets.
pub(super) trait Targets {
    /// The targets.
    fn targets(&self) -> &[TargetRef];
    /// Kinds of target that make sense for it.
    const KINDS: &'static [TargetKind];
}

impl Targets for AuthorizationPolicySpec {
    const KINDS: &'static [TargetKind] =
        &[TargetKind::Workload, TargetKind::Service, TargetKind::Namespace, TargetKind::Mesh];
    fn targets(&self) -> &[TargetRef] {
        &self.target_refs
    }
}

impl Targets for TlsPolicySpec {
    const KINDS: &'static [TargetKind] = &[TargetKind::Workload, TargetKind::Namespace, TargetKind::Mesh];
    fn targets(&self) -> &[TargetRef] {
        &self.target_refs
    }
}

impl Targets for TelemetryPolicySpec {
    const KINDS: &'static [TargetKind] = &[TargetKind::Workload, TargetKind::Namespace, TargetKind::Mesh];
    fn targets(&self) -> &[TargetRef] {
        &self.target_refs
    }
}

impl Targets for TrafficPolicySpec {
    const KINDS: &'static [TargetKind] = &[TargetKind::Service];
    fn targets(&self) -> &[TargetRef] {
        &self.target_refs
    }
}

/// Whether a target makes sense and is there.
pub(super) fn check<S: Targets>(
    world: &World<'_>,
    namespace: &str,
    target: &TargetRef,
) -> Result<(), Condition> {
    let invalid = |text: &str| Err(Condition::refused(Reason::Invalid, text));
    if !S::KINDS.contains(&target.kind) {
        return invalid(&format!("a policy of this kind cannot target a {:?}", target.kind));
    }
    let (named, selects) = (target.name.is_some(), !target.selector.is_empty());
    match target.kind {
        TargetKind::Workload if named || !selects => {
            invalid("a target of kind Workload has a selector, and no name")
        }
        TargetKind::Service if !named || selects => {
            invalid("a target of kind Service has a name, and no selector")
        }
        TargetKind::Namespace | TargetKind::Mesh if named || selects => {
            invalid("a target of kind Namespace or Mesh has neither name nor selector")
        }
        TargetKind::Mesh if namespace != world.model.root_namespace => {
            let root = &world.model.root_namespace;
            invalid(&format!("only a policy in the namespace {root} can be for the whole mesh"))
        }
        TargetKind::Service => service(world, namespace, target.name.as_deref().unwrap_or_default()),
        TargetKind::Workload | TargetKind::Namespace | TargetKind::Mesh => Ok(()),
    }
}

fn service(world: &World<'_>, namespace: &str, name: &str) -> Result<(), Condition> {
    match world.model.service(namespace, name) {
        None => Err(Condition::refused(
            Reason::TargetNotFound,
            format!("Service {namespace}/{name} is not there"),
        )),
        Some(service) if service.kind == ServiceKind::ExternalName => {
            let text = format!("Service {namespace}/{name} is an ExternalName, which has no endpoints");
            Err(Condition::refused(Reason::Invalid, text))
        }
        Some(_) => Ok(()),
    }
}

/// Policies of one kind, found by pod.
pub(super) struct ByPod<'a, S> {
    local: BTreeMap<&'a str, Vec<Aimed<'a, S>>>,
    mesh: Vec<Aimed<'a, S>>,
}

/// A policy with those of its targets that make sense.
struct Aimed<'a, S> {
    policy: &'a Policy<S>,
    targets: Vec<&'a TargetRef>,
}

impl<'a, S: Targets> ByPod<'a, S> {
    /// Sorts policies by where they may apply.
    pub(super) fn new(world: &World<'_>, policies: impl Iterator<Item = &'a Policy<S>>) -> Self {
        let mut sorted = Self { local: BTreeMap::new(), mesh: Vec::new() };
        for policy in policies {
            let namespace = policy.meta.key.namespace.as_str();
            let good = |target: &&TargetRef| check::<S>(world, namespace, target).is_ok();
            let (mesh, local): (Vec<_>, Vec<_>) =
                policy.spec.targets().iter().filter(good).partition(|target| target.kind == TargetKind::Mesh);
            if !mesh.is_empty() {
                sorted.mesh.push(Aimed { policy, targets: mesh });
            }
            if !local.is_empty() {
                sorted.local.entry(namespace).or_default().push(Aimed { policy, targets: local });
            }
        }
        sorted
    }

    /// Policies that apply to a pod behind these services of its namespace, in order of precedence,
    /// each once.
    pub(super) fn of(&self, pod: &Pod, services: &BTreeSet<&str>) -> Vec<&'a Policy<S>> {
        let local = self.local.get(pod.meta.key.namespace.as_str()).into_iter().flatten();
        let rank = |aimed: &&Aimed<'a, S>| {
            let kinds =
                aimed.targets.iter().filter(|target| holds(target, pod, services)).map(|target| target.kind);
            Some((kinds.min()?, aimed.policy))
        };
        let mut found: Vec<(TargetKind, &'a Policy<S>)> =
            local.chain(&self.mesh).filter_map(|aimed| rank(&aimed)).collect();
        found.sort_by_key(|(kind, policy)| (*kind, policy.meta.seniority()));
        let mut seen = BTreeSet::new();
        found.retain(|(_, policy)| seen.insert(&policy.meta.key));
        found.into_iter().map(|(_, policy)| policy).collect()
    }
}

fn holds(target: &TargetRef, pod: &Pod, services: &BTreeSet<&str>) -> bool {
    match target.kind {
        TargetKind::Workload => pod.selected_by(&target.selector),
        TargetKind::Service => target.name.as_deref().is_some_and(|name| services.contains(name)),
        TargetKind::Namespace | TargetKind::Mesh => true,
    }
}
