//! One run: the steps, the faults, and the end in which everything must settle.
//!
//! Invariant: one source of chance; time moves only here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::Duration;

use weft_control_plane_core::config::Key;
use weft_proxy_core::{Chance, Moment};

use super::churn::{Dice, SERVICES, edit, first};
use super::facts::{Facts, Id, cluster_ip};
use super::plane::{Lose, Plane};
use super::request::{self, BY_NAME, Flight};
use super::sidecar::Sidecar;
use super::{Broken, Fault, Violation};

/// Steps with faults. Source: ours; each kind of fault and edit comes several times in a run.
const STEPS: u32 = 100;
/// Steps within which all must settle, of half a second each. Source: ours; the slowest link needs a
/// few round trips of a second.
const SETTLE: u32 = 60;
const MILLI: u64 = 1_000_000;

/// What happened in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests that were forwarded.
    pub requests: u32,
    /// Requests that policy denied.
    pub denied: u32,
    /// Retries.
    pub retries: u32,
    /// Ejections and returns.
    pub ejections: u32,
    /// Epochs that were adopted.
    pub epochs: u32,
    /// Streams that were cut.
    pub cuts: u32,
}

/// A run that broke a rule.
#[derive(Debug, Clone)]
pub struct Failed {
    /// The rule.
    pub violation: Violation,
    /// What was done, step by step; empty unless it was asked for.
    pub log: Vec<String>,
}

/// Everything there is.
#[derive(Debug)]
pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) now: Moment,
    pub(super) facts: Facts,
    plane: Plane,
    pub(super) sidecars: BTreeMap<Id, Sidecar>,
    /// Pods that are dead, and pods that answer badly, by uid.
    pub(super) down: BTreeSet<u64>,
    pub(super) sick: BTreeSet<u64>,
    pub(super) flights: Vec<Flight>,
    pub(super) fault: Option<Fault>,
    pub(super) stats: Stats,
    log: Option<Vec<String>>,
}

/// Runs one seed, with a log of its steps if asked for, and with a fault built in if any.
///
/// # Errors
/// The rule that was broken, and where.
pub fn run(seed: u64, fault: Option<Fault>, log: bool) -> Result<Stats, Failed> {
    let mut dice = Dice(Chance::new(seed));
    let facts = first(&mut dice);
    let mut world = World {
        dice,
        now: Moment(0),
        facts,
        plane: Plane::new(root()),
        sidecars: BTreeMap::new(),
        down: BTreeSet::new(),
        sick: BTreeSet::new(),
        flights: Vec::new(),
        fault,
        stats: Stats::default(),
        log: log.then(Vec::new),
    };
    match world.play() {
        Ok(()) => Ok(world.stats),
        Err(violation) => Err(Failed { violation, log: world.log.unwrap_or_default() }),
    }
}

/// A root certificate, for the trust bundle: made once, since its bytes decide nothing.
fn root() -> Vec<u8> {
    static ROOT: OnceLock<Vec<u8>> = OnceLock::new();
    let make = || {
        let made = rcgen::generate_simple_self_signed(["root".to_owned()]);
        made.map(|made| made.cert.der().to_vec()).unwrap_or_default()
    };
    ROOT.get_or_init(make).clone()
}

