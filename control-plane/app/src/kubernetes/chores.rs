//! What runs beside the watches in a cluster: the election, events, the authority's Secret, the trusted
//! roots for people, the injector's webhook, the objects' status.
//!
//! Before it: `app` connected. After it: each chore by itself, until told to stop.
//!
//! Invariant: a chore that fails is tried again by itself; none of them ends the control plane.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::conditions::writer::{Writer, WriterSettings};
use super::counts::Counts;
use super::events::Events;
use super::lease::{self, Leading, LeaseSettings};
use super::root::{Root, RootSettings};
use super::{Cluster, Shared, injector, trust};
use crate::authority::{Authority, AuthoritySettings};
use crate::webhook::Recheck;

/// The chores.
pub struct Chores {
    cluster: Cluster,
    leading: Leading,
    root: Root,
    events: Events,
    counts: Counts,
    lease: JoinHandle<()>,
    tasks: Vec<JoinHandle<()>>,
}

/// The chores, running.
#[derive(Debug)]
pub struct Running {
    lease: Option<JoinHandle<()>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Chores {
    /// Takes part in the election, and is ready to send events.
    pub fn begin(cluster: Cluster, trust_domain: &str, counts: &Counts, stop: &CancellationToken) -> Self {
        let client = || cluster.client.clone();
        let events = Events::start(client(), cluster.pod_name.clone(), counts.clone(), stop.clone());
        let settings =
            LeaseSettings { namespace: cluster.namespace.clone(), identity: cluster.pod_name.clone() };
        let (leading, lease) = lease::start(client(), settings, counts.clone(), stop.clone());
        let settings =
            RootSettings { namespace: cluster.namespace.clone(), trust_domain: trust_domain.to_owned() };
        let root = Root::new(client(), settings, leading.clone(), events.clone(), counts.clone());
        let counts = counts.clone();
        Self { cluster, leading, root, events, counts, lease, tasks: Vec::new() }
    }

    /// Waits for the authority that all replicas share.
    ///
    /// # Errors
    /// Its certificate has no life left.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn authority(&mut self, settings: &AuthoritySettings) -> anyhow::Result<Arc<Authority>> {
        let material = self.root.first().await;
        Ok(Arc::new(Authority::with(material, settings)?))
    }

    /// Starts everything that needs the authority. Gives the re-check of pods without sidecars, if there is
    /// an injector, for the feed.
    ///
    /// # Errors
    /// The webhook's address cannot be bound.
    pub fn start(mut self, shared: &Shared) -> anyhow::Result<(Running, Option<Recheck>)> {
        let authority = || Arc::clone(&shared.authority);
        self.tasks.push(tokio::spawn(self.root.follow(authority())));
        let (client, namespace) = (self.cluster.client.clone(), self.cluster.namespace.clone());
        self.tasks.push(tokio::spawn(trust::follow(client, namespace, self.leading.clone(), authority())));
        let settings = WriterSettings {
            namespace: self.cluster.namespace.clone(),
            pod: self.cluster.pod_name.clone(),
            admin_port: self.cluster.admin_port,
        };
        let told = (shared.reports.clone(), Arc::clone(&shared.status), shared.reader.clone());
        let client = self.cluster.client.clone();
        let writer = Writer::new(client, settings, self.leading.clone(), told, (self.events.clone(), self.counts));
        self.tasks.push(tokio::spawn(writer.run()));
        let injector = injector::start(&self.cluster, shared, self.events, &self.leading)?;
        let recheck = injector.map(|injector| {
            self.tasks.extend(injector.tasks);
            injector.recheck
        });
        Ok((Running { lease: Some(self.lease), tasks: self.tasks }, recheck))
    }
}

impl Running {
    /// Waits until the Lease is given away, so that another replica leads at once.
    ///
    /// # Cancel safety
    /// Dropping it leaves the Lease to run out.
    pub async fn ended(&mut self, patience: Duration) {
        if let Some(lease) = self.lease.take() {
            let _ = tokio::time::timeout(patience, lease).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().chain(&self.lease).for_each(JoinHandle::abort);
    }
}
