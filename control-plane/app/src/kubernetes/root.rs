//! The authority's Secret, `weft-ca`: made by the leader when it is absent, read and watched by every
//! replica.
//!
//! Its shape is kubernetes.io/tls as cert-manager writes it: `tls.crt` is the signer and what lies
//! between it and its root, `tls.key` its key, `ca.crt` the roots to trust, several while one
//! replaces the other.
//!
//! Before it: `lease` says who may make it. After it: the `authority` signs with it, `trust` and the
//! stream tell its roots.
//!
//! Invariant: a Secret that cannot be used changes nothing: the last good one stays, and event, log
//! and metric say what to do.
//! Invariant: a mesh never gets a second root behind its back: of two that make one the loser reads
//! the winner's, and a Secret that is deleted is written back as it was.
//! Invariant: no key is logged or shown; what is kept of one is wiped when it is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};
use kube::{Client, Error, Resource as _};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::counts::Counts;
use super::events::{Events, reference};
use super::lease::{Leading, chance};
use crate::authority::{Authority, Material, not_after, subject};
use crate::clock::unix_now;

/// Name of the Secret. Source: the installation's name.
pub const NAME: &str = "weft-ca";
/// Its type. Source: Kubernetes' built-in type for a certificate and its key.
const TYPE: &str = "kubernetes.io/tls";
/// Pause between two looks while there is no usable Secret. Source: Weft's own; the leader makes one
/// within milliseconds.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a deleted Secret may be gone before it is written back. Source: Weft's own; replacing by
/// force deletes and creates within milliseconds.
const GRACE: Duration = Duration::from_secs(5);
/// Time between two looks at how long roots and signer live. Source: Weft's own; the warning comes weeks
/// ahead.
const AGE_CHECK: Duration = Duration::from_secs(6 * 3600);
/// How long before its end a certificate is warned about. Source: Istio's operators ask for 30 days.
const WARNING: u64 = 30 * 86_400;

/// Where the Secret is and what it must be of.
#[derive(Debug, Clone)]
pub struct RootSettings {
    /// Namespace of the Secret.
    pub namespace: String,
    /// Trust domain of the mesh.
    pub trust_domain: String,
}

/// The Secret as one replica knows it.
pub struct Root {
    api: Api<Secret>,
    settings: RootSettings,
    leading: Leading,
    events: Events,
    counts: Counts,
    kept: Option<Kept>,
    /// What was last said to be wrong, so that it is said once.
    refused: Option<String>,
    waiting: bool,
}

/// The last good content, to write it back.
#[derive(Clone)]
struct Kept {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    roots: Vec<u8>,
}

impl Root {
    /// The Secret of `settings`, not read yet.
    pub fn new(
        client: Client,
        settings: RootSettings,
        leading: Leading,
        events: Events,
        counts: Counts,
    ) -> Self {
        let api = Api::namespaced(client, &settings.namespace);
        Self { api, settings, leading, events, counts, kept: None, refused: None, waiting: false }
    }

