//! What keeps a pod from having a sidecar, and what its user should know when it has one.
//!
//! Where it stands: after `wish`, before anything is built.
//!
//! Invariant: each refusal says what to change; a pod that would start and bypass its sidecar is refused,
//! not injected.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};

use super::annotations::Settings;
use super::config::{ADMIN_PORT, INBOUND_PORT, InjectorConfig, OUTBOUND_PORT};
use super::{IDENTITY_VOLUME, INIT_CONTAINER, INJECTED, STATE_VOLUME};
use crate::model::{SIDECAR_ANNOTATION, SIDECAR_CONTAINER};

/// What keeps a pod on its node's network from having a sidecar.
pub(super) const HOST_NETWORK: &str = "hostNetwork: true: the pod's connections are its node's, which a sidecar \
                                       must not redirect; remove hostNetwork, or set weft.dev/inject: disabled";

/// Whether the pod has its sidecar already: the mark and the container.
pub(super) fn is_injected(annotations: &BTreeMap<String, String>, spec: &PodSpec) -> bool {
    annotations.get(SIDECAR_ANNOTATION).is_some_and(|mark| mark == INJECTED)
        && containers(spec).any(|container| container.name == SIDECAR_CONTAINER)
}

/// The first thing that stands in the way.
///
/// # Errors
/// What it is, and what to do about it.
pub(super) fn find(spec: &PodSpec, config: &InjectorConfig) -> Result<(), String> {
    if spec.host_network == Some(true) {
        return Err(HOST_NETWORK.to_owned());
    }
    if is_windows(spec) {
        return Err(
            "the pod is for Windows: the redirection needs Linux; set weft.dev/inject: disabled".to_owned()
        );
    }
    if spec.containers.is_empty() {
        return Err("the pod has no containers".to_owned());
    }
    let ours = [IDENTITY_VOLUME, STATE_VOLUME];
    if let Some(volume) = spec.volumes.iter().flatten().find(|volume| ours.contains(&volume.name.as_str())) {
        return Err(format!("a volume of the pod's own is named {}: rename it", volume.name));
    }
    users(spec, config)?;
    containers(spec).try_for_each(clash)
}

fn clash(container: &Container) -> Result<(), String> {
    let name = container.name.as_str();
    if [SIDECAR_CONTAINER, INIT_CONTAINER].contains(&name) {
        return Err(format!("a container of the pod's own is named {name}: rename it"));
    }
    let is_tcp = |protocol: Option<&str>| protocol.is_none_or(|protocol| protocol == "TCP");
    let mut ports = container.ports.iter().flatten().filter(|port| is_tcp(port.protocol.as_deref()));
    let taken = [INBOUND_PORT, OUTBOUND_PORT, ADMIN_PORT];
    match ports.find(|port| taken.iter().any(|taken| i32::from(*taken) == port.container_port)) {
        Some(port) => Err(format!(
            "container {name:?} listens on port {}, which is the sidecar's: let it listen on another",
            port.container_port
        )),
        None => Ok(()),
    }
}

/// The redirection spares the sidecar's user: whoever runs as it would bypass the mesh.
fn users(spec: &PodSpec, config: &InjectorConfig) -> Result<(), String> {
    let uid = i64::from(config.proxy_uid);
    let of_pod = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let user = |container: &Container| {
        container.security_context.as_ref().and_then(|context| context.run_as_user).or(of_pod)
    };
    match containers(spec).find(|container| user(container) == Some(uid)) {
        Some(container) => Err(format!(
            "container {:?} runs as user {uid}, which is the sidecar's: its connections would bypass the \
             mesh; let it run as another user",
            container.name
        )),
        None => Ok(()),
    }
}

fn is_windows(spec: &PodSpec) -> bool {
    let selected = spec.node_selector.as_ref().and_then(|labels| labels.get("kubernetes.io/os"));
    spec.os.as_ref().is_some_and(|os| os.name == "windows") || selected.is_some_and(|os| os == "windows")
}

fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// What does not stand in the way, and is still worth saying.
pub(super) fn warnings(template: &PodTemplateSpec, settings: &Settings<'_>) -> Vec<String> {
    let Some(spec) = &template.spec else { return Vec::new() };
    let mut warnings = Vec::new();
    if spec.share_process_namespace == Some(true) || spec.host_pid == Some(true) {
        warnings.push(
            "the pod's containers see the sidecar's process: one that runs as root can read its key"
                .to_owned(),
        );
    }
    if spec.dns_policy.as_deref().is_some_and(|policy| ["Default", "None"].contains(&policy)) {
        let name = &settings.config.control_plane;
        warnings.push(format!(
            "dnsPolicy {}: the pod becomes ready only if its name servers know {name}",
            spec.dns_policy.as_deref().unwrap_or_default()
        ));
    }
    if !settings.native_sidecar {
        warnings.extend(old_kubelet(template, spec));
    }
    warnings
}

fn old_kubelet(template: &PodTemplateSpec, spec: &PodSpec) -> Vec<String> {
    let mut warnings = Vec::new();
    let owners = template.metadata.iter().flat_map(|meta| meta.owner_references.iter().flatten());
    let of_job = owners.clone().any(|owner| owner.kind == "Job");
    if of_job || spec.restart_policy.as_deref().is_some_and(|policy| policy != "Always") {
        warnings.push(format!(
            "without native sidecars the pod does not end while its sidecar runs: let the last command POST to \
             http://localhost:{ADMIN_PORT}/drain"
        ));
    }
    if spec.init_containers.iter().flatten().next().is_some() {
        warnings.push("without native sidecars init containers run outside the mesh".to_owned());
    }
    warnings
}
