//! A whole mesh for a test: a control plane and sidecars as processes on loopback, applications in the
//! test's own process, manifests in a folder of its own.
//!
//! ```text
//! let app = App::raw(|mut wire| async move { … }).await;
//! let mesh = mesh!()
//!     .service("catalog", 8080, Some("http"))
//!     .pod(Pod::named("catalog-0").serves(8080, app.address))
//!     .pod(Pod::named("client-0").calls("catalog:8080"))
//!     .start()
//!     .await;
//! let mut wire = Wire::open(mesh.door("client-0", "catalog:8080")).await;
//! ```
//!
//! Everything is in namespace `test`. A pod's label `app` and its service account are its name without
//! the number; a Service selects the pods whose `app` is its name.
//!
//! Invariant: when the mesh is dropped, its processes are gone and its folder is deleted.
//! Invariant: no fixed port on a shared address: each mesh takes a block of 127.0.0.0/8 for itself.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod app;
mod look;
mod manifest;
mod part;
mod place;
mod sidecar;
mod visitor;
mod wire;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::Value;

pub use app::{Answer, App, Http, reply};
pub use look::{DEADLINE, in_time, until, until_within};
pub use manifest::{Pod, Standing};
pub use part::Part;
pub use sidecar::Sidecar;
pub use visitor::{Findings, Visitor};
pub use wire::Wire;

use manifest::Service;
use place::Place;

/// Begins a mesh; see [`mesh`](crate::mesh).
#[macro_export]
macro_rules! mesh {
    () => {
        $crate::mesh::Plan::new(env!("CARGO_BIN_EXE_weft-mesh-part"))
    };
}

/// A mesh that is not started yet.
#[derive(Debug)]
pub struct Plan {
    place: Place,
    services: Vec<Service>,
    pods: Vec<Pod>,
    control_plane: Vec<String>,
}

impl Plan {
    /// What [`mesh!`](crate::mesh!) calls: `program` is `weft-mesh-part`.
    pub fn new(program: &str) -> Self {
        let place = Place::new(program);
        let plan = Self { place, services: Vec::new(), pods: Vec::new(), control_plane: Vec::new() };
        plan.manifest("mesh.yaml", MESH)
    }

    /// A Service of one port; without `app_protocol` its protocol is detected.
    #[must_use]
    pub fn service(mut self, name: &str, port: u16, app_protocol: Option<&str>) -> Self {
        let host = FIRST_SERVICE + u8::try_from(self.services.len()).unwrap();
        let app_protocol = app_protocol.map(str::to_owned);
        self.services.push(Service { name: name.to_owned(), ip: self.place.ip(host), port, app_protocol });
        self
    }

    /// A pod, with its sidecar unless it says otherwise.
    #[must_use]
    pub fn pod(mut self, mut pod: Pod) -> Self {
        pod.ip = self.place.ip(FIRST_POD + u8::try_from(self.pods.len()).unwrap());
        self.pods.push(pod);
        self
    }

    /// The address of the pod that comes `ahead` pods after those that are there: 0 for the next one.
    pub fn coming(&self, ahead: u8) -> IpAddr {
        self.place.ip(FIRST_POD + u8::try_from(self.pods.len()).unwrap() + ahead)
    }

    /// A manifest beside those of the services and pods, or instead of the mesh's (`mesh.yaml`).
    #[must_use]
    pub fn manifest(self, name: &str, text: &str) -> Self {
        self.place.save(name, text);
        self
    }

    /// A flag of the control plane.
    #[must_use]
    pub fn control_plane(mut self, flag: &str, value: &str) -> Self {
        self.control_plane.extend([flag.to_owned(), value.to_owned()]);
        self
    }

    /// Starts the control plane and all sidecars, and waits until they are ready.
    ///
    /// # Cancel safety
    /// Dropped, it ends what was started.
    pub async fn start(self) -> Mesh {
        let Self { place, services, pods, control_plane } = self;
        place.tokens(&pods);
        let flags = control_plane;
        let mut mesh =
            Mesh { sidecars: BTreeMap::new(), control_plane: None, grpc: None, flags, services, pods, place };
        mesh.save_place();
        mesh.start_control_plane().await;
        let names: Vec<String> =
            mesh.pods.iter().filter(|pod| pod.started).map(|pod| pod.name.clone()).collect();
        for name in &names {
            mesh.spawn_sidecar(name);
        }
        for name in &names {
            mesh.ready(name).await;
        }
        mesh
    }
}

/// A running mesh.
#[derive(Debug)]
pub struct Mesh {
    // Ended before the folder they write to is deleted.
    sidecars: BTreeMap<String, Sidecar>,
    control_plane: Option<Part>,
    grpc: Option<SocketAddr>,
    flags: Vec<String>,
    services: Vec<Service>,
    pods: Vec<Pod>,
    place: Place,
}

