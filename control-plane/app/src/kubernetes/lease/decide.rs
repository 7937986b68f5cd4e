//! Who holds the Lease, and what this replica may do about it: a pure function of what was read and
//! when.
//!
//! Where it stands: between the read of the Lease and the write that `lease` makes of the decision.
//!
//! Invariant: clocks of two machines are never compared. A record counts as alive for its duration
//! from the moment this replica saw it change.
//! Invariant: time is an argument, counted from any fixed moment.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

/// How long a record counts as alive. Source: client-go's leader election as kube-controller-manager
/// runs it, 15 s.
pub(super) const DURATION: Duration = Duration::from_secs(15);
/// How long a leader leads after its last renewal. Source: as above, 10 s; below the duration, so that
/// leadership ends here before another may begin.
pub(super) const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Time between two looks. Source: as above, 2 s.
pub(super) const RETRY: Duration = Duration::from_secs(2);

/// What this replica does about the Lease.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Another holds it.
    Wait,
    /// Write this record in place of the one that was read.
    Write(Box<LeaseSpec>),
}

/// What one replica knows of the Lease.
#[derive(Debug, Clone)]
pub(super) struct Election {
    identity: String,
    seen: Option<(Record, Duration)>,
}

/// What changes whenever a holder renews.
#[derive(Debug, Clone, PartialEq)]
struct Record {
    holder: String,
    renewed: Option<MicroTime>,
    transitions: Option<i32>,
}

impl Election {
    /// A replica that has seen nothing yet.
    pub(super) fn new(identity: String) -> Self {
        Self { identity, seen: None }
    }

    /// What to do about a Lease that was read at `now`; `stamp` is written as the time of renewal.
    pub(super) fn decide(&mut self, read: Option<&LeaseSpec>, now: Duration, stamp: &MicroTime) -> Step {
        let Some(spec) = read else { return Step::Write(Box::new(self.record(None, stamp))) };
        let record = Record {
            holder: spec.holder_identity.clone().unwrap_or_default(),
            renewed: spec.renew_time.clone(),
            transitions: spec.lease_transitions,
        };
        let (free, mine) = (record.holder.is_empty(), record.holder == self.identity);
        let alive = alive_for(spec);
        let since = match &self.seen {
            Some((before, since)) if *before == record => *since,
            _ => now,
        };
        self.seen = Some((record, since));
        if free || mine || now >= since.saturating_add(alive) {
            return Step::Write(Box::new(self.record(Some(spec), stamp)));
        }
        Step::Wait
    }

    /// The record that gives the Lease away; none: it is another's.
    pub(super) fn release(&self, read: &LeaseSpec, stamp: &MicroTime) -> Option<LeaseSpec> {
        let mine = read.holder_identity.as_deref() == Some(self.identity.as_str());
        mine.then(|| LeaseSpec {
            holder_identity: Some(String::new()),
            // Source: client-go leaves one second, the least that the API takes.
            lease_duration_seconds: Some(1),
            renew_time: Some(stamp.clone()),
            ..read.clone()
        })
    }

