//! What became of the manifests and of the sidecars, for `/status` and for a person.
//!
//! Invariant: `manifests` and `report` are replaced whole by the watching thread; a sidecar's entry lives exactly
//! as long as its stream.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use serde::Serialize;
use weft_control_plane_core::config::{Key, Origin, Resource};
use weft_control_plane_core::report::{Report, Subject};
use weft_control_plane_core::session::Published;

use crate::kubernetes::conditions::reach::Summary;
use crate::publish::Progress;
use crate::read::Problem;
use crate::serve::Line;
use crate::webhook::Lacks;

/// How long a sidecar may take before it counts as behind. Source: Weft's own; a healthy one takes
/// milliseconds, and one that does not answer in 30 s loses its stream.
const LATE: Duration = Duration::from_secs(10);
/// Generations that are remembered. Source: Weft's own; looks are seconds apart.
const MARKS: usize = 64;

/// The state of the manifests.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifests {
    /// When the folder was last taken, seconds since 1970; 0: never.
    pub last_good_reload: u64,
    /// What is wrong in the folder as it stands; while there is something, the last good state serves.
    pub problems: Vec<Problem>,
    /// Kinds that are not the mesh's, and how many objects of each there are.
    pub ignored: BTreeMap<String, usize>,
    /// Objects taken, by kind.
    pub taken: BTreeMap<String, usize>,
}

/// What became of one object.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectStatus {
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// File and line, `file:line`.
    pub position: String,
    /// Whether it is in force wherever it attaches.
    pub accepted: bool,
    /// Conditions at everything it attaches to.
    pub conditions: Vec<ConditionStatus>,
    /// What a person should know beyond the conditions.
    pub warnings: Vec<String>,
    /// Sidecars that refuse what was made of it, `workload: reason`.
    pub refused_by: Vec<String>,
}

/// One condition.
#[derive(Debug, Clone, Serialize)]
pub struct ConditionStatus {
    /// What the object attaches to.
    pub on: String,
    /// Type of the condition.
    pub r#type: &'static str,
    /// "True" or "False".
    pub status: &'static str,
    /// Why, for machines.
    pub reason: &'static str,
    /// Why, for a person.
    pub message: String,
}

/// One sidecar with an open stream.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sidecar {
    /// The workload.
    pub workload: String,
    /// The identity it proved.
    pub identity: String,
    /// Version of the sidecar.
    pub version: String,
    /// Where it calls from.
    pub address: String,
    /// End of its certificate, seconds since 1970: of the one that its stream was opened with, or of a later one
    /// that this replica gave it.
    pub certificate_ends: u64,
    /// Generation that it shows; 0: none yet.
    pub generation: u64,
    /// How far its stream has come.
    #[serde(skip)]
    pub progress: Progress,
    /// Resources it refuses.
    pub refusals: Vec<RefusalStatus>,
    /// Where a word to it is said; absent: it understands none.
    #[serde(skip)]
    pub line: Option<Line>,
}

/// A sidecar as far as a question to it needs.
#[derive(Debug, Clone)]
pub struct Reached {
    /// The workload.
    pub workload: String,
    /// The identity it proved.
    pub identity: String,
    /// Where a word to it is said; absent: it understands none.
    pub line: Option<Line>,
}

/// A resource that a sidecar refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusalStatus {
    /// Kind of the resource.
    pub r#type: &'static str,
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
    /// Its key, for finding the objects it was made of.
    #[serde(skip)]
    pub key: Key,
}

/// Everything that `/status` shows.
#[derive(Debug, Default)]
pub struct Status {
    manifests: ArcSwap<Manifests>,
    report: ArcSwap<Report>,
    sidecars: Mutex<(u64, BTreeMap<u64, Sidecar>)>,
    /// Which generation was published when, the newest last.
    marks: Mutex<VecDeque<(Instant, u64)>>,
    /// Pods that should have a sidecar and have none.
    pub unmeshed: Lacks,
}

