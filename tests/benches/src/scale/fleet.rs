//! Simulated sidecars: each a connection of its own with mutual TLS and one Discovery stream.
//! Before this: `plane` serves. After it: `scale` takes what was received and when.
//!
//! Invariant: a sidecar acknowledges what it is sent at once, keeps the versions it holds over a reconnect, and presents
//! them; it takes nothing in that was not sent.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsConnector;
use weft_proto::v1;
use weft_proto::v1::discovery_request::Message as Request;
use weft_proto::v1::discovery_response::Message as Response;

use super::mesh::{self, Mesh};
use super::plane::{CHAIN, GRPC, KEY};
use super::talk::{self, Receipt, Received, ToFleet};
use crate::check::AnyServer;

/// First argument of the rig when it is to be the fleet.
pub(crate) const FLEET: &str = "child:scale-fleet";

/// Runs the sidecars of the mesh in `words` until the rig hangs up: services, sidecars, folder, file for the address.
///
/// # Errors
/// The fleet cannot be started.
pub(crate) fn serve(words: &[String]) -> Result<()> {
    let [services, sidecars, folder, file] = words else { bail!("{FLEET} needs four words") };
    let mesh = Mesh { services: services.parse()?, sidecars: sidecars.parse()? };
    crate::raise_open_files()?;
    let (orders, order) = watch::channel(Order { round: 0, open: false });
    let shared = Arc::new(Shared::new(Path::new(folder))?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for sidecar in 0..mesh.sidecars {
        runtime.spawn(Sidecar::new(mesh, sidecar, Arc::clone(&shared)).run(order.clone()));
    }
    // The sidecars live on a thread of their own; questions wait here.
    std::thread::Builder::new()
        .name("sidecars".into())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    let mut round = 0;
    talk::answer(Path::new(file), |question| {
        let began = talk::now();
        round += 1;
        match question {
            ToFleet::Open => {
                orders.send_replace(Order { round, open: true });
                shared.wait_for(|state| state.current == mesh.sidecars)?;
            }
            ToFleet::Close => {
                orders.send_replace(Order { round, open: false });
                shared.wait_for(|state| state.current == 0)?;
            }
            ToFleet::Take => {}
        }
        let nanos = talk::now() - began;
        Ok(Received { nanos, ..std::mem::take(&mut shared.lock().received) })
    })
}

/// What all sidecars are to do.
#[derive(Debug, Clone, Copy)]
struct Order {
    round: u64,
    open: bool,
}

/// What all sidecars share.
struct Shared {
    address: String,
    tls: Arc<ClientConfig>,
    dialling: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Sidecars that were brought to a state on the connection they have.
    current: usize,
    received: Received,
}

impl Shared {
    fn new(folder: &Path) -> Result<Self> {
        let chain = vec![CertificateDer::from(fs::read(folder.join(CHAIN))?)];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(fs::read(folder.join(KEY))?));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut tls = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
            .with_client_auth_cert(chain, key)?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            address: fs::read_to_string(folder.join(GRPC))?,
            tls: Arc::new(tls),
            dialling: Semaphore::new(DIALLING),
            state: Mutex::default(),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for(&self, reached: impl Fn(&State) -> bool) -> Result<()> {
        let began = std::time::Instant::now();
        loop {
            {
                let state = self.lock();
                ensure!(state.received.lost.0 == 0, "a stream ended: {}", state.received.lost.1);
                if reached(&state) {
                    return Ok(());
                }
                ensure!(began.elapsed() < PATIENCE, "only {} sidecars are there", state.current);
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// One sidecar.
struct Sidecar {
    number: usize,
    workload: String,
    subscriptions: Vec<String>,
    held: BTreeMap<(i32, String), Bytes>,
    shared: Arc<Shared>,
}

impl Sidecar {
    fn new(mesh: Mesh, number: usize, shared: Arc<Shared>) -> Self {
        let subscriptions = mesh.subscriptions(number).map(mesh::service_port).collect();
        Self { number, workload: mesh::workload(number), subscriptions, held: BTreeMap::new(), shared }
    }

    /// Follows the orders.
    async fn run(mut self, mut orders: watch::Receiver<Order>) {
        loop {
            let order = *orders.borrow_and_update();
            if order.open {
                let shared = Arc::clone(&self.shared);
                let mut current = false;
                let ended = tokio::select! {
                    ended = self.live(&mut current) => Some(ended),
                    _ = orders.wait_for(|next| next.round > order.round && !next.open) => None,
                };
                let mut state = shared.lock();
                state.current -= usize::from(current);
                if let Some(ended) = ended {
                    let why =
                        ended.err().map_or_else(|| "it ended well".to_owned(), |why| format!("{why:#}"));
                    state.received.lost.0 += 1;
                    state.received.lost.1 = why;
                }
            }
            if orders.wait_for(|next| next.round > order.round).await.is_err() {
                return;
            }
        }
    }

    /// One connection, until it ends.
    async fn live(&mut self, current: &mut bool) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let turn = shared.dialling.acquire().await?;
        let socket = TcpStream::connect(&shared.address).await.context("connect")?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from("control-plane.weft")?;
        let tls =
            TlsConnector::from(Arc::clone(&shared.tls)).connect(name, socket).await.context("handshake")?;
        let (sender, connection) = h2::client::handshake(tls).await?;
        // The driver ends with the connection; dropping this future drops it.
        let driver = async {
            connection.await?;
            bail!("the connection ended")
        };
        let stream = async {
            let (mut up, mut down) = self.open(sender).await?;
            let mut turn = Some(turn);
            let mut unread = BytesMut::new();
            while let Some(message) = next(&mut down, &mut unread).await? {
                let bytes = message.len() as u64;
                let Some(Response::Epoch(epoch)) = v1::DiscoveryResponse::decode(message)?.message else {
                    bail!("told to leave")
                };
                self.take(&epoch, bytes);
                let ack = Request::Ack(v1::Ack { nonce: epoch.nonce, refusals: Vec::new() });
                up.send_data(frame(ack), false)?;
                if turn.take().is_some() {
                    *current = true;
                    shared.lock().current += 1;
                }
            }
            bail!("the stream ended")
        };
        tokio::try_join!(driver, stream).map(|((), ())| ())
    }

    /// Opens the stream and says hello.
    async fn open(
        &self,
        sender: h2::client::SendRequest<Bytes>,
    ) -> Result<(h2::SendStream<Bytes>, h2::RecvStream)> {
        let request = http::Request::post("http://control-plane.weft/weft.v1.Discovery/Stream")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let (response, mut up) = sender.ready().await?.send_request(request, false)?;
        let subscription =
            |name: &String| v1::Key { r#type: v1::ResourceType::Outbound.into(), name: name.clone() };
        let held = |((kind, name), version): (&(i32, String), &Bytes)| v1::Held {
            key: Some(v1::Key { r#type: *kind, name: name.clone() }),
            version: version.clone(),
        };
        let hello = v1::Hello {
            workload: self.workload.clone(),
            version: "0.1.0".to_owned(),
            held: self.held.iter().map(held).collect(),
            subscriptions: self.subscriptions.iter().map(subscription).collect(),
            observes: false,
        };
        up.send_data(frame(Request::Hello(hello)), false)?;
        Ok((up, response.await?.into_body()))
    }

    fn take(&mut self, epoch: &v1::Epoch, bytes: u64) {
        for resource in &epoch.upserts {
            let Some(key) = &resource.key else { continue };
            self.held.insert((key.r#type, key.name.clone()), Bytes::copy_from_slice(&resource.version));
        }
        for key in &epoch.removals {
            self.held.remove(&(key.r#type, key.name.clone()));
        }
        let received = &mut self.shared.lock().received;
        let (sidecar, generation, at) = (self.number, epoch.generation, talk::now());
        received.epochs.push(Receipt { sidecar, generation, at });
        received.bytes += bytes;
        received.resources += epoch.upserts.len() as u64;
    }
}

/// The next message of a stream; none: it ended well.
async fn next(down: &mut h2::RecvStream, unread: &mut BytesMut) -> Result<Option<Bytes>> {
    loop {
        if let Some((&[_, a, b, c, d], rest)) = unread.split_first_chunk::<PREFIX>() {
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            if rest.len() >= length {
                unread.advance(PREFIX);
                let message = unread.split_to(length).freeze();
                // What is left of a large first epoch must not be kept for life.
                if unread.is_empty() {
                    *unread = BytesMut::new();
                }
                return Ok(Some(message));
            }
        }
        match down.data().await {
            Some(data) => {
                let data = data?;
                down.flow_control().release_capacity(data.len())?;
                unread.extend_from_slice(&data);
            }
            None => {
                let trailers = down.trailers().await?;
                ensure!(
                    trailers.is_none_or(|it| it.get("grpc-status").is_none_or(|it| it == "0")),
                    "refused"
                );
                return Ok(None);
            }
        }
    }
}

fn frame(message: Request) -> Bytes {
    let message = v1::DiscoveryRequest { message: Some(message) };
    let mut frame = BytesMut::with_capacity(PREFIX + message.encoded_len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    // A BytesMut grows as it is written to.
    let _ = message.encode(&mut frame);
    frame.freeze()
}

/// Bytes before each message. Source: gRPC over HTTP/2, Length-Prefixed-Message.
const PREFIX: usize = 5;
/// Sidecars that connect at once. Source: below the listener's backlog of 1,024; real ones come with jitter.
const DIALLING: usize = 512;
/// Longest wait for all sidecars.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(240);
/// Time between looks whether all are there.
const LOOK: std::time::Duration = std::time::Duration::from_millis(2);