    fn record(&self, before: Option<&LeaseSpec>, stamp: &MicroTime) -> LeaseSpec {
        let held = before.is_some_and(|spec| spec.holder_identity.as_deref() == Some(&self.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        let acquired = before.filter(|_| held).and_then(|spec| spec.acquire_time.clone());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(DURATION.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: Some(acquired.unwrap_or_else(|| stamp.clone())),
            renew_time: Some(stamp.clone()),
            lease_transitions: Some(match before {
                Some(_) if !held => transitions.saturating_add(1),
                _ => transitions,
            }),
            ..LeaseSpec::default()
        }
    }
}

/// How long the holder says that its record counts.
fn alive_for(spec: &LeaseSpec) -> Duration {
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map_or(DURATION, Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn at(second: i64) -> MicroTime {
        MicroTime(Timestamp::from_second(second).unwrap())
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn written(step: Step) -> LeaseSpec {
        match step {
            Step::Write(spec) => *spec,
            Step::Wait => panic!("it waits"),
        }
    }

    #[test]
    fn an_absent_lease_is_taken() {
        let spec = written(Election::new("a".to_owned()).decide(None, seconds(0), &at(1)));
        assert_eq!(spec.holder_identity.as_deref(), Some("a"));
        assert_eq!((spec.lease_duration_seconds, spec.lease_transitions), (Some(15), Some(0)));
        assert_eq!((spec.acquire_time, spec.renew_time), (Some(at(1)), Some(at(1))));
    }

    #[test]
    fn a_holder_renews_and_keeps_the_time_of_its_election() {
        let mut a = Election::new("a".to_owned());
        let first = written(a.decide(None, seconds(0), &at(1)));
        let second = written(a.decide(Some(&first), seconds(2), &at(3)));
        assert_eq!((second.acquire_time, second.renew_time), (Some(at(1)), Some(at(3))));
        assert_eq!(second.lease_transitions, Some(0));
    }

    #[test]
    fn another_waits_as_long_as_the_record_changes() {
        let (mut a, mut b) = (Election::new("a".to_owned()), Election::new("b".to_owned()));
        let mut spec = written(a.decide(None, seconds(0), &at(0)));
        for round in 1..100 {
            let now = seconds(round * 2);
            // The holder's clock stands still or runs backwards: the record changes all the same.
            spec = written(a.decide(Some(&spec), now, &at(1000 - i64::try_from(round).unwrap())));
            assert_eq!(b.decide(Some(&spec), now, &at(0)), Step::Wait, "{round}");
        }
    }

    #[test]
    fn a_silent_holder_is_followed_after_the_duration_from_when_it_was_last_seen_to_change() {
        let (mut a, mut b) = (Election::new("a".to_owned()), Election::new("b".to_owned()));
        // A renewal time far in the past says nothing: this replica saw it just now.
        let spec = written(a.decide(None, seconds(0), &at(0)));
        assert_eq!(b.decide(Some(&spec), seconds(500), &at(500)), Step::Wait);
        assert_eq!(b.decide(Some(&spec), seconds(514), &at(514)), Step::Wait);
        let taken = written(b.decide(Some(&spec), seconds(515), &at(515)));
        assert_eq!(taken.holder_identity.as_deref(), Some("b"));
        assert_eq!(taken.lease_transitions, Some(1));
        assert_eq!(taken.acquire_time, Some(at(515)));
    }

    #[test]
    fn a_released_lease_is_taken_at_once_and_only_the_holder_can_release_it() {
        let (mut a, mut b) = (Election::new("a".to_owned()), Election::new("b".to_owned()));
        let spec = written(a.decide(None, seconds(0), &at(0)));
        assert_eq!(b.decide(Some(&spec), seconds(1), &at(1)), Step::Wait);
        assert_eq!(b.release(&spec, &at(1)), None);
        let released = a.release(&spec, &at(2)).unwrap();
        assert_eq!(released.holder_identity.as_deref(), Some(""));
        let taken = written(b.decide(Some(&released), seconds(2), &at(2)));
        assert_eq!(taken.holder_identity.as_deref(), Some("b"));
    }

    #[test]
    fn a_holder_whose_record_was_taken_waits_like_any_other() {
        let (mut a, mut b) = (Election::new("a".to_owned()), Election::new("b".to_owned()));
        let first = written(a.decide(None, seconds(0), &at(0)));
        b.decide(Some(&first), seconds(0), &at(0));
        let taken = written(b.decide(Some(&first), seconds(20), &at(20)));
        assert_eq!(a.decide(Some(&taken), seconds(21), &at(21)), Step::Wait);
    }

    #[test]
    fn leadership_ends_here_before_it_may_begin_elsewhere() {
        assert!(RENEW_DEADLINE < DURATION && RETRY * 2 < RENEW_DEADLINE);
    }
}
