//! Traces: which requests are kept, and what is told about them.
//!
//! A record asks here once, when it opens, whether its request is kept, and what is not kept may be kept when
//! it closes with an error; what is kept leaves as one message when the record closes. `context` reads and
//! writes header fields, `rate` counts what is kept a second, `flight` guesses parents, `span` is the message,
//! `export` sends it on the chores thread, by `collector`.
//!
//! Invariant: a request that is not kept allocates nothing; while nothing is exported it costs one relaxed
//! load and carries no new header field.
//! Invariant: a caller's decision is respected; only requests without one are decided here.

pub mod collector;
pub mod context;
mod convert;
pub mod export;
pub mod flight;
pub mod follow;
pub mod origin;
mod post;
pub mod rate;
pub mod span;
mod zipkin;

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue};
use weft_proxy_core::{Moment, secret, spec};

use context::{B3, Incoming, Kept, SpanId, TraceContext, TraceId, Wish};
use flight::Flight;
use rate::Rates;

/// What is kept; shared by all workers, changes live.
#[derive(Debug, Default)]
pub struct Sampling {
    /// Whether anything is.
    on: AtomicBool,
    ppm: AtomicU32,
    per_second: AtomicU32,
    errors: AtomicU32,
    attributes: ArcSwap<Vec<spec::FromHeader>>,
    flight: Flight,
}

/// What is to be kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Share of requests without a caller's decision, in parts per million.
    pub ppm: u32,
    /// Traces a second of each called service, regardless of the share; of each worker.
    pub per_second: u32,
    /// Errors a second that are kept although their trace is not; of each worker.
    pub errors: u32,
    /// Attributes taken from header fields.
    pub attributes: Vec<spec::FromHeader>,
    /// Whether calls without trace fields join the one request in flight.
    pub join: bool,
}

impl Sampling {
    /// Sets the share in parts per million, and the traces a second each worker keeps regardless of it.
    pub fn set(&self, ppm: u32, per_second: u32) {
        self.follow(Some(&Rules { ppm, per_second, ..Rules::default() }));
    }

    /// Keeps what these rules say from now on; `None`: nothing, because nobody would be told.
    pub fn follow(&self, rules: Option<&Rules>) {
        let off = Rules::default();
        let some = rules.unwrap_or(&off);
        self.ppm.store(some.ppm, Ordering::Relaxed);
        self.per_second.store(some.per_second, Ordering::Relaxed);
        self.errors.store(some.errors, Ordering::Relaxed);
        if **self.attributes.load() != some.attributes {
            self.attributes.store(Arc::new(some.attributes.clone()));
        }
        self.flight.set(some.join);
        self.on.store(rules.is_some(), Ordering::Relaxed);
    }

    /// Whether anything is kept.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// The requests that the application has in flight.
    #[must_use]
    pub fn flight(&self) -> &Flight {
        &self.flight
    }
}

/// Where a request came from, as far as its trace is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The application beside this sidecar.
    Application,
    /// A client outside the mesh.
    Outside,
    /// Another sidecar.
    Sidecar,
}

/// One worker's decisions and ids.
#[derive(Debug)]
pub struct Sampler {
    sampling: Arc<Sampling>,
    random: AtomicU64,
    rates: Rates,
    errors: Rates,
}

impl Sampler {
    /// A sampler with a seed that no other process guesses.
    #[must_use]
    pub fn new(sampling: Arc<Sampling>) -> Self {
        let seed = std::hash::RandomState::new().build_hasher().finish();
        Self::seeded(sampling, seed)
    }

    /// A sampler whose decisions repeat for the same seed.
    #[must_use]
    pub fn seeded(sampling: Arc<Sampling>, seed: u64) -> Self {
        Self { sampling, random: AtomicU64::new(seed), rates: Rates::many(), errors: Rates::one() }
    }

    /// What all workers share.
    #[must_use]
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// The span of a request that is kept; `None` for one that is not. `called` stands for the service that
    /// is called. What another sidecar decided not to keep is not kept here, so that no trace starts in
    /// the middle.
    pub fn decide(&self, headers: &HeaderMap, from: From, called: u64, now: Moment) -> Option<TraceContext> {
        if !self.sampling.is_on() {
            return None;
        }
        let incoming = context::read(headers);
        let kept = match incoming.wish {
            Wish::Sample => Kept::Caller,
            Wish::Drop => return None,
            Wish::Open if from == From::Sidecar && headers.contains_key(TRACED) => return None,
            Wish::Open => {
                if from == From::Application
                    && let Some(guess) = self.guess(&incoming)
                {
                    return Some(guess);
                }
                self.by_rules(called, now)?
            }
        };
        Some(self.span(&incoming, kept))
    }

    /// The span of a connection that is kept; connections bring no decision with them.
    pub fn decide_connection(&self, called: u64, now: Moment) -> Option<TraceContext> {
        if !self.sampling.is_on() {
            return None;
        }
        let kept = self.by_rules(called, now)?;
        Some(self.span(&Incoming::default(), kept))
    }

