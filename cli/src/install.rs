//! `weft install`: what an installation is made of, as YAML on standard output.
//!
//! `weft install | kubectl apply --server-side -f -`. The chart inside this binary is rendered; no
//! cluster is asked, so the same flags give the same text anywhere.
//!
//! Invariant: nothing is decided here; the chart says what there is, `weft-k8s` renders it.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use weft_k8s::chart::{self, Part, Values};

/// Namespace of the control plane. Source: the chart's; sidecars look for it there.
const NAMESPACE: &str = "weft-system";

/// Settings of an installation.
#[derive(Debug, Clone, Args)]
pub(crate) struct InstallArgs {
    /// Namespace of the control plane.
    #[arg(long, short, value_name = "NAME", default_value = NAMESPACE)]
    namespace: String,
    /// Several replicas that stay apart from each other, and pods that wait rather than start without a
    /// sidecar.
    #[arg(long)]
    ha: bool,
    /// A value of the chart, e.g. replicas=2 or proxy.resources.cpuRequest=20m. Repeatable.
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// A file of values (YAML). Repeatable; later files and --set win.
    #[arg(long, short = 'f', value_name = "FILE")]
    values: Vec<PathBuf>,
    /// Only the definitions of the kinds.
    #[arg(long, conflicts_with = "skip_crds")]
    crds_only: bool,
    /// Everything but the definitions of the kinds.
    #[arg(long)]
    skip_crds: bool,
}

/// Prints the objects.
pub(crate) fn run(args: &InstallArgs) -> anyhow::Result<()> {
    let mut values = Values { ha: args.ha, ..Values::default() };
    give(&mut values, &args.values, &args.set)?;
    let part = match (args.crds_only, args.skip_crds) {
        (true, _) => Part::Crds,
        (_, true) => Part::WithoutCrds,
        _ => Part::All,
    };
    print(&chart::install(&args.namespace, &values, part)?)
}

/// Adds files and single values to what was given before.
fn give(values: &mut Values, files: &[PathBuf], set: &[String]) -> anyhow::Result<()> {
    for file in files {
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        values.file(&text).with_context(|| file.display().to_string())?;
    }
    for set in set {
        values.set(set).context("--set")?;
    }
    Ok(())
}

/// Writes to standard output; a reader that has seen enough is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("writing to standard output"),
    }
}
