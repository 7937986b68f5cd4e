//! Weft's own programs, and the images that hold them.
//!
//! Invariant: what an image holds is what the build made: the same file, without its symbols.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::image::Image;
use crate::program;

/// Where the images' names begin when nothing else is said.
pub const REGISTRY: &str = "localhost/weft";
/// The user of the sidecar: traffic of this user is not redirected.
const SIDECAR: u32 = 2102;
/// The control plane's user. Source: the customary "nonroot".
const NOBODY: u32 = 65532;

/// A program with an image of its own.
const IMAGES: [(&str, u32); 2] = [("weft-proxy", SIDECAR), ("weft-control-plane", NOBODY)];

/// Weft's programs, built.
#[derive(Debug, Clone)]
pub struct Programs(PathBuf);

impl Programs {
    /// Builds them in a profile (`dev`, `release`, `image`); quick when nothing changed.
    ///
    /// # Errors
    /// What the compiler says.
    pub fn build(profile: &str) -> anyhow::Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
        command.args(["build", "--quiet", "--locked", "--profile", profile, "--manifest-path"]).arg(manifest);
        // Named from the whole workspace, so that a test run's libraries are used and not built again.
        command.args(["--workspace", "--bin=weft", "--bin=weft-proxy", "--bin=weft-control-plane"]);
        command.arg("--message-format=json-render-diagnostics");
        let messages = program::output(&mut command)?;
        let weft = messages.lines().filter_map(executable).find(|file| file.ends_with("weft"));
        let weft = weft.context("the build made no `weft`")?;
        Ok(Self(weft.parent().unwrap_or(Path::new("/")).to_owned()))
    }

    /// Where a program is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes both images' archives into a folder; gives each archive with its program's size.
    ///
    /// # Errors
    /// What reading, stripping or writing says.
    pub fn images(&self, into: &Path, tag: &str) -> anyhow::Result<Vec<(PathBuf, u64)>> {
        std::fs::create_dir_all(into)?;
        let mut archives = Vec::new();
        for (name, user) in IMAGES {
            let program = into.join(format!("{name}.stripped"));
            strip(&self.file(name), &program)?;
            let path = format!("/{name}");
            let archive = into.join(format!("{name}.tar"));
            Image::new(&format!("{REGISTRY}/{name}:{tag}"))
                .program(&path, &program)?
                .entry_point(&[&path])
                .user(user)
                .label("org.opencontainers.image.title", name)
                .label("org.opencontainers.image.version", env!("CARGO_PKG_VERSION"))
                .label("org.opencontainers.image.licenses", env!("CARGO_PKG_LICENSE"))
                .save(&archive)?;
            archives.push((archive, std::fs::metadata(&program)?.len()));
            std::fs::remove_file(program)?;
        }
        Ok(archives)
    }
}

/// The program that a message of cargo's tells of.
fn executable(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    message.get("executable")?.as_str().map(PathBuf::from)
}

fn strip(from: &Path, to: &Path) -> anyhow::Result<()> {
    if program::find("strip").is_none() {
        bail!("strip is needed (package binutils)");
    }
    program::output(Command::new("strip").arg("-o").arg(to).arg(from)).map(|_| ())
}