    /// The span of something that is kept only now, because it ended in an error: it stands alone.
    pub fn decide_late(&self, now: Moment) -> Option<TraceContext> {
        let errors = self.sampling.errors.load(Ordering::Relaxed);
        if errors == 0 || !self.errors.take(0, errors, now) {
            return None;
        }
        Some(self.span(&Incoming::default(), Kept::Error))
    }

    /// Says to another sidecar that this one decided, and that the request is not kept.
    pub fn tell_dropped(&self, headers: &mut HeaderMap) {
        if self.sampling.is_on() {
            headers.insert(TRACED, HeaderValue::from_static("0"));
        }
    }

    /// The attributes that a kept request has by its header fields. Secrets have none.
    pub fn attributes(&self, headers: &HeaderMap, out: &mut Vec<(Arc<str>, String)>) {
        for wanted in self.sampling.attributes.load().iter() {
            let Some(value) = headers.get(&wanted.header) else { continue };
            if !secret::is_secret(wanted.header.as_str()) {
                let value = String::from_utf8_lossy(value.as_bytes());
                let end = value.floor_char_boundary(LONGEST);
                out.push((Arc::clone(&wanted.name), value.get(..end).unwrap_or_default().to_owned()));
            }
        }
    }

    /// A span id not used before.
    pub fn span_id(&self) -> SpanId {
        SpanId((self.bits() | 1).to_be_bytes())
    }

    fn by_rules(&self, called: u64, now: Moment) -> Option<Kept> {
        if self.within_ratio() {
            return Some(Kept::Share);
        }
        let per_second = self.sampling.per_second.load(Ordering::Relaxed);
        (per_second > 0 && self.rates.take(called, per_second, now)).then_some(Kept::Rate)
    }

    /// A child of the one request in flight, where that is asked for and there is exactly one.
    fn guess(&self, incoming: &Incoming) -> Option<TraceContext> {
        let parent = self.sampling.flight.only().filter(|_| incoming.b3 == B3::Absent)?;
        Some(TraceContext {
            span: self.span_id(),
            parent: Some(parent.span),
            kept: Kept::Guess,
            stale_state: incoming.stale_state,
            ..parent
        })
    }

    fn span(&self, incoming: &Incoming, kept: Kept) -> TraceContext {
        let trace = incoming.parent.map_or_else(|| self.trace_id(), |(trace, _)| trace);
        // Ids made here are random throughout, which the random bit tells (W3C level 2, §3.2.2.5.2).
        let flags = if incoming.parent.is_some() { incoming.flags } else { 2 };
        TraceContext {
            trace,
            span: self.span_id(),
            parent: incoming.parent.map(|(_, span)| span),
            b3: incoming.b3,
            flags,
            stale_state: incoming.stale_state,
            kept,
        }
    }

    fn trace_id(&self) -> TraceId {
        let (high, low) = (u128::from(self.bits()), u128::from(self.bits() | 1));
        TraceId(((high << 64) | low).to_be_bytes())
    }

    fn within_ratio(&self) -> bool {
        let ppm = self.sampling.ppm.load(Ordering::Relaxed);
        ppm > 0 && self.bits() % MILLION < u64::from(ppm)
    }

