//! The objects whose status is ours, as the API server has them: which versions of the kinds it serves,
//! all objects of a kind, one object, and the write.
//!
//! Invariant: a status is written over the version that was read, and only to the object that the report
//! is about.

use std::collections::BTreeMap;

use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::ApiResource;
use kube::{Client, Error, discovery};
use serde_json::{Value, json};
use weft_control_plane_core::model::{Kind, ObjectKey};

/// Kinds whose status is ours, and their groups.
const KINDS: [(Kind, &str); 10] = [
    (Kind::HttpRoute, ROUTES),
    (Kind::GrpcRoute, ROUTES),
    (Kind::TlsRoute, ROUTES),
    (Kind::TcpRoute, ROUTES),
    (Kind::UdpRoute, ROUTES),
    (Kind::AuthorizationPolicy, weft_k8s::GROUP),
    (Kind::TrafficPolicy, weft_k8s::GROUP),
    (Kind::TlsPolicy, weft_k8s::GROUP),
    (Kind::TelemetryPolicy, weft_k8s::GROUP),
    (Kind::Mesh, weft_k8s::GROUP),
];
/// The Gateway API's group.
const ROUTES: &str = "gateway.networking.k8s.io";
/// Objects of one page. Source: client-go's pager, 500.
const PAGE: u32 = 500;

/// The kinds as the API server serves them.
#[derive(Clone)]
pub(super) struct Kinds {
    client: Client,
    served: BTreeMap<Kind, ApiResource>,
}

impl Kinds {
    /// Asks which of the kinds are served, in which version; those that are not are left out.
    pub(super) async fn discover(client: Client) -> Result<Self, Error> {
        let mut served = BTreeMap::new();
        for group in [ROUTES, weft_k8s::GROUP] {
            let found = match discovery::group(&client, group).await {
                Ok(found) => found,
                Err(Error::Discovery(_)) => continue,
                Err(Error::Api(status)) if status.is_not_found() => continue,
                Err(error) => return Err(error),
            };
            for (kind, _) in KINDS.iter().filter(|(_, of)| *of == group) {
                if let Some((resource, _)) = found.recommended_kind(kind.as_str()) {
                    served.insert(*kind, resource);
                }
            }
        }
        Ok(Self { client, served })
    }

    /// Kinds that are served.
    pub(super) fn all(&self) -> impl Iterator<Item = Kind> {
        self.served.keys().copied().collect::<Vec<_>>().into_iter()
    }

    /// Calls `each` with every object of a kind, page by page.
    pub(super) async fn each(
        &self,
        kind: Kind,
        mut each: impl FnMut(ObjectKey, &Value),
    ) -> Result<(), Error> {
        let Some(resource) = self.served.get(&kind) else { return Ok(()) };
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), resource);
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let list = match api.list(&page).await {
                Ok(list) => list,
                // One kind that may not be read holds up no other.
                Err(Error::Api(status)) if status.is_forbidden() => {
                    tracing::warn!(%kind, "its status cannot be looked at: {}", status.message);
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            for object in &list.items {
                let (namespace, name) = (&object.metadata.namespace, &object.metadata.name);
                let part = |text: &Option<String>| text.clone().unwrap_or_default();
                each(ObjectKey::new(kind, &part(namespace), &part(name)), &plain(object));
            }
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(()),
            }
        }
    }

    /// One object; none: it is not there, or its kind is not served.
    pub(super) async fn read(&self, key: &ObjectKey) -> Result<Option<Value>, Error> {
        match self.api(key) {
            Some(api) => Ok(api.get_opt(&key.name).await?.map(|object| plain(&object))),
            None => Ok(None),
        }
    }

    /// Writes a status over the version of `object` that was read.
    pub(super) async fn write(&self, key: &ObjectKey, object: &Value, status: &Value) -> Result<(), Error> {
        let Some(api) = self.api(key) else { return Ok(()) };
        let version = object.pointer("/metadata/resourceVersion");
        let patch = json!({ "metadata": { "resourceVersion": version }, "status": status });
        api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    /// What an object of a kind is called in its group: "group/version".
    pub(super) fn api_version(&self, kind: Kind) -> String {
        self.served.get(&kind).map(|resource| resource.api_version.clone()).unwrap_or_default()
    }

    fn api(&self, key: &ObjectKey) -> Option<Api<DynamicObject>> {
        let resource = self.served.get(&key.kind)?;
        Some(match key.namespace.as_str() {
            "" => Api::all_with(self.client.clone(), resource),
            namespace => Api::namespaced_with(self.client.clone(), namespace, resource),
        })
    }
}

/// What is looked at of an object: its names, its parents and its status.
fn plain(object: &DynamicObject) -> Value {
    json!({
        "metadata": {
            "namespace": object.metadata.namespace,
            "name": object.metadata.name,
            "uid": object.metadata.uid,
            "generation": object.metadata.generation,
            "resourceVersion": object.metadata.resource_version,
        },
        "spec": { "parentRefs": object.data.pointer("/spec/parentRefs") },
        "status": object.data.get("status"),
    })
}
