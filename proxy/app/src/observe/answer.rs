//! One question, from the arrival to the end of the answer.
//!
//! Invariant: every wait has a deadline: for the question, for the connection to take an answer, and for a
//! tap its lifetime.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;
use weft_proto::v1;
use weft_proto::v1::observe_client::ObserveClient;
use weft_proto::v1::question::What;
use weft_proto::v1::testimony::Told;

use super::decision::decision;
use super::taps::Watching;
use super::{Observer, reading};
use crate::dial;

/// Time for the stream to open, for the question to come, and for a short answer to leave.
/// Source: the control plane gives up sooner.
const DEADLINE: Duration = Duration::from_secs(15);
/// Answers handed to the connection but not written yet. Source: two batches; beyond it decisions wait in
/// their tap's queue.
const IN_FLIGHT: usize = 2;
/// Decisions in one message. Source: about 30 KiB.
const BATCH: usize = 64;
/// How long decisions gather before they are told. Source: a person does not see the delay.
const GATHER: Duration = Duration::from_millis(50);
/// Life of a tap that does not say. Source: Weft's own; one that is forgotten ends soon.
const LIFE: Duration = Duration::from_secs(600);
/// Longest life of a tap. Source: Weft's own.
const LONGEST_LIFE: Duration = Duration::from_secs(3_600);
/// Decisions recalled for one name. Source: Weft's own; retries of a caller that uses its name again.
const RECALLED: usize = 16;

type Say = mpsc::Sender<v1::Testimony>;

/// Answers the question of `ticket`.
pub(super) async fn answer(observer: &Observer, channel: Channel, ticket: String) -> Result<(), String> {
    let (say, said) = mpsc::channel(IN_FLIGHT);
    tell(&say, Told::Arrival(v1::Arrival { ticket })).await?;
    let mut client = ObserveClient::new(channel).max_encoding_message_size(dial::MAX_MESSAGE);
    let opening = client.answer(ReceiverStream::new(said));
    let opened = timeout(DEADLINE, opening).await.map_err(|_| "the control plane took too long")?;
    let mut questions = opened.map_err(|status| dial::chain(&status))?.into_inner();
    let question = timeout(DEADLINE, questions.message()).await.map_err(|_| "no question came")?;
    // Nobody wants to know any more.
    let Some(question) = question.map_err(|status| dial::chain(&status))? else { return Ok(()) };
    let told = match question.what {
        Some(What::Stat(_)) => {
            let telemetry = &observer.telemetry;
            let reading = reading::reading(&observer.lately, &telemetry.metrics, telemetry.clock.now());
            tell(&say, Told::Reading(reading)).await
        }
        Some(What::Tap(asked)) => tap(observer, &asked, &say, &mut questions).await,
        Some(What::Recall(asked)) => tell(&say, Told::Decisions(recall(observer, &asked))).await,
        Some(What::Explain(asked)) => match observer.explainer.answer(&asked).await {
            Ok(walk) => tell(&say, Told::Walk(named(walk, observer))).await,
            Err(problem) => tell(&say, Told::Unable(problem)).await,
        },
        None => {
            tell(&say, Told::Unable("this sidecar does not know such questions; upgrade it".into())).await
        }
    };
    told?;
    // Whoever leaves first takes what is on its way along: the last word is said by ending this side's half, and
    // the control plane ends the other once it has heard it.
    drop(say);
    let _ = timeout(DEADLINE, questions.message()).await;
    Ok(())
}

async fn tell(say: &Say, told: Told) -> Result<(), String> {
    let sent = say.send_timeout(v1::Testimony { told: Some(told) }, DEADLINE).await;
    sent.map_err(|_| "the control plane takes no answer".to_owned())
}

/// A walk with the sidecar that it is of.
fn named(mut walk: v1::Walk, observer: &Observer) -> v1::Walk {
    if walk.workload.is_empty() {
        walk.workload = observer.workload.to_string();
    }
    walk
}

fn recall(observer: &Observer, asked: &v1::RecallQuestion) -> v1::Decisions {
    let telemetry = &observer.telemetry;
    let found = telemetry.decisions.find(&asked.request_id);
    let one =
        |seen: &crate::record::ring::Seen| decision(&seen.entry, seen.labels(), seen.ended, &telemetry.clock);
    v1::Decisions { list: found.iter().take(RECALLED).map(one).collect(), missing: 0 }
}

/// Tells what a tap sees until its time is over or the control plane ends the stream.
async fn tap(
    observer: &Observer,
    asked: &v1::TapQuestion,
    say: &Say,
    questions: &mut Streaming<v1::Question>,
) -> Result<(), String> {
    let telemetry = &observer.telemetry;
    let life = match asked.lifetime_millis {
        0 => LIFE,
        millis => Duration::from_millis(millis).min(LONGEST_LIFE),
    };
    let mut watching = match telemetry.taps.open(asked, &observer.workload, telemetry.clock.now()) {
        Ok(watching) => watching,
        Err(problem) => return tell(say, Told::Unable(problem)).await,
    };
    tracing::info!(life = ?life, "this sidecar is tapped");
    let end = tokio::select! {
        end = show(&mut watching, say) => end,
        // Whatever comes, or does not: this question is over.
        _ = questions.message() => Ok(()),
        () = tokio::time::sleep(life) => Ok(()),
    };
    tracing::info!("this sidecar is no longer tapped");
    end
}

async fn show(watching: &mut Watching, say: &Say) -> Result<(), String> {
    let mut list = Vec::new();
    loop {
        // The first says that there is something; what else there is comes with it.
        let Some(first) = watching.next().await else { return Ok(()) };
        list.push(first);
        tokio::time::sleep(GATHER).await;
        while list.len() < BATCH
            && let Some(more) = watching.ready()
        {
            list.push(more);
        }
        let decisions = v1::Decisions { list: std::mem::take(&mut list), missing: watching.missing() };
        // Without a deadline of its own: a slow reader costs missing decisions, and the tap's life ends it.
        let told = v1::Testimony { told: Some(Told::Decisions(decisions)) };
        say.send(told).await.map_err(|_| "the control plane takes no answer")?;
    }
}
