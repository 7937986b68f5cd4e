//! One question from asking to its end: who is summoned, what they say, and who stayed away.
//!
//! Invariant: everybody who was asked is either heard to the end or named as silent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
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
/// Life of a tap, beyond that which the sidecars end it after. Source: Weft's own.
const TAP_LIFE: Duration = Duration::from_secs(3_660);

type Asker = mpsc::Sender<v1::Finding>;

/// How far one that was asked has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Asked,
    Here,
}

/// Asks, gathers and tells.
pub(super) async fn conduct(hub: &Hub, mut question: v1::Question, asker: &Asker) {
    let published = hub.reader().borrow().clone();
    let owners = Owners::of(published);
    let relayed = question.relayed;
    let passed_on = question.clone();
    owners.complete(&mut question);
    let Concerned { asked, older } = owners.concerned(&question, hub.status());
    let (mut tickets, told, heard) = hub.listen();
    let mut pending: BTreeMap<String, Progress> = BTreeMap::new();
    for sidecar in &asked {
        pending.insert(sidecar.workload.clone(), Progress::Asked);
    }
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
    pending.extend(replicas.into_iter().map(|replica| (replica, Progress::Asked)));
    if tell(asker, "", Found::Asked(who)).await.is_err() {
        return;
    }
    let question = Arc::new(question);
    summon(&asked, &question, &mut tickets, &told);
    drop(told);
    let endless = matches!(question.what, Some(What::Tap(_)));
    let merger = match &question.what {
        Some(What::Stat(_)) if !relayed => Some(Merger::new(&question, owners)),
        _ => None,
    };
    let mut gathering = Gathering { pending, asker, merger, endless };
    let life = if endless { TAP_LIFE } else { DEADLINE + DEADLINE };
    // Whatever a peer does, a question ends.
    let _ = timeout(life, gathering.run(heard)).await;
    gathering.finish().await;
}

/// Says the word to every sidecar, without waiting for any.
fn summon(
    asked: &[Reached],
    question: &Arc<v1::Question>,
    tickets: &mut Tickets,
    told: &mpsc::Sender<Heard>,
) {
    for sidecar in asked {
        let Some(line) = sidecar.line.clone() else { continue };
        let Some(ticket) = tickets.issue(&sidecar.workload, &sidecar.identity, question, told) else {
            continue;
        };
        let (told, who) = (told.clone(), sidecar.workload.clone());
        tokio::spawn(async move {
            if !line.summon(ticket, SUMMON).await {
                let why = "its stream takes no word; is it stuck, or about to leave?".to_owned();
                let _ = told.send(Heard { who, what: Word::Silent(why) }).await;
            }
        });
    }
}

async fn tell(asker: &Asker, workload: &str, found: Found) -> Result<(), ()> {
    asker.send(v1::Finding { workload: workload.to_owned(), found: Some(found) }).await.map_err(|_| ())
}

/// What has come so far.
struct Gathering<'a> {
    pending: BTreeMap<String, Progress>,
    asker: &'a Asker,
    merger: Option<Merger>,
    /// A tap: who has come may stay.
    endless: bool,
}

impl Gathering<'_> {
    async fn run(&mut self, mut heard: mpsc::Receiver<Heard>) {
        let deadline = Instant::now() + DEADLINE;
        let mut waiting = true;
        while !self.pending.is_empty() {
            tokio::select! {
                word = heard.recv() => match word {
                    Some(Heard { who, what }) => if self.hear(who, what).await.is_err() { return },
                    None => return,
                },
                () = sleep_until(deadline), if waiting => {
                    waiting = false;
                    if self.late().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn hear(&mut self, who: String, what: Word) -> Result<(), ()> {
        match what {
            Word::Here => {
                self.pending.entry(who).and_modify(|progress| *progress = Progress::Here);
                Ok(())
            }
            Word::Told(told) => self.told(&who, told).await,
            Word::Found(finding) => self.found(*finding).await,
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

    /// Gives up those that did not come, and, unless it is a tap, those that are not done.
    async fn late(&mut self) -> Result<(), ()> {
        let endless = self.endless;
        let late: Vec<String> = self
            .pending
            .iter()
            .filter(|(_, progress)| !endless || **progress == Progress::Asked)
            .map(|(who, _)| who.clone())
            .collect();
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
