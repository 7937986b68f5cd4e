//! `weft tap`: requests and connections as they end, live from the sidecars, without their bodies.
//!
//! Invariant: secrets never reach this program: the sidecars leave them out.
//! Invariant: the sidecars are let go when this ends, however it ends.

mod line;

use std::time::Duration;

use anyhow::Context as _;
use weft_proto::v1;
use weft_proto::v1::finding::Found;
use weft_proto::v1::question::What;

use crate::Form;
use crate::cluster::block_on;
use crate::install::print;
use crate::observe::{self, Beside, Findings, MeshArgs, Target};

/// How long --for may be. Source: the sidecars' own bound.
const LONGEST: u64 = 3_600;

/// Which requests, of which mesh.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TapArgs {
    /// Whose sidecars are asked: KIND/NAME or KIND/NAME.NAMESPACE, of deploy and pod; svc means its calls, ns all
    /// of it. Default: all of the namespace.
    #[arg(value_name = "KIND/NAME")]
    about: Option<Target>,
    /// Only to there.
    #[arg(long, value_name = "KIND/NAME")]
    to: Option<Target>,
    /// Only from here.
    #[arg(long, value_name = "KIND/NAME")]
    from: Option<Target>,
    /// Only as this side of a sidecar sees it: inbound or outbound. Default: both, so that a request between two
    /// sidecars is shown twice.
    #[arg(long, value_name = "SIDE", value_parser = ["inbound", "outbound"])]
    direction: Option<String>,
    /// Only paths that begin so.
    #[arg(long, value_name = "START")]
    path: Option<String>,
    /// Only this method.
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Only these statuses: 404, 5xx or 400-499.
    #[arg(long, value_name = "STATUS", value_parser = status)]
    status: Option<(u32, u32)>,
    /// Only with this identity at either end.
    #[arg(long, value_name = "SPIFFE-ID")]
    identity: Option<weft_proto::names::SpiffeId>,
    /// Only what a sidecar refused, reset or answered itself.
    #[arg(long)]
    refused: bool,
    /// Show this header field of requests; of a secret one only that it was there. Repeatable.
    #[arg(long = "header", value_name = "NAME")]
    headers: Vec<String>,
    /// The most that one sidecar tells in a second. What is over it is counted.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    max_rate: u32,
    /// Show one of so many.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    one_in: u32,
    /// End after so many seconds.
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 600,
          value_parser = clap::value_parser!(u64).range(1..=LONGEST))]
    seconds: u64,
    /// End after so many were shown.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    mesh: MeshArgs,
    /// Form of the answer; JSON is one object a line.
    #[arg(long, short, value_enum, default_value_t = Form::Text)]
    output: Form,
}

/// A status, a class of statuses, or a range.
fn status(text: &str) -> Result<(u32, u32), String> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|status| (100..=599).contains(status));
    let class = text.strip_suffix("xx").and_then(|digit| digit.parse::<u32>().ok());
    let range = match (class, text.split_once('-')) {
        (Some(class @ 1..=5), _) => Some((class * 100, class * 100 + 99)),
        (_, Some((from, to))) => number(from).zip(number(to)).filter(|(from, to)| from <= to),
        _ => number(text).map(|status| (status, status)),
    };
    range.ok_or_else(|| format!("{text:?} is no status (404, 5xx or 400-499)"))
}

impl TapArgs {
    fn question(&self, namespace: String) -> v1::Question {
        let (status_from, status_to) = self.status.unwrap_or((0, 0));
        let tap = v1::TapQuestion {
            from: observe::end(self.from.as_ref()),
            to: observe::end(self.to.as_ref()),
            direction: self.direction.clone().unwrap_or_default(),
            method: self.method.clone().unwrap_or_default(),
            path: self.path.clone().unwrap_or_default(),
            status_from,
            status_to,
            identity: self.identity.as_ref().map(ToString::to_string).unwrap_or_default(),
            refused: self.refused,
            max_rate: self.max_rate,
            one_in: self.one_in,
            lifetime_millis: self.seconds.saturating_mul(1_000),
            headers: self.headers.clone(),
        };
        let subject = observe::end(self.about.as_ref());
        v1::Question { namespace, subject, relayed: false, what: Some(What::Tap(tap)) }
    }
}

/// Shows what comes until it ends.
pub(crate) fn run(args: &TapArgs) -> anyhow::Result<()> {
    block_on(async {
        let mesh = args.mesh.open().await?;
        let namespace = args.mesh.namespace(&mesh, args.about.as_ref());
        let findings = mesh.ask(args.question(namespace.clone())).await?;
        let mut view = View { namespace, beside: Beside::default(), shown: 0, missing: 0 };
        let showing = view.show(args, findings);
        // The sidecars end it themselves a little later, should the control plane not.
        let end = tokio::time::timeout(Duration::from_secs(args.seconds), showing).await;
        view.close();
        end.unwrap_or(Ok(()))
    })
}

struct View {
    namespace: String,
    beside: Beside,
    shown: u64,
    missing: u64,
}

impl View {
    async fn show(&mut self, args: &TapArgs, mut findings: Findings) -> anyhow::Result<()> {
        while let Some(finding) = findings.next().await? {
            let silent = self.beside.silent.len();
            let answer = finding.found.and_then(|found| self.beside.note(found));
            if let Some(silent) = self.beside.silent.get(silent) {
                say(&format!("no answer from {}: {}", silent.who, silent.why));
            }
            let Some(Found::Decisions(decisions)) = answer else { continue };
            self.missing = self.missing.saturating_add(decisions.missing);
            for decision in &decisions.list {
                let text = match args.output {
                    Form::Text => line::text(&finding.workload, decision),
                    Form::Json => line::json(&finding.workload, decision).context("writing JSON")?,
                };
                print(&text)?;
                self.shown += 1;
                if args.count.is_some_and(|count| self.shown >= count) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// What a person should know at the end; on standard error, so that a program's lines stay lines.
    fn close(&self) {
        if self.beside.asked.sidecars == 0 {
            self.beside.lines(&self.namespace).iter().for_each(|line| say(line));
        }
        if self.missing > 0 {
            say(&format!(
                "{} more matched and were not shown: narrow the filter, or raise --max-rate",
                self.missing
            ));
        }
    }
}

fn say(text: &str) {
    use std::io::Write as _;
    // Who closed standard error does not want to know.
    let _ = writeln!(std::io::stderr(), "weft: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read() {
        for (text, range) in [("404", (404, 404)), ("5xx", (500, 599)), ("400-403", (400, 403))] {
            assert_eq!(status(text), Ok(range), "{text}");
        }
        for text in ["", "6xx", "99", "xx", "500-400", "40x", "-"] {
            assert!(status(text).is_err(), "{text}");
        }
    }
}
