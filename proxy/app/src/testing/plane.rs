//! A control plane for tests: real TCP, real mutual TLS, the real services; what it answers is the
//! test's to say, message by message.
//!
//! `Front` is the address that outlives control planes: it hands each connection to the `Plane` that
//! is up, and closes it when none is.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, PublicKeyData, SanType,
};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};
use weft_proto::v1;
use weft_proto::v1::discovery_request::Message;
use weft_proto::v1::discovery_server::{Discovery, DiscoveryServer};
use weft_proto::v1::identity_server::{Identity, IdentityServer};

/// Longer than anything takes on a slow machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
pub(crate) const TOKEN: &str = "join-token-of-cart-0";
const OWN: &str = "spiffe://cluster.local/ns/weft-system/sa/weft-control-plane";

/// `work`, or a failed test.
pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

/// A root and what it signs.
pub(crate) struct Ca {
    pub(crate) root: CertificateDer<'static>,
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        let (der, pem) = (root.der().clone(), root.pem());
        Self { issuer: Issuer::from_ca_cert_der(&der, key).unwrap(), root: der, pem }
    }

    pub(crate) fn sign(
        &self,
        identity: &str,
        key: &impl PublicKeyData,
        not_after: u64,
    ) -> CertificateDer<'static> {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let mut params = CertificateParams::default();
        params.not_before = epoch + Duration::from_secs(now().saturating_sub(300));
        params.not_after = epoch + Duration::from_secs(not_after);
        params.subject_alt_names = vec![SanType::URI(identity.try_into().unwrap())];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.signed_by(key, &self.issuer).unwrap().der().clone()
    }
}

pub(crate) fn now() -> u64 {
    crate::certify::unix(SystemTime::now())
}

/// The address sidecars know, whichever control plane is behind it.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    pub(crate) anchors: PathBuf,
    up: Arc<Mutex<Option<mpsc::Sender<TcpStream>>>>,
}

impl Front {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let up: Arc<Mutex<Option<mpsc::Sender<TcpStream>>>> = Arc::default();
        let behind = Arc::clone(&up);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let plane = behind.lock().unwrap().clone();
                if let Some(plane) = plane {
                    let _ = plane.send(tcp).await;
                }
            }
        });
        Self { address, anchors: super::scratch("anchors").join("roots.pem"), up }
    }

    pub(crate) fn settings(&self, more: &[&str]) -> crate::settings::Settings {
        use clap::Parser;
        #[derive(Parser)]
        struct Command {
            #[command(flatten)]
            run: crate::settings::RunArgs,
        }
        let address = self.address.to_string();
        let anchors = self.anchors.display().to_string();
        let least =
            ["weft-proxy", "--workload", "shop/cart-0", "--join-token", TOKEN, "--control-plane", &address];
        let listen = ["--trust-anchors", &anchors, "--outbound", "127.0.0.1:0=shop/catalog:80"];
        Command::try_parse_from(least.iter().chain(&listen).chain(more)).unwrap().run.lower().unwrap()
    }

    /// Puts a control plane behind the address, and its root into the anchors file.
    pub(crate) fn start(&self, ca: Ca) -> Plane {
        std::fs::write(&self.anchors, &ca.pem).unwrap();
        let (plane, connections) = Plane::start(ca, OWN);
        *self.up.lock().unwrap() = Some(connections);
        plane
    }

    /// A control plane of another name, with a certificate of the same root.
    pub(crate) fn start_as(&self, ca: Ca, identity: &str) -> Plane {
        std::fs::write(&self.anchors, &ca.pem).unwrap();
        let (plane, connections) = Plane::start(ca, identity);
        *self.up.lock().unwrap() = Some(connections);
        plane
    }

    /// No control plane: connections are closed.
    pub(crate) fn down(&self) {
        *self.up.lock().unwrap() = None;
    }
}

