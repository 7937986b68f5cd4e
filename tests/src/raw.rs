//! One sidecar between a client and an application that both speak raw bytes.
//!
//! The control plane runs in this process, the sidecar in one of its own; everything is on loopback.
//! Both directions end at the same application: inbound by an explicit listener, outbound by a service
//! whose only endpoint stands outside the mesh.
//!
//! Invariant: every wait has a deadline, and nothing waits by sleeping.
//! Invariant: a rig that goes away leaves no process and no file behind, and fails the test if the
//! sidecar had died.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "harness: what fails here fails the test")]

pub mod application;
pub mod client;
pub mod http2;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use weft_control_plane::log::LogLevel;
use weft_control_plane::{ControlPlane, RunArgs};

use application::Application;

/// Only a hang reaches it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A control plane, a sidecar and two applications.
pub struct Rig {
    /// Plaintext in, application out; the port is declared HTTP.
    pub inbound: SocketAddr,
    /// The same for the application that speaks HTTP/2.
    pub inbound_h2: SocketAddr,
    /// A service of which nothing is declared.
    pub inbound_detect: SocketAddr,
    /// A service whose endpoint speaks HTTP/1.
    pub outbound: SocketAddr,
    /// A service whose endpoint speaks HTTP/2.
    pub outbound_h2: SocketAddr,
    /// The sidecar's admin server.
    pub admin: SocketAddr,
    /// The control plane's services.
    pub grpc: SocketAddr,
    /// The control plane's admin server.
    pub control_admin: SocketAddr,
    /// The application that speaks HTTP/1.
    pub application: Application,
    /// The application that speaks HTTP/2, if its script says so.
    pub application_h2: Application,
    sidecar: Child,
    folder: PathBuf,
    stop: CancellationToken,
    control_plane: Option<JoinHandle<()>>,
}

impl Rig {
    /// Starts everything; `program` is `weft-raw-sidecar`, `flags` are added to the sidecar's.
    pub fn start(program: &str, flags: &[&str]) -> Self {
        let folder = folder();
        let (application, application_h2) = (Application::start(), Application::start());
        let text = MANIFESTS
            .replace("HTTP1_PORT", &application.address.port().to_string())
            .replace("HTTP2_PORT", &application_h2.address.port().to_string());
        std::fs::create_dir_all(folder.join("manifests")).unwrap();
        std::fs::write(folder.join("manifests/all.yaml"), text).unwrap();
        let tokens = b"- token: token-of-raw-server\n  workload: raw/server\n";
        weft_control_plane::files::write_atomically(&folder.join("tokens.yaml"), tokens, 0o600).unwrap();
        let stop = CancellationToken::new();
        let (grpc, control_admin, control_plane) = control_plane(&folder, stop.clone());
        let sidecar = sidecar(program, &folder, grpc, [&application, &application_h2], flags);
        let mut rig = Self {
            inbound: UNSET,
            inbound_h2: UNSET,
            inbound_detect: UNSET,
            outbound: UNSET,
            outbound_h2: UNSET,
            admin: UNSET,
            grpc,
            control_admin,
            application,
            application_h2,
            sidecar,
            folder,
            stop,
            control_plane: Some(control_plane),
        };
        rig.wait_until_ready();
        rig
    }

    fn wait_until_ready(&mut self) {
        let started = Instant::now();
        let ready = loop {
            if let Ok(text) = std::fs::read_to_string(self.folder.join("ready.json")) {
                break serde_json::from_str::<serde_json::Value>(&text).unwrap();
            }
            let ended = self.sidecar.try_wait().unwrap();
            assert!(ended.is_none() && started.elapsed() < PATIENCE, "not ready ({ended:?}): {}", self.log());
            std::thread::yield_now();
        };
        self.admin = address(&ready["admin"]);
        let listeners: Vec<SocketAddr> = ready["listeners"].as_array().unwrap().iter().map(address).collect();
        let [outbound, outbound_h2, inbound, inbound_h2, inbound_detect] = listeners[..] else {
            panic!("listeners: {listeners:?}")
        };
        (self.outbound, self.outbound_h2) = (outbound, outbound_h2);
        (self.inbound, self.inbound_h2, self.inbound_detect) = (inbound, inbound_h2, inbound_detect);
    }

