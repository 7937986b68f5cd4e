//! `weft demo`: a mesh on this machine, as real processes on loopback, and a script that uses it.
//!
//! Invariant: nothing outlives the demo, and everything it writes is in one folder.

mod fetch;
mod fleet;
mod jaeger;
mod place;
mod script;
pub(crate) mod shop;
mod table;
mod traffic;

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

pub(crate) use fetch::FetchArgs;
use fleet::Fleet;
use jaeger::Jaeger;
use place::Block;

/// Settings of the demo.
#[derive(Debug, Clone, Args)]
pub(crate) struct DemoArgs {
    /// Run the script once without a terminal, say what was expected and what was seen, and fail where
    /// they differ.
    #[arg(long)]
    once: bool,
    /// Send traces to this OTLP collector (gRPC), e.g. http://127.0.0.1:4317.
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// Start a Jaeger 2 beside it, send it the traces, and read one back. Without a path: the one in PATH, or
    /// the one that `cargo dev parts jaeger` built.
    #[arg(long, value_name = "BINARY", num_args = 0..=1, default_missing_value = "", conflicts_with = "otlp")]
    jaeger: Option<PathBuf>,
    /// Keep manifests and logs in this folder. Default: a new one under the system's temporary folder,
    /// removed at the end.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Runs one of the demo's services.
pub(crate) fn serve(args: shop::ServiceArgs) -> anyhow::Result<()> {
    if std::env::var_os("WEFT_EXIT_WITH_PARENT").is_some() {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    }
    runtime()?.block_on(shop::serve(args))
}

/// Asks once, from where this runs.
pub(crate) fn fetch(args: &FetchArgs) -> anyhow::Result<()> {
    let body = runtime()?.block_on(fetch::fetch(args))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{body}").context("writing to standard output")
}

/// Runs the demo.
pub(crate) fn run(args: DemoArgs) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let mut interrupted = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            done = demo(args) => done,
            _ = interrupted.recv() => anyhow::bail!("interrupted; every process of the demo was ended"),
            _ = terminated.recv() => anyhow::bail!("told to end; every process of the demo was ended"),
        }
    })
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting a runtime")
}

async fn demo(args: DemoArgs) -> anyhow::Result<()> {
    let block = Block::find()?;
    let temporary = args.folder.is_none();
    let folder =
        args.folder.unwrap_or_else(|| std::env::temp_dir().join(format!("weft-demo-{}", std::process::id())));
    let cleared = Cleared { folder: folder.clone(), temporary };
    let mut manifests = block.write_manifests(&folder.join("manifests"))?;
    let mut jaeger = None;
    if let Some(program) = &args.jaeger {
        jaeger = Some(Jaeger::start(program, block, &folder).await?);
        manifests.push(block.write_manifest(&folder.join("manifests"), place::TO_JAEGER)?);
    }
    script::introduce(&manifests)?;
    let mut fleet = Fleet::start(block, &folder, args.otlp).await?;
    fleet.jaeger = jaeger;
    let failed = if args.once { script::once(&mut fleet).await } else { script::live(&mut fleet).await };
    fleet.stop().await;
    drop(cleared);
    match failed? {
        0 => Ok(()),
        failed => anyhow::bail!("{failed} step(s) differ from what was expected"),
    }
}

/// Removes the demo's folder at the end, when it is temporary.
struct Cleared {
    folder: PathBuf,
    temporary: bool,
}

impl Drop for Cleared {
    fn drop(&mut self) {
        if self.temporary {
            // What cannot be removed is in the temporary folder and does no harm.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