/// One control plane process; dropping it breaks all its connections.
pub(crate) struct Plane {
    pub(crate) shared: Arc<Shared>,
    pub(crate) signed: mpsc::Receiver<Signed>,
    sessions: mpsc::Receiver<Session>,
    dead: CancellationToken,
}

/// What the services and the test share.
pub(crate) struct Shared {
    ca: Ca,
    /// Seconds a certificate lives, and until it is to be renewed.
    pub(crate) life: AtomicU64,
    pub(crate) renew_after: AtomicU64,
    pub(crate) token_spent: AtomicBool,
    signed: mpsc::Sender<Signed>,
    sessions: mpsc::Sender<Session>,
}

/// One call of Sign.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Signed {
    pub(crate) by_certificate: bool,
    pub(crate) public_key: Vec<u8>,
}

/// One stream, in the test's hands.
pub(crate) struct Session {
    requests: Streaming<v1::DiscoveryRequest>,
    responses: mpsc::Sender<Result<v1::DiscoveryResponse, Status>>,
    pub(crate) leaf: Vec<u8>,
}

impl Session {
    pub(crate) async fn next(&mut self) -> Message {
        let message = soon("a message of the sidecar", self.requests.message()).await.unwrap();
        message.and_then(|request| request.message).expect("the stream goes on")
    }

    pub(crate) async fn hello(&mut self) -> v1::Hello {
        match self.next().await {
            Message::Hello(hello) => hello,
            other => panic!("no hello but {other:?}"),
        }
    }

    pub(crate) async fn ack(&mut self) -> v1::Ack {
        match self.next().await {
            Message::Ack(ack) => ack,
            other => panic!("no ack but {other:?}"),
        }
    }

    pub(crate) async fn subscribe(&mut self) -> v1::Subscribe {
        match self.next().await {
            Message::Subscribe(subscribe) => subscribe,
            other => panic!("no subscription but {other:?}"),
        }
    }

    /// The sidecar has closed the stream.
    pub(crate) async fn ended(&mut self) {
        let end = soon("the end of the stream", self.requests.message()).await;
        assert!(!matches!(end, Ok(Some(_))), "the sidecar goes on: {end:?}");
    }

    pub(crate) async fn send(&self, epoch: v1::Epoch) {
        let message = Some(v1::discovery_response::Message::Epoch(epoch));
        self.responses.send(Ok(v1::DiscoveryResponse { message })).await.unwrap();
    }

    pub(crate) async fn later(&self, after: Duration) {
        let after = Some(v1::Span { nanos: after.as_nanos() as u64 });
        let later = v1::RetryAfter { after, reason: "too many of you".to_owned() };
        let message = Some(v1::discovery_response::Message::RetryAfter(later));
        self.responses.send(Ok(v1::DiscoveryResponse { message })).await.unwrap();
    }
}

impl Plane {
    fn start(ca: Ca, identity: &str) -> (Self, mpsc::Sender<TcpStream>) {
        let key = KeyPair::generate().unwrap();
        let leaf = ca.sign(identity, &key, now() + 3600);
        let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut roots = RootCertStore::empty();
        roots.add(ca.root.clone()).unwrap();
        let provider = weft_proxy_net::tls::provider();
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(clients.allow_unauthenticated().build().unwrap())
            .with_single_cert(vec![leaf], private)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let (signed, was_signed) = mpsc::channel(64);
        let (sessions, opened) = mpsc::channel(64);
        let shared = Arc::new(Shared {
            ca,
            life: AtomicU64::new(3600),
            renew_after: AtomicU64::new(1800),
            token_spent: AtomicBool::new(false),
            signed,
            sessions,
        });
        let dead = CancellationToken::new();
        let (connections, accepted) = mpsc::channel(64);
        tokio::spawn(serve(Arc::clone(&shared), Arc::new(tls), accepted, dead.clone()));
        (Self { shared, signed: was_signed, sessions: opened, dead }, connections)
    }

    /// The next stream that a sidecar opens.
    pub(crate) async fn session(&mut self) -> Session {
        soon("a stream", self.sessions.recv()).await.unwrap()
    }

