//! What the simulation itself remembers of one backend's endpoints and retries, to hold the balancer
//! and the budget against.
//!
//! Invariant: learns only of what was sent and how it ended, never from the balancer's own state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use weft_proxy_core::{Backend, EndpointId, Event, Moment, Outcome};

use super::{Broken, Violation};

/// Seconds that a retry budget looks back. Source: the budget's own promise.
const WINDOW: u64 = 10;
const SECOND: u64 = 1_000_000_000;

/// One backend, as one client knows it.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    out: BTreeMap<u32, Out>,
    failures: BTreeMap<u32, u32>,
    /// Second and percent of each request; second of each retry.
    requests: Vec<(u64, u32)>,
    retries: Vec<u64>,
}

/// An endpoint that is ejected.
#[derive(Debug, Clone, Copy)]
struct Out {
    until: Moment,
    /// Until when the probe under way keeps others back.
    probed: Option<Moment>,
}

fn ejection(text: String) -> Result<(), Violation> {
    Err(Violation::new(Broken::Ejection, text))
}

impl Ledger {
    /// Something is sent to an endpoint.
    pub(super) fn sent(
        &mut self,
        id: EndpointId,
        probe: bool,
        now: Moment,
        backend: &Backend,
    ) -> Result<(), Violation> {
        match self.out.get_mut(&id.0) {
            None if probe => ejection(format!("{id:?} is probed and was not ejected")),
            None => Ok(()),
            Some(out) if !probe => {
                ejection(format!("{id:?} is ejected ({out:?}) and sees traffic at {now:?}"))
            }
            Some(out) if now < out.until => {
                ejection(format!("{id:?} is probed at {now:?}, too early: {out:?}"))
            }
            Some(Out { probed: Some(lease), .. }) if now < *lease => ejection(format!(
                "{id:?} is probed at {now:?}, and the last probe is under way till {lease:?}"
            )),
            Some(out) => {
                out.probed = Some(now.plus(backend.policy.outlier.base_ejection));
                Ok(())
            }
        }
    }

    /// What was sent to an endpoint ended.
    pub(super) fn ended(
        &mut self,
        (id, probe): (EndpointId, bool),
        outcome: Outcome,
        event: Option<Event>,
        now: Moment,
        backend: &Backend,
    ) -> Result<(), Violation> {
        let failures = self.failures.entry(id.0).or_default();
        match outcome {
            Outcome::Success { .. } => *failures = 0,
            Outcome::Failure => *failures += 1,
            Outcome::Cancelled => {}
        }
        let failures = *failures;
        let was_out = self.out.contains_key(&id.0);
        if let Some(out) = self.out.get_mut(&id.0).filter(|_| probe && outcome == Outcome::Cancelled) {
            *out = Out { until: now, probed: None };
        }
        match event {
            None => Ok(()),
            Some(Event::Restored) if probe && was_out => {
                self.out.remove(&id.0);
                self.failures.remove(&id.0);
                Ok(())
            }
            Some(Event::Restored) => ejection(format!("{id:?} is restored by what was no probe of it")),
            Some(Event::Ejected { .. }) if was_out && !probe => {
                ejection(format!("{id:?} is ejected anew by what was no probe of it"))
            }
            Some(Event::Ejected { until }) => {
                self.out.insert(id.0, Out { until, probed: None });
                self.failures.remove(&id.0);
                let enough = backend.policy.outlier.consecutive_failures;
                if !was_out && (enough == 0 || failures < enough) {
                    return ejection(format!("{id:?} is ejected after {failures} failures, not {enough}"));
                }
                if !was_out && self.out.len() > allowed(backend) {
                    return ejection(format!("{} are out, more than may be", self.out.len()));
                }
                Ok(())
            }
        }
    }

    /// The backend changed: who is gone is forgotten, and of too many the first due come back.
    pub(super) fn changed(&mut self, ids: &BTreeSet<u32>, backend: &Backend) {
        self.out.retain(|id, _| ids.contains(id));
        self.failures.retain(|id, _| ids.contains(id));
        while self.out.len() > allowed(backend) {
            let due = |(_, out): &(&u32, &Out)| out.probed.unwrap_or(out.until);
            let at = |(id, _): &(&u32, &Out)| ids.iter().position(|known| known == *id);
            let first = self.out.iter().min_by_key(|out| (due(out), at(out))).map(|(id, _)| *id);
            let Some(first) = first else { return };
            self.out.remove(&first);
            self.failures.remove(&first);
        }
    }

    /// A request begins.
    pub(super) fn begun(&mut self, now: Moment, percent: u32) {
        self.requests.push((now.0 / SECOND, percent));
    }

    /// A retry was granted.
    pub(super) fn retried(&mut self, now: Moment, backend: &Backend) -> Result<(), Violation> {
        let second = now.0 / SECOND;
        self.retries.push(second);
        let recent = |at: &u64| *at + WINDOW > second;
        self.requests.retain(|(at, _)| recent(at));
        self.retries.retain(recent);
        let share: u64 = self.requests.iter().map(|(_, percent)| u64::from(*percent)).sum();
        let least = u64::from(backend.policy.retry_budget.min_per_second) * WINDOW;
        let made = self.retries.len() as u64;
        if made * 100 > share + least * 100 {
            let text = format!("{made} retries in {WINDOW} s, {share} hundredths and {least} are allowed");
            return Err(Violation::new(Broken::Budget, text));
        }
        Ok(())
    }
}

fn allowed(backend: &Backend) -> usize {
    let (policy, total) = (&backend.policy, backend.endpoints.len());
    match (&policy.fallback, policy.outlier.consecutive_failures) {
        (_, 0) => 0,
        (Some(_), _) => total,
        (None, _) => total * policy.outlier.max_ejected_percent as usize / 100,
    }
}

/// How long an exchange may take at most.
pub(super) const LONGEST: Duration = Duration::from_millis(2500);
