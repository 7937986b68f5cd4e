//! The probes that a Pod's containers declare → facts.
//!
//! Where it stands: with `lower`, once per Pod; *compile* puts them into the pod's inbound settings.
//!
//! Invariant: what is kept is what the kubelet sends: names of ports are resolved, paths are written as
//! its client writes them.
//! Invariant: the sidecar's own probes are no probes of the application.

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::util::intstr::IntOrString};

use super::{lower::port_number, workload::SIDECAR_CONTAINER};
use crate::config::{Probe, ProbeKind};

/// All probes of a pod's containers, native sidecars among them, sorted, each once.
pub(super) fn probes<'a>(containers: impl Iterator<Item = &'a core::Container>) -> Vec<Probe> {
    let mut probes: Vec<Probe> = containers
        .filter(|container| container.name != SIDECAR_CONTAINER)
        .flat_map(|container| {
            let declared = [&container.startup_probe, &container.readiness_probe, &container.liveness_probe];
            declared.into_iter().flatten().filter_map(|probe| of(container, probe))
        })
        .collect();
    probes.sort();
    probes.dedup();
    probes
}

/// Commands run inside the container and need no network.
fn of(container: &core::Container, probe: &core::Probe) -> Option<Probe> {
    if let Some(http) = &probe.http_get {
        // With a host of its own the probe goes there, not to the pod.
        let elsewhere = http.host.as_ref().is_some_and(|host| !host.is_empty());
        let secure = http.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
        let kind = if secure { ProbeKind::Https } else { ProbeKind::Http(target(http.path.as_deref())) };
        return (!elsewhere).then_some(Probe { port: number(container, &http.port)?, kind });
    }
    if let Some(tcp) = &probe.tcp_socket {
        let elsewhere = tcp.host.as_ref().is_some_and(|host| !host.is_empty());
        return (!elsewhere).then_some(Probe { port: number(container, &tcp.port)?, kind: ProbeKind::Tcp });
    }
    let grpc = probe.grpc.as_ref()?;
    let kind = ProbeKind::Grpc(grpc.service.clone().unwrap_or_default());
    Some(Probe { port: port_number(grpc.port)?, kind })
}

/// A probe's port: a number, or the name of a port of the same container.
fn number(container: &core::Container, port: &IntOrString) -> Option<u16> {
    match port {
        IntOrString::Int(number) => port_number(*number),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_deref() == Some(name.as_str()));
            named.map_or_else(
                || name.parse().ok().filter(|port| *port != 0),
                |port| port_number(port.container_port),
            )
        }
    }
}

/// Path and query as the kubelet's HTTP client puts them on the wire: a slash in front, no fragment,
/// what may not stand in a target as %XX.
fn target(path: Option<&str>) -> String {
    let path = path.unwrap_or_default();
    let path = path.split_once('#').map_or(path, |(path, _)| path);
    let mut target = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        target.push('/');
    }
    for byte in path.bytes() {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
            target.push(char::from(byte));
        } else {
            target.push_str(&format!("%{byte:02X}"));
        }
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_that_the_kubelet_sends() {
        for (path, expected) in [
            (None, "/"),
            (Some(""), "/"),
            (Some("/healthz"), "/healthz"),
            (Some("healthz"), "/healthz"),
            (Some("/ready?full=1&x=%20"), "/ready?full=1&x=%20"),
            (Some("?a"), "/?a"),
            (Some("/a#b"), "/a"),
            (Some("/a b/\u{e9}"), "/a%20b/%C3%A9"),
        ] {
            assert_eq!(target(path), expected, "{path:?}");
        }
    }
}