    pub(crate) async fn signed(&mut self) -> Signed {
        soon("a request for a certificate", self.signed.recv()).await.unwrap()
    }

    pub(crate) fn trust(&self) -> v1::Trust {
        self.shared.trust()
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.dead.cancel();
    }
}

async fn serve(
    shared: Arc<Shared>,
    tls: Arc<rustls::ServerConfig>,
    mut accepted: mpsc::Receiver<TcpStream>,
    dead: CancellationToken,
) {
    let (ready, connections) = mpsc::channel::<io::Result<Conn>>(64);
    let acceptor = tokio_rustls::TlsAcceptor::from(tls);
    let token = dead.clone();
    let accepting = async move {
        while let Some(tcp) = accepted.recv().await {
            let (acceptor, ready, dead) = (acceptor.clone(), ready.clone(), token.clone());
            tokio::spawn(async move {
                if let Ok(tls) = acceptor.accept(tcp).await {
                    let _ = ready.send(Ok(Conn { tls, dead: Box::pin(dead.cancelled_owned()) })).await;
                }
            });
        }
    };
    let serving = tonic::transport::Server::builder()
        .add_service(IdentityServer::from_arc(Arc::clone(&shared)))
        .add_service(DiscoveryServer::from_arc(shared))
        .serve_with_incoming(ReceiverStream::new(connections));
    tokio::select! {
        () = dead.cancelled() => {}
        ((), _) = async { tokio::join!(accepting, serving) } => {}
    }
}

/// A connection that breaks when its control plane dies.
struct Conn {
    tls: TlsStream<TcpStream>,
    dead: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// The certificate a connection showed.
#[derive(Clone)]
struct Shown(Option<Vec<u8>>);

impl Connected for Conn {
    type ConnectInfo = Shown;

    fn connect_info(&self) -> Shown {
        let chain = self.tls.get_ref().1.peer_certificates();
        Shown(chain.and_then(|chain| chain.first()).map(|leaf| leaf.to_vec()))
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.dead.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

impl Shared {
    fn trust(&self) -> v1::Trust {
        v1::Trust { trust_domain: "cluster.local".to_owned(), roots: vec![self.ca.root.to_vec().into()] }
    }
}

#[tonic::async_trait]
impl Identity for Shared {
    async fn sign(&self, request: Request<v1::SignRequest>) -> Result<Response<v1::SignResponse>, Status> {
        let by_certificate = request.extensions().get::<Shown>().is_some_and(|shown| shown.0.is_some());
        let asked = request.into_inner();
        let der = CertificateSigningRequestDer::from(asked.csr.to_vec());
        let csr = CertificateSigningRequestParams::from_der(&der)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let public_key = csr.public_key.der_bytes().to_vec();
        let _ = self.signed.send(Signed { by_certificate, public_key }).await;
        let by_token = asked.token == TOKEN && !self.token_spent.load(Ordering::SeqCst);
        if !by_certificate && !by_token {
            return Err(Status::unauthenticated("the join token is not known here"));
        }
        let not_after = now() + self.life.load(Ordering::SeqCst);
        let leaf = self.ca.sign("spiffe://cluster.local/ns/shop/sa/cart", &csr.public_key, not_after);
        Ok(Response::new(v1::SignResponse {
            chain: vec![leaf.to_vec().into()],
            trust: Some(self.trust()),
            not_after,
            renew_after: now() + self.renew_after.load(Ordering::SeqCst),
        }))
    }
}

#[tonic::async_trait]
impl Discovery for Shared {
    type StreamStream = ReceiverStream<Result<v1::DiscoveryResponse, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let leaf = request.extensions().get::<Shown>().and_then(|shown| shown.0.clone());
        let leaf = leaf.ok_or_else(|| Status::unauthenticated("show a certificate"))?;
        let (responses, stream) = mpsc::channel(16);
        let _ = self.sessions.send(Session { requests: request.into_inner(), responses, leaf }).await;
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
