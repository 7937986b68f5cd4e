//! `cargo dev conformance`: the Gateway API's own suite against Weft on a cluster made for it.
//!
//! Invariant: succeeds only if every mesh test of the suite ran and passed, or the one that was asked for.

use std::path::PathBuf;

use clap::Args;

use crate::cluster::{Cluster, Options, ProxyMode};
use crate::conformance::{Outcome, Run, TESTS};
use crate::mesh::Programs;

/// Arguments of `cargo dev conformance`.
#[derive(Debug, Args)]
pub(super) struct ConformanceArgs {
    /// Where the suite's report goes.
    #[arg(long, value_name = "FILE", default_value = "target/conformance.yaml")]
    report: PathBuf,
    /// Right answers in a row that make a check pass, instead of the suite's 3.
    #[arg(long, value_name = "N")]
    successes: Option<u32>,
    /// Only one test, e.g. MeshBasic.
    #[arg(long, value_name = "TEST")]
    only: Option<String>,
    /// Without Weft: what a cluster does by itself.
    #[arg(long)]
    no_mesh: bool,
    /// Build Weft in this profile.
    #[arg(long, default_value = "dev")]
    profile: String,
}

impl ConformanceArgs {
    pub(super) fn run(self) -> anyhow::Result<()> {
        if let Some(reason) = crate::skip::missing() {
            anyhow::bail!(reason);
        }
        let report = std::path::absolute(&self.report)?;
        if let Some(folder) = report.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let log = report.with_extension("log");
        let options = Options {
            proxy_mode: ProxyMode::default(),
            ..Options::new(&format!("suite-{}", std::process::id()))
        };
        let programs = (!self.no_mesh).then(|| Programs::build(&self.profile)).transpose()?;
        let cluster = Cluster::start(&options)?;
        cluster.install_gateway_api()?;
        let mut labels = Vec::new();
        if let Some(programs) = programs {
            cluster.install_weft(&programs, &[])?;
            labels.push("weft.dev/inject=enabled".to_owned());
        }
        let expected = if self.only.is_some() { 1 } else { TESTS };
        let run = Run { report: Some(report.clone()), successes: self.successes, only: self.only, labels };
        let summary = cluster.conformance(&run, &log)?;
        super::say(&summary.to_string())?;
        super::say(&format!("report: {}\nlog:    {}", report.display(), log.display()))?;
        if !summary.succeeded || summary.count(Outcome::Passed) != expected {
            anyhow::bail!("not every one of {expected} tests passed");
        }
        Ok(())
    }
}
