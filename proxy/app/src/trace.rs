//! Traces: which requests are kept, and what is told about them.
//!
//! A record asks here once, when it opens, whether its request is kept; what is kept leaves as one
//! message when the record closes. `context` reads and writes header fields, `span` is the message,
//! `export` turns it into OTLP on the chores thread.
//!
//! Invariant: a request that is not kept allocates nothing and carries no new header field.
//! Invariant: a caller's decision is respected; only requests without one are decided here.

pub mod context;
pub mod span;

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use http::HeaderMap;
use weft_proxy_core::Moment;

use context::{Incoming, SpanId, TraceContext, TraceId, Wish};

/// How many requests without a caller's decision are kept; changes live.
#[derive(Debug, Default)]
pub struct Sampling {
    ppm: AtomicU32,
    per_second: AtomicU32,
}

impl Sampling {
    /// Sets the share in parts per million, and the traces a second each worker keeps regardless of it.
    pub fn set(&self, ppm: u32, per_second: u32) {
        self.ppm.store(ppm, Ordering::Relaxed);
        self.per_second.store(per_second, Ordering::Relaxed);
    }
}

/// One worker's decisions and ids.
#[derive(Debug)]
pub struct Sampler {
    sampling: Arc<Sampling>,
    random: AtomicU64,
    /// The second that tokens were last taken in, and how many: 32 bits each.
    taken: AtomicU64,
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
        Self { sampling, random: AtomicU64::new(seed), taken: AtomicU64::new(0) }
    }

    /// The span of a request that is kept; `None` for one that is not.
    pub fn decide(&self, headers: &HeaderMap, now: Moment) -> Option<TraceContext> {
        let incoming = context::read(headers);
        let keep = match incoming.wish {
            Wish::Sample => true,
            Wish::Drop => false,
            Wish::Open => self.within_ratio() || self.token(now),
        };
        keep.then(|| self.span(&incoming))
    }

    /// The span of a connection that is kept; connections bring no decision with them.
    pub fn decide_connection(&self, now: Moment) -> Option<TraceContext> {
        (self.within_ratio() || self.token(now)).then(|| self.span(&Incoming::default()))
    }

    /// A span id not used before.
    pub fn span_id(&self) -> SpanId {
        SpanId((self.bits() | 1).to_be_bytes())
    }

    fn span(&self, incoming: &Incoming) -> TraceContext {
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

    /// Takes one of this second's tokens. A worker's own; two threads at once might take one too many.
    fn token(&self, now: Moment) -> bool {
        let per_second = u64::from(self.sampling.per_second.load(Ordering::Relaxed));
        if per_second == 0 {
            return false;
        }
        // One more, so that the very first second is not taken for the one before any was used.
        let second = (now.0 / NANOS + 1) << 32;
        let taken = self.taken.load(Ordering::Relaxed);
        let used = if taken & !LOW == second { taken & LOW } else { 0 };
        if used >= per_second {
            return false;
        }
        self.taken.store(second | (used + 1), Ordering::Relaxed);
        true
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

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
const MILLION: u64 = 1_000_000;
const NANOS: u64 = 1_000_000_000;
const LOW: u64 = 0xffff_ffff;

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
        Moment(second * NANOS + 5)
    }

    #[test]
    fn the_callers_decision_is_respected_whatever_the_ratio() {
        let kept = headers("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let dropped = headers("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");
        let context = sampler(0, 0).decide(&kept, second(0)).unwrap();
        assert_eq!(&context.trace.hex(), b"0af7651916cd43dd8448eb211c80319c");
        assert_eq!(&context.parent.unwrap().hex(), b"b7ad6b7169203331");
        assert_ne!(Some(context.span), context.parent);
        assert_eq!(sampler(1_000_000, 100).decide(&dropped, second(0)), None);
    }

    #[test]
    fn without_a_caller_the_ratio_decides() {
        let sampler = sampler(250_000, 0);
        let kept = (0..10_000).filter(|_| sampler.decide(&HeaderMap::new(), second(0)).is_some()).count();
        assert!((2_300..2_700).contains(&kept), "{kept}");
    }

    #[test]
    fn beside_the_ratio_so_many_a_second_are_kept() {
        let sampler = sampler(0, 3);
        for now in [0, 1, 9] {
            let kept = (0..10).filter(|_| sampler.decide(&HeaderMap::new(), second(now)).is_some()).count();
            assert_eq!(kept, 3, "second {now}");
        }
    }

    #[test]
    fn ids_do_not_repeat() {
        let sampler = sampler(1_000_000, 0);
        let ids: std::collections::HashSet<_> = (0..10_000).map(|_| sampler.span_id()).collect();
        assert_eq!(ids.len(), 10_000);
        let new = sampler.decide(&HeaderMap::new(), second(0)).unwrap();
        assert_eq!((new.parent, new.flags), (None, 2));
    }
}
