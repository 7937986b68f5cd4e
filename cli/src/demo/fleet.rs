//! The processes of the demo: one control plane, a service and a sidecar for each pod.
//!
//! Invariant: no process outlives the demo: each is killed when the fleet is dropped, and each leaves by
//! itself when its parent is gone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::process::{Child, Command};

use super::jaeger::Jaeger;
use super::place::{Block, random};

/// A pod of the demo.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) name: &'static str,
    version: &'static str,
    /// Host in the block: the pod's own address. Its application listens at this plus 100.
    host: u8,
    /// What it calls: name, the host its sidecar listens at for it, service, path.
    calls: &'static [(&'static str, u8, &'static str, &'static str)],
}

/// All pods of the demo.
pub(crate) const PODS: [Pod; 7] = [
    Pod {
        name: "shop-0",
        version: "v1",
        host: 10,
        calls: &[("catalog", 70, "shop/catalog:8080", "items"), ("cart", 71, "shop/cart:8080", "cart")],
    },
    Pod { name: "catalog-v1-0", version: "v1", host: 20, calls: &[] },
    Pod { name: "catalog-v2-0", version: "v2", host: 21, calls: &[] },
    Pod {
        name: "cart-0",
        version: "v1",
        host: 30,
        calls: &[("payments", 72, "shop/payments:8080", "quote")],
    },
    Pod { name: "payments-0", version: "v1", host: 40, calls: &[] },
    Pod { name: "payments-1", version: "v1", host: 41, calls: &[] },
    Pod { name: "pay-later-0", version: "v1", host: 50, calls: &[] },
];

/// File of the join token of whoever looks at the mesh.
const OBSERVER_TOKEN: &str = "observer.token";

/// Everything that runs.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) block: Block,
    pub(crate) folder: PathBuf,
    program: PathBuf,
    /// What the join tokens of this demo begin with.
    secret: u128,
    otlp: Option<String>,
    /// The Jaeger beside the demo, if there is one.
    pub(crate) jaeger: Option<Jaeger>,
    control_plane: Option<Child>,
    control_plane_grpc: Option<SocketAddr>,
    /// Where the control plane's admin listens.
    pub(crate) control_plane_admin: Option<SocketAddr>,
    services: Vec<Child>,
    /// The sidecars, in the order of the pods.
    sidecars: Vec<Child>,
    /// Where each sidecar's admin listens, by pod.
    pub(crate) admin: BTreeMap<&'static str, SocketAddr>,
}

/// How long a process may take to be ready. Source: an idle machine needs 0.1 s; a loaded one much more.
const READY: Duration = Duration::from_secs(30);

