//! What is compared: pairs of proxies, and the two yardsticks without TLS (`none`, `relay`).
//! Before this: `plan` names scenarios. After it: `check` looks whether a pair does what it should, `measure` how dearly.
//!
//! Invariant: a pair is client - A - (mutual TLS) - B - backend on loopback, each proxy one process of `workers` threads.
//! Invariant: a pair is started fresh for every repetition, so no peer profits from an earlier one's warm state.

pub(crate) mod envoy;
pub(crate) mod haproxy;
pub(crate) mod relay;
pub(crate) mod weft;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::load;
use crate::pki::Pki;
use crate::plan::Shape;
use crate::process::{Process, START_DEADLINE};
use crate::tap::Tap;

/// What a pair is to be started for.
pub(crate) struct Job<'a> {
    /// An empty folder of its own.
    pub(crate) workdir: &'a Path,
    /// Kind of traffic.
    pub(crate) shape: Shape,
    /// Where the backend listens.
    pub(crate) backend: SocketAddr,
    /// Worker threads of each proxy.
    pub(crate) workers: usize,
    /// Whether TLS sessions may be resumed, where the peer can.
    pub(crate) resume: bool,
    /// Whether a tap stands between A and B.
    pub(crate) tapped: bool,
    /// Certificates for peers that take them from files.
    pub(crate) pki: &'a Pki,
}

/// A running pair; dropping it ends its processes.
pub(crate) struct Pair {
    /// Where the client calls: A, or the backend itself for `none`.
    pub(crate) call: SocketAddr,
    /// Where B listens for A; none where there is no TLS to check.
    pub(crate) hop: Option<SocketAddr>,
    /// The outbound and the inbound proxy.
    pub(crate) proxies: Option<[Process; 2]>,
    /// What else runs for the pair; its CPU is reported but not counted as the proxies'.
    pub(crate) others: Vec<Process>,
    /// The tap, if the job asked for one.
    pub(crate) tap: Option<Tap>,
    /// Where traces go, if they go anywhere.
    pub(crate) _collector: Option<weft::collector::Collector>,
}

impl Pair {
    /// Waits until a right answer comes through, and says how long it took.
    ///
    /// # Errors
    /// A process ended, or no right answer came in time.
    pub(crate) fn wait_until_right(&mut self, shape: Shape) -> Result<Duration> {
        let begun = Instant::now();
        loop {
            for process in self.proxies.iter_mut().flatten().chain(&mut self.others) {
                process.still_runs()?;
            }
            match load::once(shape, self.call) {
                Ok(()) => return Ok(begun.elapsed()),
                Err(error) if begun.elapsed() > START_DEADLINE => {
                    return Err(error).context("no right answer came through the pair");
                }
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// The process ids of A and B.
    pub(crate) fn pids(&self) -> Option<[u32; 2]> {
        self.proxies.as_ref().map(|[a, b]| [a.pid(), b.pid()])
    }
}

/// A kind of pair.
pub(crate) trait Peer {
    /// The word for it on the command line and in reports.
    fn name(&self) -> &'static str;

    /// What exactly runs: version, for the report.
    ///
    /// # Errors
    /// The program cannot be run.
    fn version(&self) -> Result<String>;

    /// Whether B must be seen to refuse strangers (false for the yardsticks without TLS).
    fn has_tls(&self) -> bool {
        true
    }

    /// Whether this peer has worker threads and resumption at all, so that variants of it make sense.
    fn is_direct(&self) -> bool {
        false
    }

    /// Whether A's certificate in [`Pki`] is one that B takes.
    fn takes_our_certificates(&self) -> bool {
        true
    }

    /// Starts a pair.
    ///
    /// # Errors
    /// A configuration cannot be written or a process not started.
    fn start(&self, job: &Job<'_>) -> Result<Pair>;
}

/// No proxy: the client calls the backend.
pub(crate) struct Direct;

impl Peer for Direct {
    fn name(&self) -> &'static str {
        "none"
    }

    fn version(&self) -> Result<String> {
        Ok("client straight to the backend".into())
    }

    fn has_tls(&self) -> bool {
        false
    }

    fn is_direct(&self) -> bool {
        true
    }

    fn start(&self, job: &Job<'_>) -> Result<Pair> {
        Ok(Pair {
            call: job.backend,
            hop: None,
            proxies: None,
            others: Vec::new(),
            tap: None,
            _collector: None,
        })
    }
}

/// Addresses of a pair on 127.0.0.1, with the tap in between when the job asks for one.
struct Addresses {
    /// Where A listens.
    call: SocketAddr,
    /// Where B listens.
    hop: SocketAddr,
    /// Where A connects to: the tap, or B itself.
    next: SocketAddr,
}

impl Addresses {
    fn new(job: &Job<'_>) -> Result<Self> {
        let (call, hop) = (free(LOOPBACK)?, free(LOOPBACK)?);
        let next = if job.tapped { free(LOOPBACK)? } else { hop };
        Ok(Self { call, hop, next })
    }

    fn tap(&self, job: &Job<'_>) -> Result<Option<Tap>> {
        job.tapped.then(|| Tap::start(self.next, self.hop)).transpose()
    }
}

/// An address of `ip` with a port that is free right now.
fn free(ip: Ipv4Addr) -> Result<SocketAddr> {
    Ok(TcpListener::bind((ip, 0))?.local_addr()?)
}

/// A program of that name on the path or where Debian puts daemons.
fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    places.map(|place| place.join(name)).find(|file| file.is_file())
}

/// Runs a program to its end and gives what it printed.
fn output(program: &Path, args: &[&str]) -> Result<String> {
    let out = std::process::Command::new(program)
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    if !out.status.success() {
        let text = String::from_utf8_lossy(&out.stderr);
        bail!("{} {} failed: {}", program.display(), args.join(" "), text.trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// The same port on another loopback address.
fn on(ip: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(ip), port)
}
