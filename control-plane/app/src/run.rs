//! Runs a command line from start to signal.
//!
//! Invariant: one line on standard output says where the control plane can be reached, once it serves
//! a good state; everything else is the log's, on standard error.

use std::io::Write as _;

use anyhow::Context as _;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::ControlPlane;
use crate::args::{Args, Command, RunArgs};
use crate::files;
use crate::log::LogLevel;

/// Where the control plane is, for machines.
#[derive(Serialize)]
struct Ready {
    event: &'static str,
    grpc: String,
    admin: String,
}

/// Does what the command line says, until a signal ends it.
///
/// # Errors
/// A setting cannot be used; the message says which.
pub fn run(args: Args) -> anyhow::Result<()> {
    let Command::Run(args) = args.command;
    let log = LogLevel::start(&args.log).context("--log")?;
    if args.exit_with_parent {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .context("binding this process's life to its parent's")?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(serve(&args, log));
    // What is still busy reading a slow disk must not hold up the end.
    runtime.shutdown_background();
    outcome
}

async fn serve(args: &RunArgs, log: LogLevel) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    let mut control_plane = tokio::select! {
        started = ControlPlane::start(args, log) => started?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let (grpc, admin) = (control_plane.grpc.to_string(), control_plane.admin.to_string());
    tracing::info!(grpc, admin, "listening");
    let ready = Ready { event: "ready", grpc, admin };
    tokio::select! {
        () = async {
            control_plane.ready().await;
            if let Err(error) = announce(args, &ready) {
                tracing::error!(%error, "readiness was not announced");
            }
            std::future::pending::<()>().await;
        } => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    control_plane.shutdown().await;
    Ok(())
}

fn on(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("signals cannot be received")
}

fn announce(args: &RunArgs, ready: &Ready) -> anyhow::Result<()> {
    let line = format!("{}\n", serde_json::to_string(ready)?);
    if let Some(path) = &args.ready_file {
        files::write_atomically(path, line.as_bytes(), 0o644)?;
    }
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()?;
    Ok(())
}
