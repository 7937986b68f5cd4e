//! Keeps what the API server trusts when it calls this port: `caBundle` of the MutatingWebhookConfiguration and
//! of the APIService, equal to the mesh's roots.
//!
//! Before it: the Lease says whether this replica writes; the authority says what the roots are. After it:
//! the API server shakes hands with any replica.
//!
//! Invariant: written by the leader only, and only where it differs; everything else of the configuration
//! stays as whoever installed it wrote it.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use json_patch::{PatchOperation, jsonptr::PointerBuf};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Error, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::watch;

use crate::authority::Authority;

/// What holds a bundle.
pub trait Bundled: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static {
    /// Its name. Source: the names of Weft's own chart.
    const NAME: &str;

    /// What makes every bundle of it equal to the roots, and fails where it was changed since it was seen.
    fn patch(&self, roots: &[u8]) -> Vec<PatchOperation>;
}

impl Bundled for MutatingWebhookConfiguration {
    const NAME: &str = "weft-injector";

    fn patch(&self, roots: &[u8]) -> Vec<PatchOperation> {
        patch(self, roots)
    }
}

impl Bundled for APIService {
    const NAME: &str = "v1alpha1.observe.weft.dev";

    fn patch(&self, roots: &[u8]) -> Vec<PatchOperation> {
        let Some(spec) = self.spec.as_ref().filter(|spec| spec.service.is_some()) else { return Vec::new() };
        if spec.ca_bundle.as_ref().is_some_and(|bundle| bundle.0 == roots) {
            return Vec::new();
        }
        // Adding a member that is there replaces it. Source: RFC 6902 §4.1.
        let path = PointerBuf::from_tokens(["spec", "caBundle"]);
        let value = json!(ByteString(roots.to_vec()));
        vec![PatchOperation::Add(json_patch::AddOperation { path, value })]
    }
}
/// Pause after a write failed. Source: as for the Lease.
const PAUSE: Duration = Duration::from_secs(2);
/// Who writes. Source: the installation's name.
const WRITER: &str = "weft-control-plane";

/// Keeps it for as long as the process lives, while `leading` says so.
///
/// # Cancel safety
/// Dropping it stops that; the configuration stays as it is.
pub async fn follow<K: Bundled>(
    client: Client,
    mut leading: watch::Receiver<bool>,
    authority: Arc<Authority>,
) {
    loop {
        if leading.wait_for(|leads| *leads).await.is_err() {
            return;
        }
        tokio::select! {
            () = keep::<K>(client.clone(), &authority) => {}
            lost = leading.wait_for(|leads| !leads) => if lost.is_err() { return },
        }
    }
}

/// Watches the one object, and writes when it or the roots change.
async fn keep<K: Bundled>(client: Client, authority: &Authority) {
    let api: Api<K> = Api::all(client);
    let only = watcher::Config::default().fields(&format!("metadata.name={}", K::NAME));
    let objects = watcher(api.clone(), only).default_backoff().applied_objects();
    tokio::pin!(objects);
    let mut changes = authority.changes();
    let mut held: Option<K> = None;
    let mut failed = false;
    loop {
        let again =
            async { if failed { tokio::time::sleep(PAUSE).await } else { std::future::pending().await } };
        tokio::select! {
            seen = objects.next() => match seen {
                Some(Ok(object)) => held = Some(object),
                Some(Err(error)) => tracing::warn!(%error, "{} cannot be watched", K::NAME),
                None => return,
            },
            _ = changes.changed() => {}
            () = again => {}
        }
        failed = match &held {
            Some(object) => write(&api, object, authority.anchors_pem().as_bytes()).await.is_err(),
            None => false,
        };
    }
}

async fn write<K: Bundled>(api: &Api<K>, object: &K, roots: &[u8]) -> Result<(), Error> {
    let patch = object.patch(roots);
    if patch.is_empty() {
        return Ok(());
    }
    let params = PatchParams { field_manager: Some(WRITER.to_owned()), ..PatchParams::default() };
    let written = api.patch(K::NAME, &params, &Patch::<()>::Json(json_patch::Patch(patch))).await;
    match written {
        Ok(_) => tracing::info!("the API server trusts the mesh's roots when it calls {}", K::NAME),
        Err(error) => {
            tracing::warn!(%error, "caBundle of {} was not written", K::NAME);
            return Err(error);
        }
    }
    Ok(())
}

