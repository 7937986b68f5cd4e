//! `weft-dev`: what `cargo dev` runs; see `cargo dev --help`.
//!
//! Invariant: nothing is decided here; each verb runs the library that stands behind it.

use clap::Parser as _;

fn main() -> anyhow::Result<()> {
    weft_cluster::dev::Dev::parse().run()
}
