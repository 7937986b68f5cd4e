//! Keeps what the API server trusts when it calls the webhook: `caBundle` of the
//! MutatingWebhookConfiguration, equal to the mesh's roots.
//!
//! Before it: the Lease says whether this replica writes; the authority says what the roots are. After it:
//! the API server shakes hands with any replica.
//!
//! Invariant: written by the leader only, and only where it differs; everything else of the configuration
//! stays as whoever installed it wrote it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use json_patch::{PatchOperation, jsonptr::PointerBuf};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Error};
use serde_json::json;
use tokio::sync::watch;

use crate::authority::Authority;

/// Name of the configuration. Source: the names of Weft's own chart.
pub const CONFIGURATION: &str = "weft-injector";
/// Pause after a write failed. Source: as for the Lease.
const PAUSE: Duration = Duration::from_secs(2);
/// Who writes. Source: the installation's name.
const WRITER: &str = "weft-control-plane";

/// Keeps it for as long as the process lives, while `leading` says so.
///
/// # Cancel safety
/// Dropping it stops that; the configuration stays as it is.
pub async fn follow(client: Client, mut leading: watch::Receiver<bool>, authority: Arc<Authority>) {
    loop {
        if leading.wait_for(|leads| *leads).await.is_err() {
            return;
        }
        tokio::select! {
            () = keep(client.clone(), &authority) => {}
            lost = leading.wait_for(|leads| !leads) => if lost.is_err() { return },
        }
    }
}

/// Watches the one object, and writes when it or the roots change.
async fn keep(client: Client, authority: &Authority) {
    let api: Api<MutatingWebhookConfiguration> = Api::all(client);
    let only = watcher::Config::default().fields(&format!("metadata.name={CONFIGURATION}"));
    let objects = watcher(api.clone(), only).default_backoff().applied_objects();
    tokio::pin!(objects);
    let mut changes = authority.changes();
    let mut held: Option<MutatingWebhookConfiguration> = None;
    let mut failed = false;
    loop {
        let again =
            async { if failed { tokio::time::sleep(PAUSE).await } else { std::future::pending().await } };
        tokio::select! {
            seen = objects.next() => match seen {
                Some(Ok(object)) => held = Some(object),
                Some(Err(error)) => tracing::warn!(%error, "{CONFIGURATION} cannot be watched"),
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

async fn write(
    api: &Api<MutatingWebhookConfiguration>,
    object: &MutatingWebhookConfiguration,
    roots: &[u8],
) -> Result<(), Error> {
    let patch = patch(object, roots);
    if patch.is_empty() {
        return Ok(());
    }
    let params = PatchParams { field_manager: Some(WRITER.to_owned()), ..PatchParams::default() };
    let written = api.patch(CONFIGURATION, &params, &Patch::<()>::Json(json_patch::Patch(patch))).await;
    match written {
        Ok(_) => tracing::info!("the API server trusts the mesh's roots when it calls the webhook"),
        Err(error) => {
            tracing::warn!(%error, "caBundle of {CONFIGURATION} was not written");
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
        serde_json::from_value(json!({"metadata": {"name": CONFIGURATION}, "webhooks": webhooks})).unwrap()
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
    fn a_webhook_that_moved_since_is_not_written_to() {
        let operations = patch(&configuration(&[Some("roots"), None]), b"roots");
        let mut other = serde_json::to_value(configuration(&[None])).unwrap();
        assert!(json_patch::patch(&mut other, &operations).is_err());
    }
}
