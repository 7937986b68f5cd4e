//! Events: what a person should notice, beside the object that it is about.
//!
//! Where it stands: everyone puts a note into a queue and goes on; one task writes them, for every
//! replica by itself, since a replica's own sidecars are known to it alone.
//!
//! core/v1 and not events.k8s.io/v1: both are the same objects, and `kubectl describe` shows how
//! often and since when only from core/v1's count and times.
//!
//! Invariant: noting never waits; what finds no room is counted as dropped.
//! Invariant: no key, token or payload is in a message: callers give reasons, not contents.

mod ledger;

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::ledger::{Entry, Key, Ledger};
use super::counts::{Counts, Outcome};

/// Notes that wait to be taken. Source: Weft's own; the task takes them within microseconds.
const QUEUE: usize = 1_024;
/// Longest message. Source: the API's own limit on an event's note, 1 KiB.
const MESSAGE: usize = 1_024;
/// Who reports. Source: the installation's name.
const COMPONENT: &str = "weft-control-plane";
/// Deadline of one write. Source: Weft's own; an event that is late may as well be lost.
const DEADLINE: Duration = Duration::from_secs(5);

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// Good news.
    Normal,
    /// Somebody has something to do.
    Warning,
}

/// One thing that was noticed.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    object: ObjectReference,
    severity: Severity,
    reason: String,
    message: String,
}

/// Where notes are put. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Events {
    queue: Option<mpsc::Sender<Note>>,
    counts: Counts,
}

/// A reference to an object by its names. With its UID as well `kubectl describe` shows the event:
/// set it where it is known.
pub fn reference(api_version: &str, kind: &str, namespace: &str, name: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(api_version.to_owned()),
        kind: Some(kind.to_owned()),
        namespace: Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty()),
        name: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}

impl Events {
    /// Events that go nowhere: there is no API server.
    pub fn nowhere() -> Self {
        Self { queue: None, counts: Counts::default() }
    }

    /// Starts the task that writes, as the pod `instance`, until stopped.
    pub fn start(client: Client, instance: String, counts: Counts, stop: CancellationToken) -> Self {
        let (queue, notes) = mpsc::channel(QUEUE);
        let writer = Writer {
            client,
            instance,
            counts: counts.clone(),
            ledger: Ledger::default(),
            origin: Instant::now(),
            began: Timestamp::now(),
        };
        tokio::spawn(writer.run(notes, stop));
        Self { queue: Some(queue), counts }
    }

    /// Notes that somebody has something to do.
    pub fn warn(&self, object: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.put(object, Severity::Warning, reason, message.into());
    }

    /// Notes good news.
    pub fn normal(&self, object: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.put(object, Severity::Normal, reason, message.into());
    }

    fn put(&self, object: &ObjectReference, severity: Severity, reason: &str, message: String) {
        let Some(queue) = &self.queue else { return };
        let note = Note { object: object.clone(), severity, reason: reason.to_owned(), message };
        if queue.try_send(note).is_err() {
            Counts::wrote(&self.counts.events, Outcome::Dropped);
        }
    }
}

struct Writer {
    client: Client,
    instance: String,
    counts: Counts,
    ledger: Ledger,
    origin: Instant,
    began: Timestamp,
}

impl Writer {
    async fn run(mut self, mut notes: mpsc::Receiver<Note>, stop: CancellationToken) {
        loop {
            let wake = self.ledger.wake_at().map(|at| self.origin + at);
            tokio::select! {
                () = stop.cancelled() => return,
                note = notes.recv() => match note {
                    Some(note) => self.take(note),
                    None => return,
                },
                () = sleep_until(wake) => {}
            }
            while let Ok(note) = notes.try_recv() {
                self.take(note);
            }
            if let Some((key, entry)) = self.ledger.due(self.origin.elapsed()) {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.write(&key, &entry) => {}
                }
            }
        }
    }

    fn take(&mut self, note: Note) {
        if !self.ledger.note(note, self.origin.elapsed()) {
            Counts::wrote(&self.counts.events, Outcome::Dropped);
        }
    }

    async fn write(&mut self, key: &Key, entry: &Entry) {
        let written = tokio::time::timeout(DEADLINE, self.send(entry)).await;
        let outcome = match written {
            Ok(Ok(name)) => {
                self.ledger.named(key, Some(name));
                Outcome::Written
            }
            // Its namespace is gone, and the object with it.
            Ok(Err(Error::Api(status))) if status.is_not_found() => Outcome::Gone,
            Ok(Err(error)) => {
                tracing::warn!(%error, reason = entry.note.reason, "an event was not written");
                Outcome::Failed
            }
            Err(_) => Outcome::Failed,
        };
        Counts::wrote(&self.counts.events, outcome);
    }

    /// Counts up in the event that is there, or makes one; its name.
    async fn send(&self, entry: &Entry) -> Result<String, Error> {
        let namespace = entry.note.object.namespace.as_deref().unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        if let Some(name) = &entry.name {
            let patch = serde_json::json!({
                "count": entry.count,
                "lastTimestamp": Time(Timestamp::now()),
                "message": shortened(&entry.note.message),
            });
            match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => return Ok(name.clone()),
                // The server forgets events after an hour.
                Err(Error::Api(status)) if status.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let event = self.event(entry, namespace);
        api.create(&PostParams::default(), &event).await?;
        Ok(event.metadata.name.unwrap_or_default())
    }

    fn event(&self, entry: &Entry, namespace: &str) -> Event {
        let note = &entry.note;
        let unique = RandomState::new().hash_one(Timestamp::now().as_nanosecond());
        // Source: the API takes names of 253 characters; the suffix has 17.
        let about: String = note.object.name.iter().flat_map(|name| name.chars()).take(236).collect();
        let first = self.began.checked_add(entry.first).unwrap_or(self.began);
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{about}.{unique:016x}")),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: note.object.clone(),
            type_: Some(match note.severity {
                Severity::Normal => "Normal".to_owned(),
                Severity::Warning => "Warning".to_owned(),
            }),
            reason: Some(note.reason.clone()),
            message: Some(shortened(&note.message)),
            count: Some(i32::try_from(entry.count).unwrap_or(i32::MAX)),
            first_timestamp: Some(Time(first)),
            last_timestamp: Some(Time(Timestamp::now())),
            source: Some(EventSource { component: Some(COMPONENT.to_owned()), host: None }),
            reporting_component: Some(COMPONENT.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }
}

fn shortened(message: &str) -> String {
    if message.len() <= MESSAGE {
        return message.to_owned();
    }
    let end = message.floor_char_boundary(MESSAGE - 3);
    format!("{}…", message.get(..end).unwrap_or_default())
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
