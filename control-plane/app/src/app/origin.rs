//! Where the facts, the authority and the proofs of callers come from: a folder and its files, or a
//! cluster.
//!
//! Before it: the command line. After it: everything else of the control plane is the same for both.
//!
//! Invariant: one of the two, from the start to the end of the process.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use weft_exposition::handles::Registry;

use crate::args::RunArgs;
use crate::authority::{Authority, AuthoritySettings};
use crate::certify::{Accounts, Proofs};
use crate::kubernetes::chores::{Chores, Running};
use crate::kubernetes::counts::Counts;
use crate::kubernetes::events::Events;
use crate::kubernetes::feed::Feed;
use crate::kubernetes::feed::facts::Facts;
use crate::kubernetes::roll::Roll;
use crate::kubernetes::source::Source;
use crate::kubernetes::{Cluster, Observing, Shared};
use crate::metrics::Metrics;
use crate::publish::{self, Reader};
use crate::reload::Reload;
use crate::status::Status;
use crate::take::Take;
use crate::token_review::TokenReviewer;
use crate::tokens::Tokens;
use crate::watch::Watch;

/// Where everything comes from, before anything of it is read.
pub(super) enum Origin {
    Folder { path: PathBuf, tokens: Arc<Mutex<Tokens>> },
    Cluster { cluster: Box<Cluster>, roll: Roll, chores: Box<Chores> },
}

/// What brings facts, running.
pub(super) enum Watching {
    Folder(Watch),
    Cluster(Source, Running),
}

impl Origin {
    /// Opens the folder's files, or connects to the cluster.
    pub(super) async fn open(
        args: &RunArgs,
        registry: &mut Registry,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        if let Some(path) = &args.manifests {
            let tokens = Tokens::open(args.join_tokens.as_deref(), args.state.as_deref());
            let tokens = tokens.map_err(|reason| anyhow::anyhow!("join tokens: {reason}"))?;
            return Ok(Self::Folder { path: path.clone(), tokens: Arc::new(Mutex::new(tokens)) });
        }
        anyhow::ensure!(args.cluster.kubernetes, "one of --manifests and --kubernetes is needed");
        anyhow::ensure!(
            args.join_tokens.is_none() && args.state.is_none(),
            "--join-tokens and --state are for a folder; in a cluster pods prove themselves, and the root is in \
             a Secret"
        );
        let cluster = Cluster::connect(&args.cluster, args.admin.port()).await?;
        let counts = Counts::register(registry);
        let chores = Box::new(Chores::begin(cluster.clone(), &args.trust_domain, &counts, stop));
        Ok(Self::Cluster { cluster: Box::new(cluster), roll: Roll::default(), chores })
    }

    /// The authority; in a cluster all replicas share one, and the first makes it.
    pub(super) async fn authority(&mut self, args: &RunArgs) -> anyhow::Result<Arc<Authority>> {
        let settings = AuthoritySettings {
            state: args.state.clone(),
            trust_domain: args.trust_domain.clone(),
            intermediate: args.intermediate,
            leaf_life: args.certificate_life,
        };
        match self {
            Self::Folder { .. } => Authority::open(&settings).map(Arc::new).map_err(anyhow::Error::from),
            Self::Cluster { chores, .. } => chores.authority(&settings).await,
        }
        .context("the certificate authority cannot start")
    }

    /// How callers prove who they are.
    pub(super) fn proofs(&self, reader: Reader) -> Proofs {
        match self {
            Self::Folder { tokens, .. } => {
                let accounts: Accounts = Arc::new(move |workload| {
                    let published = reader.borrow().clone()?;
                    publish::account(&published, workload).map(str::to_owned)
                });
                Proofs::JoinTokens(Arc::clone(tokens), accounts)
            }
            Self::Cluster { cluster, roll, .. } => {
                Proofs::TokenReview(TokenReviewer::new(cluster.client.clone(), roll.clone()))
            }
        }
    }

    /// Where notes for people go; nowhere from a folder.
    pub(super) fn events(&self) -> Events {
        match self {
            Self::Folder { .. } => Events::nowhere(),
            Self::Cluster { chores, .. } => chores.events(),
        }
    }

    /// Begins to bring facts.
    pub(super) fn begin(self, take: Take, parts: Parts<'_>) -> anyhow::Result<Watching> {
        match self {
            Self::Folder { path, .. } => {
                let mut reload = Reload::new(&path, parts.authority.trust_domain(), take);
                let look = move |cause, settled, noticed| reload.look(cause, settled, noticed);
                Ok(Watching::Folder(Watch::start(&path, look)?))
            }
            Self::Cluster { cluster, roll, chores } => {
                let shared = Shared {
                    authority: Arc::clone(parts.authority),
                    roll: roll.clone(),
                    reader: parts.reader,
                    reports: take.reports(),
                    status: parts.status,
                    metrics: parts.metrics.clone(),
                    looking: parts.looking,
                    stop: parts.stop,
                };
                let (running, recheck) = chores.start(&shared)?;
                let facts = Facts::new(&cluster.namespace, parts.authority.trust_domain(), roll)
                    .rechecked_by(recheck);
                let watching = parts.metrics.watching;
                let feed = Feed::new(facts, take, watching.clone());
                Ok(Watching::Cluster(Source::start(cluster.config, feed, watching)?, running))
            }
        }
    }
}

/// What those who bring facts, and those who work beside them, share with the rest.
pub(super) struct Parts<'a> {
    pub(super) authority: &'a Arc<Authority>,
    pub(super) reader: Reader,
    pub(super) status: Arc<Status>,
    pub(super) metrics: Metrics,
    pub(super) looking: Observing,
    pub(super) stop: CancellationToken,
}

impl Watching {
    /// Stops, and waits for what must be left in order.
    pub(super) async fn stop(&mut self, patience: Duration) {
        match self {
            Self::Folder(watch) => watch.stop(),
            Self::Cluster(source, running) => {
                running.ended(patience).await;
                source.stop();
            }
        }
    }
}
