//! For each bucket of durations, the last request that was kept as a trace: what leads from a slow bucket
//! on a board to a trace that shows why.
//!
//! Closing a traced record writes; a scrape in OpenMetrics or protobuf reads.
//!
//! Invariant: a request that is not traced does not come here; one that is never waits for a scrape.

use std::sync::Mutex;
use std::time::Duration;

use weft_exposition::Exemplar;

use super::latency::SHOWN;

/// The last traced request of each shown bucket.
#[derive(Debug, Default)]
pub struct Exemplars(Mutex<[Option<Seen>; SHOWN.len() + 1]>);

/// A traced request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The trace.
    pub trace: [u8; 16],
    /// How long it took.
    pub took: Duration,
    /// When it ended, in nanoseconds since 1970.
    pub ended: u64,
}

impl Exemplars {
    /// Keeps it, unless a scrape reads just now.
    pub fn see(&self, seen: Seen) {
        let nanos = u64::try_from(seen.took.as_nanos()).unwrap_or(u64::MAX);
        let at = SHOWN.partition_point(|bound| *bound < nanos);
        if let Ok(mut kept) = self.0.try_lock()
            && let Some(place) = kept.get_mut(at)
        {
            *place = Some(seen);
        }
    }

    /// Those of `newest` that are older than what is kept here are replaced.
    pub fn read(&self, newest: &mut [Option<Seen>; SHOWN.len() + 1]) {
        let Ok(kept) = self.0.lock() else { return };
        for (newest, kept) in newest.iter_mut().zip(kept.iter()) {
            if let Some(kept) = kept
                && newest.is_none_or(|newest| newest.ended < kept.ended)
            {
                *newest = Some(*kept);
            }
        }
    }
}

impl Seen {
    /// As a page wants it.
    #[must_use]
    pub fn exemplar(self) -> Exemplar {
        Exemplar {
            trace_id: crate::trace::context::TraceId(self.trace).hex(),
            value: self.took.as_secs_f64(),
            timestamp: self.ended as f64 / 1e9,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_keeps_the_last_of_its_traces() {
        let (one, other) = (Exemplars::default(), Exemplars::default());
        let seen =
            |trace, millis, ended| Seen { trace: [trace; 16], took: Duration::from_millis(millis), ended };
        one.see(seen(1, 2, 10));
        one.see(seen(2, 2, 20));
        other.see(seen(3, 2, 15));
        other.see(seen(4, 70_000, 5));
        let mut newest = [None; SHOWN.len() + 1];
        one.read(&mut newest);
        other.read(&mut newest);
        let kept: Vec<u8> = newest.iter().flatten().map(|seen| seen.trace[0]).collect();
        assert_eq!(kept, [2, 4]);
        assert_eq!(&newest.last().unwrap().unwrap().exemplar().trace_id, b"04040404040404040404040404040404");
    }
}
