//! The control plane of the shipped library, fed with the simulated mesh as an API server's events would feed it.
//! Before this: `scale` starts it. After it: `fleet` connects.
//!
//! Invariant: everything after the event is the shipped code: model, compiler, publisher, sessions, TLS and gRPC, on one
//! serving thread and one compiling thread, as the binary has them.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use weft_control_plane::authority::{Authority, AuthoritySettings};
use weft_control_plane::certify::{Certify, Proofs};
use weft_control_plane::grpc::{self, Services};
use weft_control_plane::listen::Doorway;
use weft_control_plane::metrics::Metrics;
use weft_control_plane::observe::{Hub, Looking};
use weft_control_plane::publish::Publisher;
use weft_control_plane::serve::{Limits, Serve};
use weft_control_plane::status::Status;
use weft_control_plane::tls::{OWN_NAMESPACE, OwnCertificate, own_identity, server_config};
use weft_control_plane::tokens::Tokens;
use weft_control_plane_core::Compiler;
use weft_control_plane_core::model::{Model, Object, read};
use weft_proto::names::SpiffeId;

use super::mesh::{self, Mesh};
use super::talk::{self, OfPlane, Taken, ToPlane};

/// First argument of the rig when it is to be the control plane.
pub(crate) const PLANE: &str = "child:scale-plane";
/// File with the address of the gRPC services.
pub(crate) const GRPC: &str = "grpc.address";
/// File with the sidecars' certificate, DER.
pub(crate) const CHAIN: &str = "sidecar.crt";
/// File with their key, DER.
pub(crate) const KEY: &str = "sidecar.key";
/// Trust domain of the mesh.
const TRUST_DOMAIN: &str = "cluster.local";

/// Serves the mesh whose size is in `words` until the rig hangs up: services, sidecars, folder, file for the address.
///
/// # Errors
/// The control plane cannot be started.
pub(crate) fn serve(words: &[String]) -> Result<()> {
    let [services, sidecars, folder, file] = words else { anyhow::bail!("{PLANE} needs four words") };
    let mesh = Mesh { services: services.parse()?, sidecars: sidecars.parse()? };
    let authority = Arc::new(authority()?);
    credentials(&authority, Path::new(folder))?;
    let mut plane = Plane::new(mesh, &authority)?;
    let (metrics, status) = (plane.metrics.clone(), Arc::clone(&plane.status));
    let publisher = Arc::clone(&plane.publisher);
    let grpc = Path::new(folder).join(GRPC);
    std::thread::Builder::new().name("serve".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(open(&publisher, status, metrics, authority, &grpc))
    })?;
    talk::answer(Path::new(file), |question| plane.answer(&question))
}

/// The compiling side.
struct Plane {
    compiler: Compiler,
    publisher: Arc<Publisher>,
    metrics: Metrics,
    status: Arc<Status>,
    ready: Vec<bool>,
    backwards: Vec<bool>,
}

impl Plane {
    fn new(mesh: Mesh, authority: &Authority) -> Result<Self> {
        let mut model = Model::default();
        for document in mesh.documents() {
            model.apply(object(document)?, None);
        }
        let mut compiler = Compiler::new(model);
        let publisher = Arc::new(Publisher::default());
        publisher.trust_in(authority.trust());
        publisher.apply(&compiler.compile());
        Ok(Self {
            compiler,
            publisher,
            metrics: Metrics::register(&mut weft_control_plane::metrics::registry()),
            status: Arc::default(),
            ready: vec![true; mesh.services],
            backwards: vec![false; mesh.services],
        })
    }

    fn answer(&mut self, question: &ToPlane) -> Result<OfPlane> {
        let flip = |flags: &mut Vec<bool>, service: usize| {
            let flag = flags.get_mut(service).context("no such service")?;
            *flag = !*flag;
            anyhow::Ok(())
        };
        match question {
            ToPlane::Flip { service } => {
                flip(&mut self.ready, *service)?;
                self.change(*service)
            }
            ToPlane::Shuffle { service } => {
                flip(&mut self.backwards, *service)?;
                self.change(*service)
            }
            ToPlane::Tell => Ok(OfPlane::Told {
                streams: self.status.connected(),
                epochs: self.metrics.epochs_sent.get(),
                body_bytes: self.metrics.resource_bytes_sent.get(),
            }),
        }
    }

    fn change(&mut self, service: usize) -> Result<OfPlane> {
        let flag = |flags: &[bool]| flags.get(service).copied().unwrap_or_default();
        let object = object(mesh::slice(service, flag(&self.ready), flag(&self.backwards)))?;
        let (at, cpu) = (talk::now(), talk::thread_cpu());
        anyhow::ensure!(self.compiler.apply(object, None), "the change changes no fact");
        let (published, _) = self.publisher.apply(&self.compiler.compile());
        let cpu_nanos = talk::thread_cpu() - cpu;
        Ok(OfPlane::Taken(Taken { at, cpu_nanos, generation: published.generation() }))
    }
}

/// The serving side.
async fn open(
    publisher: &Publisher,
    status: Arc<Status>,
    metrics: Metrics,
    authority: Arc<Authority>,
    file: &Path,
) -> Result<()> {
    let stop = CancellationToken::new();
    let own = Arc::new(OwnCertificate::issue(&authority, OWN_NAMESPACE)?);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    fs::write(file, listener.local_addr()?.to_string())?;
    let doorway = Doorway {
        acceptor: TlsAcceptor::from(Arc::new(server_config(&authority, own)?)),
        trust_domain: TRUST_DOMAIN.into(),
        connections: STREAMS,
        metrics: metrics.clone(),
        stop: stop.clone(),
    };
    let limits = Limits { streams: STREAMS, ack: Duration::from_secs(30) };
    let own_id = own_identity(TRUST_DOMAIN, OWN_NAMESPACE);
    let hub = Hub::new(Arc::clone(&status), publisher.reader(), stop.clone());
    let looking = Looking::new(hub, Vec::new(), own_id.clone());
    let discovery = Serve::new(publisher, status, metrics.clone(), limits, stop);
    let tokens = Tokens::open(None, None).map_err(anyhow::Error::msg)?;
    let proofs = Proofs::JoinTokens(Arc::new(Mutex::new(tokens)), Arc::new(|_| None));
    let certify = Certify::new(authority, own_id, proofs, metrics);
    grpc::serve(listener, doorway, Services { discovery, certify, looking }).await;
    Ok(())
}

fn authority() -> Result<Authority> {
    let settings = AuthoritySettings {
        state: None,
        trust_domain: TRUST_DOMAIN.to_owned(),
        intermediate: false,
        leaf_life: Duration::from_secs(86_400),
    };
    Ok(Authority::open(&settings)?)
}

/// One certificate for all sidecars: they are of one service account.
fn credentials(authority: &Authority, folder: &Path) -> Result<()> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let id = SpiffeId {
        trust_domain: TRUST_DOMAIN.to_owned(),
        namespace: mesh::NAMESPACE.to_owned(),
        service_account: mesh::ACCOUNT.to_owned(),
    };
    let leaf = authority.sign(&id, &key)?;
    let first = leaf.chain.first().context("an empty chain")?;
    fs::write(folder.join(CHAIN), first)?;
    fs::write(folder.join(KEY), key.serialize_der())?;
    Ok(())
}

fn object(document: serde_json::Value) -> Result<Object> {
    Ok(read(document)?.context("not of the mesh")?.object)
}

/// Streams at once. Source: beyond what is measured.
const STREAMS: usize = 16_384;
