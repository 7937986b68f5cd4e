//! `weft stat`: golden signals of every edge, as the sidecars count them; no Prometheus is needed.
//!
//! Each edge is shown as both ends see it: the client's sidecar counts what its application waits for, retries
//! included; the server's what arrives.
//!
//! Invariant: what is shown was counted just now; who did not answer is said.

mod page;
mod watch;

use std::time::Duration;

use anyhow::Context as _;
use weft_proto::v1;
use weft_proto::v1::finding::Found;
use weft_proto::v1::question::What;

use crate::cluster::block_on;
use crate::install::print;
use crate::observe::{self, Beside, Mesh, MeshArgs, Target};
use page::Shape;
pub(crate) use page::millis;

/// What to show, and of which mesh.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StatArgs {
    /// About whom: KIND, KIND/NAME or KIND/NAME.NAMESPACE, of deploy, pod, svc and ns. Default: every edge of
    /// the namespace, by workload.
    #[arg(value_name = "KIND/NAME")]
    about: Option<Target>,
    /// Only edges to there.
    #[arg(long, value_name = "KIND/NAME")]
    to: Option<Target>,
    /// Only edges from here.
    #[arg(long, value_name = "KIND/NAME")]
    from: Option<Target>,
    #[command(flatten)]
    mesh: MeshArgs,
    /// Form of the answer.
    #[arg(long, short, value_enum, default_value_t = Shape::Text)]
    output: Shape,
    /// Ask again and again; on a terminal the table stays in place, and q ends it.
    #[arg(long, short)]
    watch: bool,
    /// Seconds between two questions of --watch.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
}

/// One answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Answer {
    /// Namespace that was asked; empty: all.
    pub(crate) namespace: String,
    pub(crate) edges: v1::Edges,
    pub(crate) beside: Beside,
}

/// A question that may be asked again.
pub(crate) struct Asking {
    mesh: Mesh,
    question: v1::Question,
}

impl Asking {
    async fn open(args: &StatArgs) -> anyhow::Result<Self> {
        let mesh = args.mesh.open().await?;
        let stat = v1::StatQuestion {
            by: observe::by(args.about.as_ref()).to_owned(),
            from: observe::end(args.from.as_ref()),
            to: observe::end(args.to.as_ref()),
        };
        let question = v1::Question {
            namespace: args.mesh.namespace(&mesh, args.about.as_ref()),
            subject: observe::end(args.about.as_ref()),
            relayed: false,
            what: Some(What::Stat(stat)),
        };
        Ok(Self { mesh, question })
    }

    /// Asks once.
    pub(crate) async fn ask(&self) -> anyhow::Result<Answer> {
        let mut findings = self.mesh.ask(self.question.clone()).await?;
        let mut answer = Answer { namespace: self.question.namespace.clone(), ..Answer::default() };
        while let Some(finding) = findings.next().await? {
            if let Some(Found::Edges(edges)) = finding.found.and_then(|found| answer.beside.note(found)) {
                answer.edges = edges;
            }
        }
        Ok(answer)
    }
}

/// Asks, and prints the answer.
pub(crate) fn run(args: &StatArgs) -> anyhow::Result<()> {
    block_on(async {
        let asking = Asking::open(args).await?;
        if args.watch && args.output != Shape::Json && watch::is_possible() {
            return watch::run(&asking, Duration::from_secs(args.every), args.output).await;
        }
        loop {
            let answer = asking.ask().await?;
            print(&page::render(&answer, args.output).context("writing the answer")?)?;
            if !args.watch {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_secs(args.every)).await;
        }
    })
}
