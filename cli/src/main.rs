//! `weft`: the one command a person types. `weft proxy` and `weft control-plane` are the two planes'
//! own programs; `weft demo` runs a whole mesh on this machine and shows what it does.
//!
//! Invariant: nothing is decided here; each verb runs the library that stands behind it.

mod demo;
mod inject;
mod install;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use weft_proxy::init::{self, InitArgs};
use weft_proxy::settings::RunArgs;

/// Gives memory back soon after a burst. Source: measured; an idle sidecar holds a third of what the
/// system's allocator leaves it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Weft, a service mesh.
#[derive(Debug, Parser)]
#[command(name = "weft", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a mesh of four services on this machine, and watch it work.
    Demo(demo::DemoArgs),
    /// Print what an installation on Kubernetes is made of, for kubectl apply.
    Install(install::InstallArgs),
    /// Add sidecars to manifests, as the mesh's webhook would to their pods.
    Inject(inject::InjectArgs),
    /// Take the sidecars out of manifests again.
    Uninject(inject::UninjectArgs),
    /// The sidecar.
    #[command(subcommand)]
    Proxy(Proxy),
    /// The control plane.
    ControlPlane(Box<weft_control_plane::Args>),
    /// One of the demo's services.
    #[command(hide = true)]
    DemoService(demo::shop::ServiceArgs),
    /// One request, as one of the demo's services would send it.
    #[command(hide = true)]
    DemoGet(demo::FetchArgs),
}

#[derive(Debug, Subcommand)]
enum Proxy {
    /// Serve as the sidecar of one workload.
    Run(Box<RunArgs>),
    /// Program the redirection of a pod's traffic, once, before its sidecar starts.
    Init(Box<InitArgs>),
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What went wrong and why, in one line; a backtrace would hide it.
            let _ = writeln!(std::io::stderr(), "weft: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Demo(args) => demo::run(args),
        Verb::Install(args) => install::run(&args),
        Verb::Inject(args) => inject::run(&args),
        Verb::Uninject(args) => inject::undo(&args),
        Verb::Proxy(Proxy::Run(args)) => weft_proxy::app::run(*args),
        Verb::Proxy(Proxy::Init(args)) => init::run(*args),
        Verb::ControlPlane(args) => weft_control_plane::run(*args),
        Verb::DemoService(args) => demo::serve(args),
        Verb::DemoGet(args) => demo::fetch(&args),
    }
}
