//! What a cluster is asked to be, and the folder where it keeps itself.
//!
//! Invariant: whoever holds the lock of a state folder is its keeper; without a holder it is waste.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::bail;
use serde::{Deserialize, Serialize};

use crate::image::Image;
use crate::part::{KUBERNETES, NAME_SERVER, PAUSE};
use crate::workload;

/// How kube-proxy makes Services real.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    /// Its default from 1.33 on in spirit, if not by name.
    #[default]
    Nftables,
    /// What most clusters still run.
    Iptables,
}

/// What a cluster is asked to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Options {
    /// Tells it from others on this machine; names its folder and its cgroups.
    pub name: String,
    /// How kube-proxy makes Services real.
    pub proxy_mode: ProxyMode,
    /// Pods and Services have IPv6 addresses besides IPv4.
    pub dual_stack: bool,
    /// It stays when the process that brought it up ends.
    pub detached: bool,
    /// Archives of images to load before the node is ready.
    pub images: Vec<PathBuf>,
}

impl Options {
    /// The usual: IPv4, nftables, gone with its owner.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            proxy_mode: ProxyMode::default(),
            dual_stack: false,
            detached: false,
            images: Vec::new(),
        }
    }

    /// With the tests' workload loaded.
    ///
    /// # Errors
    /// It cannot be built.
    pub fn with_echo(mut self) -> anyhow::Result<Self> {
        self.images.push(workload::archive(workload::ECHO_IMAGE)?);
        Ok(self)
    }

    /// Builds what is missing, makes the state folder and writes this into it; gives the programs' folder.
    pub(super) fn write(&self, state: &State) -> anyhow::Result<PathBuf> {
        let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
        if self.name.is_empty() || !self.name.chars().all(plain) {
            bail!("{:?} is no name for a cluster: lower-case letters, digits and hyphens", self.name);
        }
        let programs = KUBERNETES.folder()?;
        State::sweep()?;
        if state.is_kept() {
            bail!("a cluster {:?} is up already: `cargo dev cluster down` ends it", self.name);
        }
        std::fs::create_dir_all(state.file("images"))?;
        std::fs::create_dir_all(state.file("logs"))?;
        own_images(state)?;
        std::fs::write(state.file("programs"), programs.as_os_str().as_encoded_bytes())?;
        std::fs::write(state.file("options.json"), serde_json::to_vec(self)?)?;
        Ok(programs)
    }

    pub(super) fn read(state: &State) -> anyhow::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(state.file("options.json"))?)?)
    }
}

/// The images without which there is no pod, and no name.
fn own_images(state: &State) -> anyhow::Result<()> {
    Image::new("localhost/pause:1")
        .program("/pause", &PAUSE.folder()?.join("pause"))?
        .entry_point(&["/pause"])
        .save(&state.file("images/pause.tar"))?;
    Image::new("localhost/coredns:1")
        .program("/coredns", &NAME_SERVER.folder()?.join("coredns"))?
        .entry_point(&["/coredns"])
        .save(&state.file("images/coredns.tar"))?;
    Ok(())
}

/// The folder of one cluster.
#[derive(Debug, Clone)]
pub(super) struct State(PathBuf);

impl State {
    fn all() -> PathBuf {
        std::env::temp_dir().join("weft-clusters")
    }

    pub(super) fn of(name: &str) -> Self {
        Self(Self::all().join(name))
    }

    pub(super) fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    pub(super) fn folder(&self) -> &Path {
        &self.0
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The cluster's name, which is also its cgroups'.
    pub(super) fn name(&self) -> String {
        let name = self.0.file_name().unwrap_or_default().to_string_lossy();
        format!("weft-{name}")
    }

    /// The lock, if nobody holds it.
    pub(super) fn lock(&self) -> std::io::Result<Option<File>> {
        let file = File::options().create(true).append(true).open(self.file("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether a keeper is at it.
    pub(super) fn is_kept(&self) -> bool {
        self.file("options.json").exists() && matches!(self.lock(), Ok(None))
    }

    /// Removes the cgroups and the folder.
    pub(super) fn remove(&self) -> std::io::Result<()> {
        super::cgroup::remove(&self.name())?;
        std::fs::remove_dir_all(&self.0)
    }

    /// Removes what keepers left that were killed themselves.
    fn sweep() -> std::io::Result<()> {
        std::fs::create_dir_all(Self::all())?;
        for entry in std::fs::read_dir(Self::all())? {
            let state = Self(entry?.path());
            if state.file("options.json").exists() && state.lock()?.is_some() {
                state.remove()?;
            }
        }
        Ok(())
    }
}
