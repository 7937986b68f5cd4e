//! `weft-proxy`: the sidecar as a program of its own.

use clap::{Parser, Subcommand};
use weft_proxy::init::{self, InitArgs};
use weft_proxy::settings::RunArgs;
use weft_proxy::wait::{self, WaitArgs};

/// Gives memory back soon after a burst. Source: measured; an idle process holds a third of what the
/// system's allocator leaves it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The Weft sidecar.
#[derive(Debug, Parser)]
#[command(name = "weft-proxy", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve as the sidecar of one workload.
    Run(Box<RunArgs>),
    /// Program the redirection of a pod's traffic, once, before its sidecar starts.
    Init(Box<InitArgs>),
    /// Wait until the sidecar beside this process is ready.
    Wait(WaitArgs),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().verb {
        Verb::Run(args) => weft_proxy::app::run(*args),
        Verb::Init(args) => init::run(*args),
        Verb::Wait(args) => wait::run(&args),
    }
}
