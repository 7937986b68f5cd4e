//! The cluster itself: its version, its nodes', the Gateway API's kinds, and what the asker may do.
//!
//! Invariant: what the asker may not see is a warning, not a failure: others may have installed.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};

use super::Findings;
use crate::cluster::explain;

/// Oldest minor version of Kubernetes 1. Source: sidecars that are init containers are on by default
/// since 1.29, CEL of matchConditions is there since 1.30.
pub(super) const OLDEST: u32 = 30;
/// Oldest kubelet. Source: sidecars that are init containers are on by default since 1.29.
const OLDEST_KUBELET: u32 = 29;

/// What this is about, as a heading.
pub(super) const AREA: &str = "Kubernetes";

/// Versions of the API server, the kubelets and the Gateway API.
pub(super) async fn versions(client: &Client) -> anyhow::Result<Findings> {
    let mut findings = Findings::of(AREA);
    let version = client.apiserver_version().await.map_err(explain)?.git_version;
    match minor(&version) {
        Some(minor) if minor < OLDEST => {
            let remedy = "Weft needs Kubernetes 1.30 or later, whose API server knows matchConditions of webhooks: upgrade the cluster";
            findings.fail("API server", version, remedy);
        }
        _ => findings.ok("API server", version),
    }
    let nodes: Api<Node> = Api::all(client.clone());
    match nodes.list(&ListParams::default()).await {
        Ok(nodes) => kubelets(&nodes.items, &mut findings),
        Err(error) => findings.warn("kubelets", explain(error).to_string(), "ask someone who may list nodes"),
    }
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    match crds.get_opt("httproutes.gateway.networking.k8s.io").await {
        Ok(crd) => gateway_api(crd.as_ref(), &mut findings),
        Err(error) => {
            findings.warn("Gateway API", explain(error).to_string(), "ask someone who may see definitions")
        }
    }
    Ok(findings)
}

/// The minor version of `v1.34.4`.
pub(super) fn minor(version: &str) -> Option<u32> {
    let rest = version.strip_prefix('v').unwrap_or(version).strip_prefix("1.")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn kubelets(nodes: &[Node], findings: &mut Findings) {
    let versions = nodes.iter().filter_map(|node| {
        let info = node.status.as_ref()?.node_info.as_ref()?;
        Some((node.metadata.name.clone()?, info.kubelet_version.clone()))
    });
    let old: Vec<String> = versions
        .filter(|(_, version)| minor(version).is_some_and(|minor| minor < OLDEST_KUBELET))
        .map(|(node, version)| format!("{node} {version}"))
        .collect();
    if old.is_empty() {
        findings.ok("kubelets", format!("{} node(s), all know sidecars", nodes.len()));
    } else {
        findings.warn(
            "kubelets",
            format!("too old for sidecars that are init containers: {}", old.join(", ")),
            "upgrade these nodes, or install with --set proxy.nativeSidecar=false",
        );
    }
}

/// Annotations of the Gateway API's definitions. Source: its "versioning" page.
const BUNDLE: &str = "gateway.networking.k8s.io/bundle-version";
const CHANNEL: &str = "gateway.networking.k8s.io/channel";

fn gateway_api(crd: Option<&CustomResourceDefinition>, findings: &mut Findings) {
    let Some(crd) = crd else {
        return findings.warn(
            "Gateway API",
            "not installed: Services work, routes cannot be written",
            "install the standard channel of sigs.k8s.io/gateway-api, 1.1 or later; Weft takes notice by itself",
        );
    };
    let annotation = |name: &str| {
        let all = crd.metadata.annotations.as_ref();
        all.and_then(|all| all.get(name)).map_or("unknown", String::as_str).to_owned()
    };
    let (version, channel) = (annotation(BUNDLE), annotation(CHANNEL));
    let serves_v1 = crd.spec.versions.iter().any(|version| version.name == "v1" && version.served);
    if serves_v1 {
        findings.ok("Gateway API", format!("{version}, {channel} channel"));
    } else {
        findings.fail("Gateway API", format!("{version} has no HTTPRoute v1"), "upgrade it to 1.1 or later");
    }
}

/// What an installation makes: group, resource, and whether in its namespace.
const MADE: [(&str, &str, bool); 11] = [
    ("", "namespaces", false),
    ("apiextensions.k8s.io", "customresourcedefinitions", false),
    ("rbac.authorization.k8s.io", "clusterroles", false),
    ("rbac.authorization.k8s.io", "clusterrolebindings", false),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", false),
    ("rbac.authorization.k8s.io", "roles", true),
    ("rbac.authorization.k8s.io", "rolebindings", true),
    ("", "serviceaccounts", true),
    ("", "configmaps", true),
    ("", "services", true),
    ("apps", "deployments", true),
];

/// Whether the asker may make an installation.
pub(super) async fn permissions(client: &Client, namespace: &str) -> anyhow::Result<Findings> {
    let mut findings = Findings::of("Permissions");
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let mut lacking = Vec::new();
    for (group, resource, namespaced) in MADE {
        let attributes = ResourceAttributes {
            group: Some(group.to_owned()),
            resource: Some(resource.to_owned()),
            verb: Some("create".to_owned()),
            namespace: namespaced.then(|| namespace.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec =
            SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
        let review = SelfSubjectAccessReview { spec, ..Default::default() };
        let review = reviews.create(&PostParams::default(), &review).await.map_err(explain)?;
        if !review.status.is_some_and(|status| status.allowed) {
            lacking.push(resource);
        }
    }
    if lacking.is_empty() {
        findings.ok("to install", "you may create everything that an installation is made of");
    } else {
        findings.fail(
            "to install",
            format!("you may not create {}", lacking.join(", ")),
            "take a context with more permissions (--context), or ask an administrator to install",
        );
    }
    Ok(findings)
}
