//! Weft: a control plane on a folder of manifests and two sidecars on explicit listeners.
//! Before this: `peer`. After it: three processes of the `weft` binary, and what a person would start by hand.
//!
//! Invariant: nothing is switched off for the bench: identities come from the control plane, the route has rules to
//! choose from, an AuthorizationPolicy admits the client's identity and nobody else, metrics are on.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::{Job, Pair, Peer, free, on, output};
use crate::plan::Shape;
use crate::process::Process;
use crate::tap::Tap;
use collector::Collector;

pub(crate) mod collector;

/// What the sidecars tell about requests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Telling {
    /// What they tell where nothing is said: metrics, errors in the log, traces to nobody.
    Default,
    /// Metrics, every request in the log, traces to a collector at the default sampling.
    All,
    /// Nothing.
    Nothing,
}

/// Weft's one binary, found or built.
pub(crate) struct Weft {
    program: PathBuf,
    full_handshake: Vec<String>,
    telling: Telling,
}

impl Weft {
    /// Takes the binary that was given, or brings the one beside the rig up to date with cargo.
    ///
    /// # Errors
    /// There is none, or it cannot be built.
    pub(crate) fn find(given: Option<&Path>, full_handshake: &[String], telling: Telling) -> Result<Self> {
        let program = binary(given)?;
        Ok(Self { program, full_handshake: full_handshake.to_vec(), telling })
    }
}

impl Peer for Weft {
    fn name(&self) -> &'static str {
        match self.telling {
            Telling::Default => "weft",
            Telling::All => "weft-tells",
            Telling::Nothing => "weft-mute",
        }
    }

    fn version(&self) -> Result<String> {
        Ok(output(&self.program, &["--version"])?.trim().to_owned())
    }

    fn takes_our_certificates(&self) -> bool {
        false
    }

    fn start(&self, job: &Job<'_>) -> Result<Pair> {
        let at = Places::new(job)?;
        let tap = job.tapped.then(|| Tap::start(at.endpoint, at.hop)).transpose()?;
        let folder = job.workdir.join("manifests");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("mesh.yaml"), manifests(job.shape, &at))?;
        let collector = (self.telling == Telling::All).then(Collector::start).transpose()?;
        if let Some(collector) = &collector {
            let told = TELLS.replace("COLLECTOR", &collector.address.to_string());
            fs::write(folder.join("telemetry.yaml"), told)?;
        }
        let tokens = job.workdir.join("tokens.yaml");
        let entry = |pod: &str| format!("- {{token: {TOKEN}-{pod}, workload: bench/{pod}}}\n");
        fs::write(&tokens, entry("client") + &entry("server"))?;
        fs::set_permissions(&tokens, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let control_plane = self.control_plane(job, &at, &folder)?;
        let outbound = format!("{}=bench/server:{SERVICE_PORT}", at.call);
        let inbound = format!("{}={}", at.hop, job.backend);
        let mut a = self.sidecar(job, &at, "client", ["--outbound", &outbound])?;
        let mut b = self.sidecar(job, &at, "server", ["--inbound", &inbound])?;
        a.wait_for_file(&job.workdir.join("client.ready"))?;
        b.wait_for_file(&job.workdir.join("server.ready"))?;
        Ok(Pair {
            call: at.call,
            hop: Some(at.hop),
            proxies: Some([a, b]),
            others: vec![control_plane],
            tap,
            _collector: collector,
        })
    }
}

impl Weft {
    fn control_plane(&self, job: &Job<'_>, at: &Places, folder: &Path) -> Result<Process> {
        let file = |name: &str| job.workdir.join(name).to_string_lossy().into_owned();
        let mut args: Vec<String> =
            ["control-plane", "run", "--admin", "127.0.0.1:0"].map(str::to_owned).into();
        args.extend(["--manifests".into(), folder.to_string_lossy().into_owned()]);
        args.extend(["--listen".into(), at.control_plane.to_string()]);
        args.extend(["--join-tokens".into(), file("tokens.yaml")]);
        args.extend(["--write-trust-anchors".into(), file("anchors.pem")]);
        args.extend(["--ready-file".into(), file("control-plane.ready")]);
        let mut process = Process::start("control-plane", &self.program, &args, job.workdir)?;
        process.wait_for_file(&job.workdir.join("control-plane.ready"))?;
        Ok(process)
    }

