//! Which events are written and when: repetitions count up, and nobody's fault can flood the API server.
//!
//! Where it stands: between the queue that everyone puts notes into and the writes of `events`.
//!
//! Invariant: time is an argument, counted from any fixed moment.
//! Invariant: bounded: what finds no room is counted by the caller and forgotten.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Note, Severity};

/// How long the same thing about the same object counts up in one event. Source: client-go's
/// correlation, 10 min.
pub(super) const MEMORY: Duration = Duration::from_secs(600);
/// Shortest time between two writes of one event. Source: Weft's own; a person looks no oftener.
const PAUSE: Duration = Duration::from_secs(10);
/// Events that are remembered. Source: Weft's own; about 1 KiB each.
const ROOM: usize = 2_048;
/// Writes that may be made at once. Source: client-go's burst, 25.
const BURST: u32 = 25;
/// Writes a second after that. Source: Weft's own; client-go gives each object one in five minutes.
const PER_SECOND: u32 = 5;

/// What makes two notes the same event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// "kind/namespace/name/uid".
    object: String,
    severity: Severity,
    reason: String,
}

/// An event as it is, or is about to be, on the server.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The latest note.
    pub(super) note: Note,
    /// How often it was noted.
    pub(super) count: u32,
    /// Name of the event on the server; none: not written yet.
    pub(super) name: Option<String>,
    /// When it was first noted.
    pub(super) first: Duration,
    written: Option<Duration>,
    waits: bool,
}

/// All events of the last minutes.
#[derive(Debug)]
pub(super) struct Ledger {
    entries: BTreeMap<Key, Entry>,
    tokens: u32,
    refilled: Duration,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), tokens: BURST, refilled: Duration::ZERO }
    }
}

impl Ledger {
    /// Takes a note in; false: there was no room.
    pub(super) fn note(&mut self, note: Note, now: Duration) -> bool {
        self.forget(now);
        let object = &note.object;
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        let key = Key {
            object: [&object.kind, &object.namespace, &object.name, &object.uid].map(part).join("/"),
            severity: note.severity,
            reason: note.reason.clone(),
        };
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.count = entry.count.saturating_add(1);
            entry.note = note;
            entry.waits = true;
            return true;
        }
        if self.entries.len() >= ROOM {
            return false;
        }
        let entry = Entry { note, count: 1, name: None, first: now, written: None, waits: true };
        self.entries.insert(key, entry);
        true
    }

    /// The next event to write now.
    pub(super) fn due(&mut self, now: Duration) -> Option<(Key, Entry)> {
        self.refill(now);
        if self.tokens == 0 {
            return None;
        }
        let is_due = |(_, entry): &(&Key, &mut Entry)| entry.waits && entry.due_at() <= now;
        let (key, entry) = self.entries.iter_mut().find(is_due)?;
        self.tokens -= 1;
        entry.waits = false;
        entry.written = Some(now);
        Some((key.clone(), entry.clone()))
    }

    /// When to look for the next one; none: nothing waits.
    pub(super) fn wake_at(&self) -> Option<Duration> {
        let earliest = self.entries.values().filter(|entry| entry.waits).map(Entry::due_at).min()?;
        let refill = self.refilled + Duration::from_secs(1) / PER_SECOND;
        Some(if self.tokens == 0 { earliest.max(refill) } else { earliest })
    }

    /// Remembers under which name an event stands on the server; none: it is there no more.
    pub(super) fn named(&mut self, key: &Key, name: Option<String>) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.name = name;
        }
    }

    fn refill(&mut self, now: Duration) {
        let step = Duration::from_secs(1) / PER_SECOND;
        let steps = now.saturating_sub(self.refilled).as_nanos() / step.as_nanos();
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.tokens = self.tokens.saturating_add(steps).min(BURST);
        self.refilled = self.refilled.saturating_add(step.saturating_mul(steps)).min(now);
    }

    fn forget(&mut self, now: Duration) {
        self.entries.retain(|_, entry| {
            entry.waits || entry.written.is_none_or(|written| now < written.saturating_add(MEMORY))
        });
    }
}

impl Entry {
    fn due_at(&self) -> Duration {
        self.written.map_or(Duration::ZERO, |written| written.saturating_add(PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::events::reference;

    fn note(name: &str, reason: &str, message: &str) -> Note {
        Note {
            object: reference("weft.dev/v1alpha1", "TlsPolicy", "shop", name),
            severity: Severity::Warning,
            reason: reason.to_owned(),
            message: message.to_owned(),
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_note_is_written_at_once_and_its_repetitions_count_up_in_one_event() {
        let mut ledger = Ledger::default();
        assert!(ledger.note(note("a", "Refused", "first"), seconds(0)));
        let (key, entry) = ledger.due(seconds(0)).unwrap();
        assert_eq!((entry.count, entry.name), (1, None));
        ledger.named(&key, Some("a.1".to_owned()));
        for second in 1..=5 {
            ledger.note(note("a", "Refused", "again"), seconds(second));
        }
        assert!(ledger.due(seconds(5)).is_none(), "too soon");
        assert_eq!(ledger.wake_at(), Some(seconds(10)));
        let (_, entry) = ledger.due(seconds(10)).unwrap();
        assert_eq!((entry.count, entry.name.as_deref()), (6, Some("a.1")));
        assert_eq!((entry.note.message.as_str(), entry.first), ("again", seconds(0)));
        assert!(ledger.due(seconds(100)).is_none());
        assert_eq!(ledger.wake_at(), None);
    }

    #[test]
    fn another_reason_or_object_is_another_event() {
        let mut ledger = Ledger::default();
        ledger.note(note("a", "Refused", ""), seconds(0));
        ledger.note(note("a", "Accepted", ""), seconds(0));
        ledger.note(note("b", "Refused", ""), seconds(0));
        assert_eq!(std::iter::from_fn(|| ledger.due(seconds(0))).count(), 3);
    }

    #[test]
    fn after_some_minutes_of_silence_it_is_a_new_event() {
        let mut ledger = Ledger::default();
        ledger.note(note("a", "Refused", ""), seconds(0));
        let (key, _) = ledger.due(seconds(0)).unwrap();
        ledger.named(&key, Some("a.1".to_owned()));
        ledger.note(note("a", "Refused", ""), MEMORY);
        let (_, entry) = ledger.due(MEMORY).unwrap();
        assert_eq!((entry.count, entry.name), (1, None));
    }

    #[test]
    fn a_flood_is_written_at_the_rate_limit_and_nothing_of_it_is_lost() {
        let mut ledger = Ledger::default();
        for index in 0..100 {
            assert!(ledger.note(note(&format!("route-{index}"), "Refused", ""), seconds(0)));
        }
        let mut written = std::iter::from_fn(|| ledger.due(seconds(0))).count();
        assert_eq!(written, 25);
        assert_eq!(ledger.wake_at(), Some(Duration::from_millis(200)));
        written += std::iter::from_fn(|| ledger.due(seconds(1))).count();
        assert_eq!(written, 30);
        for second in 2..=20 {
            written += std::iter::from_fn(|| ledger.due(seconds(second))).count();
        }
        assert_eq!(written, 100);
    }

    #[test]
    fn what_finds_no_room_is_refused() {
        let mut ledger = Ledger::default();
        for index in 0..ROOM {
            assert!(ledger.note(note(&index.to_string(), "Refused", ""), seconds(0)));
        }
        assert!(!ledger.note(note("one more", "Refused", ""), seconds(0)));
        assert!(ledger.note(note("0", "Refused", ""), seconds(0)), "the known ones still count up");
    }
}
