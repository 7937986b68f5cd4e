//! Asks the control plane for a certificate, as a sidecar does or as a thief would.
//!
//! Invariant: it trusts any server: what is tried out is what the server refuses, not the other way round.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384};
use rustls_pki_types::ServerName;
use serde_json::json;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use weft_proto::v1::SignRequest;
use weft_proto::v1::identity_client::IdentityClient;

use crate::anybody;

/// How long connecting and asking may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is asked for, and with what.
#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    #[arg(long, default_value = "weft-control-plane.weft-system.svc:15010")]
    control_plane: String,
    /// `<namespace>/<pod>`.
    #[arg(long)]
    workload: String,
    #[arg(long, default_value = "")]
    token: String,
    #[arg(long, default_value = "good")]
    csr: Csr,
}

/// What kind of request for a certificate.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Csr {
    Good,
    /// Its public key is somebody else's.
    Forged,
    /// Of another key type than the mesh's.
    OtherKey,
    /// Not one at all.
    Garbage,
}

/// Asks, and tells the answer's code, or the identity that was given.
pub(crate) async fn run(args: &SignArgs) -> anyhow::Result<()> {
    let request = SignRequest {
        csr: args.csr.write()?.into(),
        workload: args.workload.clone(),
        token: args.token.clone(),
    };
    let channel = connect(&args.control_plane).await?;
    let found = match IdentityClient::new(channel).sign(request).await {
        Ok(answer) => {
            let leaf = answer.get_ref().chain.first().cloned().unwrap_or_default();
            json!({"code": "Ok", "identity": identity(&leaf)})
        }
        Err(status) => json!({"code": format!("{:?}", status.code()), "message": status.message()}),
    };
    crate::tell(&found)
}

impl Csr {
    fn write(self) -> anyhow::Result<Vec<u8>> {
        let of =
            |key: &KeyPair| anyhow::Ok(CertificateParams::default().serialize_request(key)?.der().to_vec());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        match self {
            Self::Good => of(&key),
            Self::OtherKey => of(&KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?),
            Self::Garbage => Ok(b"let me in".to_vec()),
            Self::Forged => {
                let (mut csr, victim) = (of(&key)?, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?);
                let own = key.public_key_raw();
                let at = csr
                    .windows(own.len())
                    .position(|window| window == own)
                    .context("the key is in the CSR")?;
                csr.splice(at..at + own.len(), victim.public_key_raw().iter().copied());
                Ok(csr)
            }
        }
    }
}

/// The SPIFFE identity in a certificate: the only URI in there.
fn identity(leaf: &[u8]) -> String {
    let begin = leaf.windows(9).position(|window| window == b"spiffe://").unwrap_or(leaf.len());
    // Behind the tag of a GeneralName stands its length, in one byte below 128. Source: X.690, 8.1.3.4.
    let length = begin.checked_sub(1).and_then(|at| leaf.get(at)).map_or(0, |length| usize::from(*length));
    String::from_utf8_lossy(leaf.get(begin..begin + length).unwrap_or_default()).into_owned()
}

async fn connect(address: &str) -> anyhow::Result<Channel> {
    let (config, address) = (anybody::config(&[b"h2"])?, address.to_owned());
    let connector = tower::service_fn(move |_: http::Uri| {
        let (config, address) = (Arc::clone(&config), address.clone());
        async move {
            let socket = TcpStream::connect(address).await?;
            let name = ServerName::try_from("control-plane.weft").map_err(std::io::Error::other)?;
            let stream = tokio_rustls::TlsConnector::from(config).connect(name, socket).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_static("http://control-plane.weft").timeout(PATIENCE);
    Ok(tokio::time::timeout(PATIENCE, endpoint.connect_with_connector(connector)).await??)
}
