//! `cargo dev cluster`, and what a cluster starts of this program for itself.
//!
//! Invariant: without `--detach` the cluster ends with this process.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::cluster::{self, Cluster, Options, ProxyMode};
use crate::mesh::Programs;

/// The name of a cluster that was given none.
const NAME: &str = "dev";

/// Arguments of `cargo dev cluster`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct ClusterArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    up: UpArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Bring one up (what happens without a verb).
    Up(UpArgs),
    /// End one that was left up.
    Down(NameArgs),
    /// Run a command inside, with KUBECONFIG set: `cargo dev cluster enter kubectl get pods -A`.
    Enter(EnterArgs),
}

#[derive(Debug, Args)]
struct NameArgs {
    /// The cluster's name.
    #[arg(long, default_value = NAME)]
    name: String,
}

#[derive(Debug, Args)]
struct UpArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Give pods and Services IPv6 addresses too.
    #[arg(long)]
    dual_stack: bool,
    /// How kube-proxy makes Services real.
    #[arg(long, default_value = "nftables")]
    proxy_mode: ProxyMode,
    /// Without Weft and the Gateway API.
    #[arg(long)]
    bare: bool,
    /// Build Weft in this profile.
    #[arg(long, default_value = "dev")]
    profile: String,
    /// Return when it is up; `cargo dev cluster down` ends it.
    #[arg(long, visible_alias = "keep")]
    detach: bool,
}

#[derive(Debug, Args)]
struct EnterArgs {
    #[command(flatten)]
    name: NameArgs,
    /// The command, and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl ClusterArgs {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self.verb {
            None => self.up.run(),
            Some(Verb::Up(up)) => up.run(),
            Some(Verb::Down(NameArgs { name })) => Cluster::stop(&name),
            Some(Verb::Enter(enter)) => enter.run(),
        }
    }
}

impl UpArgs {
    fn run(&self) -> anyhow::Result<()> {
        if let Some(reason) = crate::skip::missing() {
            anyhow::bail!(reason);
        }
        let mut options = Options::new(&self.name.name).with_echo()?;
        (options.dual_stack, options.proxy_mode, options.detached) =
            (self.dual_stack, self.proxy_mode, self.detach);
        let programs = (!self.bare).then(|| Programs::build(&self.profile)).transpose()?;
        let cluster = Cluster::start(&options)?;
        if let Some(programs) = programs {
            let left = "Weft was not installed; a detached cluster stays until `cargo dev cluster down`";
            cluster
                .install_gateway_api()
                .and_then(|()| cluster.install_weft(&programs, &[]))
                .context(left)?;
        }
        self.tell(&cluster)?;
        if self.detach {
            return Ok(());
        }
        loop {
            std::thread::park();
        }
    }

    fn tell(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let name = if self.name.name == NAME { String::new() } else { format!("--name {} ", self.name.name) };
        super::say(&format!("export KUBECONFIG={}", cluster.outside_kubeconfig().display()))?;
        super::say(&format!("kubectl is {}", cluster.programs().join("kubectl").display()))?;
        super::say(&format!("enter: cargo dev cluster enter {name}kubectl get pods --all-namespaces"))?;
        super::say(&if self.detach {
            format!("end:   cargo dev cluster down {name}")
        } else {
            "end:   Ctrl-C".into()
        })
    }
}

impl EnterArgs {
    fn run(&self) -> anyhow::Result<()> {
        let cluster = Cluster::attach(&self.name.name)?;
        let mut words = self.command.iter();
        let status = cluster.command(words.next().map_or("", String::as_str)).args(words).status()?;
        std::process::exit(status.code().unwrap_or(1))
    }
}

/// What a cluster starts for itself; see [`cluster`].
#[derive(Debug, Subcommand)]
pub(super) enum Node {
    /// Outside: keeps the cluster.
    Keep {
        /// The state folder.
        state: PathBuf,
        /// Without a lifeline.
        #[arg(long)]
        stay: bool,
    },
    /// Inside: the first process.
    Init {
        /// The state folder.
        state: PathBuf,
    },
    /// Inside: the node.
    Boot {
        /// The state folder.
        state: PathBuf,
    },
}

impl Node {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Keep { state, stay } => cluster::keep(&state, stay),
            Self::Init { state } => cluster::init(&state),
            Self::Boot { state } => cluster::boot(&state),
        }
    }
}
