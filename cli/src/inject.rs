//! `weft inject` and `weft uninject`: manifests in, the same manifests with or without sidecars out.
//!
//! What is decided is the injector's, which the webhook asks too; here are files, the cluster's settings
//! and words. A document that is not changed comes out letter by letter as it went in.
//!
//! Invariant: standard output holds manifests and nothing else; what became of each is told on standard
//! error.

mod documents;
mod settings;
mod walk;

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use weft_control_plane_core::inject::{self as injector, Decision};

use crate::cluster::ConnectArgs;
use documents::Output;
use walk::{Change, Told};

/// Largest input. Source: Weft's own; a hundred times what a large installation is written in.
const INPUT: u64 = 256 * 1024 * 1024;

/// Settings of `weft inject`.
#[derive(Debug, Clone, Args)]
pub(crate) struct InjectArgs {
    /// Manifests (YAML or JSON); "-" is standard input. Repeatable.
    #[arg(long = "filename", short = 'f', visible_alias = "file", value_name = "FILE", required = true)]
    file: Vec<PathBuf>,
    /// The injector's settings (injector.yaml). Default: ConfigMap weft-injector of the cluster.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The mesh's roots (PEM). Default: ConfigMap weft-trust of the cluster.
    #[arg(long, value_name = "FILE")]
    trust_anchors: Option<PathBuf>,
    /// Namespace of the control plane, where the ConfigMaps are.
    #[arg(long, value_name = "NAME", default_value = "weft-system")]
    control_plane_namespace: String,
    #[command(flatten)]
    connect: ConnectArgs,
    /// Form of the documents that are changed.
    #[arg(long, short = 'o', value_enum, default_value_t = Form::Yaml)]
    output: Form,
}

/// Settings of `weft uninject`.
#[derive(Debug, Clone, Args)]
pub(crate) struct UninjectArgs {
    /// Manifests (YAML or JSON); "-" is standard input. Repeatable.
    #[arg(long = "filename", short = 'f', visible_alias = "file", value_name = "FILE", required = true)]
    file: Vec<PathBuf>,
    /// Form of the documents that are changed.
    #[arg(long, short = 'o', value_enum, default_value_t = Form::Yaml)]
    output: Form,
}

/// Form of the documents that are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// YAML.
    Yaml,
    /// JSON, one document a line; which is YAML too.
    Json,
}

/// Adds sidecars.
pub(crate) fn run(args: &InjectArgs) -> anyhow::Result<()> {
    let at = settings::Place { connect: &args.connect, namespace: &args.control_plane_namespace };
    let injector = settings::injector(args.config.as_deref(), args.trust_anchors.as_deref(), at)?;
    each(&args.file, args.output, &|pod, namespace| match injector.decide(pod, &walk::asking(namespace)) {
        Decision::Inject(injected) => Change::To(injected.pod, "injected".to_owned(), injected.warnings),
        Decision::Skip(skip) => Change::Skipped(skip.text().to_owned()),
        Decision::Refuse(reason) => Change::Refused(reason),
    })
}

/// Removes sidecars.
pub(crate) fn undo(args: &UninjectArgs) -> anyhow::Result<()> {
    each(&args.file, args.output, &|pod, _| match injector::remove(pod) {
        Some(pod) => Change::To(pod, "sidecar removed".to_owned(), Vec::new()),
        None => Change::Skipped("it has no sidecar of the injector's".to_owned()),
    })
}

fn each(files: &[PathBuf], form: Form, change: &walk::Changing<'_>) -> anyhow::Result<()> {
    let (mut output, mut told) = (Output::new(form), Told::default());
    for file in files {
        let text = read(file)?;
        let name = file.display().to_string();
        for document in documents::split(&text) {
            let value = document.value(&name)?;
            let mut changed = value.clone();
            walk::walk(&mut changed, change, &mut told);
            if changed == value { output.as_it_was(document.text) } else { output.changed(&changed)? }
        }
    }
    print(&output.text)?;
    let mut errors = std::io::stderr().lock();
    errors.write_all(told.to_string().as_bytes()).context("writing to standard error")?;
    anyhow::ensure!(told.refused == 0, "{} could not be changed, see above; the rest was", told.refused);
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().take(INPUT).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|opened| opened.take(INPUT).read_to_string(&mut text))
    };
    read.with_context(|| format!("reading {}", file.display()))?;
    anyhow::ensure!((text.len() as u64) < INPUT, "{} is too long", file.display());
    Ok(text)
}

/// Writes to standard output; a reader that has seen enough is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("writing to standard output"),
    }
}

#[cfg(test)]
mod tests;
