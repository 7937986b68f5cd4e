//! A mesh on a cluster, as scenarios meet it: installed as a user installs it, and used by `kubectl`, `weft`
//! and requests from pods.
//!
//! ```text
//! Mesh     a cluster, the Gateway API's kinds, Weft installed      one of a test binary
//! Space    a namespace, meshed or plain                            one of a test
//! App      a deployment of `weft-load` with its Service            as many as a test needs
//! Answer   what one request brought back                           Tap: what the node's interfaces saw
//! ```
//!
//! Invariant: everything goes through what a user has: `kubectl`, `weft`, manifests, requests from pods.

mod answer;
mod app;
mod space;
mod tap;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use anyhow::Context as _;
use serde_json::Value;

pub use answer::{Answer, field};
pub use app::{App, LOAD_IMAGE, load_manifest};
pub use space::{Load, Space};
pub use tap::{Stream, Tap};

use crate::cluster::{Cluster, Options};
use crate::image::Image;
use crate::mesh::{CONTROL_PLANE, NAMESPACE, Programs};
use crate::{program, skip};

/// Names a kept cluster (`cargo dev cluster --detach`) to run scenarios on, instead of bringing one up: for
/// whoever works on a scenario. What of its pods runs already keeps running what it runs.
const KEPT: &str = "WEFT_CLUSTER";
/// Every request is logged, so that a scenario can read what a sidecar knew of it.
const MESH: &str = "
apiVersion: weft.dev/v1alpha1
kind: Mesh
metadata: {name: mesh}
spec: {accessLog: All}
";

/// A mesh that is up.
#[derive(Debug)]
pub struct Mesh {
    /// The cluster that it is installed on.
    pub cluster: Cluster,
    programs: &'static Programs,
}

/// What a test binary wants its mesh to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish {
    /// Pods and Services have IPv6 addresses too.
    pub dual_stack: bool,
    /// Flags of `weft install`.
    pub install: &'static [&'static str],
    /// Only the images are loaded: the scenarios install, the Gateway API's kinds too.
    pub bare: bool,
}