impl World {
    /// Writes a line of the log.
    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        let now = self.now.0 / MILLI;
        if let Some(log) = &mut self.log {
            log.push(format!("{now:>7} ms  {}", line()));
        }
    }

    fn play(&mut self) -> Result<(), Violation> {
        self.plane.publish(&self.facts)?;
        for _ in 0..STEPS {
            self.now = self.now.plus(Duration::from_millis(u64::from(20 + self.dice.below(400))));
            self.disturb()?;
            self.wish();
            self.turn()?;
            for _ in 0..self.dice.below(8) {
                let clients: Vec<Id> = self.sidecars.keys().cloned().collect();
                if let Some(client) = self.dice.of(&clients) {
                    request::begin(self, &client)?;
                }
            }
        }
        self.settle()
    }

    /// Edits and faults of one step.
    fn disturb(&mut self) -> Result<(), Violation> {
        if self.dice.one_in(3) {
            for _ in 0..=self.dice.below(3) {
                let what = edit(&mut self.facts, &mut self.dice);
                self.note(|| what);
            }
            self.down.retain(|uid| self.facts.pods.values().any(|pod| pod.uid == *uid));
            self.sick.retain(|uid| self.facts.pods.values().any(|pod| pod.uid == *uid));
            if self.plane.back_at <= self.now && self.plane.newest().is_some() {
                self.plane.publish(&self.facts)?;
            }
        }
        if self.dice.one_in(40) {
            let away = Duration::from_millis(u64::from(self.dice.below(3000)));
            self.plane.restart(self.now.plus(away));
            self.note(|| "the control plane dies".to_owned());
        }
        if self.plane.newest().is_none() && self.plane.back_at <= self.now {
            self.plane.publish(&self.facts)?;
            self.note(|| "the control plane is back, empty-handed".to_owned());
        }
        let uids: Vec<u64> = self.facts.pods.values().map(|pod| pod.uid).collect();
        let (down, sick) = (self.dice.one_in(6), self.dice.one_in(5));
        for (hit, set) in [(down, &mut self.down), (sick, &mut self.sick)] {
            if let Some(uid) = self.dice.of(&uids).filter(|_| hit)
                && !set.remove(&uid)
            {
                set.insert(uid);
            }
        }
        let (now, plane) = (self.now, &self.plane);
        for sidecar in self.sidecars.values_mut() {
            let dead = sidecar.link.as_ref().is_some_and(|link| link.process != plane.process);
            if dead || (sidecar.link.is_some() && self.dice.one_in(30)) {
                sidecar.link = None;
                self.stats.cuts += 1;
                let away = Duration::from_millis(u64::from(self.dice.below(1500)));
                let stays = self.fault == Some(Fault::StaysAway);
                sidecar.dial_at = if stays { Moment::NEVER } else { now.plus(away) };
            }
        }
        Ok(())
    }

    /// What applications come to want, and no longer do.
    fn wish(&mut self) {
        let ids: Vec<Id> = self.sidecars.keys().cloned().collect();
        for id in ids {
            let place = u8::try_from(self.dice.below(7)).unwrap_or_default();
            let port = if self.dice.one_in(4) { 81 } else { 80 };
            let pods: Vec<_> = self.facts.pods.values().map(|pod| pod.ip).collect();
            let name = match self.dice.below(10) {
                0 => self.dice.of(&pods).map(|ip| format!("{ip}:8080")),
                1..=2 => self.dice.of(&SERVICES).map(|service| format!("{service}:{port}")),
                _ => Some(format!("{}:{port}", cluster_ip(place))),
            };
            let kind = BY_NAME[usize::from(name.as_ref().is_some_and(|name| name.contains('/')))];
            let (wants, drops) = (self.dice.one_in(6), self.dice.one_in(30));
            let Some(sidecar) = self.sidecars.get_mut(&id) else { continue };
            if let Some(name) = name.filter(|_| wants || sidecar.asked.len() < 2) {
                sidecar.ask(self.now, Key::new(kind, name), true);
            }
            let first = sidecar.asked.first().cloned();
            if let Some(key) = first.filter(|_| drops) {
                sidecar.ask(self.now, key, false);
            }
        }
    }

    /// Everybody's turn: pods come and go, messages move, exchanges end.
    fn turn(&mut self) -> Result<(), Violation> {
        let facts = &self.facts;
        let same = |id: &Id, sidecar: &mut Sidecar| {
            facts.pods.get(id).is_some_and(|pod| pod.sidecar && pod.uid == sidecar.uid)
        };
        self.sidecars.retain(same);
        for (id, pod) in facts.pods.iter().filter(|(_, pod)| pod.sidecar) {
            self.sidecars.entry(id.clone()).or_insert_with(|| Sidecar::new(id, pod.uid));
        }
        let (now, fault) = (self.now, self.fault);
        let mut heard = Vec::new();
        for (id, sidecar) in &mut self.sidecars {
            if sidecar.link.is_none() && sidecar.dial_at <= now && self.plane.back_at <= now {
                let delay =
                    u64::from(if self.dice.one_in(5) { self.dice.below(900) } else { self.dice.below(30) });
                sidecar.dial(now, self.plane.process, delay * MILLI);
            }
            let lose = Lose { fault, now: self.dice.one_in(8) };
            if let Some(link) = &mut sidecar.link {
                link.serve(now, &self.plane, lose)?;
            }
            let epochs = sidecar.hear(now, &self.plane, fault)?;
            heard.extend((epochs > 0).then(|| id.clone()));
            self.stats.epochs += epochs;
        }
        self.note(|| format!("adopted by {heard:?}"));
        let (due, later) =
            std::mem::take(&mut self.flights).into_iter().partition(|flight| flight.due <= now);
        self.flights = later;
        let due: Vec<Flight> = due;
        for flight in due {
            request::end(self, flight)?;
        }
        Ok(())
    }

    /// Faults are over: soon all hold the newest, and equal subscriptions hold equal bytes.
    fn settle(&mut self) -> Result<(), Violation> {
        self.note(|| "faults are over".to_owned());
        self.plane.back_at = self.now;
        self.plane.publish(&self.facts)?;
        let mut quiet = false;
        for _ in 0..SETTLE {
            self.now = self.now.plus(Duration::from_millis(500));
            self.turn()?;
            quiet = self
                .sidecars
                .values()
                .all(|sidecar| sidecar.link.as_ref().is_some_and(|link| link.is_quiet()));
            if quiet && self.flights.is_empty() {
                break;
            }
        }
        let apart = |text: String| Violation::new(Broken::Converge, text);
        if !quiet {
            return Err(apart("messages are still under way".to_owned()));
        }
        let newest = self.plane.newest().ok_or_else(|| apart("there is no newest".to_owned()))?;
        let mut seen = BTreeMap::new();
        for sidecar in self.sidecars.values() {
            sidecar.holds(&newest, &sidecar.asked).map_err(apart)?;
            for resource in sidecar.resources() {
                // Routes are by namespace; a policy may stand still where it was refused.
                let kind = resource.key.as_ref().map(|key| (key.r#type, key.name.clone()));
                if kind
                    .as_ref()
                    .is_some_and(|(kind, _)| *kind == weft_proto::v1::ResourceType::Authorization as i32)
                {
                    continue;
                }
                let before =
                    seen.insert((sidecar.namespace().to_owned(), kind.clone()), resource.body.clone());
                if before.is_some_and(|before| before != resource.body) {
                    return Err(apart(format!("two sidecars hold different bytes of {kind:?}")));
                }
            }
        }
        Ok(())
    }
}
