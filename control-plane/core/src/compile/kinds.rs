//! Which kinds of route lead to a service port, remembered from one compilation to the next.
//!
//! Where it stands: filled from *slots*, service by service; read for the protocols of Backends and
//! Inbounds, which so need not look at routes again when an endpoint comes or goes.
//!
//! Invariant: what a service's routes said before is forgotten whole when they are looked at again.

use std::collections::{BTreeMap, BTreeSet};

use super::{route::ResolvedRoute, slot::Slots};
use crate::{
    config::RouteKind,
    model::{Kind, ObjectKey},
};

/// Kinds of route by service port.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Kinds {
    /// By parent: the service ports that its routes lead to.
    uses: BTreeMap<ObjectKey, BTreeSet<(String, RouteKind)>>,
    /// The same by service port, with the parents.
    used: BTreeMap<String, BTreeSet<(RouteKind, ObjectKey)>>,
    /// Kind of the producer routes attached to a service port.
    attached: BTreeMap<ObjectKey, BTreeMap<String, RouteKind>>,
}

impl Kinds {
    /// Takes what the routes of a parent say now; returns the services to whose ports that makes a
    /// difference.
    pub(super) fn take(
        &mut self,
        parent: &ObjectKey,
        slots: &Slots,
        routes: &[ResolvedRoute<'_>],
    ) -> BTreeSet<ObjectKey> {
        let (mut uses, mut attached) = (BTreeSet::new(), BTreeMap::new());
        for (slot, kind, winners) in slots.of(parent) {
            let winners = winners.iter().filter_map(|index| routes.get(*index));
            uses.extend(winners.flat_map(|route| &route.backends).map(|backend| (backend.clone(), kind)));
            if slot.scope.is_none() {
                attached.insert(format!("{}:{}", parent.path(), slot.port), kind);
            }
        }
        let before = self.uses.remove(parent).unwrap_or_default();
        for (name, kind) in before.difference(&uses) {
            if let Some(parents) = self.used.get_mut(name) {
                parents.remove(&(*kind, parent.clone()));
                if parents.is_empty() {
                    self.used.remove(name);
                }
            }
        }
        for (name, kind) in uses.difference(&before) {
            self.used.entry(name.clone()).or_default().insert((*kind, parent.clone()));
        }
        let changed = before.symmetric_difference(&uses).filter_map(|(name, _)| service_of(name)).collect();
        replace(&mut self.uses, parent, uses, BTreeSet::is_empty);
        replace(&mut self.attached, parent, attached, BTreeMap::is_empty);
        changed
    }

    /// Kind of the producer routes that are attached to a service port.
    pub(super) fn attached(&self, service_port: &str) -> Option<RouteKind> {
        self.attached.get(&service_of(service_port)?)?.get(service_port).copied()
    }

    /// Whether only gRPC is routed to a service port.
    pub(super) fn only_grpc(&self, service_port: &str) -> bool {
        let used = self.used.get(service_port).into_iter().flatten().map(|(kind, _)| *kind);
        let mut kinds: BTreeSet<RouteKind> = used.collect();
        kinds.extend(self.attached(service_port));
        kinds.iter().eq([&RouteKind::Grpc])
    }
}

fn replace<T>(
    map: &mut BTreeMap<ObjectKey, T>,
    key: &ObjectKey,
    value: T,
    is_empty: impl FnOnce(&T) -> bool,
) {
    if is_empty(&value) {
        map.remove(key);
    } else {
        map.insert(key.clone(), value);
    }
}

/// The service of "namespace/service:port".
fn service_of(service_port: &str) -> Option<ObjectKey> {
    let (namespace, name) = service_port.rsplit_once(':')?.0.split_once('/')?;
    Some(ObjectKey::new(Kind::Service, namespace, name))
}
