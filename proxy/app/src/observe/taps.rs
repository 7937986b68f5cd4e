//! Who watches requests as they end: filter, rate and a bounded queue for each.
//!
//! Data threads offer what closes; the chores thread carries it to the control plane.
//!
//! Invariant: while there is no tap, [`Taps::any`] is all that is asked, one relaxed load.
//! Invariant: what does not match allocates nothing; what is over the rate or does not fit is dropped and
//! counted.
//! Invariant: a tap is gone when its [`Watching`] is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::mpsc;
use weft_proto::names::Workload;
use weft_proto::v1;
use weft_proxy_core::Moment;

use super::decision::decision;
use super::filter::Filter;
use crate::record::clock::Clock;
use crate::record::entry::Entry;

/// Taps at once. Source: Weft's own; a few people look at one pod.
const TAPS: usize = 4;
/// Decisions that wait to be told, for each tap. Source: a quarter of a second at the highest rate.
const QUEUE: usize = 256;
/// Decisions a second, unless asked otherwise. Source: as fast as a person can scroll back.
const RATE: u32 = 100;
/// Decisions a second, whatever is asked. Source: Weft's own; each costs about 2 µs of the data thread.
const HIGHEST_RATE: u32 = 1_000;
/// Header fields that a tap may ask for. Source: Weft's own.
const FIELDS: usize = 16;

/// The taps of a sidecar.
#[derive(Debug, Default)]
pub struct Taps {
    open: AtomicBool,
    list: ArcSwap<Vec<Arc<Tap>>>,
    /// Held while the list changes.
    changing: Mutex<()>,
}

#[derive(Debug)]
struct Tap {
    filter: Filter,
    fields: Vec<HeaderName>,
    rate: Rate,
    one_in: u64,
    matched: AtomicU64,
    missing: AtomicU64,
    sender: mpsc::Sender<v1::Decision>,
}

/// So many in each second.
#[derive(Debug)]
struct Rate {
    limit: u32,
    /// The second in the upper half, how many were in it in the lower.
    used: AtomicU64,
}

/// A tap, as long as it lasts.
#[derive(Debug)]
pub(super) struct Watching {
    taps: Arc<Taps>,
    tap: Arc<Tap>,
    receiver: mpsc::Receiver<v1::Decision>,
}

impl Taps {
    /// Whether anybody watches.
    #[inline]
    #[must_use]
    pub fn any(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Keeps the header fields that taps ask for.
    pub(crate) fn note(&self, headers: &HeaderMap, fields: &mut Vec<(HeaderName, HeaderValue)>) {
        for tap in self.list.load().iter() {
            for name in &tap.fields {
                let held = fields.iter().any(|(field, _)| field == name);
                let values = headers.get_all(name).iter().filter(|_| !held);
                fields.extend(values.take(FIELDS).map(|value| (name.clone(), value.clone())));
            }
        }
    }

    /// Shows what closed to those who want it.
    pub(crate) fn offer(&self, entry: &Entry, ended: Moment, clock: &Clock) {
        for tap in self.list.load().iter() {
            tap.offer(entry, ended, clock);
        }
    }

    /// Opens a tap of the sidecar of `own`, for what begins from `now` on.
    ///
    /// # Errors
    /// There are too many, or it asks for what is not known here; in words for a person.
    pub(super) fn open(
        self: &Arc<Self>,
        asked: &v1::TapQuestion,
        own: &Workload,
        now: Moment,
    ) -> Result<Watching, String> {
        let name = |name: &String| {
            HeaderName::try_from(name.as_str()).map_err(|_| format!("{name:?} is no header field's name"))
        };
        if asked.headers.len() > FIELDS {
            return Err(format!("more than {FIELDS} header fields are asked for"));
        }
        let limit = if asked.max_rate == 0 { RATE } else { asked.max_rate.min(HIGHEST_RATE) };
        let (sender, receiver) = mpsc::channel(QUEUE);
        let tap = Arc::new(Tap {
            filter: Filter::new(asked, own, now)?,
            fields: asked.headers.iter().map(name).collect::<Result<_, _>>()?,
            rate: Rate { limit, used: AtomicU64::new(0) },
            one_in: u64::from(asked.one_in.max(1)),
            matched: AtomicU64::new(0),
            missing: AtomicU64::new(0),
            sender,
        });
        let added = self.change(|list| {
            let room = list.len() < TAPS;
            if room {
                list.push(Arc::clone(&tap));
            }
            room
        });
        if !added {
            return Err(format!("{TAPS} taps are open at this sidecar already; end one of them first"));
        }
        Ok(Watching { taps: Arc::clone(self), tap, receiver })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Arc<Tap>>) -> T) -> T {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list = Vec::clone(&self.list.load());
        let changed = change(&mut list);
        let any = !list.is_empty();
        self.list.store(Arc::new(list));
        self.open.store(any, Ordering::Relaxed);
        changed
    }
}

