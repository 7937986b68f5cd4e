//! The command line: what a person may set, with defaults.
//!
//! Invariant: everything here has a default but where the facts come from, a folder or a cluster; the
//! library runs from [`RunArgs`] alone.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use weft_proto::names::SpiffeId;

use crate::tls::OWN_NAMESPACE;

/// Streams at once by default. Source: measured with 5,000; where one of two replicas ends, the other takes all
/// of them.
const STREAMS: usize = 8192;
/// Shortest life of a leaf. Source: below a minute, half of it leaves no time to renew.
const SHORTEST_LIFE: Duration = Duration::from_secs(10);

/// The control plane of Weft.
#[derive(Debug, Clone, Parser)]
#[command(name = "weft-control-plane", version, about)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the control plane can do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Serve sidecars from a folder of manifests.
    Run(RunArgs),
}

/// Settings of `run`.
#[derive(Debug, Clone, clap::Args)]
#[command(group(clap::ArgGroup::new("facts").required(true).multiple(false)))]
pub struct RunArgs {
    /// Folder of manifests (*.yaml, *.yml, *.json, with its subfolders), watched for changes.
    #[arg(long, value_name = "DIR", env = "WEFT_MANIFESTS", group = "facts")]
    pub manifests: Option<PathBuf>,
    /// The Kubernetes cluster instead of a folder.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Address of the gRPC services; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15010", env = "WEFT_LISTEN")]
    pub listen: SocketAddr,
    /// Address of metrics, readiness and status; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15014", env = "WEFT_ADMIN")]
    pub admin: SocketAddr,
    /// Folder that keeps the root key and the uses of join tokens; absent: memory.
    #[arg(long, value_name = "DIR", env = "WEFT_STATE")]
    pub state: Option<PathBuf>,
    /// File of join tokens (YAML), read again when it changes; absent: nobody can join.
    #[arg(long, value_name = "FILE", env = "WEFT_JOIN_TOKENS")]
    pub join_tokens: Option<PathBuf>,
    /// Trust domain of every identity.
    #[arg(long, value_name = "NAME", default_value = "cluster.local", env = "WEFT_TRUST_DOMAIN")]
    pub trust_domain: String,
    /// Write the root certificate (PEM) here, for sidecars to trust.
    #[arg(long, value_name = "FILE")]
    pub write_trust_anchors: Option<PathBuf>,
    /// Life of a sidecar's certificate, e.g. 24h, 90m, 30s.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = life)]
    pub certificate_life: Duration,
    /// Sign with an intermediate that lives in memory, not with the root itself.
    #[arg(long)]
    pub intermediate: bool,
    /// Identity that may look at the mesh (weft stat, weft tap) over mutual TLS; repeatable. Absent: nobody,
    /// but who a cluster's API server says may.
    #[arg(long = "observer", value_name = "SPIFFE-ID", env = "WEFT_OBSERVERS", value_delimiter = ',')]
    pub observers: Vec<SpiffeId>,
    /// Streams of sidecars at once; more are told to come back later.
    #[arg(long, value_name = "N", default_value_t = STREAMS)]
    pub max_streams: usize,
    /// Time for a sidecar's answer to an epoch; a stream without one is closed.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = positive)]
    pub ack_timeout: Duration,
    /// Write the bound addresses (JSON) here once ready.
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// End when the process that started this one ends: no orphans after a demo or a test.
    #[arg(long, env = "WEFT_EXIT_WITH_PARENT")]
    pub exit_with_parent: bool,
    /// What is logged, in the syntax of RUST_LOG.
    #[arg(long, value_name = "FILTER", default_value = "info", env = "WEFT_LOG")]
    pub log: String,
}

/// Settings of `run --kubernetes`.
#[derive(Debug, Clone, clap::Args)]
pub struct ClusterArgs {
    /// Take the facts from the Kubernetes cluster this runs in, or that the kubeconfig names.
    #[arg(long, group = "facts")]
    pub kubernetes: bool,
    /// Namespace of the installation: its policies may be for the whole mesh.
    #[arg(long, value_name = "NAME", default_value = OWN_NAMESPACE, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// Name of this control plane's pod, as its events and its Lease tell it; absent: the host's name.
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// Address of the injector's webhook; port 0 takes a free one; absent: none is served.
    #[arg(long, value_name = "ADDR", env = "WEFT_WEBHOOK")]
    pub webhook: Option<SocketAddr>,
    /// File of the injector's settings (YAML).
    #[arg(long, value_name = "FILE", env = "WEFT_INJECTOR_CONFIG")]
    pub injector_config: Option<PathBuf>,
}

impl ClusterArgs {
    /// Namespace whose policies may be for the whole mesh; a folder's is always the same.
    pub fn root_namespace(&self) -> &str {
        if self.kubernetes { &self.namespace } else { OWN_NAMESPACE }
    }
}

impl Default for ClusterArgs {
    fn default() -> Self {
        let namespace = OWN_NAMESPACE.to_owned();
        Self { kubernetes: false, namespace, pod_name: None, webhook: None, injector_config: None }
    }
}

fn positive(text: &str) -> Result<Duration, String> {
    let known = duration(text).filter(|duration| !duration.is_zero());
    known.ok_or_else(|| format!("{text:?} is not a duration (e.g. 24h, 90m, 30s)"))
}

fn life(text: &str) -> Result<Duration, String> {
    let life = positive(text)?;
    if life < SHORTEST_LIFE {
        return Err(format!("shorter than {} s", SHORTEST_LIFE.as_secs()));
    }
    Ok(life)
}

/// A duration of hours, minutes and seconds. Source: the Gateway API's durations (GEP-2257).
fn duration(text: &str) -> Option<Duration> {
    let (mut total, mut digits) = (0_u64, String::new());
    for letter in text.chars() {
        let unit = match letter {
            '0'..='9' => {
                digits.push(letter);
                continue;
            }
            'd' => 86_400,
            'h' => 3_600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        total = total.checked_add(digits.parse::<u64>().ok()?.checked_mul(unit)?)?;
        digits.clear();
    }
    (digits.is_empty() && !text.is_empty()).then_some(Duration::from_secs(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_nonsense_is_refused() {
        for (text, seconds) in [("24h", 86_400), ("1h30m", 5_400), ("45s", 45), ("2d", 172_800)] {
            assert_eq!(life(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "24", "h", "1x", "-1h", "1s", "99999999999999999999h", "18446744073709551615d"] {
            assert!(life(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_facts_come_from_exactly_one_place() {
        let parse = |more: &[&str]| {
            let words = ["weft-control-plane", "run"].into_iter().chain(more.iter().copied());
            Args::try_parse_from(words).map_err(|error| error.kind())
        };
        let Command::Run(run) = parse(&["--kubernetes"]).unwrap().command;
        assert_eq!((run.cluster.kubernetes, run.manifests), (true, None));
        assert_eq!(run.cluster.namespace, "weft-system");
        assert_eq!(parse(&[]).unwrap_err(), clap::error::ErrorKind::MissingRequiredArgument);
        let both = parse(&["--kubernetes", "--manifests", "x"]);
        assert_eq!(both.unwrap_err(), clap::error::ErrorKind::ArgumentConflict);
    }

    #[test]
    fn the_folder_alone_is_enough() {
        let args = Args::try_parse_from(["weft-control-plane", "run", "--manifests", "x"]).unwrap();
        let Command::Run(run) = args.command;
        assert_eq!((run.listen.port(), run.admin.port()), (15010, 15014));
        assert_eq!(run.certificate_life, Duration::from_secs(86_400));
    }
}