/// A sidecar's entry; it goes when this is dropped.
#[derive(Debug)]
pub struct Entry {
    status: Arc<Status>,
    number: u64,
}

impl Status {
    /// The manifests as they stand.
    pub fn manifests(&self) -> Arc<Manifests> {
        self.manifests.load_full()
    }

    /// Replaces what is known of the manifests.
    pub fn set_manifests(&self, manifests: Manifests) {
        self.manifests.store(Arc::new(manifests));
    }

    /// What became of every object.
    pub fn report(&self) -> Arc<Report> {
        self.report.load_full()
    }

    /// Replaces what became of every object.
    pub fn set_report(&self, report: Arc<Report>) {
        self.report.store(report);
    }

    /// The sidecars that are connected, by workload.
    pub fn sidecars(&self) -> Vec<Sidecar> {
        let at = |sidecar: &Sidecar| Sidecar { generation: sidecar.progress.generation(), ..sidecar.clone() };
        let mut sidecars: Vec<Sidecar> = self.lock().1.values().map(at).collect();
        sidecars.sort_by(|a, b| a.workload.cmp(&b.workload));
        sidecars
    }

    /// The sidecars among those that are connected whose workload is `wanted`.
    pub fn reach(&self, wanted: impl Fn(&str) -> bool) -> Vec<Reached> {
        let table = self.lock();
        let reached = table.1.values().filter(|sidecar| wanted(&sidecar.workload)).map(|sidecar| Reached {
            workload: sidecar.workload.clone(),
            identity: sidecar.identity.clone(),
            line: sidecar.line.clone(),
        });
        reached.collect()
    }

    /// How many sidecars are connected.
    pub fn connected(&self) -> usize {
        self.lock().1.len()
    }

    /// What the sidecars make of what is published. Those count as behind that have not even taken what
    /// was published some time ago.
    pub fn summary(&self, published: &Published, now: Instant) -> Summary {
        let due = self.due(published.generation(), now);
        Summary::of(&self.sidecars(), published, |sidecar| due.is_some_and(|due| sidecar.generation < due))
    }

    /// The generation that every sidecar should have by now.
    fn due(&self, generation: u64, now: Instant) -> Option<u64> {
        // Marks are replaced whole, as entries are.
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.back().is_none_or(|(_, newest)| *newest != generation) {
            marks.push_back((now, generation));
        }
        let old = |(at, _): &(Instant, u64)| now.saturating_duration_since(*at) >= LATE;
        while marks.get(1).is_some_and(old) || marks.len() > MARKS {
            marks.pop_front();
        }
        marks.front().filter(|mark| old(mark)).map(|(_, generation)| *generation)
    }

    /// Adds a sidecar for as long as the entry lives.
    pub fn enter(self: &Arc<Self>, sidecar: Sidecar) -> Entry {
        let mut table = self.lock();
        table.0 += 1;
        let number = table.0;
        table.1.insert(number, sidecar);
        Entry { status: Arc::clone(self), number }
    }

