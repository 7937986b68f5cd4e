//! `weft-dev`: what `cargo dev` runs; see `cargo dev --help`.
//!
//! Invariant: nothing is decided here; each verb runs the library that stands behind it.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let Err(error) = weft_cluster::dev::Dev::parse().run() else { return ExitCode::SUCCESS };
    // Not through `Debug`, which adds the steps of this program's stack to what the cluster says.
    let _ = writeln!(std::io::stderr(), "Error: {error:#}");
    ExitCode::FAILURE
}
