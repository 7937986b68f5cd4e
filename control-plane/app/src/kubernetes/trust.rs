//! The ConfigMap `weft-trust`: the roots that are trusted now, for whoever wants to look at the mesh
//! from outside of it.
//!
//! Before it: the `authority`. After it: people, `weft check`, and gateways of other makers.
//!
//! Invariant: written by the leader, only when it differs, and put right again when somebody changes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ObjectMeta, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Error};

use super::lease::Leading;
use crate::authority::Authority;

/// Name of the ConfigMap. Source: the installation's name.
pub const NAME: &str = "weft-trust";
/// Its one entry. Source: the installation's name.
pub const ENTRY: &str = "root.pem";
/// Time between two looks without a reason. Source: Weft's own; one small read.
const CHECK: Duration = Duration::from_secs(60);
/// Pause after a failure. Source: as for the Lease.
const PAUSE: Duration = Duration::from_secs(2);

/// Keeps the ConfigMap for as long as the process lives, while `leading` says so.
///
/// # Cancel safety
/// Dropping it stops that; the ConfigMap stays as it is.
pub async fn follow(client: Client, namespace: String, mut leading: Leading, authority: Arc<Authority>) {
    let api: Api<ConfigMap> = Api::namespaced(client, &namespace);
    while leading.wait_for(|leads| *leads).await.is_ok() {
        tokio::select! {
            () = guard(&api, &namespace, &authority) => return,
            lost = leading.wait_for(|leads| !leads) => if lost.is_err() { return },
        }
    }
}

/// Puts it right whenever it or the roots change, and now and then should a change not be told.
async fn guard(api: &Api<ConfigMap>, namespace: &str, authority: &Authority) {
    let only = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    let mut seen = watcher(api.clone(), only).default_backoff().boxed();
    let mut changes = authority.changes();
    loop {
        let pause = match keep(api, namespace, &authority.anchors_pem()).await {
            Ok(()) => CHECK,
            Err(error) => {
                tracing::warn!(%error, "the ConfigMap {NAME} was not written");
                PAUSE
            }
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            event = seen.next() => if let Some(Err(error)) = event {
                tracing::warn!(%error, "the ConfigMap {NAME} cannot be watched");
            },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn keep(api: &Api<ConfigMap>, namespace: &str, roots: &str) -> Result<(), Error> {
    let held = api.get_opt(NAME).await?;
    let held = held.as_ref().and_then(|map| map.data.as_ref()).and_then(|data| data.get(ENTRY));
    if held.is_some_and(|held| held == roots) {
        return Ok(());
    }
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(super::labels()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(ENTRY.to_owned(), roots.to_owned())])),
        ..ConfigMap::default()
    };
    let by = PatchParams::apply(super::lease::NAME).force();
    api.patch(NAME, &by, &Patch::Apply(&map)).await?;
    tracing::info!("the ConfigMap {NAME} holds the trusted roots");
    Ok(())
}