    /// Notes that a workload was given a certificate: its stream lives on while certificates change.
    pub fn certified(&self, workload: &str, ends: u64) {
        let mut table = self.lock();
        let of_it = table.1.values_mut().filter(|sidecar| sidecar.workload == workload);
        of_it.for_each(|sidecar| sidecar.certificate_ends = ends);
    }

    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Sidecar>)> {
        // Entries are replaced whole, so a panic elsewhere leaves the table sound.
        self.sidecars.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Changes the sidecar's entry.
    pub fn update(&self, change: impl FnOnce(&mut Sidecar)) {
        if let Some(sidecar) = self.status.lock().1.get_mut(&self.number) {
            change(sidecar);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.status.lock().1.remove(&self.number);
    }
}

/// The report of a compilation as status shows it.
pub fn objects(report: &Report) -> Vec<ObjectStatus> {
    let one = |(key, object): (&weft_control_plane_core::ObjectKey, _)| {
        let object: &weft_control_plane_core::report::ObjectReport = object;
        let conditions = object.verdicts.iter().flat_map(|verdict| {
            let on = subject(&verdict.subject);
            verdict.conditions.iter().map(move |condition| ConditionStatus {
                on: on.clone(),
                r#type: condition.kind.as_str(),
                status: if condition.status { "True" } else { "False" },
                reason: condition.reason.as_str(),
                message: condition.message.clone(),
            })
        });
        ObjectStatus {
            kind: key.kind.to_string(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            position: object.position.as_ref().map(ToString::to_string).unwrap_or_default(),
            accepted: object.is_accepted(),
            conditions: conditions.collect(),
            warnings: object.warnings.clone(),
            refused_by: Vec::new(),
        }
    };
    report.objects.iter().map(one).collect()
}

/// Writes the sidecars' refusals on the objects that the refused resources were made of.
pub fn attribute(objects: &mut [ObjectStatus], sidecars: &[Sidecar], published: &Published) {
    for sidecar in sidecars {
        let namespace = sidecar.workload.split_once('/').map_or("", |(namespace, _)| namespace);
        for refusal in &sidecar.refusals {
            let found = published.resolve(refusal.key.kind, &refusal.key.name, namespace);
            for origin in found.map(|(_, resource)| origins(resource)).unwrap_or_default() {
                let line = format!("{}: {}", sidecar.workload, refusal.reason);
                let of_it = objects.iter_mut().filter(|object| is(object, origin));
                of_it.for_each(|object| object.refused_by.push(line.clone()));
            }
        }
    }
}

/// The objects that a sidecar refuses something of, each once, with a reason.
pub fn refused_origins(sidecar: &Sidecar, published: &Published) -> BTreeMap<Origin, String> {
    let namespace = sidecar.workload.split_once('/').map_or("", |(namespace, _)| namespace);
    let mut refused = BTreeMap::new();
    for refusal in &sidecar.refusals {
        let found = published.resolve(refusal.key.kind, &refusal.key.name, namespace);
        for origin in found.map(|(_, resource)| origins(resource)).unwrap_or_default() {
            refused.entry(origin.clone()).or_insert_with(|| refusal.reason.clone());
        }
    }
    refused
}

fn is(object: &ObjectStatus, origin: &Origin) -> bool {
    object.kind == origin.kind && object.namespace == origin.namespace && object.name == origin.name
}

/// The objects that a resource was made of, as far as it tells.
fn origins(resource: &Resource) -> Vec<&Origin> {
    match resource {
        Resource::Outbound(outbound) => outbound.routes.iter().map(|route| &route.origin).collect(),
        Resource::Backend(backend) => backend.policy.iter().map(|policy| &policy.origin).collect(),
        Resource::Authorization(policy) => vec![&policy.origin],
        Resource::Mesh(_) | Resource::Trust(_) | Resource::Inbound(_) | Resource::Address(_) => Vec::new(),
    }
}

fn subject(subject: &Subject) -> String {
    match subject {
        Subject::Object => String::new(),
        Subject::Parent(parent) => {
            let kind = parent.kind.as_deref().unwrap_or("Gateway");
            let namespace = parent.namespace.as_ref().map(|text| format!("{text}/")).unwrap_or_default();
            let port = parent.port.map(|port| format!(":{port}")).unwrap_or_default();
            let section = parent.section_name.as_ref().map(|text| format!("#{text}")).unwrap_or_default();
            format!("{kind} {namespace}{}{port}{section}", parent.name)
        }
        Subject::Target(target) => {
            let labels: Vec<String> =
                target.selector.iter().map(|(label, value)| format!("{label}={value}")).collect();
            let which = target.name.clone().unwrap_or_else(|| labels.join(","));
            format!("{:?} {which}", target.kind).trim_end().to_owned()
        }
    }
}
