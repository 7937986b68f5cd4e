//! A cluster of one node, in namespaces of its own: brought up, entered, taken down.
//!
//! ```text
//! a test ──stdin──▶ keeper ──stdin──▶ init, pid 1 of the cluster's namespaces
//!                     │                 └─ boot: etcd, API server, …, kubelet ─▶ pods
//!                     └─ afterwards: removes cgroups and the state folder
//! ```
//!
//! The pipes are lifelines: whoever sees the end of its standard input ends, and with pid 1 ends every
//! process, mount and network device of the cluster. So a test that is killed leaves nothing.
//!
//! Invariant: nothing outside the state folder and one cgroup per hierarchy is touched on the machine.
//! Invariant: two clusters never meet: addresses and ports are the same in each, and are not the machine's.

mod boot;
mod cgroup;
mod init;
mod keeper;
mod kubectl;
mod network;
mod options;
mod pki;
mod process;
mod settings;
mod wait;

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, bail};

pub use init::{boot, init};
pub use keeper::keep;
pub use options::{Options, ProxyMode};

use crate::{program, skip};
use options::State;

/// A cluster that is up.
#[derive(Debug)]
pub struct Cluster {
    state: State,
    programs: PathBuf,
    /// The process id, seen from here, of the cluster's first process.
    init: u32,
    keeper: Option<Keeper>,
}

/// The process that ends the cluster when this one does.
#[derive(Debug)]
struct Keeper {
    process: Child,
    /// Held, never written: the keeper waits for its end.
    lifeline: Option<ChildStdin>,
}

impl Cluster {
    /// The cluster that this test process's tests share: brought up at first use, gone when the process is.
    ///
    /// `None` where the machine cannot hold one, which has then been said loudly.
    ///
    /// # Panics
    /// It did not come up; or it cannot, and `CI=true`.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Result<Cluster, String>> = OnceLock::new();
        if let Some(reason) = skip::missing() {
            skip::say(&reason);
            return None;
        }
        let name = format!("test-{}", std::process::id());
        let up = || Self::start(&Options::new(&name).with_echo()?);
        let up = || up().map_err(|error: anyhow::Error| format!("{error:#}"));
        match SHARED.get_or_init(up) {
            Ok(cluster) => Some(cluster),
            Err(error) => panic!("the cluster did not come up: {error}"),
        }
    }

    /// Brings one up; it ends when the value is dropped or this process ends.
    ///
    /// # Errors
    /// A part that cannot be built, or what failed inside, with the end of its log.
    pub fn start(options: &Options) -> anyhow::Result<Self> {
        let state = State::of(&options.name);
        let programs = options.write(&state)?;
        let mut command = Command::new(program::weft_dev()?);
        command.args(["node", "keep"]).arg(state.folder());
        if options.detached {
            // Nothing of ours is held, so that whoever waits for our output sees its end.
            command.arg("--stay").stdin(Stdio::null()).stderr(Stdio::null());
        } else {
            command.stdin(Stdio::piped());
        }
        // A Ctrl-C on the terminal is for us; the keeper hears of it when we end.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut process = command.stdout(Stdio::piped()).spawn().context("starting the keeper")?;
        let said = process.stdout.take();
        let keeper = Keeper { lifeline: process.stdin.take(), process };
        let init = await_readiness(said)?;
        let keeper = (!options.detached).then_some(keeper);
        Ok(Self { state, programs, init, keeper })
    }

    /// The one of this name that is up already.
    ///
    /// # Errors
    /// There is none.
    pub fn attach(name: &str) -> anyhow::Result<Self> {
        let state = State::of(name);
        if !state.is_kept() {
            bail!("there is no cluster {name:?}: `cargo dev cluster` brings one up");
        }
        let init =
            std::fs::read_to_string(state.file("ready")).context("it is not up yet")?.trim().parse()?;
        let programs = std::fs::read_to_string(state.file("programs"))?.into();
        Ok(Self { state, programs, init, keeper: None })
    }

    /// Ends the one of this name, and waits until it is gone.
    ///
    /// # Errors
    /// There is none, or it does not end.
    pub fn stop(name: &str) -> anyhow::Result<()> {
        keeper::dismiss(&State::of(name))
    }

    /// The folder that holds everything this cluster writes.
    pub fn folder(&self) -> &Path {
        self.state.folder()
    }

    /// The folder of Kubernetes' programs, `kubectl` among them.
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// The administrator's kubeconfig; its server is reached from inside.
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.file("kubeconfig/admin")
    }

    /// The administrator's kubeconfig for use outside: its server is a port of this machine's loopback.
    pub fn outside_kubeconfig(&self) -> PathBuf {
        self.state.file(keeper::OUTSIDE)
    }

    /// Runs a closure on a thread in the node's network, from where pods and Services can be reached.
    /// Sockets made there may be used from anywhere afterwards.
    ///
    /// # Errors
    /// The network cannot be entered.
    pub fn inside<T: Send>(&self, body: impl FnOnce() -> T + Send) -> std::io::Result<T> {
        network::Network::of(self.init)?.run(body)
    }

    /// A program to be run inside the cluster's namespaces, on the node, with `KUBECONFIG` set and
    /// Kubernetes' programs first in `PATH`. It is killed when the process that waits for it is.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.init)).args(["--net", "--mount", "--pid"]);
        let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        command.arg(format!("--wd={}", here.display()));
        command.args(["--", "setpriv", "--pdeathsig", "KILL"]).arg(program);
        command.env("KUBECONFIG", self.kubeconfig()).env("PATH", process::path(&self.programs));
        command
    }

    /// Loads an image from its archive, as if it had been pulled.
    ///
    /// # Errors
    /// What containerd says.
    pub fn import_image(&self, archive: &Path) -> anyhow::Result<()> {
        let mut command = self.command("ctr");
        program::output(command.args(process::IMPORT).arg(archive)).map(|_| ())
    }
}

/// Reads what the keeper says until the cluster is ready; gives the process id of its init.
fn await_readiness(said: Option<impl std::io::Read>) -> anyhow::Result<u32> {
    let mut heard = String::new();
    for line in said.map(|said| BufReader::new(said).lines()).into_iter().flatten() {
        let line = line?;
        if let Some(pid) = line.strip_prefix(keeper::READY) {
            return pid.trim().parse().context("the keeper's word");
        }
        heard.push_str(&line);
        heard.push('\n');
    }
    bail!("{}", heard.trim_end())
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.lifeline.take());
            // It ends by itself; waiting is only so that nothing is left when we go on.
            let _ = keeper.process.wait();
        }
    }
}