    /// What the sidecar wrote on standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("sidecar.log")).unwrap_or_default()
    }

    /// Whether the sidecar runs.
    pub fn is_alive(&mut self) -> bool {
        self.sidecar.try_wait().is_ok_and(|ended| ended.is_none())
    }

    /// Resident memory of the sidecar, bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.sidecar.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// How often the sidecar counted a limit as hit.
    pub fn limit_hit(&self, name: &str) -> u64 {
        let mut client = client::Client::connect(self.admin);
        client.send(b"GET /metrics HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        let answer = client.answer().expect("metrics");
        let text = String::from_utf8(answer.body).unwrap();
        let label = format!("limit=\"{name}\"");
        let line = text.lines().find(|line| line.starts_with("weft_limits_hit") && line.contains(&label));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    /// Waits until a limit was counted.
    pub fn until_limit_hit(&self, name: &str) {
        let started = Instant::now();
        while self.limit_hit(name) == 0 {
            assert!(started.elapsed() < PATIENCE, "the limit {name:?} was never counted");
        }
    }

    /// A clean request on a connection of its own is served.
    pub fn serves(&self, at: SocketAddr) {
        let mut client = client::Client::connect(at);
        client.send(PROBE);
        let answer = client.answer().expect("a clean request after hostile ones is answered");
        assert_eq!(answer.status, 200, "a clean request after hostile ones: {}", answer.head);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let alive = self.is_alive();
        let _ = self.sidecar.kill();
        let _ = self.sidecar.wait();
        self.stop.cancel();
        if let Some(thread) = self.control_plane.take() {
            let _ = thread.join();
        }
        let log = self.log();
        let _ = std::fs::remove_dir_all(&self.folder);
        if !std::thread::panicking() {
            assert!(alive, "the sidecar died: {log}");
            assert!(!log.contains("panicked"), "the sidecar panicked: {log}");
        }
    }
}

/// A clean request; what reaches the application of it is not kept.
pub const PROBE: &[u8] = b"GET /probe HTTP/1.1\r\nHost: clean\r\n\r\n";

const UNSET: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn folder() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("weft-raw-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn address(value: &serde_json::Value) -> SocketAddr {
    value.as_str().unwrap().parse().unwrap()
}

/// A control plane on a thread of its own.
fn control_plane(folder: &Path, stop: CancellationToken) -> (SocketAddr, SocketAddr, JoinHandle<()>) {
    let args = RunArgs {
        exit_with_parent: false,
        manifests: Some(folder.join("manifests")),
        cluster: weft_control_plane::args::ClusterArgs::default(),
        listen: UNSET,
        admin: UNSET,
        state: None,
        join_tokens: Some(folder.join("tokens.yaml")),
        trust_domain: "cluster.local".to_owned(),
        write_trust_anchors: Some(folder.join("anchors.pem")),
        certificate_life: Duration::from_secs(3600),
        intermediate: false,
        observers: Vec::new(),
        max_streams: 100,
        ack_timeout: PATIENCE,
        ready_file: None,
        log: "warn".to_owned(),
    };
    let (told, bound) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let mut running = ControlPlane::start(&args, LogLevel::default()).await.unwrap();
            tokio::time::timeout(PATIENCE, running.ready()).await.expect("ready in time");
            told.send((running.grpc, running.admin)).unwrap();
            stop.cancelled().await;
        });
    });
    let (grpc, admin) = bound.recv_timeout(PATIENCE).expect("the control plane starts");
    (grpc, admin, thread)
}

fn sidecar(
    program: &str,
    folder: &Path,
    control_plane: SocketAddr,
    [http1, http2]: [&Application; 2],
    flags: &[&str],
) -> Child {
    let log = std::fs::File::create(folder.join("sidecar.log")).unwrap();
    Command::new(program)
        .args(["--workload", "raw/server", "--join-token", "token-of-raw-server", "--admin", "127.0.0.1:0"])
        .args(["--control-plane", &control_plane.to_string()])
        .args(["--outbound", "127.0.0.1:0=raw/plain:80", "--outbound", "127.0.0.1:0=raw/plain:81"])
        .args(["--inbound", &format!("127.0.0.1:0={}#8080", http1.address)])
        .args(["--inbound", &format!("127.0.0.1:0={}#8081", http2.address)])
        .args(["--inbound", &format!("127.0.0.1:0={}#8082", http1.address)])
        .arg("--trust-anchors")
        .arg(folder.join("anchors.pem"))
        .arg("--ready-file")
        .arg(folder.join("ready.json"))
        .args(flags)
        .env("WEFT_LOG", "info")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

const MANIFESTS: &str = "\
apiVersion: v1
kind: Service
metadata: {name: app, namespace: raw}
spec:
  clusterIP: 127.44.0.1
  selector: {app: server}
  ports:
    - {name: http, port: 80, targetPort: 8080, appProtocol: http}
    - {name: h2, port: 81, targetPort: 8081, appProtocol: kubernetes.io/h2c}
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: raw, labels: {app: server}, annotations: {weft.dev/sidecar: injected}}
spec: {serviceAccountName: server, containers: [{name: app, image: app}]}
status: {phase: Running, podIP: 127.0.0.2, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Service
metadata: {name: plain, namespace: raw}
spec:
  clusterIP: 127.44.0.2
  selector: {app: plain}
  ports:
    - {name: http, port: 80, targetPort: HTTP1_PORT, appProtocol: http}
    - {name: h2, port: 81, targetPort: HTTP2_PORT, appProtocol: kubernetes.io/h2c}
---
apiVersion: v1
kind: Pod
metadata: {name: plain, namespace: raw, labels: {app: plain}}
spec: {serviceAccountName: plain, containers: [{name: app, image: app}]}
status: {phase: Running, podIP: 127.0.0.1, conditions: [{type: Ready, status: 'True'}]}
";
