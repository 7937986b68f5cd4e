//! The verbs of `cargo dev`.
//!
//! Invariant: a verb only calls what tests call too: what a person sees is what is tested.

mod conformance;
mod images;
mod node;
mod parts;

use clap::{Parser, Subcommand};

/// What a developer does around the code.
#[derive(Debug, Parser)]
#[command(name = "cargo dev", bin_name = "cargo dev")]
pub struct Dev {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// A Kubernetes cluster of your own.
    Cluster(node::ClusterArgs),
    /// Run the Gateway API's conformance suite, mesh profiles and beyond, against Weft.
    Conformance(conformance::ConformanceArgs),
    /// Write the images of the sidecar, the control plane and the examples, without a builder or a registry.
    Images(images::ImagesArgs),
    /// Build the third-party programs that the cluster's tests need into the cache.
    Parts(parts::PartsArgs),
    /// What a cluster starts for itself.
    #[command(hide = true, subcommand)]
    Node(node::Node),
}

impl Dev {
    /// Does what was asked.
    ///
    /// # Errors
    /// Why it could not be done.
    pub fn run(self) -> anyhow::Result<()> {
        match self.verb {
            Verb::Cluster(args) => args.run(),
            Verb::Conformance(args) => args.run(),
            Verb::Images(args) => args.run(),
            Verb::Parts(args) => args.run(),
            Verb::Node(node) => node.run(),
        }
    }
}

/// A line for the person who asked.
fn say(line: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
