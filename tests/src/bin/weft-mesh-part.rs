//! `weft-mesh-part`: one process of a mesh under test, a sidecar or the control plane, by the same
//! libraries and with the same arguments as the real program.
//!
//! Invariant: nothing is decided here, so what a scenario shows of this program is true of `weft`.

use clap::Parser;
use weft_proxy::settings::RunArgs;

/// As in the real program: what a scenario says about memory is said about this allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Debug, Parser)]
enum Part {
    /// A sidecar.
    Proxy(Box<RunArgs>),
    /// The control plane.
    ControlPlane(Box<weft_control_plane::RunArgs>),
}

fn main() -> anyhow::Result<()> {
    match Part::parse() {
        Part::Proxy(args) => weft_proxy::app::run(*args),
        Part::ControlPlane(args) => {
            let command = weft_control_plane::Command::Run(*args);
            weft_control_plane::run(weft_control_plane::Args { command })
        }
    }
}
