//! The injector in a cluster: its webhook, what the API server trusts of it, and the re-check of pods that
//! run without their sidecar; and on the webhook's port the API for looking at the mesh.
//!
//! Before it: the chores have an authority and take part in the election. After it: `webhook` serves, and
//! the feed tells the re-check what changes.
//!
//! Invariant: nothing is decided here.

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Api;
use tokio::task::JoinHandle;
use weft_control_plane_core::inject::NamespaceFacts;

use super::events::Events;
use super::lease::Leading;
use super::replicas::Others;
use super::{Cluster, Observing, Shared};
use crate::observe::front::Front;
use crate::observe::replicas::Replicas;
use crate::webhook::{self, Notice, Parts, Recheck, bundle};

/// The injector, running.
pub struct Injector {
    /// Finds pods that run without their sidecar.
    pub recheck: Recheck,
    /// What runs in the background.
    pub tasks: Vec<JoinHandle<()>>,
}

/// Starts it where the command line asks for it.
///
/// # Errors
/// The webhook's address cannot be bound, or the authority cannot sign.
pub fn start(
    cluster: &Cluster,
    shared: &Shared,
    events: Events,
    leading: &Leading,
) -> anyhow::Result<Option<Injector>> {
    let Some((listen, settings)) = cluster.webhook.clone() else { return Ok(None) };
    let notice: Notice = Arc::new(move |about, reason, message| events.warn(&about, reason, message));
    let roll = shared.roll.clone();
    let metrics = shared.metrics.injecting.clone();
    let client = || cluster.client.clone();
    let Observing { hub, grpc, calls } = shared.looking.clone();
    let pods = Api::namespaced(client(), &cluster.namespace);
    let others = Others::new(pods, cluster.pod_name.clone());
    hub.beside(Replicas::new(others, grpc, calls));
    let (front, following) = Front::start(hub, client());
    let running = webhook::start(Parts {
        listen,
        settings,
        authority: Arc::clone(&shared.authority),
        names: webhook::service_names(&cluster.namespace),
        namespaces: Arc::new(move |name| {
            let namespace = roll.namespace(name)?;
            let (labels, annotations) = (namespace.labels, namespace.annotations);
            Some(NamespaceFacts { name: name.to_owned(), labels, annotations })
        }),
        notice: Arc::clone(&notice),
        metrics: metrics.clone(),
        beside: front.router(),
        stop: shared.stop.clone(),
    })?;
    tracing::info!(address = %running.address, "the injector's webhook listens");
    let status = Arc::clone(&shared.status);
    let recheck = Recheck::new(running.settings, notice, metrics, leading.clone(), status);
    let mut tasks = running.tasks;
    let authority = Arc::clone(&shared.authority);
    let webhooks = bundle::follow::<MutatingWebhookConfiguration>;
    tasks.push(tokio::spawn(webhooks(client(), leading.clone(), Arc::clone(&authority))));
    tasks.push(tokio::spawn(bundle::follow::<APIService>(client(), leading.clone(), authority)));
    tasks.push(following);
    Ok(Some(Injector { recheck, tasks }))
}