    /// Waits for a Secret that can be used; the leader makes one when there is none.
    ///
    /// # Cancel safety
    /// Nothing is lost: the next call reads what was made.
    pub async fn first(&mut self) -> Material {
        loop {
            match self.api.get_opt(NAME).await {
                Ok(Some(secret)) => {
                    if let Some(material) = self.read(secret) {
                        self.tell_age(&material.roots(), &material.signer());
                        return material;
                    }
                }
                Ok(None) => {
                    if let Some(material) = self.make().await {
                        return material;
                    }
                }
                Err(error) => tracing::warn!(%error, "the Secret {NAME} cannot be read"),
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE.mul_f64(1.0 + chance())) => {}
                Ok(()) = self.leading.changed() => {}
            }
        }
    }

    /// Follows the Secret for as long as the process lives: what can be used signs at once.
    ///
    /// # Cancel safety
    /// Dropping it stops that; the authority keeps what it has.
    pub async fn follow(mut self, authority: Arc<Authority>) {
        let only = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
        let mut changes = watcher(self.api.clone(), only).default_backoff().boxed();
        let (mut present, mut listed) = (true, false);
        let mut next_age = Instant::now() + AGE_CHECK;
        loop {
            tokio::select! {
                change = changes.next() => match change {
                    Some(Ok(watcher::Event::Init)) => listed = false,
                    Some(Ok(watcher::Event::InitApply(secret) | watcher::Event::Apply(secret))) => {
                        (present, listed) = (true, true);
                        self.take(secret, &authority);
                    }
                    Some(Ok(watcher::Event::InitDone)) => present = listed,
                    Some(Ok(watcher::Event::Delete(_))) => present = false,
                    Some(Err(error)) => tracing::warn!(%error, "the Secret {NAME} cannot be watched"),
                    None => return,
                },
                led = self.leading.changed() => if led.is_err() { return },
                () = tokio::time::sleep(GRACE), if !present => present = self.restore().await,
                () = tokio::time::sleep_until(next_age) => {
                    next_age = Instant::now() + AGE_CHECK;
                    self.tell_age(&authority.roots(), &authority.signer());
                }
            }
        }
    }

    fn take(&mut self, secret: Secret, authority: &Authority) {
        let Some(material) = self.read(secret) else { return };
        match authority.replace(material) {
            Ok(false) => return,
            Ok(true) => {
                let (roots, signer) = (authority.roots(), authority.signer());
                tracing::info!(roots = roots.len(), signer = subject(&signer), "the authority was replaced");
                if *self.leading.borrow() {
                    let text = format!(
                        "signing with {:?}, trusting {} roots; leaf certificates follow at their renewal",
                        subject(&signer),
                        roots.len()
                    );
                    self.events.normal(&self.about(), "AuthorityReplaced", text);
                }
            }
            Err(error) => tracing::error!(%error, "the new authority cannot sign; the last good one stays"),
        }
        self.tell_age(&authority.roots(), &authority.signer());
    }

    /// The material of a Secret; none: it cannot be used, and that was told.
    fn read(&mut self, mut secret: Secret) -> Option<Material> {
        let mut data = secret.data.take().unwrap_or_default();
        let mut entry = |name: &str| data.remove(name).map(|ByteString(bytes)| bytes).unwrap_or_default();
        let kept = Kept {
            key: Zeroizing::new(entry("tls.key")),
            certificate: entry("tls.crt"),
            roots: entry("ca.crt"),
        };
        let domain = &self.settings.trust_domain;
        match Material::read(&kept.certificate, &kept.key, &kept.roots, domain, unix_now()) {
            Ok(material) => {
                if material.expired_roots > 0 {
                    let count = material.expired_roots;
                    tracing::warn!(
                        count,
                        "ca.crt of the Secret {NAME} holds roots that have ended: remove them"
                    );
                }
                self.kept = Some(kept);
                self.refused = None;
                self.counts.root_refused.set(0);
                Some(material)
            }
            Err(bad) => {
                self.refuse(bad.to_string());
                None
            }
        }
    }

    fn refuse(&mut self, reason: String) {
        self.counts.root_refused.set(1);
        if self.refused.as_ref() == Some(&reason) {
            return;
        }
        let stays = if self.kept.is_some() { "; the last good one stays in use" } else { "" };
        tracing::error!(reason, "the Secret {NAME} cannot be used{stays}");
        self.events.warn(&self.about(), "AuthorityRefused", format!("{reason}{stays}"));
        self.refused = Some(reason);
    }

    /// Makes a root and keeps it in the Secret. None: this replica does not lead, or another was faster.
    async fn make(&mut self) -> Option<Material> {
        if !*self.leading.borrow() {
            if !std::mem::replace(&mut self.waiting, true) {
                tracing::info!("waiting for the leader to make the Secret {NAME}");
            }
            return None;
        }
        let material = match Material::fresh(&self.settings.trust_domain) {
            Ok(material) => material,
            Err(error) => {
                self.refuse(error.to_string());
                return None;
            }
        };
        let (certificate, mut key, roots) = material.to_pem();
        let key = Zeroizing::new(std::mem::take(&mut *key).into_bytes());
        let kept = Kept { certificate: certificate.into_bytes(), key, roots: roots.into_bytes() };
        if !self.create(&kept).await {
            return None;
        }
        tracing::info!("the Secret {NAME} was made with a new root");
        self.events.normal(&self.about(), "AuthorityMade", "a new root was made, valid for ten years");
        self.tell_age(&material.roots(), &material.signer());
        self.kept = Some(kept);
        Some(material)
    }

    /// Writes the last good content back; whether the Secret is there again.
    async fn restore(&mut self) -> bool {
        if !*self.leading.borrow() {
            return false;
        }
        let Some(kept) = self.kept.clone() else { return false };
        let made = self.create(&kept).await;
        if made {
            let text = "the Secret was deleted and is written back as it was: a mesh that loses its root \
                        trusts nobody. To change the root, apply another Secret in its place";
            tracing::warn!("{text}");
            self.events.warn(&self.about(), "AuthorityRestored", text);
        }
        made
    }

    async fn create(&self, kept: &Kept) -> bool {
        let metadata = ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(self.settings.namespace.clone()),
            labels: Some(super::labels()),
            ..ObjectMeta::default()
        };
        let data = BTreeMap::from([
            ("tls.crt".to_owned(), ByteString(kept.certificate.clone())),
            ("tls.key".to_owned(), ByteString(kept.key.to_vec())),
            ("ca.crt".to_owned(), ByteString(kept.roots.clone())),
        ]);
        let mut secret =
            Secret { metadata, type_: Some(TYPE.to_owned()), data: Some(data), ..Secret::default() };
        let made = self.api.create(&PostParams::default(), &secret).await;
        if let Some(ByteString(key)) = secret.data.as_mut().and_then(|data| data.get_mut("tls.key")) {
            zeroize::Zeroize::zeroize(key);
        }
        match made {
            Ok(_) => true,
            Err(Error::Api(status)) if status.is_already_exists() || status.is_conflict() => {
                tracing::info!("another replica made the Secret {NAME} first; its root is used");
                false
            }
            Err(error) => {
                tracing::error!(%error, "the Secret {NAME} cannot be made");
                false
            }
        }
    }

    /// Sets the gauges, and warns of what ends soon.
    fn tell_age(
        &self,
        roots: &[rustls_pki_types::CertificateDer<'static>],
        signer: &rustls_pki_types::CertificateDer<'static>,
    ) {
        let gauge = |end: Option<u64>| i64::try_from(end.unwrap_or(0)).unwrap_or(i64::MAX);
        self.counts.roots.set(i64::try_from(roots.len()).unwrap_or(i64::MAX));
        self.counts.signer_not_after.set(gauge(not_after(signer)));
        self.counts.root_not_after.set(gauge(roots.iter().filter_map(not_after).min()));
        if !*self.leading.borrow() {
            return;
        }
        let now = unix_now();
        let all = roots.iter().filter(|root| *root != signer).map(|root| (root, "root"));
        for (certificate, what) in all.chain([(signer, "signing certificate")]) {
            if let Some(text) = ends_soon(what, &subject(certificate), not_after(certificate), now) {
                tracing::warn!("{text}");
                self.events.warn(&self.about(), "AuthorityEndsSoon", text);
            }
        }
    }

    fn about(&self) -> k8s_openapi::api::core::v1::ObjectReference {
        reference(&Secret::api_version(&()), &Secret::kind(&()), &self.settings.namespace, NAME)
    }
}

/// What a person is told about a certificate that has not long to live.
fn ends_soon(what: &str, subject: &str, end: Option<u64>, now: u64) -> Option<String> {
    let left = end?.saturating_sub(now);
    let days = left / 86_400;
    (left < WARNING).then(|| {
        format!(
            "the {what} {subject:?} ends in {days} days: add a new root to ca.crt of the Secret {NAME}, wait \
             until all sidecars have it, then write tls.crt and tls.key of the new one"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warning_begins_thirty_days_before_the_end() {
        let now = 1_000_000_000;
        let told = |left: u64| ends_soon("root", "CN=Weft root", Some(now + left), now);
        assert_eq!(told(30 * 86_400), None);
        let text = told(30 * 86_400 - 1).unwrap();
        assert!(text.contains("CN=Weft root") && text.contains("ends in 29 days"), "{text}");
        assert!(told(0).unwrap().contains("ends in 0 days"));
        assert_eq!(ends_soon("root", "x", None, now), None);
    }
}
