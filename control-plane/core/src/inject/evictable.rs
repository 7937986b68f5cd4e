//! The annotation by which the cluster's autoscaler lets a pod go although it has local storage.
//!
//! Where it stands: beside `build` and `remove`. Without it a sidecar's folder would keep every node that
//! has a meshed pod from being scaled down.
//!
//! Invariant: what others wrote there stays.

use super::STATE_VOLUME;

/// Volumes that do not keep a pod where it is, by name, with commas between them.
/// Source: the cluster autoscaler.
pub(super) const EVICTABLE: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";

/// The annotation's value with the sidecar's volume.
pub(super) fn with(others: &str) -> String {
    if others.is_empty() { STATE_VOLUME.to_owned() } else { format!("{others},{STATE_VOLUME}") }
}

/// The annotation's value as it was; `None`: it was not there.
pub(super) fn without(all: &str) -> Option<String> {
    let rest: Vec<&str> = all.split(',').filter(|name| name.trim() != STATE_VOLUME).collect();
    (!rest.is_empty()).then(|| rest.join(","))
}
