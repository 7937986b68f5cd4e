//! `weft check`: whether a cluster can take Weft (`--pre`), and whether all is well with it.
//!
//! ```text
//! cluster ─kubernetes→ versions, Gateway API, permissions
//!         ─installed→  kinds, replicas, leader, roots, webhook, settings
//!         ─trial→      a pod that asks for a sidecar gets one (dry run)
//!         ─mesh→       sidecars: versions, certificates, configuration; pods without one; what is refused
//!         ─objects→ lints: policies that see nothing, targets that mean nothing, guessed protocols
//! stand-alone control plane ─standalone→ mesh      folder of manifests ─manifests→ lints
//! ```
//!
//! Invariant: nothing is written (the trial is a dry run); each finding that is not well says what to do.
//! Invariant: the exit code is 0 exactly when nothing failed; a warning is no failure, unless asked for.
//! Invariant: what may get well by itself, as everything does after a rollout, is waited for.

mod facts;
mod installed;
mod kubernetes;
mod manifests;
mod mesh;
mod objects;
mod standalone;
mod trial;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use serde::Serialize;
use tokio::time::Instant;

use crate::cluster::{self, ClusterArgs};
use crate::{Form, install};

/// Time between two looks while waiting. Source: a look takes some ten requests.
const PAUSE: Duration = Duration::from_secs(1);

/// What to look at.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Exit status: 0 when nothing failed, 1 when something did or could not be looked at.\n\
                        Warnings do not fail, unless --strict is given."
)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Before the installation: whether the cluster can take it, and whether you may make it.
    #[arg(long)]
    pre: bool,
    /// Look at a folder of manifests, and at no cluster.
    #[arg(long, value_name = "FOLDER", conflicts_with = "pre")]
    manifests: Option<PathBuf>,
    /// Look at a stand-alone control plane, http://HOST:PORT of its administrator's port, and at no cluster.
    #[arg(long, value_name = "URL", conflicts_with = "pre")]
    control_plane_admin: Option<String>,
    /// Warnings fail too.
    #[arg(long)]
    strict: bool,
    /// How long to wait for what fails now and may get well by itself, as after a rollout; 0s: not at all.
    /// Nothing is waited for with --pre.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = span)]
    wait: Duration,
    /// Form of the answer.
    #[arg(long, short, value_enum, default_value_t = Form::Text)]
    output: Form,
}

/// How it stands with something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warning,
    Failed,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    area: &'static str,
    check: &'static str,
    state: State,
    detail: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    remedy: String,
    /// The object that it is about, where it is about one.
    #[serde(skip_serializing_if = "String::is_empty")]
    object: String,
    /// Where that is written, `file:line`.
    #[serde(skip_serializing_if = "String::is_empty")]
    place: String,
}

impl Finding {
    /// Whether it fails, and time may mend it: not the cluster's version, nor that nothing is installed.
    fn may_pass(&self) -> bool {
        self.state == State::Failed && self.area != kubernetes::AREA && self.check != installed::INSTALLED
    }
}

/// The findings of one area.
#[derive(Debug)]
struct Findings {
    area: &'static str,
    list: Vec<Finding>,
}

impl Findings {
    fn of(area: &'static str) -> Self {
        Self { area, list: Vec::new() }
    }

    fn add(&mut self, check: &'static str, state: State, detail: String, remedy: &str) {
        let (object, place) = (String::new(), String::new());
        self.list.push(Finding {
            area: self.area,
            check,
            state,
            detail,
            remedy: remedy.to_owned(),
            object,
            place,
        });
    }

    fn ok(&mut self, check: &'static str, detail: impl Into<String>) {
        self.add(check, State::Ok, detail.into(), "");
    }

    fn warn(&mut self, check: &'static str, detail: impl Into<String>, remedy: &str) {
        self.add(check, State::Warning, detail.into(), remedy);
    }

    fn fail(&mut self, check: &'static str, detail: impl Into<String>, remedy: &str) {
        self.add(check, State::Failed, detail.into(), remedy);
    }
}

