//! Which pods, workloads and service accounts belong together, by what is published; and which sidecars a
//! question concerns.
//!
//! Sidecars know a callee by its pod and a caller by its identity; people know workloads.
//!
//! Invariant: a service account that several workloads share stands for none of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_control_plane_core::config::{Inbound, Key, Resource, ResourceType};
use weft_control_plane_core::session::Published;
use weft_proto::v1;
use weft_proto::v1::question::What;

use crate::status::{Reached, Status};

/// What is published, and who shares which account.
pub(super) struct Owners {
    published: Option<Arc<Published>>,
    /// The one workload of a "namespace/account"; none where there are several.
    accounts: BTreeMap<String, Option<String>>,
}

/// The sidecars that a question concerns.
pub(super) struct Concerned {
    /// Those that understand it.
    pub(super) asked: Vec<Reached>,
    /// How many do not.
    pub(super) older: u64,
}

impl Owners {
    pub(super) fn of(published: Option<Arc<Published>>) -> Self {
        let mut owners = Self { published, accounts: BTreeMap::new() };
        let inbounds = owners.inbounds().map(|inbound| {
            (format!("{}/{}", inbound.namespace, inbound.service_account), inbound.owner.clone())
        });
        let inbounds: Vec<(String, String)> = inbounds.collect();
        for (account, owner) in inbounds {
            owners
                .accounts
                .entry(account)
                .and_modify(|known| {
                    if known.as_deref() != Some(&owner) {
                        *known = None;
                    }
                })
                .or_insert(Some(owner));
        }
        owners
    }

    fn inbounds(&self) -> impl Iterator<Item = &Inbound> {
        let published = self.published.as_ref();
        let keys = published.map(|published| published.keys()).unwrap_or_default();
        keys.into_iter().filter(|key| key.kind == ResourceType::Inbound).filter_map(move |key| {
            match published?.resource(key)? {
                Resource::Inbound(inbound) => Some(inbound),
                _ => None,
            }
        })
    }

    fn inbound(&self, pod: &str) -> Option<&Inbound> {
        match self.published.as_ref()?.resource(&Key::new(ResourceType::Inbound, pod))? {
            Resource::Inbound(inbound) => Some(inbound),
            _ => None,
        }
    }

    /// The workload that a pod, "namespace/name", belongs to.
    pub(super) fn owner(&self, pod: &str) -> Option<&str> {
        self.inbound(pod).map(|inbound| inbound.owner.as_str()).filter(|owner| !owner.is_empty())
    }

    /// The one workload that runs under a service account.
    pub(super) fn of_account(&self, namespace: &str, account: &str) -> Option<&str> {
        self.accounts.get(&format!("{namespace}/{account}"))?.as_deref()
    }

