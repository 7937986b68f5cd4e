//! The bench rig: Weft's pair of sidecars beside Envoy's and HAProxy's, in one run on one machine.
//!
//! Reads the command line, finds the peers, then for each scenario: `check` → `measure` → `report`. The control
//! plane at scale is measured by `scale`, a page of metrics by `metrics`, apart from all others.
//! README.md beside this crate tells the method and keeps the dated figures.
//!
//! Invariant: all traffic stays on loopback; every run is bounded in time; no child outlives the rig.

mod backend;
mod check;
mod cpu;
mod crowd;
mod goals;
mod hello;
mod histogram;
mod load;
mod measure;
mod message;
mod metrics;
mod peer;
mod pki;
mod plan;
mod process;
mod report;
mod scale;
mod tap;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use measure::{Effort, Entry, Place};
use peer::Peer;
use peer::weft::Telling;
use report::Report;

/// The allocator of Weft's own binaries: the control plane of `scale` lives in the rig.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Compares what Weft's sidecars cost with Envoy and HAProxy, all in one run.
#[derive(Parser)]
#[command(name = "weft-bench")]
struct Args {
    /// Scenarios; none: all. One of http-max, http-1000, http-2000, grpc-max, grpc-1000, bulk, conn, conn-resumed,
    /// idle-http, idle-tcp.
    scenarios: Vec<String>,
    /// Peers: none, relay, envoy, haproxy, weft; `weft/2` is Weft with two workers, `weft-tells`
    /// one whose metrics, traces and access log are all on, `weft-mute` one without any.
    #[arg(long, value_delimiter = ',', default_value = "none,weft,envoy,haproxy")]
    peers: Vec<String>,
    /// Counted seconds of each run.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Runs of each peer in each scenario.
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// One short run of everything, to prove that the rig works; its figures mean little.
    #[arg(long)]
    quick: bool,
    /// Fails if Weft misses a goal.
    #[arg(long)]
    gate: bool,
    /// Weft's binary, instead of the one that is built beside the rig.
    #[arg(long, value_name = "FILE")]
    weft: Option<PathBuf>,
    /// Argument for both sidecars in the scenario `conn`, so that they resume no TLS session; may be repeated.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    weft_full_handshake: Vec<String>,
    /// Folder for report.md, report.json and the runs' files. Default: `weft-bench` beside the binary.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let outcome = match words.get(1).map(String::as_str) {
        Some(process::EXEC) => process::become_program(&words[2..]).map(|()| true),
        Some(backend::BACKEND) => backend::serve(&words[2..]).map(|()| true),
        Some(peer::relay::RELAY) => peer::relay::serve(&words[2..]).map(|()| true),
        Some(scale::plane::PLANE) => scale::plane::serve(&words[2..]).map(|()| true),
        Some(scale::fleet::FLEET) => scale::fleet::serve(&words[2..]).map(|()| true),
        Some(crowd::CROWD) => crowd::bench(&crowd::Args::parse_from(&words[1..])),
        Some(metrics::METRICS) => metrics::bench(&metrics::Args::parse_from(&words[1..])),
        Some(scale::SCALE) => scale::bench(&scale::Args::parse_from(&words[1..])),
        _ => bench(&Args::parse()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("weft-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what the command line asks for; false when something was wrong with a peer or, gated, with a goal.
fn bench(args: &Args) -> Result<bool> {
    raise_open_files()?;
    process::end_children_on_signal()?;
    let plans = plan::chosen(&args.scenarios, args.quick)?;
    let found = peers(args)?;
    let out = out(args)?;
    let pki = pki::Pki::make(&out.join("pki"))?;
    let place = Place { folder: &out.join("runs"), pki: &pki };
    let entries: Vec<Entry<'_>> =
        found.iter().map(|(peer, workers)| Entry { peer: &**peer, workers: *workers }).collect();
    let mut report = Report {
        machine: cpu::machine(),
        began: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs(),
        effort: effort(args),
        peers: entries
            .iter()
            .map(|entry| Ok((entry.label(), entry.peer.version()?)))
            .collect::<Result<_>>()?,
        outcomes: Vec::new(),
    };
    for plan in &plans {
        report.outcomes.push(measure::scenario(&entries, plan, report.effort, &place));
        // Written after each scenario: a run that is cut short keeps what it has.
        write(&out, &report)?;
    }
    writeln!(std::io::stdout(), "{}", report.markdown())?;
    eprintln!("written to {}", out.join("report.md").display());
    let missed = report.missed();
    if args.gate {
        missed.iter().for_each(|goal| eprintln!("goal missed: {goal}"));
    }
    Ok(report.complaints().is_empty() && (!args.gate || missed.is_empty()))
}

fn effort(args: &Args) -> Effort {
    if args.quick {
        return Effort { seconds: 1.0, warm_up: 0.3, repeats: 1, settle: 1.0 };
    }
    Effort {
        seconds: args.seconds.clamp(0.1, 600.0),
        warm_up: 1.5,
        repeats: args.repeats.clamp(1, 100),
        settle: 3.0,
    }
}

/// The peers that were asked for. One that cannot be had is an error in CI and left out loudly elsewhere.
fn peers(args: &Args) -> Result<Vec<(Box<dyn Peer>, usize)>> {
    let mut found = Vec::new();
    for word in &args.peers {
        let (name, workers) = word.split_once('/').unwrap_or((word, "1"));
        let workers = workers.trim_end_matches('w').parse().ok().filter(|workers| (1..=64).contains(workers));
        let workers: usize =
            workers.with_context(|| format!("{word}: the workers are a number from 1 to 64"))?;
        match peer(name, args) {
            Ok(peer) => found.push((peer, workers)),
            Err(error) if std::env::var_os("CI").is_some() => {
                return Err(error.context(format!("peer {name}")));
            }
            Err(error) => eprintln!("LEFT OUT: {name}: {error:#}"),
        }
    }
    if found.is_empty() {
        bail!("there is no peer to measure");
    }
    Ok(found)
}

fn peer(name: &str, args: &Args) -> Result<Box<dyn Peer>> {
    Ok(match name {
        "none" => Box::new(peer::Direct),
        "relay" => Box::new(peer::relay::Relay),
        "envoy" => Box::new(peer::envoy::Envoy::find()?),
        "haproxy" => Box::new(peer::haproxy::Haproxy::find()?),
        "weft" => weft(args, Telling::Default)?,
        "weft-tells" => weft(args, Telling::All)?,
        "weft-mute" => weft(args, Telling::Nothing)?,
        other => bail!("no such peer: {other}"),
    })
}

fn weft(args: &Args, telling: Telling) -> Result<Box<dyn Peer>> {
    Ok(Box::new(peer::weft::Weft::find(args.weft.as_deref(), &args.weft_full_handshake, telling)?))
}

fn out(args: &Args) -> Result<PathBuf> {
    out_folder(args.out.as_deref())
}

/// The folder for reports: the one that was asked for, or one beside the binary.
pub(crate) fn out_folder(asked: Option<&Path>) -> Result<PathBuf> {
    let folder = match asked {
        Some(folder) => folder.to_owned(),
        None => std::env::current_exe()?.parent().context("the rig has no folder")?.join("weft-bench-report"),
    };
    std::fs::create_dir_all(&folder)?;
    Ok(folder.canonicalize()?)
}

fn write(out: &Path, report: &Report) -> Result<()> {
    std::fs::write(out.join("report.md"), report.markdown())?;
    std::fs::write(out.join("report.json"), serde_json::to_vec_pretty(report)?)?;
    Ok(())
}

/// Idle connections need open files: as many as the system lets this process have.
pub(crate) fn raise_open_files() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(())
}
