//! A sidecar's side of both services, with real TLS and its own verification of the server.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};
use weft_control_plane::ControlPlane;
use weft_proto::v1;
use weft_proto::v1::discovery_client::DiscoveryClient;
use weft_proto::v1::discovery_request::Message as Request;
use weft_proto::v1::discovery_response::Message as Response;
use weft_proto::v1::identity_client::IdentityClient;

use super::PATIENCE;

/// A certificate chain with its key.
pub struct Held {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: KeyPair,
}

impl Held {
    fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }
}

pub fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

pub fn csr(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

pub fn roots(control_plane: &ControlPlane) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(control_plane.trust_anchors.as_bytes()).map(Result::unwrap).collect()
}

/// Connects, with a certificate if there is one.
pub async fn connect(control_plane: &ControlPlane, held: Option<&Held>) -> Result<Channel, String> {
    let config = config(roots(control_plane), held);
    let address = control_plane.grpc;
    let connector = tower::service_fn(move |_: http::Uri| {
        let config = Arc::clone(&config);
        async move {
            let socket = TcpStream::connect(address).await?;
            let name = ServerName::try_from("control-plane.weft").unwrap();
            let stream = tokio_rustls::TlsConnector::from(config).connect(name, socket).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_static("http://control-plane.weft").timeout(PATIENCE);
    let connecting = endpoint.connect_with_connector(connector);
    tokio::time::timeout(PATIENCE, connecting).await.unwrap().map_err(|error| format!("{error:?}"))
}

pub fn config(roots: Vec<CertificateDer<'static>>, held: Option<&Held>) -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(Spiffe { roots, provider: Arc::clone(&provider) });
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match held {
        Some(held) => builder.with_client_auth_cert(held.chain.clone(), held.private()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// Asks for a certificate with a token.
pub async fn join(control_plane: &ControlPlane, workload: &str, token: &str) -> Result<Held, Status> {
    let key = key();
    let answer = sign(control_plane, None, workload, token, csr(&key)).await?;
    Ok(Held { chain: chain(&answer), key })
}

pub async fn sign(
    control_plane: &ControlPlane,
    held: Option<&Held>,
    workload: &str,
    token: &str,
    csr: Vec<u8>,
) -> Result<v1::SignResponse, Status> {
    let channel = connect(control_plane, held).await.map_err(Status::unknown)?;
    let request = v1::SignRequest { csr: csr.into(), workload: workload.to_owned(), token: token.to_owned() };
    IdentityClient::new(channel).sign(request).await.map(tonic::Response::into_inner)
}

pub fn chain(answer: &v1::SignResponse) -> Vec<CertificateDer<'static>> {
    answer.chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect()
}

/// An open stream.
pub struct Stream {
    requests: mpsc::Sender<v1::DiscoveryRequest>,
    responses: Streaming<v1::DiscoveryResponse>,
}

impl Stream {
    pub async fn open(control_plane: &ControlPlane, held: &Held, hello: v1::Hello) -> Result<Self, Status> {
        let channel = connect(control_plane, Some(held)).await.map_err(Status::unknown)?;
        let (requests, receiver) = mpsc::channel(8);
        let stream = Self::first(&requests, hello);
        stream.await;
        let responses = DiscoveryClient::new(channel)
            .max_decoding_message_size(64 << 20)
            .stream(ReceiverStream::new(receiver))
            .await?
            .into_inner();
        Ok(Self { requests, responses })
    }

    async fn first(requests: &mpsc::Sender<v1::DiscoveryRequest>, hello: v1::Hello) {
        requests.send(v1::DiscoveryRequest { message: Some(Request::Hello(hello)) }).await.unwrap();
    }

    pub async fn send(&self, message: Request) {
        let _ = self.requests.send(v1::DiscoveryRequest { message: Some(message) }).await;
    }

    /// The next message, whatever it is; none: the stream ended well.
    pub async fn next(&mut self) -> Result<Option<Response>, Status> {
        let next = tokio::time::timeout(PATIENCE, self.responses.message()).await.expect("a message in time");
        Ok(next?.map(|response| response.message.expect("a message that is known")))
    }

    pub async fn epoch(&mut self) -> v1::Epoch {
        match self.next().await {
            Ok(Some(Response::Epoch(epoch))) => epoch,
            other => panic!("no epoch: {other:?}"),
        }
    }

    /// The next epoch, acknowledged.
    pub async fn take(&mut self) -> v1::Epoch {
        let epoch = self.epoch().await;
        self.send(Request::Ack(v1::Ack { nonce: epoch.nonce, refusals: Vec::new() })).await;
        epoch
    }

    /// The status with which the stream ends.
    pub async fn end(&mut self) -> Status {
        loop {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended well"),
                Err(status) => return status,
            }
        }
    }

    /// Whether nothing is waiting to be read.
    pub async fn is_silent(&mut self, during: Duration) -> bool {
        tokio::time::timeout(during, self.responses.message()).await.is_err()
    }
}

pub fn hello(workload: &str, subscriptions: Vec<v1::Key>) -> v1::Hello {
    v1::Hello {
        workload: workload.to_owned(),
        version: "0.1.0".to_owned(),
        subscriptions,
        ..v1::Hello::default()
    }
}

pub fn outbound(name: &str) -> v1::Key {
    v1::Key { r#type: v1::ResourceType::Outbound.into(), name: name.to_owned() }
}

/// Names of an epoch's resources, "TYPE name".
pub fn names(epoch: &v1::Epoch) -> Vec<String> {
    let name = |key: &v1::Key| {
        let kind = key.r#type().as_str_name().trim_start_matches("RESOURCE_TYPE_");
        format!("{kind} {}", key.name)
    };
    epoch.upserts.iter().map(|resource| name(resource.key.as_ref().unwrap())).collect()
}

/// The body of a resource in an epoch.
pub fn body<M: prost::Message + Default>(epoch: &v1::Epoch, kind: v1::ResourceType, name: &str) -> Option<M> {
    let is_it = |resource: &&v1::Resource| {
        resource.key.as_ref().is_some_and(|key| key.r#type() == kind && key.name == name)
    };
    epoch.upserts.iter().find(is_it).map(|resource| M::decode(resource.body.clone()).unwrap())
}

/// Trusts a server by the chain up to the mesh's root and the control plane's identity.
#[derive(Debug)]
struct Spiffe {
    roots: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Spiffe {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let bad = |error: webpki::Error| rustls::Error::General(error.to_string());
        let anchors: Vec<_> =
            self.roots.iter().map(|root| webpki::anchor_from_trusted_cert(root).unwrap()).collect();
        let leaf = webpki::EndEntityCert::try_from(end_entity).map_err(bad)?;
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            intermediates,
            now,
            webpki::KeyUsage::server_auth(),
            None,
            None,
        )
        .map_err(bad)?;
        let names: Vec<&str> = leaf.valid_uri_names().collect();
        match names.as_slice() {
            ["spiffe://cluster.local/ns/weft-system/sa/weft-control-plane"] => {
                Ok(ServerCertVerified::assertion())
            }
            other => Err(rustls::Error::General(format!("not the control plane: {other:?}"))),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