impl Mesh {
    /// The mesh that this test process's tests share, brought up at first use as the first caller wishes.
    ///
    /// `None` where the machine cannot hold one, which has then been said loudly.
    ///
    /// # Panics
    /// It did not come up; or it cannot, and `CI=true`.
    pub fn shared(wish: Wish) -> Option<&'static Self> {
        static SHARED: OnceLock<Result<Mesh, String>> = OnceLock::new();
        if let Some(reason) = skip::missing() {
            skip::say(&reason);
            return None;
        }
        match SHARED.get_or_init(|| Self::start(wish).map_err(|error| format!("{error:#}"))) {
            Ok(mesh) => Some(mesh),
            Err(error) => panic!("the mesh did not come up: {error}"),
        }
    }

    fn start(wish: Wish) -> anyhow::Result<Self> {
        let programs = Programs::shared()?;
        let mesh = Self { cluster: cluster(wish)?, programs };
        let load = mesh.cluster.folder().join("weft-load.tar");
        workload_image(&load)?;
        mesh.cluster.import_image(&load)?;
        if wish.bare {
            mesh.cluster.import_weft(programs)?;
            return Ok(mesh);
        }
        mesh.cluster.install_gateway_api()?;
        mesh.cluster.install_weft(programs, wish.install)?;
        mesh.settle()?;
        mesh.cluster.apply(MESH)?;
        Ok(mesh)
    }

    /// Waits, as `weft check` does by itself, until it has nothing to say against the mesh; gives what it says.
    ///
    /// # Errors
    /// What it says in the end, and what the control plane's namespace looks like.
    pub fn settle(&self) -> anyhow::Result<String> {
        self.weft(&["check"]).with_context(|| self.cluster.picture(NAMESPACE))
    }

    /// Installs it again with these flags, as a user would who changes something.
    ///
    /// # Errors
    /// What was refused, or what `weft check` says in the end.
    pub fn install(&self, flags: &[&str]) -> anyhow::Result<()> {
        self.cluster.apply(&self.weft(&[&["install"], flags].concat())?)?;
        self.cluster.rolled_out(NAMESPACE, CONTROL_PLANE)?;
        self.settle().map(drop)
    }

    /// Runs `weft` as a user of the cluster, and gives what it wrote to its standard output.
    ///
    /// # Errors
    /// It failed; with what it said.
    pub fn weft(&self, arguments: &[&str]) -> anyhow::Result<String> {
        program::output(self.weft_command().args(arguments))
    }

    /// [`weft`](Self::weft), whether it succeeds or not, reading `input`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn try_weft(&self, arguments: &[&str], input: &str) -> anyhow::Result<Output> {
        program::fed(self.weft_command().args(arguments), input.as_bytes())
    }

    fn weft_command(&self) -> Command {
        self.cluster.command(self.programs.file("weft"))
    }

    /// The names of the control plane's pods, but of those that are leaving.
    ///
    /// # Errors
    /// What `kubectl` says.
    pub fn replicas(&self) -> anyhow::Result<Vec<String>> {
        let of_it = "--selector=app.kubernetes.io/name=weft-control-plane";
        let text =
            self.cluster.kubectl(&["get", "pods", "--namespace", NAMESPACE, of_it, "--output=json"])?;
        let list: Value = serde_json::from_str(&text)?;
        let pods = field(&list, "items").as_array().into_iter().flatten();
        let staying = pods.filter(|pod| field(pod, "metadata.deletionTimestamp").is_null());
        Ok(staying.filter_map(|pod| Some(field(pod, "metadata.name").as_str()?.to_owned())).collect())
    }

    /// The one of [`replicas`](Self::replicas) that holds the Lease, which it signs as `pod_process`.
    ///
    /// # Errors
    /// There is no Lease.
    pub fn leader(&self) -> anyhow::Result<Option<String>> {
        let lease = self.object(NAMESPACE, "lease/weft-control-plane")?;
        let holder = field(&lease, "spec.holderIdentity").as_str().unwrap_or_default();
        let (pod, _) = holder.split_once('_').unwrap_or_default();
        Ok(self.replicas()?.into_iter().find(|replica| replica == pod))
    }

    /// A namespace whose pods get sidecars.
    ///
    /// # Errors
    /// What `kubectl` says.
    pub fn meshed(&self, name: &str) -> anyhow::Result<Space<'_>> {
        self.space(name, &["weft.dev/inject=enabled"])
    }

    /// A namespace of pods without sidecars.
    ///
    /// # Errors
    /// What `kubectl` says.
    pub fn plain(&self, name: &str) -> anyhow::Result<Space<'_>> {
        self.space(name, &[])
    }

    /// A namespace with labels.
    ///
    /// # Errors
    /// What `kubectl` says.
    pub fn space(&self, name: &str, labels: &[&str]) -> anyhow::Result<Space<'_>> {
        self.cluster.namespace(name, labels)?;
        Ok(Space::new(self, name))
    }

    /// Reads what crosses the node's interfaces from or to a port, from now on.
    ///
    /// # Errors
    /// The tap cannot be started.
    pub fn tap(&self, marker: &str, port: u16) -> anyhow::Result<Tap> {
        Tap::start(self.cluster.command(program::beside("weft-load")?), marker, port)
    }

    /// Runs `weft-load` on the node, where the kubelet runs; gives each line it told.
    ///
    /// # Errors
    /// It could not be run.
    pub fn on_node(&self, arguments: &[&str]) -> anyhow::Result<Vec<Value>> {
        let told = program::output(self.cluster.command(program::beside("weft-load")?).args(arguments))?;
        told.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// One request through `kubectl port-forward`.
    ///
    /// # Errors
    /// The forwarding does not come up, or the request could not be made.
    pub fn forwarded(&self, namespace: &str, pod: &str, port: u16, path: &str) -> anyhow::Result<Value> {
        let mut command = self.cluster.command("kubectl");
        command.args(["port-forward", "--namespace", namespace, pod, &format!(":{port}")]);
        let mut forward = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        // Held open to the end: kubectl says a line for each connection, and dies when nobody reads.
        let mut said = BufReader::new(forward.stdout.take().context("a pipe was asked for")?);
        let mut line = String::new();
        said.read_line(&mut line)?;
        let here = line.split("->").next().and_then(|line| line.rsplit(' ').find(|word| !word.is_empty()));
        let told = self.on_node(&["get", &format!("http://{}{path}", here.unwrap_or_default())]);
        forward.kill()?;
        forward.wait()?;
        told?.into_iter().next().context("nothing was told")
    }

    /// An object, as the API server has it.
    ///
    /// # Errors
    /// There is none.
    pub fn object(&self, namespace: &str, name: &str) -> anyhow::Result<Value> {
        let text = self.cluster.kubectl(&["get", "--namespace", namespace, name, "--output=json"])?;
        serde_json::from_str(&text).with_context(|| text)
    }
}

/// The kept one, or one of this process's own.
fn cluster(wish: Wish) -> anyhow::Result<Cluster> {
    if let Ok(name) = std::env::var(KEPT) {
        return Cluster::attach(&name);
    }
    let mut options = Options::new(&format!("mesh-{}", std::process::id()));
    options.dual_stack = wish.dual_stack;
    Cluster::start(&options)
}

/// The tests' workload, as an image.
fn workload_image(archive: &Path) -> anyhow::Result<()> {
    Image::new(LOAD_IMAGE)
        .program("/weft-load", &program::beside("weft-load")?)?
        .folder("/tmp", 0o1777)
        .entry_point(&["/weft-load"])
        .user(1000)
        .save(archive)?;
    Ok(())
}
