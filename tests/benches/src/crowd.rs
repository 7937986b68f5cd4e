//! What a sidecar holds that knows many routes and talks to many peers: its memory before, after, and while it is
//! scraped.
//! Before this: `bench` was asked for `crowd`. After it: one control plane, one sidecar, and peers that are one thread.
//!
//! Invariant: every route is used once at least, so that each has its edge, its link and its series.
//! Peers are without sidecars: what mutual TLS adds to a connection is measured by `idle-tcp`.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use crate::cpu;
use crate::peer::weft;
use crate::process::Process;

/// The word that asks for this.
pub(crate) const CROWD: &str = "crowd";

/// Measures the memory of one sidecar among many routes and peers.
#[derive(Parser)]
#[command(name = "weft-bench crowd")]
pub(crate) struct Args {
    /// HTTPRoutes, spread over the services.
    #[arg(long, default_value_t = 500)]
    routes: u16,
    /// Services of one peer each.
    #[arg(long, default_value_t = 200)]
    peers: u16,
    /// Fails if the goal is missed.
    #[arg(long)]
    gate: bool,
    /// Weft's binary, instead of the one that is built beside the rig.
    #[arg(long, value_name = "FILE")]
    weft: Option<PathBuf>,
    /// Folder for the run's files. Default: beside the binary.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// MiB that a sidecar may hold. Source: the goal; a chart grants a sidecar 20 MiB to begin with.
const GOAL: f64 = 25.0;
const SIDECAR: Ipv4Addr = Ipv4Addr::new(127, 76, 0, 2);
const CONTROL_PLANE: Ipv4Addr = Ipv4Addr::new(127, 76, 0, 3);
const FIRST_PORT: u16 = 20_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs it; false when, gated, the goal was missed.
///
/// # Errors
/// A process does not start, or an answer is wrong.
pub(crate) fn bench(args: &Args) -> Result<bool> {
    ensure!(
        (1..=250).contains(&args.peers) && args.routes >= args.peers,
        "1 to 250 peers, and a route for each"
    );
    let program = weft::binary(args.weft.as_deref())?;
    let folder = crate::out_folder(args.out.as_deref())?.join("crowd");
    // What an earlier run left says nothing about this one.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(folder.join("manifests"))?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || serve(&listener));
    std::fs::write(folder.join("manifests/all.yaml"), manifests(args, port))?;
    let tokens = folder.join("tokens.yaml");
    std::fs::write(&tokens, "- {token: weft-bench-token, workload: bench/client}\n")?;
    std::fs::set_permissions(&tokens, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let _control_plane = control_plane(&program, &folder)?;
    let (sidecar, admin) = sidecar(&program, &folder, args.peers)?;
    let fresh = mib(sidecar.pid())?;
    for route in 0..args.routes {
        let peer = route % args.peers;
        get((SIDECAR, FIRST_PORT + peer).into(), &format!("/r{route}/item"))
            .with_context(|| format!("route {route}"))?;
    }
    let used = mib(sidecar.pid())?;
    let page = get(admin, "/metrics")?;
    let scraped = (0..5).try_fold(used, |most, _| {
        get(admin, "/metrics")?;
        Ok::<_, anyhow::Error>(mib(sidecar.pid())?.max(most))
    })?;
    let rows = page.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count();
    writeln!(
        std::io::stdout(),
        "| sidecar | MiB (PSS) |\n|---|---|\n| ready, nothing called | {fresh:.1} |\n\
         | {} routes used, {} peers linked | {used:.1} |\n| scraped: {rows} rows, {} KiB | {scraped:.1} |",
        args.routes,
        args.peers,
        page.len() / 1024,
    )?;
    let met = scraped <= GOAL;
    eprintln!("goal: at most {GOAL} MiB: {}", if met { "met" } else { "missed" });
    Ok(met || !args.gate)
}

fn mib(pid: u32) -> Result<f64> {
    Ok(cpu::pss_kib(pid)? as f64 / 1024.0)
}

fn control_plane(program: &Path, folder: &Path) -> Result<Process> {
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let args = [
        "control-plane".to_owned(),
        "run".to_owned(),
        "--admin=127.0.0.1:0".to_owned(),
        format!("--manifests={}", file("manifests")),
        format!("--listen={}", SocketAddr::new(CONTROL_PLANE.into(), FIRST_PORT)),
        format!("--join-tokens={}", file("tokens.yaml")),
        format!("--write-trust-anchors={}", file("anchors.pem")),
        format!("--ready-file={}", file("control-plane.ready")),
    ];
    let mut process = Process::start("control-plane", program, &args, folder)?;
    process.wait_for_file(&folder.join("control-plane.ready"))?;
    Ok(process)
}

fn sidecar(program: &Path, folder: &Path, peers: u16) -> Result<(Process, SocketAddr)> {
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let mut args = vec![
        "proxy".to_owned(),
        "run".to_owned(),
        format!("--admin={}", SocketAddr::new(SIDECAR.into(), 0)),
        "--workload=bench/client".to_owned(),
        format!("--control-plane={}", SocketAddr::new(CONTROL_PLANE.into(), FIRST_PORT)),
        format!("--trust-anchors={}", file("anchors.pem")),
        "--join-token=weft-bench-token".to_owned(),
        "--workers=1".to_owned(),
        format!("--access-log-file={}", file("access.log")),
        format!("--ready-file={}", file("client.ready")),
    ];
    args.extend(
        (0..peers).map(|peer| format!("--outbound={SIDECAR}:{}=bench/s{peer}:80", FIRST_PORT + peer)),
    );
    let mut process = Process::start("weft-client", program, &args, folder)?;
    let ready = folder.join("client.ready");
    process.wait_for_file(&ready)?;
    let ready: serde_json::Value = serde_json::from_slice(&std::fs::read(ready)?)?;
    let admin = ready.get("admin").and_then(|admin| admin.as_str()).context("no admin address")?;
    Ok((process, admin.parse()?))
}

fn manifests(args: &Args, port: u16) -> String {
    let mut text = String::from(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: client, namespace: bench, labels: {app: client}, annotations: {weft.dev/sidecar: injected}}\n\
         spec: {serviceAccountName: client, containers: [{name: app, image: app}]}\nstatus: {phase: Running, podIP: 127.76.0.2}\n",
    );
    for peer in 0..args.peers {
        // A string takes every byte.
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{peer}, namespace: bench}}\n\
             spec: {{clusterIP: 127.76.1.{peer}, selector: {{app: s{peer}}}, ports: [{{name: http, port: 80, targetPort: {port}, appProtocol: http}}]}}\n\
             ---\napiVersion: v1\nkind: Pod\nmetadata: {{name: s{peer}-0, namespace: bench, labels: {{app: s{peer}}}}}\n\
             spec: {{serviceAccountName: s{peer}, containers: [{{name: app, image: app}}]}}\n\
             status: {{phase: Running, podIP: 127.76.2.{peer}, conditions: [{{type: Ready, status: 'True'}}]}}\n"
        );
    }
    for route in 0..args.routes {
        let peer = route % args.peers;
        let _ = write!(
            text,
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r{route}, namespace: bench}}\n\
             spec:\n  parentRefs: [{{group: '', kind: Service, name: s{peer}, port: 80}}]\n  rules:\n\
             \x20 - matches: [{{path: {{value: /r{route}}}, headers: [{{name: x-canary, value: '1'}}]}}]\n    backendRefs: [{{name: s{peer}, port: 80}}]\n\
             \x20 - matches: [{{path: {{value: /r{route}}}}}]\n    timeouts: {{request: 10s}}\n    backendRefs: [{{name: s{peer}, port: 80, weight: 9}}, {{name: s{}, port: 80, weight: 0}}]\n",
            (peer + 1) % args.peers
        );
    }
    text
}

/// Answers every request on every connection, until the rig ends.
fn serve(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || drop(answer(&stream)));
    }
}

fn answer(stream: &TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if line == "\r\n" {
            let mut answer = stream;
            answer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
        }
    }
}

/// The body of one GET on a connection of its own.
fn get(to: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    let (head, body) = said.split_once("\r\n\r\n").context("no answer")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "answered with {head}");
    Ok(body.to_owned())
}