impl Fleet {
    /// Starts everything, in the order in which it depends on each other.
    ///
    /// # Errors
    /// When a process does not start or is not ready in time, with the end of its log.
    ///
    /// # Cancel safety
    /// Dropping the future ends what was started.
    pub(crate) async fn start(block: Block, folder: &Path, otlp: Option<String>) -> anyhow::Result<Self> {
        let mut fleet = Self {
            block,
            folder: folder.to_owned(),
            program: std::env::current_exe().context("finding the weft program")?,
            secret: random()?,
            otlp,
            jaeger: None,
            control_plane: None,
            control_plane_grpc: None,
            control_plane_admin: None,
            services: Vec::new(),
            sidecars: Vec::new(),
            admin: BTreeMap::new(),
        };
        fleet.write_tokens()?;
        fleet.start_control_plane().await?;
        for pod in &PODS {
            fleet.start_service(pod)?;
        }
        for pod in &PODS {
            fleet.start_sidecar(pod)?;
        }
        for (at, pod) in PODS.iter().enumerate() {
            let file = fleet.path(&format!("{}.ready", pod.name));
            let ready = ready(&mut fleet.sidecars[at], &file).await;
            let ready = ready.map_err(|why| fleet.not_up(pod.name, &why))?;
            let admin = ready["admin"].as_str().unwrap_or_default();
            fleet.admin.insert(pod.name, admin.parse().context("the sidecar's admin address")?);
        }
        Ok(fleet)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder that the control plane watches.
    pub(crate) fn manifests(&self) -> PathBuf {
        self.path("manifests")
    }

    /// Writes the join tokens into files that nobody else can read.
    fn write_tokens(&self) -> anyhow::Result<()> {
        use std::os::unix::fs::OpenOptionsExt as _;
        for (name, text) in
            [("join-tokens.yaml", tokens(self.secret)), (OBSERVER_TOKEN, observer(self.secret))]
        {
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(self.path(name))?;
            std::io::Write::write_all(&mut file, text.as_bytes())?;
        }
        Ok(())
    }

    /// How a person looks at this mesh from another terminal.
    pub(crate) fn hint(&self) -> String {
        let at = self.control_plane_grpc.map(|address| address.to_string()).unwrap_or_default();
        format!(
            "Look at it yourself: {} stat --control-plane {at} --trust-anchors {} --join-token-file {}\n\
             and the same with tap instead of stat.\n",
            self.program.display(),
            self.path("trust-anchors.pem").display(),
            self.path(OBSERVER_TOKEN).display(),
        )
    }

    /// Starts the control plane; after a kill, on the address it had.
    pub(crate) async fn start_control_plane(&mut self) -> anyhow::Result<()> {
        let file = self.path("control-plane.ready");
        let _ = std::fs::remove_file(&file);
        let listen = self.control_plane_grpc.unwrap_or(SocketAddr::from((self.block.ip(2), 0)));
        let mut command = self.command("control-plane", "control-plane")?;
        command
            .args(["run", "--listen", &listen.to_string()])
            .args(["--admin", &SocketAddr::from((self.block.ip(2), 0)).to_string()])
            .args(["--observer", "spiffe://cluster.local/ns/weft-system/sa/observer"])
            .arg("--manifests")
            .arg(self.manifests())
            .arg("--state")
            .arg(self.path("state"))
            .arg("--join-tokens")
            .arg(self.path("join-tokens.yaml"))
            .arg("--write-trust-anchors")
            .arg(self.path("trust-anchors.pem"))
            .arg("--ready-file")
            .arg(&file);
        let child = command.spawn().context("starting the control plane")?;
        let told = ready(self.control_plane.insert(child), &file).await;
        let told = told.map_err(|why| self.not_up("control-plane", &why))?;
        let grpc = told["grpc"].as_str().unwrap_or_default();
        self.control_plane_grpc = Some(grpc.parse().context("the control plane's address")?);
        self.control_plane_admin = told["admin"].as_str().and_then(|admin| admin.parse().ok());
        Ok(())
    }

    /// Kills the control plane as a crash would.
    pub(crate) async fn kill_control_plane(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.control_plane.take() {
            child.kill().await.context("killing the control plane")?;
        }
        Ok(())
    }

    fn start_service(&mut self, pod: &Pod) -> anyhow::Result<()> {
        let mut command = self.command("demo-service", &format!("{}.service", pod.name))?;
        command
            .args(["--pod", pod.name, "--version", pod.version])
            .args(["--listen", &self.block.at(pod.host + 100).to_string()]);
        for (name, host, _, path) in pod.calls {
            command.args(["--call", &format!("{name}={}/{path}", self.block.at(*host))]);
        }
        self.services.push(command.spawn().with_context(|| format!("starting the service of {}", pod.name))?);
        Ok(())
    }

    fn start_sidecar(&mut self, pod: &Pod) -> anyhow::Result<()> {
        let mut command = self.command("proxy", pod.name)?;
        let control_plane = self.control_plane_grpc.context("the control plane has no address")?;
        command
            .args(["run", "--workload", &format!("shop/{}", pod.name)])
            .args(["--control-plane", &control_plane.to_string()])
            .arg("--trust-anchors")
            .arg(self.path("trust-anchors.pem"))
            .args(["--join-token", &token(self.secret, pod), "--workers", "1"])
            .args(["--admin", &SocketAddr::from((self.block.ip(pod.host), 0)).to_string()])
            .arg("--ready-file")
            .arg(self.path(&format!("{}.ready", pod.name)))
            .args(["--access-log-file".into(), self.path(&format!("{}.access.log", pod.name))])
            .arg("--inbound")
            .arg(format!("{}={}", self.block.at(pod.host), self.block.at(pod.host + 100)));
        for (_, host, service, _) in pod.calls {
            command.args(["--outbound", &format!("{}={service}", self.block.at(*host))]);
        }
        if let Some(otlp) = &self.otlp {
            command.args(["--otlp", otlp]);
        }
        self.sidecars.push(command.spawn().with_context(|| format!("starting the sidecar of {}", pod.name))?);
        Ok(())
    }

    /// A command of the multi-call program with its log in the demo's folder.
    fn command(&self, verb: &str, log: &str) -> anyhow::Result<Command> {
        let file =
            std::fs::OpenOptions::new().append(true).create(true).open(self.path(&format!("{log}.log")))?;
        let mut command = Command::new(&self.program);
        command
            .arg(verb)
            .env("WEFT_EXIT_WITH_PARENT", "true")
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true);
        Ok(command)
    }