impl Mesh {
    /// Where a pod's application reaches `service:port` through its sidecar.
    pub fn door(&self, pod: &str, service: &str) -> SocketAddr {
        let door = self.sidecar(pod).outbound.get(service);
        *door.unwrap_or_else(|| panic!("{pod} does not call {service}"))
    }

    /// A pod's sidecar.
    pub fn sidecar(&self, pod: &str) -> &Sidecar {
        self.sidecars.get(pod).unwrap_or_else(|| panic!("{pod} has no sidecar that runs"))
    }

    /// A pod's own address.
    pub fn ip(&self, pod: &str) -> IpAddr {
        self.pods.iter().find(|known| known.name == pod).expect("a pod of this mesh").ip
    }

    /// The folder of this mesh, for what a test wants to keep beside it.
    pub fn folder(&self) -> &Path {
        self.place.folder()
    }

    /// Saves a manifest as editors do, all at once.
    pub fn save(&self, name: &str, text: &str) {
        self.place.save(name, text);
    }

    /// Deletes a manifest.
    pub fn delete(&self, name: &str) {
        std::fs::remove_file(self.place.manifest(name)).unwrap();
    }

    /// Says how a pod stands, in the one manifest of all services and pods.
    pub fn stand(&mut self, pod: &str, standing: Standing) {
        self.pods.iter_mut().find(|known| known.name == pod).expect("a pod of this mesh").standing = standing;
        self.save_place();
    }

    fn save_place(&self) {
        let pods = self.pods.iter().filter(|pod| pod.standing != Standing::Absent).map(Pod::to_string);
        let text: Vec<String> = self.services.iter().map(Service::to_string).chain(pods).collect();
        self.place.save("place.yaml", &text.join("---\n"));
    }

    /// Starts the control plane; after a kill on the address that it had.
    ///
    /// # Cancel safety
    /// Dropped, it leaves the process to the mesh, which ends it.
    pub async fn start_control_plane(&mut self) {
        let listen = self.grpc.unwrap_or_else(|| SocketAddr::new(self.place.ip(CONTROL_PLANE), 0));
        let admin = SocketAddr::new(self.place.ip(CONTROL_PLANE), 0);
        let mut words = vec![
            "control-plane".to_owned(),
            format!("--listen={listen}"),
            format!("--admin={admin}"),
            format!("--manifests={}", self.place.manifest("").display()),
            format!("--state={}", self.place.path("state").display()),
            format!("--join-tokens={}", self.place.path("tokens.yaml").display()),
            format!("--write-trust-anchors={}", self.anchors().display()),
        ];
        words.extend(self.flags.iter().cloned());
        let mut part = Part::spawn(&self.place, "control-plane", &words);
        let ready = part.ready().await;
        self.grpc = Some(address(&ready["grpc"]));
        part.admin = Some(address(&ready["admin"]));
        self.control_plane = Some(part);
    }

    /// Kills the control plane as a crash would.
    pub fn kill_control_plane(&mut self) {
        self.control_plane = None;
    }

    /// What the control plane says on a page of its admin server.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn ask_control_plane(&self, path: &str) -> String {
        app::text(self.control_plane_admin(), path).await
    }

    /// Where the control plane's admin server is.
    pub fn control_plane_admin(&self) -> SocketAddr {
        let admin = self.control_plane.as_ref().and_then(|part| part.admin);
        admin.expect("a control plane that runs")
    }

    /// Starts a pod's sidecar, which does not run, and waits until it is ready.
    ///
    /// # Cancel safety
    /// Dropped, it leaves the process to the mesh, which ends it.
    pub async fn start_sidecar(&mut self, pod: &str) {
        self.spawn_sidecar(pod);
        self.ready(pod).await;
    }

    /// Takes a sidecar out of the mesh, still running: to end it, or to see it end.
    pub fn take_sidecar(&mut self, pod: &str) -> Sidecar {
        self.sidecars.remove(pod).expect("a sidecar that runs")
    }

    fn anchors(&self) -> PathBuf {
        self.place.path("trust-anchors.pem")
    }

    /// Starts a pod's sidecar, which does not run, and does not wait for it.
    pub fn spawn_sidecar(&mut self, name: &str) {
        let pod = self.pods.iter().find(|pod| pod.name == name).expect("a pod of this mesh");
        let sidecar = Sidecar::spawn(&self.place, pod, self.grpc.expect("a control plane that ran"));
        self.sidecars.insert(name.to_owned(), sidecar);
    }

    /// Waits until a sidecar that was started is ready.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn ready(&mut self, name: &str) {
        self.sidecars.get_mut(name).expect("just started").ready().await;
    }
}

fn address(value: &Value) -> SocketAddr {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no address: {value}"))
}

const CONTROL_PLANE: u8 = 2;
const FIRST_POD: u8 = 10;
const FIRST_SERVICE: u8 = 200;

/// Every request is logged, so that a test can ask what became of it.
const MESH: &str = "\
apiVersion: weft.dev/v1alpha1
kind: Mesh
metadata: {name: mesh}
spec:
  accessLog: All
  drain: {linger: 1s, deadline: 20s}
";
