//! `cargo dev images`: all images as archives.
//!
//! Invariant: prints what it wrote and how large that is.

use std::path::PathBuf;

use clap::Args;

use crate::mesh::{Programs, TAG};

/// Arguments of `cargo dev images`.
#[derive(Debug, Args)]
pub(super) struct ImagesArgs {
    /// The folder to write `weft-proxy.tar`, `weft-control-plane.tar` and `weft.tar` into.
    #[arg(long, default_value = "target/images")]
    out: PathBuf,
    /// Build with optimisation.
    #[arg(long, conflicts_with = "profile")]
    release: bool,
    /// Build in this profile; `image` is what a release ships.
    #[arg(long, default_value = "dev")]
    profile: String,
    /// The images' tag.
    #[arg(long, default_value = TAG)]
    tag: String,
}

impl ImagesArgs {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let profile = if self.release { "release" } else { &self.profile };
        for (archive, size) in Programs::build(profile)?.images(&self.out, &self.tag)? {
            super::say(&format!("{}  {:.1} MB", archive.display(), as_megabytes(size)))?;
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for a person, of files far below 2^52 bytes")]
fn as_megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