    fn sidecar(&self, job: &Job<'_>, at: &Places, pod: &str, listener: [&str; 2]) -> Result<Process> {
        let file = |name: &str| job.workdir.join(name).to_string_lossy().into_owned();
        let mut args: Vec<String> = ["proxy", "run", "--admin", "127.0.0.1:0"].map(str::to_owned).into();
        args.extend(["--workload".into(), format!("bench/{pod}")]);
        args.extend(["--control-plane".into(), at.control_plane.to_string()]);
        args.extend(["--trust-anchors".into(), file("anchors.pem")]);
        args.extend(["--join-token".into(), format!("{TOKEN}-{pod}")]);
        args.extend(["--ready-file".into(), file(&format!("{pod}.ready"))]);
        args.extend(["--workers".into(), job.workers.to_string()]);
        args.extend(listener.map(str::to_owned));
        match self.telling {
            Telling::Default => {}
            Telling::All => args.extend(["--access-log-file".into(), file(&format!("{pod}.access.log"))]),
            Telling::Nothing => args.extend(["--access-log=off", "--no-traffic-metrics"].map(str::to_owned)),
        }
        if !job.resume {
            args.extend(self.full_handshake.iter().cloned());
        }
        Process::start(&format!("weft-{pod}"), &self.program, &args, job.workdir)
    }
}

/// Addresses of the pair. The endpoint keeps the application's own port, as behind a redirect.
struct Places {
    control_plane: SocketAddr,
    call: SocketAddr,
    hop: SocketAddr,
    endpoint: SocketAddr,
}

impl Places {
    fn new(job: &Job<'_>) -> Result<Self> {
        let port = job.backend.port();
        let hop = on(SERVER_POD, port);
        let endpoint = if job.tapped { on(TAP, port) } else { hop };
        Ok(Self { control_plane: free(super::LOOPBACK)?, call: free(CLIENT_POD)?, hop, endpoint })
    }
}

/// The binary that was given, or the one beside the rig.
///
/// # Errors
/// There is none, or it cannot be built.
pub(crate) fn binary(given: Option<&Path>) -> Result<PathBuf> {
    match given {
        Some(path) => path.canonicalize().with_context(|| format!("no such file: {}", path.display())),
        None => built(),
    }
}

/// The binary beside the rig, made current by the cargo that runs the rig.
fn built() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("the rig has no folder")?;
    let program = folder.join("weft");
    if let Some(cargo) = std::env::var_os("CARGO") {
        let name = folder.file_name().and_then(|name| name.to_str()).context("no profile")?;
        let profile = if name == "debug" { "dev" } else { name };
        eprintln!("building weft with the profile {profile}");
        let status = std::process::Command::new(cargo)
            .args(["build", "-p", "weft", "--profile", profile, "--manifest-path"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"))
            .status()?;
        ensure!(status.success(), "weft could not be built");
    }
    ensure!(
        program.is_file(),
        "there is no {}: build it with the rig's profile, or give --weft",
        program.display()
    );
    Ok(program)
}

fn manifests(shape: Shape, at: &Places) -> String {
    let protocol = match shape {
        Shape::Http => "http",
        Shape::Grpc => "kubernetes.io/h2c",
        Shape::Tcp => "tcp",
    };
    let route = match shape {
        Shape::Http => HTTP_ROUTE,
        Shape::Grpc => GRPC_ROUTE,
        Shape::Tcp => "",
    };
    BASE.replace("CLIENT_IP", &CLIENT_POD.to_string())
        .replace("SERVER_IP", &at.endpoint.ip().to_string())
        .replace("CLUSTER_IP", &CLUSTER_IP.to_string())
        .replace("TARGET_PORT", &at.hop.port().to_string())
        .replace("SERVICE_PORT", &SERVICE_PORT.to_string())
        .replace("PROTOCOL", protocol)
        + route
}

const CLIENT_POD: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 2);
const SERVER_POD: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 3);
const TAP: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 4);
const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(127, 77, 1, 1);
const SERVICE_PORT: u16 = 8080;

/// Good for this run only: the root it leads to lives in the memory of one control plane.
const TOKEN: &str = "weft-bench-token";

/// Every request is logged, and traces go to the rig's collector.
const TELLS: &str = include_str!("weft/tells.yaml");
const BASE: &str = include_str!("weft/base.yaml");
const HTTP_ROUTE: &str = include_str!("weft/http-route.yaml");
const GRPC_ROUTE: &str = include_str!("weft/grpc-route.yaml");
