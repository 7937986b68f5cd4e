//! Which of the kinds that are not built in the API server serves, and in which versions, looked at
//! again and again: kinds may be installed later, upgraded, or taken away.
//!
//! After it: each kind's `watch` begins, changes its version, or ends.
//!
//! Invariant: what is there is believed at once; what is missing only when it is missing twice, a calm
//! while apart, because an API server that is starting shows its kinds one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroup, APIResourceList};
use kube::Client;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::kinds::GATEWAY_GROUP;
use crate::kubernetes::pace::Pace;

/// Time between looks. Source: Weft's own; a look is a handful of small requests.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long something must be missing to be gone. Source: Weft's own.
const CALM: Duration = Duration::from_secs(5);
/// Time for one answer. Source: as for a watch.
const ANSWER: Duration = Duration::from_secs(30);

/// Versions served, by group and by the kind's name in paths.
pub type Served = BTreeMap<(&'static str, String), Vec<String>>;

/// What is served, as far as it is known; none before the first answer.
pub type Serving = watch::Receiver<Option<Arc<Served>>>;

/// Looks for as long as somebody listens. `poke` makes it look now.
///
/// # Cancel safety
/// Dropping it ends the looking; what was found stays.
pub async fn run(client: Client, found: watch::Sender<Option<Arc<Served>>>, poke: Arc<Notify>) {
    let mut pace = Pace::default();
    while !found.is_closed() {
        let known = found.borrow().clone();
        let looked = match look(&client).await {
            Ok(served) if lacks(&served, known.as_deref()) => {
                tokio::time::sleep(CALM).await;
                look(&client).await
            }
            looked => looked,
        };
        match looked {
            Ok(served) => {
                pace.reset();
                if known.as_deref() != Some(&served) {
                    found.send_replace(Some(Arc::new(served)));
                }
                tokio::select! {
                    () = tokio::time::sleep(INTERVAL) => {}
                    () = poke.notified() => {}
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the API server does not say which kinds it serves");
                pace.wait().await;
            }
        }
    }
}

/// Whether something is missing that was there.
fn lacks(served: &Served, known: Option<&Served>) -> bool {
    known.is_some_and(|known| known.keys().any(|kind| !served.contains_key(kind)))
}

async fn look(client: &Client) -> kube::Result<Served> {
    let mut served = Served::new();
    for group in [GATEWAY_GROUP, weft_k8s::GROUP] {
        let Some(answer) = ask::<APIGroup>(client, format!("/apis/{group}")).await? else { continue };
        for version in answer.versions {
            let path = format!("/apis/{}", version.group_version);
            let Some(list) = ask::<APIResourceList>(client, path).await? else { continue };
            // A status is listed as "name/status".
            for resource in list.resources.into_iter().filter(|resource| !resource.name.contains('/')) {
                served.entry((group, resource.name)).or_default().push(version.version.clone());
            }
        }
    }
    Ok(served)
}

/// An answer; none: there is no such path.
async fn ask<T: DeserializeOwned>(client: &Client, path: String) -> kube::Result<Option<T>> {
    let request = http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
    match timeout(ANSWER, client.request::<T>(request)).await {
        Ok(Ok(answer)) => Ok(Some(answer)),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(None),
        Ok(Err(error)) => Err(error),
        Err(elapsed) => Err(kube::Error::Service(elapsed.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_there_can_be_missing() {
        let one = |name: &str| Served::from([((GATEWAY_GROUP, name.to_owned()), vec!["v1".to_owned()])]);
        assert!(!lacks(&Served::new(), None));
        assert!(!lacks(&one("httproutes"), Some(&Served::new())));
        assert!(!lacks(&one("httproutes"), Some(&one("httproutes"))));
        assert!(lacks(&one("grpcroutes"), Some(&one("httproutes"))));
    }
}
