//! Weft's own programs, the images that hold them, and Weft installed on a cluster.
//!
//! Invariant: what an image holds is what the build made: the same file, without its symbols.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, anyhow, bail};

use crate::cluster::Cluster;
use crate::image::Image;
use crate::part::GATEWAY_API;
use crate::program;

/// Where the images' names begin when nothing else is said. Source: the chart's default.
pub const REGISTRY: &str = "localhost/weft";
/// The images' tag when nothing else is said. Source: the chart's default, its version.
pub const TAG: &str = env!("CARGO_PKG_VERSION");
/// The namespace of the control plane, and the name of its Deployment.
pub const NAMESPACE: &str = "weft-system";
/// The control plane's Deployment.
pub const CONTROL_PLANE: &str = "deployment/weft-control-plane";
/// The user of the sidecar: traffic of this user is not redirected.
const SIDECAR: u32 = 2102;
/// The control plane's user. Source: the customary "nonroot".
const NOBODY: u32 = 65532;

/// Programs with an image of their own; `weft` plays the services of the example shop.
const IMAGES: [(&str, u32); 3] = [("weft-proxy", SIDECAR), ("weft-control-plane", NOBODY), ("weft", NOBODY)];

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

    /// Those that this process's tests share, built for development at first use.
    ///
    /// # Errors
    /// What the compiler says.
    pub fn shared() -> anyhow::Result<&'static Self> {
        static SHARED: OnceLock<Result<Programs, String>> = OnceLock::new();
        let built = SHARED.get_or_init(|| Self::build("dev").map_err(|error| format!("{error:#}")));
        built.as_ref().map_err(|error| anyhow!(error.clone()))
    }

    /// Where a program is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes all images' archives into a folder; gives each archive with its program's size.
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

impl Cluster {
    /// Installs the standard channel's kinds of the Gateway API.
    ///
    /// # Errors
    /// They cannot be had, or were refused.
    pub fn install_gateway_api(&self) -> anyhow::Result<()> {
        let kinds = format!("--filename={}", GATEWAY_API.folder()?.join("standard").display());
        self.kubectl(&["apply", "--server-side", &kinds])?;
        let established = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"];
        self.kubectl(&established).map(|_| ())
    }

    /// Loads Weft's images, applies what `weft install` prints, and waits until it has rolled out.
    ///
    /// # Errors
    /// The images cannot be made, something was refused, or the control plane does not get ready.
    pub fn install_weft(&self, programs: &Programs, flags: &[&str]) -> anyhow::Result<()> {
        self.import_weft(programs)?;
        let at = ["--namespace", NAMESPACE, CONTROL_PLANE];
        let before = self.kubectl(&[&["get", "--ignore-not-found", "--output=name"], &at[..]].concat())?;
        let mut install = Command::new(programs.file("weft"));
        let manifests = program::output(install.arg("install").args(flags))?;
        self.apply(&manifests)?;
        if !before.is_empty() {
            // The image has its name still, and may be another.
            self.kubectl(&[&["rollout", "restart"], &at[..]].concat())?;
        }
        self.rolled_out(NAMESPACE, CONTROL_PLANE)
    }

    /// Loads Weft's images, and installs nothing.
    ///
    /// # Errors
    /// The images cannot be made or loaded.
    pub fn import_weft(&self, programs: &Programs) -> anyhow::Result<()> {
        let folder = self.folder().join("weft-images");
        for (archive, _) in programs.images(&folder, TAG)? {
            self.import_image(&archive)?;
            std::fs::remove_file(archive)?;
        }
        Ok(())
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