/// Looks, prints, and fails where something did.
pub(crate) fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let findings = cluster::block_on(async {
        match (&args.manifests, &args.control_plane_admin) {
            (None, None) => settled(args).await,
            (folder, admin) => without_cluster(args, folder.as_deref(), admin.as_deref()).await,
        }
    })?;
    let failed = failed(args, &findings);
    let text = match args.output {
        Form::Text => render(&findings),
        Form::Json => serde_json::to_string_pretty(&findings).context("writing JSON")? + "\n",
    };
    install::print(&text)?;
    anyhow::ensure!(failed == 0, "{failed} of {} checks failed", findings.len());
    Ok(())
}

/// How many findings make the verb fail.
fn failed(args: &CheckArgs, findings: &[Finding]) -> usize {
    let fails = |finding: &&Finding| match finding.state {
        State::Ok => false,
        State::Warning => args.strict,
        State::Failed => true,
    };
    findings.iter().filter(fails).count()
}

fn span(text: &str) -> Result<Duration, String> {
    weft_k8s::Duration::parse(text).map(Duration::from)
}

/// A folder, a stand-alone control plane, or both.
async fn without_cluster(
    args: &CheckArgs,
    folder: Option<&Path>,
    admin: Option<&str>,
) -> anyhow::Result<Vec<Finding>> {
    let mut findings = folder.map(manifests::look).transpose()?.unwrap_or_default();
    if let Some(admin) = admin {
        findings.extend(waited(args, async || standalone::look(admin).await).await?);
    }
    Ok(findings)
}

/// A cluster.
async fn settled(args: &CheckArgs) -> anyhow::Result<Vec<Finding>> {
    let client = args.cluster.client().await?;
    waited(args, async || look(&client, args).await).await
}

/// Looks until nothing fails that may get well by itself, or the time is over.
async fn waited(
    args: &CheckArgs,
    look: impl AsyncFn() -> anyhow::Result<Vec<Finding>>,
) -> anyhow::Result<Vec<Finding>> {
    let end = Instant::now() + args.wait;
    let mut said = false;
    loop {
        let findings = look().await?;
        let failing: Vec<&str> =
            findings.iter().filter(|finding| finding.may_pass()).map(|finding| finding.check).collect();
        if args.pre || failing.is_empty() || Instant::now() >= end {
            return Ok(findings);
        }
        if !std::mem::replace(&mut said, true) {
            let (seconds, failing) = (args.wait.as_secs(), failing.join(", "));
            // Who cannot hear it waits all the same.
            let _ = writeln!(std::io::stderr(), "weft: waiting up to {seconds} s for: {failing}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn look(client: &Client, args: &CheckArgs) -> anyhow::Result<Vec<Finding>> {
    let namespace = &args.cluster.namespace;
    let mut findings = kubernetes::versions(client).await?.list;
    if args.pre {
        findings.extend(kubernetes::permissions(client, namespace).await?.list);
        return Ok(findings);
    }
    let installation = facts::Installation::read(client, namespace).await?;
    findings.extend(installed::control_plane(&installation, namespace).list);
    findings.extend(installed::trust(&installation, k8s_openapi::jiff::Timestamp::now().as_second()).list);
    if installation.deployment.is_some() {
        findings.extend(trial::look(client, namespace, &installation).await.list);
        findings.extend(mesh::look(client, namespace, &installation).await.list);
        findings.extend(objects::look(client).await);
    }
    Ok(findings)
}

/// The findings, for a person.
fn render(findings: &[Finding]) -> String {
    let mut out = String::new();
    let mut area = "";
    for finding in findings {
        if finding.area != area {
            let gap = if area.is_empty() { "" } else { "\n" };
            let _ = writeln!(out, "{gap}{}", finding.area);
            area = finding.area;
        }
        let mark = match finding.state {
            State::Ok => "ok  ",
            State::Warning => "warn",
            State::Failed => "FAIL",
        };
        let _ = writeln!(out, "  {mark}  {}: {}", finding.check, finding.detail);
        if !finding.remedy.is_empty() {
            let _ = writeln!(out, "        {}", finding.remedy);
        }
    }
    out
}

#[cfg(test)]
mod tests;
