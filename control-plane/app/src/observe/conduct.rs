//! One question from asking to its end: who is summoned, what they say, and who stayed away.
//!
//! Invariant: everybody who was asked is either heard to the end or named as silent.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, interval, timeout};
use weft_proto::v1;
use weft_proto::v1::finding::Found;
use weft_proto::v1::question::What;
use weft_proto::v1::testimony::Told;

use super::hub::{Heard, Hub, Tickets, Word};
use super::merge::Merger;
use super::owners::{Concerned, Owners};
use crate::status::Reached;

/// Time for a sidecar to come, and for a short answer. Source: Weft's own; a healthy one takes milliseconds,
/// and a person waits.
const DEADLINE: Duration = Duration::from_secs(5);
/// Time for a word to be put on a sidecar's stream. Source: Weft's own; a stream that is stuck so long is.
const SUMMON: Duration = Duration::from_secs(2);
/// How much longer a replica has, which waits for others. Source: Weft's own.
const GRACE: Duration = Duration::from_secs(2);
/// How often it is looked who is late. Source: Weft's own; a person does not see the difference.
const LOOK: Duration = Duration::from_millis(250);
/// Sidecars that are asked at once. Source: Weft's own; each costs some KiB while it answers.
const AT_ONCE: usize = 256;
/// Sidecars that one tap watches at a replica. Source: Weft's own; more than anybody can follow.
const TAPPED: usize = 512;
/// Life of a short question. Source: Weft's own; one that takes longer has too many to ask.
const LIFE: Duration = Duration::from_secs(60);
/// Life of a tap, beyond that which the sidecars end it after. Source: Weft's own.
const TAP_LIFE: Duration = Duration::from_secs(3_660);

type Asker = mpsc::Sender<v1::Finding>;

/// One that was asked and is not done.
#[derive(Clone, Copy)]
struct Pending {
    since: Instant,
    /// A sidecar, and it has come.
    here: bool,
}

/// Asks, gathers and tells.
pub(super) async fn conduct(hub: &Hub, mut question: v1::Question, asker: &Asker) {
    let owners = Owners::of(hub.reader().borrow().clone());
    let relayed = question.relayed;
    let passed_on = question.clone();
    owners.complete(&mut question);
    let Concerned { mut asked, older } = owners.concerned(&question, hub.status());
    let (tickets, told, heard) = hub.listen();
    // One sidecar is enough for a walk, and need not be looked for further away.
    let enough = relayed || (matches!(question.what, Some(What::Explain(_))) && !asked.is_empty());
    let replicas = match hub.replicas().filter(|_| !enough) {
        Some(replicas) => replicas.ask(&passed_on, &told).await,
        None => Vec::new(),
    };
    let who = v1::Asked {
        sidecars: u64::try_from(asked.len()).unwrap_or(u64::MAX),
        older,
        replicas: u64::try_from(replicas.len()).unwrap_or(u64::MAX).saturating_add(1),
    };
    if tell(asker, "", Found::Asked(who)).await.is_err() {
        return;
    }
    let endless = matches!(question.what, Some(What::Tap(_)));
    let beyond = if endless { asked.split_off(asked.len().min(TAPPED)).len() } else { 0 };
    if beyond > 0 {
        let why = format!("a tap watches {TAPPED} sidecars of a replica at most: narrow it");
        let silent = v1::Silent { who: format!("{beyond} more sidecars"), why };
        if tell(asker, "", Found::Silent(silent)).await.is_err() {
            return;
        }
    }
    let merger = match &question.what {
        Some(What::Stat(_)) if !relayed => Some(Merger::new(&question, owners)),
        _ => None,
    };
    // A replica names those that are late to it before it is late itself.
    let since = Instant::now() + GRACE;
    let pending = replicas.into_iter().map(|replica| (replica, Pending { since, here: endless }));
    let mut gathering = Gathering {
        pending: pending.collect(),
        waiting: asked.into(),
        question: Arc::new(question),
        tickets,
        told,
        asker,
        merger,
        endless,
    };
    // Whatever a peer does, a question ends.
    let _ = timeout(if endless { TAP_LIFE } else { LIFE }, gathering.run(heard)).await;
    gathering.finish().await;
}

async fn tell(asker: &Asker, workload: &str, found: Found) -> Result<(), ()> {
    asker.send(v1::Finding { workload: workload.to_owned(), found: Some(found) }).await.map_err(|_| ())
}