/// What makes every webhook's bundle equal to the roots; each write tests that the webhook it means is
/// still where it was seen.
fn patch(object: &MutatingWebhookConfiguration, roots: &[u8]) -> Vec<PatchOperation> {
    let webhooks = object.webhooks.iter().flatten().enumerate();
    let wrong = webhooks.filter(|(_, webhook)| {
        webhook.client_config.ca_bundle.as_ref().is_none_or(|bundle| bundle.0 != roots)
    });
    let value = json!(ByteString(roots.to_vec()));
    wrong
        .flat_map(|(index, webhook)| {
            let at =
                |rest: &[&str]| PointerBuf::from_tokens([&["webhooks", &index.to_string()], rest].concat());
            [
                PatchOperation::Test(json_patch::TestOperation {
                    path: at(&["name"]),
                    value: json!(webhook.name),
                }),
                // Adding a member that is there replaces it. Source: RFC 6902 §4.1.
                PatchOperation::Add(json_patch::AddOperation {
                    path: at(&["clientConfig", "caBundle"]),
                    value: value.clone(),
                }),
            ]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(bundles: &[Option<&str>]) -> MutatingWebhookConfiguration {
        let webhook = |(index, bundle): (usize, &Option<&str>)| {
            let bundle = bundle.map(|bundle| ByteString(bundle.as_bytes().to_vec()));
            json!({
                "name": format!("w{index}"),
                "clientConfig": {"caBundle": bundle, "url": "https://a"},
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            })
        };
        let webhooks: Vec<_> = bundles.iter().enumerate().map(webhook).collect();
        serde_json::from_value(
            json!({"metadata": {"name": MutatingWebhookConfiguration::NAME}, "webhooks": webhooks}),
        )
        .unwrap()
    }

    #[test]
    fn only_bundles_that_differ_are_written_and_nothing_else_changes() {
        let object = configuration(&[Some("roots"), None, Some("old")]);
        let mut value = serde_json::to_value(&object).unwrap();
        let operations = patch(&object, b"roots");
        assert_eq!(operations.len(), 4);
        json_patch::patch(&mut value, &operations).unwrap();
        let bundles = [Some("roots"), Some("roots"), Some("roots")];
        assert_eq!(value, serde_json::to_value(configuration(&bundles)).unwrap());
        assert_eq!(patch(&configuration(&bundles), b"roots"), []);
    }

    #[test]
    fn the_api_services_bundle_is_written_where_it_differs() {
        let service = |bundle: Option<&str>| -> APIService {
            let bundle = bundle.map(|bundle| ByteString(bundle.as_bytes().to_vec()));
            serde_json::from_value(json!({
                "metadata": {"name": APIService::NAME},
                "spec": {
                    "caBundle": bundle,
                    "group": "observe.weft.dev",
                    "groupPriorityMinimum": 100,
                    "service": {"name": "weft-control-plane", "namespace": "weft-system"},
                    "versionPriority": 1,
                },
            }))
            .unwrap()
        };
        assert_eq!(service(Some("roots")).patch(b"roots"), []);
        for before in [None, Some("old")] {
            let mut value = serde_json::to_value(service(before)).unwrap();
            json_patch::patch(&mut value, &service(before).patch(b"roots")).unwrap();
            assert_eq!(value, serde_json::to_value(service(Some("roots"))).unwrap());
        }
        let mut local = service(None);
        local.spec.as_mut().unwrap().service = None;
        assert_eq!(local.patch(b"roots"), [], "one that is served elsewhere has no bundle");
    }

    #[test]
    fn a_webhook_that_moved_since_is_not_written_to() {
        let operations = patch(&configuration(&[Some("roots"), None]), b"roots");
        let mut other = serde_json::to_value(configuration(&[None])).unwrap();
        assert!(json_patch::patch(&mut other, &operations).is_err());
    }
}
