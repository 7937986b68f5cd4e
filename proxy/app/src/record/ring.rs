//! Recent decisions, kept for whoever asks "what became of this request": `weft explain --request ID`.
//!
//! A closed record goes here instead of being wiped at once; its entry is used again when it is displaced.
//!
//! Invariant: keeping a decision allocates nothing in the steady state and formats nothing.
//! Invariant: refusals and errors are kept apart, so that a flood of what went well does not displace them.
//! Invariant: what lies here keeps no series of metrics alive for longer than [`AGE`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use weft_proxy_core::Moment;

use super::entry::Entry;
use crate::metrics::edge::EdgeLabels;

/// What was decided about one request or connection that has ended.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Everything known about it.
    pub entry: Box<Entry>,
    /// When it ended.
    pub ended: Moment,
    /// Its edge, where the entry holds no counters of it any more.
    labels: Option<Box<EdgeLabels>>,
}

impl Seen {
    /// Who talked to whom, by which route, how safely.
    #[must_use]
    pub fn labels(&self) -> Option<&EdgeLabels> {
        self.labels.as_deref().or_else(|| self.entry.edge.as_ref().map(|edge| edge.labels()))
    }
}

/// One worker's recent decisions.
#[derive(Debug, Default)]
pub(super) struct Ring {
    recent: VecDeque<Seen>,
    wrong: VecDeque<Seen>,
}

impl Ring {
    /// Keeps a decision; gives the entry that it displaces.
    pub(super) fn push(&mut self, mut entry: Box<Entry>, ended: Moment) -> Option<Box<Entry>> {
        if entry.went_wrong() {
            let labels = entry.edge.take().map(|edge| Box::new(edge.labels().clone()));
            return turn(&mut self.wrong, Seen { entry, ended, labels });
        }
        turn(&mut self.recent, Seen { entry, ended, labels: None })
    }

    /// Lets go of what went well long ago.
    pub(super) fn forget(&mut self, now: Moment) {
        while self.recent.front().is_some_and(|seen| now.since(seen.ended) > AGE) {
            self.recent.pop_front();
        }
    }

    fn all(&self) -> impl Iterator<Item = &Seen> {
        self.wrong.iter().chain(&self.recent)
    }
}

fn turn(kept: &mut VecDeque<Seen>, seen: Seen) -> Option<Box<Entry>> {
    let displaced = if kept.len() >= KEPT { kept.pop_front() } else { None };
    kept.push_back(seen);
    displaced.map(|seen| seen.entry)
}

/// Decisions kept of each sort by one worker. Source: Weft's own; with 0.7 KiB each a busy worker holds
/// 350 KiB, and a person who asks at once is served at 250 requests a second.
const KEPT: usize = 256;
/// How long what went well is kept. Source: Weft's own; the idle time after which series go is as long.
const AGE: Duration = Duration::from_secs(300);

/// The recent decisions of all workers.
#[derive(Clone, Debug, Default)]
pub struct Decisions(Arc<Mutex<Vec<Shared>>>);

/// One worker's ring, which others may read.
pub(super) type Shared = Arc<Mutex<Ring>>;

impl Decisions {
    /// A ring for one worker.
    pub(super) fn ring(&self) -> Shared {
        let ring = Shared::default();
        lock(&self.0).push(Arc::clone(&ring));
        ring
    }

    /// What was decided about the request of this name: the newest of them first, because a caller may use
    /// a name again.
    #[must_use]
    pub fn find(&self, id: &str) -> Vec<Seen> {
        self.collect(|seen| seen.entry.id.is(id))
    }

    /// The newest decisions, at most `most`; those that went wrong alone, if asked for.
    #[must_use]
    pub fn newest(&self, most: usize, wrong_only: bool) -> Vec<Seen> {
        let mut found = self.collect(|seen| !wrong_only || seen.entry.went_wrong());
        found.truncate(most);
        found
    }

    fn collect(&self, wanted: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        let rings = lock(&self.0).clone();
        let mut found: Vec<Seen> = Vec::new();
        for ring in rings {
            found.extend(lock(&ring).all().filter(|seen| wanted(seen)).cloned());
        }
        found.sort_by_key(|seen| std::cmp::Reverse(seen.ended));
        found
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;
    use weft_proxy_core::Reason;

    fn entry(number: u64, reason: Option<Reason>) -> Box<Entry> {
        let mut entry = Entry::blank();
        entry.id.begin(&http::HeaderMap::new(), u128::from(number));
        entry.status = Some(StatusCode::OK);
        entry.reason = reason;
        entry
    }

    fn names(seen: &[Seen]) -> Vec<u128> {
        seen.iter().map(|seen| u128::from_str_radix(&seen.entry.id.to_string(), 16).unwrap()).collect()
    }

    #[test]
    fn a_flood_of_what_went_well_does_not_displace_a_refusal() {
        let decisions = Decisions::default();
        let ring = decisions.ring();
        assert!(lock(&ring).push(entry(1, Some(Reason::DeniedByPolicy)), Moment(1)).is_none());
        for number in 2..=1_000 {
            let displaced = lock(&ring).push(entry(number, None), Moment(number));
            assert_eq!(displaced.is_some(), number > 1 + KEPT as u64, "{number}");
        }
        assert_eq!(names(&decisions.find("1")), [1]);
        assert_eq!(names(&decisions.find("3e8")), [1_000]);
        assert!(decisions.find("2").is_empty(), "displaced");
        assert_eq!(names(&decisions.newest(3, false)), [1_000, 999, 998]);
        assert_eq!(names(&decisions.newest(3, true)), [1]);
    }

    #[test]
    fn what_went_well_is_forgotten_after_a_while() {
        let decisions = Decisions::default();
        let ring = decisions.ring();
        let minutes = |minutes: u64| Moment(minutes * 60_000_000_000);
        lock(&ring).push(entry(1, None), minutes(1));
        lock(&ring).push(entry(2, None), minutes(4));
        lock(&ring).push(entry(3, Some(Reason::NoRoute)), minutes(1));
        lock(&ring).forget(minutes(7));
        assert_eq!(names(&decisions.newest(9, false)), [2, 3]);
    }
}
