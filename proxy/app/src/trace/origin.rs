//! Who tells a trace: the resource that all spans of this sidecar share.
//!
//! Known in part when the process starts, and whole when the control plane has told of the workload.
//!
//! Invariant: attributes without a value are left out.
//
// Source of names: OpenTelemetry semantic conventions 1.42, service, Kubernetes and cloud resources.

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;

/// Who exports: what a collector shows as the service.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Origin {
    /// Owning workload; empty until the control plane told it, then the pod's name without its hashes serves.
    pub workload: String,
    /// Namespace.
    pub namespace: String,
    /// Pod.
    pub pod: String,
    /// Node, where known.
    pub node: String,
    /// Zone, where known.
    pub zone: String,
    /// The workload's own version, where known.
    pub version: String,
}

impl Origin {
    /// What a collector calls the service.
    #[must_use]
    pub fn service(&self) -> &str {
        let name = if self.workload.is_empty() { owner(&self.pod) } else { &self.workload };
        if name.is_empty() { UNNAMED } else { name }
    }

    /// The attributes that all its spans share, without the service's name.
    pub fn attributes(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let attributes = [
            ("service.namespace", self.namespace.as_str()),
            ("service.version", self.version.as_str()),
            ("service.instance.id", self.pod.as_str()),
            ("k8s.namespace.name", self.namespace.as_str()),
            ("k8s.pod.name", self.pod.as_str()),
            ("k8s.node.name", self.node.as_str()),
            ("cloud.availability_zone", self.zone.as_str()),
            ("weft.version", env!("CARGO_PKG_VERSION")),
        ];
        attributes.into_iter().filter(|(_, value)| !value.is_empty())
    }

    /// All of it as OpenTelemetry has it.
    #[must_use]
    pub fn resource(&self) -> Resource {
        Resource::builder_empty()
            .with_service_name(self.service().to_owned())
            .with_attributes(self.attributes().map(|(key, value)| KeyValue::new(key, value.to_owned())))
            .build()
    }
}

/// A pod's name without the parts that its controller made up.
///
/// Source: Kubernetes names pods `<deployment>-<8 to 10 of its safe characters>-<5 of them>`, those of a
/// DaemonSet or Job `<owner>-<5>`, those of a StatefulSet `<owner>-<number>`; the safe characters have no
/// vowels, so that a name's own last word is hardly taken for one.
#[must_use]
pub fn owner(pod: &str) -> &str {
    let made_up = |part: &str, lengths: std::ops::RangeInclusive<usize>| {
        lengths.contains(&part.len()) && part.bytes().all(|byte| SAFE.contains(&byte))
    };
    let Some((rest, last)) = pod.rsplit_once('-') else { return pod };
    if !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) && last.len() < 5 {
        return rest;
    }
    if !made_up(last, 5..=5) {
        return pod;
    }
    match rest.rsplit_once('-') {
        Some((deployment, hash)) if made_up(hash, 8..=10) => deployment,
        _ => rest,
    }
}

/// Source: Kubernetes, `k8s.io/apimachinery/pkg/util/rand`.
const SAFE: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Source: semantic conventions: what a service without a name is called.
const UNNAMED: &str = "unknown_service:weft-proxy";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_read_from_the_pods_name() {
        for (pod, expected) in [
            ("shop-7d4b9c6f5d-x2x4k", "shop"),
            ("shop-web-7d4b9c6f5d-x2x4k", "shop-web"),
            ("node-agent-x2x4k", "node-agent"),
            ("db-0", "db"),
            ("db-12", "db"),
            ("catalog-v2", "catalog-v2"),
            ("payments-blue", "payments-blue"),
            ("shop", "shop"),
            ("", ""),
        ] {
            assert_eq!(owner(pod), expected, "{pod}");
        }
    }

    #[test]
    fn what_is_known_is_told_and_nothing_else() {
        let origin = Origin { workload: "shop".into(), version: "v2".into(), ..Origin::default() };
        let told: Vec<_> = origin.attributes().map(|(name, _)| name).collect();
        assert_eq!((origin.service(), told.as_slice()), ("shop", &["service.version", "weft.version"][..]));
        assert_eq!(Origin::default().service(), UNNAMED);
    }
}
