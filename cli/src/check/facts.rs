//! What there is of an installation, read once and then looked at from several sides.
//!
//! Invariant: what the asker may not see is an error with a remedy; what is not there is `None`.

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client};
use weft_control_plane_core::inject::InjectorConfig;

use crate::cluster::explain;

/// Name of the Deployment and the Lease. Source: the chart's.
const NAME: &str = "weft-control-plane";
/// Name of the webhook's configuration and of the injector's settings. Source: the chart's.
const INJECTOR: &str = "weft-injector";
/// Where the trusted roots are. Source: the control plane's.
const TRUST: (&str, &str) = ("weft-trust", "root.pem");

/// An installation.
pub(super) struct Installation {
    /// The control plane.
    pub(super) deployment: Option<Deployment>,
    /// Which replica writes.
    pub(super) lease: Option<Lease>,
    /// The roots that are trusted, PEM.
    pub(super) roots: Option<String>,
    /// The injector's settings, or why they cannot be used.
    pub(super) injector: Option<Result<InjectorConfig, String>>,
    /// Which pods are sent to the injector.
    pub(super) webhook: Option<MutatingWebhookConfiguration>,
    /// The definitions of the kinds that are there.
    pub(super) kinds: Vec<CustomResourceDefinition>,
}

impl Installation {
    /// Reads all of it.
    ///
    /// # Errors
    /// The cluster cannot be reached, or the asker may not see a part.
    pub(super) async fn read(client: &Client, namespace: &str) -> anyhow::Result<Self> {
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
        let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let webhooks: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
        let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
        let entry = |map: Option<ConfigMap>, name: &str| map?.data?.remove(name);
        let injector = entry(maps.get_opt(INJECTOR).await.map_err(explain)?, "injector.yaml");
        let mut kinds = Vec::new();
        for kind in weft_k8s::crds::definitions() {
            let name = kind.metadata.name.unwrap_or_default();
            kinds.extend(crds.get_opt(&name).await.map_err(explain)?);
        }
        Ok(Self {
            deployment: deployments.get_opt(NAME).await.map_err(explain)?,
            lease: leases.get_opt(NAME).await.map_err(explain)?,
            roots: entry(maps.get_opt(TRUST.0).await.map_err(explain)?, TRUST.1),
            injector: injector.map(|text| settings(&text)),
            webhook: webhooks.get_opt(INJECTOR).await.map_err(explain)?,
            kinds,
        })
    }
}

fn settings(text: &str) -> Result<InjectorConfig, String> {
    let config: InjectorConfig = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    config.check().map_err(|error| error.to_string())?;
    Ok(config)
}
