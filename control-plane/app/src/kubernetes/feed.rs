//! From what the watches tell to published states: gathers what comes close together, and takes the
//! model once it is complete.
//!
//! Before it: `watch`, one per kind. After it: `take`. Runs on the watching thread.
//!
//! Invariant: nothing is published before every kind was listed once, so that a restart never publishes
//! half a world.
//! Invariant: a change is published within the longest window, however many follow it.

pub mod facts;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use self::facts::Facts;
use super::watch::Event;
use crate::clock::unix_now;
use crate::metrics::watching::WatchMetrics;
use crate::read::Problem;
use crate::status::Manifests;
use crate::take::Take;

/// Quiet that ends a window. Source: the endpoints of a rollout come a few milliseconds apart.
const QUIET: Duration = Duration::from_millis(10);
/// Longest window. Source: the goal of 100 ms from a change to its subscribers; Istio gathers for as long
/// at least, Weft at most.
const LONGEST: Duration = Duration::from_millis(60);
/// Problems that are logged one by one in one take; all of them are in the status. Source: Weft's own.
const LOGGED: usize = 8;

/// When to take what has changed: after some quiet, or after the longest wait.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    open: Option<(Instant, Instant)>,
}

impl Window {
    /// Something changed.
    fn extend(&mut self, now: Instant) {
        let first = self.open.map_or(now, |(first, _)| first);
        self.open = Some((first, now));
    }

    /// When the first change of the window came.
    fn first(&self) -> Option<Instant> {
        self.open.map(|(first, _)| first)
    }

    /// When it ends; none: nothing has changed.
    fn ends(&self) -> Option<Instant> {
        self.open.map(|(first, last)| (last + QUIET).min(first + LONGEST))
    }
}

/// Turns events into published states for as long as somebody tells.
pub struct Feed {
    facts: Facts,
    take: Take,
    watching: WatchMetrics,
    warned: Vec<String>,
    published: bool,
}

impl Feed {
    /// A feed without facts.
    pub fn new(facts: Facts, take: Take, watching: WatchMetrics) -> Self {
        Self { facts, take, watching, warned: Vec::new(), published: false }
    }

    /// Takes events until all watches are gone.
    ///
    /// # Cancel safety
    /// Dropping it loses the events of an open window; what is published stays.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        let mut window = Window::default();
        self.show_trouble();
        loop {
            let ends = window.ends().filter(|_| self.facts.synced());
            tokio::select! {
                biased;
                () = until(ends) => {
                    self.publish(window.first().unwrap_or_else(Instant::now));
                    window = Window::default();
                }
                event = events.recv() => match event {
                    None => return,
                    Some(event) => self.take_in(event, &mut window),
                },
                () = self.facts.recheck_due() => self.facts.recheck(),
            }
        }
    }

    fn take_in(&mut self, event: Event, window: &mut Window) {
        let failing = self.facts.failing();
        let of_watches = !matches!(event, Event::Seen(_) | Event::Gone(_) | Event::Begun(_));
        if self.facts.take(event) {
            window.extend(Instant::now());
        }
        if of_watches {
            self.show_trouble();
            self.say(failing);
        }
    }

    /// An outage of the API server concerns every kind, and is said once.
    fn say(&self, before: usize) {
        match (before, self.facts.failing()) {
            (0, 1..) => {
                let reason = self.facts.trouble().into_values().next().unwrap_or_default();
                tracing::warn!(reason, "the cluster cannot be watched for now; what is known stays in force");
            }
            (1.., 0) => tracing::info!("the cluster is watched again"),
            _ => {}
        }
    }

    /// What keeps the facts from being complete or fresh, in the status.
    fn show_trouble(&self) {
        self.watching.synced.set(i64::from(self.facts.synced()));
        let mut manifests = Manifests::clone(&self.take.status().manifests());
        manifests.problems = self.problems();
        self.take.status().set_manifests(manifests);
    }

    fn problems(&self) -> Vec<Problem> {
        let one = |(kind, text): (_, &str)| Problem {
            file: String::new(),
            line: 0,
            reason: format!("{kind}: {text}"),
        };
        self.facts.trouble().into_iter().map(one).collect()
    }

    fn publish(&mut self, noticed: Instant) {
        let manifests = Manifests {
            last_good_reload: unix_now(),
            problems: self.problems(),
            taken: self.facts.count(),
            ..Manifests::default()
        };
        let objects: usize = manifests.taken.values().sum();
        let started = Instant::now();
        let (delta, report) = self.facts.compile();
        self.take.metrics().compile_duration.observe(started.elapsed().as_secs_f64());
        if let Some(report) = report {
            self.warn(report.lines());
            self.take.report(report);
        }
        let unreadable = i64::try_from(self.facts.refused()).unwrap_or(i64::MAX);
        self.watching.unreadable.set(unreadable);
        let taken = self.take.publish(&delta, manifests, noticed.into_std());
        let (generation, new) = (taken.generation, taken.new);
        let millis = u64::try_from(noticed.elapsed().as_millis()).unwrap_or(u64::MAX);
        if std::mem::replace(&mut self.published, true) {
            tracing::debug!(generation, new, objects, millis, "the cluster's state was taken");
        } else {
            tracing::info!(generation, objects, millis, "the cluster's state was taken for the first time");
        }
    }

    /// Each problem is logged when it is new; the objects' status holds all of them.
    fn warn(&mut self, lines: Vec<String>) {
        let new: Vec<&String> =
            lines.iter().filter(|line| self.warned.binary_search(line).is_err()).collect();
        for problem in new.iter().take(LOGGED) {
            tracing::warn!(problem, "an object is not in force as it was written");
        }
        if let Some(more) = new.len().checked_sub(LOGGED).filter(|more| *more > 0) {
            tracing::warn!(more, "more objects are not in force as they were written: see their status");
        }
        self.warned = lines;
        self.warned.sort_unstable();
    }
}

/// Waits for a time; without one for ever.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