    fn not_up(&self, name: &str, why: &anyhow::Error) -> anyhow::Error {
        let text = std::fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default();
        let tail: Vec<&str> = text.lines().rev().take(5).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        anyhow::anyhow!("{name} {why}; it said last:\n{}", tail.join("\n"))
    }

    /// Where the application of a pod listens, past its sidecar.
    pub(crate) fn application(&self, pod: &str) -> Option<SocketAddr> {
        let pod = PODS.iter().find(|known| known.name == pod)?;
        Some(self.block.at(pod.host + 100))
    }

    /// The door of the shop, at its sidecar.
    pub(crate) fn door(&self) -> SocketAddr {
        self.block.at(PODS[0].host)
    }

    /// Ends every process, sidecars and services first, and waits for them.
    pub(crate) async fn stop(&mut self) {
        let sidecars_first = self.sidecars.iter_mut().chain(&mut self.services);
        let mut all: Vec<&mut Child> = sidecars_first.chain(&mut self.control_plane).collect();
        for child in &mut all {
            let _ = child.start_kill();
        }
        for child in all {
            let _ = child.wait().await;
        }
        if let Some(jaeger) = &mut self.jaeger {
            jaeger.stop().await;
        }
    }
}

/// One join token a pod, and one for whoever looks, as the control plane reads them.
fn tokens(secret: u128) -> String {
    let pod = |pod: &Pod| format!("- token: {}\n  workload: shop/{}\n", token(secret, pod), pod.name);
    let looks =
        format!("- token: {}\n  serviceAccount: weft-system/observer\n  uses: 10000\n", observer(secret));
    PODS.iter().map(pod).chain([looks]).collect()
}

/// What a person who looks joins with.
fn observer(secret: u128) -> String {
    format!("{secret:032x}-observer")
}

/// What a pod joins with.
fn token(secret: u128, pod: &Pod) -> String {
    format!("{secret:032x}-{}", pod.name)
}

/// Waits until a process has said that it is ready, and what it said.
async fn ready(child: &mut Child, file: &Path) -> anyhow::Result<Value> {
    let started = Instant::now();
    while started.elapsed() < READY {
        if let Ok(text) = std::fs::read_to_string(file)
            && let Ok(value) = serde_json::from_str(&text)
        {
            return Ok(value);
        }
        if let Some(status) = child.try_wait()? {
            bail!("ended ({status}) before it was ready");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("is not ready within {} s", READY.as_secs())
}

#[cfg(test)]
mod tests {
    use weft_control_plane::tokens::Tokens;

    use super::*;

    #[test]
    fn a_control_plane_takes_the_tokens_whatever_the_secret() {
        let file = std::env::temp_dir().join(format!("weft-demo-tokens-{}", std::process::id()));
        std::fs::write(&file, tokens(0)).unwrap();
        let taken = Tokens::open(Some(&file), None).map(|_| ());
        std::fs::remove_file(&file).unwrap();
        assert_eq!(taken, Ok(()));
    }
}