impl Tap {
    fn offer(&self, entry: &Entry, ended: Moment, clock: &Clock) {
        if !self.filter.wants(entry) {
            return;
        }
        let matched = self.matched.fetch_add(1, Ordering::Relaxed);
        if !matched.is_multiple_of(self.one_in) {
            return;
        }
        if !self.rate.take(ended) {
            self.missing.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // A place first: what has none is not put into words.
        match self.sender.try_reserve() {
            Ok(place) => {
                let labels = entry.edge.as_ref().map(|edge| edge.labels());
                let mut decision = decision(entry, labels, ended, clock);
                // Another tap may have asked for more.
                decision.headers.retain(|line| self.fields.iter().any(|name| name.as_str() == line.name));
                place.send(decision);
            }
            Err(_) => {
                self.missing.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Rate {
    fn take(&self, now: Moment) -> bool {
        let second = now.0 / 1_000_000_000;
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            let in_it = if used >> 32 == second { used & u64::from(u32::MAX) } else { 0 };
            (in_it < u64::from(self.limit)).then_some(second << 32 | (in_it + 1))
        });
        taken.is_ok()
    }
}

impl Watching {
    /// The next decision.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn next(&mut self) -> Option<v1::Decision> {
        self.receiver.recv().await
    }

    /// One that is there already.
    pub(super) fn ready(&mut self) -> Option<v1::Decision> {
        self.receiver.try_recv().ok()
    }

    /// How many are missing since this was last asked.
    pub(super) fn missing(&self) -> u64 {
        self.tap.missing.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.taps.change(|list| list.retain(|tap| !Arc::ptr_eq(tap, &self.tap)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    fn own() -> Workload {
        Workload { namespace: "shop".to_owned(), pod: "web-0".to_owned() }
    }

    fn entry(path: &str) -> Box<Entry> {
        let mut entry = Entry::blank();
        entry.method = Some(Method::GET);
        entry.version = Some(http::Version::HTTP_11);
        entry.path.push_str(path);
        entry
    }

    fn shown(watching: &mut Watching) -> usize {
        std::iter::from_fn(|| watching.ready()).count()
    }

    #[test]
    fn a_tap_shows_what_matches_within_its_rate_and_counts_what_is_missing() {
        let (taps, clock) = (Arc::new(Taps::default()), Clock::start());
        let asked = v1::TapQuestion { path: "/a".into(), max_rate: 3, ..v1::TapQuestion::default() };
        let mut watching = taps.open(&asked, &own(), Moment(0)).unwrap();
        let second = |second: u64| Moment(second * 1_000_000_000 + 1);
        for _ in 0..5 {
            taps.offer(&entry("/abc"), second(1), &clock);
            taps.offer(&entry("/b"), second(1), &clock);
        }
        assert_eq!((shown(&mut watching), watching.missing()), (3, 2));
        taps.offer(&entry("/abc"), second(2), &clock);
        assert_eq!((shown(&mut watching), watching.missing()), (1, 0), "another second");
    }

    #[test]
    fn a_reader_that_does_not_read_costs_its_queue_and_no_more() {
        let (taps, clock) = (Arc::new(Taps::default()), Clock::start());
        let asked = v1::TapQuestion { max_rate: 5_000, ..v1::TapQuestion::default() };
        let mut watching = taps.open(&asked, &own(), Moment(0)).unwrap();
        for number in 0..2_000 {
            taps.offer(&entry("/"), Moment(number), &clock);
        }
        assert_eq!(shown(&mut watching), QUEUE);
        assert_eq!(watching.missing(), 2_000 - QUEUE as u64);
    }

    #[test]
    fn one_of_so_many_is_shown_when_asked() {
        let (taps, clock) = (Arc::new(Taps::default()), Clock::start());
        let asked = v1::TapQuestion { one_in: 10, ..v1::TapQuestion::default() };
        let mut watching = taps.open(&asked, &own(), Moment(0)).unwrap();
        (0..50).for_each(|_| taps.offer(&entry("/"), Moment(7), &clock));
        assert_eq!((shown(&mut watching), watching.missing()), (5, 0));
    }

    #[test]
    fn a_few_taps_at_once_and_none_when_nobody_watches() {
        let taps = Arc::new(Taps::default());
        assert!(!taps.any());
        let asked = v1::TapQuestion::default();
        let open: Vec<_> = (0..TAPS).map(|_| taps.open(&asked, &own(), Moment(0)).unwrap()).collect();
        assert!(taps.any());
        assert!(taps.open(&asked, &own(), Moment(0)).unwrap_err().contains("4 taps"));
        drop(open);
        assert!(!taps.any());
        assert!(taps.open(&asked, &own(), Moment(0)).is_ok());
    }

    #[test]
    fn a_tap_is_shown_the_fields_that_it_asked_for_and_no_others() {
        let (taps, clock) = (Arc::new(Taps::default()), Clock::start());
        let mut headers = HeaderMap::new();
        headers.insert("x-canary", HeaderValue::from_static("1"));
        headers.insert("cookie", HeaderValue::from_static("id=7"));
        headers.insert("accept", HeaderValue::from_static("*/*"));
        let ask = |names: &[&str]| v1::TapQuestion {
            headers: names.iter().map(|name| (*name).to_owned()).collect(),
            ..v1::TapQuestion::default()
        };
        let mut first = taps.open(&ask(&["X-Canary", "cookie"]), &own(), Moment(0)).unwrap();
        let mut second = taps.open(&ask(&["accept"]), &own(), Moment(0)).unwrap();
        let mut entry = entry("/");
        taps.note(&headers, &mut entry.tapped);
        taps.offer(&entry, Moment(7), &clock);
        let lines = |watching: &mut Watching| -> Vec<(String, String)> {
            let decision = watching.ready().unwrap();
            decision.headers.into_iter().map(|line| (line.name, line.value)).collect()
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(lines(&mut first), [pair("x-canary", "1"), pair("cookie", "(secret, 4 bytes)")]);
        assert_eq!(lines(&mut second), [pair("accept", "*/*")]);
    }
}