    /// Source: splitmix64 (Steele, Lea and Flood 2014): one addition to a shared number, then mixing,
    /// so any thread may ask.
    fn bits(&self) -> u64 {
        let mut bits = self.random.fetch_add(GOLDEN, Ordering::Relaxed).wrapping_add(GOLDEN);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

/// What one sidecar says to another of a request that it decided not to keep.
pub const TRACED: HeaderName = HeaderName::from_static("weft-traced");

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
const MILLION: u64 = 1_000_000;
/// Bytes of an attribute's value that are kept. Source: as for a path.
const LONGEST: usize = 2_048;

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn sampler(ppm: u32, per_second: u32) -> Sampler {
        let sampling = Arc::new(Sampling::default());
        sampling.set(ppm, per_second);
        Sampler::seeded(sampling, 7)
    }

    fn headers(traceparent: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(
            http::HeaderName::from_static("traceparent"),
            HeaderValue::from_static(traceparent),
        )])
    }

    fn second(second: u64) -> Moment {
        Moment(second * 1_000_000_000 + 5)
    }

    #[test]
    fn the_callers_decision_is_respected_whatever_the_ratio() {
        let kept = headers("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let dropped = headers("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");
        let context = sampler(0, 0).decide(&kept, From::Outside, 7, second(0)).unwrap();
        assert_eq!(&context.trace.hex(), b"0af7651916cd43dd8448eb211c80319c");
        assert_eq!(&context.parent.unwrap().hex(), b"b7ad6b7169203331");
        assert_ne!(Some(context.span), context.parent);
        assert_eq!(sampler(1_000_000, 100).decide(&dropped, From::Outside, 7, second(0)), None);
    }

    #[test]
    fn what_another_sidecar_decided_not_to_keep_is_not_kept_here() {
        let sampler = sampler(1_000_000, 100);
        let mut told = HeaderMap::new();
        sampler.tell_dropped(&mut told);
        assert_eq!(sampler.decide(&told, From::Sidecar, 7, second(0)), None);
        assert!(
            sampler.decide(&told, From::Outside, 7, second(0)).is_some(),
            "whoever else says so is not asked"
        );
        let kept = headers("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        assert!(sampler.decide(&kept, From::Sidecar, 7, second(0)).is_some());
        let open = sampler.decide(&HeaderMap::new(), From::Sidecar, 7, second(0));
        assert_eq!(open.unwrap().kept, Kept::Share, "a sidecar that exports nothing decides nothing");
    }

    #[test]
    fn while_nothing_is_exported_nothing_is_kept_and_nothing_is_said() {
        let sampler = Sampler::seeded(Arc::default(), 7);
        let kept = headers("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        assert_eq!(sampler.decide(&kept, From::Outside, 7, second(0)), None);
        assert_eq!(sampler.decide_connection(7, second(0)), None);
        assert_eq!(sampler.decide_late(second(0)), None);
        let mut fields = HeaderMap::new();
        sampler.tell_dropped(&mut fields);
        assert!(fields.is_empty());
    }

    #[test]
    fn each_called_service_has_traces_of_its_own() {
        let sampler = sampler(0, 1);
        let kept = |called| sampler.decide(&HeaderMap::new(), From::Application, called, second(3)).is_some();
        assert_eq!(
            [kept(1), kept(1), kept(2), kept(1), kept(2), kept(3)],
            [true, false, true, false, false, true]
        );
    }

    #[test]
    fn errors_have_a_budget_of_their_own() {
        let sampler = sampler(0, 0);
        sampler.sampling().follow(Some(&Rules { errors: 2, ..Rules::default() }));
        assert_eq!(sampler.decide(&HeaderMap::new(), From::Application, 7, second(0)), None);
        let late = sampler.decide_late(second(0)).unwrap();
        assert_eq!((late.kept, late.parent), (Kept::Error, None));
        assert!(sampler.decide_late(second(0)).is_some());
        assert!(sampler.decide_late(second(0)).is_none());
        assert!(sampler.decide_late(second(1)).is_some());
    }

    #[test]
    fn attributes_come_from_header_fields_and_never_from_secrets() {
        let sampler = sampler(0, 0);
        let from = |name: &str, header: &'static str| spec::FromHeader {
            name: name.into(),
            header: HeaderName::from_static(header),
        };
        let attributes =
            vec![from("tenant", "x-tenant"), from("who", "authorization"), from("none", "x-none")];
        sampler.sampling().follow(Some(&Rules { attributes, ..Rules::default() }));
        let fields = ["x-tenant", "authorization"]
            .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("value")));
        let mut out = Vec::new();
        sampler.attributes(&HeaderMap::from_iter(fields), &mut out);
        assert_eq!(out, [(Arc::from("tenant"), "value".to_owned())]);
    }

    #[test]
    fn a_call_without_trace_fields_joins_the_only_request_in_flight() {
        let sampler = sampler(0, 0);
        sampler.sampling().follow(Some(&Rules { join: true, ..Rules::default() }));
        let fields = headers("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let inbound = sampler.decide(&fields, From::Outside, 7, second(0)).unwrap();
        assert!(sampler.sampling().flight().enter(Some(&inbound)));
        let call = || sampler.decide(&HeaderMap::new(), From::Application, 9, second(0));
        let joined = call().unwrap();
        assert_eq!(
            (joined.trace, joined.parent, joined.kept),
            (inbound.trace, Some(inbound.span), Kept::Guess)
        );
        assert_eq!(
            sampler.decide(&HeaderMap::new(), From::Outside, 9, second(0)),
            None,
            "only calls are joined"
        );
        assert!(sampler.sampling().flight().enter(None));
        assert_eq!(call(), None, "two are in flight");
        sampler.sampling().flight().leave();
        assert_eq!(call(), None, "which of the two has ended is not known");
        sampler.sampling().flight().leave();
        assert_eq!(call(), None, "none is in flight");
    }

    #[test]
    fn without_a_caller_the_ratio_decides() {
        let sampler = sampler(250_000, 0);
        let kept = (0..10_000)
            .filter(|_| sampler.decide(&HeaderMap::new(), From::Application, 7, second(0)).is_some())
            .count();
        assert!((2_300..2_700).contains(&kept), "{kept}");
    }

    #[test]
    fn beside_the_ratio_so_many_a_second_are_kept() {
        let sampler = sampler(0, 3);
        for now in [0, 1, 9] {
            let kept = (0..10)
                .filter(|_| sampler.decide(&HeaderMap::new(), From::Application, 7, second(now)).is_some())
                .count();
            assert_eq!(kept, 3, "second {now}");
        }
    }

    #[test]
    fn ids_do_not_repeat() {
        let sampler = sampler(1_000_000, 0);
        let ids: std::collections::HashSet<_> = (0..10_000).map(|_| sampler.span_id()).collect();
        assert_eq!(ids.len(), 10_000);
        let new = sampler.decide(&HeaderMap::new(), From::Application, 7, second(0)).unwrap();
        assert_eq!((new.parent, new.flags), (None, 2));
    }
}