/// What has come so far.
struct Gathering<'a> {
    pending: BTreeMap<String, Pending>,
    /// Sidecars that are still to be summoned.
    waiting: VecDeque<Reached>,
    question: Arc<v1::Question>,
    tickets: Tickets,
    told: mpsc::Sender<Heard>,
    asker: &'a Asker,
    merger: Option<Merger>,
    /// A tap: who has come may stay.
    endless: bool,
}

impl Gathering<'_> {
    async fn run(&mut self, mut heard: mpsc::Receiver<Heard>) {
        let mut timer = interval(LOOK);
        loop {
            self.summon();
            if self.pending.is_empty() {
                return;
            }
            let step = tokio::select! {
                word = heard.recv() => match word {
                    Some(Heard { who, what }) => self.hear(who, what).await,
                    None => return,
                },
                _ = timer.tick() => self.late().await,
            };
            if step.is_err() {
                return;
            }
        }
    }

    /// Says the word to those whose turn it is, without waiting for any.
    fn summon(&mut self) {
        while self.endless || self.pending.len() < AT_ONCE {
            let Some(sidecar) = self.waiting.pop_front() else { return };
            let Some(line) = sidecar.line else { continue };
            let (who, told) = (sidecar.workload, self.told.clone());
            let ticket = self.tickets.issue(&who, &sidecar.identity, &self.question, &told);
            self.pending.insert(who.clone(), Pending { since: Instant::now(), here: false });
            // Without randomness there are no tickets; that it does not come is told in time.
            let Some(ticket) = ticket else { continue };
            tokio::spawn(async move {
                if !line.summon(ticket, SUMMON).await {
                    let why = "its stream takes no word; is it stuck, or about to leave?".to_owned();
                    let _ = told.send(Heard { who, what: Word::Silent(why) }).await;
                }
            });
        }
    }

    async fn hear(&mut self, who: String, what: Word) -> Result<(), ()> {
        match what {
            Word::Here => {
                self.pending.entry(who).and_modify(|pending| pending.here = true);
                Ok(())
            }
            Word::Told(told) => self.told(&who, told).await,
            Word::Found(finding) => {
                let since = Instant::now() + GRACE;
                self.pending.entry(who).and_modify(|pending| pending.since = since);
                self.found(*finding).await
            }
            Word::Done => {
                self.pending.remove(&who);
                Ok(())
            }
            Word::Silent(why) => self.silent(&who, why).await,
        }
    }

    async fn told(&mut self, who: &str, told: Told) -> Result<(), ()> {
        match (told, &mut self.merger) {
            (Told::Reading(reading), Some(merger)) => {
                merger.take(who, reading);
                Ok(())
            }
            (Told::Reading(reading), None) => tell(self.asker, who, Found::Reading(reading)).await,
            (Told::Decisions(decisions), _) => tell(self.asker, who, Found::Decisions(decisions)).await,
            (Told::Walk(walk), _) => tell(self.asker, who, Found::Walk(walk)).await,
            (Told::Unable(why), _) => self.silent(who, why).await,
            // A second arrival says nothing.
            (Told::Arrival(_), _) => Ok(()),
        }
    }

    /// What another replica found.
    async fn found(&mut self, finding: v1::Finding) -> Result<(), ()> {
        match (finding.found, &mut self.merger) {
            (Some(Found::Reading(reading)), Some(merger)) => {
                merger.take(&finding.workload, reading);
                Ok(())
            }
            // Whom it asked is added up by who shows it.
            (Some(found), _) => tell(self.asker, &finding.workload, found).await,
            (None, _) => Ok(()),
        }
    }

    async fn silent(&mut self, who: &str, why: String) -> Result<(), ()> {
        // Once is enough.
        if self.pending.remove(who).is_none() {
            return Ok(());
        }
        tell(self.asker, "", Found::Silent(v1::Silent { who: who.to_owned(), why })).await
    }

    /// Gives up those that did not come in time, and, unless it is a tap, those that are not done.
    async fn late(&mut self) -> Result<(), ()> {
        let endless = self.endless;
        let late = |pending: &Pending| !(endless && pending.here) && pending.since.elapsed() >= DEADLINE;
        let late: Vec<String> =
            self.pending.iter().filter(|(_, one)| late(one)).map(|(who, _)| who.clone()).collect();
        for who in late {
            self.silent(&who, format!("no answer in {} s", DEADLINE.as_secs())).await?;
        }
        Ok(())
    }

    async fn finish(self) {
        if let Some(merger) = self.merger {
            let _ = tell(self.asker, "", Found::Edges(merger.finish())).await;
        }
    }
}
