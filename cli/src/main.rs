//! `weft`: the one command a person types. `weft proxy` and `weft control-plane` are the two planes'
//! own programs; `weft demo` runs a whole mesh on this machine and shows what it does.
//!
//! Invariant: nothing is decided here; each verb runs the library that stands behind it.

mod check;
mod cluster;
mod demo;
mod explain;
mod folder;
mod inject;
mod install;
mod observe;
mod stat;
mod status;
mod table;
mod tap;
mod uninstall;
mod upgrade;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use weft_proxy::dial::chain;
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
    /// Print what this version's installation is made of, with the values that the cluster's was given.
    Upgrade(upgrade::UpgradeArgs),
    /// Print what to delete, for kubectl delete.
    Uninstall(uninstall::UninstallArgs),
    /// Look whether a cluster can take Weft, and whether all is well with it.
    Check(check::CheckArgs),
    /// Tell why a request goes where it goes, or is refused.
    Explain(Box<explain::ExplainArgs>),
    /// Show the control plane and the sidecars as they are now.
    Status(status::StatusArgs),
    /// Show who talks to whom, how much, how fast, how well and how safely, live from the sidecars.
    Stat(Box<stat::StatArgs>),
    /// Show requests and connections as they end, live from the sidecars.
    Tap(Box<tap::TapArgs>),
    /// Print completions for a shell, e.g. `source <(weft completions bash)`.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print this program's version.
    Version,
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

/// Form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// For a person.
    Text,
    /// For a program.
    Json,
}

/// What a shell reads to complete the command.
fn completions(shell: clap_complete::Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "weft", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What went wrong and why, in one line; a backtrace would hide it.
            let _ = writeln!(std::io::stderr(), "weft: {}", chain(error.as_ref()));
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
        Verb::Upgrade(args) => upgrade::run(&args),
        Verb::Uninstall(args) => uninstall::run(&args),
        Verb::Check(args) => check::run(&args),
        Verb::Explain(args) => explain::run(&args),
        Verb::Status(args) => status::run(&args),
        Verb::Stat(args) => stat::run(&args),
        Verb::Tap(args) => tap::run(&args),
        Verb::Completions { shell } => install::print(&completions(shell)),
        Verb::Version => install::print(&format!("weft {}\n", env!("CARGO_PKG_VERSION"))),
        Verb::Proxy(Proxy::Run(args)) => weft_proxy::app::run(*args),
        Verb::Proxy(Proxy::Init(args)) => init::run(*args),
        Verb::ControlPlane(args) => weft_control_plane::run(*args),
        Verb::DemoService(args) => demo::serve(args),
        Verb::DemoGet(args) => demo::fetch(&args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cause_is_told_twice() {
        let refused = std::io::Error::other("10.0.0.7:15010: refused");
        let error = anyhow::Error::new(refused).context("transport error: 10.0.0.7:15010: refused");
        assert_eq!(
            chain(error.context("no answer").as_ref()),
            "no answer: transport error: 10.0.0.7:15010: refused"
        );
    }
}