    /// Other names under which sidecars know a subject: a workload's pods, and its account where it has one
    /// of its own; a pod's account where no other pod has it.
    fn names(&self, subject: &v1::Subject) -> Vec<String> {
        let of_it = |inbound: &&Inbound| {
            let pod = inbound.workload.split_once('/').map_or("", |(_, pod)| pod);
            let name = if subject.kind == "pod" { pod } else { &inbound.owner };
            inbound.namespace == subject.namespace && name == subject.name
        };
        let mut names = Vec::new();
        for inbound in self.inbounds().filter(of_it) {
            names.extend(inbound.workload.split_once('/').map(|(_, pod)| pod.to_owned()));
            let alone = self.of_account(&inbound.namespace, &inbound.service_account);
            if subject.kind == "workload" && alone == Some(&inbound.owner) {
                names.push(inbound.service_account.clone());
            }
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Adds to a question what sidecars need to know for it. A tap of a service is one of its calls.
    pub(super) fn complete(&self, question: &mut v1::Question) {
        let Some(What::Tap(tap)) = &mut question.what else { return };
        if let Some(subject) = question.subject.as_ref().filter(|subject| subject.kind == "service") {
            tap.to.get_or_insert_with(|| subject.clone());
        }
        for subject in tap.from.iter_mut().chain(tap.to.iter_mut()) {
            if matches!(subject.kind.as_str(), "workload" | "pod") && !subject.name.is_empty() {
                subject.also = self.names(subject);
            }
        }
    }

    /// Whether a sidecar is to be asked.
    fn concerns(&self, question: &v1::Question, pod: &str) -> bool {
        let namespace = pod.split_once('/').map_or("", |(namespace, _)| namespace);
        if !question.namespace.is_empty() && namespace != question.namespace {
            return false;
        }
        let Some(subject) = question.subject.as_ref().filter(|subject| !subject.name.is_empty()) else {
            return true;
        };
        let here = namespace == subject.namespace;
        match (subject.kind.as_str(), &question.what) {
            ("pod", _) => here && pod.split_once('/').is_some_and(|(_, pod)| pod == subject.name),
            // Both ends of its edges are shown.
            ("workload", Some(What::Stat(_))) => true,
            ("workload", _) => here && self.owner(pod) == Some(&subject.name),
            ("namespace", Some(What::Stat(_))) => true,
            ("namespace", _) => namespace == subject.name,
            _ => true,
        }
    }

    /// The sidecars that a question concerns.
    pub(super) fn concerned(&self, question: &v1::Question, status: &Status) -> Concerned {
        let reached = status.reach(|pod| self.concerns(question, pod));
        let all = reached.len();
        let mut asked: Vec<Reached> = reached.into_iter().filter(|one| one.line.is_some()).collect();
        let older = u64::try_from(all - asked.len()).unwrap_or(u64::MAX);
        if matches!(question.what, Some(What::Explain(_))) {
            // The replicas of a workload hold the same: one of them walks.
            asked.truncate(1);
        }
        Concerned { asked, older }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::encode;
    use weft_control_plane_core::model::{Model, read};

    fn pod(name: &str, account: &str) -> String {
        format!(
            r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}", "namespace": "shop",
                "labels": {{"app": "{name}"}}}},
                "spec": {{"serviceAccountName": "{account}", "containers": []}},
                "status": {{"podIP": "10.0.0.{}"}}}}"#,
            name.len()
        )
    }

    fn owners() -> Owners {
        let mut model = Model::default();
        for text in [pod("cart-0", "cart"), pod("catalog-0", "shared"), pod("payments-0", "shared")] {
            let read = read(serde_json::from_str(&text).unwrap()).unwrap().unwrap();
            model.apply(read.object, None);
        }
        let config = weft_control_plane_core::compile(&model);
        Owners::of(Some(Arc::new(Published::new(1, Arc::new(config), encode))))
    }

    #[test]
    fn an_account_of_several_workloads_stands_for_none() {
        let owners = owners();
        let owner = owners.owner("shop/cart-0").unwrap();
        assert_eq!(owners.of_account("shop", "cart"), Some(owner));
        assert_eq!(owners.of_account("shop", "shared"), None);
        assert_eq!(owners.owner("shop/nobody"), None);
    }

    #[test]
    fn a_question_concerns_the_sidecars_of_its_namespace_and_subject() {
        let owners = owners();
        let subject = |kind: &str, name: &str| {
            Some(v1::Subject {
                kind: kind.to_owned(),
                name: name.to_owned(),
                namespace: "shop".to_owned(),
                also: Vec::new(),
            })
        };
        let tap = || Some(What::Tap(v1::TapQuestion::default()));
        let stat = || Some(What::Stat(v1::StatQuestion::default()));
        let concerns = |subject, what, pod: &str| {
            let question = v1::Question { namespace: "shop".to_owned(), subject, relayed: false, what };
            owners.concerns(&question, pod)
        };
        assert!(concerns(None, tap(), "shop/cart-0"));
        assert!(!concerns(None, tap(), "bank/cart-0"), "another namespace");
        assert!(concerns(subject("pod", "cart-0"), tap(), "shop/cart-0"));
        assert!(!concerns(subject("pod", "cart-0"), stat(), "shop/catalog-0"));
        let cart = owners.owner("shop/cart-0").unwrap();
        assert!(concerns(subject("workload", cart), tap(), "shop/cart-0"));
        assert!(!concerns(subject("workload", cart), tap(), "shop/catalog-0"));
        assert!(concerns(subject("workload", cart), stat(), "shop/catalog-0"), "the other end of an edge");
    }
}
