//! The control plane as a program of its own.
//!
//! Invariant: nothing is decided here; `weft control-plane` runs the very same library.

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> anyhow::Result<()> {
    weft_control_plane::run(weft_control_plane::Args::parse())
}
