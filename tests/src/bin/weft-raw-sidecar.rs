//! `weft-raw-sidecar FLAGS...`: the sidecar alone, as a process that a test may abuse and end.
//!
//! Invariant: it is the product's own run, with the flags of `weft-proxy run`.

use clap::Parser;
use weft_proxy::settings::RunArgs;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    run: RunArgs,
}

fn main() -> anyhow::Result<()> {
    weft_proxy::app::run(Cli::parse().run)
}
