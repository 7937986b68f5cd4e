//! Third-party programs, built from pinned Go modules once and kept in a cache outside the clone.
//!
//! Most parts are a folder of `parts/`: a `go.mod` and a `go.sum` (every version and every checksum), and where
//! needed a `main.go`. A few are built as they are published, or are a file of Maven's, by their checksum
//! (`part/recipe.rs`). What is built lies in `CACHE/NAME-VERSION-HASH`, HASH covering the recipe, so that a
//! changed recipe is a new folder and an old one stays good for an older checkout.
//!
//! Invariant: a folder in the cache is complete: it is built under another name and renamed.
//! Invariant: two processes never build the same part at once; the second waits and finds it done.

mod recipe;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

pub use recipe::{
    CONFORMANCE, Copied, ECHO, GATEWAY_API, HELM, JAEGER, KUBERNETES, NAME_SERVER, PAUSE, Part, Target,
    ZIPKIN,
};

use aws_lc_rs::digest;
use recipe::Origin;

use crate::program;

/// Where built parts are kept: `WEFT_CACHE`, else `weft/parts` in the user's cache folder.
///
/// # Errors
/// Neither `WEFT_CACHE`, `XDG_CACHE_HOME` nor `HOME` is set.
pub fn cache() -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("WEFT_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("weft/parts")))
        .or_else(|| set("HOME").map(|folder| folder.join(".cache/weft/parts")))
        .context("no place for built programs: set WEFT_CACHE")
}

impl Part {
    /// The folder that holds this part's programs; builds them if the cache has them not.
    ///
    /// # Errors
    /// Go or Maven is missing, or what they say.
    pub fn folder(&self) -> anyhow::Result<PathBuf> {
        self.folder_in(&cache()?)
    }

    /// [`folder`](Self::folder) with a cache of the caller's choice.
    ///
    /// # Errors
    /// Go is missing, or what it says.
    pub fn folder_in(&self, cache: &Path) -> anyhow::Result<PathBuf> {
        let name = format!("{}-{}-{}", self.name, self.version, self.hash()?);
        let folder = cache.join(&name);
        if folder.is_dir() {
            return Ok(folder);
        }
        std::fs::create_dir_all(cache).with_context(|| format!("making {}", cache.display()))?;
        let lock = File::create(cache.join(format!("{name}.lock")))?;
        lock.lock()?;
        if !folder.is_dir() {
            let unfinished = cache.join(format!("{name}.unfinished"));
            // What an interrupted build left; the lock says that nobody is at it now.
            let _ = std::fs::remove_dir_all(&unfinished);
            std::fs::create_dir_all(&unfinished)?;
            self.build(&unfinished).with_context(|| format!("building {} {}", self.name, self.version))?;
            std::fs::rename(&unfinished, &folder)?;
        }
        Ok(folder)
    }

    /// Whether the cache already has it.
    pub fn is_built(&self) -> bool {
        let folder =
            |hash: String| Some(cache().ok()?.join(format!("{}-{}-{hash}", self.name, self.version)));
        self.hash().ok().and_then(folder).is_some_and(|folder| folder.is_dir())
    }

    fn build(&self, into: &Path) -> anyhow::Result<()> {
        if let Origin::Jar { coordinates, file, sha256 } = &self.origin {
            return self.fetch(into, coordinates, (file, sha256));
        }
        let Some(go) = program::find("go") else {
            bail!("Go is needed to build it, and there is no `go` in PATH");
        };
        let run_in = |folder: &Path, arguments: &[String]| {
            let mut command = Command::new(&go);
            command.current_dir(folder).args(arguments);
            // A program that runs in an empty image, and the same bytes wherever it is built.
            command.env("CGO_ENABLED", "0").env("GOFLAGS", "-buildvcs=false").env("GOTOOLCHAIN", "local");
            program::output(&mut command)
        };
        let folder = match &self.origin {
            Origin::Module { path, sum, .. } => {
                let module = format!("{path}@v{}", self.version);
                let told = run_in(into, &["mod", "download", "-json", &module].map(str::to_owned))?;
                module_folder(&told, Some(sum))?
            }
            Origin::Recipe | Origin::Jar { .. } => self.recipe(),
        };
        let run = |arguments: &[String]| run_in(&folder, arguments);
        for target in self.targets {
            let output = into.join(target.program).display().to_string();
            let mut arguments = self.arguments(target);
            arguments.extend(["-o".to_owned(), output, target.package.to_owned()]);
            run(&arguments)?;
        }
        for copied in self.copies {
            let arguments = ["mod", "download", "-json", copied.module].map(String::from);
            let folder = module_folder(&run(&arguments)?, None)?;
            copy(&folder.join(copied.from), &into.join(copied.to))?;
        }
        for (link, to) in self.links {
            std::os::unix::fs::symlink(to, into.join(link))?;
        }
        Ok(())
    }
}

impl Part {
    /// Takes a file from Maven's central repository, as `NAME.jar`.
    fn fetch(&self, into: &Path, coordinates: &str, (file, sha256): (&str, &str)) -> anyhow::Result<()> {
        let Some(maven) = program::find("mvn") else {
            bail!("Maven is needed to fetch it, and there is no `mvn` in PATH");
        };
        let mut command = Command::new(maven);
        command.current_dir(into).args(["--quiet", "--batch-mode"]);
        command.arg("org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy");
        command.arg(format!("-Dartifact={coordinates}")).arg("-DoutputDirectory=.");
        program::output(&mut command)?;
        let fetched = into.join(file);
        let found = digest::digest(&digest::SHA256, &std::fs::read(&fetched)?);
        let found: String = found.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        anyhow::ensure!(found == sha256, "{file} has the SHA-256 {found}, not {sha256}");
        std::fs::rename(fetched, into.join(format!("{}.jar", self.name)))?;
        Ok(())
    }
}

/// The folder of a module, by what `go mod download` told.
fn module_folder(told: &str, sum: Option<&str>) -> anyhow::Result<PathBuf> {
    let told: serde_json::Value = serde_json::from_str(told)?;
    let text = |name: &str| told.get(name).and_then(|text| text.as_str());
    if let Some(sum) = sum {
        let found = text("Sum").unwrap_or_default();
        anyhow::ensure!(found == sum, "the module has the checksum {found}, not {sum}");
    }
    Ok(text("Dir").context("no module's folder")?.into())
}

/// Copies a file, or a folder of files.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if !from.is_dir() {
        return std::fs::write(to, std::fs::read(from)?);
    }
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}
